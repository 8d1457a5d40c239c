"""The mutation run's own bookkeeping: what it leaves alone, how it names a mutant, and what it counts."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = '''"""Text."""

LIMIT: int = 3


class Box:
    @property
    def size(self) -> int | None:
        return LIMIT

    def more(self, a: float | int, b: float = 0.5) -> float:
        if a > b:
            raise ValueError(f"{a + 1} must be above {b}")
        return a + b
'''


@pytest.fixture(scope="module")
def program() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("mutation", ROOT / "benchmarks" / "mutation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutation"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutation"]


def test_the_modules_and_tests_that_it_names_are_there(program: ModuleType) -> None:
    for module, tests in program.TESTS.items():
        assert (ROOT / module).is_file()
        for test in tests:
            file, _, name = test.partition("::")
            assert f"def {name}" in (ROOT / file).read_text()


def test_every_entry_of_the_kept_list_has_a_reason(program: ModuleType) -> None:
    reasons = program.explained()
    assert {module for module, *_ in reasons} <= set(program.TESTS)
    assert all(old != new for _, _, old, new in reasons)
    assert all(why.strip() for why in reasons.values())


def test_annotations_and_errors_are_left_alone(program: ModuleType) -> None:
    lines = SOURCE.splitlines()
    silent = {lines[first[0] - 1][first[1] : last[1]] for first, last in program._silent(SOURCE) if first[0] == last[0]}
    assert silent == {"int", "int | None", "float | int", "float", 'f"{a + 1} must be above {b}"'}


def test_a_mutant_is_named_by_its_function_and_its_lines(program: ModuleType) -> None:
    changed = SOURCE.replace("a > b", "a >= b")
    assert program._difference(SOURCE, changed) == (12, "if a > b:", "if a >= b:")
    assert program._difference(SOURCE, SOURCE.replace("    @property\n", "")) == (7, "@property", "")
    names = [program._function_at(SOURCE, line) for line in (3, 6, 7, 9, 12)]
    assert names == ["", "Box", "Box.size", "Box.size", "Box.more"]


def test_a_report_counts_and_names_the_unexplained_first(program: ModuleType) -> None:
    def mutant(line: int, new: str):
        return program.Mutant("m.py", line, "f", "old", new, "")

    outcomes = {
        mutant(1, "a"): "killed",
        mutant(2, "b"): "timeout",
        mutant(3, "c"): "survived",
        mutant(4, "d"): "survived",
    }
    found = program.report(outcomes, {("m.py", "f", "old", "c"): "no difference"})
    assert [(one["line"], one["why"]) for one in found.pop("survivors")] == [(4, None), (3, "no difference")]
    assert found == {
        "mutants": 4,
        "killed": 1,
        "timeouts": 1,
        "survived": 2,
        "equivalent": 1,
        "score": 50.0,
        "score_without_equivalent": 66.67,
    }
    assert program.report({}, {})["score"] is None


def test_a_sample_is_that_of_its_seed(program: ModuleType) -> None:
    made = list(range(100))
    few = program.drawn(made, 5, "0 m.py")
    assert few == sorted(few) == program.drawn(made, 5, "0 m.py") != program.drawn(made, 5, "1 m.py")
    assert program.drawn(made, None, "0 m.py") == program.drawn(made, 200, "0 m.py") == made
