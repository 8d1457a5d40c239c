"""Problems, and the tasks that yield them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, NotRequired, TypedDict, cast

from verifiers import JSON


class TaskError(ValueError):
    """An error in a task's data or options; the message names the row and what to change."""

    exit_code: ClassVar[int] = 2
    """Exit status of a command that ends with this error."""


class UnusableRow(ValueError):
    """An error for a row that contains no problem, preference or demonstration, or cannot be rendered; the message says
    why.
    """


class Message(TypedDict):
    """One chat message."""

    role: str
    content: str
    """Text; empty if the message consists of tool calls only."""
    tool_calls: NotRequired[list[JSON]]
    """Tool calls of an assistant message: {"function": {"name", "arguments"}, ...}, with arguments as an object."""
    name: NotRequired[str]
    tool_call_id: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Turn:
    r"""One turn of an episode.

    Example:
        >>> Turn("policy", "37\n").origin
        'policy'
    """

    origin: Literal["policy", "environment"]
    text: str
    """As sampled: with the stop string that ended it, and without the end token."""
    data: JSON = None
    """Of an environment's turn: the `Reply.data` that came with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One problem: a prompt, its reference answer, and the verifier that grades completions.

    Example:
        >>> Problem(id="add/0", prompt="2+2=", reference="4", verifier="exact").verifier
        'exact'
    """

    id: str
    """Unique within its task; the same in every run."""
    prompt: str | tuple[Message, ...]
    """Text, or chat messages (the tokenizer's chat template is applied to them)."""
    reference: JSON
    """Reference answer, in the schema of the verifier."""
    verifier: str
    verifier_options: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    difficulty: float | None = None
    """From 0 (easiest) to 1 (hardest); None if the task does not know."""
    info: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Further data, passed to the verifier and stored with the rollout."""
    demonstration: str | None = None
    """A worked solution that the verifier accepts (for an SFT warm start); None if the task has none. With an
    environment: the policy's last turn."""
    demonstration_turns: tuple[Turn, ...] = ()
    """Turns in front of the demonstration, in order: a turn of the policy, the environment's reply to it, and so on;
    the last one is a reply."""
    task: str = ""
    """Name of the task that yields it."""
    environment: str | None = None
    """Name of the environment that replies to the policy (`tasks.environments`); None: a completion is one turn."""
    environment_options: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])

    def __post_init__(self) -> None:
        """Raise TaskError if demonstration_turns are no Turns; other sequences of them become a tuple."""
        if not self.demonstration_turns:
            object.__setattr__(self, "demonstration_turns", ())
            return
        for turn in self.demonstration_turns:
            if not isinstance(cast("object", turn), Turn):
                raise TaskError(
                    f'problem {self.id}: demonstration_turns must hold Turn("policy", text) and'
                    f' Turn("environment", text) from `tasks`; got {turn!r:.60}.'
                )
        object.__setattr__(self, "demonstration_turns", tuple(self.demonstration_turns))


class BadRow(NamedTuple):
    """An unusable row of data, with the reason."""

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
    """Remarks for the user on how `problems` found and read its data, as sentences."""

    @abstractmethod
    def problems(self, split: str) -> Sequence[Problem]:
        """Return all problems of a split. No problem is in two splits.

        Raises:
            TaskError: unknown split, missing file or column, an empty prompt.
        """

    def each(self, split: str) -> Iterator[Problem | BadRow]:
        """Yield the problems of a split one at a time, and a `BadRow` in the place of each unusable row.

        The default yields `problems(split)`. A task that reads files overrides it so that a large file is never in
        memory as a whole.

        Raises:
            TaskError: as in `problems`, but not for a single bad row.
        """
        yield from self.problems(split)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self.problems(self.splits[0]))
