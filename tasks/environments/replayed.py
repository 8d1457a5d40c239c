"""Live environments (gymnasium's, OpenEnv's: objects with reset and step) as pure ones, by replay.

For each reply the object is made anew, reset with the problem's seed, and given all of the policy's turns so far. That
is T^2/2 steps for T turns. In exchange nothing lives between two turns: nothing leaks, and a run resumes exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from tasks.base import TaskError
from tasks.environments.base import Environment, EnvironmentFault, Episode, Reply
from verifiers import JSON, UnknownVerifier
from verifiers.registry import load_attribute


class Step(NamedTuple):
    """Result of a reset or a step."""

    text: str
    reward: float
    done: bool


class Replayed(Environment):
    """An object with `reset(seed=...)` and `step(action)` as an environment.

    Both shapes of results are read: gymnasium's tuples (observation, reward, terminated, truncated, info) and objects
    with the attributes observation, reward and done. The score is the sum of the rewards. An observation that is not
    text is shown as `str` writes it.

    Args:
        make: `module:attribute` or `file.py:attribute` of a callable that returns the object.
        options: keyword arguments of that callable.
        action: text (the turn as written, without surrounding white space) or integer (for discrete actions; a turn
            that is no integer gets `invalid` as the reply and is not given to the object).
        invalid: reply to a turn that is no action.
        seed_from: key of the problem's info that has the seed of `reset`; 0 where a problem has none.
        max_turns: turns of the policy in an episode.
        stop: string that ends a turn; empty for none.
    """

    name = "replayed"

    def __init__(
        self,
        *,
        make: str,
        options: dict[str, JSON] | None = None,
        action: str = "text",
        invalid: str = "invalid action\n",
        seed_from: str = "seed",
        max_turns: int = 10,
        stop: str = "\n",
    ) -> None:
        if action not in ("text", "integer"):
            raise TaskError(f"action must be text or integer; got {action!r}.")
        try:
            made = load_attribute(make)
        except UnknownVerifier as error:
            raise TaskError(str(error)) from error
        if not callable(made):
            raise TaskError(f"make must name a callable that returns an environment; {make} is {made!r}.")
        self._make, self._options = cast("Callable[..., Any]", made), dict(options or {})
        self._integer, self._invalid, self._seed_from = action == "integer", invalid, seed_from
        self.max_turns, self.stop = max_turns, (stop,) if stop else ()

    def reply(self, episode: Episode) -> Reply | None:
        seed = episode.info.get(self._seed_from, 0)
        live = self._make(**self._options)
        try:
            _step(live.reset(seed=seed), fresh=True)
            return self._replayed(live, episode)
        finally:
            if close := getattr(live, "close", None):
                close()

    def _replayed(self, live: Any, episode: Episode) -> Reply:
        score = 0.0
        replies = [turn.text for turn in episode.turns if turn.origin == "environment"]
        said = episode.policy_turns()
        found = Step("", 0.0, False)
        for number, text in enumerate(said):
            action = self._action(text)
            found = Step(self._invalid, 0.0, False) if action is None else _step(live.step(action), fresh=False)
            score += found.reward
            if number < len(replies) and _line(found.text) != replies[number]:
                raise EnvironmentFault(
                    f"turn {number + 1} had another reply when it was repeated with seed"
                    f" {episode.info.get(self._seed_from, 0)}: {found.text[:80]!r}, before {replies[number][:80]!r}."
                    " Only environments that repeat themselves from a seed can be replayed."
                )
            if found.done:
                break
        invalid = self._action(said[-1]) is None
        return Reply(_line(found.text), done=found.done, score=score, calls=1, errors=int(invalid))

    def _action(self, text: str) -> str | int | None:
        plain = text.strip()
        if not self._integer:
            return plain
        digits = plain.removeprefix("-")
        return int(plain) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else None

    def first(self, seed: int) -> str:
        """Return the text of the first observation: the prompt of a problem with that seed."""
        live = self._make(**self._options)
        try:
            return _step(live.reset(seed=seed), fresh=True).text
        finally:
            if close := getattr(live, "close", None):
                close()


def _line(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _step(result: Any, *, fresh: bool) -> Step:
    """Read a result in gymnasium's or OpenEnv's shape.

    Raises:
        EnvironmentFault: it has neither.
    """
    if isinstance(result, tuple):
        parts = cast("tuple[Any, ...]", result)
        if fresh and len(parts) == 2:
            return Step(_text(parts[0]), 0.0, False)
        if len(parts) == 5:
            return Step(_text(parts[0]), float(parts[1]), bool(parts[2] or parts[3]))
        if len(parts) == 4:
            return Step(_text(parts[0]), float(parts[1]), bool(parts[2]))
        raise EnvironmentFault(f"a step must return 4 or 5 values and a reset 1 or 2; got {len(parts)}.")
    if hasattr(result, "observation"):
        reward = getattr(result, "reward", None)
        return Step(_text(result.observation), float(reward or 0.0), bool(getattr(result, "done", False)))
    if fresh:
        return Step(_text(result), 0.0, False)
    raise EnvironmentFault(f"a step must return a tuple or an object with `observation`; got {type(result).__name__}.")


def _text(observation: Any) -> str:
    if isinstance(observation, str):
        return observation
    if isinstance(observation, Mapping):
        fields = cast("Mapping[str, Any]", observation)
        return _text(fields["text"]) if isinstance(fields.get("text"), str) else str(fields)
    for name in ("text", "content", "message"):
        if isinstance(text := getattr(observation, name, None), str):
            return text
    return str(observation)
