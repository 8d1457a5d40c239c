"""Environments: what answers the policy between its turns (a tool, a game, a simulated user).

An environment is a pure function of its options, the problem, the turns so far and a seed. It keeps no session: a reply
can be computed again on another worker, after a crash, or years later, and is the same.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar, cast

from tasks.base import TaskError, Turn
from verifiers import JSON


class EnvironmentFault(TaskError):
    """The environment itself failed; nothing is said about the policy. The rollout is left ungraded."""

    says_where = True
    """Its message names a place: the line that raised it is of no interest."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An environment's answer to the policy's latest turn.

    Example:
        >>> Reply("higher").done
        False
    """

    text: str
    """Shown to the policy, unless `done`."""
    done: bool = False
    """True: the episode is over. The text is recorded, and not shown."""
    score: float | None = None
    """Result of a game so far; the verifier `outcome` rewards with the last one."""
    data: JSON = None
    """State that is handed back in `Turn.data` of later turns, and never shown to the policy."""
    calls: int = 0
    """Tool calls that this reply answers."""
    errors: int = 0
    """Of these, calls that failed: bad arguments, an exception, a limit."""
    cut: bool = False
    """Set by the trainer: True if the middle of the text was left out because it was longer than a reply may be."""

    def to_json(self) -> dict[str, JSON]:
        """All fields as JSON; `from_json` is the inverse."""
        return {
            "text": self.text,
            "done": self.done,
            "score": self.score,
            "data": self.data,
            "calls": self.calls,
            "errors": self.errors,
            "cut": self.cut,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Reply:
        """The inverse of `to_json`."""
        return cls(**row)


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """Everything that a reply may depend on, next to the environment's options."""

    turns: Sequence[Turn]
    """The turns behind the prompt, in order. The last one is the policy's: it waits for a reply."""
    prompt: str = ""
    reference: JSON = None
    info: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    seed: int = 0
    """Of this turn of this rollout. The only source of randomness that an environment may use."""

    @property
    def said(self) -> str:
        """Text of the policy's latest turn."""
        return self.turns[-1].text

    def policy_turns(self) -> list[str]:
        """Texts of the policy's turns, in order."""
        return [turn.text for turn in self.turns if turn.origin == "policy"]

    def state(self) -> JSON:
        """`Reply.data` of the latest reply; None before the first one."""
        return next((turn.data for turn in reversed(self.turns) if turn.origin == "environment"), None)


class Inline(NamedTuple):
    """Text around a reply where no chat template is used (`prompt.reply: inline`)."""

    before: str = ""
    after: str = ""


class Environment:
    """Replies to the policy. Subclass it and write `reply`; options are keyword arguments of the constructor.

    `reply` must be pure (equal arguments give equal replies, in any process), total (it raises for nothing that a
    policy can write) and bounded. An exception is the environment's own fault: the rollout is not graded.

    Example:
        >>> class Echo(Environment):
        ...     name = "echo"
        ...     def reply(self, episode):
        ...         return Reply(episode.said.upper())
        >>> Echo().reply(Episode(turns=[Turn("policy", "hi")])).text
        'HI'
    """

    name: str = ""
    version: str = "1"
    """Raised whenever a reply could change."""
    stop: Sequence[str] = ()
    """Strings that end a turn of the policy, in addition to those of `prompt.stop`."""
    max_turns: int = 4
    """Turns of the policy in an episode, where `rollout.max_turns` sets no other number."""
    inline: Inline = Inline()
    role: str = "user"
    """Role of a reply as a chat message where the config names none: user, or tool."""
    reply_seconds: float = 20.0
    """Wall-clock seconds that one reply may take; its worker is then killed, and the rollout is not graded."""
    uses_seed: bool = False
    """True if replies depend on `Episode.seed`."""
    sample_turns: Sequence[str] = ()
    """Turns of a policy with which `reasoner environments check` starts."""

    def reply(self, episode: Episode) -> Reply | None:
        """Return the reply to the last turn; None where that turn is the final answer and needs no reply."""
        raise NotImplementedError


Registered = TypeVar("Registered")
GIVEN = ("turns", "prompt", "reference", "info", "seed")
"""Keyword arguments that a function as an environment may take."""
DECORATED: dict[str, type[Environment]] = {}
"""Environments that `environment` registered in this process."""


def environment(
    name: str,
    *,
    stop: Sequence[str] = (),
    max_turns: int = 4,
    inline: tuple[str, str] = ("", ""),
    sample_turns: Sequence[str] = (),
) -> Callable[[Registered], Registered]:
    """Register a function, or an `Environment` subclass, under a name.

    The function takes any of the keywords turns, prompt, reference, info and seed and returns a `Reply`, or None for a
    final answer. The name holds in this process; name the module, the file or an entry point for others to find it.

    Args:
        name: of the environment.
        stop: strings that end a turn of the policy.
        max_turns: turns of the policy in an episode.
        inline: text before and after each reply where no chat template is used.
        sample_turns: turns of a policy with which `reasoner environments check` starts.

    Example:
        >>> @environment("parrot", stop=("\\n",))
        ... def parrot(*, turns):
        ...     return Reply(turns[-1].text, done=True)
        >>> parrot.__environment__().reply(Episode(turns=[Turn("policy", "a")])).text
        'a'
    """
    if not isinstance(cast("object", name), str):
        raise TaskError('@environment needs a name in parentheses, such as @environment("hangman", max_turns=6).')

    def register(given: Registered) -> Registered:
        if isinstance(given, type):
            made = cast("type[Environment]", given)
            made.name = name
        else:
            made = from_function(cast("Callable[..., Reply | None]", given), name)
            made.stop, made.max_turns, made.inline = tuple(stop), max_turns, Inline(*inline)
            made.sample_turns = tuple(sample_turns)
            given.__environment__ = made  # pyright: ignore[reportAttributeAccessIssue]
        DECORATED[name] = made
        return given

    return register


def from_function(function: Callable[..., Reply | None], name: str) -> type[Environment]:
    """Wrap a function of some of the keywords of GIVEN.

    Raises:
        TaskError: it takes something else, or not the turns.
    """
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    wanted = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    unknown = {p.name for p in parameters if p.default is p.empty and p.name in wanted} - set(GIVEN)
    if unknown or not (takes_all or "turns" in wanted):
        raise TaskError(
            f"environment {name!r} must be a function of turns and, as needed, prompt, reference, info and seed; it"
            f" takes {', '.join(sorted(wanted)) or 'nothing'}."
        )

    class FunctionEnvironment(Environment):
        """A plain function as an environment."""

        uses_seed = takes_all or "seed" in wanted
        source: ClassVar[Callable[..., Reply | None]] = staticmethod(function)

        def reply(self, episode: Episode) -> Reply | None:
            given = {key: getattr(episode, key) for key in GIVEN if takes_all or key in wanted}
            return function(**given)

    FunctionEnvironment.name = name
    FunctionEnvironment.__doc__ = function.__doc__
    FunctionEnvironment.__module__ = function.__module__
    FunctionEnvironment.__qualname__ = getattr(function, "__qualname__", name)
    return FunctionEnvironment


def checked_reply(returned: object, name: str, place: str = "") -> Reply | None:
    """Return a reply that is fit to be recorded.

    Args:
        returned: what the environment returned.
        name: of the environment, for messages.
        place: of its code, for messages.
    Raises:
        EnvironmentFault: it is no Reply, its text is no text, or its score is no finite number.
    """
    if returned is None:
        return None
    who = f"environment {name!r}{f' at {place}' if place else ''}"
    if not isinstance(returned, Reply):
        raise EnvironmentFault(f"{who} must return a Reply or None; got {type(returned).__name__}. Return Reply(text).")
    score = cast("object", returned.score)
    if not isinstance(cast("object", returned.text), str):
        raise EnvironmentFault(f"{who}: Reply.text must be text; got {type(returned.text).__name__}.")
    if score is not None and (not isinstance(score, int | float) or not abs(score) < float("inf")):
        raise EnvironmentFault(f"{who}: Reply.score must be a finite number or None; got {score!r}.")
    return returned


def place_of(environment: Environment) -> str:
    """Return file and line of an environment's code, such as `hangman.py:7`; "" where it has none."""
    source: object = getattr(type(environment), "source", type(environment))
    try:
        file, line = inspect.getsourcefile(cast("Any", source)), inspect.getsourcelines(cast("Any", source))[1]
    except (OSError, TypeError):
        return ""
    return f"{Path(file).name}:{line}" if file else ""


def asked_here(environment: Environment, episode: Episode) -> Reply | None:
    """Return an environment's checked reply, computed in this process.

    Raises:
        EnvironmentFault: it raised, or returned what is no reply; names the file and line.
    """
    try:
        returned = environment.reply(episode)
    except EnvironmentFault:
        raise
    except Exception as error:  # boundary: an environment is foreign code
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise EnvironmentFault(
            f"environment {environment.name!r} raised {type(error).__name__}: {error} at"
            f" {Path(frame.filename).name}:{frame.lineno}. Reply to such a turn instead: `return Reply(...)`."
        ) from error
    return checked_reply(returned, environment.name, place_of(environment))
