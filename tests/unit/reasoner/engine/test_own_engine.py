"""An engine of the user's own, named by file and class: it samples, takes weights, and trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.engine import engine_class
from reasoner.stages.pipeline import run_pipeline
from verifiers.errors import UnknownVerifier

ENGINE = '''
import torch
from transformers import AutoModelForCausalLM

from reasoner.engine import Engine, Finished
from reasoner.engine.check import checksum
from reasoner.records import Completion, FinishReason, Segment


class Plain(Engine):
    """One request after the other, each token by a whole forward pass."""

    def __init__(self, *, model_path, dtype="float32", max_model_len, seed=0, note=""):
        self.model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, dtype)).eval()
        self.version, self.note, self.closed = 0, note, False

    @torch.no_grad()
    def generate(self, requests, params):
        for index, request in enumerate(requests):
            ids, logprobs = list(request.prompt_ids), []
            generator = torch.Generator().manual_seed(request.seed)
            for _ in range(params.max_tokens):
                scores = (self.model(torch.tensor([ids])).logits[0, -1].float() / params.temperature).log_softmax(-1)
                ids.append(int(torch.multinomial(scores.exp(), 1, generator=generator)))
                logprobs.append(float(scores[ids[-1]]))
            sampled = tuple(ids[len(request.prompt_ids) :])
            yield Finished(
                index,
                Completion(
                    text=self.note + "".join(chr(token % 128) for token in sampled),
                    token_ids=sampled,
                    rollout_logprobs=tuple(logprobs),
                    loss_mask=(True,) * len(sampled),
                    segments=(Segment(start=0, end=len(sampled), origin="policy"),),
                    finish_reason=FinishReason.LENGTH,
                    policy_version=self.version,
                ),
            )

    def load_weights(self, weights, version):
        listed = [(name, tensor.clone()) for name, tensor in weights]
        self.model.load_state_dict(dict(listed), strict=False)
        self.version = version
        return checksum(listed)

    @torch.no_grad()
    def score(self, token_ids):
        ids = torch.tensor(token_ids)
        scores = self.model(ids[None]).logits[0, :-1].float().log_softmax(-1)
        return scores.gather(1, ids[1:, None])[:, 0].tolist()

    def sleep(self):
        pass

    def close(self):
        self.closed = True


class NoEngine:
    pass
'''


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "own_engine.py"
    path.write_text(ENGINE)
    return str(path)


def test_a_run_of_two_steps_samples_from_the_weights_of_each(file: str, tmp_path: Path) -> None:
    config = {
        "output": str(tmp_path / "run"),
        "steps": 2,
        "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}},
        "task": {"name": "covering", "options": {"train_size": 20, "test_size": 4}},
        "prompt": {"chat": "never"},
        "rollout": {"problems_per_step": 2, "group_size": 4, "max_tokens": 6},
        "engine": {"name": f"{file}:Plain", "options": {"note": "own: "}},
        "optim": {"lr": 0.02},
        "eval": {"problems": 0},
        "logging": {"tensorboard": False},
    }
    folder = run_pipeline(resolve(config), resume=False)
    rows = [json.loads(line) for line in (folder / "rollouts.jsonl").read_text().splitlines()]
    assert [(row["step"], row["policy_version"]) for row in rows] == [(1, 0)] * 8 + [(2, 1)] * 8
    assert all(row["completion"].startswith("own: ") for row in rows)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["policy/step_kl"] > 1e-3, "the weights moved further than both sides may differ"
    for row in metrics:
        assert row["gap/logprob_abs"] < 1e-5
        assert row["gap/probe"] < 1e-5


def test_what_the_name_or_the_options_lack_is_said(file: str) -> None:
    assert engine_class(f"{file}:Plain", {"note": "x"}).__name__ == "Plain"
    with pytest.raises(ConfigError, match=r"engine.options: engine '.*:Plain' has no option 'nota'. Did you mean"):
        engine_class(f"{file}:Plain", {"nota": "x"})
    with pytest.raises(ConfigError, match=r"engine.name must lead to a subclass of reasoner.engine.Engine; got <class"):
        engine_class(f"{file}:NoEngine", {})
    with pytest.raises(UnknownVerifier, match=r"cannot load '.*:Missing'"):
        engine_class(f"{file}:Missing", {})
    with pytest.raises(ConfigError, match=r"no engine 'hff'. Did you mean 'hf'"):
        engine_class("hff", {})
