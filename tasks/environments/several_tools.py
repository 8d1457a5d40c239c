"""Several tools in one environment, chosen by the name in the call."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.base import TaskError
from tasks.environments.calculator import CalculatorTool
from tasks.environments.python import PythonTool
from tasks.environments.tools import Tool, ToolEnvironment
from verifiers import JSON
from verifiers.suggest import did_you_mean

TOOLS: Mapping[str, type[Tool]] = {"calculator": CalculatorTool, "python": PythonTool}
"""Tools by name."""


class Tools(ToolEnvironment):
    """Several tools, called as `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`.

    Example:
        >>> env = Tools(use={"calculator": {}})
        >>> call = '<tool_call>{"name": "calculator", "arguments": {"text": "6*7"}}</tool_call>'
        >>> from tasks import Turn
        >>> from tasks.environments import Episode
        >>> env.reply(Episode(turns=[Turn("policy", call)])).text
        '42'
    """

    name = "tools"

    def __init__(self, *, use: dict[str, JSON], max_calls: int = 4) -> None:
        """Make the tools by name.

        Args:
            use: name of a tool (calculator, python) to its options.
            max_calls: calls answered in one turn.
        """
        made: list[Tool] = []
        for name, options in use.items():
            if name not in TOOLS:
                raise TaskError(f"no tool named {name!r}.{did_you_mean(name, TOOLS)} Tools: {', '.join(TOOLS)}.")
            if options is not None and not isinstance(options, dict):
                raise TaskError(f"use.{name} must hold the tool's options; got {options!r}.")
            try:
                made.append(TOOLS[name](**(options or {})))
            except TypeError as error:
                raise TaskError(f"tool {name!r}: {error}.") from None
        if not made:
            raise TaskError("use must name at least one tool.")
        super().__init__(made, parse="tool_call", max_calls=max_calls)
