"""A saved teacher for distillation, a config that names it, and a stand-in for a vLLM server that has it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.model.load import load_tokenizer
from reasoner.policy.kinds import policy_class
from reasoner.policy.policy import Policy
from tests.unit.reasoner.policy.test_policy import SHAPE

TEACHER = {"hidden_size": 64, "layers": 1, "heads": 2, "max_positions": 96}


def save_teacher(folder: Path, *, spare: int = 11) -> Path:
    """Write a model with `spare` more embeddings than tokens, whose distributions are far from uniform."""
    model = {"from_scratch": TEACHER, "dtype": "float32"}
    (config,) = resolve({"task": "arithmetic", "seed": 7, "model": model}).stages
    policy = Policy(config, accelerator=Accelerator(cpu=True))
    policy.model.resize_token_embeddings(259 + spare)
    with torch.no_grad():
        policy.model.get_input_embeddings().weight.mul_(20)  # pyright: ignore
    with policy.collected(trained=False):
        policy.save(folder)
    return folder


def config_of(teacher: Path | dict[str, object], **changes: object) -> StageConfig:
    raw: dict[str, object] = {
        "method": "distill",
        "task": "arithmetic",
        "model": {"from_scratch": SHAPE, "dtype": "float32"},
        "rollout": {"max_tokens": 40},
        "teacher": str(teacher) if isinstance(teacher, Path) else teacher,
        **changes,
    }
    return resolve(raw).stages[0]


def opened(config: StageConfig) -> Policy:
    return policy_class(config)(config, accelerator=Accelerator(cpu=True))


class TeacherServer:
    """The routes of vLLM's server by which a teacher is asked, over a saved model."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(str(folder))
        self.fails = 0
        """Number of requests from now on that are answered by 500."""
        self.refuses = False
        """It refuses to score."""
        self.asked: list[str] = []
        self.start = "first"
        """Mark of its start."""
        outer = self

        class Answers(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer._answer(self, 200, {"data": [{"id": "teacher", "max_model_len": 80}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(self.path)
                if outer.fails:
                    outer.fails -= 1
                    return outer._answer(self, 500, {"error": "busy"})
                if outer.refuses and self.path == "/v1/completions":
                    return outer._answer(self, 400, {"error": "too long"})
                return outer._answer(self, 200, outer._said(self.path, body))

            def log_message(self, format: str, *args: object) -> None:
                """Print nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def _said(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert body["model"] == "teacher"
        if path == "/detokenize":
            return {"prompt": self.tokenizer.decode(body["tokens"])}
        assert path == "/v1/completions"
        assert body["prompt_logprobs"] == 0
        ids = torch.tensor(body["prompt"])
        with torch.no_grad():
            logprobs = self.model(ids[None]).logits[0].log_softmax(-1)
        said = [{str(one): {"logprob": float(logprobs[at, one])}} for at, one in enumerate(ids[1:].tolist())]
        return {"choices": [{"prompt_logprobs": [None, *said]}]}

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("x-reasoner-start", self.start)
        handler.end_headers()
        handler.wfile.write(content)

    def close(self) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()
