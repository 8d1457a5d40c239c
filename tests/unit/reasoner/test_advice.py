"""Printed advice can be followed: every key that a message names is one of the config's, every command parses.

The messages are read from the source: all texts of `reasoner/` but docstrings, with X for what is filled in.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from reasoner.algorithm.advantage import ESTIMATORS
from reasoner.algorithm.importance import IMPORTANCE
from reasoner.algorithm.loss import POLICY_LOSSES
from reasoner.algorithm.pairwise import DPO_LOSSES
from reasoner.cli import app
from reasoner.config.stage import StageConfig
from reasoner.engine import ENGINES, engine_class
from tasks.dataset import Dataset

ROOT = Path(__file__).resolve().parents[3]
FILES = re.compile(r"\.(jsonl?|ya?ml|safetensors|py|html|pt|completed|description|text)$")
"""Names of files, and of attributes in templates of the terminal."""
COMMAND = re.compile(r"`(reasoner (?:[^`]*))`")


def messages() -> Iterator[tuple[str, str]]:
    """Return (file:line, text) of every text that is not a docstring."""
    for path in sorted((ROOT / "reasoner").rglob("*.py")):
        tree = ast.parse(path.read_text())
        inner: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr):
                inner.add(id(node.value))
            if isinstance(node, ast.JoinedStr):
                inner |= {id(part) for part in ast.walk(node)} - {id(node)}
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if id(node) in inner:
                continue
            if isinstance(node, ast.JoinedStr):
                yield where, "".join(str(p.value) if isinstance(p, ast.Constant) else "X" for p in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield where, node.value


def section_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := section_of(inner)) is not None), None)


def options_of(functions: object) -> set[str]:
    listed = functions.values() if isinstance(functions, dict) else []
    return {
        name
        for function in listed
        for name, parameter in inspect.signature(getattr(function, "function", function)).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


OPTIONS = {
    "algorithm.advantage_options": options_of(dict(ESTIMATORS)),
    "algorithm.loss_options": options_of(dict(POLICY_LOSSES)),
    "algorithm.importance_options": options_of(dict(IMPORTANCE)),
    "dpo.loss_options": options_of(dict(DPO_LOSSES)),
    "engine.options": {
        name for engine in ENGINES for name in inspect.signature(engine_class(engine, {}).__init__).parameters
    },
    "task.options": set(inspect.signature(Dataset.__init__).parameters),
}


def key_fault(key: str) -> str | None:
    """Return why a key is not one of the config's, or ""."""
    section: type[BaseModel] | None = StageConfig
    parts = key.split(".")
    for place, part in enumerate(parts):
        above = ".".join(parts[:place])
        if above in OPTIONS:
            return None if part in OPTIONS[above] else f"{above} has no option {part!r}"
        if part.isdigit() and above == "task":
            continue
        if section is None or part not in section.model_fields:
            return f"{above or 'the config'} has no key {part!r}"
        section = section_of(section.model_fields[part].annotation)
    return None


KEYS = re.compile(rf"(?<![\w./:-])(?:{'|'.join(sorted(StageConfig.model_fields))})(?:\.[a-z_]+|\.\d+)+(?![\w(])")


def command_fault(text: str) -> str | None:
    """Return why a command line cannot be called: no such command or option, or a missing argument."""
    words = shlex.split(text)[1:]
    node: Any = typer.main.get_command(app)
    while words and hasattr(node, "get_command"):
        found = node.get_command(None, words[0])
        if found is None:
            return f"there is no command {words[0]!r}"
        node, words = found, words[1:]
    options = {name: p for p in node.params for name in p.opts if name.startswith("-")}
    given = 0
    while words:
        word, words = words[0], words[1:]
        if not word.startswith("-"):
            given += 1
        elif word not in options:
            return f"there is no option {word}"
        elif not options[word].is_flag:
            if not words:
                return f"{word} wants a value"
            words = words[1:]
    arguments = [p for p in node.params if p.param_type_name == "argument"]
    least = sum(p.required for p in arguments)
    most = sum(p.nargs if p.nargs > 0 else 10**6 for p in arguments)
    if not least <= given <= most:
        return f"it takes {least} to {most} arguments, not {given}"
    missing = [p.opts[0] for p in node.params if p.param_type_name == "option" and p.required and p.opts[0] not in text]
    return f"{missing[0]} is missing" if missing else None


def test_every_key_that_a_message_names_is_one_of_the_config() -> None:
    named = [
        (where, key.rstrip(".")) for where, text in messages() for key in KEYS.findall(text) if not FILES.search(key)
    ]
    assert len({key for _, key in named}) > 80
    assert not [f"{where}: {key}: {fault}" for where, key in named if (fault := key_fault(key))]


def test_every_command_that_a_message_names_parses() -> None:
    named = [
        (where, command)
        for where, text in messages()
        for command in COMMAND.findall(text)
        if "/cli/" not in where and "{" not in command
    ]
    assert len({command for _, command in named}) > 12
    assert not [f"{where}: {command}: {fault}" for where, command in named if (fault := command_fault(command))]


@pytest.mark.parametrize(
    ("key", "ok"),
    [
        ("optim.lr", True),
        ("optim.learning_rate", False),
        ("task.0.verifier", True),
        ("algorithm.advantage_options.threshold", True),
        ("algorithm.loss_options.clip", False),
        ("engine.options.kv_cache_gigabytes", True),
        ("model.from_scratch.layers", True),
        ("kl.coef", False),
    ],
)
def test_a_key_that_is_not_there_is_found(key: str, ok: bool) -> None:
    assert (key_fault(key) is None) is ok


@pytest.mark.parametrize(
    ("command", "ok"),
    [
        ("reasoner explain RUN --held-out NAME", True),
        ("reasoner explain RUN --heldout NAME", False),
        ("reasoner verifiers check", False),
        ("reasoner verifiers check NAME", True),
        ("reasoner checks NAME", False),
        ("reasoner train CONFIG --resume optim.lr=1e-7", True),
        ("reasoner export RUN", False),
    ],
)
def test_a_command_that_does_not_parse_is_found(command: str, ok: bool) -> None:
    assert (command_fault(command) is None) is ok
