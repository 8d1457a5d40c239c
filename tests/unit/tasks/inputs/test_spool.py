"""Sequences whose items are in a temporary file: the results of a list, in the memory of a few items."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import pytest

from tasks.base import Problem, TaskError
from tasks.inputs import open_file
from tasks.inputs.spool import Joined, Picked, Spool

ITEMS = [{"n": n, "text": "\udc80é" * n} for n in range(10)]


def test_a_spool_is_read_as_a_list_is() -> None:
    spool = Spool(ITEMS[:4])
    assert [*spool] == ITEMS[:4]
    for item in ITEMS[4:]:  # after it was read
        spool.append(item)
    assert (len(spool), spool[-1], spool[3]) == (10, ITEMS[-1], ITEMS[3])
    assert [*spool[2:9:3]] == ITEMS[2:9:3]
    assert [*spool[:-3][::-1]] == ITEMS[:-3][::-1]
    assert [*spool[20:]] == []
    for place in (10, -11):
        with pytest.raises(IndexError):
            spool[place]


def test_items_come_back_as_they_were() -> None:
    problem = Problem(id="1", prompt=({"role": "user", "content": "?"},), reference=[1, (2,)], verifier="exact")  # type: ignore[list-item]
    (found,) = Spool([problem])
    assert repr(found) == repr(problem)
    assert found == problem


def test_some_of_several() -> None:
    parts = [Spool(ITEMS[:3]), [], Spool(ITEMS[3:])]
    whole = Joined(parts)
    assert [*whole] == ITEMS
    assert [whole[place] for place in range(-10, 10)] == ITEMS * 2
    some = Picked(whole, [7, 2, 2])
    assert [*some] == [ITEMS[7], ITEMS[2], ITEMS[2]]
    assert (some[-1], len(some[1:])) == (ITEMS[2], 2)
    assert not Joined[object]([])


def test_many_items_are_in_no_memory() -> None:
    tracemalloc.start()
    spool = Spool(f"{n}" + "x" * 100_000 for n in range(200))
    picked = Picked(Joined([spool, spool[:50]]), range(0, 250, 2))
    assert sum(map(len, picked)) > 12_000_000
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda prefix: Path("/dev/full").open("r+b", buffering=0))
    with pytest.raises(TaskError, match=r"must have room for the rows.*Set TMPDIR"):
        Spool(["a"])


def test_rows_of_a_text_file_by_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3\n5,6\n")
    source = open_file(path)
    assert source.at(2).row == {"a": "5", "b": "6"}
    assert (source.at(1).row, source.at(1).number, source.count()) == (None, 3, 3)
