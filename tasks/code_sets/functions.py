"""Data sets of functions: HumanEval(+), MBPP(+), LeetCodeDataset, AceCoder, KodCode, CRUXEval."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence

from tasks.code_sets.mbpp_types import rebuilt
from tasks.code_sets.rows import CodeProblem, Row, encoded, fenced, items, text
from tasks.inputs.formats import UnfitRow
from verifiers import JSON
from verifiers.jsonl import is_list

HUMANEVAL_SECONDS = 3.0
"""Seconds for all tests together. Source: openai/human-eval, evaluation.py, 6d43fb9. CRUXEval and LeetCodeDataset have
the same limit.
"""
EVALPLUS_SECONDS = 4.0
"""Seconds per input. Source: evalplus/config.py, 26d6d00, which allows four times the canonical solution's time if that
is more.
"""
EVALPLUS_RELATIVE = 1e-7
ACECODER_SECONDS, ACECODER_TOGETHER = 4.0, 15.0
"""Seconds per test, and for all tests together. Source: TIGER-AI-Lab/AceCoder, evalplus_eval.py, e37ef2a."""
SETS = frozenset(
    {
        "similar_elements",
        "find_char_long",
        "common_in_nested_lists",
        "extract_singly",
        "larg_nnum",
        "intersection_array",
        "find_dissimilar",
        "Diff",
    }
)
NOT_NONE = frozenset({"check_str", "text_match_three", "text_starta_endb"})
"""MBPP+ functions compared as sets of items (SETS), or only by whether they return something (NOT_NONE). Source:
evalplus/eval/_special_oracle.py.
"""
TRUE_OR_NOT = """
_{name} = {name}
def {name}(*args):
    found = _{name}(*args)
    return found if isinstance(found, bool) else found is not None
"""
ROOT = """def check(candidate):
    import math
    for coefficients in {inputs}:
        x = candidate(coefficients)
        assert abs(sum(c * math.pow(x, i) for i, c in enumerate(coefficients))) <= {within}
"""


def read_humaneval(row: Row) -> CodeProblem:
    """Read a row of openai/openai_humaneval."""
    return _complete(row, humaneval_reference(row))


def humaneval_reference(row: Row) -> dict[str, JSON]:
    """Return the reference of a row with a prompt, a check(candidate) and its entry point."""
    return {
        "tests": [text(row, "test")],
        "check": "check",
        "entry_point": text(row, "entry_point"),
        "prelude": text(row, "prompt"),
        "seconds": HUMANEVAL_SECONDS,
    }


def _complete(row: Row, reference: dict[str, JSON]) -> CodeProblem:
    prompt = text(row, "prompt")
    return CodeProblem(
        problem=f"```python\n{prompt.strip()}\n```",
        reference=reference,
        solution=fenced(prompt + str(row["canonical_solution"])) if row.get("canonical_solution") else None,
        instruction="Complete this function. Answer with the whole function in one fenced Python block.\n\n{problem}",
    )


def read_humaneval_plus(row: Row) -> CodeProblem:
    """Read a row of EvalPlus's release of HumanEval+, or of its copy on the hub (evalplus/humanevalplus)."""
    prompt, name = text(row, "prompt"), text(row, "entry_point")
    oracle = prompt + text(row, "canonical_solution")
    inputs, within = _inputs(row)
    if name == "find_zero":  # any root will do
        test = ROOT.format(inputs=repr([arguments[0] for arguments in inputs]), within=within or 1e-4)
        return _complete(row, {**humaneval_reference({**row, "test": test}), "seconds": 4 * EVALPLUS_SECONDS})
    reference = _against(oracle, name, inputs, within)
    return _complete(row, {**reference, "prelude": prompt})


def read_mbpp(row: Row) -> CodeProblem:
    """Read a row of google-research-datasets/mbpp, full (text, test_setup_code) or sanitized (prompt, test_imports)."""
    reference = mbpp_reference(row)
    problem = text(row, "text" if row.get("text") else "prompt")
    return CodeProblem(
        problem=f"{problem.strip()}\nIt is tested like this:\n{items(reference['tests'], 'test_list')[0]}",
        reference=reference,
        solution=fenced(str(row["code"]).replace("\r\n", "\n")),
    )


def mbpp_reference(row: Row) -> dict[str, JSON]:
    """Return the reference of an MBPP row: its assertions, and the set-up code and imports that precede them."""
    tests = [str(test) for test in items(row.get("test_list"), "test_list")]
    lines = [str(row.get("test_setup_code") or ""), *map(str, _listed(row.get("test_imports")))]
    reference: dict[str, JSON] = {"tests": [*tests], "setup": "\n".join(line for line in lines if line)}
    entry = _tested_builtin(text(row, "code").replace("\r\n", "\n"), tests)
    return reference | ({"entry_point": entry} if entry else {})


def _tested_builtin(code: str, tests: Sequence[str]) -> str | None:
    """Return the function that the tests call if it has the name of a built-in one (MBPP 126 asks for `sum`), else
    None.
    """
    defined = {node.name for node in ast.walk(_parsed(code, "code")) if isinstance(node, ast.FunctionDef)}
    trees = [_parsed(test, "test_list") for test in tests]
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return next((name for name in sorted(defined & used) if name in vars(builtins)), None)


def read_mbpp_plus(row: Row) -> CodeProblem:
    """Read a row of EvalPlus's release of MBPP+, or of its copy on the hub (evalplus/mbppplus)."""
    code = text(row, "canonical_solution" if row.get("canonical_solution") else "code")
    inputs, within = _inputs(row)
    if "base_input" in row:
        number = int(text(row, "task_id").rpartition("/")[2])
        inputs = [rebuilt(number, [*arguments]) for arguments in inputs]
    name = str(row.get("entry_point") or _tested(code, str(row.get("test", ""))))
    reference = _against(code, name, inputs, within)
    if name in SETS:
        reference["compare"] = "set"
    if name in NOT_NONE:
        reference |= {"compare": "not_none", "oracle": code + TRUE_OR_NOT.format(name=name)}
    problem, _, assertion = mbpp_plus_docstring(row).partition("\nassert ")
    return CodeProblem(
        problem=f"{problem}\nIt is tested like this:\nassert {assertion}",
        reference=reference,
        solution=fenced(code),
    )


def mbpp_plus_docstring(row: Row) -> str:
    """The text of a problem and one assertion below it: the prompt of MBPP+ 0.2.0, which copies have in two columns.

    Raises:
        UnfitRow: the row has no prompt, or no assertion.
    """
    said = text(row, "prompt").strip().strip("'\"").strip()
    if "\nassert " in said:
        return said
    tests = [row["assertion"]] if row.get("assertion") else items(row.get("test_list"), "test_list")
    assertion = first_assertion("\n".join(map(str, tests)))
    if not assertion:
        raise UnfitRow("has no line that begins with 'assert' in column 'prompt', 'assertion' or 'test_list'")
    return f"{said}\n{assertion}"


def _against(oracle: str, name: str, inputs: Sequence[Sequence[object]], within: float) -> dict[str, JSON]:
    return {
        "entry_point": name,
        "oracle": oracle,
        "inputs": [[encoded(one, "an input") for one in arguments] for arguments in inputs],
        "compare": "evalplus",
        "tolerance": {"absolute": within, "relative": EVALPLUS_RELATIVE},
        "seconds_per_case": EVALPLUS_SECONDS,
    }


def _inputs(row: Row) -> tuple[list[list[JSON]], float]:
    """Return the arguments of each call and the absolute tolerance, from columns or from the test script of the hub's
    copy.
    """
    if "base_input" in row:
        both = [*items(row["base_input"], "base_input"), *_listed(row.get("plus_input"))]
        return [_listed(arguments) for arguments in both], float(str(row.get("atol") or 0))
    tree = _parsed(text(row, "test"), "test")
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "inputs":
            try:
                return [list(arguments) for arguments in ast.literal_eval(node.value)], _within(tree)
            except (ValueError, TypeError, SyntaxError) as error:
                raise UnfitRow(f"has inputs in column 'test' that are not literals: {error}"[:300]) from None
    raise UnfitRow("has no list of inputs in column 'test', and no column 'base_input'")


def _listed(value: object) -> list[JSON]:
    return value if is_list(value) else []


def _parsed(source: str, what: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnfitRow(f"has no Python in column {what!r}: {error}"[:300]) from None


def _within(tree: ast.Module) -> float:
    """Return the last argument of the script's calls of assertion(out, exp, atol); 0 if there is none."""
    for call in _calls(tree):
        if ast.unparse(call.func) == "assertion" and len(call.args) == 3 and isinstance(call.args[2], ast.Constant):
            return float(str(call.args[2].value))
    return 0.0


def first_assertion(tests: str) -> str:
    """Return the first line of a script that starts with `assert`, stripped; "" if there is none."""
    return next((line.strip() for line in tests.split("\n") if line.strip().startswith("assert ")), "")


def _tested(code: str, script: str) -> str:
    """Return the name of the first function of a program that a script calls."""
    defined = {node.name for node in _parsed(code, "code").body if isinstance(node, ast.FunctionDef)}
    called = [ast.unparse(call.func) for call in _calls(_parsed(script, "test"))]
    found = next((name for name in called if name in defined), None)
    if found is None:
        raise UnfitRow("calls no function of column 'code' in column 'test'")
    return found


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def read_leetcode(row: Row) -> CodeProblem:
    """Read a row of newfacade/LeetCodeDataset, whose entry point is a method of class Solution."""
    problem = row.get("query") or text(row, "problem_description")
    starter = str(row.get("starter_code") or "").strip()
    return CodeProblem(
        problem=str(problem) if row.get("query") else f"{problem}\n\nComplete this:\n```python\n{starter}\n```",
        reference=humaneval_reference(row),
        solution=fenced(str(row["completion"])) if row.get("completion") else None,
        instruction="{problem}" if row.get("query") else "{problem}\n\nAnswer with the class in one fenced block.",
    )


def read_acecoder(row: Row) -> CodeProblem:
    """Read a row of TIGER-Lab/AceCode-87K (test_cases) or AceCode-V2-122K (tests)."""
    tests = items(row.get("test_cases") or row.get("tests"), "test_cases")
    seconds = min(ACECODER_TOGETHER, ACECODER_SECONDS * len(tests))
    return CodeProblem(problem=text(row, "question"), reference={"tests": [*map(str, tests)], "seconds": seconds})


def read_kodcode(row: Row) -> CodeProblem:
    """Read a row of KodCode/KodCode-V1, whose test is a pytest file that imports from `solution`."""
    return CodeProblem(
        problem=text(row, "question"),
        reference={"pytest": text(row, "test")},
        solution=fenced(str(row["solution"])) if row.get("solution") else None,
    )


def read_cruxeval(row: Row) -> CodeProblem:
    """Read a row of cruxeval-org/cruxeval; the problem asks for the output."""
    return cruxeval(row, "output")


def read_cruxeval_input(row: Row) -> CodeProblem:
    """Read a row of cruxeval-org/cruxeval; the problem asks for an input."""
    return cruxeval(row, "input")


def cruxeval(row: Row, predict: str) -> CodeProblem:
    """Read a row of CRUXEval (code, input, output); the shown assertion lacks the part that is asked for."""
    code, given, output = text(row, "code"), str(row.get("input", "")), text(row, "output")
    left, right = ("f(??)", output) if predict == "input" else (f"f({given})", "??")
    return CodeProblem(
        problem=f"```python\n{code}\n\nassert {left} == {right}\n```",
        reference={"code": code, "entry_point": "f", "input": given, "output": output, "predict": predict},
        solution=f"[ANSWER]assert f({given}) == {output}[/ANSWER]",
        instruction="Complete the assertion about this function.\n\n{problem}\n\nEnd your answer with"
        " [ANSWER]the whole assertion[/ANSWER].",
    )
