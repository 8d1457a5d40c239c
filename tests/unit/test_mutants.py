"""The program that plants small faults: each mutant is one change, and texts are left alone."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''"""Text with 1 number."""

LIMIT: int = 3


def é(a: float, b: float = 0.5) -> float:
    """More text: 1 + 1."""
    if not a < b <= LIMIT and a != -b:
        raise ValueError(f"{a + 1} must be above 2")
    return (a + b) / (
        2  # halves
        - a
    )


def nothing() -> None:
    return None
'''
CHANGES = [
    (3, "3 -> (4)"),
    (6, "0.5 -> (1.5)"),
    (8, "not a < b <= LIMIT and a != -b -> (not a < b <= LIMIT or a != -b)"),
    (8, "not a < b <= LIMIT -> (a < b <= LIMIT)"),
    (8, "a < b <= LIMIT -> (a <= b <= LIMIT)"),
    (8, "a < b <= LIMIT -> (a < b < LIMIT)"),
    (8, "a != -b -> (a == -b)"),
    (8, "-b -> (b)"),
    (10, "return (a + b) / ( 2 # halves - a ) -> return None"),
    (10, "(a + b) / ( 2 # halves - a ) -> ((a + b) * (2 - a))"),
    (10, "a + b -> (a - b)"),
    (11, "2 # halves - a -> (2 + a)"),
    (11, "2 -> (3)"),
]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "benchmarks" / "mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_operator_constant_and_result_is_changed_once(program: ModuleType) -> None:
    found = program.mutants(SOURCE)
    assert sorted((one.line, one.change) for one in found) == sorted(CHANGES)


def test_a_mutant_is_the_source_with_that_change(program: ModuleType) -> None:
    changed = {one.change: one.of(SOURCE) for one in program.mutants(SOURCE)}
    assert changed["0.5 -> (1.5)"] == SOURCE.replace("= 0.5", "= (1.5)")
    assert changed["a + b -> (a - b)"] == SOURCE.replace("return (a + b)", "return ((a - b))")
    assert changed["2 # halves - a -> (2 + a)"] == SOURCE.replace("2  # halves\n        - a", "(2 + a)")
    assert all(ast.dump(ast.parse(one)) != ast.dump(ast.parse(SOURCE)) for one in changed.values())


def test_the_modules_and_tests_that_it_names_are_there(program: ModuleType) -> None:
    for module, tests in program.TESTS.items():
        assert (ROOT / module).is_file()
        assert all((ROOT / test).exists() for test in tests)
