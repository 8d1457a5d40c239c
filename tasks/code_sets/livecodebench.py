"""LiveCodeBench (Jain et al., arXiv:2403.07974): programs that read and print, and methods of LeetCode's Solution."""

from __future__ import annotations

import json

from tasks.code_sets.rows import FUNCTION, STDIO, CodeProblem, Row, encoded, items, mapping, text, unpacked
from tasks.code_sets.unpickled import unpacked_tests
from tasks.inputs.formats import NothingToGrade, UnfitRow
from verifiers import JSON
from verifiers.jsonl import is_object

SECONDS = 6.0
"""Seconds per case or call. Source: lcb_runner/evaluation/compute_code_generation_metrics.py, 28fef95."""


def read_livecodebench(row: Row) -> CodeProblem:
    """Read a row of livecodebench/code_generation or code_generation_lite."""
    tests = [*_tests(row, "public_test_cases"), *_tests(row, "private_test_cases")]
    if not tests:
        raise NothingToGrade("has no test in columns 'public_test_cases' and 'private_test_cases'")
    metadata = mapping(row.get("metadata") or {}, "metadata")
    name = metadata.get("func_name")
    problem, starter = text(row, "question_content"), str(row.get("starter_code") or "").strip()
    rules: dict[str, JSON] = {"imports": "livecodebench", "seconds_per_case": SECONDS}
    if name is None:
        cases: list[JSON] = [{"input": given, "output": output} for given, output in tests]
        return CodeProblem(
            problem=problem, reference={"cases": cases, "compare": "decimals", **rules}, instruction=STDIO
        )
    calls: list[JSON] = [_call(given, output) for given, output in tests]
    if starter:
        problem = f"{problem.strip()}\n\nComplete this:\n```python\n{starter}\n```"
    return CodeProblem(
        problem=problem,
        reference={"entry_point": str(name), "calls": calls, "compare": "outer", **rules},
        instruction=FUNCTION,
    )


def _tests(row: Row, column: str) -> list[tuple[str, str]]:
    value = row.get(column) or "[]"
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = unpacked(unpacked_tests(value), column)
    found: list[tuple[str, str]] = []
    for test in items(value, column) if value else []:
        if not is_object(test) or not isinstance(test.get("input"), str) or not isinstance(test.get("output"), str):
            raise UnfitRow(f"has a test in {column} without a text input and a text output: {test!r:.80}")
        found.append((str(test["input"]), str(test["output"])))
    return found


def _call(given: str, output: str) -> JSON:
    """Parse a call: `given` has one line of JSON per argument, `output` is the expected value as JSON."""
    try:
        arguments = [json.loads(line) for line in given.split("\n")]
        expected = json.loads(output)
    except (ValueError, RecursionError) as error:
        raise UnfitRow(f"has a test of a function that is not JSON, with a line per argument: {error}"[:300]) from None
    return {"args": [encoded(one, "an argument") for one in arguments], "expected": encoded(expected, "an output")}
