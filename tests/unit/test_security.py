"""SECURITY.md says what is data and what is code; each of its rows names tests, which exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def rows() -> list[list[str]]:
    lines = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_row_names_tests_that_are_there() -> None:
    known = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    for what, is_, may, _, shown in rows():
        named = re.findall(r"`(test_\w+)`", shown)
        assert named, f"{what!r} must name a test"
        assert set(named) <= known, f"{what!r} names {sorted(set(named) - known)}, which are not there"
        assert is_ in ("data", "code"), what
        assert may, what


def test_the_table_speaks_of_everything_that_comes_from_outside() -> None:
    said = " ".join(what for what, *_ in rows())
    for word in (
        "config",
        "models",
        "checkpoints",
        "rows",
        "records",
        "requests",
        "completions",
        "judge",
        "environment",
    ):
        assert word in said
