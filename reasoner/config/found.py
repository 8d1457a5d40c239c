"""Restrictions on the config of a finished run, because a run folder and its config may come from anyone.

A config that is given to a command is the user's own and is trusted like code. A config found in a run folder is read
by commands over runs. It may name data, but no code and no other machine.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import JsonValue

from reasoner.config.errors import ConfigError
from reasoner.config.sections import TaskSection
from reasoner.config.stage import StageConfig
from tasks.registry import BUILTIN, task_class
from verifiers.registry import leads_elsewhere
from verifiers.row_choice import ALLOW, Choice, Options, RowGraders, RowRefused, bounds_in, row_choice


def graders_of(stage: StageConfig, *, any_row: bool) -> RowGraders:
    """Return the verifiers that may grade a run's stored rollouts: those its config names, with the config's limits.

    Args:
        stage: the run's config.
        any_row: True also allows whatever verifier a row names.
    """
    if any_row:
        return RowGraders(any_row=True)
    named: dict[str, Options] = {}
    for section in stage.task:
        if section.name in BUILTIN and (defaults := getattr(task_class(section.name), "default_options", None)):
            named |= bounds_in("code", defaults)
    for chosen in (choice for section in stage.task for choice in _verifiers(section)):
        for name, options in bounds_in(*chosen).items():
            named[name] = {**named.get(name, {}), **options}
    if stage.reward is not None:
        named |= bounds_in(stage.reward.name, stage.reward.options)
    return RowGraders(named=named)


def check_found(stage: StageConfig, *, task: str | None, verifier: str | None, engine: str | None) -> None:
    """Check that evaluating by a run's own config loads no code and calls no machine that the user did not name.

    Args:
        stage: the run's config.
        task: task named by the user instead of the config's.
        verifier: verifier named by the user instead of the config's.
        engine: engine named by the user instead of the config's.
    Raises:
        ConfigError: the config names code or another machine; the message says where, and how to allow it.
    """
    named = [] if engine is not None else [("engine.name", stage.engine.name)]
    sections = [section for section in stage.task if task in (None, section.name)]
    named += [("task.name", section.name) for section in sections if section.name != task]
    named += [("task.environment.name", section.environment.name) for section in sections if section.environment]
    for key, name in named:
        if leads_elsewhere(name):
            raise _refused(f"{key} {name!r} is a file or a module")
    for section in sections:
        if section.options.get("allow_row_code"):
            raise _refused("task.options.allow_row_code lets rows name code")
        for chosen in _verifiers(section) if verifier is None else ():
            try:
                row_choice(*chosen, named=bounds_in(*chosen))
            except RowRefused as error:
                raise _refused(str(error)) from error


def _refused(what: str) -> ConfigError:
    reason = what.rstrip(".")
    return ConfigError(
        "found-code",
        f"the run's own config must name no code and no other machine: {reason}. Name what you want yourself (--task,"
        f" --verifier, --engine), or pass {ALLOW} if you trust the folder.",
    )


def _verifiers(section: TaskSection) -> Iterator[Choice]:
    """Yield the verifiers that a task's section names: the one that replaces the task's, and one among its options."""
    if section.verifier is not None:
        yield Choice(section.verifier.name, section.verifier.options)
    name, options = section.options.get("verifier", "code"), section.options.get("verifier_options")
    if "verifier" in section.options or options is not None:
        yield Choice(str(name), _mapping(options))


def _mapping(options: JsonValue) -> Options:
    return options if isinstance(options, dict) else {}


__all__ = ["check_found", "graders_of"]
