"""The lag of a step's tokens, each by the version of the weights that sampled it."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest

from reasoner.monitoring.staleness import staleness_metrics
from reasoner.policy.step_probe import StepProbe
from reasoner.records import Completion, Kept, VersionSpan
from tests.unit.reasoner.rollout.test_exchange import group


class Scored:
    """Has the trainer's log-probabilities of rows 0 and 1: those of the engine, and a little more for each lag."""

    def __init__(self, kept: Kept, version: int) -> None:
        self.rows = [rollout.completion for _, rollout in kept]
        self.version = version

    def trainer_logprobs(self, row: int) -> list[float] | None:
        if row > 1:
            return None
        one = self.rows[row]
        pairs = zip(one.rollout_logprobs, one.token_versions, strict=True)
        return [value + 0.01 + 0.1 * (self.version - version) for value, version in pairs]


def measured(*completions: Completion, version: int) -> dict[str, float]:
    rollouts = group(0, [1] * len(completions)).rollouts
    kept = [(0, replace(one, completion=given)) for one, given in zip(rollouts, completions, strict=True)]
    return staleness_metrics(kept, cast("StepProbe", Scored(kept, version)), version=version)


def test_tokens_are_counted_by_their_versions() -> None:
    plain = group(0, [4]).rollouts[0].completion
    spans = (VersionSpan(5, 0, 1), VersionSpan(7, 1, 2), VersionSpan(8, 3, 6))
    mask = (True, True, False, True, True, True)
    mixed = replace(group(0, [6]).rollouts[0].completion, policy_version=5, versions=spans, loss_mask=mask)
    found = measured(plain, mixed, plain, version=8)
    assert found["lag/mean"] == pytest.approx((4 * 4 + 3 + 1 + 0) / 9)  # the third row was in no update
    assert found["lag/max"] == 4
    assert found["lag/mixed"] == 0.5
    assert found["lag/gap_slope"] == pytest.approx(0.1)
    assert found["lag/gap_intercept"] == pytest.approx(0.01)


def test_without_spans_a_completion_has_one_lag() -> None:
    plain = group(0, [4]).rollouts[0].completion
    found = measured(plain, version=6)
    assert found.pop("lag/effective_sample") == pytest.approx(1.0)
    assert found == {"lag/mean": 2.0, "lag/max": 2.0}
