"""APPS (arXiv:2105.09938), TACO (arXiv:2312.14852) and code rows of Eurus-2 (arXiv:2502.01456): inputs and outputs.

All have the layout {inputs, outputs, fn_name?}. Without fn_name, inputs and outputs are texts or lists of lines, for a
program; with fn_name, inputs are lists of arguments.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from tasks.code_sets.rows import (
    FUNCTION,
    STDIO,
    CodeProblem,
    Row,
    encoded,
    first_solution,
    items,
    mapping,
    pairs,
    text,
)
from tasks.inputs.formats import NothingToGrade, UnfitRow
from verifiers import JSON
from verifiers.jsonl import is_list, is_object

SECONDS = 4.0
"""CPU seconds per case. Source: hendrycks/apps, eval/testing_util.py, 362aedc; FlagOpen/TACO, metrics/testing_util.py,
245eba3.
"""
EURUS_SECONDS, EURUS_CASES = 6.0, 10
"""CPU seconds per case, and number of cases run. Source: PRIME-RL/PRIME, code_util, 18ad596: if not all cases pass in
one run, the first ten decide, each run on its own.
"""


def read_apps(row: Row) -> CodeProblem:
    """Read a row of codeparrot/apps."""
    return _read(row, "apps")


def read_taco(row: Row) -> CodeProblem:
    """Read a row of BAAI/TACO."""
    return _read(row, "taco")


def _read(row: Row, compare: str) -> CodeProblem:
    if not row.get("input_output"):
        raise NothingToGrade("has no tests: column 'input_output' is empty")
    problem, starter = text(row, "question"), str(row.get("starter_code") or "").strip()
    if starter:
        problem = f"{problem.strip()}\n\nComplete this:\n```python\n{starter}\n```"
    group = mapping(row["input_output"], "input_output")
    reference = _reference(group, {"compare": compare, "imports": "apps", "seconds_per_case": SECONDS})
    return CodeProblem(
        problem=problem,
        reference=reference,
        solution=first_solution(row.get("solutions")),
        instruction=FUNCTION if "calls" in reference else STDIO,
    )


def read_eurus(row: Row) -> CodeProblem:
    """Read a code row of PRIME-RL/Eurus-2-RL-Data, whose tests are JSON in reward_model.ground_truth."""
    truth = mapping(row.get("reward_model"), "reward_model").get("ground_truth")
    group = dict(mapping(truth, "reward_model.ground_truth"))
    for name in ("inputs", "outputs"):
        group[name] = items(group.get(name), name)[:EURUS_CASES]
    if group.get("fn_name"):
        group["inputs"] = [[*map(_parsed, str(value).split("\n"))] for value in items(group["inputs"], "inputs")]
        group["outputs"] = [*map(_parsed, items(group["outputs"], "outputs"))]
    prompt = row.get("prompt")
    if (not isinstance(prompt, str) and not is_list(prompt)) or not prompt:
        raise UnfitRow(f"has neither text nor messages in column 'prompt'; got {prompt!r:.80}")
    return CodeProblem(
        problem=prompt if isinstance(prompt, str) else [*prompt],
        reference=_reference(group, {"compare": "eurus", "imports": "eurus", "seconds_per_case": EURUS_SECONDS}),
        instruction="{problem}",
    )


def _parsed(value: JSON) -> JSON:
    """Parse JSON in text; return any other value unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UnfitRow(f"has no JSON in an input or output of a function: {error}"[:300]) from None


def _reference(group: Mapping[str, JSON], rules: dict[str, JSON]) -> dict[str, JSON]:
    found = pairs(group, "inputs", "outputs", "the tests")
    name = group.get("fn_name")
    if name:
        calls: list[JSON] = [_call(given, expected) for given, expected in found]
        return {"entry_point": str(name), "calls": calls, **rules, "compare": "wrapped"}
    cases: list[JSON] = [{"input": _joined(given), "output": _joined(expected)} for given, expected in found]
    return {"cases": cases, **rules}


def _joined(value: JSON) -> str:
    """Return a text as it is, or a list of lines as one text."""
    if is_list(value):
        return "\n".join(map(str, value))
    if not isinstance(value, str):
        raise UnfitRow(f"has an input or output of a program that is neither text nor a list of lines: {value!r:.80}")
    return value


def _call(given: JSON, expected: JSON) -> JSON:
    if not is_list(given):
        raise UnfitRow(f"has an input of a function that is not a list of arguments: {given!r:.80}")
    arguments = [_numbered(given[0]), *given[1:]] if given else given
    wanted: object = expected
    if is_object(expected) and (numbered := _numbered(expected)) is not expected:
        wanted = [numbered]
    elif is_list(expected) and expected and is_object(expected[0]):
        wanted = [*map(_numbered, expected)]
    return {"args": [encoded(one, "an argument") for one in arguments], "expected": encoded(wanted, "an output")}


def _numbered(value: object) -> object:
    """Return an object with integers as keys if all its names are integers (JSON turns integer keys into text)."""
    if not is_object(value):
        return value
    try:
        return {int(key): item for key, item in value.items()}
    except ValueError:
        return value
