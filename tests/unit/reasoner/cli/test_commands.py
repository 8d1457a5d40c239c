"""Messages of the command line for new users, and files that it leaves behind."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from reasoner import __version__
from reasoner.cli import COMMANDS, app
from reasoner.cli.examples import EXAMPLES
from reasoner.config.load import resolve

RUN = CliRunner()


@pytest.mark.parametrize("asked", ["--version", "env"])
def test_versions_are_told_without_a_key(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    done = RUN.invoke(app, [asked])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"reasoner {__version__}")
    assert "torch" in done.stdout
    assert "secret" not in done.stdout
    assert ("OMP_NUM_THREADS=3" in done.stdout) == (asked == "env")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("trian", "Did you mean 'train'?"),
        ("verfy --gold 1", "Did you mean 'verify'?"),
        ("train quickstart --steps 5", "Settings are key=value: steps=..."),
        ("eval x --max-steps 5", "Settings are key=value: max_steps=..."),
        ("verify --gold 1", "give --verifier and --completion too"),
        ("verify --gold 1 --verifier math", "give --completion too"),
        ("verify a.jsonl --resume --overwrite", "give one of them"),
        ("tasks show dataset -o path=x -o prompt_colum=x", "Did you mean 'prompt_column'?"),
        ("tasks show dataset", "option 'path' is missing"),
        ("verify --verifier math -o lenint=true --gold 1 --completion 1", "Did you mean 'lenient'?"),
        ("verify --verifier exact -o x=1 --gold 1 --completion 1", "unknown option 'x'"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(command: str, says: str) -> None:
    done = RUN.invoke(app, command.split(), env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert says in done.output


def every_command() -> Iterator[tuple[str, Any]]:
    """Return all command words that lead to a help text, with the parser of their arguments."""
    group: Any = typer.main.get_command(app)
    yield "", group
    for name in COMMANDS:
        command = group.get_command(None, name)
        yield name, command
        for part, inner in getattr(command, "commands", {}).items():
            yield f"{name} {part}", inner


def test_every_help_ends_with_two_examples_that_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "program.py").touch()  # that must be there to be named
    (tmp_path / "token").touch()
    commands = dict(every_command())
    assert set(EXAMPLES) == set(commands)
    for name, examples in EXAMPLES.items():
        shown = RUN.invoke(app, [*name.split(), "--help"]).stdout
        assert "<bool>" not in shown
        assert shown.rstrip().splitlines()[-2:] == [f"  {example}" for example in examples], name
        for example in examples:
            words = shlex.split(example.rpartition("echo 1 | ")[2].partition(" | ")[0])
            assert words[0] == "reasoner"
            if "COMMAND" in words or words[1].startswith("--"):
                continue
            longest = " ".join(words[1:3]) if " ".join(words[1:3]) in commands else words[1]
            assert name in ("", longest, longest.split()[0])
            commands[longest].make_context(longest, words[1 + len(longest.split()) :])  # raises for an unknown option


def test_messages_name_the_program_as_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "reasoner"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reasoner.engine.environment.prepare_process", lambda: None)
    for started, named in ((str(script), str(script)), ("reasoner", "reasoner"), ("bin/reasoner", "bin/reasoner")):
        monkeypatch.setattr(sys, "argv", [started])
        refused = RUN.invoke(app, ["eval", "adapter", "--task", "arithmetic"]).output
        assert f"`{named} export" in refused
        assert f"  {named} train quickstart" in RUN.invoke(app, ["train", "--help"], env={"COLUMNS": "300"}).stdout
        made = RUN.invoke(app, ["verifiers", "new", "rhyme", "--folder", f"made{len(started)}"]).stdout
        assert made.rstrip().endswith(f"&& {named} verifiers check rhyme")


def test_an_output_is_replaced_only_when_asked_and_only_by_another(tmp_path: Path) -> None:
    rows, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    command = ["verify", str(rows), "--verifier", "exact", "--output", str(output)]
    assert RUN.invoke(app, command).exit_code == 2  # there are no rows
    assert list(tmp_path.iterdir()) == []
    rows.write_text('{"completion": "1", "reference": "1"}\n')
    assert RUN.invoke(app, command).exit_code == 0
    before = output.read_text()
    again = RUN.invoke(app, command)
    assert again.exit_code == 2
    assert "already exists" in again.output
    rows.write_text('{"completion": "1", "reference": "2"}\n' * 2)
    assert RUN.invoke(app, [*command, "--overwrite"]).exit_code == 0
    assert [json.loads(line)["outcome"] for line in output.read_text().splitlines()] == ["incorrect"] * 2
    after = output.read_text()
    assert after != before
    rows.unlink()
    assert RUN.invoke(app, [*command, "--overwrite"]).exit_code == 2
    assert output.read_text() == after
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("prompt.template={prompt} Go:", "{prompt} Go:"),
        ("prompt.template={prompt}", "{prompt}"),
        ("prompt.template=[a] {prompt}", "[a] {prompt}"),
        ('prompt.template="{prompt}"', "{prompt}"),
        ("prompt.system=yes", "yes"),
        ("prompt.system=7", "7"),
        ("prompt.system=- be kind: always", "- be kind: always"),
        ("prompt.system=null", None),
        ("prompt.system=", ""),
        ("task.options.template={question} Answer:", "{question} Answer:"),
        ("task.options.template={question}", "{question}"),
        ("task.options.split_names={test: train}", {"test": "train"}),
        ("task.options.digits=3", 3),
        ("task.options.fast=true", True),
        ("steps=7", 7),
    ],
)
def test_an_override_is_text_where_the_setting_is_text(override: str, value: object) -> None:
    raw = {"task": {"name": "dataset", "options": {"path": "x"}}, "model": "org/name"}
    stage = resolve(raw, [override]).stages[0]
    key = override.partition("=")[0]
    held: object = stage.task[0].options if key.startswith("task.options.") else stage
    for part in key.removeprefix("task.options.").split("."):
        held = held[part] if isinstance(held, dict) else getattr(held, part)
    assert held == value
    assert type(held) is type(value)
