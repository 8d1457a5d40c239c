"""State in a checkpoint besides weights, optimizer and random states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import JsonValue, TypeAdapter

from reasoner.algorithm.kl_control import KLState
from reasoner.records import Estimate


@dataclass(kw_only=True)
class BestModel:
    """The best model of a stage by its loss on validation items."""

    loss: float
    step: int
    estimates: dict[str, Estimate]
    stale: int = 0
    """Number of evaluations since then without a better loss."""


@dataclass(kw_only=True)
class StageState:
    """State that a stage carries from step to step."""

    data: dict[str, str] = field(default_factory=dict[str, str])
    """Name of the stage's data -> its size and digest; a resumed stage must use the same data."""
    first_eval: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    """Estimates of the first evaluation."""
    best: float | None = None
    """Best value of the metric that `eval.metric` names, over all evaluations."""
    validation: dict[str, Estimate] = field(default_factory=dict[str, Estimate])
    """Latest estimates on the validation items."""
    best_model: BestModel | None = None
    ended: bool = False
    """True if training ended before the last step: goal reached, or patience exhausted."""
    after: dict[str, Estimate] | None = None
    """Estimates of the stage's final evaluation; None before it."""
    kl: KLState = field(default_factory=KLState)
    alarms: list[str] = field(default_factory=list[str])
    """Names of the alarms that the reward-hacking monitor has raised."""

    @property
    def ended_early(self) -> bool:
        """True if no further step is trained, even if the config asks for more."""
        return self.ended or self.kl.over_budget


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of a stage at the end of a step."""

    step: int
    """Number of finished steps."""
    sampler: dict[str, JsonValue]
    """State of the problem sampler."""
    offsets: dict[str, int]
    """Size of each record file in bytes."""
    difficulty: dict[str, JsonValue] | None = None
    """State of the difficulty estimates."""
    state: StageState = field(default_factory=StageState)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON row that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Progress:
        """Read a row of `to_json`, or a row in the older format without a StageState.

        Raises:
            ValueError: a field is missing or has the wrong type.
        """
        return TypeAdapter(cls).validate_python(_from_loose(row) if "extra" in row else row)


def _from_loose(row: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an older row, which kept everything but step, sampler, offsets and best in a dict `extra`."""
    extra: dict[str, Any] = row["extra"] or {}
    loose: dict[str, Any] = extra.get("state", {})
    names = {"kl_coef": "coef", "kl_within": "last_within", "kl_over": "over_budget"}
    kl = {name: loose[key] for key, name in names.items() if key in loose}
    best = {"loss": loose.get("best_loss"), "step": loose.get("best_step"), "stale": loose.get("stale", 0)}
    state = {
        "data": {name.removeprefix("data/"): value for name, value in loose.items() if name.startswith("data/")},
        "first_eval": extra.get("first_eval", {}),
        "best": row.get("best"),
        "validation": extra.get("held_out", {}),
        "best_model": {**best, "estimates": loose.get("best", {})} if "best_loss" in loose else None,
        "ended": loose.get("ended", False),
        "kl": kl,
        "alarms": loose.get("alarms", []),
    }
    return {name: row[name] for name in ("step", "sampler", "offsets")} | {
        "difficulty": extra.get("difficulty"),
        "state": state,
    }
