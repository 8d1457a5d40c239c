"""Families of models: each row of the table against transformers' own forward pass, and families without a row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel

from reasoner.algorithm.batch import Batch
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import ModelSection
from reasoner.engine.base import EngineError
from reasoner.engine.hf import HfEngine
from reasoner.model.families import FAMILIES, Experts, experts_of, family_of, logit_transform, reward_architecture
from reasoner.model.forward import UNPADDED, Forward, allow_unpadded, hidden_states, takes_unpadded
from reasoner.model.internals import attention_of, checkpoint_names
from reasoner.model.load import byte_tokenizer, check_family, load_model
from reasoner.model.logprobs import logprobs_and_entropy, output_layer
from reasoner.model.measured import measure, packs
from reasoner.model.paths import ModelError
from reasoner.policy.layout import packed, padded, unpadded
from reasoner.policy.policy import Policy
from tests.unit.reasoner.policy.test_policy import EXPERTS, LATENT, SMALL, config_with, make_batch

SHAPES: dict[str, dict[str, object]] = {
    **{name: {"num_local_experts": 4, "num_experts_per_tok": 2} for name in ("mixtral", "granitemoe", "phimoe")},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": EXPERTS,
    "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 32},
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32},
    **dict.fromkeys(("deepseek_v2", "deepseek_v3"), LATENT),
    "glm4_moe": LATENT | EXPERTS | {"num_key_value_heads": 2},
}
NUMBERS = {"logits_scaling": 4.0, "final_logit_softcapping": 2.0, "logit_scale": 0.5}


def tiny(name: str, **more: object) -> PreTrainedModel:
    """Make a model of random weights whose logit scale and cap have a visible effect."""
    row, shape = FAMILIES.get(name), {**SMALL, **SHAPES.get(name, {}), **more}
    entries = [] if row is None else [row.multiplier, row.divisor, row.cap]
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **shape, **{entry: NUMBERS[entry] for entry in entries if entry})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def alone(model: PreTrainedModel, batch: Batch) -> Tensor:
    """[N] log-probabilities by transformers' own forward pass, row by row."""
    found = []
    for ids, prompt in zip(batch.input_ids, batch.prompt_lengths_B.tolist(), strict=True):
        logits = model(input_ids=ids[None], use_cache=False).logits[0, prompt - 1 : -1]
        found.append(logits.log_softmax(-1).gather(1, ids[prompt:, None])[:, 0])
    return torch.cat(found)


@torch.no_grad()
def ours(model: PreTrainedModel, forward: Forward) -> Tensor:
    hidden_ND = hidden_states(model.get_decoder(), forward, forward.flat_positions_N)
    return logprobs_and_entropy(
        hidden_ND, output_layer(model), forward.targets_N, temperature=1.0, config=model.config
    ).logprobs_N


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_row_says_what_the_family_does(name: str) -> None:
    model, batch = tiny(name), make_batch(config_with(), group=4)
    plain = alone(model, batch)
    assert plain.std() > 0.25
    allow_unpadded(model)
    assert takes_unpadded(model, 256) == family_of(model.config).unpads
    layouts = {"padded": padded(batch), "packed": packed(batch, 64), "unpadded": unpadded(batch)}
    right = {"padded": True, "packed": FAMILIES[name].packs, "unpadded": FAMILIES[name].unpads}
    for layout, forward in layouts.items():
        if layout != "unpadded" or right["unpadded"]:
            assert ((ours(model, forward) - plain).abs().max().item() < 1e-4) == right[layout], layout
            assert measure(model, layout).agrees == right[layout]
    hidden_ND = hidden_states(model.get_decoder(), padded(batch), padded(batch).flat_positions_N)
    bare_N = logprobs_and_entropy(hidden_ND, output_layer(model), padded(batch).targets_N, temperature=1.0).logprobs_N
    changes = logit_transform(model.config) != (1.0, None)
    assert ((bare_N - plain).abs().max().item() > 1e-2) == changes == any(family_of(model.config)[:3])


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_layers_that_are_sharded_and_recomputed_are_those_that_transformers_keeps_whole(name: str) -> None:
    modules = list(tiny(name).modules())
    wanted = {kept for module in modules for kept in getattr(module, "_no_split_modules", None) or ()}
    layers = {type(module).__name__ for module in modules if isinstance(module, GradientCheckpointingLayer)}
    assert layers == wanted & {type(module).__name__ for module in modules} != set()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_weights_under_the_names_of_checkpoints_are_those_that_are_saved(name: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = tiny(name)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    found = dict(checkpoint_names(model.config, model.state_dict().items()))
    assert found.keys() - tied == saved.keys() - tied
    assert all(torch.equal(found[key], saved[key]) for key in saved)


def test_what_a_config_says_of_experts_and_of_a_reward_head() -> None:
    for name in sorted(FAMILIES):
        config = tiny(name).config
        if "intermediate_size" in config.to_dict():
            mixture = name in SHAPES
            size = config.to_dict().get("moe_intermediate_size") or config.intermediate_size
            assert experts_of(config.to_dict()) == Experts(4 if mixture else 1, size if mixture else 64)
    assert reward_architecture(Qwen2Config()) == "Qwen2ForSequenceClassification"
    assert reward_architecture(AutoConfig.for_model("olmoe")) is None


# ----------------------------------------------------------------------------------------- families without a row


class StrangeConfig(Qwen2Config):
    model_type = "strange"
    factor: float = 1.0
    """Multiplier of the logits, under an unknown name."""
    remembers: bool = False
    """True if hidden states are means over all positions so far."""


class Strange(Qwen2ForCausalLM):
    config_class = StrangeConfig

    def __init__(self, config: StrangeConfig) -> None:
        super().__init__(config)
        if config.remembers:
            self.model.norm.register_forward_hook(
                lambda _, __, hidden: hidden.cumsum(1) / torch.arange(1, hidden.shape[1] + 1)[None, :, None]
            )

    def forward(self, *given, **named):
        output = super().forward(*given, **named)
        output.logits = output.logits * self.config.factor
        return output


def strange(**more: object) -> Strange:
    torch.manual_seed(0)
    shape = {name: SMALL[name] for name in SMALL if name != "head_dim"}
    model = Strange(StrangeConfig(**{**shape, "eos_token_id": 258, "attn_implementation": "sdpa", **more})).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    allow_unpadded(model)
    return model


def test_a_family_without_a_row_passes_where_it_is_plain() -> None:
    model = strange()
    check_family(model)
    assert attention_of(model) == UNPADDED
    assert packs(model)


def test_a_family_without_a_row_is_refused_by_name_where_its_logits_are_others() -> None:
    with pytest.raises(ModelError, match=r"family 'strange' are not known here, .* differ from transformers' own by"):
        check_family(strange(factor=3.0))
    with pytest.raises(ModelError, match=r"add this one to reasoner/model/families.py"):
        check_family(strange(factor=0.9))


def test_a_family_whose_rows_run_into_each_other_is_padded(tmp_path: Path) -> None:
    model = tiny("minimax", **EXPERTS)  # every second layer is a recurrence
    allow_unpadded(model)
    assert attention_of(model) == UNPADDED
    check_family(model)
    assert attention_of(model) == "sdpa"
    model.save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    raw = {"task": "arithmetic", "model": {"path": str(tmp_path), "dtype": "float32"}, "rollout": {"max_tokens": 40}}
    policy = Policy(resolve(raw).stages[0], accelerator=Accelerator(cpu=True))
    assert policy.layout(make_batch(config_with(), group=4, longest_prompt=80)).spread is None
    packing = resolve({**raw, "batch": {"layout": "packed"}}).stages[0]
    with pytest.raises(ConfigError, match=r"batch.layout must be padded for MiniMaxForCausalLM: .* got packed"):
        Policy(packing, accelerator=Accelerator(cpu=True))


def test_the_hf_engine_refuses_a_family_that_remembers_more_than_keys_and_values(tmp_path: Path) -> None:
    byte_tokenizer().save_pretrained(tmp_path)
    HfEngine(model_path=str(tmp_path), max_model_len=64, model=strange())
    with pytest.raises(EngineError, match=r"cannot sample models of the family 'strange' correctly"):
        HfEngine(model_path=str(tmp_path), max_model_len=64, model=strange(remembers=True))


def test_a_known_family_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("reasoner.model.load.measure", never)
    tiny("qwen2").save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    assert load_model(ModelSection(path=str(tmp_path)), seed=0).model.config.model_type == "qwen2"


def test_importing_registers_no_attention_and_loading_does() -> None:
    code = (
        "from transformers.modeling_utils import AttentionInterface\n"
        "import reasoner.policy.policy, reasoner.engine.hf\n"
        "from reasoner.config.sections import ModelSection, ScratchConfig\n"
        "from reasoner.model.forward import UNPADDED\n"
        "assert UNPADDED not in AttentionInterface().valid_keys()\n"
        "shape = ScratchConfig(hidden_size=8, layers=1, heads=1, max_positions=16)\n"
        "for _ in range(2): reasoner.model.load.load_model(ModelSection(from_scratch=shape), seed=0)\n"
        "assert UNPADDED in AttentionInterface().valid_keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
