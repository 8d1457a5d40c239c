"""The settings that may change when a run is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from reasoner.config.mappings import is_mapping
from reasoner.config.stage import StageConfig

ALL: tuple[str, ...] = ()
"""Marker for every key of a section."""
MAY_CHANGE: Mapping[str, tuple[str, ...]] = {
    "steps": ALL,
    "optim": (
        *("lr", "schedule", "warmup_steps", "betas", "eps", "weight_decay", "max_grad_norm"),
        *("updates_per_step", "inner_epochs", "stop_kl"),
    ),
    "value": ("lr",),
    "rollout": (
        *("problems_per_step", "group_size", "max_tokens", "temperature"),
        *("dynamic_sampling_rounds", "difficulty_decay"),
    ),
    "eval": ALL,
    "checkpoint": ALL,
    "logging": ALL,
    "grading": ALL,
    "engine": ALL,
    "processes": ALL,
    "cluster": ALL,
    "batch": ALL,
    "model": ("gradient_checkpointing",),
    "teacher": ("urls", "key_variable", "ca_file"),
    "name": ALL,
    "label": ALL,
    "output": ALL,
}
"""Section to its keys that may change: a checkpoint stores nothing about them, so training uses the new values."""


class Change(NamedTuple):
    """A forbidden change of a key between a run and its resumption."""

    key: str
    then: object
    now: object


def forbidden_changes(before: StageConfig, now: StageConfig) -> list[Change]:
    """Return every key whose value differs from that of the run's start, except those that may change.

    Example:
        >>> from reasoner.config.load import resolve
        >>> one, other = (resolve({"task": "gsm8k", "seed": n, "steps": n}).stages[0] for n in (1, 2))
        >>> forbidden_changes(one, other)
        [Change(key='seed', then=1, now=2)]
    """
    old, new = before.model_dump(mode="json"), now.model_dump(mode="json")
    return [found for key in new if MAY_CHANGE.get(key) != ALL for found in _changes(key, old[key], new[key])]


def _changes(section: str, then: object, now: object) -> Iterator[Change]:
    if not is_mapping(then) or not is_mapping(now):
        if then != now:
            yield Change(section, then, now)
        return
    free = MAY_CHANGE.get(section, ())
    for key in {**then, **now}:
        if key not in free and then.get(key) != now.get(key):
            yield Change(f"{section}.{key}", then.get(key), now.get(key))


def listed() -> str:
    """List all settings that may change, for a message: `optim (lr, schedule, ...)`; whole sections by name only."""
    named = {key: keys for key, keys in MAY_CHANGE.items() if key not in ("name", "label", "output")}
    return ", ".join(f"{key} ({', '.join(keys)})" if keys else key for key, keys in named.items())
