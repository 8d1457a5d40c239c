"""Minimal reward functions in the styles of TRL and verl, for checking the verifiers `trl` and `verl`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def same_text(
    completions: Sequence[Sequence[Mapping[str, str]]], solution: Sequence[object], **_: object
) -> list[float]:
    """Return 1 for each completion that equals the solution, 0 otherwise; in the form of TRL's reward functions."""
    texts = [messages[-1]["content"] for messages in completions]
    return [float(text == wanted) for text, wanted in zip(texts, solution, strict=True)]


def same_score(data_source: str, solution_str: str, ground_truth: object, extra_info: object = None) -> float:
    """Return 1 if the solution equals the ground truth, else 0; in the form of verl's scoring functions."""
    return float(solution_str == ground_truth)
