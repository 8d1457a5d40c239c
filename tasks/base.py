"""Problems, and the tasks that yield them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, NotRequired, TypedDict

from verifiers import JSON


class TaskError(ValueError):
    """A task's data or options cannot be used; the message names the row and what to change."""

    exit_code: ClassVar[int] = 2
    """Exit status of a command that ends with it."""


class UnusableRow(ValueError):
    """A row of data holds no problem, preference or demonstration, or cannot be rendered; the message says why."""


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str
    """Text; empty where the message is nothing but calls."""
    tool_calls: NotRequired[list[JSON]]
    """Of an assistant: {"function": {"name", "arguments"}, ...}, arguments as an object."""
    name: NotRequired[str]
    tool_call_id: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of an episode.

    Example:
        >>> Turn("policy", "37").origin
        'policy'
    """

    origin: Literal["policy", "environment"]
    text: str
    data: JSON = None
    """Of an environment's turn: the `Reply.data` that came with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to solve.

    Example:
        >>> Problem(id="add/0", prompt="2+2=", reference="4", verifier="exact").verifier
        'exact'
    """

    id: str
    """Unique within its task, stable between runs."""
    prompt: str | tuple[Message, ...]
    """Text, or chat messages (the tokenizer's chat template is applied to them)."""
    reference: JSON
    """The gold, in the schema of its verifier."""
    verifier: str
    verifier_options: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    difficulty: float | None = None
    """Easiest 0, hardest 1, where the task knows."""
    info: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Passed to the verifier; kept with the rollout."""
    demonstration: str | None = None
    """A worked solution that the verifier accepts, where the task has one (SFT warm start)."""
    demonstration_turns: tuple[Turn, ...] = ()
    """Turns in front of the demonstration: the policy's calls, each with the environment's reply to it."""
    task: str = ""
    """Name of the task that it came from."""
    environment: str | None = None
    """Name of the environment that replies to the policy (`tasks.environments`); None: a completion is one turn."""
    environment_options: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])


class BadRow(NamedTuple):
    """A row of data that cannot be used, and why."""

    where: str
    """File and row number, or the row's own id."""
    reason: str


class Task(ABC):
    """A named source of problems with splits; the same options give the same problems in the same order.

    Options are keyword arguments of the constructor.
    """

    name: ClassVar[str] = ""
    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    notes: Sequence[str] = ()
    """What a person should know of how `problems` found and read its data, in sentences."""

    @abstractmethod
    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of a split. No problem of one split is in another.

        Raises:
            TaskError: unknown split, missing file or column, an empty prompt.
        """

    def each(self, split: str) -> Iterator[Problem | BadRow]:
        """The problems of a split one at a time, and in their places the rows that hold none; here: `problems`.

        A task that reads files overrides it, so that a large file is never in memory as a whole.

        Raises:
            TaskError: as of `problems`, but not for a row.
        """
        yield from self.problems(split)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems(self.splits[0]))
