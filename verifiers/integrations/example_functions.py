"""The least function of each foreign kind: by these the verifiers `trl` and `verl` are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def same_text(
    completions: Sequence[Sequence[Mapping[str, str]]], solution: Sequence[object], **_: object
) -> list[float]:
    """1 for each completion that is the solution, as TRL's reward functions are called."""
    said = [messages[-1]["content"] for messages in completions]
    return [float(text == wanted) for text, wanted in zip(said, solution, strict=True)]


def same_score(data_source: str, solution_str: str, ground_truth: object, extra_info: object = None) -> float:
    """1 where the solution is the ground truth, as verl calls its scoring functions."""
    return float(solution_str == ground_truth)
