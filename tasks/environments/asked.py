"""Replies through the grading pool: the same killable workers, limits and retries that verdicts have.

The pool runs verifiers. `AskedEnvironment` is one whose verdict does not judge the completion: its detail contains the
environment's reply. A reply that could not be made (an exception, a killed worker) is an ungraded verdict.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from tasks.environments.base import Environment, Episode, Reply, Turn, checked_reply, place_of
from tasks.environments.registry import get_environment, importable_name
from verifiers import JSON, GradingRow, Outcome, Verdict, Verifier

ASKED = "tasks.environments.asked:AskedEnvironment"
"""Name under which the grading pool finds it."""
GLOBALS = "tasks.environments.asked:EnvironmentGlobals"
NO_REPLY = "final answer"


class AskedEnvironment(Verifier):
    """An environment as a verifier for the grading pool.

    Args:
        environment: name of the environment.
        options: its options.
    """

    name = "environment"
    stays_here = True
    merges_equal = True

    def __init__(self, *, environment: str, options: dict[str, JSON] | None = None) -> None:
        self._environment: Environment = get_environment(environment, **(options or {}))
        self.version = self._environment.version
        self.grade_seconds = self._environment.reply_seconds
        self._place = place_of(self._environment)

    def grade(self, row: GradingRow) -> Verdict:
        episode = Episode(
            turns=[Turn(**cast("dict[str, Any]", turn)) for turn in cast("list[JSON]", row.info["turns"])],
            prompt=row.prompt or "",
            reference=row.reference,
            info=cast("Mapping[str, JSON]", row.info["problem"]),
            seed=cast("int", row.info["seed"]),
        )
        reply = checked_reply(self._environment.reply(episode), self._environment.name, self._place)
        said = None if reply is None else reply.to_json()
        return Verdict(
            outcome=Outcome.SCORED, reward=0.0, detail={"reason": NO_REPLY if said is None else "", "reply": said}
        )


class EnvironmentGlobals(AskedEnvironment):
    """The plain data that an environment's module holds, in a verdict's detail: name to the data as JSON."""

    def grade(self, row: GradingRow) -> Verdict:
        module = sys.modules[type(self._environment).__module__]
        found: dict[str, JSON] = {}
        for name, value in vars(module).items():
            try:
                text = json.dumps(value, sort_keys=True, default=_listed)
            except (TypeError, ValueError, RecursionError):
                continue
            if not name.startswith("__"):
                found[name] = text if len(text) < 200 else hashlib.blake2b(text.encode()).hexdigest()
        return Verdict(outcome=Outcome.SCORED, reward=0.0, detail={"globals": found})


def _listed(value: object) -> list[object]:
    if not isinstance(value, set | frozenset):
        raise TypeError(f"{type(value).__name__} is no plain data")
    return sorted(cast("set[object]", value), key=repr)


class Choice(NamedTuple):
    """An environment by name and options."""

    name: str
    options: Mapping[str, JSON]


def asked_options(choice: Choice) -> dict[str, JSON]:
    """Options of ASKED for an environment."""
    return {"environment": importable_name(choice.name), "options": dict(choice.options)}


def asked_row(episode: Episode, *, uses_seed: bool) -> GradingRow:
    """A row for the pool. Without the seed, equal episodes of an environment that uses none are equal rows."""
    turns: list[JSON] = [{"origin": t.origin, "text": t.text, "data": t.data} for t in episode.turns]
    return GradingRow(
        completion=episode.said,
        reference=episode.reference,
        prompt=episode.prompt,
        info={"turns": turns, "problem": dict(episode.info), "seed": episode.seed if uses_seed else 0},
    )


def reply_in(verdict: Verdict) -> Reply | None:
    """The reply in a graded verdict of ASKED; None for a final answer."""
    said = verdict.detail.get("reply")
    return None if said is None else Reply.from_json(cast("dict[str, Any]", said))


__all__: Sequence[str] = ["ASKED", "AskedEnvironment", "Choice", "asked_options", "asked_row", "reply_in"]
