"""Copies, contradictions and known held-out rows, counted over all rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.preflight.all_rows import AllRows, count_rows, row_sentences
from tasks import Problem
from tasks.registry import get_task
from tests.unit.reasoner.runs import stage


def rows(*pairs: tuple[int, int]) -> list[dict[str, str]]:
    return [{"prompt": f"What is {asked} and one?", "reference": str(answer)} for asked, answer in pairs]


def counted(folder: Path, train: list[dict[str, str]], test: list[dict[str, str]], **changes: object) -> AllRows:
    for name, some in (("train", train), ("test", test)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    options = {"path": f"{folder}/train.jsonl", "test_path": f"{folder}/test.jsonl", "verifier": "exact"}
    config = stage(task={"name": "dataset", "options": options}, **changes)
    parts: list[list[Problem]] = [[*get_task("dataset", **options).problems("train")]]
    return count_rows(parts, config, tests=config.evaluates)


def right(count: int, start: int = 0) -> list[tuple[int, int]]:
    return [(n, n + 1) for n in range(start, start + count)]


def test_rows_are_counted_and_told(tmp_path: Path) -> None:
    found = counted(tmp_path, rows(*right(40), *right(40), *((n, 0) for n in range(10))), rows(*right(6, 36)))
    assert found.to_json() == {
        "train": 90, "prompts": 40, "sharing_a_prompt": 90, "contradicting": 30, "held_out": 6,
        "held_out_in_train": 4, "held_out_near_train": 0,
    }  # fmt: skip
    contradicting, copies, known = row_sentences(found, answers=True)
    assert contradicting.startswith(
        "33 % of the 90 training rows (30) have the prompt of another row and another reference, such as train/0 and"
        " train/80 (100 % of them share their prompt with another row): "
    )
    assert copies.startswith("the 90 training rows have only 40 different prompts (100 % of them share")
    assert known == (
        "4 of the 6 held-out rows have the prompt of a training row (such as test/0): accuracy on them may be memory."
        " Leave them out of the training data."
    )
    assert len([*row_sentences(found, answers=False)]) == 2, "without right answers nothing contradicts"


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (right(60), 0),
        ([*right(60), (0, 9)], 0),  # one wrong label in sixty: as in public data
        ([*right(60), *((n, 9) for n in range(3))], 1),
        ([*right(60), *right(16)], 0),  # some copies
        ([*right(60), *right(32)], 1),
    ],
)
def test_near_misses(tmp_path: Path, train: list[tuple[int, int]], said: int) -> None:
    found = counted(tmp_path, rows(*train), rows(*right(6, 500)))
    assert len([*row_sentences(found, answers=True)]) == said


def test_equal_answers_written_otherwise_are_no_contradiction(tmp_path: Path) -> None:
    written = [{"prompt": f"Half of {n}?", "reference": answer} for n in range(30) for answer in (f"{n}/2", f"{n / 2}")]
    found = counted(tmp_path, written, rows((1, 2)))
    assert (found.repeats.contradicting, found.repeats.sharing) == (0, 60)


def test_held_out_rows_that_differ_in_a_word_are_near(tmp_path: Path) -> None:
    long = "A farmer has {} hens, each of which lays three eggs on every day of the week but Sunday; how many eggs?"
    train = [{"prompt": long.format(7), "reference": "126"}, *rows(*right(40))]
    found = counted(tmp_path, train, [{"prompt": long.format(8), "reference": "144"}])
    (said,) = row_sentences(found, answers=True)
    assert said.startswith("1 of the first 1 held-out rows share half of their words with a training row (such as ")
    quiet = counted(tmp_path, train, [{"prompt": long.format(8), "reference": "1"}], eval={"overlap": "off"})
    assert [*row_sentences(quiet, answers=True)] == []


def test_without_evaluation_nothing_is_read(tmp_path: Path) -> None:
    found = counted(tmp_path, rows(*right(20)), rows(*right(20)), eval={"problems": 0})
    assert found.shared is None
    assert [*row_sentences(found, answers=True)] == []
