"""Lookup of tasks by name: built in, by entry point, by `module:attribute`, or by file path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import NamedTuple

from tasks.base import Task, TaskError
from verifiers import JSON, UnknownVerifier
from verifiers.options import name_fault, option_fault
from verifiers.registry import Kind, file_hint, load_attribute
from verifiers.suggest import did_you_mean

ENTRY_POINT_GROUP = "reasoner.tasks"
KIND = Kind("Task", Task, "")

BUILTIN: Mapping[str, str] = {
    "arithmetic": "tasks.arithmetic:Arithmetic",
    "code_contests": "tasks.code_contests:CodeContests",
    "bbh": "tasks.bbh:Bbh",
    "countdown": "tasks.countdown:Countdown",
    "covering": "tasks.covering:Covering",
    "cruxeval": "tasks.cruxeval:CruxEval",
    "dataset": "tasks.dataset:Dataset",
    "deductions": "tasks.deductions:Deductions",
    "functions": "tasks.functions:Functions",
    "game24": "tasks.game24:Game24",
    "gsm8k": "tasks.gsm8k:Gsm8k",
    "guessing": "tasks.guessing:Guessing",
    "instructions": "tasks.instruction_prompts:InstructionPrompts",
    "humaneval": "tasks.humaneval:HumanEval",
    "mbpp": "tasks.mbpp:Mbpp",
    "mbpp_plus": "tasks.mbpp:MbppPlus",
    "logic-puzzles": "tasks.logic_puzzles:LogicPuzzles",
    "prontoqa": "tasks.prontoqa:ProntoQa",
    "suite": "tasks.suites.task:SuiteTask",
    "sudoku": "tasks.sudoku:Sudoku",
    "tool_problems": "tasks.tool_problems:ToolProblems",
    "topics": "tasks.topics:Topics",
    "word_problems": "tasks.word_problems:WordProblems",
    "reasoning-gym": "tasks.gym:ReasoningGym",
}
"""Task name -> `module:class`, imported on first use."""


class TaskSource(NamedTuple):
    """A task name, the `module:class` that it means, and where it comes from."""

    name: str
    target: str
    origin: str


def installed_tasks() -> list[TaskSource]:
    """Return every task name available on this machine, sorted."""
    found = {name: TaskSource(name, target, "built in") for name, target in BUILTIN.items()}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        origin = point.dist.name if point.dist else "unknown package"
        found.setdefault(point.name, TaskSource(point.name, point.value, origin))
    return sorted(found.values())


def task_class(name: str) -> type[Task]:
    """Return the class of a task name.

    Raises:
        TaskError: there is no such task (suggests the closest name), or it is not a Task class.
    """
    sources = {source.name: source.target for source in installed_tasks()}
    target = sources.get(name, name)
    if ":" not in target and not target.endswith(".py"):
        hint = did_you_mean(name, sources) + file_hint(name)
        raise TaskError(f"no task named {name!r}.{hint} Installed: {', '.join(sources)}.")
    try:
        found = load_attribute(target, KIND)
    except UnknownVerifier as error:
        raise TaskError(str(error)) from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise TaskError(f"{target} must be a Task class; got {found!r}.")
    return found


def get_task(name: str, **options: JSON) -> Task:
    """Build the task of a name, of `package.module:attribute` or of `path/to/file.py[:attribute]`.

    Raises:
        TaskError: no such task, an unknown option, or an option value that it cannot use.
    """
    cls = task_class(name)
    fault = name_fault(cls.__init__, options) or option_fault(cls.__init__, options)
    if fault:
        raise TaskError(f"task {name!r}: {fault}.")
    try:
        return cls(**options)
    except TaskError:
        raise
    except (TypeError, ValueError) as error:
        takes = ", ".join(inspect.signature(cls).parameters) or "no options"
        raise TaskError(f"task {name!r}: {error}. It takes: {takes}.") from error
