"""Rollouts by their place in a file: columns, search, files that grow or are cut, and which texts a report keeps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from reasoner.observe.report.choice import chosen
from reasoner.observe.report.records import Columns, Records, slim
from reasoner.observe.report.texts import SearchError, Texts
from reasoner.storage.history import read_history
from tests.unit.reasoner.observe.view.demo import append, rollout, train, write_demo
from tests.unit.reasoner.runs import make_records, write_run

Open = Callable[[Path], Records]


@pytest.fixture
def opened() -> Iterator[Open]:
    """A function that reads a run's rollouts."""
    with ExitStack() as stack:

        def read(run: Path) -> Records:
            records = Records(run / "rollouts.jsonl", run / "updates.jsonl", searchable=True)
            stack.callback(records.close)
            assert not records.refresh()
            return records

        yield read


def test_columns_and_rows_are_those_of_the_history(tmp_path: Path, opened: Open) -> None:
    run = write_run(tmp_path / "run", make_records(steps=3))
    history, records = read_history(run), opened(run)
    columns = records.columns.to_json()
    assert columns["count"] == len(history.rows) == 144
    for number, row in enumerate(history.rows):
        assert (columns["step"][number], columns["group"][number], columns["sample"][number]) == row.place
        assert columns["problems"][columns["problem"][number]] == row.problem
        assert columns["outcomes"][columns["outcome"][number]] == row.outcome
        assert (columns["reward"][number], columns["tokens"][number]) == (row.reward, row.tokens)
        assert columns["advantage"][number] == (None if row.advantage is None else round(row.advantage, 4))
        assert records.find(row.place) == number
    read, known = records.row(70), history.rows[70]
    assert (read.completion, read.place, read.advantage) == (known.completion, known.place, known.advantage)
    assert read.trainer is not None
    assert known.trainer is not None
    assert read.trainer.tolist() == known.trainer.tolist()
    assert records.settled_rows == 144


@pytest.mark.parametrize(
    "text", ['"token_ids": [1, 2', '{"loss_mask": [3]}', "ends with \\", '\\"prompt_ids\\": [1]', "]", "plain"]
)
def test_text_that_looks_like_a_list_of_numbers_stays(text: str) -> None:
    row = {"a": text, "token_ids": [1, 2, 3], text: 1, "loss_mask": None, "prompt_ids": [], "rollout_logprobs": [-0.5]}
    wanted = {**row, "token_ids": [], "rollout_logprobs": []}
    assert json.loads(slim(json.dumps(row).encode())) == wanted


def test_nested_lists_under_the_same_name_are_read_whole(tmp_path: Path, opened: Open) -> None:
    row = {**rollout(1, 0, 0, "p"), "info": {"token_ids": [[1], [2]]}}
    append(tmp_path / "rollouts.jsonl", [row])
    records = opened(tmp_path)
    assert records.row(0).info == {"token_ids": [[1], [2]]}


def test_a_growing_file_is_read_once_and_its_last_half_line_later(tmp_path: Path, opened: Open) -> None:
    run = write_demo(tmp_path / "run", steps=2, done=False)
    records = opened(run)
    assert len(records.columns) == 16
    before = records.progress[0]
    line = json.dumps(rollout(3, 0, 0, "train/3")).encode()
    with (run / "rollouts.jsonl").open("ab") as file:
        file.write(line[:100])
        file.flush()
        assert not records.refresh()
        assert (len(records.columns), records.progress[0]) == (16, before)
        file.write(line[100:] + b"\n")
    assert not records.refresh()
    assert len(records.columns) == 17
    assert records.columns.to_json(16)["step"] == [3]
    assert records.settled_rows == 16  # its update is not written yet
    append(run / "updates.jsonl", [{"step": 3, "group": 0, "sample": 0, "dropped": "no signal in its group"}])
    records.refresh()
    assert records.settled_rows == 17
    assert records.row(16).dropped == "no signal in its group"


def test_a_file_that_a_resumed_run_cut_is_read_anew(tmp_path: Path, opened: Open) -> None:
    run = write_demo(tmp_path / "run", steps=4, done=False)
    records = opened(run)
    lines = (run / "rollouts.jsonl").read_bytes().splitlines(keepends=True)
    (run / "rollouts.jsonl").write_bytes(b"".join(lines[:8]))
    (run / "updates.jsonl").write_bytes(b"".join((run / "updates.jsonl").read_bytes().splitlines(keepends=True)[:8]))
    train(run, 2)
    train(run, 3)
    train(run, 4)
    train(run, 5)  # longer than before: the size alone would not tell
    records.refresh()
    assert records.generation == 0, "the same bytes are there again"
    (run / "rollouts.jsonl").write_bytes(b"".join(lines[:8]))
    append(run / "rollouts.jsonl", [{**rollout(2, 0, n, "other"), "tokens": 999} for n in range(40)])
    records.refresh()
    assert records.generation == 1
    assert len(records.columns) == 48
    assert records.columns.integers["tokens"][8] == 999
    assert records.texts is not None
    assert len(records.texts.ends) == 48


def test_a_damaged_line_is_named_and_what_is_before_it_is_shown(tmp_path: Path, opened: Open) -> None:
    run = write_demo(tmp_path / "run", steps=1, done=False)
    append(run / "rollouts.jsonl", [{"step": 2}])
    records = opened(run)
    assert len(records.columns) == 8
    assert "rollouts.jsonl line 9 is not a valid record ('verdict' is missing)" in records.damaged
    assert not Records(tmp_path / "missing.jsonl").refresh()


def test_search_finds_rows_by_text_and_by_regular_expression() -> None:
    texts = Texts()
    rows = ["The answer is 12", "needle\nNEEDLE", "", "été 7", "a\0b", "the end"] * 700
    texts.add(rows[:1000])
    texts.add(rows[1000:])
    for wanted in ("the", "NEEDLE", "answer is 1", "été", "zzz", "b"):
        expected = [n for n, row in enumerate(rows) if wanted.lower() in row.replace("\0", " ").lower()]
        assert texts.containing(wanted) == expected, wanted
    assert texts.matching(r"^NEEDLE$") == [n for n, row in enumerate(rows) if "NEEDLE" in row]
    assert texts.matching(r"\w \d$") == [n for n, row in enumerate(rows) if row.startswith("été")]
    assert texts.matching("é.é") == [n for n, row in enumerate(rows) if row.startswith("été")]
    texts.close()


def test_a_regular_expression_that_is_none_or_never_ends_is_refused() -> None:
    texts = Texts()
    texts.add(["a" * 60 + "!"])
    with pytest.raises(SearchError, match="not valid: unterminated"):
        texts.matching("[")
    started = time.monotonic()
    with pytest.raises(SearchError, match=r"took more than 0\.5 s"):
        texts.matching("(a+)+$", seconds=0.5)
    assert time.monotonic() - started < 10
    assert texts.matching("a!") == [0]
    texts.close()


def columns_of(*groups: tuple[int, str]) -> Columns:
    """Return columns with one group of two per (step, outcome)."""
    columns = Columns()
    for number, (step, outcome) in enumerate(groups):
        for sample in range(2):
            row = rollout(step, number, sample, "p")
            columns.add({**row, "verdict": {**row["verdict"], "outcome": outcome}})
    return columns


def test_a_report_keeps_findings_then_the_last_steps_then_failures() -> None:
    columns = columns_of(*((step, "incorrect" if step == 3 else "correct") for step in range(1, 11)))
    assert chosen(columns, most=20) == [*range(20)]
    kept = chosen(columns, most=8, named=[2])
    assert len(kept) == 8
    assert {2, 3} <= set(kept), "the group of the named row"
    assert {18, 19} <= set(kept), "the last step"
    assert {4, 5} <= set(kept), "the group that failed"
    assert chosen(columns, most=1) == []
    assert chosen(columns, most=0) == []
    spread = chosen(columns_of(*((step, "correct") for step in range(1, 41))), most=20)
    assert len(spread) == 20
    assert {0, 79} <= set(spread), "something of the beginning, and the end"


def test_the_columns_of_a_part_follow_those_before() -> None:
    columns = columns_of((1, "correct"), (2, "incorrect"))
    part = columns.to_json(2)
    assert (part["start"], part["count"], part["step"], part["reward"]) == (2, 4, [2, 2], [0.0, 1.0])
    assert part["outcomes"] == ["correct", "incorrect"]
