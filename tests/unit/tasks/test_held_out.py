"""A part of the prompts is held out if there is no test split: by prompt, stable, and with a note."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tasks import BadRow, Problem, Task, TaskError
from tasks.held_out import hold_out, prompt_digest
from tasks.registry import get_task

ROWS = [{"prompt": f"{n % 150}+1?", "reference": str(n % 150 + 1)} for n in range(200)]


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def dataset(path: str, **options: object) -> Task:
    return get_task("dataset", path=path, verifier="math", **options)  # pyright: ignore[reportArgumentType]


def prompts(task: Task, split: str) -> set[str]:
    return {str(problem.prompt) for problem in task.problems(split)}


def test_no_prompt_is_on_both_sides_whatever_the_order_and_when_rows_are_added(tmp_path: Path) -> None:
    task = dataset(write(tmp_path / "rows.jsonl", ROWS))
    train, test = prompts(task, "train"), prompts(task, "test")
    assert not train & test
    assert len(train | test) == 150
    assert 5 <= len(test) <= 30
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    assert prompts(dataset(write(tmp_path / "other.jsonl", shuffled)), "test") == test
    more = [{"prompt": f"{n}+2?", "reference": "1"} for n in range(500)]
    assert prompts(dataset(write(tmp_path / "more.jsonl", [*more, *ROWS])), "test") & (train | test) == test


def test_a_folder_with_a_training_split_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    task = dataset(str(tmp_path))
    assert not prompts(task, "train") & prompts(task, "test")
    assert [note for note in task.notes if "10% of its prompts" in note]
    write(tmp_path / "test.jsonl", ROWS[:10])
    task = dataset(str(tmp_path))
    assert (len(task.problems("train")), len(task.problems("test"))) == (200, 10)
    assert not task.notes


def test_a_hub_set_with_a_training_split_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, config: str | None, *, split: str, trust_remote_code: bool) -> list[dict[str, str]]:
        assert not trust_remote_code
        assert split == "train"
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config: ["train"])
    task = dataset("org/set")
    assert not prompts(task, "train") & prompts(task, "test")
    assert len(task.problems("train")) + len(task.problems("test")) == 200


@pytest.mark.parametrize(("share", "sizes"), [(0, (150, 0)), (1, (0, 150))])
def test_none_and_all_can_be_held_out(tmp_path: Path, share: float, sizes: tuple[int, int]) -> None:
    task = dataset(write(tmp_path / "rows.jsonl", ROWS), held_out_share=share)
    assert len(prompts(task, "train")) == sizes[0]
    if share:
        assert len(prompts(task, "test")) == sizes[1]
    else:
        with pytest.raises(TaskError, match=r"no test split, and held_out_share is 0.*eval\.problems: 0"):
            task.problems("test")


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_is_a_share(tmp_path: Path, share: float) -> None:
    with pytest.raises(TaskError, match="held_out_share must be from 0"):
        dataset(write(tmp_path / "rows.jsonl", ROWS), held_out_share=share)


def test_few_prompts_give_one_and_one_prompt_gives_none(tmp_path: Path) -> None:
    for count in range(2, 8):
        task = dataset(write(tmp_path / f"{count}.jsonl", ROWS[:count]))
        assert len(prompts(task, "test")) >= 1
        assert len(prompts(task, "train")) >= 1
    task = dataset(write(tmp_path / "one.jsonl", ROWS[:1] * 5))
    assert len(task.problems("train")) == 5
    with pytest.raises(TaskError, match="not two different prompts"):
        task.problems("test")


def test_rows_that_cannot_be_used_are_named_before_a_missing_test_split(tmp_path: Path) -> None:
    task = dataset(write(tmp_path / "rows.jsonl", [{"question": "1 + 1?", "sum": "2"}] * 3))
    with pytest.raises(TaskError, match=r"3 of 3 rows cannot be used: .*has no"):
        task.problems("test")


def test_the_same_file_is_no_test_split(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(TaskError, match="test_path must be another file than path"):
        dataset(path, test_path=path)


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gsm8k", lambda n: {"question": f"{n}+1?", "answer": f"add\n#### {n + 1}"}),
        ("prontoqa", lambda n: {"question": f"Is {n}?", "answer": [{"text": "The answer is true."}]}),
        ("game24", lambda n: {"question": f"1 1 1 {n}", "answer": [{"text": "The answer is 24 = 24"}]}),
    ],
)
def test_one_file_of_a_task_is_never_both_splits(tmp_path: Path, name: str, row: object) -> None:
    path = write(tmp_path / "rows.jsonl", [row(n) for n in range(100)])  # pyright: ignore[reportCallIssue]
    task = get_task(name, path=path)
    train, test = ({str(problem.prompt) for problem in task.problems(split)} for split in ("train", "test"))
    assert len(train) + len(test) == 100
    assert not train & test
    assert test


def test_null_and_damaged_rows_are_told_apart_and_named(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in ROWS]
    lines[3], lines[8] = '{"prompt": "x?", "reference": null}', '{"prompt": "half'
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    bad = [one for one in dataset(str(tmp_path / "rows.jsonl")).each("train") if isinstance(one, BadRow)]
    assert [row.where.rpartition("/")[2] for row in bad] == ["rows.jsonl line 4", "rows.jsonl line 9"]
    assert "has no value in column 'reference'" in bad[0].reason
    assert "must be JSON" in bad[1].reason
    found = [one for split in ("train", "test") for one in dataset(str(tmp_path / "rows.jsonl")).problems(split)]
    assert len(found) == 198


def test_what_counts_as_the_same_prompt() -> None:
    chat = ({"role": "user", "content": "Add 2\nand 2."},)
    assert prompt_digest(chat) == prompt_digest("add 2 and 2.")  # pyright: ignore[reportArgumentType]
    assert prompt_digest("2+2") != prompt_digest("2+ 2")
    held = hold_out([f"{n}?" for n in range(50)], 0.2)
    assert held is not None
    assert held.tests(" 7? ") == held.tests("7?")


def test_problems_of_held_out_rows_say_so(tmp_path: Path) -> None:
    task = dataset(write(tmp_path / "rows.jsonl", ROWS))
    ids = {split: [one.id for one in task.each(split) if isinstance(one, Problem)] for split in ("train", "test")}
    assert all(name.startswith(f"{split}/") for split, names in ids.items() for name in names)
