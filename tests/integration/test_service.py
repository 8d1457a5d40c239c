"""The grading service as a process of its own: the client, limits, the token, faults, 64 clients at once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from verifiers import BadOption, BadReference, GradingRow, Outcome, UnknownVerifier, get_verifier
from verifiers.pool import GradingPool, GradingRequest
from verifiers.serve.client import ServiceError

pytestmark = pytest.mark.integration
FAULTY = f"{Path(__file__).parents[1] / 'unit' / 'verifiers' / 'faulty.py'}:Faulty"


@contextmanager
def service(*arguments: str, **environment: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", "verifiers", "serve", "--port", str(port)]
    process = subprocess.Popen([*command, *arguments], env=os.environ | environment, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None, process.stderr and process.stderr.read()
            try:
                get(f"{url}/health")
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.communicate(timeout=20)


def get(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        return answer.read().decode()


def post(url: str, body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    names = ("exact", "math", "weighted", "format", FAULTY)
    arguments = [item for name in names for item in ("-v", name)]
    with service(*arguments, "--max-batch", "64", "--max-megabytes", "1") as found:
        yield found


def test_a_url_works_wherever_a_name_does(url: str, tmp_path: Path) -> None:
    remote = get_verifier(f"{url}/math")
    verdict = remote.verify(completion=r"so \boxed{0.5}", reference=r"\frac{1}{2}")
    assert (verdict.outcome, verdict.verifier) == (Outcome.CORRECT, "math")
    rows = [GradingRequest(f"{url}/exact", GradingRow(completion=f"#### {n % 3}", reference="1")) for n in range(300)]
    with GradingPool(workers=1) as pool:
        verdicts = list(pool.grade(rows))
    assert [v.reward for v in verdicts] == [float(n % 3 == 1) for n in range(300)]
    options = {"parts": [{"verifier": f"{url}/math", "name": "far"}, {"verifier": "length", "name": "near"}]}
    with GradingPool(workers=1) as pool:
        both = pool.submit("weighted", options, GradingRow(completion=r"\boxed{2}", reference="2")).result()  # pyright: ignore
    assert both.components == {"far": 1.0, "near": 1.0}
    from typer.testing import CliRunner

    from reasoner.cli import app

    (tmp_path / "rows.jsonl").write_text('{"completion": "#### 7", "reference": "7"}\n')
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "rows.jsonl"), "--verifier", f"{url}/exact"])
    assert done.exit_code == 0
    with pytest.raises(BadReference):
        remote.check_reference(r"\frac{1}{")
    remote.check_reference("3")


def test_faults_travel_as_faults(url: str) -> None:
    status, verdict = post(
        f"{url}/v1/grade", json.dumps({"verifier": FAULTY, "completion": "segfault", "reference": "x"}).encode()
    )
    assert status == 200
    assert (verdict["outcome"], verdict["reward"]) == ("verifier_error", None)
    odd = get_verifier(f"{url}/exact").verify(completion="\ud800 #### 1", reference="1")
    assert odd.outcome is Outcome.CORRECT
    with pytest.raises(UnknownVerifier, match="no verifier 'nothing' here; served: "):
        get_verifier(f"{url}/nothing").verify(completion="", reference="1")
    with pytest.raises(BadOption, match="no_such"):
        get_verifier(f"{url}/exact", options={"no_such": 1}).verify(completion="", reference="1")
    gone = f"{url.rpartition(':')[0]}:1/exact"
    with GradingPool(workers=1) as pool:
        lost = pool.submit(gone, {}, GradingRow(completion="#### 1", reference="1")).result()
    assert (lost.outcome, lost.reward) == (Outcome.VERIFIER_ERROR, None)
    assert "cannot be reached" in lost.reason
    with pytest.raises(ServiceError, match="reasoner verifiers serve"):
        get_verifier(gone).verify(completion="", reference="1")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"verifier": "exact", "rows": [{"completion": "x", "reference": "x"}] * 65}, 413, "may have at most 64 rows"),
        (
            {"verifier": "exact", "rows": [{"completion": "x" * (2 << 20), "reference": "x"}]},
            413,
            "may have at most 1048576 bytes",
        ),
        ({"verifier": "os:system", "rows": []}, 404, "no verifier 'os:system' here"),
        ({"verifier": "http://127.0.0.1:1/x", "rows": []}, 404, "here; served"),
        ({"verifier": "exact", "rows": [{"completion": 3}]}, 422, ""),
        ({"verifier": "exact", "rows": [{"completion": "x", "refrence": "x"}]}, 422, ""),
        (
            {
                "verifier": "weighted",
                "options": {"parts": ["os:system"]},
                "rows": [{"completion": "x", "reference": "x"}],
            },
            404,
            "'os:system' is not served here",
        ),
    ],
)
def test_what_the_service_refuses(url: str, body: dict[str, object], status: int, said: str) -> None:
    got, answer = post(f"{url}/v1/grade_batch", json.dumps(body).encode())
    assert got == status
    assert said in str(answer["detail"])
    assert post(f"{url}/v1/grade_batch", b"not JSON")[0] == 422


def test_pages_and_metrics(url: str) -> None:
    get_verifier(f"{url}/exact").verify(completion="#### 1", reference="1")
    assert json.loads(get(f"{url}/health"))["status"] == "ok"
    assert "/v1/grade_batch" in get(f"{url}/openapi.json")
    page = get(f"{url}/docs")
    assert "/v1/grade_batch" in page
    assert "://" not in page, "it needs nothing from elsewhere"
    assert "exact" in get(f"{url}/v1/verifiers")
    metrics = get(f"{url}/metrics")
    assert 'reasoner_verdicts_total{outcome="correct",verifier="exact"}' in metrics
    assert 'reasoner_request_seconds_count{path="/v1/grade_batch",status="200"}' in metrics


def test_the_token_is_asked_for_and_other_machines_need_one(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("sesame\n")
    with service("-v", "exact", "--token-file", str(tmp_path / "token")) as url:
        assert post(f"{url}/v1/grade", b"no JSON")[0] == 401
        good = get_verifier(f"{url}/exact", token="sesame")
        assert good.verify(completion="#### 1", reference="1").reward == 1
        for token in ("", "sesam", "sesame2", "Sesame"):
            with pytest.raises(ServiceError, match="401"):
                get_verifier(f"{url}/exact", token=token or "x").verify(completion="#### 1", reference="1")
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(f"{url}/metrics")
        refused.value.close()
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", "verifiers", "serve", "--host", "0.0.0.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "give --token-file" in done.stderr


def test_64_clients_at_once_lose_nothing(url: str) -> None:
    wrong: list[object] = []
    done: list[int] = []

    def client(number: int) -> None:
        remote = get_verifier(f"{url}/exact")
        for turn in range(8):
            right = (number + turn) % 2 == 0
            verdict = remote.verify(completion=f"#### {number}", reference=str(number if right else number + 1))
            done.append(number)
            if verdict.reward != right:
                wrong.append((number, turn, verdict))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not wrong
    assert len(done) == 64 * 8


def test_a_busy_service_is_tried_again() -> None:
    with service("-v", "exact", "--max-rows", "4") as url:
        with GradingPool(workers=1) as pool:
            name, options = f"{url}/exact", {"batch": 4, "connections": 6}
            rows = [GradingRequest(name, GradingRow(completion="#### 1", reference="1"), options) for _ in range(200)]
            assert {v.reward for v in pool.grade(rows)} == {1.0}
        metrics = get(f"{url}/metrics")
    refused = float(
        next(line for line in metrics.split("\n") if line.startswith("reasoner_rows_refused_total")).split()[1]
    )
    assert refused > 0
