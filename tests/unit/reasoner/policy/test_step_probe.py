"""Distance and direction of a step, against log-probabilities of a plain softmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.objective import Objective, TokenScores, make_objective
from reasoner.config.stage import StageConfig
from reasoner.policy.policy import Policy
from reasoner.policy.step_probe import StepProbe
from tests.unit.reasoner.policy.test_policy import config_with, double_policy, make_batch

ROWS = 32
PROBED = (0, 16)
"""One row in sixteen, evenly spread."""


def stage(*, lr: float = 1e-3, micro_tokens: int = 2000) -> StageConfig:
    config = config_with(importance="none")
    changed = {
        "optim": config.optim.model_copy(update={"lr": lr}),
        "batch": config.batch.model_copy(update={"micro_tokens": micro_tokens}),
    }
    return config.model_copy(update=changed)


def set_up(config: StageConfig, *, rows: int = ROWS) -> tuple[Policy, Batch]:
    """A policy, and rows without log-probabilities of the trainer."""
    return double_policy(config), replace(make_batch(config, rows=rows, group=4), old_logprobs_N=None)


@torch.no_grad()
def plain(policy: Policy, batch: Batch, rows: tuple[int, ...] = PROBED) -> dict[int, Tensor]:
    """Log-probabilities of some rows' completions."""
    found: dict[int, Tensor] = {}
    for row in rows:
        ids = batch.input_ids[row]
        scores = policy.model(ids[None]).logits[0].log_softmax(-1)
        found[row] = torch.stack([scores[at - 1, ids[at]] for at in range(int(batch.prompt_lengths_B[row]), len(ids))])
    return found


def by_hand(batch: Batch, before: dict[int, Tensor], after: dict[int, Tensor]) -> dict[str, float]:
    assert batch.advantages_N is not None
    starts = batch.row_starts()
    squares: list[float] = []
    gains: list[float] = []
    for row in after:
        for at in range(len(before[row])):
            if batch.loss_mask_N[starts[row] + at]:
                moved = float(after[row][at] - before[row][at])
                squares.append(moved**2 / 2)
                gains.append(float(batch.advantages_N[starts[row] + at]) * moved)
    return {"policy/step_kl": sum(squares) / len(squares), "policy/step_gain": sum(gains) / len(gains)}


def close(value: dict[str, float]) -> object:
    return pytest.approx(value, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("micro_tokens", [100, 100_000])
def test_the_figures_of_an_update_by_hand(micro_tokens: int) -> None:
    config = stage(micro_tokens=micro_tokens)
    policy, batch = set_up(config)
    before = plain(policy, batch, (*PROBED, 7, ROWS - 1))
    probe = StepProbe()
    policy.update(batch, probe.recording(make_objective(config)))
    probe.gather(batch)
    expected = by_hand(batch, before, plain(policy, batch))
    assert expected["policy/step_kl"] > 1e-6
    assert probe.metrics(policy) == close(expected)
    for row, logprobs in before.items():
        assert probe.trainer_logprobs(row) == pytest.approx(logprobs.tolist(), abs=6e-6)
        assert probe.trainer_logprobs(row) == [round(value, 5) for value in probe.trainer_logprobs(row) or []]


def descending(objective: Objective) -> Objective:
    def turned(scores: TokenScores, micro: Batch) -> LossTerms:
        terms = objective(scores, micro)
        return terms._replace(loss=-terms.loss)

    return turned


@pytest.mark.parametrize(("turn", "sign"), [(lambda objective: objective, 1), (descending, -1)], ids=["up", "down"])
def test_the_gain_is_above_0_uphill_and_below_it_downhill(turn: Callable[[Objective], Objective], sign: int) -> None:
    config = stage(lr=1e-4)
    policy, batch = set_up(config, rows=8)
    batch = batch.select([0]).reweighed(config)  # the row that is probed alone, so that nothing pulls against it
    batch = replace(batch, weights_N=batch.weights_N.double(), advantages_N=torch.full_like(batch.weights_N, -1.5))
    probe = StepProbe()
    policy.update(batch, turn(probe.recording(make_objective(config))))
    probe.gather(batch)
    assert sign * probe.metrics(policy)["policy/step_gain"] > 1e-4


@pytest.mark.parametrize("annotated", [False, True], ids=["out of the first update", "annotated before"])
def test_two_updates_are_measured_from_the_start_of_the_step(annotated: bool) -> None:
    config = stage()
    policy, batch = set_up(config)
    before = plain(policy, batch)
    if annotated:
        batch = policy.annotate(batch, frozenset({"old_logprobs"}))
    probe = StepProbe()
    objective = probe.recording(make_objective(config))
    policy.update(batch, objective)
    middle = plain(policy, batch)
    policy.update(batch, objective)
    probe.gather(batch)
    after = plain(policy, batch)
    assert probe.metrics(policy) == close(by_hand(batch, before, after))
    assert probe.metrics(policy) != close(by_hand(batch, middle, after))


def test_rows_that_no_update_saw_are_left_out() -> None:
    config = stage()
    policy, batch = set_up(config)
    before = plain(policy, batch, (16, 20))
    probe = StepProbe()
    seen = batch.select(list(range(16, ROWS))).reweighed(config)
    policy.update(replace(seen, weights_N=seen.weights_N.double()), probe.recording(make_objective(config)))
    probe.gather(batch)
    assert probe.trainer_logprobs(3) is None
    assert probe.trainer_logprobs(20) == pytest.approx(before[20].tolist(), abs=6e-6)
    assert probe.metrics(policy) == close(by_hand(batch, before, plain(policy, batch, (16,))))


def test_without_a_row_or_a_trained_token_there_is_no_figure() -> None:
    config = stage()
    policy, batch = set_up(config, rows=8)
    probe = StepProbe()
    probe.gather(batch)
    assert probe.metrics(policy) == {}
    masked = replace(batch, loss_mask_N=torch.zeros_like(batch.loss_mask_N))
    probe = StepProbe()
    policy.update(masked, probe.recording(make_objective(config)))
    probe.gather(masked)
    assert probe.metrics(policy) == {}


class Moved:
    """A policy whose log-probabilities have all risen."""

    def __init__(self) -> None:
        self.scored: list[Batch] = []

    def annotate(self, batch: Batch, needs: frozenset[str]) -> Batch:
        assert needs == {"old_logprobs"}
        assert batch.old_logprobs_N is not None
        self.scored.append(batch)
        return replace(batch, old_logprobs_N=batch.old_logprobs_N + 0.2)


def test_at_most_sixteen_rows_are_scored_again() -> None:
    batch = make_batch(config_with(), rows=320, group=4)
    policy, probe = Moved(), StepProbe()
    probe.gather(batch)
    found = probe.metrics(cast("Policy", policy))
    (part,) = policy.scored
    rows = range(0, 320, 20)
    assert all(ids is batch.input_ids[row] for ids, row in zip(part.input_ids, rows, strict=True))
    assert part.advantages_N is not None
    mean = float(part.advantages_N[part.loss_mask_N].mean())
    assert found == close({"policy/step_kl": 0.02, "policy/step_gain": 0.2 * mean})
