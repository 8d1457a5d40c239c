"""The memory estimate, compared with real models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from reasoner.config.load import resolve
from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.model.load import load_model
from reasoner.policy.policy import Policy
from reasoner.preflight.dry_run import plan, print_plan
from reasoner.preflight.memory import GIB, PROCESS_BYTES, VLLM_BYTES, Split, StepTokens, estimate, memory_line, shape_of
from tests.unit.reasoner.policy.test_policy import make_batch

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_parameters_of_a_real_model(tied: bool, kv_heads: int | None, tmp_path: Path) -> None:
    scratch = ScratchConfig(hidden_size=128, layers=3, heads=4, kv_heads=kv_heads, tie_embeddings=tied)
    model, tokenizer = load_model(ModelSection(from_scratch=scratch), seed=0)
    real = sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for section in (ModelSection(from_scratch=scratch), ModelSection(path=str(tmp_path))):
        found = shape_of(section)
        assert found is not None
        assert found.parameters == pytest.approx(real, rel=0.01)  # norms and biases are left out


def test_adapters_of_a_real_model() -> None:
    from reasoner.model.lora import add_adapter

    raw = {"task": "gsm8k", "model": {"from_scratch": {"hidden_size": 128, "layers": 3}, "lora": {"rank": 4}}}
    stage = resolve(raw).stages[0]
    model, _ = load_model(stage.model, seed=0)
    assert stage.model.lora is not None
    add_adapter(model, stage.model.lora, seed=0)
    real = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    found = estimate(stage)
    assert found is not None
    assert found.parts["gradients"] == pytest.approx(4 * real, rel=0.01)
    assert found.parts["optimizer"] == pytest.approx(8 * real, rel=0.01)


def test_a_pass_in_bfloat16_keeps_copies_of_the_float32_weights() -> None:
    model = {"from_scratch": {"hidden_size": 128, "layers": 3, "heads": 4}, "dtype": "bfloat16"}
    stage = resolve({"task": "gsm8k", "model": model}).stages[0]
    policy = Policy(stage, accelerator=Accelerator(cpu=True))
    matrices = {tuple(sorted(weight.shape)) for weight in policy.model.parameters() if weight.ndim == 2}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.bfloat16 and tuple(sorted(tensor.shape)) in matrices:
            kept[tensor.untyped_storage().data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        policy.trainer_logprobs(make_batch(stage, rows=4, group=4))
    found = estimate(stage)
    assert found is not None
    assert found.parts["weights in 16 bits"] == pytest.approx(sum(kept.values()), rel=0.02)


def test_size_in_a_name_and_unknown_sizes() -> None:
    assert [shape_of(ModelSection(path=name)) for name in ("org/no-size", "gpt2")] == [None, None]
    found = shape_of(ModelSection(path="Qwen/Qwen2.5-0.5B-Instruct"))
    assert found is not None
    assert found.parameters == 0.5e9
    stage = resolve({"task": "gsm8k", "model": "org/no-size"}).stages[0]
    assert memory_line(stage).startswith("memory: unknown")


def test_the_parts_by_hand() -> None:
    raw = {"task": "gsm8k", "algorithm": {"kl_coef": 0.1}, "batch": {"micro_tokens": 1000, "logit_megabytes": 10}}

    def parts(*, on_gpu: bool = True, **model: object) -> dict[str, float]:
        found = estimate(resolve(raw | {"model": {"path": "x/Y-7B", **model}}).stages[0], on_gpu=on_gpu)
        assert found is not None
        assert (found.shape.layers, found.shape.hidden) == (43, 85 * 43)  # (7e9 / (12 * 85^2))^(1/3) is 43.2
        return dict(found.parts)

    size, hidden, logits = 7e9, 3655, 3 * 10 * 2**20
    layer = 2 * 1000 * (8 + 2 + 4 * 8 / 3) * hidden
    whole = {
        "weights": 4 * size,
        "optimizer": 8 * size,
        "gradients": 4 * size,
        "activations": 43 * layer,
        "logits": logits,
        "weights in 16 bits": 2 * size,
        "reference model": 2 * size,
        "engine weights": 2 * size,
    }
    assert parts() == pytest.approx(whole)
    again = {**whole, "activations": 2 * 1000 * hidden * 43 + layer}
    assert parts(gradient_checkpointing=True) == pytest.approx(again)
    adapters = 16 * 22 * hidden * 43
    layer_of_lora = 2 * 1000 * ((6 + 2 + 4 * 8 / 3) * hidden + 7 * 16)
    lora = {
        "weights": 2 * size + 4 * adapters,
        "optimizer": 8 * adapters,
        "gradients": 4 * adapters,
        "activations": 43 * layer_of_lora,
        "logits": logits,
        "engine weights": 2 * size,
    }
    assert parts(lora={"rank": 16}) == pytest.approx(lora)
    in_4_bits = {**lora, "weights": 4.127 / 8 * size + 4 * adapters}
    assert parts(lora={"rank": 16}, quantization="nf4") == pytest.approx(in_4_bits)
    on_cpu = {
        **{name: value for name, value in whole.items() if name != "weights in 16 bits"},
        "process": PROCESS_BYTES,
        "activations": 2 * 43 * layer,
        "reference model": 4 * size,
        "engine weights": 4 * size,
        "KV cache": 2**30,
        "engine process": VLLM_BYTES,
    }
    assert parts(on_gpu=False) == pytest.approx(on_cpu)


@pytest.mark.parametrize(
    ("name", "on_gpu", "a_parameter"),
    [("adamw", True, 8), ("adamw_8bit", True, 2.03), ("adamw_offload", True, 0), ("adamw_offload", False, 8)],
)
def test_an_optimizer_holds_its_state(name: str, on_gpu: bool, a_parameter: float) -> None:
    found = estimate(resolve({"task": "gsm8k", "model": "x/Y-7B", "optim": {"name": name}}).stages[0], on_gpu=on_gpu)
    assert found is not None
    assert found.parts.get("optimizer", 0) == pytest.approx(a_parameter * 7e9, rel=1e-3)


@pytest.mark.parametrize(
    "stage",
    [
        {"method": "reward_model", "preferences": {"train": "pairs.jsonl"}},
        {"method": "reward_model", "preferences": {"train": "pairs.jsonl"}, "task": "gsm8k"},
        {"method": "dpo", "preferences": {"train": "pairs.jsonl"}},
        {"method": "kto", "preferences": {"train": "rows.jsonl"}},
        {"method": "sft", "sft": {"data": "rows.jsonl"}},
        {"method": "sft", "task": "gsm8k", "eval": {"problems": 0}},
    ],
)
@pytest.mark.parametrize("on_gpu", [True, False])
def test_a_stage_that_samples_nothing_has_no_engine(stage: dict[str, object], on_gpu: bool) -> None:
    raw = {"model": "x/Y-7B", "algorithm": {"kl_coef": 0.1}, **stage}
    found = estimate(resolve(raw).stages[0], on_gpu=on_gpu)
    assert found is not None
    other = {"engine weights", "KV cache", "engine process", "reference model", "value model"}
    assert not other & found.parts.keys()
    assert ("logits" in found.parts) == (stage["method"] != "reward_model")
    assert "KV cache" not in memory_line(resolve(raw).stages[0], on_gpu=on_gpu)


@pytest.mark.parametrize(
    ("positions", "options", "cache"),
    [
        (128, {}, 2 * 3 * 32 * 4 * 256 * 128),  # keys and values, layers, width of 2 of 4 heads, float32, rows, tokens
        (128, {"max_batch": 8}, 2 * 3 * 32 * 4 * 8 * 128),
        (128, {"kv_cache_gigabytes": 0.001}, 0.001 * 2**30),
        (8192, {}, 2**30),
    ],
)
def test_the_cache_of_a_small_model_on_a_cpu_is_that_of_its_largest_batch(
    positions: int, options: dict[str, object], cache: float
) -> None:
    shape = {"hidden_size": 64, "layers": 3, "heads": 4, "kv_heads": 2, "max_positions": positions}
    raw = {"task": "arithmetic", "model": {"from_scratch": shape}, "engine": {"name": "vllm", "options": options}}
    found = estimate(resolve(raw).stages[0], on_gpu=False)
    assert found is not None
    assert found.parts["KV cache"] == pytest.approx(cache)


def test_sft_that_evaluates_by_sampling_has_one() -> None:
    found = estimate(resolve({"method": "sft", "task": "gsm8k", "model": "x/Y-7B"}).stages[0])
    assert found is not None
    assert "engine weights" in found.parts


def test_a_value_model_of_its_own_is_trained_like_the_policy() -> None:
    raw = {"method": "ppo", "task": "gsm8k", "model": "x/Y-7B"}
    alone, shared = (estimate(resolve(raw | {"value": {"trunk": t}}).stages[0]) for t in ("separate", "shared"))
    assert alone is not None
    assert shared is not None
    assert alone.parts["value model"] == 16 * 7e9
    assert "value model" not in shared.parts
    assert alone.parts["activations"] == 2 * shared.parts["activations"]


@pytest.mark.parametrize("rank", [None, 8])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_activations_are_what_autograd_keeps(kv_heads: int | None, rank: int | None) -> None:
    scratch = {"hidden_size": 128, "layers": 4, "heads": 4, "kv_heads": kv_heads, "intermediate_size": 320}
    model = {"from_scratch": scratch, "dtype": "float32", "lora": rank and {"rank": rank}}
    stage = resolve({"task": "gsm8k", "model": model}).stages[0]
    policy = Policy(stage, accelerator=Accelerator(cpu=True))
    held = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}
    kept: dict[int, tuple[torch.Tensor, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    ids = torch.zeros(4, 64, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.model.get_decoder()(ids, attention_mask=torch.ones_like(ids), use_cache=False)
    found = estimate(stage, on_gpu=False, tokens=StepTokens(0, ids.numel()))
    assert found is not None
    assert found.parts["activations"] == pytest.approx(sum(size for _, size in kept.values()), rel=0.05)


def test_a_pass_is_no_larger_than_the_rows_of_a_step() -> None:
    stage = resolve({"task": "gsm8k", "model": "x/Y-7B", "batch": {"micro_tokens": 1000}}).stages[0]
    sizes: list[float] = []
    for step in (100, 1000, 5000):
        found = estimate(stage, tokens=StepTokens(40, step))
        assert found is not None
        sizes.append(found.parts["activations"])
    assert sizes == [sizes[1] / 10, sizes[1], sizes[1]]


def test_the_plan_says_how_much() -> None:
    stage = resolve({"task": "gsm8k", "model": {"path": "x/Y-7B"}, "batch": {"micro_tokens": 1000}}).stages[0]
    found = estimate(stage)
    assert found is not None
    total = found.total / 2**30
    (line,) = [line for line in plan(stage, card_bytes=80 << 30) if "7.0 billion" in line]
    assert f"on a GPU about {total:.1f} GiB and its KV cache (weights 26.1, optimizer 52.2," in line
    assert [line.partition("; ")[2][:8] for line in plan(stage) if "KV cache" in line] == [
        "on a CPU",
        "on a GPU",
    ]


def test_what_a_reference_costs_is_said_where_there_is_one() -> None:
    def first_line(method: str, **section: object) -> str:
        made = {"method": method, "model": "x/Y-7B", "preferences": {"train": "x.jsonl"}, method: section}
        return plan(resolve(made).stages[0])[0]

    assert first_line("dpo").startswith("100 steps of 32 pairs; before the first, one pass over all rows for their ref")
    assert first_line("dpo", loss="simpo") == (
        "100 steps of 32 pairs; simpo has no reference: none is computed or kept"
    )
    assert first_line("kto").startswith("100 steps of 64 labelled completions; before the first, one pass")
    assert first_line("reward_model") == "at most 100 steps of 32 pairs"


def test_a_later_stage_has_the_size_of_the_model_that_it_goes_on_with(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {"method": "dpo", "preferences": {"train": "pairs.jsonl"}}
    run = resolve({"task": "gsm8k", "stages": [{"method": "sft", "model": "x/Y-7B"}, pairs, {"model": "x/Z-3B"}]})
    print_plan(run, card_bytes=80 << 30)
    sizes = [line.split()[2] for line in capsys.readouterr().out.splitlines() if "billion parameters" in line]
    assert sizes == ["7.0", "7.0", "3.0"]


MODELS = {
    "Qwen2.5-7B": (3584, 28, 28, 4, 18944, 152064),
    "Qwen2.5-32B": (5120, 64, 40, 8, 27648, 152064),
    "Llama-3.3-70B": (8192, 80, 64, 8, 28672, 128256),
}
KEYS = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("intermediate_size", "vocab_size"),
)
SCALE = [line for line in (ROOT / "docs/scale.md").read_text().splitlines() if line[2:].split(" |")[0] in MODELS]


@pytest.mark.parametrize("line", SCALE)
def test_the_table_of_memory_per_process_is_the_estimate(line: str, tmp_path: Path) -> None:
    model, processes, devices, *figures = [cell.strip() for cell in line.strip("|").split("|")]
    config = dict(zip(KEYS, MODELS[model], strict=True)) | {"tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    raw = {
        "task": "gsm8k",
        "model": {"path": str(tmp_path), "gradient_checkpointing": True},
        "engine": {"name": "vllm", "options": {"tensor_parallel_size": int(devices)}},
    }
    found = estimate(resolve(raw).stages[0], split=Split(int(processes), sharded=True))
    assert found is not None
    parts = [
        *(found.parts[name] for name in ("weights", "optimizer", "gradients", "gathered layers")),
        found.parts["activations"] + found.parts["logits"],
        found.parts["engine weights"],
        found.total,
    ]
    assert [f"{part / GIB:.1f}" for part in parts] == figures


def test_copies_and_shards_of_several_processes() -> None:
    raw = {
        "task": "gsm8k",
        "model": {"from_scratch": {"hidden_size": 512, "layers": 8}, "dtype": "float32"},
        "engine": {"name": "vllm-server"},
        "algorithm": {"kl_coef": 0.1},
    }
    stage = resolve(raw).stages[0]
    alone, copies, shards = (
        estimate(stage, on_gpu=False, split=split) for split in (Split(), Split(4), Split(4, sharded=True))
    )
    assert alone is not None
    assert copies is not None
    assert shards is not None
    assert copies.parts == alone.parts | {"gradient buckets": alone.parts["gradients"]}
    for name in ("weights", "optimizer", "gradients", "reference model"):
        assert shards.parts[name] == alone.parts[name] / 4
    layer, ends = alone.shape.matrices / 8, alone.shape.parameters - alone.shape.matrices
    assert shards.parts["gathered layers"] == 4 * (2 * layer + ends) + 8 * max(layer, ends)
    assert {name: shards.parts[name] for name in ("activations", "logits")} == {
        name: alone.parts[name] for name in ("activations", "logits")
    }


@pytest.mark.parametrize("split", [Split(), Split(4), Split(4, sharded=True)])
def test_an_engine_that_samples_ahead_has_weights_and_a_cache_of_its_own_beside_the_update(split: Split) -> None:
    model = {"from_scratch": {"hidden_size": 512, "layers": 8}, "dtype": "float32"}
    raw = {"task": "gsm8k", "model": model, "engine": {"name": "hf"}, "rollout": {"max_tokens": 4096}}
    after, ahead, served = (
        estimate(resolve(raw | changed).stages[0], on_gpu=False, split=split)
        for changed in (
            {},
            {"rollout": {"max_tokens": 4096, "ahead": 1}},
            {"rollout": {"max_tokens": 4096, "ahead": 1}, "engine": {"name": "vllm-server"}},
        )
    )
    assert after is not None
    assert ahead is not None
    assert served is not None
    weights = {"engine weights": 4 * after.shape.parameters}
    assert "activations" not in after.parts, "the cache is larger"
    assert ahead.parts == served.parts | weights | {"KV cache": after.parts["KV cache"]}
    assert after.parts.get("engine weights", 0) == (weights["engine weights"] if split.sharded else 0)


def test_the_launched_processes_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = resolve({"task": "gsm8k", "model": "org/Model-7B"}).stages[0]
    assert "processes" not in memory_line(stage)
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert "on a GPU for each of 8 processes about" in memory_line(stage)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "on a GPU for each of 8 processes, which share one model about" in memory_line(stage)
