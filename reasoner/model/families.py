"""Differences between model families, keyed by `model_type` of their config. Imports no torch.

For a family in the table, tests compare every layout with transformers' own forward pass. A model of another family is
measured when it is loaded (`measured.py`): it passes, or is refused by name.

Mixtures of experts work in every layout: a token's experts depend only on the token, and experts have no token limit,
so neither padding nor other rows change a result. Their load-balancing loss (`router_aux_loss_coef`) is not
added: transformers adds it only with `output_router_logits`, which is off, and it would have to be weighed against the
advantages. If two experts score nearly the same for a token, trainer and engine may choose different ones; the
importance weights reflect that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

if TYPE_CHECKING:
    from transformers import PretrainedConfig


class Family(NamedTuple):
    """Properties of a model family. A string field names an entry of the model's config; "" if the family has none."""

    multiplier: str = ""
    """Config entry by which logits are multiplied."""
    divisor: str = ""
    """Config entry by which logits are divided."""
    cap: str = ""
    """Config entry with the soft cap of logits, applied last: cap * tanh(logits / cap)."""
    packs: bool = True
    """False if packed rows attend to each other, because the model counts positions without `position_ids`."""
    unpads: bool = True
    """False if the layers do not pass on to attention where the rows of a line without padding are."""


UNKNOWN = Family(multiplier="logit_scale", divisor="logits_scaling", cap="final_logit_softcapping")
"""Most common names, for a family that is not in the table. The measurement tells if they are complete."""
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
    """Return True if the model's family is in the table."""
    return config.model_type in FAMILIES


def family_of(config: PretrainedConfig) -> Family:
    """Return the table entry of a model's family, or UNKNOWN."""
    return FAMILIES.get(config.model_type, UNKNOWN)


class LogitTransform(NamedTuple):
    """Transform from the output layer's values to logits: cap * tanh(scale * x / cap); without cap: scale * x."""

    scale: float = 1.0
    cap: float | None = None


def logit_transform(config: PretrainedConfig | None) -> LogitTransform:
    """Return the logit transform of a model's config; the identity for None."""
    if config is None:
        return LogitTransform()
    multiplier, divisor, cap = (
        getattr(config, name, None) if name else None
        for name in (family_of(config).multiplier, family_of(config).divisor, family_of(config).cap)
    )
    return LogitTransform((multiplier or 1.0) / (divisor or 1.0), cap)


def attention_kinds(config: PretrainedConfig) -> set[str]:
    """Return the kinds of the model's layers, in transformers' terms: full_attention, sliding_attention, ..."""
    window = _window(config)
    return set(getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"])


def full_attention(config: PretrainedConfig, positions: int) -> bool:
    """Return True if every layer attends to all earlier tokens in sequences of up to `positions` tokens."""
    window = _window(config)
    short = window is not None and window < positions
    return attention_kinds(config) <= ({"full_attention"} if short else {"full_attention", "sliding_attention"})


def _window(config: PretrainedConfig) -> int | None:
    return getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None


class Experts(NamedTuple):
    """Number and size of the feed-forward networks in a layer."""

    number: int
    """Number of experts; 1: not a mixture."""
    size: int
    """Hidden units of each expert."""


def experts_of(config: Mapping[str, Any]) -> Experts:
    """Read the experts from the entries of a config.json; experts shared by all tokens are not counted."""
    number = next((int(config[name]) for name in EXPERTS if config.get(name)), 1)
    size = config.get("moe_intermediate_size") if number > 1 else None
    return Experts(number, int(size or config["intermediate_size"]))


def reward_architecture(config: PretrainedConfig) -> str | None:
    """Return the transformers class of this model with a `score` head; None if there is none."""
    from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    known = cast("Mapping[type, type]", KNOWN)
    return known[type(config)].__name__ if type(config) in known else None
