"""The loop over given rows: their order, evaluation, early stopping, the final model, and resuming."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reasoner.algorithm.batch import Batch
from reasoner.config.load import resolve
from reasoner.data.encode import batch_of
from reasoner.data.rows import Encoded
from reasoner.errors import Interrupted
from reasoner.records import Estimate
from reasoner.session.opening import open_session
from reasoner.session.session import Session
from reasoner.stages.sft import negative_log_likelihood
from reasoner.stages.supervised import Lesson, Validation, supervise
from verifiers import JSON

ITEMS = range(10)


@contextmanager
def opened(folder: Path, *, resume: bool = False, steps: int = 6, every: int = 1) -> Iterator[Session]:
    """A stage that samples nothing."""
    raw = {
        "method": "sft",
        "steps": steps,
        "task": {"name": "arithmetic", "options": {"digits": 1}},
        "model": {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 64}},
        "optim": {"lr": 1e-2},
        "eval": {"problems": 0, "every": every},
        "checkpoint": {"every": 1, "keep": 99},
        "logging": {"tensorboard": False},
    }
    with open_session(resolve(raw).stages[0], folder, resume=resume) as session:
        yield session


class Script:
    """A lesson on ten rows with given held-out losses; it records the rows of every step."""

    def __init__(self, losses: Sequence[float] = (), **options: object) -> None:
        self.taken: list[list[int]] = []
        self._losses = iter(losses)
        self.lesson: Lesson[int] = Lesson(
            items=ITEMS,
            items_per_step=4,
            batch=self._batch,
            objective=lambda batch: negative_log_likelihood,
            evaluate=self._evaluate if losses else None,
            **options,  # type: ignore[arg-type]
        )

    def _batch(self, items: Sequence[int]) -> Batch:
        self.taken.append(list(items))
        rows = [Encoded(id=str(n), prompt_ids=(n,), completion_ids=(n + 20, 9), loss_mask=(True, True)) for n in items]
        return batch_of(rows)

    def _evaluate(self) -> Validation:
        loss = next(self._losses)
        return Validation(loss, {"row_loss": Estimate(loss, loss - 1, loss + 1)}, {"rows": 3})


def lines(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def same_weights(model: Path, checkpoint: Path) -> bool:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (model, checkpoint / "model"))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def step_folder(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:06d}"


def test_every_row_once_an_epoch_and_each_epoch_in_an_order_of_its_own(tmp_path: Path) -> None:
    script = Script()
    with opened(tmp_path, steps=5) as session:
        assert not supervise(session, script.lesson)
    assert [len(items) for items in script.taken] == [4] * 5
    drawn = [item for items in script.taken for item in items]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(ITEMS)
    assert list(ITEMS) != drawn[:10] != drawn[10:]
    rows = lines(tmp_path, "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["data/epoch"] for row in rows] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rows[-1]["optim/loss"] < rows[0]["optim/loss"], "it descends"


def test_without_shuffling_the_rows_come_as_they_are_given(tmp_path: Path) -> None:
    script = Script(shuffle=False)
    with opened(tmp_path, steps=3) as session:
        supervise(session, script.lesson)
    assert [row for rows in script.taken for row in rows] == [*range(10), 0, 1]


def test_a_stage_that_was_interrupted_goes_on_with_the_rows_that_come_next(tmp_path: Path) -> None:
    whole, first, second = Script(), Script(), Script()
    with opened(tmp_path / "whole", every=0) as session:
        supervise(session, whole.lesson)

    def ask(step: int, metrics: dict[str, float]) -> bool:
        session.interrupted = step == 4
        return False

    first = Script(enough=ask)
    with opened(tmp_path / "cut", every=0) as session, pytest.raises(Interrupted):
        supervise(session, first.lesson)
    with opened(tmp_path / "cut", every=0, resume=True) as session:
        assert not supervise(session, second.lesson)
    assert first.taken + second.taken == whole.taken
    assert len(second.taken) == 2
    assert same_weights(step_folder(tmp_path / "cut", 6) / "model", step_folder(tmp_path / "whole", 6))
    assert not same_weights(step_folder(tmp_path / "cut", 5) / "model", step_folder(tmp_path / "whole", 6))


@pytest.mark.parametrize(("every", "steps"), [(0, [0, 5]), (2, [0, 2, 4, 5]), (1, [0, 1, 2, 3, 4, 5])])
def test_it_evaluates_before_in_between_and_after(tmp_path: Path, every: int, steps: list[int]) -> None:
    losses = [9.0 - n for n in range(len(steps))]
    with opened(tmp_path, steps=5, every=every) as session:
        supervise(session, Script(losses).lesson)
    found = lines(tmp_path, "evals.jsonl")
    assert [row["step"] for row in found] == steps
    assert [row["metrics"]["row_loss"] for row in found] == [[loss, loss - 1, loss + 1] for loss in losses]
    assert {row["rows"] for row in found} == {3}
    logged = {row["step"]: row["eval/loss"] for row in lines(tmp_path, "metrics.jsonl") if "eval/loss" in row}
    assert logged == dict(zip(steps[1:], losses[1:], strict=True))


@pytest.mark.parametrize(
    ("losses", "last", "best"),
    [
        ([5.0, 4.0, 4.5, 4.2], 3, 1),
        ([5.0, 4.0, 4.0, 4.0], 3, 1),
        ([5.0, 6.0, 4.0, 4.5, 3.0, 3.5, 3.1], 6, 4),
        ([5.0, 4.0, float("nan"), float("inf")], 3, 1),
    ],
    ids=["worse", "as good is no better", "patience begins anew", "not finite"],
)
def test_out_of_patience_it_ends_with_the_best_model(tmp_path: Path, losses: list[float], last: int, best: int) -> None:
    with opened(tmp_path) as session:
        assert supervise(session, Script(losses, patience=2).lesson)
        session.finish()
    assert [row["step"] for row in lines(tmp_path, "metrics.jsonl")] == list(range(1, last + 1))
    assert same_weights(tmp_path / "final", step_folder(tmp_path, best))
    assert not same_weights(tmp_path / "final", step_folder(tmp_path, last))
    done = json.loads((tmp_path / "done.json").read_text())
    assert done["before"]["row_loss"][0] == 5.0
    assert done["after"]["row_loss"] == [losses[best], losses[best] - 1, losses[best] + 1]


def test_the_last_model_stays_where_it_is_the_best_or_nobody_asked_for_patience(tmp_path: Path) -> None:
    for name, losses, options in (
        ("best is last", [5.0, 4.0, 3.0, 2.0], {"patience": 1}),
        ("no patience", [1.0, 2.0, 3.0, 4.0], {}),
    ):
        folder = tmp_path / name
        with opened(folder, steps=3) as session:
            assert not supervise(session, Script(losses, **options).lesson)
            session.finish()
        assert same_weights(folder / "final", step_folder(folder, 3))
        assert json.loads((folder / "done.json").read_text())["after"]["row_loss"][0] == losses[3]


def test_enough_ends_it_and_its_figures_are_logged(tmp_path: Path) -> None:
    def enough(step: int, metrics: dict[str, float]) -> bool:
        metrics["check/accuracy"] = step / 10
        return metrics["check/accuracy"] >= 0.2

    with opened(tmp_path) as session:
        assert supervise(session, Script(enough=enough).lesson)
        assert session.step == 2
    assert [row["check/accuracy"] for row in lines(tmp_path, "metrics.jsonl")] == [0.1, 0.2]


@pytest.mark.parametrize("why", ["enough", "patience"])
def test_a_stage_that_ended_early_has_ended_after_a_resume_too(tmp_path: Path, why: str) -> None:
    ends: dict[str, Callable[[], Script]] = {
        "enough": lambda: Script([5.0, 4.0, 3.0], enough=lambda step, metrics: step == 2),
        "patience": lambda: Script([5.0, 6.0, 7.0], patience=2),
    }
    with opened(tmp_path) as session:
        assert supervise(session, ends[why]().lesson)
        session.finish()
    final = load_file(tmp_path / "final" / "model.safetensors")
    (tmp_path / "done.json").unlink()
    again = ends[why]()
    with opened(tmp_path, resume=True) as session:
        assert supervise(session, again.lesson)
        session.finish()
    assert again.taken == []
    found = load_file(tmp_path / "final" / "model.safetensors")
    assert all(torch.equal(found[name], final[name]) for name in final)
    assert json.loads((tmp_path / "done.json").read_text())["after"]["row_loss"][0] == (3.0 if why == "enough" else 5.0)


def test_patience_is_counted_over_a_resume(tmp_path: Path) -> None:
    def ask(step: int, metrics: dict[str, float]) -> bool:
        session.interrupted = step == 2
        return False

    with opened(tmp_path) as session, pytest.raises(Interrupted):
        supervise(session, Script([5.0, 4.0, 4.5], patience=2, enough=ask).lesson)
    with opened(tmp_path, resume=True) as session:
        assert supervise(session, Script([4.2], patience=2).lesson)
        session.finish()
    assert [row["step"] for row in lines(tmp_path, "evals.jsonl")] == [0, 1, 2, 3]
    assert same_weights(tmp_path / "final", step_folder(tmp_path, 1))


@pytest.mark.parametrize(
    ("losses", "options", "last", "kept"),
    [
        ([5.0, 4.0, 3.0, 2.0], {}, 3, None),
        ([1.0, 2.0, 3.0, 4.0], {}, 3, None),  # no patience: the last model stays
        ([5.0, 4.0, 3.0, 2.0], {"patience": 2}, 3, None),
        ([5.0, 4.0, 4.5, 4.2], {"patience": 2}, 3, "best"),
        ([5.0, 6.0, 7.0], {"patience": 2}, 2, "best"),
    ],
)
def test_the_last_evaluation_tells_more_of_the_model_that_is_kept(
    tmp_path: Path, losses: list[float], options: dict[str, int], last: int, kept: str | None
) -> None:
    asked: list[Path | None] = []

    def at_last(folder: Path | None) -> dict[str, JSON]:
        asked.append(folder)
        return {"more": True}

    with opened(tmp_path, steps=3) as session:
        supervise(session, Script(losses, at_last=at_last, **options).lesson)
    assert asked == [kept and tmp_path / "checkpoints" / kept]
    found = lines(tmp_path, "evals.jsonl")
    assert [row["step"] for row in found if "more" in row] == [last]
    assert found[-1]["step"] == last
