"""verl: an environment as a tool of its agent loop.

In the file of `actor_rollout_ref.rollout.multi_turn.tool_config_path`:

    tools:
      - class_name: tasks.integrations.verl.EnvironmentTool
        config: {type: native, environment: calculator, options: {}}

`EnvironmentTool` is made when it is asked for: it is a subclass of verl's BaseTool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, cast
from uuid import uuid4
from weakref import WeakKeyDictionary

from tasks.base import TaskError
from tasks.integrations.asked import AskedEpisode, Chosen, Function, IsOver, chosen
from verifiers import JSON
from verifiers.jsonl import is_object
from verifiers.suggest import did_you_mean

CONFIG = ("type", "environment", "options", "tool", "reference", "workers")


class ToolOfEnvironment:
    """One function of an environment, with the methods of verl's BaseTool.

    verl creates and releases a tool for every call. The turns of a rollout are kept with its `agent_data`, so later
    calls see the earlier ones; without `agent_data` they are kept from `create` to `release`. The row of the problem
    comes as `extra_info.tools_kwargs[NAME].create_kwargs`: `prompt`, `reference`, `info`.
    """

    config: Mapping[str, Any]

    def __init__(self, config: Mapping[str, Any], tool_schema: object = None) -> None:
        """Make the environment.

        Args:
            config: `environment`; optional `options`, `tool` (which one, where the environment has several),
                `reference` (key of the row, reference), `workers` (2).
            tool_schema: of verl; None: the environment's own.
        Raises:
            TaskError: the environment cannot be made, or has no such tool.
        """
        if unknown := next((key for key in config if key not in CONFIG), None):
            raise TaskError(f"config has no key {unknown!r}.{did_you_mean(unknown, CONFIG)} Keys: {', '.join(CONFIG)}.")
        options = cast("object", config.get("options") or None)
        if not config.get("environment") or not (options is None or is_object(options)):
            raise TaskError("config must name an `environment`, and its `options`, if any, as an object.")
        self._chosen: Chosen = chosen(str(config["environment"]), cast("Mapping[str, JSON] | None", options))
        self._function: Function = self._named(config.get("tool"))
        self._reference, self._workers = str(config.get("reference", "reference")), int(config.get("workers", 2))
        self._created: dict[str, AskedEpisode] = {}
        self._kept: WeakKeyDictionary[object, AskedEpisode] = WeakKeyDictionary()
        super().__init__(config, tool_schema)  # pyright: ignore[reportCallIssue]  (of BaseTool)

    def _named(self, name: object) -> Function:
        functions = {function.name: function for function in self._chosen.functions}
        if name is None and len(functions) == 1:
            return next(iter(functions.values()))
        if name not in functions:
            raise TaskError(f"config.tool must be one of {', '.join(functions)}; got {name!r}.")
        return functions[str(name)]

    def get_openai_tool_schema(self) -> Any:
        """Return the function's schema in verl's class."""
        return import_module("verl.tools.schemas").OpenAIFunctionToolSchema.model_validate(self._function.schema())

    async def create(self, instance_id: str | None = None, **kwargs: Any) -> tuple[str, Any]:
        """Begin a call with the problem's row in `create_kwargs`; verl's name for `reference` is taken too."""
        row = dict(kwargs.get("create_kwargs") or {})
        if "ground_truth" in row:
            row.setdefault(self._reference, row["ground_truth"])
        episode = AskedEpisode(self._chosen, workers=self._workers)
        episode.reset(row, reference=self._reference)
        name = instance_id or str(uuid4())
        self._created[name] = episode
        return name, _response()

    async def execute(self, instance_id: str, parameters: Mapping[str, Any], **kwargs: Any) -> tuple[Any, float, Any]:
        """Make one call.

        Returns:
            (response, change of the score, {calls, errors}).
        Raises:
            EnvironmentFault: the environment itself failed; verl tells the policy of an error.
        """
        episode = self._created[instance_id]
        agent = kwargs.get("agent_data")
        if agent is not None:
            episode = self._created[instance_id] = self._kept.setdefault(agent, episode)
        before, calls, errors = episode.score or 0.0, episode.calls, episode.errors
        try:
            text = await asyncio.to_thread(episode.call, self._function, dict(parameters))
        except IsOver as over:
            return _response(f"Error: {over}"), 0.0, {"calls": 1, "errors": 1}
        counted = {"calls": episode.calls - calls, "errors": episode.errors - errors}
        return _response(text), (episode.score or 0.0) - before, counted

    async def calc_reward(self, instance_id: str, **kwargs: Any) -> float:
        """Return the latest score of a game; 0 for tools."""
        return self._created[instance_id].score or 0.0

    async def release(self, instance_id: str, **kwargs: Any) -> None:
        """End the call."""
        self._created.pop(instance_id, None)


def _response(text: str | None = None) -> Any:
    return import_module("verl.tools.schemas").ToolResponse(**({} if text is None else {"text": text}))


@cache
def _tool_class() -> type:
    base = import_module("verl.tools.base_tool").BaseTool
    return type("EnvironmentTool", (ToolOfEnvironment, base), {"__doc__": ToolOfEnvironment.__doc__})


def __getattr__(name: str) -> Any:
    if name != "EnvironmentTool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _tool_class()
