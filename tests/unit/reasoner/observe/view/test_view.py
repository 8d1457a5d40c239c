"""The server of the live page: which runs it finds, what it answers, to whom, and what it says when files grow."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reasoner.cli import app
from reasoner.observe.view.folder import Folder, stages_below
from reasoner.observe.view.server import ViewServer
from reasoner.storage.files import RunError
from tests.unit.reasoner.observe.view.demo import BROKEN, HELD_OUT, train, write_demo, write_evaluation


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    write_demo(tmp_path / "runs" / "first", steps=40)
    write_demo(tmp_path / "runs" / "deep" / "pipeline" / "0-sft", steps=2)
    write_demo(tmp_path / "runs" / "deep" / "pipeline" / "1-grpo", steps=3, done=False)
    return tmp_path / "runs"


@pytest.fixture
def server(runs: Path) -> Iterator[ViewServer]:
    served = ViewServer(Folder(runs))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


def ask(server: ViewServer, path: str, **query: object) -> Any:
    with urllib.request.urlopen(f"{server.address}{path}?{urllib.parse.urlencode(query)}", timeout=30) as answer:
        return json.loads(answer.read())


def refused(server: ViewServer, address: str, **headers: str) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30)
    status, said = told.value.code, told.value.read().decode()
    told.value.close()
    return status, json.loads(said)["error"]


def all_columns(server: ViewServer, stage: str, kind: str) -> dict[str, Any]:
    until = time.monotonic() + 30
    while True:
        found = ask(server, "api/columns", stage=stage, kind=kind)
        if found["read"] == found["size"]:
            return found
        assert time.monotonic() < until


def test_stages_are_found_and_checkpoints_and_links_are_not_entered(runs: Path) -> None:
    write_demo(runs / "first" / "checkpoints" / "copy", steps=1)
    write_demo(runs / ".hidden" / "run", steps=1)
    write_demo(runs.parent / "elsewhere", steps=1)
    (runs / "link").symlink_to(runs.parent / "elsewhere")
    (runs / "plain").mkdir()
    (runs / "plain" / "config.yaml").write_text("steps: 3")  # a config to start from, not a run
    names = {path.relative_to(runs).as_posix() for path in stages_below(runs)}
    assert names == {"first", "deep/pipeline/0-sft", "deep/pipeline/1-grpo"}
    assert [*stages_below(runs / "first")] == [runs / "first"]


def test_runs_are_listed_with_their_state(server: ViewServer) -> None:
    found = ask(server, "api/runs")
    lines = {line["id"]: line for line in found["stages"]}
    assert [lines[name]["state"] for name in ("first", "deep/pipeline/0-sft", "deep/pipeline/1-grpo")] == [
        "ended",
        "ended",
        "stopped",
    ]
    assert (lines["deep/pipeline/1-grpo"]["run"], lines["deep/pipeline/1-grpo"]["name"]) == ("deep/pipeline", "1-grpo")
    assert lines["first"]["evaluation"]["values"][-1][:2] == [40, 4 / 12]
    assert found["live"]
    assert "reward/mean" in found["glossary"]


def test_a_stage_its_columns_and_its_samples(server: ViewServer, runs: Path) -> None:
    summary = ask(server, "api/stage", stage="first")
    assert {chart["title"] for chart in summary["curves"]} >= {"Held-out avg@1", "Reward"}
    assert ask(server, "api/metrics", stage="first")["eval/avg@1"] == [[0, 20, 40], [0.25, 0.75, 4 / 12]]
    held = all_columns(server, "first", "eval")
    assert held["count"] == 3 * HELD_OUT
    at_40 = [n for n in range(held["count"]) if held["step"][n] == 40 and held["reward"][n] == 0]
    assert {held["problems"][held["problem"][n]] for n in at_40} >= {f"held/{n}" for n in BROKEN}
    (sample,) = ask(server, "api/samples", stage="first", kind="eval", rows=at_40[0])
    assert "\\boxed" in sample["completion"]
    assert sample["question"].startswith("What is $")
    assert sample["reference"] != sample["answer"]
    (head,) = ask(server, "api/heads", stage="first", kind="eval", rows=at_40[0])
    assert head.endswith("}.")
    train_columns = all_columns(server, "first", "train")
    assert (train_columns["count"], set(train_columns["advantage"])) == (320, {0.5})


def test_evaluations_outside_runs_are_listed_with_their_samples(server: ViewServer, runs: Path) -> None:
    write_evaluation(runs / "by-hand" / "step-20", 20)
    suite = write_evaluation(runs / "suites" / "model" / "products", 40)  # of a suite: a result.json
    result = json.loads((suite / "evals.jsonl").read_text()) | {"suite": "products", "metric": "avg@1"}
    (suite / "result.json").write_text(json.dumps(result, indent=1))
    (suite / "evals.jsonl").unlink()
    lines = {line["id"]: line for line in ask(server, "api/runs")["stages"]}
    for name, right in (("by-hand/step-20", 9), ("suites/model/products", 4)):
        assert (lines[name]["method"], lines[name]["state"], lines[name]["run"]) == ("eval", "ended", name)
        assert lines[name]["evaluation"]["metric"] == "avg@1"
        assert lines[name]["evaluation"]["values"][0][:2] == [0, right / HELD_OUT]
        held = all_columns(server, name, "eval")
        assert sum(held["reward"]) == right
        assert all_columns(server, name, "train")["count"] == 0
        summary = ask(server, "api/stage", stage=name)
        assert (summary["method"], summary["of"]) == ("eval", None)
        assert json.loads(summary["config"])["model"].startswith("checkpoints/step-")
        (sample,) = ask(server, "api/samples", stage=name, kind="eval", rows=3)
        assert sample["reference"] == "78"
    (runs / "by-hand" / "step-20" / "evals.jsonl").write_text('{"metrics": 3}\n')
    assert refused(server, server.address + "api/stage?stage=by-hand/step-20")[0] == 409


def test_search(server: ViewServer) -> None:
    all_columns(server, "first", "eval")
    found = ask(server, "api/search", stage="first", kind="eval", text="return a + B")
    held = all_columns(server, "first", "eval")
    assert found == [n for n in range(held["count"]) if held["reward"][n] == 0]
    assert ask(server, "api/search", stage="first", kind="eval", text=r"return a \+ b  # 1[34],", regex=1)
    assert refused(server, server.address + "api/search?stage=first&text=%5B&regex=1")[0] == 400


def test_a_run_that_goes_on_is_told_and_its_columns_grow(server: ViewServer, runs: Path) -> None:
    name = "deep/pipeline/1-grpo"
    before = all_columns(server, name, "train")
    with urllib.request.urlopen(server.address + "events", timeout=30) as events:
        assert events.headers["Content-Type"] == "text/event-stream"
        assert events.readline() == b": alive\n"
        train(runs / name, 4)
        said = next(line for line in events if line.startswith(b"data: "))
        assert json.loads(said.removeprefix(b"data: ")) == [name]
    part = ask(server, "api/columns", stage=name, **{"from": before["settled"], "generation": before["generation"]})
    assert (part["start"], part["count"], part["step"]) == (24, 32, [4] * 8)
    assert {line["id"]: line["steps"] for line in ask(server, "api/runs")["stages"]}[name] == 4


def test_findings_are_those_of_explain_from_a_process_of_their_own(server: ViewServer) -> None:
    found: dict[str, Any] = {"state": "running"}
    until = time.monotonic() + 120
    while found["state"] == "running" and time.monotonic() < until:
        found = ask(server, "api/explain", stage="first")
        time.sleep(0.2)
    assert found["state"] == "done"
    assert found["steps"] == 40
    assert {"code", "level", "title", "rollouts"} <= found["findings"][0].keys()


def test_who_does_not_know_the_secret_or_comes_from_elsewhere_gets_nothing(server: ViewServer) -> None:
    own = f"http://127.0.0.1:{server.server_port}"
    for address, headers in (
        (f"{own}/api/runs", {}),
        (f"{own}/wrong/api/runs", {}),
        (server.address + "api/runs", {"Host": "evil.example"}),
        (server.address + "api/runs", {"Origin": "http://evil.example"}),
        (server.address + "events", {"Origin": "http://127.0.0.1:1"}),
        (server.address, {"Host": f"localhost:{server.server_port}"}),
    ):
        assert refused(server, address, **headers)[0] == 404
    with urllib.request.urlopen(server.address, timeout=30) as answer:
        policy = answer.headers["Content-Security-Policy"]
        page = answer.read().decode()
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert 'id="live-page"' in page


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("api/stage?stage=../elsewhere", 404),
        ("api/stage?stage=/etc", 404),
        ("api/stage", 404),
        ("api/nothing?stage=first", 404),
        ("api/samples?stage=first&rows=99999", 404),
        ("api/samples?stage=first&rows=-1", 404),
        ("api/samples?stage=first&rows=x", 400),
        ("api/samples?stage=first&rows=" + ",".join(["1"] * 501), 400),
        ("api/columns?stage=first&kind=other", 404),
        ("api/columns?stage=first&from=x", 400),
        ("page.js", 404),
    ],
)
def test_what_is_not_there_is_said(server: ViewServer, path: str, status: int) -> None:
    assert refused(server, server.address + path)[0] == status


def test_a_damaged_record_is_a_sentence(server: ViewServer, runs: Path) -> None:
    with (runs / "first" / "metrics.jsonl").open("a") as file:
        file.write("not JSON\n")
    status, said = refused(server, server.address + "api/stage?stage=first")
    assert status == 409
    assert "metrics.jsonl line 41 is not a valid record" in said


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="must be a folder with runs"):
        Folder(tmp_path / "missing")
    told = CliRunner().invoke(app, ["view", str(tmp_path / "missing"), "--no-browser"])
    assert told.exit_code == 2
    assert Folder(tmp_path).lines() == []
