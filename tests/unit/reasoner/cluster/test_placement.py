"""Which part gets which GPUs of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoner.cluster.placement import ThisMachine, devices
from reasoner.cluster.seat import PYTHON, Command, Report
from reasoner.config.errors import ConfigError
from reasoner.config.sections import ClusterSection
from tests.unit.reasoner.cluster.living import until

SHOW = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))"


def given(machine: ThisMachine, role: str, number: int = 0) -> str:
    """Return the GPUs that a command in a seat sees."""
    seat = machine.seat(role, number)
    report, output = Report(None, None, b""), b""

    def ended() -> bool:
        nonlocal report, output
        report = seat.poll()
        output += report.output
        return report.code is not None

    try:
        seat.start(Command((PYTHON, "-I", "-S", "-c", SHOW)))
        until(ended)
    finally:
        seat.close()
    return output.decode().strip()


def test_gpus_go_to_the_trainers_then_to_each_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-a, 6,7,8,9")
    machine = ThisMachine(ClusterSection(trainers=2, samplers=2, graders=1, sampler_gpus=2))
    assert given(machine, "trainer") == "4,GPU-a"
    assert given(machine, "sampler", 0) == "6,7"
    assert given(machine, "sampler", 1) == "8,9"
    assert given(machine, "grader") == "", "it needs none"


def test_samplers_may_do_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    machine = ThisMachine(ClusterSection(samplers=3, sampler_gpus=0))
    assert given(machine, "trainer") == "0"
    assert given(machine, "sampler", 2) == ""


def test_where_there_are_none_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert given(ThisMachine(ClusterSection(trainers=4, samplers=4)), "sampler", 1) == "-1"


@pytest.mark.parametrize(
    ("said", "found"), [("0,1", ["0", "1"]), ("", []), ("-1", []), ("0,-1,2", ["0"]), (" 3 ", ["3"]), ("2,,3", ["2"])]
)
def test_the_gpus_that_may_be_used_are_those_that_cuda_would_use(
    said: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert devices() == found


@pytest.mark.parametrize(("program", "found"), [("printf 'GPU 0: A\\nGPU 1: B\\n'", ["0", "1"]), ("exit 9", [])])
def test_unnamed_gpus_are_counted(
    program: str, found: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices() == found


def test_too_few_gpus_and_too_many_machines_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(ConfigError, match=r"2 trainers and 1 samplers need 4 GPUs; this machine has 3. Lower"):
        ThisMachine(ClusterSection(trainers=2, samplers=1, sampler_gpus=2))
    with pytest.raises(ConfigError, match=r"cluster.trainer_machines must be 1 without a Ray cluster; got 2"):
        ThisMachine(ClusterSection(trainers=2, trainer_machines=2))
