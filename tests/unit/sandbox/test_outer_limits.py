"""Limits around this process: too small ones are named, and their effect on a job is not blamed on the job."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox import Job, JobOutcome, JobResult, Limits
from sandbox import outer_limits as outer
from sandbox.bubblewrap import Bubblewrap
from sandbox.outer_limits import MIB, Pressure, shortages
from sandbox.pool import PooledSandbox
from tests.unit.sandbox.test_pool import GOOD, Scripted

LIMITS = Limits(memory_bytes=512 * MIB)


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A control group, within another one without limits."""
    inner = tmp_path / "inner"
    inner.mkdir()
    for folder in (tmp_path, inner):
        (folder / "memory.max").write_text("max\n")
        (folder / "pids.max").write_text("max\n")
        (folder / "pids.current").write_text("7\n")
        (folder / "pids.events").write_text("max 0\n")
    monkeypatch.setattr(outer, "groups", lambda controller: [inner, tmp_path])
    return inner


def test_plenty_is_no_shortage(group: Path) -> None:
    assert shortages(LIMITS) == []
    (group / "memory.max").write_text(f"{(512 + 64) * MIB}\n")
    (group / "pids.max").write_text(f"{7 + 64 + 16}\n")
    assert shortages(LIMITS) == []


def test_what_a_control_group_lacks_is_named_also_of_one_further_out(group: Path) -> None:
    (group.parent / "memory.max").write_text(f"{300 * MIB}\n")
    (group / "pids.max").write_text("16\n")
    memory, pids = shortages(LIMITS)
    assert "allows 300 MiB of memory, and a job may use 512" in memory
    assert "has room for 9 more processes, and a job may start 64" in pids


def test_a_group_of_the_older_kind(group: Path) -> None:
    (group / "memory.max").unlink()
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert shortages(LIMITS) == []
    (group / "memory.limit_in_bytes").write_text(f"{100 * MIB}\n")
    assert "allows 100 MiB" in shortages(LIMITS)[0]


@pytest.mark.parametrize(
    ("kind", "flag", "most"),
    [
        (resource.RLIMIT_FSIZE, "-f", MIB),
        (resource.RLIMIT_NOFILE, "-n", 40),
        (resource.RLIMIT_NPROC, "-u", 30),
        (resource.RLIMIT_AS, "-v", 1024 * MIB),
        (resource.RLIMIT_STACK, "-s", 8 * MIB),
        (resource.RLIMIT_CPU, "-t", 600),
    ],
)
def test_a_ulimit_is_named_by_its_flag(
    group: Path, monkeypatch: pytest.MonkeyPatch, kind: int, flag: str, most: int
) -> None:
    real = resource.getrlimit
    monkeypatch.setattr(resource, "getrlimit", lambda asked: (most, most) if asked == kind else real(asked))
    (said,) = shortages(LIMITS)
    assert said.startswith(f"`ulimit {flag}` allows {most} ")


def test_the_counters_of_the_kernel_are_read_since_the_last_look(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = [5]
    monkeypatch.setattr(Pressure, "_kills", lambda self: kills[0])
    (group / "pids.max").write_text("100\n")
    pressure = Pressure()
    assert pressure.told(killed=True) == ""
    (group / "pids.events").write_text("max 3\n")
    assert "refused it another process" in pressure.told(killed=False)
    assert pressure.told(killed=False) == ""
    kills[0] = 6
    assert pressure.told(killed=False) == ""  # another's, and this job did not end so
    assert "for lack of memory" in pressure.told(killed=True)
    assert pressure.told(killed=True) == ""


def test_a_job_that_was_pressed_runs_again_and_is_then_nobodys_fault() -> None:
    class Pressed(Scripted):
        left = 1

        def pressed(self, result: JobResult) -> str:
            self.left -= 1
            return "the machine is full" if self.left >= 0 else ""

    job = Job(argv=("python", "x.py"), files={"x.py": b""})
    with PooledSandbox(Pressed(GOOD), workers=1, recycle_after=9) as sandbox:
        assert sandbox.run(job).stdout == b"good"
    always = Pressed(GOOD)
    always.left = 9
    with PooledSandbox(always, workers=1, recycle_after=9) as sandbox:
        result = sandbox.run(job)
    assert (result.outcome, result.detail) == (JobOutcome.INFRASTRUCTURE_FAULT, "the machine is full")


def test_bubblewrap_refuses_to_start_in_too_small_a_group(group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.bubblewrap.version", lambda: "bubblewrap 0.8.0")
    (group / "pids.max").write_text("16\n")
    with pytest.raises(OSError, match="bubblewrap runs jobs within this process's own limits: the control group"):
        Bubblewrap(limits=replace(LIMITS, processes=64))
