"""Environments by name: built in, by entry point, by `module:attribute`, by file path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import NamedTuple

from tasks.base import TaskError
from tasks.environments.base import DECORATED, Environment
from verifiers import JSON, UnknownVerifier
from verifiers.options import name_fault, option_fault
from verifiers.registry import Kind, file_hint, importable_target, load_attribute
from verifiers.suggest import did_you_mean

ENTRY_POINT_GROUP = "reasoner.environments"
KIND = Kind("environment", Environment, "__environment__")

BUILTIN: Mapping[str, str] = {
    "calculator": "tasks.environments.calculator:Calculator",
    "guess": "tasks.environments.guess:guess",
    "python": "tasks.environments.python:Python",
    "replayed": "tasks.environments.replayed:Replayed",
    "tools": "tasks.environments.several_tools:Tools",
}
"""Name to `module:attribute`, imported on first use."""


class EnvironmentSource(NamedTuple):
    """Where a name leads."""

    name: str
    target: str
    origin: str


def installed_environments() -> list[EnvironmentSource]:
    """Every name that `get_environment` takes on this machine, sorted."""
    found = {name: EnvironmentSource(name, target, "built in") for name, target in BUILTIN.items()}
    for source in _of_packages():
        found.setdefault(source.name, source)
    for name, cls in DECORATED.items():
        found.setdefault(name, EnvironmentSource(name, f"{cls.__module__}:{cls.__qualname__}", "this process"))
    return sorted(found.values())


@cache
def _of_packages() -> list[EnvironmentSource]:
    """Environments that installed packages declare; reading these declarations takes milliseconds."""
    return [
        EnvironmentSource(point.name, point.value, point.dist.name if point.dist else "unknown package")
        for point in entry_points(group=ENTRY_POINT_GROUP)
    ]


def environment_class(name: str) -> type[Environment]:
    """The class behind a name.

    Raises:
        TaskError: there is none, or it cannot be imported; suggests the closest.
    """
    if name in DECORATED:
        return DECORATED[name]
    sources = {source.name: source.target for source in installed_environments()}
    target = sources.get(name, name)
    if ":" not in target and not target.endswith(".py"):
        hint = did_you_mean(name, sources) + file_hint(name)
        raise TaskError(f"no environment named {name!r}.{hint} Installed: {', '.join(sources)}.")
    try:
        found = load_attribute(target, KIND)
    except UnknownVerifier as error:
        raise TaskError(str(error)) from error
    found = getattr(found, "__environment__", found)
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise TaskError(f"{target} must be an Environment class or a function with @environment; got {found!r}.")
    return found


def importable_name(name: str) -> str:
    """Return a name that another process resolves to the same environment."""
    return importable_target(name, DECORATED)


def get_environment(name: str, **options: JSON) -> Environment:
    """The environment under a name, `package.module:attribute` or `path/to/file.py[:attribute]`.

    Raises:
        TaskError: no such environment, an option that it does not take, or a value that it cannot use.
    """
    cls = environment_class(name)
    fault = name_fault(cls.__init__, options) or option_fault(cls.__init__, options)
    if fault:
        raise TaskError(f"environment {name!r}: {fault}.")
    try:
        return cls(**options)
    except TaskError as error:
        raise TaskError(f"environment {name!r}: {error}") from error
    except (TypeError, ValueError) as error:
        takes = ", ".join(inspect.signature(cls).parameters) or "no options"
        raise TaskError(f"environment {name!r}: {error}. It takes: {takes}.") from error
