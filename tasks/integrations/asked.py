"""An episode that another trainer plays: it calls, and the environment replies in a killable worker."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple, cast

from tasks.base import Problem, TaskError, Turn
from tasks.environments.asked import ASKED, Choice, asked_options, asked_row, reply_in
from tasks.environments.base import Environment, EnvironmentFault, Episode, Reply
from tasks.environments.registry import get_environment
from tasks.environments.tools import ToolEnvironment
from verifiers import JSON
from verifiers.given import as_json, prompt_text
from verifiers.integrations import process_pool
from verifiers.jsonl import is_object

MOVE = "text"
"""The argument of the only function of a game."""


class Function(NamedTuple):
    """A function that the policy may call: a tool, or the move of a game."""

    name: str
    """An identifier."""
    argument: str
    description: str
    tool: str | None
    """Name of the tool in the environment; None for a move."""

    def schema(self) -> dict[str, JSON]:
        """The function as JSON schema, in the form that chat templates take."""
        parameters: dict[str, JSON] = {
            "type": "object",
            "properties": {self.argument: {"type": "string", "description": self.described_argument}},
            "required": [self.argument],
        }
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }

    @property
    def described_argument(self) -> str:
        """One sentence on the argument."""
        return "The move." if self.tool is None else f"The {self.argument} for {self.name}."


class Chosen(NamedTuple):
    """An environment as other trainers use it."""

    choice: Choice
    environment: Environment
    functions: tuple[Function, ...]

    @property
    def is_game(self) -> bool:
        """True if the environment has no tools: every turn of the policy is a move, and the replies have scores."""
        return not isinstance(self.environment, ToolEnvironment)


def chosen(name: str, options: Mapping[str, JSON] | None = None) -> Chosen:
    """Make an environment and list its functions. Tools are called by name, so their `parse` is tool_call.

    Raises:
        TaskError: it cannot be made, or its tools cannot be called by name.
    """
    given = dict(options or {})
    made = get_environment(name, **given)
    if not isinstance(made, ToolEnvironment):
        description = (made.__doc__ or "").strip().split("\n")[0] or f"A move in {made.name}."
        move = Function(_identifier(made.name), MOVE, description, None)
        return Chosen(Choice(name, given), made, (move,))
    if not made.named_calls:
        given = {key: value for key, value in given.items() if key not in ("opening", "closing")}
        made = get_environment(name, **(given := {**given, "parse": "tool_call"}))
        assert isinstance(made, ToolEnvironment), f"{name} has tools only with other options"
    functions = [
        Function(_identifier(tool.name), tool.argument, tool.description, tool.name) for tool in made.tools.values()
    ]
    return Chosen(Choice(name, given), made, tuple(functions))


def _identifier(name: str) -> str:
    found = name.rpartition(":")[2].replace("-", "_")
    if not found.isidentifier():
        raise TaskError(f"{name!r} cannot be the name of a function. Register the environment under another name.")
    return found


class IsOver(ValueError):
    """A call in an episode that is over."""


class AskedEpisode:
    """One episode: a problem, and the turns so far."""

    def __init__(self, chosen: Chosen, *, workers: int = 1) -> None:
        self.chosen, self._workers = chosen, workers
        self.reset({})

    def reset(self, row: Mapping[str, object], *, reference: str = "reference") -> None:
        """Begin anew with a row: `prompt` (text or messages), the reference's column, and `info` (JSON or its text).

        Raises:
            TaskError: the column of the reference is missing in a row with a prompt, or info is no object.
        """
        self._prompt = prompt_text(row["prompt"]) if row.get("prompt") else ""  # pyright: ignore[reportArgumentType]
        if row.get("prompt") and reference not in row:
            raise TaskError(f"rows must have the column {reference!r}; they have: {', '.join(sorted(row))}.")
        self._reference = as_json(row.get(reference))
        given = row.get("info")
        info = json.loads(given) if isinstance(given, str) and given else as_json(given)
        info = {} if info is None or info == "" else info
        if not is_object(info):
            raise TaskError(f"the column info must hold an object; got {str(info)[:80]}.")
        self._info = dict(info)
        self.turns: list[Turn] = []
        self.score: float | None = None
        """Of the latest reply that had one."""
        self.fault: str | None = None
        """Why the environment itself failed; None while it has not."""
        self.calls = self.errors = 0
        self._over = ""

    def call(self, function: Function, arguments: Mapping[str, object]) -> str:
        """Make a call and return the reply.

        Raises:
            IsOver: the game was over before; the policy is told.
            EnvironmentFault: the environment failed, and not the policy.
        """
        if self._over:
            raise IsOver(self._over)
        self.turns.append(Turn("policy", self._written(function, arguments)))
        reply = self._asked()
        moves = sum(turn.origin == "policy" for turn in self.turns)
        if reply is None:
            self._over = "the episode is over"
            return ""
        self.turns.append(Turn("environment", reply.text, reply.data))
        self.score = self.score if reply.score is None else float(reply.score)
        self.calls, self.errors = self.calls + reply.calls, self.errors + reply.errors
        if reply.done or (self.chosen.is_game and moves >= self.chosen.environment.max_turns):
            self._over = f"the game is over after {moves} moves"
        return reply.text.strip("\n")

    def _written(self, function: Function, arguments: Mapping[str, object]) -> str:
        """A turn of the policy that is this call."""
        if function.tool is not None:
            call = json.dumps({"name": function.tool, "arguments": as_json(dict(arguments))})
            return "<tool_call>{}</tool_call>".format(call.replace("<", "\\u003c"))  # marks in it end nothing
        text, stop = str(arguments.get(function.argument, "")), tuple(self.chosen.environment.stop)
        return text if not stop or text.endswith(stop) else text + stop[0]

    def _asked(self) -> Reply | None:
        environment, choice = self.chosen.environment, self.chosen.choice
        if self.fault is not None:
            raise EnvironmentFault(self.fault)
        episode = Episode(
            turns=self.turns, prompt=self._prompt, reference=self._reference, info=self._info, seed=self._seed()
        )
        row = asked_row(episode, uses_seed=environment.uses_seed)
        verdict = process_pool(self._workers).submit(ASKED, asked_options(choice), row).result()
        if not verdict.graded:
            self.fault = f"environment {environment.name} could not reply: {verdict.reason}"
            raise EnvironmentFault(self.fault)
        return reply_in(verdict)

    def _seed(self) -> int:
        """A seed of the problem and the turns: a trainer names none, and equal episodes get equal replies."""
        said = json.dumps([self._prompt, self._reference, [turn.text for turn in self.turns]])
        return int.from_bytes(hashlib.blake2b(said.encode(), digest_size=4).digest())


def row_of(problem: Problem) -> dict[str, JSON]:
    """Return a problem as a row of a dataset: id, prompt (messages), reference and info (as JSON text).

    Example:
        >>> row_of(Problem(id="add/0", prompt="2+2=", reference="4", verifier="exact"))["prompt"]
        [{'role': 'user', 'content': '2+2='}]
    """
    said = problem.prompt
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else [dict(one) for one in said]
    return {
        "id": problem.id,
        "prompt": cast("JSON", messages),
        "reference": problem.reference,
        "info": json.dumps(dict(problem.info)),
    }
