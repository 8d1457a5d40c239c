"""TRL: an environment as the `environment_factory` of its GRPOTrainer.

`GRPOTrainer(..., environment_factory=environment_factory("calculator"), train_dataset=dataset)`
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from tasks.integrations.asked import AskedEpisode, Chosen, Function, chosen
from verifiers import JSON


class TrlEnvironment:
    """What TRL asks of an environment: `reset`, and tools as public methods. `environment_factory` makes the class."""

    _chosen: Chosen
    _reference: str
    _workers: int

    def __init__(self) -> None:
        self._episode = AskedEpisode(self._chosen, workers=self._workers)

    def reset(self, **row: object) -> None:
        """Begin anew with a row of the dataset."""
        self._episode.reset(row, reference=self._reference)

    @property
    def fault(self) -> str | None:
        """Why the environment could not reply; `reward_function` then gives the completion no reward."""
        return self._episode.fault


def environment_factory(
    environment: str, *, options: Mapping[str, JSON] | None = None, reference: str = "reference", workers: int = 2
) -> type[TrlEnvironment]:
    """Build a class for TRL's `environment_factory`.

    Its methods are the tools of the environment, or for a game one method with the move as text. A game also has
    `get_reward`, its last score; tools leave the reward to `verifiers.integrations.trl.reward_function`. Replies are
    computed in killable workers. What the environment itself fails at is raised, so that TRL tells the policy of an
    error and goes on; the completion then has no reward.

    Args:
        environment: name, file.py, file.py:attribute or module:attribute.
        options: of the environment.
        reference: dataset column with the reference answer.
        workers: number of processes that reply.
    Raises:
        TaskError: there is no such environment, or its options do not fit.
    """
    made = chosen(environment, options)
    members: dict[str, object] = {
        "__doc__": f"The environment {made.environment.name} for TRL.",
        "_chosen": made,
        "_reference": reference,
        "_workers": workers,
        **{function.name: _method(function) for function in made.functions},
    }
    if made.is_game:
        members["get_reward"] = _get_reward
    name = "".join(part.capitalize() for part in made.functions[0].name.split("_")) if made.is_game else "Tools"
    return type(name, (TrlEnvironment,), members)


def _get_reward(self: TrlEnvironment) -> float | None:
    """Return the game's last score, at most 1 and at least 0; None if the environment failed."""
    episode = self._episode  # pyright: ignore[reportPrivateUsage]
    return None if episode.fault is not None else min(1.0, max(0.0, episode.score or 0.0))


def _method(function: Function) -> Callable[..., str]:
    """Return a method with the name, signature and docstring from which TRL makes the schema of a tool."""

    def method(self: TrlEnvironment, **arguments: object) -> str:
        return self._episode.call(function, arguments)  # pyright: ignore[reportPrivateUsage]

    method.__name__ = method.__qualname__ = function.name
    method.__doc__ = (
        f"{function.description}\n\nArgs:\n    {function.argument}: {function.described_argument}\n\n"
        "Returns:\n    The reply.\n"
    )
    method.__annotations__ = {function.argument: str, "return": str}
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    argument = inspect.Parameter(function.argument, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=str)
    signature = inspect.Signature([itself, argument], return_annotation=str)
    method.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    return method
