"""Batches that are sampled with the adapters they began with, on a real vLLM server: versions, and a kill."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from transformers import PreTrainedModel

from reasoner.config.load import load_config
from reasoner.config.sections import LoraConfig, ModelSection, ScratchConfig
from reasoner.engine import open_engine
from reasoner.engine.base import Adapter
from reasoner.engine.gate import KEY_VARIABLE
from reasoner.engine.remote import Server
from reasoner.engine.server import ServerEngine
from reasoner.model.load import load_model
from reasoner.model.lora import add_adapter, is_adapter, load_adapter, peft_config, peft_weights, plain_weights
from reasoner.records import Completion, Request, SamplingParams
from reasoner.session.ahead_file import read_ahead
from reasoner.stages.pipeline import run_replay
from reasoner.storage.find_model import latest_checkpoint, step_of
from tests.integration.test_engine_contract import completions, logprobs
from tests.integration.test_resume import attempts, records

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
CONTEXT = 256
SHAPE = ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=CONTEXT)
LORA = LoraConfig(rank=4, alpha=8.0)
KEY = "sesame"
AHEAD = 2
STEPS = 8
PLACES = 3
"""Requests at a time, so that those of a batch are asked before and after updates."""
SEED = 3


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server."""
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = load_model(ModelSection(from_scratch=SHAPE), seed=SEED)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    engine = open_engine(
        "vllm-server",
        model_path=str(folder),
        max_model_len=CONTEXT,
        kv_cache_gigabytes=0.1,
        lora_rank=LORA.rank,
        pinned=AHEAD,
        key=KEY,
    )
    assert isinstance(engine, ServerEngine)
    yield engine.servers[0].url
    engine.close()


def worst_gap(found: list[tuple[Request, Completion]], models: Mapping[int, PreTrainedModel]) -> float:
    """Largest |difference| between a token's log-probability and that of the model of its version, in nats."""
    gaps: list[float] = []
    for request, one in found:
        ours = logprobs(models[one.policy_version], request.prompt_ids, one.token_ids, 1.0)
        gaps.append(float((ours - torch.tensor(one.rollout_logprobs)).abs().max()))
    return max(gaps)


@pytest.mark.parametrize("fault", [None, "asks for the newest"])
def test_every_token_has_the_probability_of_the_version_that_was_asked_for(
    url: str, fault: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault:
        monkeypatch.setattr(Server, "named", lambda server, version: server.model)
    options = {"urls": [url], "key": KEY, "lora_rank": LORA.rank, "pinned": AHEAD, "max_batch": PLACES}
    engine = open_engine("vllm-server", model_path="", max_model_len=CONTEXT, **options)
    assert isinstance(engine, ServerEngine)
    model, _ = load_model(ModelSection(from_scratch=SHAPE), seed=SEED)
    adapted = add_adapter(model, LORA, seed=0)
    models: dict[int, PreTrainedModel] = {}

    def load(version: int) -> None:
        generator = torch.Generator().manual_seed(version)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if is_adapter(name):
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        models[version] = copy.deepcopy(model)
        keep, base = range(max(0, version - AHEAD), version), partial(plain_weights, model, merged=False)
        assert engine.load_adapter(Adapter(peft_weights(adapted), peft_config(adapted), base, keep), version)

    found: list[tuple[Request, Completion]] = []
    under_way: list[threading.Thread] = []
    for version in range(6):
        load(version)
        prompt = tuple(torch.randint(5, 200, (140,), generator=torch.Generator().manual_seed(1)).tolist())
        requests = [Request(prompt_ids=(*prompt, 7), seed=seed, version=version, priority=version) for seed in range(6)]

        def sample(requests: list[Request] = requests) -> None:
            done = completions(engine, requests, SamplingParams(max_tokens=80, end_ids=()))
            found.extend(zip(requests, done, strict=True))

        under_way.append(threading.Thread(target=sample))
        under_way[-1].start()
        if version >= AHEAD:
            under_way[version - AHEAD].join()
    for one in under_way:
        one.join()
    engine.close()
    assert sorted(one.policy_version for _, one in found) == sorted([*range(6)] * 6)
    assert all(request.version == one.policy_version for request, one in found)
    if fault:
        assert worst_gap(found, models) > 1e-2
    else:
        assert worst_gap(found, models) < 1e-4


def config_of(folder: Path, name: str, url: str) -> Path:
    config = {
        "name": name,
        "output": str(folder / name),
        "method": "grpo",
        "steps": STEPS,
        "seed": SEED,
        "task": {"name": "arithmetic", "options": {"family": "addition", "digits": 1}},
        "prompt": {"chat": "never"},
        "model": {"from_scratch": SHAPE.model_dump(mode="json"), "lora": LORA.model_dump(mode="json")},
        "rollout": {
            "problems_per_step": 2,
            "group_size": 4,
            "max_tokens": 48,
            "ahead": AHEAD,
            "during_update": "pin",
        },
        "reward": {"name": str(Path(__file__).parent / "evens.py")},
        "optim": {"lr": 2.0e-2, "warmup_steps": 0},
        "engine": {"name": "vllm-server", "options": {"urls": [url], "max_batch": PLACES}},
        "eval": {"problems": 2, "every": 4},
        "checkpoint": {"every": 3},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def drawn(folder: Path) -> list[tuple[object, ...]]:
    keys = ("step", "group", "sample", "problem", "prompt", "policy_version")
    return [tuple(row[key] for key in keys) for row in records(folder, "rollouts.jsonl")]


def versions(replayed: Path) -> dict[int, PreTrainedModel]:
    """The policy after each step, from the checkpoints of a run."""
    found: dict[int, PreTrainedModel] = {}
    for step in range(STEPS + 1):
        model, _ = load_model(ModelSection(from_scratch=SHAPE), seed=SEED)
        load_adapter(add_adapter(model, LORA, seed=0), replayed / "checkpoints" / f"step-{step:06d}" / "adapter")
        found[step] = model
    return found


@pytest.mark.slow
def test_a_killed_run_keeps_what_its_checkpoint_has_and_every_batch_its_version(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    whole, killed = config_of(tmp_path, "whole", url), config_of(tmp_path, "killed", url)
    with attempts() as attempt:
        assert attempt(whole, "never")["status"] == 0
        assert attempt(killed, "update", 4)["status"] != 0
        before = [row for row in records(tmp_path / "killed", "rollouts.jsonl") if int(str(row["step"])) <= 3]
        checkpoint = latest_checkpoint(tmp_path / "killed" / "checkpoints")
        assert checkpoint is not None
        assert step_of(checkpoint) == 3
        ahead = read_ahead(checkpoint)
        assert attempt(killed, "never")["status"] == 0
    assert drawn(tmp_path / "killed") == drawn(tmp_path / "whole")
    assert len({*drawn(tmp_path / "whole")}) == STEPS * 8
    for folder in (tmp_path / "killed", tmp_path / "whole"):
        rows = records(folder, "rollouts.jsonl")
        assert [row["policy_version"] for row in rows] == [max(0, int(str(row["step"])) - 1 - AHEAD) for row in rows]
        assert not any("versions" in row for row in rows)
    after = records(tmp_path / "killed", "rollouts.jsonl")
    assert after[: len(before)] == before
    assert [batch.step for batch in ahead] == [4, 5]
    rows = {(row["step"], row["group"], row["sample"]): row for row in after}
    for step, _, known in ahead:
        assert len(known) == 8, "the batches ahead of a checkpoint are finished"
        for (place, sample), rollout in known.items():
            row = rows[step, place, sample]
            assert row["token_ids"] == [*rollout.completion.token_ids]
            assert row["rollout_logprobs"] == [*rollout.completion.rollout_logprobs]
            assert row["policy_version"] == rollout.completion.policy_version
    assert "versions of the adapter" in json.loads((tmp_path / "killed" / "environment.json").read_text())["resume"]
    again = load_config(
        str(killed), [f"output={tmp_path / 'again'}", "checkpoint.every=1", f"checkpoint.keep={STEPS + 1}"]
    )
    assert "every update and metric is equal bit for bit" in run_replay(again, tmp_path / "killed", resume=False)
    models = versions(tmp_path / "again")
    for row in after:
        ours = logprobs(models[row["policy_version"]], tuple(row["prompt_ids"]), tuple(row["token_ids"]), 1.0)  # pyright: ignore
        theirs = torch.tensor(row["rollout_logprobs"])
        assert (ours - theirs).abs().max() < 1e-4, (row["step"], row["group"], row["sample"])
        newest = logprobs(models[int(str(row["step"])) - 1], tuple(row["prompt_ids"]), tuple(row["token_ids"]), 1.0)  # pyright: ignore
        assert int(str(row["step"])) < 3 or (newest - theirs).abs().max() > 1e-3, "versions that cannot be told apart"
