"""Whole steps of a record file, found by bisection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reasoner.storage.files import RunError
from reasoner.storage.history import Most, chosen_steps, step_bounds
from reasoner.storage.step_ranges import StepFile, spread


def write(path: Path, steps: list[int], sizes: list[int], *, end: str = "") -> None:
    rows = [json.dumps({"step": step, "text": "x" * size}) + "\n" for step, size in zip(steps, sizes, strict=True)]
    path.write_text("".join(rows) + end)


@given(data=st.data())
@settings(max_examples=100)
def test_the_lines_of_any_steps_are_those_of_a_full_read(tmp_path_factory: pytest.TempPathFactory, data) -> None:
    path = tmp_path_factory.mktemp("steps") / "rollouts.jsonl"
    steps = sorted(data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=30)))
    sizes = data.draw(st.lists(st.integers(0, 300), min_size=len(steps), max_size=len(steps)))
    write(path, steps, sizes, end=data.draw(st.sampled_from(["", '{"step": 12, "te'])))
    wanted = sorted(data.draw(st.sets(st.integers(0, 14))))
    with StepFile(path) as file:
        assert file.bounds() == (steps[0], steps[-1])
        found = [json.loads(line) for line in file.lines(wanted)]
    assert [(row["step"], len(row["text"])) for row in found] == [
        (step, size) for step, size in zip(steps, sizes, strict=True) if step in wanted
    ]


@given(first=st.integers(0, 50), count=st.integers(1, 200), wanted=st.integers(1, 220))
def test_steps_are_spread_over_begin_middle_and_end(first: int, count: int, wanted: int) -> None:
    last = first + count - 1
    found = spread(first, last, wanted)
    assert found == sorted(set(found))
    assert {found[0], found[-1]} <= {first, last}
    assert all(first <= step <= last for step in found)
    assert len(found) == count if wanted >= count else len(found) <= max(2, wanted)
    if 3 <= wanted < count:
        edge = wanted // 3
        assert {*range(first, first + edge), *range(last - edge + 1, last + 1)} <= set(found)


def test_a_short_file_is_read_whole_and_a_long_one_in_part(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    assert chosen_steps(path, Most(1, 1)) == (None, 0)
    assert step_bounds(path) is None
    write(path, list(range(1, 101)), [50] * 100)
    size = path.stat().st_size
    assert chosen_steps(path, None) == chosen_steps(path, Most(101, size)) == (None, 0)
    for most in (Most(101, size // 10), Most(10, size)):
        steps, left_out = chosen_steps(path, most)
        assert steps is not None
        assert (steps[0], steps[-1]) == (1, 100)
        assert 9 <= len(steps) <= 10
        assert left_out == 100 - len(steps)


@pytest.mark.parametrize("line", ["[1]\n", "x\n", '{"group": 1}\n', '{"step": "1"}\n'])
def test_a_line_without_a_step_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rollouts.jsonl"
    path.write_text(line)
    with pytest.raises(RunError, match="has a line that is not a valid record"):
        step_bounds(path)
