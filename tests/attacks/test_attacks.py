"""Every program of sandbox/attacks.toml against every backend; a core in `make test`, all in `make test-full`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandbox.api import JobOutcome
from sandbox.attacks import BROKEN, Attack, Honest, attacks, honest_programs, try_attack, try_honest
from sandbox.pool import PooledSandbox
from tests.backends import ISOLATED, opened

pytestmark = pytest.mark.integration
PACKAGES = ("numpy", "sympy")
TIMED = (JobOutcome.WALL_TIMEOUT, JobOutcome.CPU_LIMIT)
# of the exhaustion kind, whose programs take seconds each, these are always run
CORE = {
    "cpu-many-processes",
    "ignore-signals",
    "memory-balloon",
    "memory-many-processes",
    "fork-bomb",
    "stdout-flood",
    "result-flood",
    "disk-fill",
    "daemon-holds-the-output-open",
    "segmentation-fault",
    "deep-folders",
}


def is_core(attack: Attack) -> bool:
    return attack.name in CORE or (attack.kind != "exhaustion" and attack.outcome not in TIMED)


def named(attack: Attack) -> object:
    return pytest.param(attack, id=attack.name, marks=() if is_core(attack) else pytest.mark.slow)


@pytest.fixture(scope="module", params=ISOLATED)
def sandbox(request: pytest.FixtureRequest) -> Iterator[PooledSandbox]:
    with opened(request.param, workers=1, packages=PACKAGES) as found:
        yield found


@pytest.mark.parametrize("attack", [named(attack) for attack in attacks()])
def test_attack(sandbox: PooledSandbox, attack: Attack) -> None:
    found = try_attack(sandbox, attack)
    assert found.passed, found.detail


@pytest.mark.parametrize("honest", honest_programs(), ids=lambda honest: honest.name)
def test_honest_program(sandbox: PooledSandbox, honest: Honest) -> None:
    found = try_honest(sandbox, honest)
    assert found.passed, found.detail


@pytest.fixture(scope="module")
def without_mounts() -> Iterator[PooledSandbox]:
    with opened("docker", workers=1, packages=PACKAGES, mode="uid") as found:
        yield found


@pytest.mark.parametrize(
    "attack",
    [pytest.param(one, id=one.name, marks=() if one.kind == "persistence" else pytest.mark.slow) for one in attacks()],
)
def test_attack_where_the_engine_refuses_mounts(without_mounts: PooledSandbox, attack: Attack) -> None:
    found = try_attack(without_mounts, attack)
    assert found.passed, found.detail


@pytest.mark.slow
@pytest.mark.parametrize("honest", honest_programs(), ids=lambda honest: honest.name)
def test_honest_program_where_the_engine_refuses_mounts(without_mounts: PooledSandbox, honest: Honest) -> None:
    found = try_honest(without_mounts, honest)
    assert found.passed, found.detail


def test_the_suite_can_catch() -> None:
    """Harmless programs do get what they want where nothing restricts them, so the suite can fail."""
    harmless = [attack for attack in attacks() if attack.breaches_host]
    assert len(harmless) >= 7
    for attack in harmless:
        done = subprocess.run([sys.executable, "-c", attack.code], capture_output=True, timeout=30)
        assert b"BREACH" in done.stdout, (attack.name, done.stdout, done.stderr[-500:])
        assert not BROKEN.search(done.stdout)


def test_the_manifest_is_whole() -> None:
    names = [attack.name for attack in attacks()]
    assert len(set(names)) == len(names) >= 140
    assert {attack.kind for attack in attacks()} == {"exhaustion", "escape", "network", "host", "persistence"}
    for attack in attacks():
        compile(attack.code, attack.name, "exec")
        compile(attack.probe, attack.name, "exec")
        assert "BREACH" in attack.code or attack.probe or attack.outcome or attack.kind == "exhaustion", attack.name
