from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from reasoner.storage.files import RunError
from reasoner.storage.history import metrics_of, read_history, row_of
from tests.unit.reasoner.runs import make_records, write_run


def test_a_line_with_only_what_must_be_there() -> None:
    verdict = {"outcome": "no_answer", "reward": 0.0}
    line = {
        "step": 1,
        "group": 0,
        "sample": 2,
        "problem": "p",
        "completion": "c",
        "tokens": 3,
        "finish_reason": "length",
    }
    row = row_of({**line, "verdict": verdict, "unknown": 1})
    assert (row.place, row.reward, row.verdict_reward, row.truncated, row.right) == ((1, 0, 2), None, 0.0, True, False)
    assert (row.mask, row.logprobs.tolist(), row.token_ids.tolist(), row.policy_version) == (None, [], [], 0)
    with pytest.raises(ValidationError, match=r"verdict\.reward"):
        row_of({**line, "verdict": {"outcome": "no_answer"}})


def test_a_line_of_a_run_as_it_is_read() -> None:
    (written, *_) = make_records(steps=1).rollouts
    row = row_of(written | {"question": "asked", "loss_mask": [1, 0] * 6})
    assert row.question == "asked"
    assert row.mask is not None
    assert row.mask.tolist() == [True, False] * 6
    assert row.logprobs.tolist() == pytest.approx(written["rollout_logprobs"])
    assert (row.outcome, row.reward, row.reason) == (
        written["verdict"]["outcome"],
        written["reward"],
        written["verdict"]["detail"]["reason"],
    )


@pytest.mark.parametrize("record", [{"reward/mean": 1.0}, {"step": None}, {"step": 1, "a": "b"}, {"step": 1, "a": [1]}])
def test_metrics_that_are_no_numbers_are_refused(record: dict) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        metrics_of(record)


def test_evaluations_count_what_they_are_means_of(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_records(steps=2, problems=2))
    sets = {"hard": {"problems": 2}, "easy": {"problems": 5}}
    rows = [
        {"step": 0, "metrics": {"accuracy": [0.5, 0.1, 0.9]}, "loss": 0.6, "pairs": 9},
        {"step": 0, "problems": 7, "metrics": {"pooled/avg@1": [1, 1, 1], "hard/avg@1": [0, 0, 0]}, "sets": sets},
    ]
    (run / "evals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    of_pairs, of_sets = read_history(run).evals
    assert of_pairs.count_behind("accuracy") == of_pairs.count_behind("loss") == 9
    assert (of_sets.count_behind("pooled/avg@1"), of_sets.count_behind("hard/avg@1")) == (7, 2)


@pytest.mark.parametrize("outcome", ["zz", ""])
def test_an_outcome_that_is_none_is_named_with_its_line(outcome: str, tmp_path: Path) -> None:
    write_run(tmp_path, make_records(steps=1, problems=2))
    file = tmp_path / "rollouts.jsonl"
    first, *others = file.read_text().splitlines()
    row = json.loads(first)
    row["verdict"]["outcome"] = outcome
    file.write_text("\n".join([json.dumps(row), *others]) + "\n")
    with pytest.raises(RunError, match=r"rollouts.jsonl line 1 is not a valid record"):
        read_history(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "hole"])
def test_a_file_beside_the_records_that_has_no_end_is_left_out(kind: str, tmp_path: Path) -> None:
    write_run(tmp_path, make_records(steps=1, problems=2))
    file = tmp_path / "environment.json"
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    else:
        with file.open("wb") as opened:
            opened.truncate(6 << 30)
    assert read_history(tmp_path).environment == {}
