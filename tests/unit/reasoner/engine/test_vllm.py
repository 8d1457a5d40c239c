"""Sleeping and waking around an update, on a stand-in for vLLM that fails where vLLM on a GPU would."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import Gemma2Config, LlamaConfig, MambaConfig, PretrainedConfig

from reasoner import processes
from reasoner.engine.base import Engine, EngineError
from reasoner.engine.check import checksum
from reasoner.engine.vllm import VllmEngine, most_cache
from reasoner.engine.vllm_internals import load_into
from reasoner.records import Request, SamplingParams

SIZES = {"weights": 4, "kv_cache": 5}
ROOM = 10
EXCHANGE = 3
"""Free memory that new weights need while they replace the old ones."""


class Device:
    """Memory in units; torch keeps the memory of an update in its cache until that is emptied."""

    def __init__(self) -> None:
        self.torch = 0
        self.held = set(SIZES)

    def take(self, what: Iterable[str] = (), *, passing: int = 0) -> None:
        self.held |= set(what)
        if self.torch + sum(SIZES[one] for one in self.held) + passing > ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory")


class Llm:
    """The calls of `vllm.LLM` that the engine makes; a token is the number of the weights that it was computed from."""

    device: Device

    def __init__(self, **options: object) -> None:
        self.sleeps = options["enable_sleep_mode"]
        self.weights = 0
        self.prefixes: dict[tuple[int, ...], int] = {}
        """Prompts in the prefix cache, with the weights of their keys and values."""
        self.waiting: dict[str, tuple[int, ...]] = {}
        self.llm_engine = self

    def get_tokenizer(self) -> object:
        return SimpleNamespace(decode=lambda tokens, **_: str(tokens))

    def sleep(self, level: int = 1) -> None:
        if not self.sleeps:
            raise RuntimeError("Sleep mode is not enabled")
        self.device.held.clear()

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.device.take(tags or SIZES)

    def collective_rpc(
        self, method: Callable[..., str], args: tuple[Iterable[tuple[str, torch.Tensor]]] = ((),)
    ) -> list[str]:
        assert method is load_into
        assert "weights" in self.device.held, "illegal memory access"
        self.device.take(passing=EXCHANGE)
        self.weights += 1
        return [checksum(args[0])]

    def reset_prefix_cache(self) -> bool:
        self.prefixes.clear()
        return True

    def add_request(self, name: str, prompt: Mapping[str, list[int]], sampling: object) -> None:
        self.waiting[name] = tuple(prompt["prompt_token_ids"])

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def step(self) -> list[object]:
        assert self.device.held == set(SIZES), "illegal memory access"
        name, prompt = self.waiting.popitem()
        token = self.prefixes.setdefault(prompt, self.weights)
        logprobs = SimpleNamespace(logprobs=[-1.5], start_indices=[0])
        sampled = SimpleNamespace(token_ids=[token], text="", finish_reason="length", logprobs=logprobs)
        return [SimpleNamespace(request_id=name, finished=True, outputs=[sampled])]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """A machine with a GPU and vLLM."""
    made = Device()
    vllm, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    vllm.__dict__.update(LLM=type("LLM", (Llm,), {"device": made}), SamplingParams=SimpleNamespace)
    params.__dict__["RequestOutputKind"] = SimpleNamespace(FINAL_ONLY="final")
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", params)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", list)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", lambda states: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(made, "torch", 0))
    return made


def engine_of(**options: object) -> VllmEngine:
    return VllmEngine(model_path="somewhere", max_model_len=16, **options)  # type: ignore[arg-type]


def sampled(engine: Engine) -> tuple[int, int]:
    """Return (weights that a completion was computed from, version that it is stamped with)."""
    request = Request(prompt_ids=(1, 2), seed=0)
    (done,) = engine.generate([request], SamplingParams(max_tokens=1))
    return done.completion.token_ids[0], done.completion.policy_version


def test_new_weights_wake_the_engine_into_memory_that_torch_has_given_back(device: Device) -> None:
    engine = engine_of()
    assert sampled(engine) == (0, 0)
    for version in (1, 2):
        engine.sleep()
        assert device.held == set()
        engine.sleep()
        device.torch = 9  # an update ran
        weights = [("w", torch.full((2,), float(version)))]
        assert engine.load_weights(weights, version) == checksum(weights)
        assert sampled(engine) == (version, version)
        assert device.torch == 0


def test_an_engine_that_slept_samples_from_the_weights_that_it_had(device: Device) -> None:
    engine = engine_of()
    engine.sleep()
    device.torch = 9
    assert sampled(engine) == (0, 0)


def test_an_engine_beside_another_never_sleeps(device: Device) -> None:
    engine = engine_of(sleeps=False)
    engine.sleep()
    assert device.held == set(SIZES)


def test_one_model_over_several_devices_needs_as_many_processes(device: Device) -> None:
    with pytest.raises(
        EngineError,
        match=r'--num_processes 2 .*vllm-server with engine.options.arguments: \["--tensor-parallel-size", "2"\]',
    ):
        engine_of(tensor_parallel_size=2)


@pytest.mark.parametrize(("size", "rank", "team"), [(1, 3, [3]), (2, 1, [0, 1]), (2, 2, [2, 3]), (4, 3, [0, 1, 2, 3])])
def test_neighbours_share_an_engine(
    size: int, rank: int, team: list[int], device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "count", lambda: 4)
    monkeypatch.setattr(processes, "rank", lambda: rank)
    engine = engine_of(tensor_parallel_size=size)
    assert list(engine._team) == team
    assert engine.in_step == (size > 1)


def test_of_a_shared_engine_each_process_gets_its_own_completions(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = [[Request(prompt_ids=(1,) * (1 + rank), seed=n) for n in range(2 + rank)] for rank in range(2)]
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "gather", lambda own: shares)
    for rank, own in enumerate(shares):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        done = list(engine_of(tensor_parallel_size=2).generate(own, SamplingParams(max_tokens=1)))
        assert sorted(index for index, _ in done) == list(range(len(own)))


def test_a_second_engine_beside_the_policys_is_refused_in_several_processes(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: 0)
    with pytest.raises(EngineError, match="give the judge its endpoint"):
        engine_of(sleeps=False)


@pytest.mark.parametrize(
    ("changed", "numbers"),
    [
        # 2 (keys and values) * 3 layers * 2 heads * 16 wide * (1 + 4 rows * 2 blocks) * 128 tokens
        ({}, 2 * 3 * 2 * 16 * 9 * 128),
        ({"head_dim": 32}, 2 * 3 * 2 * 32 * 9 * 128),
        ({"num_key_value_heads": None}, 2 * 3 * 4 * 16 * 9 * 128),
    ],
)
def test_the_cache_on_a_cpu_is_no_larger_than_a_full_batch_fills(
    changed: Mapping[str, object], numbers: int, tmp_path: Path
) -> None:
    shape = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 3}
    LlamaConfig(**shape | changed).save_pretrained(tmp_path)
    asked = {"model": str(tmp_path), "max_model_len": 160, "max_num_seqs": 4}
    assert most_cache(dtype="float32", **asked) == 4 * numbers
    assert most_cache(dtype="bfloat16", **asked, seed=0) == 2 * numbers


@pytest.mark.parametrize("config", [Gemma2Config(), MambaConfig()])
def test_a_model_whose_cache_is_not_plain_gets_what_the_config_says(config: PretrainedConfig, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    assert most_cache(model=str(tmp_path), dtype="float32", max_model_len=8192, max_num_seqs=4) == math.inf
