"""Sampling that goes on over weight updates, on two real vLLM servers: each token's version, and kills anywhere."""

from __future__ import annotations

import copy
import json
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import PreTrainedModel

from reasoner.config.load import load_config
from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.engine import open_engine
from reasoner.engine.gate import KEY_VARIABLE
from reasoner.engine.remote import Server
from reasoner.engine.server import ServerEngine
from reasoner.model.load import load_model
from reasoner.records import Completion, Request, SamplingParams
from reasoner.session.ahead_file import read_ahead
from reasoner.stages.pipeline import run_replay
from reasoner.storage.find_model import latest_checkpoint, step_of
from tests.integration.test_engine_contract import logprobs, named, shake
from tests.integration.test_resume import attempts, records

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]
CONTEXT = 512
SHAPE = ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=CONTEXT)
KEY = "sesame"
AHEAD = 3
STEPS = 10


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Start two servers."""
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = load_model(ModelSection(from_scratch=SHAPE), seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    engine = open_engine(
        "vllm-server", model_path=str(folder), max_model_len=CONTEXT, kv_cache_gigabytes=0.1, servers=2, key=KEY
    )
    assert isinstance(engine, ServerEngine)
    yield [server.url for server in engine.servers]
    engine.close()


def off_by_one(post: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Tell the server the version before."""

    def posted(server: Server, path: str, body: Any = None) -> dict[str, Any]:
        if path == "/update_weight_version":
            body = {"new_version": str(int(body["new_version"]) - 1)}
        return post(server, path, body)

    return posted


def cache_kept(post: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Leave the keys and values of the old weights, and say that they are cleared."""

    def posted(server: Server, path: str, body: Any = None) -> dict[str, Any]:
        if path.startswith("/reset_prefix_cache"):
            return {"success": True}
        return post(server, path.replace("clear_cache=true", "clear_cache=false"), body)

    return posted


def sampled_over_updates(
    engine: ServerEngine, model: PreTrainedModel
) -> tuple[list[tuple[Request, Completion]], Mapping[int, PreTrainedModel]]:
    """Load one version after the other while completions are sampled; return those, and the models by version."""
    models = {0: copy.deepcopy(model)}

    def load() -> None:
        version = len(models)
        shake(model, seed=version, size=0.02)
        models[version] = copy.deepcopy(model)
        engine.load_weights(named(model), version)

    load()
    prompt = tuple(torch.randint(5, 200, (150,), generator=torch.Generator().manual_seed(1)).tolist())
    requests = [Request(prompt_ids=(*prompt, 7 + seed % 3), seed=seed) for seed in range(12)]
    found: list[tuple[Request, Completion]] = []

    def sample() -> None:
        for one in engine.generate(requests, SamplingParams(max_tokens=120, temperature=0.8, end_ids=())):
            found.append((requests[one.index], one.completion))

    sampling = threading.Thread(target=sample)
    sampling.start()
    for _ in range(6):
        sampling.join(0.5)
        load()
    sampling.join()
    assert len(found) == len(requests)
    return found, models


def worst_gap(found: list[tuple[Request, Completion]], models: Mapping[int, PreTrainedModel]) -> float:
    """Largest |difference| between a token's log-probability and that of the model of its version, in nats."""
    gaps: list[float] = []
    for request, completion in found:
        version_T, engine_T = torch.tensor(completion.token_versions), torch.tensor(completion.rollout_logprobs)
        for version in {*completion.token_versions}:
            ours = logprobs(models[version], request.prompt_ids, completion.token_ids, 0.8)
            gaps.append(float((ours - engine_T)[version_T == version].abs().max()))
    return max(gaps)


@pytest.mark.parametrize("fault", [None, off_by_one, cache_kept])
def test_every_token_has_the_probability_of_its_version(
    urls: list[str], fault: Callable[..., Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_model(ModelSection(from_scratch=SHAPE), seed=0)
    if fault:
        monkeypatch.setattr(Server, "post", fault(Server.post))
    engine = open_engine("vllm-server", model_path="", max_model_len=CONTEXT, urls=urls, key=KEY, spans=True)
    assert isinstance(engine, ServerEngine)
    found, models = sampled_over_updates(engine, model)
    engine.close()
    assert max(len(completion.versions) for _, completion in found) >= 3, "no update arrived under a completion"
    if fault:
        assert worst_gap(found, models) > 1e-2
    else:
        assert worst_gap(found, models) < 1e-4


def config_of(folder: Path, name: str, urls: list[str]) -> Path:
    config = {
        "name": name,
        "output": str(folder / name),
        "method": "grpo",
        "steps": STEPS,
        "seed": 3,
        "task": {"name": "arithmetic", "options": {"family": "addition", "digits": 1}},
        "prompt": {"chat": "never"},
        "model": {"from_scratch": SHAPE.model_dump(mode="json")},
        "rollout": {
            "problems_per_step": 4,
            "group_size": 4,
            "max_tokens": 96,
            "ahead": AHEAD,
            "during_update": "go_on",
        },
        "reward": {"name": str(Path(__file__).parent / "evens.py")},
        "optim": {"lr": 1.0e-3},
        "engine": {"name": "vllm-server", "options": {"urls": urls}},
        "eval": {"problems": 4, "every": 5},
        "checkpoint": {"every": 1},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def drawn(folder: Path) -> list[tuple[object, ...]]:
    rows = records(folder, "rollouts.jsonl")
    return [tuple(row[key] for key in ("step", "group", "sample", "problem", "prompt")) for row in rows]


def test_kills_leave_the_same_problems_and_samples_in_each_step(
    urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    whole, killed = config_of(tmp_path, "whole", urls), config_of(tmp_path, "killed", urls)
    source = random.Random(7)
    moments = {"completion": 80, "load": 4, "grading": 60, "update": 2, "checkpoint": 2, "records": 2, "sync": 2}
    died, kept = 0, dict[tuple[int, int, int], list[int]]()
    with attempts() as attempt:
        assert attempt(whole, "never")["status"] == 0
        for moment, passes in moments.items():
            died += attempt(killed, moment, source.randrange(1, passes + 1))["status"] != 0
            checkpoint = latest_checkpoint(tmp_path / "killed" / "checkpoints")
            if checkpoint is None or not (done := step_of(checkpoint)):
                continue
            ahead = read_ahead(checkpoint)
            assert [batch.step for batch in ahead] == [*range(done + 1, min(done + AHEAD, STEPS) + 1)]
            for step, _, known in ahead:
                for (place, sample), rollout in known.items():
                    kept[step, place, sample] = [*rollout.completion.token_ids]
        assert died == len(moments) >= 5
        assert attempt(killed, "never")["status"] == 0
    one, other = drawn(tmp_path / "killed"), drawn(tmp_path / "whole")
    assert one == other, "nothing is skipped, doubled or in another order"
    assert len(one) == len({*one}) == STEPS * 16
    rows = {(row["step"], row["group"], row["sample"]): row for row in records(tmp_path / "killed", "rollouts.jsonl")}
    assert kept, "no rollout of a batch under way was in a checkpoint"
    assert all(rows[place]["token_ids"] == ids for place, ids in kept.items()), "finished completions are kept"
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        assert [row["step"] for row in records(folder, "metrics.jsonl")] == [*range(1, STEPS + 1)]
        for row in records(folder, "rollouts.jsonl"):
            spans: Any = row.get("versions") or [[row["policy_version"], 0, len(row["token_ids"])]]  # pyright: ignore[reportArgumentType]
            assert all(row["step"] - 1 - AHEAD <= version < row["step"] for version, _, _ in spans)
            assert [0, *(end for _, _, end in spans)] == [*(start for _, start, _ in spans), len(row["token_ids"])]  # pyright: ignore[reportArgumentType]
        assert any("versions" in row for row in records(folder, "rollouts.jsonl"))
        assert max(row["lag/max"] for row in records(folder, "metrics.jsonl")) <= AHEAD  # pyright: ignore[reportOperatorIssue]
        assert "sampled again" in json.loads((folder / "environment.json").read_text())["resume"]
    again = load_config(str(killed), [f"output={tmp_path / 'again'}"])
    assert "every update and metric is equal bit for bit" in run_replay(again, tmp_path / "killed", resume=False)
