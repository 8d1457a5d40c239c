"""`export --push-to-hub` calls the hub's own client, and says what to do if it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[4]


class Hub(BaseHTTPRequestHandler):
    """A stand-in for the hub with everything that one upload of small files needs."""

    asked: list[tuple[str, bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.asked.append((self.path, body))
        assert self.headers["authorization"] == "Bearer hf_test"
        answer: dict[str, Any] = {}
        if self.path == "/api/repos/create":
            answer = {"url": "https://huggingface.co/me/model", "name": "me/model", "id": "me/model"}
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            answer = {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        elif "/commit/" in self.path:
            answer = {"commitUrl": "https://huggingface.co/me/model/commit/1", "commitOid": "1", "success": True}
        self._send(answer)

    def do_GET(self) -> None:
        self._send({"sha": "0", "siblings": [], "id": "me/model"})

    def _send(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def export(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    model = folder / "model"
    if not model.is_dir():
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "README.md").write_text("---\nlibrary_name: transformers\n---\n# mine\n")
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    environment = {**kept, "HF_HOME": str(folder / "home"), **environment}
    command = [sys.executable, "-m", "reasoner", "export", str(model), str(folder / "copy"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120)


def test_a_model_is_uploaded_by_the_hubs_client(tmp_path: Path, hub: str) -> None:
    done = export(tmp_path, "--push-to-hub", "me/model", "--private", HF_TOKEN="hf_test", HF_ENDPOINT=hub)
    assert done.returncode == 0, done.stderr
    paths = [path for path, _ in Hub.asked]
    assert paths[0] == "/api/repos/create"
    made = json.loads(Hub.asked[0][1])
    assert made.get("private") is True or made.get("visibility") == "private"
    committed = next(body for path, body in Hub.asked if "/commit/" in path)
    named = [json.loads(line)["value"].get("path") for line in committed.splitlines() if line.strip()]
    assert {"README.md", "config.json"} <= set(named)


def test_without_a_token_nothing_is_made(tmp_path: Path) -> None:
    done = export(tmp_path, "--push-to-hub", "me/model")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "hf auth login" in done.stderr
    assert not (tmp_path / "copy").exists()


def test_a_name_that_is_none_is_refused_first(tmp_path: Path) -> None:
    done = export(tmp_path, "--push-to-hub", "a/b c", HF_TOKEN="hf_test")
    assert "--push-to-hub must name a repository" in done.stderr
    assert not (tmp_path / "copy").exists()


def test_a_hub_that_is_not_there_leaves_the_model_and_the_command(tmp_path: Path) -> None:
    done = export(tmp_path, "--push-to-hub", "me/model", HF_TOKEN="hf_test", HF_ENDPOINT="http://127.0.0.1:9")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"hf upload me/model {tmp_path / 'copy'}" in done.stderr
    assert (tmp_path / "copy" / "config.json").is_file()
