"""A seat runs one command and leaves nothing behind, however it, its keeper or its owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasoner.cluster.seat import FILES, PYTHON, Command, Report, Seat
from tests.unit.reasoner.cluster.living import marked, until

SLEEP = "import time; time.sleep(300)"
FAMILY = f"""
import subprocess, sys, time
# a grandchild in a session of its own, whose parent ends: only its adopter still knows it
orphan = '''import subprocess, sys; subprocess.Popen([sys.executable, '-c', "{SLEEP}"], start_new_session=True)'''
subprocess.run([sys.executable, "-c", orphan])
child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}])
time.sleep(300)
"""


@pytest.fixture
def seat() -> Iterator[Seat]:
    one = Seat()
    yield one
    one.close()


def ended(seat: Seat) -> tuple[int, bytes]:
    """Wait for the end of a seat's command; return its status and output."""
    output, report = b"", Report(None, None, b"")
    end = time.monotonic() + 20
    while report.code is None:
        assert time.monotonic() < end
        report = seat.poll()
        output += report.output
        time.sleep(0.02)
    return report.code, output


def family(seat: Seat, mark: str) -> None:
    """Start a command with a child and an orphaned grandchild, all marked; wait until all run."""
    seat.start(Command((PYTHON, "-c", FAMILY), environment={"MARK": mark}, stop_seconds=0.3))
    until(lambda: len(marked(mark)) == 3)


def test_status_and_output_of_a_command(seat: Seat) -> None:
    seat.start(Command((PYTHON, "-c", "print('one'); import sys; sys.exit(3)")))
    assert ended(seat) == (3, b"one\n")
    seat.start(Command((PYTHON, "-c", "import os; os.kill(os.getpid(), 9)")))
    assert ended(seat) == (-9, b"")
    seat.start(Command(("no-such-program",)))
    code, output = ended(seat)
    assert code == 127
    assert b"no-such-program cannot be started" in output


def test_environment_files_and_folder_of_a_command(seat: Seat, tmp_path: Path) -> None:
    code = "import os, sys; print(os.environ['X'], os.getcwd(), open(sys.argv[1] + '/a.json').read())"
    files = {"a.json": b"{}"}
    seat.start(Command((PYTHON, "-c", code, FILES), environment={"X": "y"}, files=files, cwd=str(tmp_path)))
    assert ended(seat) == (0, f"y {tmp_path} {{}}\n".encode())


def test_sees_only_the_same_content(seat: Seat, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("nonce")
    assert seat.sees(str(tmp_path / "seen"), "nonce")
    assert not seat.sees(str(tmp_path / "seen"), "other")
    assert not seat.sees(str(tmp_path / "none"), "nonce")


def test_an_interrupt_reaches_the_command(seat: Seat) -> None:
    code = (
        "import signal, time, sys; signal.signal(2, lambda *_: sys.exit(7)); print('set', flush=True); time.sleep(60)"
    )
    seat.start(Command((PYTHON, "-c", code)))
    until(lambda: seat.poll().output == b"set\n")
    seat.interrupt()
    assert ended(seat)[0] == 7


def test_stopping_ends_everything_that_was_started(seat: Seat, tmp_path: Path) -> None:
    family(seat, str(tmp_path))
    seat.stop()
    assert marked(str(tmp_path)) == []


def test_a_command_that_dies_leaves_nothing(seat: Seat, tmp_path: Path) -> None:
    family(seat, str(tmp_path))
    pid = seat.poll().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert ended(seat)[0] == -9
    assert marked(str(tmp_path)) == []


def test_a_keeper_that_is_killed_takes_its_command_with_it(seat: Seat, tmp_path: Path) -> None:
    seat.start(Command((PYTHON, "-c", FAMILY.replace("subprocess.run", "str")), environment={"MARK": str(tmp_path)}))
    until(lambda: len(marked(str(tmp_path))) == 2)
    pid = seat.poll().pid
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert keeper != os.getpid()
    os.kill(keeper, signal.SIGKILL)
    assert ended(seat)[0] == -9
    until(lambda: marked(str(tmp_path)) == [])


@pytest.mark.parametrize("with_children", [False, True], ids=["alone", "with its own children, as Ray does"])
def test_an_owner_that_is_killed_leaves_nothing(tmp_path: Path, with_children: bool) -> None:
    owner = f"""
    import time
    from reasoner.cluster.seat import Command, PYTHON, Seat
    seat = Seat()
    seat.start(Command((PYTHON, "-c", {FAMILY!r}), environment={{"MARK": {str(tmp_path)!r}}}, stop_seconds=0.3))
    time.sleep(300)
    """
    (tmp_path / "temporary").mkdir()
    given = os.environ | {"TMPDIR": str(tmp_path / "temporary")}
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(owner)], env=given)
    until(lambda: len(marked(str(tmp_path))) == 3)
    folder = tmp_path / "temporary"
    assert [path.name.startswith("reasoner-part-") for path in folder.iterdir()] == [True]
    for task in Path(f"/proc/{process.pid}/task").iterdir() if with_children else ():
        for child in (task / "children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    process.kill()
    process.wait()
    until(lambda: marked(str(tmp_path)) == [] and not [*folder.iterdir()])


def test_a_new_command_ends_the_one_before(seat: Seat, tmp_path: Path) -> None:
    family(seat, str(tmp_path))
    seat.start(Command((PYTHON, "-c", "print('next')")))
    assert marked(str(tmp_path)) == []
    assert ended(seat) == (0, b"next\n")
