from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tasks import TaskError
from tasks.arithmetic import FAMILIES
from tasks.registry import get_task
from tasks.validate import validate_task


def write(path: Path, rows: list[dict[str, object]]) -> str:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


ROWS: list[dict[str, object]] = [{"problem": f"{n}+1?\u2028go", "answer": str(n + 1)} for n in range(20)]


def columns(path: str, **options: object):
    chosen = {"verifier": "math", "prompt_column": "problem", "reference_column": "answer", **options}
    return get_task("dataset", path=path, **chosen)  # pyright: ignore


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_arithmetic_demonstration_is_graded_correct(family: str, split: str) -> None:
    task = get_task("arithmetic", family=family, digits=2, train_size=300, test_size=100)
    found = validate_task(task, split)
    assert found.total >= 100 if split == "train" else found.total >= 9
    assert not found.faults


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_countdown_problem_is_solvable_by_its_own_demonstration(split: str) -> None:
    found = validate_task(get_task("countdown", train_size=100, test_size=50), split)
    assert found.total
    assert not found.faults


def test_splits_of_arithmetic_do_not_meet_and_do_not_depend_on_the_seed() -> None:
    first, second = (get_task("arithmetic", digits=2, seed=seed) for seed in (0, 1))
    train = {problem.prompt for problem in first.problems("train")}
    assert not train & {problem.prompt for problem in second.problems("test")}


def test_a_single_file_is_split_one_row_in_ten(tmp_path: Path) -> None:
    task = columns(write(tmp_path / "rows.jsonl", ROWS))
    train, test = task.problems("train"), task.problems("test")
    assert len(train) == 18
    assert [problem.reference for problem in test] == ["10", "20"]
    assert "\u2028" in train[0].prompt


def test_a_folder_has_a_file_per_split(tmp_path: Path) -> None:
    write(tmp_path / "mine_train.jsonl.gz", ROWS)
    write(tmp_path / "validation.jsonl", ROWS[:3])
    task = columns(str(tmp_path), split_names={"test": "validation"})
    assert (len(task.problems("train")), len(task.problems("test"))) == (20, 3)


def test_parquet_and_json(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    (tmp_path / "test.json").write_text(json.dumps(ROWS[:4]))
    task = columns(str(tmp_path))
    assert (len(task.problems("train")), len(task.problems("test"))) == (20, 4)


def test_chat_messages_and_templates(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"chat": [{"role": "user", "content": "2+2?"}], "answer": "4"}] * 10
    path = write(tmp_path / "rows.jsonl", rows)
    assert columns(path, prompt_column="chat").problems("train")[0].prompt == ({"role": "user", "content": "2+2?"},)
    path = write(tmp_path / "other.jsonl", ROWS)
    assert columns(path, template="Q: {problem} A:").problems("train")[0].prompt == "Q: 0+1?\u2028go A:"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prompt_column": "question"},
            "has no column 'question'. It has: problem, answer. Set task.options.prompt_column",
        ),
        ({"template": "{question}"}, "template '{question}' cannot be filled"),
        ({"path": "./nothing.jsonl"}, "there is no file or folder"),
        ({"promt_column": "x"}, "unexpected keyword argument 'promt_column'. It takes: path, verifier"),
    ],
)
def test_bad_options_say_what_to_do(tmp_path: Path, options: dict[str, str], message: str) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(TaskError) as caught:
        columns(**{"path": path, **options}).problems("train")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"), [("{\n", "line 1 must be JSON"), ("3\n", "line 1 must be a JSON object; got int")]
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(TaskError, match=message):
        columns(str(tmp_path / "rows.jsonl")).problems("train")


def test_gsm8k_names_a_missing_column(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k_train.jsonl", [{"problem": "x", "answer": "#### 1"}])
    with pytest.raises(TaskError, match=r"must have columns question and answer; it lacks question \(it has: problem"):
        get_task("gsm8k", path=str(tmp_path)).problems("train")


def test_unknown_task_suggests_the_closest() -> None:
    with pytest.raises(TaskError, match="Did you mean 'gsm8k'"):
        get_task("gsm8")


@pytest.mark.parametrize(("split", "size"), [("train", 7473), ("test", 1319)])
def test_gsm8k_in_full(data_dir: Path, split: str, size: int) -> None:
    """Every gold can be used, and the worked solution of every problem is graded correct."""
    found = validate_task(get_task("gsm8k", path=str(data_dir / "math")), split)
    assert found.total == size
    assert not found.faults
