from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.preflight import doctor
from reasoner.preflight.doctor import State, machine_checks


def test_every_missing_thing_says_what_it_costs_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    found = {check.name: check for check in machine_checks()}
    for name in ("vllm", "torch", "peft", "pytest", "docker", "bubblewrap"):
        assert found[name].state is State.MISSING
        assert found[name].costs
        assert found[name].command


def test_a_daemon_that_does_not_answer_is_told_from_one_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(address))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{address}")
    check = next(check for check in machine_checks() if check.name == "docker")
    assert check.state is State.MISSING
    assert "does not answer" in check.found


def test_golds_that_their_own_verifier_rejects_fail() -> None:
    config = {
        "method": "grpo",
        "model": "m",
        "task": {"name": "arithmetic", "verifier": {"name": "format", "options": {"tags": ["a"]}}},
    }
    check = doctor._golds(resolve(config).stages[0])
    assert check.state is State.FAILED
    assert "200 of 200 worked solutions are rejected" in check.found
    good = doctor._golds(resolve({"method": "grpo", "model": "m", "task": "arithmetic"}).stages[0])
    assert good.state is State.OK


@pytest.mark.parametrize(("wrong", "state"), [(0, State.OK), (1, State.OK), (6, State.FAILED)])
def test_rows_that_contradict_each_other_fail(tmp_path: Path, wrong: int, state: State) -> None:
    rows = [(n, n + 1) for n in range(60)] + [(n, 0) for n in range(wrong)]
    text = "".join(json.dumps({"prompt": f"{a} + 1?", "reference": str(b)}) + "\n" for a, b in rows)
    (tmp_path / "rows.jsonl").write_text(text)
    (tmp_path / "test.jsonl").write_text(text.splitlines()[0] + "\n")
    options = {"path": f"{tmp_path}/rows.jsonl", "test_path": f"{tmp_path}/test.jsonl", "verifier": "exact"}
    config = {"method": "grpo", "model": "m", "task": {"name": "dataset", "options": options}}
    check = doctor._rows(resolve(config).stages[0], tests=True)
    assert check.state is state
    assert check.found.startswith(
        f"{60 + wrong} training rows, 60 different prompts; 1 of 1 held-out rows have the prompt of a training row"
    )
    assert ("12 training rows have the prompt of another row and another reference" in check.found) is (wrong == 6)
    assert doctor._rows(resolve(config).stages[0], tests=False).found.endswith("60 different prompts") is (wrong < 6)


def test_the_sandbox_stops_an_endless_program_and_passes_a_worked_solution() -> None:
    config: dict[str, object] = {
        "method": "grpo",
        "model": "m",
        "task": {"name": "functions", "options": {"verifier_options": {"sandbox": "unsafe-host", "cpu_seconds": 1.0}}},
    }
    check = doctor._sandbox(resolve(config).stages[0])
    assert check.state is State.OK, check
    assert "a worked solution: correct" in check.found
    assert "an endless program: limit_exceeded" in check.found


def test_a_sandbox_is_not_asked_for_where_no_program_is_run() -> None:
    check = doctor._sandbox(resolve({"method": "grpo", "model": "m", "task": "arithmetic"}).stages[0])
    assert (check.state, check.found.partition(":")[0]) == (State.OK, "not needed")


def test_an_error_inside_a_check_is_its_result() -> None:
    def broken() -> doctor.Check:
        raise OSError("no such device")

    assert doctor._guarded("x", broken).found == "OSError: no such device"


def test_the_command_prints_json_and_exits_0_where_nothing_failed() -> None:
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {row["state"] for row in json.loads(done.stdout)} <= {"ok", "missing"}


def test_a_grading_node_that_does_not_answer_is_told() -> None:
    check = doctor._node("http://127.0.0.1:9")
    assert check.state is State.FAILED
    assert "does not answer" in check.found


def test_games_have_no_worked_solution_of_one_turn() -> None:
    run = resolve({"method": "grpo", "model": "m", "task": "guessing", "prompt": {"chat": "never"}})
    check = doctor._golds(run.stages[0])
    assert check.state is State.OK
    assert "200 references can be used" in check.found
