"""What differs between families of models, by `model_type` of their config. Imports no torch.

A family with a row was compared with transformers' own forward pass, in every layout, by the tests. One without a row
is measured where a model of it is loaded (`measured.py`): it passes, or is refused by name.

Mixtures of experts take every layout as they are: a token's experts depend on the token alone, no expert has a limit of
tokens, so neither padding nor the rows beside it change a result. Their load-balancing loss (`router_aux_loss_coef`)
is not added: transformers adds it only with `output_router_logits`, which is off, and the advantages would have to be
weighed against it. Where two experts are nearly equal for a token, trainer and engine may choose differently: the
importance weights see it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Family(NamedTuple):
    """A row of the table. A str is the name of an entry of the config; "" if the family has none."""

    multiplier: str = ""
    """What logits are multiplied by."""
    divisor: str = ""
    """What they are divided by."""
    cap: str = ""
    """The bound of logits after that: cap * tanh(logits / cap)."""
    packs: bool = True
    """False: rows end to end run into each other, because positions are counted without `position_ids`."""
    unpads: bool = True
    """False: layers do not hand on to attention where the rows of a line without padding lie."""


UNKNOWN = Family(multiplier="logit_scale", divisor="logits_scaling", cap="final_logit_softcapping")
"""The commonest names, for a family without a row; the measurement says whether they are all."""
FAMILIES: Mapping[str, Family] = {
    **dict.fromkeys(("llama", "mistral", "ministral", "qwen2", "qwen3", "phi3", "smollm3", "seed_oss"), Family()),
    **dict.fromkeys(("olmo2", "olmo3", "glm4", "exaone4", "ernie4_5", "gemma", "starcoder2"), Family()),
    **dict.fromkeys(("gpt2", "gpt_bigcode", "gpt_neox"), Family()),
    **dict.fromkeys(("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "ernie4_5_moe"), Family()),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "glm4_moe"), Family()),
    **dict.fromkeys(("gemma2", "gemma3_text"), Family(cap="final_logit_softcapping")),
    **dict.fromkeys(("cohere", "cohere2"), Family(multiplier="logit_scale")),
    **dict.fromkeys(("granite", "granitemoe"), Family(divisor="logits_scaling")),
    **dict.fromkeys(("nemotron", "stablelm"), Family(unpads=False)),
    "opt": Family(packs=False),
}
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def is_known(config: PretrainedConfig) -> bool:
    """Whether the family of a model has a row."""
    return config.model_type in FAMILIES


def family_of(config: PretrainedConfig) -> Family:
    """The row of a model's family, or that of all without one."""
    return FAMILIES.get(config.model_type, UNKNOWN)


class LogitTransform(NamedTuple):
    """How logits come out of the output layer's: cap * tanh(scale * x / cap); no cap: scale * x."""

    scale: float = 1.0
    cap: float | None = None


def logit_transform(config: PretrainedConfig | None) -> LogitTransform:
    """Of a model; none for None."""
    if config is None:
        return LogitTransform()
    multiplier, divisor, cap = (
        getattr(config, name, None) if name else None
        for name in (family_of(config).multiplier, family_of(config).divisor, family_of(config).cap)
    )
    return LogitTransform((multiplier or 1.0) / (divisor or 1.0), cap)


def attention_kinds(config: PretrainedConfig) -> set[str]:
    """Of a model's layers, in transformers' words: full_attention, sliding_attention, linear_attention, ..."""
    window = _window(config)
    return set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])


def full_attention(config: PretrainedConfig, positions: int) -> bool:
    """Whether every layer attends to everything before it, up to so many positions."""
    window = _window(config)
    short = window is not None and window < positions
    return attention_kinds(config) <= ({"full_attention"} if short else {"full_attention", "sliding_attention"})


def _window(config: PretrainedConfig) -> int | None:
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None


class Experts(NamedTuple):
    """The feed-forward networks of a layer."""

    number: int
    """1: not a mixture."""
    size: int
    """Hidden units of each."""


def experts_of(config: Mapping[str, Any]) -> Experts:
    """From the entries of a config.json; experts that every token uses are left out."""
    number = next((int(config[name]) for name in EXPERTS if config.get(name)), 1)
    size = config.get("moe_intermediate_size") if number > 1 else None
    return Experts(number, int(size or config["intermediate_size"]))


def reward_architecture(config: PretrainedConfig) -> str | None:
    """The class of transformers that holds this model with a `score` head; None where there is none."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    known = cast("Mapping[type, type]", KNOWN)
    return known[type(config)].__name__ if type(config) in known else None
