"""The training methods. Imports no torch."""

from __future__ import annotations

from reasoner.config.stage import StageConfig

SAMPLING = ("grpo", "ppo", "pairs", "constitutional")
"""Methods that sample in every step; the others only where there are problems to evaluate on."""


def samples_to_learn(config: StageConfig) -> bool:
    """Whether training problems are sampled; otherwise nothing is, or only what is evaluated."""
    return config.method in SAMPLING or (config.method == "sft" and config.sft.until_accuracy is not None)


def eval_tokens(config: StageConfig) -> int:
    """Most tokens of a completion in an evaluation."""
    return config.eval.max_tokens or config.rollout.max_tokens


def _samples(config: StageConfig) -> bool:
    """Whether a stage needs an engine, if only to evaluate."""
    return samples_to_learn(config) or config.evaluates
