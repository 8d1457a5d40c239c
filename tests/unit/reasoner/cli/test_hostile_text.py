"""No command lets foreign text control a terminal: every command, on a real terminal."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.hostile import HOSTILE, NAMEABLE, OURS, WRITABLE, obeyed
from tests.unit.reasoner.runs import make_records, write_run
from verifiers.text import visible

ROOT = Path(__file__).resolve().parents[4]
ECHO = '''
from verifiers import Outcome, Verifier
from verifiers.base import Example
from verifiers.verdict import fixed
class echo(Verifier):
    """Says what it was given."""
    name = "echo"
    examples = (Example(completion=%(bad)r, reference="x"),)
    def grade(self, row):
        if row.reference == "raise":
            raise ValueError(row.completion + "\\ud800")
        further = {row.completion: "\\ud800"}
        return fixed(Outcome.INCORRECT, f"it was {row.completion}\\ud800", answer=row.completion, **further)
    def check_reference(self, reference):
        pass
'''
TASK = '''
from tasks.base import Task
from tasks import Problem
class hostile(Task):
    """Problems of somebody else."""
    name = "hostile"
    splits = ("train",)
    def problems(self, split):
        bad = %(bad)r
        return [Problem(id=bad, task="hostile", prompt=bad, reference=bad, verifier="exact", demonstration=bad)]
'''


def shown_on_terminal(
    folder: Path, commands: Sequence[Sequence[str]], *, keys: bytes = b"", when: bytes = b"quit"
) -> list[str]:
    """Run commands in sequence in one process whose input and output are a terminal; return the output of each.

    `keys` are typed, over and over, once the terminal has shown `when`.
    """
    runs = [list(command) for command in commands]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from reasoner.cli import main\n"
        f"for argv in {runs!r}:\n"
        "    sys.argv = ['reasoner', *argv]\n"
        "    try: main()\n"
        "    except SystemExit as end: print(f'=== {end.code}', flush=True)\n"
    )
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ |= {"TERM": "xterm", "COLUMNS": "300", "XDG_CACHE_HOME": str(folder)}
        os.environ.pop("NO_COLOR", None)
        os.execv(sys.executable, [sys.executable, "-c", code])
    termios.tcsetwinsize(terminal, (50, 300))
    content, end = b"", time.monotonic() + 240
    try:
        while time.monotonic() < end:
            if select.select([terminal], [], [], 0.5)[0]:
                content += os.read(terminal, 65536)
            elif keys and when in content:  # again and again: what is typed before it listens is lost
                os.write(terminal, keys)
    except OSError:  # the process has ended
        pass
    else:
        os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    os.close(terminal)
    parts = re.split(r"=== \S+\r?\n", content.decode())
    assert len(parts) == len(commands) + 1, content.decode()[-3000:]
    return parts[:-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("hostile")
    made = make_records(steps=2, problems=4, seed=1)
    for row in made.rollouts:
        detail = {"reason": WRITABLE, WRITABLE: WRITABLE}
        row["verdict"] |= {"outcome": "no_answer", "reward": 0.0, "answer": WRITABLE, "detail": detail}
        row |= dict.fromkeys(("completion", "prompt", "reference", "task"), WRITABLE)
        row |= {"problem": WRITABLE + str(row["problem"]), "reward": 0.0}
    write_run(where / "run", made)
    write_run(where / NAMEABLE, made)
    failed = {"step": 1, "error": WRITABLE, "message": WRITABLE + "\ud800", "command": WRITABLE}
    (where / "run" / "failed.json").write_text(json.dumps(failed))
    place = {"machine": WRITABLE, "why": WRITABLE, "log": WRITABLE, "version": WRITABLE, "state": "down"}
    (where / "run" / "cluster").mkdir()
    (where / "run" / "cluster" / "cluster.json").write_text(json.dumps({"trainers": [place], "kept_by": WRITABLE}))
    rows = [
        {"id": WRITABLE, "completion": WRITABLE, "reference": reference, "expected": True, "category": WRITABLE}
        for reference in ("x", "raise")
    ]
    (where / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (where / NAMEABLE).with_suffix(".jsonl").write_text("no json " + WRITABLE)
    pair = {"id": WRITABLE, "prompt": WRITABLE, "first": WRITABLE + "1", "second": WRITABLE + "2"}
    (where / "pairs.jsonl").write_text(json.dumps(pair | {"category": WRITABLE}) + "\n")
    (where / "echo.py").write_text(ECHO % {"bad": WRITABLE})
    (where / "hostile.py").write_text(TASK % {"bad": WRITABLE})
    (where / "bad.yaml").write_text(json.dumps({"method": "grpo", WRITABLE: WRITABLE}))
    (where / "suite.yaml").write_text(json.dumps({"parts": [{"name": WRITABLE, "file": "none", "verifier": WRITABLE}]}))
    return where


ARGUMENT = NAMEABLE
COMMANDS: list[list[str]] = [
    ["verify", "-v", "echo.py:echo", "--gold", "x", "--completion", ARGUMENT],
    ["verify", "-v", "echo.py:echo", "--gold", "raise", "--completion", ARGUMENT],
    ["verify", "-v", "echo.py:echo", "--gold", "x", "--completion", ARGUMENT, "--json"],
    ["verify", "-v", "json_schema", "--gold", "{}", "--completion", ARGUMENT],
    ["verify", "rows.jsonl", "-v", "echo.py:echo"],
    ["verify", ARGUMENT + ".jsonl", "-v", "exact"],
    ["verify", "suite.yaml"],
    ["verify", "rows.jsonl", "-v", ARGUMENT],
    ["verify", "rows.jsonl", "-v", "exact", "-o", ARGUMENT],
    ["verify", "rows.jsonl", "-v", "exact", "-o", ARGUMENT + "=1"],
    ["verify", "rows.jsonl", "-v", "exact", "-c", "completion=" + ARGUMENT],
    ["verify", "rows.jsonl", "--" + ARGUMENT],
    ["verifiers", "audit", "echo.py:echo", "rows.jsonl", "--min-accuracy", "1"],
    ["verifiers", "audit", "echo.py:echo", "rows.jsonl", "--json"],
    ["verifiers", "check", "echo.py:echo"],
    ["verifiers", "check", ARGUMENT],
    ["explain", "run"],
    ["explain", "run", "--json"],
    ["explain", ARGUMENT],
    ["rescore", "run", "-v", "echo.py:echo"],
    ["compare", "run", ARGUMENT, "--on", "train"],
    ["compare", "run", ARGUMENT + "@x"],
    ["cluster", "status", "run"],
    ["cluster", "status", ARGUMENT],
    ["report", ARGUMENT, "--audit", "0"],
    ["report", "run" + ARGUMENT],
    ["label", "pairs.jsonl", "--summary"],
    ["label", ARGUMENT],
    ["tasks", "show", "hostile.py:hostile"],
    ["tasks", "validate", "hostile.py:hostile"],
    ["train", "bad.yaml", "--dry-run"],
    ["train", ARGUMENT],
    ["train", "quickstart", ARGUMENT + "=1"],
    ["preflight", ARGUMENT],
    ["doctor", ARGUMENT],
    ["export", ARGUMENT, "run"],
    ["sandbox", "run", ARGUMENT],
    ["tasks", ARGUMENT],
    [ARGUMENT],
]


@pytest.fixture(scope="module")
def shown(folder: Path) -> list[str]:
    return shown_on_terminal(folder, COMMANDS)


@pytest.mark.parametrize("at", range(len(COMMANDS)), ids=[f"{' '.join(command)[:24]!a}" for command in COMMANDS])
def test_a_terminal_obeys_nothing_that_others_wrote(at: int, shown: list[str]) -> None:
    said = shown[at]
    assert said.strip()
    assert not obeyed(said), ascii(said)
    for name in ("colour", "link", "clear"):
        assert HOSTILE[name] not in said
    assert "Traceback" not in said, said


def test_the_text_is_shown_all_the_same(shown: list[str]) -> None:
    for command in (
        "verify -v echo.py",
        "verify rows.jsonl -v echo",
        "explain run",
        "rescore run",
        "tasks show hostile",
    ):
        at = next(at for at, given in enumerate(COMMANDS) if " ".join(given).startswith(command))
        assert re.search(r"(x1b|u001b)\]52;c;QUJD", shown[at]), command
    at = COMMANDS.index(["verify", "rows.jsonl", "-v", "echo.py:echo"])
    rows = [json.loads(line) for line in OURS.sub("", shown[at]).splitlines() if line.startswith("{")]
    assert [row["id"] for row in rows] == [WRITABLE] * 2
    assert rows[0]["detail"]["reason"] == visible(f"it was {WRITABLE}\ufffd")
    assert rows[1]["outcome"] == "verifier_error"


def test_labelling_in_a_terminal_shows_both_texts_spelt_out(folder: Path) -> None:
    (said,) = shown_on_terminal(folder, [["label", "pairs.jsonl", "--terminal"]], keys=b"q")
    assert not obeyed(said), ascii(said)
    assert "\\x1b]52;c;QUJD\\x07" in said


LIVE = """
import sys, time
from tests.hostile import WRITABLE as BAD
from tests.unit.reasoner.runs import make_records, stage
from reasoner.observe.display.display import Display
from reasoner.storage.history import row_of
from verifiers.terminal.streams import guard_streams
guard_streams()
made = make_records(steps=1, problems=2, seed=1)
for row in made.rollouts:
    row |= {"completion": BAD, "prompt": BAD, "reference": BAD}
    row["verdict"] |= {"answer": BAD, "detail": {"reason": BAD}}
display = Display(stage())
view = display._view
view.rollouts, view.metrics = [row_of(row) for row in made.rollouts], [made.metrics[0] | {f"reward/{BAD}": 0.5}]
view.show = "best"
view.warnings.append(BAD)
with display, display.progress(BAD, 2) as advance:
    display.note(BAD)
    print("printed", BAD)
    print("printed", BAD, file=sys.stderr)
    advance(1)
    time.sleep(0.6)
"""


def test_the_live_view_shows_completions_as_text() -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.environ |= {"TERM": "xterm", "COLUMNS": "150", "LINES": "90"}
        os.execv(sys.executable, [sys.executable, "-c", LIVE])
    termios.tcsetwinsize(terminal, (90, 150))
    content = b""
    try:
        while part := os.read(terminal, 65536):
            content += part
    except OSError:
        pass
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    said = content.decode()
    assert status == 0, said
    assert not obeyed(said), ascii(said)
    assert HOSTILE["colour"] not in said
    assert said.count("x1b]52;c;QUJD") >= 5
    assert "best of the last step" in said
    assert "\x1b[?25l" in said  # our own cursor


def test_every_console_comes_through_the_one_door() -> None:
    """A console made elsewhere would obey markup and control sequences; a live one would interpret those of other
    texts.
    """
    tops = ("reasoner", "verifiers", "tasks", "sandbox")
    files = [path for top in tops for path in (ROOT / top).rglob("*.py") if path.parent.name != "terminal"]
    assert len(files) > 200
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            where = f"{file}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Attribute):
                assert ast.unparse(node) not in ("sys.stdout.buffer", "sys.stderr.buffer"), f"{where}: take write_bytes"
            if isinstance(node, ast.Call):
                name, given = ast.unparse(node.func), {keyword.arg for keyword in node.keywords}
                assert name.rpartition(".")[2] != "Console", f"{where} makes a console: take plain_console"
                assert name != "typer.Typer" or "rich_markup_mode" in given, f"{where}: take plain_typer"
                assert name != "Live" or {"redirect_stdout", "redirect_stderr"} <= given, f"{where}: take lines_above"
            for item in node.items if isinstance(node, ast.With) else ():
                opened = ast.unparse(item.context_expr)
                assert not opened.startswith("Progress(") or "redirect_stdout=False" in opened, where
