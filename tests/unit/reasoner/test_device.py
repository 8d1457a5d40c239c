"""Nothing is left behind on the CPU: the trainer on a pretend accelerator gives the CPU's numbers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.unit.reasoner.on_device import CASES


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Of every case, from a process of their own: a device is registered with torch for good."""
    file = tmp_path_factory.mktemp("device") / "faults.json"
    command = [sys.executable, "-m", "tests.unit.reasoner.on_device", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(file.read_text())


@pytest.mark.parametrize("case", list(CASES))
def test_a_path_gives_the_cpus_numbers_on_the_device(case: str, faults: dict[str, str | None]) -> None:
    assert faults[case] is None, faults[case]
