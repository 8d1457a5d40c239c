"""Bad rows of tasks are dropped, counted and named; long prompts are counted, named and left out by option."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.config.stage import StageConfig
from reasoner.data.problems import LOOKED_AT, first_problems, load_problems, with_room
from reasoner.data.rows import BAD_ROWS
from reasoner.model.load import load_model
from tasks import Task

GOOD = [{"prompt": f"{n}+1?", "reference": str(n + 1)} for n in range(40)]
BAD = {
    "null reference": ({"prompt": "a?", "reference": None}, "has no value in column 'reference'"),
    "null prompt": ({"prompt": None, "reference": "1"}, "has no value in column 'prompt'"),
    "no reference": ({"prompt": "b?"}, "has no column 'reference'"),
    "empty prompt": ({"prompt": "  ", "reference": "1"}, "its prompt is empty"),
    "no value": ({"prompt": "c?", "reference": "\\frac{1}{0}"}, "reference must have a value"),
    "answer in it": ({"prompt": "What is 1+1?\nAnswer: 2", "reference": "2"}, "its prompt ends in its answer"),
    "answered": (
        {"prompt": [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "1"}], "reference": "1"},
        "its prompt ends",
    ),
}


def stage(path: str, **task: object) -> StageConfig:
    options = {"path": path, "verifier": "math", "prompt_column": "prompt"}
    section = {"name": "dataset", "options": options, **task}
    return resolve({"method": "grpo", "model": "org/name", "task": section}).stages[0]


def write(path: Path, rows: list[object]) -> str:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_dropped_counted_and_named(tmp_path: Path, name: str) -> None:
    row, reason = BAD[name]
    path = write(tmp_path / "rows.jsonl", [*GOOD[:20], row, *GOOD[20:]])
    loaded = load_problems(stage(path), folder=tmp_path / "run")
    assert {str(problem.prompt) for part in [*loaded.train, *loaded.tested] for problem in part} == {
        row["prompt"] for row in GOOD
    }
    (said,) = [note for note in loaded.notes if "cannot be used" in note]
    assert reason in said
    assert f"They were left out, listed in {tmp_path / 'run' / BAD_ROWS}" in said
    assert reason in (tmp_path / "run" / BAD_ROWS).read_text()


def test_a_damaged_line_is_no_end_of_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*GOOD, '{"prompt": "half\n', "[1]\n"])
    loaded = load_problems(stage(path))
    assert sum(map(len, [*loaded.train, *loaded.tested])) == 40
    assert any("2 of" in note and "rows.jsonl line 41: must be JSON" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("policy", "bad", "says"),
    [
        ("stop", 1, r"task\.bad_rows is 'stop'.*set task\.bad_rows: drop to go on"),
        ("stop", 30, r"set task\.bad_rows: drop_most to go on"),
        ("drop", 30, r"That is \d\d% of the data.*set task\.bad_rows: drop_most"),
        ("drop", 10, None),
        ("drop_most", 30, None),
    ],
)
def test_the_policy_decides(tmp_path: Path, policy: str, bad: int, says: str | None) -> None:
    rows = [*GOOD[:20], *({"prompt": f"x{n}?", "reference": None} for n in range(bad))]
    config = stage(write(tmp_path / "rows.jsonl", rows), bad_rows=policy)
    if says is None:
        assert sum(map(len, load_problems(config).train)) >= 15
        return
    with pytest.raises(ConfigError, match=f"dataset train: {bad} of .* rows cannot be used: .*{says}"):
        load_problems(config)


def test_data_of_another_shape_is_not_read_to_its_end(tmp_path: Path) -> None:
    config = stage(write(tmp_path / "rows.jsonl", [{"text": str(n)} for n in range(3 * LOOKED_AT)]))
    for read in (lambda: load_problems(config), lambda: first_problems(config.task[0], "train")):
        with pytest.raises(ConfigError, match=rf"{LOOKED_AT} of {LOOKED_AT} rows .*None is left"):
            read()


def test_the_first_problems_do_not_judge_what_comes_later(tmp_path: Path) -> None:
    rows: list[object] = [{"prompt": f"x{n}?", "reference": None} for n in range(20)]
    config = stage(write(tmp_path / "rows.jsonl", [*rows, *GOOD, *GOOD]))
    assert len(first_problems(config.task[0], "train", most=5)) == 5


class Long(Task):
    """Prompts of 5 to 50 characters."""

    def problems(self, split: str):
        from tasks import Problem

        return [Problem(id=str(n), prompt="x" * n, reference="1", verifier="math") for n in range(5, 51)]


@pytest.mark.parametrize(
    ("policy", "room", "says"),
    [
        ("stop", 40, r"10 of 46 rows cannot be used.*lower rollout\.max_tokens"),
        ("drop", 40, None),
        ("drop", 20, r"set task\.long_prompts: drop_most"),
        ("drop_most", 20, None),
        ("drop_most", 3, "None is left"),
    ],
)
def test_long_prompts_are_counted_all_named_and_left_out_by_option(
    tmp_path: Path, policy: str, room: int, says: str | None
) -> None:
    section = ModelSection(from_scratch=ScratchConfig(hidden_size=16, layers=1, heads=1))
    _, tokenizer = load_model(section, seed=0)
    task = {"name": "tests.unit.reasoner.data.test_problems:Long", "long_prompts": policy}
    config = resolve(
        {"model": "org/name", "task": task, "rollout": {"max_tokens": 7}, "prompt": {"chat": "never"}}
    ).stages[0]
    parts = [Long().problems("train")]

    def fit():
        return with_room(parts, config, tokenizer, limit=room + 7, folder=tmp_path)

    if says is None:
        kept, notes = fit()
        assert [len(str(problem.prompt)) for problem in kept[0]] == [*range(5, room + 1)]
        assert f"{50 - room} of 46 rows cannot be used" in notes[0]
    else:
        with pytest.raises(ConfigError, match=says):
            fit()
    named = (tmp_path / BAD_ROWS).read_text().splitlines()
    assert len(named) == 50 - max(room, 4)
    assert "must fit the context of" in named[0]
