"""A policy's adapter travels alone to servers that apply it; elsewhere the merged model does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reasoner.config.sections import LoraConfig, ModelSection, ScratchConfig
from reasoner.engine.base import Adapter, Engine, EngineError
from reasoner.engine.check import checksum
from reasoner.engine.server import ServerEngine, lora_options
from reasoner.engine.sync import sync
from reasoner.engine.weights import in_dtype
from reasoner.model.load import load_model
from reasoner.model.lora import (
    adapter_weights,
    add_adapter,
    is_adapter,
    peft_config,
    peft_weights,
    plain_weights,
    save_adapter,
)
from reasoner.records import Request, SamplingParams
from tests.unit.reasoner.engine.standin import StandIn, Worker

Opened = Callable[..., tuple[ServerEngine, list[StandIn]]]
SHAPE = ScratchConfig(hidden_size=16, layers=1, heads=2, max_positions=32)


class Learner:
    """A model with an adapter that can be changed."""

    def __init__(self, targets: list[str] | None = None) -> None:
        self.model = load_model(ModelSection(from_scratch=SHAPE), seed=0).model
        self.before = {name: tensor.clone() for name, tensor in self.model.named_parameters()}
        self.adapted = add_adapter(self.model, LoraConfig(rank=3, alpha=6.0, targets=targets or "all-linear"), seed=0)

    def learn(self, seed: int) -> Learner:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.adapted.named_parameters():
                if is_adapter(name):
                    parameter.add_(torch.randn(parameter.shape, generator=generator))
        return self

    def adapter(self) -> Adapter:
        base = partial(plain_weights, self.model, merged=False)
        return Adapter(peft_weights(self.adapted), peft_config(self.adapted), base)

    def sent(self) -> str:
        return checksum(in_dtype(peft_weights(self.adapted), torch.bfloat16))


@pytest.fixture
def learner() -> Learner:
    return Learner().learn(0)


def targets_of(config: dict[str, object]) -> list[str]:
    targets = config["target_modules"]
    assert isinstance(targets, list)
    return targets


def test_an_engine_gets_what_pefts_files_hold_and_the_base_without_it(learner: Learner, tmp_path: Path) -> None:
    save_adapter(learner.adapted, dict(adapter_weights(learner.adapted)), tmp_path)
    written, ours = load_file(tmp_path / "adapter_model.safetensors"), dict(peft_weights(learner.adapted))
    assert sorted(written) == sorted(ours)
    assert all(torch.equal(written[name], ours[name]) for name in ours)
    config = peft_config(learner.adapted)
    assert (config["r"], config["lora_alpha"], config["bias"]) == (3, 6.0, "none")
    assert {str(name).rpartition(".")[2] for name in targets_of(config)} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    base = dict(plain_weights(learner.model, merged=False))
    assert all(torch.equal(base[name], tensor) for name, tensor in learner.before.items())
    assert sorted(base) == sorted(learner.before)
    merged = dict(plain_weights(learner.model))
    assert sum(not torch.equal(base[name], merged[name]) for name in base) == 7


def asked(engine: ServerEngine) -> None:
    list(engine.generate([Request(prompt_ids=(5,), seed=seed) for seed in range(6)], SamplingParams(max_tokens=3)))


@pytest.mark.parametrize("blind", [False, True])
def test_the_base_travels_once_and_then_the_adapter_alone(opened: Opened, learner: Learner, blind: bool) -> None:
    engine, standins = opened(blind=blind, lora_rank=3)
    for version in (1, 2, 3):
        learner.learn(version)
        assert engine.load_adapter(learner.adapter(), version) == checksum(peft_weights(learner.adapted))
        asked(engine)
        for one in standins:
            ((name, (tensors, config)),) = one.adapters.items()
            assert name.endswith(f"-v{version}")
            assert checksum(tensors.items()) == learner.sent()
            assert config["r"] == 3
            assert one.calls.count("reasoner_load_weights") == 1, "the base"
            assert one.calls.count("/pause") == 1
            assert checksum(one.workers[0].weights.items()) == checksum(
                in_dtype(plain_weights(learner.model, merged=False), torch.bfloat16)
            )
        assert {name for one in standins for name in one.models_asked[-1:]} == {name}


def test_a_server_that_comes_back_gets_the_base_only_if_it_was_started_again(opened: Opened, learner: Learner) -> None:
    engine, (hung, started_again) = opened(lora_rank=3)
    hung.adapters["reasoner-earlier-v7"] = ({}, {})
    engine.load_adapter(learner.adapter(), 1)
    for server in engine.servers:
        server.alive = False
    started_again.adapters.clear()
    engine.load_adapter(learner.learn(1).adapter(), 2)
    assert [one.calls.count("reasoner_load_weights") for one in (hung, started_again)] == [1, 2]
    assert [list(one.adapters) == [engine.servers[0].model] for one in (hung, started_again)] == [True, True]
    assert all(server.alive for server in engine.servers)


@pytest.mark.parametrize("worker", [0, 1])
def test_every_worker_must_read_the_adapter_that_was_sent(opened: Opened, learner: Learner, worker: int) -> None:
    engine, standins = opened(lora_rank=3)
    standins[1].workers[worker].misreads = True
    with pytest.raises(EngineError, match="weights must arrive at the engine as they were sent"):
        engine.load_adapter(learner.adapter(), 1)


def synced(engine: Engine, learner: Learner, version: int) -> None:
    sync(
        engine,
        plain_weights(learner.model),
        version,
        probe=[1, 2, 3],
        score=lambda ids: [0.0] * (len(ids) - 1),
        dtype=torch.float32,
        check=False,
        adapter=learner.adapter(),
    )


def test_an_adapter_that_vllm_cannot_apply_is_merged_from_then_on(opened: Opened, learner: Learner) -> None:
    engine, standins = opened(lora_rank=3)
    standins[1].cannot_apply = "unexpected modules: lm_head"
    for version in (1, 2):
        synced(engine, learner.learn(version), version)
        merged = checksum(in_dtype(plain_weights(learner.model), torch.bfloat16))
        for one in standins:
            assert [checksum(worker.weights.items()) for worker in one.workers] == [merged, merged]
            one.models_asked.clear()
        asked(engine)
        assert {name for one in standins for name in one.models_asked} == {"model"}
    (said,) = [note for note in engine.take_notes() if "merged" in note]
    assert "the adapter is merged into the model for vLLM, which does not apply it" in said
    assert "unexpected modules: lm_head" in said
    assert [one.calls.count("/v1/load_lora_adapter") for one in standins] == [1, 1]


@pytest.mark.parametrize("options", [{"lora_rank": 3, "lora": "merged"}, {"lora": "adapter"}])
def test_merged_weights_travel_where_they_are_asked_for_and_without_an_adapter(
    opened: Opened, learner: Learner, options: dict[str, object]
) -> None:
    engine, standins = opened(1, **options)
    synced(engine, learner, 1)
    assert "/v1/load_lora_adapter" not in standins[0].calls
    assert checksum(standins[0].workers[0].weights.items()) == checksum(
        in_dtype(plain_weights(learner.model), torch.bfloat16)
    )


def test_a_request_gets_the_adapter_of_its_version_while_it_is_needed(opened: Opened, learner: Learner) -> None:
    engine, standins = opened(lora_rank=3)
    sent: dict[int, str] = {}

    def load(version: int, *keep: int) -> None:
        engine.load_adapter(learner.learn(version).adapter()._replace(keep=keep), version)
        sent[version] = learner.sent()

    def names(standin: StandIn) -> list[str]:
        return [name.rpartition("-")[2] for name in standin.adapters]

    load(1)
    load(2, 1)
    load(3, 1, 2)
    versions = [1, 2, 3, None] * 3
    requests = [Request(prompt_ids=(5,), seed=seed, version=version) for seed, version in enumerate(versions)]
    done = dict(engine.generate(requests, SamplingParams(max_tokens=3)))
    assert [done[index].policy_version for index in range(12)] == [1, 2, 3, 3] * 3
    asked = [name.rpartition("-")[2] for one in standins for name in one.models_asked]
    assert sorted(asked) == sorted(["v1", "v2", "v3", "v3"] * 3)
    for one in standins:
        assert names(one) == ["v1", "v2", "v3"]
        assert [checksum(tensors.items()) for tensors, _ in one.adapters.values()] == [*sent.values()]
        assert one.calls.count("/pause") == 1, "the base alone"
    standins[0].adapters.clear()  # it was started again
    engine.servers[0].alive = False
    load(4, 2, 3)
    for one in standins:
        assert names(one) == ["v2", "v3", "v4"]
        assert [checksum(tensors.items()) for tensors, _ in one.adapters.values()] == [sent[2], sent[3], sent[4]]
    assert [one.calls.count("/pause") for one in standins] == [2, 1]
    with pytest.raises(EngineError, match=r"refused a request: 404: .*-v1 does not exist"):
        list(engine.generate([Request(prompt_ids=(5,), seed=0, version=1)], SamplingParams(max_tokens=3)))
    load(4)  # the same number with other weights: a policy that was rolled back
    assert [names(one) for one in standins] == [["v4"], ["v4"]]
    assert checksum(standins[0].adapters[engine.servers[0].model][0].items()) == sent[4]


def test_servers_without_room_for_the_adapters_of_the_batches_ahead_are_refused(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Worker, "room", (5, 8))
    opened(lora_rank=3, pinned=3)
    with pytest.raises(EngineError, match=r"room for 6 adapters in a batch and 10 in memory, with rollout.ahead=4"):
        opened(lora_rank=3, pinned=4)


def test_pinned_versions_are_never_merged(opened: Opened, learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "room", (3, 4))
    engine, standins = opened(lora_rank=3, pinned=1)
    standins[1].cannot_apply = "unexpected modules: lm_head"
    with pytest.raises(EngineError, match=r"must apply the adapter .*unexpected modules: lm_head.*lora to merged"):
        engine.load_adapter(learner.adapter(), 1)


def test_servers_have_room_for_the_present_adapter_and_earlier_ones() -> None:
    assert lora_options(None) == ()
    assert lora_options(9, ahead=5)[1:5] == ("--max-loras", "7", "--max-cpu-loras", "12")
    assert lora_options(9) == ("--enable-lora", "--max-loras", "2", "--max-cpu-loras", "8", "--max-lora-rank", "16")
    with pytest.raises(EngineError, match=r"rank up to 512; got model.lora.rank=600. Set engine.options.lora: merged"):
        lora_options(600)
