"""Environments made of tools: the policy calls, the tool answers, and a turn without a call is the final answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tasks.base import TaskError
from tasks.environments.base import Environment, Episode, Inline, Reply
from tasks.environments.calls import BadCall, Call, Parse, fenced, tagged, tool_calls
from verifiers import JSON
from verifiers.suggest import did_you_mean

Notation = Literal["fenced", "tagged", "tool_call"]


class Answer(NamedTuple):
    """A tool's answer to one call."""

    text: str
    error: bool = False
    data: JSON = None
    """State, handed back with later calls (`Past.data`)."""


class Past(NamedTuple):
    """An earlier call of the same tool in the same episode."""

    arguments: Mapping[str, JSON]
    data: JSON
    """`Answer.data` of that call."""


class Tool:
    """A tool: a pure function of its arguments and of the earlier calls in the episode."""

    name: str = ""
    argument: str = "text"
    """The argument that a notation without named arguments gives (`fenced`: code, `tagged`: text)."""
    description: str = ""
    """One sentence for the policy."""
    call_seconds: float = 1.0
    """Most wall-clock seconds of one call, whatever the policy writes."""
    uses_seed: bool = True
    """False: the answer does not depend on the seed. Equal calls of a step are then made once."""

    def call(self, arguments: Mapping[str, JSON], past: Sequence[Past], seed: int) -> Answer:
        """Answer one call. Raises for nothing that a policy can write: an error is an Answer too."""
        raise NotImplementedError

    def schema(self) -> dict[str, JSON]:
        """The tool as JSON schema, in the form that chat templates take."""
        argument: dict[str, JSON] = {"type": "string"}
        parameters: dict[str, JSON] = {
            "type": "object",
            "properties": {self.argument: argument},
            "required": [self.argument],
        }
        function: dict[str, JSON] = {
            "name": self.name,
            "description": self.description,
            "parameters": parameters,
        }
        return {"type": "function", "function": function}


class ToolEnvironment(Environment):
    """Answers the tool calls of each turn, in order. A turn without a call is the final answer.

    Every fault that a policy can cause (a bad call, an unknown tool, an exception or a limit in its code) is answered
    with a text and counted; it never leaves the rollout ungraded.
    """

    role = "tool"

    def __init__(
        self,
        tools: Sequence[Tool],
        *,
        parse: Parse,
        opening: str = "",
        closing: str = "",
        max_calls: int = 4,
    ) -> None:
        """Prepare a set of tools.

        Args:
            tools: at least one; with the notations fenced and tagged exactly one.
            parse: fenced (a Markdown code block), tagged (text between `opening` and `closing`), or tool_call.
            opening: begin of a tagged call.
            closing: its end.
            max_calls: calls answered in one turn; further ones are told that they are not run.
        Raises:
            TaskError: the options do not fit together.
        """
        if parse not in ("fenced", "tagged", "tool_call"):
            raise TaskError(f"parse must be fenced, tagged or tool_call; got {parse!r}.")
        if parse != "tool_call" and len(tools) != 1:
            raise TaskError(f"parse: {parse} names no tool, so there must be one tool; got {len(tools)}.")
        if parse == "tagged" and not (opening and closing):
            raise TaskError("parse: tagged needs the marks `opening` and `closing`.")
        if max_calls < 1:
            raise TaskError(f"max_calls must be at least 1; got {max_calls}.")
        self.tools = {tool.name: tool for tool in tools}
        self._parse, self._marks, self._max_calls = parse, (opening, closing), max_calls
        self.uses_seed = any(tool.uses_seed for tool in tools)
        self.reply_seconds = Environment.reply_seconds + max_calls * max(tool.call_seconds for tool in tools)
        if parse == "tagged":
            self.stop, self.inline = (closing,), Inline("", "\n")
        elif parse == "fenced":
            self.stop, self.inline = ("\n```\n",), Inline("```output\n", "\n```\n")
        else:
            self.stop = ("</tool_call>",) if max_calls == 1 else ()
            self.inline = Inline("\n<tool_response>\n", "\n</tool_response>\n")

    @property
    def named_calls(self) -> bool:
        """True if calls name their tool and arguments (`parse: tool_call`)."""
        return self._parse == "tool_call"

    def schemas(self) -> list[dict[str, JSON]]:
        """The tools as JSON schemas."""
        return [tool.schema() for tool in self.tools.values()]

    def calls_in(self, text: str) -> list[Call | BadCall]:
        """Return the calls of a turn, in order."""
        if self._parse == "tool_call":
            return tool_calls(text)
        (tool,) = self.tools.values()
        found = fenced(text) if self._parse == "fenced" else tagged(text, *self._marks)
        return [
            one if isinstance(one, BadCall) else Call(tool.name, {tool.argument: next(iter(one.arguments.values()))})
            for one in found
        ]

    def reply(self, episode: Episode) -> Reply | None:
        calls = self.calls_in(episode.said)
        if not calls:
            return None
        past = self._past(episode)
        texts: list[str] = []
        data: list[JSON] = []
        errors = 0
        for number, call in enumerate(calls):
            if number == self._max_calls:
                left = len(calls) - number
                texts.append(f"Error: {left} more calls were not run; at most {number} calls are run in one turn")
                errors += left
                break
            answer = self._answer(call, past, episode.seed + number)
            texts.append(answer.text)
            data.append(answer.data)
            errors += answer.error
            if isinstance(call, Call):
                past.setdefault(call.name, []).append(Past(call.arguments, answer.data))
        return Reply("\n".join(texts), data=data, calls=len(calls), errors=errors)

    def _answer(self, call: Call | BadCall, past: Mapping[str, Sequence[Past]], seed: int) -> Answer:
        if isinstance(call, BadCall):
            return Answer(f"Error: {call.why}", error=True)
        tool = self.tools.get(call.name)
        if tool is None:
            said = f"Error: there is no tool {call.name[:40]!r}.{did_you_mean(call.name[:40], self.tools)}"
            return Answer(f"{said} Tools: {', '.join(self.tools)}", error=True)
        if not isinstance(call.arguments.get(tool.argument), str):
            return Answer(f"Error: {tool.name} takes the argument {tool.argument!r}, a string", error=True)
        return tool.call(call.arguments, past.get(call.name, ()), seed)

    def _past(self, episode: Episode) -> dict[str, list[Past]]:
        """Earlier calls of the episode that were run, by tool, with the data of their answers."""
        found: dict[str, list[Past]] = {}
        for turn, following in zip(episode.turns[:-1], episode.turns[1:], strict=True):
            if turn.origin != "policy" or following.origin != "environment":
                continue
            data = following.data if isinstance(following.data, list) else []
            for call, kept in zip(self.calls_in(turn.text), data, strict=False):
                if isinstance(call, Call):
                    found.setdefault(call.name, []).append(Past(call.arguments, kept))
        return found
