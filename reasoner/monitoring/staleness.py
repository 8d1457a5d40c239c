"""Age of the weights that sampled a batch, and its effect on the importance ratios."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reasoner.policy.step_probe import StepProbe
from reasoner.records import Kept


def staleness_metrics(kept: Kept, probe: StepProbe, *, version: int) -> dict[str, float]:
    """Measure lag and effective sample size of a step, over the trained tokens; empty without an update.

    The lag of a token is the number of updates between the weights that sampled it and those that it is trained on. The
    effective sample size is (sum w)^2 / (n sum w^2) in (0, 1], with w = trainer / engine probability of each token
    (Kong 1992, "A note on importance sampling using standardized weights").

    Args:
        kept: (group, rollout) of the rows of the update.
        probe: has the trainer's log-probabilities of these rows at the start of the step.
        version: of the weights at the start of the step.
    """
    lags: list[np.ndarray] = []
    logs: list[np.ndarray] = []
    mixed: list[bool] = []
    for row, (_, rollout) in enumerate(kept):
        scored, completion = probe.trainer_logprobs(row), rollout.completion
        if scored is None:
            continue
        trained = np.asarray(completion.loss_mask)
        logs.append((np.asarray(scored) - np.asarray(completion.rollout_logprobs))[trained])
        lags.append(version - np.asarray(completion.token_versions)[trained])
        mixed.append(bool(completion.versions))
    if not logs or not any(map(len, logs)):
        return {}
    lag_N, log_N = np.concatenate(lags), np.concatenate(logs)
    found = {
        "lag/mean": float(lag_N.mean()),
        "lag/max": float(lag_N.max()),
        "lag/effective_sample": effective_sample(log_N),
    }
    if any(mixed):
        found["lag/mixed"] = sum(mixed) / len(mixed)
    if lag_N.min() < lag_N.max():
        slope, intercept = np.polyfit(lag_N, np.abs(log_N), 1)
        found |= {"lag/gap_slope": float(slope), "lag/gap_intercept": float(intercept)}
    return found


def effective_sample(log_ratios: Sequence[float] | np.ndarray) -> float:
    """Return (sum w)^2 / (n sum w^2) for w = exp(log ratio): 1 where all are equal, 1/n where one has all the weight.

    Example:
        >>> effective_sample([0.0, 0.0]), round(effective_sample([0.0, 50.0]), 6)
        (1.0, 0.5)
    """
    logs = np.asarray(log_ratios, dtype=np.float64)
    weights = np.exp(logs - logs.max())
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))
