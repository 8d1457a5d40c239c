"""Access to a terminal: guarded streams, consoles, lines printed during a live view."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tests.hostile import ALL, FINE, HOSTILE, obeyed
from verifiers.terminal.console import lines_above, plain_console
from verifiers.terminal.streams import GuardedStream, write_bytes
from verifiers.text import visible

ROOT = Path(__file__).resolve().parents[4]


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_guarded_stream_spells_out_what_is_printed() -> None:
    under = Terminal()
    stream: Any = GuardedStream(under)
    print(ALL, file=stream)
    stream.writelines(["\x1b[2J", "\n"])
    assert under.getvalue() == visible(ALL) + "\n\\x1b[2J\n"
    assert stream.isatty()
    assert not hasattr(stream, "buffer")


@pytest.mark.parametrize("text", FINE)
def test_ordinary_text_passes_both_doors_unchanged(text: str) -> None:
    under = io.StringIO()
    GuardedStream(under).write(text)
    assert under.getvalue() == text
    shown = io.StringIO()
    plain_console(file=shown, width=300).print(text)
    assert shown.getvalue() == text.expandtabs(8) + "\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_console_spells_out_whatever_it_is_given(name: str) -> None:
    text, shown = HOSTILE[name], Terminal()
    console = plain_console(file=GuardedStream(shown), width=400, color_system="standard")  # type: ignore[arg-type]
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    for thing in (
        text,
        Text(text),
        Text(text, style="bold red"),
        Panel(Text(text)),
        Panel(text, title=Text(text)),
        table,
    ):
        console.print(thing)
    assert not obeyed(shown.getvalue())
    assert "\x1b[1;31m" in shown.getvalue()  # its own colours pass
    assert "evil.example\x1b" not in shown.getvalue()


def test_markup_and_emoji_of_others_are_text() -> None:
    shown = Terminal()
    plain_console(file=shown, width=200, color_system="standard").print(HOSTILE["markup"])
    assert shown.getvalue() == HOSTILE["markup"] + "\n"


def test_others_print_lines_above_a_live_view_and_colours_of_theirs_are_text() -> None:
    under = Terminal()
    guarded: Any = GuardedStream(under)
    before = sys.stdout
    sys.stdout = guarded
    try:
        console = plain_console(width=400, force_terminal=True, color_system="standard")
        with (
            lines_above(console),
            Live(Text("view", style="cyan"), console=console, redirect_stdout=False, redirect_stderr=False),
        ):
            print(f"from others {ALL}")
            print("no line break", end="")
        assert sys.stdout is guarded
    finally:
        sys.stdout = before
    assert not obeyed(under.getvalue())
    assert f"from others {visible(ALL)}"[:200] in under.getvalue()
    assert "no line break" in under.getvalue()
    assert "\x1b[36mview" in under.getvalue()


def test_bytes_of_a_program_reach_a_pipe_as_they_are(tmp_path: Path) -> None:
    with (tmp_path / "piped").open("w") as file:
        stream: Any = GuardedStream(file)
        print("first", file=stream)
        write_bytes(stream, b"\x1b[2J\xff")
        print("last", file=stream)
    assert (tmp_path / "piped").read_bytes() == b"first\n\x1b[2J\xfflast\n"


PROGRAM = """
import logging, sys, warnings, threading
from verifiers.terminal.streams import guard_streams, write_bytes
guard_streams(); guard_streams()
bad = "\\x1b]0;t\\x07\\x9b\\u202e\\ud800"
print(bad); sys.stderr.write(bad); warnings.warn(bad); logging.warning(bad)
write_bytes(sys.stdout, bad.encode(errors="replace"))
thread = threading.Thread(target=lambda: 1 / len(eval(repr("")), bad)); thread.start(); thread.join()
from tqdm import tqdm
for _ in tqdm(range(3), desc=bad + "\\r\\x1b[A", mininterval=0): pass
for _ in tqdm(range(3), desc="\\r\\x1b[A" + bad, mininterval=0, position=1): pass
raise ValueError(bad)
"""


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_tracebacks_warnings_logs_and_progress_bars_pass_the_same_door(encoding: str) -> None:
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, 300))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=follower,
        stderr=follower,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": encoding, "TERM": "xterm"},
    )
    os.close(follower)
    content = b""
    try:
        while part := os.read(leader, 65536):
            content += part
    except OSError:  # the other end is closed
        pass
    process.wait(timeout=60)
    os.close(leader)
    shown = content.decode()
    assert process.returncode == 1
    bars = shown.count("\r\\x1b]0;t")  # a bar goes back to the start of its line, and nowhere else
    assert bars >= 3
    assert not obeyed(shown.replace("\r", ""))
    assert shown.count("\\x1b]0;t\\x07\\x9b\\u202e") >= 5 + bars
    assert "ValueError: \\x1b]0;t" in shown


def test_a_line_of_json_passes_as_json() -> None:
    from verifiers.jsonl import json_line

    under = io.StringIO()
    GuardedStream(under).write(json_line({"reason": ALL}))
    assert json.loads(under.getvalue())["reason"].startswith("\x1b]52")
