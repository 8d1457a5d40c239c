"""A vLLM server of two workers (tensor parallelism) fetches models and adapters, and samples as the trainer would."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from reasoner.config.sections import LoraConfig, ModelSection, ScratchConfig
from reasoner.engine import open_engine
from reasoner.engine.base import Adapter, EngineError
from reasoner.engine.check import check_probe, checksum, probe_ids
from reasoner.engine.server import ServerEngine
from reasoner.model.load import load_model
from reasoner.model.lora import add_adapter, is_adapter, peft_config, peft_weights, plain_weights
from reasoner.records import Request, SamplingParams
from tests.integration.test_engine_contract import completions, logprobs, named, shake

pytestmark = [pytest.mark.integration, pytest.mark.slow]
CONTEXT = 160
SHAPE = ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=CONTEXT)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerEngine, Path]]:
    folder = tmp_path_factory.mktemp("servers")
    model, tokenizer = load_model(ModelSection(from_scratch=SHAPE), seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")  # a machine with one NUMA node must say who runs where
        engine = open_engine(
            "vllm-server",
            model_path=str(folder),
            max_model_len=CONTEXT,
            kv_cache_gigabytes=0.1,
            weights="pull",
            lora_rank=4,
            arguments=["--tensor-parallel-size", "2"],
        )
    assert isinstance(engine, ServerEngine)
    yield engine, folder
    engine.close()


def test_every_worker_has_the_model_that_was_fetched_and_running_requests_end(opened) -> None:
    engine, folder = opened
    model, tokenizer = load_model(ModelSection(path=str(folder)), seed=0)
    probe = probe_ids(model.config.vocab_size, forbidden=tokenizer.all_special_ids, limit=CONTEXT - 1)
    for version in (1, 2):
        shake(model, seed=version)
        finished: list[int] = []

        def sample(finished: list[int] = finished) -> None:
            requests = [Request(prompt_ids=tuple(probe[:30]), seed=seed) for seed in range(12)]
            done = engine.generate(requests, SamplingParams(max_tokens=120, end_ids=()))
            finished.extend(len(one.completion.token_ids) for one in done)

        sampling = threading.Thread(target=sample)
        sampling.start()
        time.sleep(0.5)
        assert engine.load_weights(named(model), version) == checksum(named(model))
        sampling.join()
        assert finished == [120] * 12
        ours = logprobs(model, tuple(probe[:1]), tuple(probe[1:]), 1.0).tolist()
        assert check_probe(engine.score(probe), ours, torch.float32) < 1e-4
    assert len(engine.servers[0].rpc("reasoner_checksum", str(folder))) == 2, "two workers"


def test_an_adapter_that_travels_alone_is_applied_as_the_trainer_applies_it(
    opened, record_property: Callable[[str, object], None]
) -> None:
    engine, folder = opened
    model, tokenizer = load_model(ModelSection(path=str(folder)), seed=0)
    shake(model, seed=7)
    adapted = add_adapter(model, LoraConfig(rank=4, alpha=8.0), seed=0)
    probe = probe_ids(model.config.vocab_size, forbidden=tokenizer.all_special_ids, limit=CONTEXT - 1)
    stale: list[float] = []
    gaps: list[float] = []
    for version in (11, 12, 13):
        generator = torch.Generator().manual_seed(version)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if is_adapter(name):
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        base = partial(plain_weights, model, merged=False)
        adapter = Adapter(peft_weights(adapted), peft_config(adapted), base)
        assert engine.load_adapter(adapter, version) == checksum(peft_weights(adapted)), engine.take_notes()
        ours = logprobs(model, tuple(probe[:1]), tuple(probe[1:]), 1.0).tolist()
        assert check_probe(engine.score(probe), ours, torch.float32) < 1e-4
        if stale:
            with pytest.raises(EngineError, match="score the probe alike"):
                check_probe(stale, ours, torch.float32)
        stale = ours
        requests = [Request(prompt_ids=tuple(probe[: 8 * length]), seed=length) for length in (1, 2, 15)]
        for request, done in zip(requests, completions(engine, requests, SamplingParams(max_tokens=30)), strict=True):
            expected = logprobs(model, request.prompt_ids, done.token_ids, 1.0)
            gaps.append((expected - torch.tensor(done.rollout_logprobs)).abs().max().item())
            assert done.policy_version == version
    record_property("adapter", said := f"adapter in vLLM: largest gap of sampled tokens {max(gaps):.1e} nats")
    assert max(gaps) < 2e-4, said
    engine.load_weights(plain_weights(model), 14)
    merged = logprobs(model, tuple(probe[:1]), tuple(probe[1:]), 1.0).tolist()
    assert check_probe(engine.score(probe), merged, torch.float32) < 1e-4
