"""A stand-in for a vLLM server of two workers: its routes, and the worker extension over tensors alone.

Faults can be switched on: each attribute of `StandIn` says which.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from reasoner.engine.check import checksum
from reasoner.engine.gate import START_HEADER
from reasoner.engine.vllm_internals import WeightLoader, tensors_of


class Worker(WeightLoader):
    """The worker extension without vLLM's worker: it keeps the tensors."""

    room = (2, 8)
    """Adapters in a batch and in memory."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.drops_a_tensor = False
        self.misreads = False

    def reasoner_load_weights(self, folder: str) -> str:
        self.weights = dict(tensors_of(Path(folder)))
        if self.drops_a_tensor:
            self.weights.popitem()
        return checksum(self.weights.items())

    def reasoner_checksum(self, folder: str) -> str:
        return "another" if self.misreads else super().reasoner_checksum(folder)

    def reasoner_adapter_room(self) -> list[int]:
        return [*self.room]


class StandIn:
    """A running stand-in."""

    def __init__(self, *, workers: int = 2, tls: ssl.SSLContext | None = None) -> None:
        self.workers = [Worker() for _ in range(workers)]
        self.calls: list[str] = []
        """Paths and methods, in order of arrival."""
        self.seeds: list[int] = []
        """Seeds of completions, in order of arrival."""
        self.keys: set[str] = set()
        self.version = "default"
        """Version of its weights."""
        self.waits_for: str | None = None
        """Version before which completions do not end; each samples its first token at once."""
        self.adapters: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]] = {}
        """Tensors and configuration of each adapter that is loaded, by name."""
        self.models_asked: list[str] = []
        self.cannot_apply: str | None = None
        """Why it cannot apply adapters."""
        self.blind = False
        """It does not see the trainer's files."""
        self.keeps_cache = False
        """Its prefix cache cannot be cleared."""
        self.dies_at: str | None = None
        """The method at which it closes every connection and answers no more."""
        self.hangs = False
        """It accepts connections and answers nothing."""
        self.dead = False
        self.start: str | None = None
        """Mark of its start in the header of each answer; None: it has no such header."""
        outer = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self, {"data": [{"id": name} for name in ("model", *outer.adapters)]})

            def do_POST(self) -> None:
                outer.keys.add(self.headers.get("Authorization", ""))
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer._answer(self, outer._post(self.path, json.loads(body) if body else {}))

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # clients that hang up
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._http.server_address[1]}"

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        method = body.get("method", path.partition("?")[0])
        self.calls.append(method)
        if method == self.dies_at:
            self.dead = True
        if path == "/collective_rpc":
            if self.blind and method == "reasoner_sees":
                return {"results": ["" for _ in self.workers]}
            return {"results": [getattr(worker, method)(*body["args"]) for worker in self.workers]}
        if method == "/reset_prefix_cache":
            return {"success": not self.keeps_cache}
        if method == "/update_weight_version":
            self.version = body["new_version"]
            return {"success": True}
        if method == "/inference/v1/generate":
            return self._generate(body["sampling_params"])
        if method == "/v1/load_lora_adapter":
            if self.cannot_apply:
                return {"error": self.cannot_apply, "status": 500}
            if body["lora_name"] in self.adapters:
                return {"error": "it has already been loaded", "status": 400}
            folder = Path(body["lora_path"])
            config = json.loads((folder / "adapter_config.json").read_text())
            self.adapters[body["lora_name"]] = (dict(tensors_of(folder)), config)
            return {"text": "Success: LoRA adapter added successfully."}
        if method == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
            return {"text": "Success: LoRA adapter removed successfully."}
        if method == "/v1/completions":
            self.models_asked.append(body["model"])
            if body["model"] not in ("model", *self.adapters):
                return {"error": f"The model {body['model']} does not exist.", "status": 404}
            sampled = {"tokens": [], "token_logprobs": [-0.5] * 3}
            self.seeds.append(body["seed"])
            return {
                "choices": [{"text": self.url, "token_ids": [1, 2, 3], "finish_reason": "length", "logprobs": sampled}]
            }
        return {}

    def _generate(self, params: dict[str, Any]) -> dict[str, Any]:
        self.seeds.append(params["seed"])
        began = self.version
        while self.waits_for is not None and self.version != self.waits_for and not self.dead:
            time.sleep(0.01)
        ends = [1, 3] if self.version != began else [3]
        names = [began, self.version][: len(ends)]
        spans = [{"version": name, "start": at, "end": end} for name, at, end in zip(names, [0, 1], ends, strict=False)]
        choice = {"text": self.url, "token_ids": [1, 2, 3], "finish_reason": "length", "weight_versions": spans}
        return {"choices": [{**choice, "logprobs": {"content": [{"logprob": -0.5}] * 3}}]}

    def _answer(self, handler: BaseHTTPRequestHandler, answer: dict[str, Any]) -> None:
        while self.hangs:
            time.sleep(0.02)
        if self.dead:
            handler.close_connection = True
            return
        content = str(answer["text"]).encode() if "text" in answer else json.dumps(answer).encode()
        handler.send_response(answer.get("status", 200))
        handler.send_header("Content-Length", str(len(content)))
        if self.start is not None:
            handler.send_header(START_HEADER, self.start)
        handler.end_headers()
        handler.wfile.write(content)

    def close(self) -> None:
        """Stop."""
        self.hangs = False
        self._http.shutdown()
        self._http.server_close()
