"""Contest problems: CodeContests (arXiv:2203.07814), open-r1/codeforces, SYNTHETIC-1 and verifiable-coding-problems."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tasks.code_sets.rows import STDIO, CodeProblem, Row, encoded, fenced, items, mapping, pairs, text, unpacked
from tasks.inputs.formats import NothingToGrade, UnfitRow
from verifiers import JSON
from verifiers.code.references import KINDS, MAX_SECONDS
from verifiers.jsonl import is_list, is_object

CONTEST_SECONDS = 10.0
"""Default time per case. Source: google-deepmind/code_contests, execution/tester_sandboxer.h, fa7a4f8: TestOptions."""
CONTEST_RULES: Mapping[str, JSON] = {"compare": "words", "any_case": True}
CONTEST_TOLERANCE: Mapping[str, JSON] = {"absolute": math.nextafter(1e-5, 0), "integers": True}
"""Comparison of outputs. Source: the same, tester_sandboxer.cc: words, ignoring case; numbers less than 1e-5 apart are
equal, integers included.
"""
CONTEST_TESTS = ("public_tests", "private_tests", "generated_tests")
PYTHON3 = 3
"""The language number of Python 3 solutions. Source: contest_problem.proto."""


def read_code_contests(row: Row) -> CodeProblem:
    """Read a row of deepmind/code_contests."""
    found = [
        pair for name in CONTEST_TESTS if _any(row.get(name)) for pair in pairs(row[name], "input", "output", name)
    ]
    if not found:
        raise NothingToGrade(f"has no case in {', '.join(CONTEST_TESTS)}")
    return CodeProblem(
        problem=text(row, "description"),
        reference={
            "cases": [{"input": str(given), "output": str(output)} for given, output in found],
            **CONTEST_RULES,
            "tolerance": {**CONTEST_TOLERANCE},
            "seconds_per_case": CONTEST_SECONDS,
            **_files(row.get("input_file"), row.get("output_file")),
        },
        solution=_python_solution(row.get("solutions")),
        instruction=STDIO,
    )


def _any(group: object) -> bool:
    return is_object(group) and bool(group.get("input"))


def _python_solution(group: object) -> str | None:
    if not is_object(group):
        return None
    languages, programs = group.get("language"), group.get("solution")
    if not is_list(languages) or not is_list(programs):
        return None
    found = (str(program) for language, program in zip(languages, programs, strict=False) if language == PYTHON3)
    return next(map(fenced, found), None)


def read_codeforces(row: Row) -> CodeProblem:
    """Read a row of open-r1/codeforces, without its generated tests, which are in separate files."""
    if row.get("interaction_format"):
        raise NothingToGrade("is interactive, which is not supported")
    by_file = row.get("input_mode") == "file"
    checker = row.get("generated_checker")
    if not row.get("official_tests"):
        raise NothingToGrade("has no tests: column 'official_tests' is empty")
    tests = [case for case in items(row["official_tests"], "official_tests") if is_object(case)]
    limit = row.get("time_limit")
    seconds = float(limit) if isinstance(limit, int | float) and limit > 0 else 1.0
    return CodeProblem(
        problem=_statement(row),
        reference={
            "cases": [{"input": _unix(case.get("input")), "output": _unix(case.get("output"))} for case in tests],
            "compare": "words",
            "any_case": ["yes", "no"],
            "seconds_per_case": min(seconds, MAX_SECONDS),
            **(_files("input.txt", "output.txt") if by_file else {}),
            **(_offered("checker", str(checker), "has many right answers, which a checker decides") if checker else {}),
        },
        instruction=STDIO,
    )


def _files(given: object, printed: object) -> dict[str, JSON]:
    """Return the `files` field for programs that read or write a file by name; empty for other programs."""
    names: dict[str, JSON] = {kind: str(name) for kind, name in (("input", given), ("output", printed)) if name}
    return _offered("files", names, "reads or writes a file by name") if names else {}


def _offered(field: str, value: JSON, why: str) -> dict[str, JSON]:
    """Return {field: value} if references made of test cases support that field.

    Raises:
        NothingToGrade: they do not; the message contains `why`, the reason for which the row needs the field.
    """
    if field not in KINDS["cases"]:
        raise NothingToGrade(f"{why}, which is not supported")
    return {field: value}


def _unix(value: JSON) -> str:
    return str(value if value is not None else "").replace("\r\n", "\n")


def _statement(row: Row) -> str:
    parts = [str(row.get("title") or ""), text(row, "description")]
    titled = {"Input": "input_format", "Output": "output_format", "Note": "note"}
    parts += [f"{title}\n{row[column]}" for title, column in titled.items() if row.get(column)]
    examples = row.get("examples")
    for example in examples if is_list(examples) else []:
        if is_object(example):
            parts.append(f"Example input\n{example.get('input')}\nExample output\n{example.get('output')}")
    return "\n\n".join(part.strip() for part in parts if part.strip())


def read_synthetic(row: Row) -> CodeProblem:
    """Read a row of PrimeIntellect/SYNTHETIC-1, its verifiable-coding-problems, or open-r1's copies of these."""
    info = mapping(row.get("verification_info"), "verification_info")
    language = str(info.get("language") or "python")
    if language != "python":
        raise NothingToGrade(f"asks for {language}; only rows that ask for Python are read")
    tests = [mapping(test, "a test case") for test in items(info.get("test_cases"), "test_cases")]
    name = "problem_statement" if row.get("problem_statement") else "prompt"
    solution = row.get("gold_standard_solution")
    calls = all(test.get("type") == "function_call" for test in tests)
    return CodeProblem(
        problem=text(row, name),
        reference=_called(tests) if calls else _printed(tests),
        solution=str(solution) if solution and "```" in str(solution) else fenced(str(solution)) if solution else None,
        instruction="{problem}" if name == "prompt" else "{problem}\n\nAnswer with one fenced Python block.",
    )


def _printed(tests: list[Mapping[str, JSON]]) -> dict[str, JSON]:
    cases: list[JSON] = [{"input": str(test.get("input")), "output": str(test.get("output"))} for test in tests]
    return {"cases": cases, "compare": "trimmed"}


def _called(tests: list[Mapping[str, JSON]]) -> dict[str, JSON]:
    """Build a reference of kind calls; all test cases of a row must name the same function."""
    names = {str(test.get("fn_name")) for test in tests}
    if len(names) != 1:
        raise UnfitRow(f"calls several functions in its cases: {', '.join(sorted(names))}")
    calls: list[JSON] = []
    for test in tests:
        given = unpacked(test.get("input"), "an input")
        if not is_list(given):
            raise UnfitRow(f"has an input of a function that is not a list of arguments: {given!r:.80}")
        calls.append({"args": [encoded(one, "an argument") for one in given], "expected": str(test.get("output"))})
    return {"entry_point": names.pop(), "calls": calls, "compare": "printed", "imports": "typing"}
