"""How much memory training will take, before anything is loaded: an estimate from shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.config.stage import StageConfig
from reasoner.model.families import Experts, experts_of

SCRATCH_VOCABULARY = 259
"""256 bytes and three marks."""
GIB = 1 << 30
NF4_BYTES = 4.127 / 8
"""A parameter in NF4 with double quantisation: arXiv:2305.14314, section 3."""


class Shape(NamedTuple):
    """What decides a model's memory."""

    parameters: float
    hidden: int
    layers: int
    linear: float
    """Input plus output sizes over all linear layers: what an adapter of rank 1 has as parameters."""
    matrices: float
    """Parameters of the linear layers: what a 4-bit base holds in 4 bits."""


class Estimate(NamedTuple):
    """Bytes by part, and the shape that they come from."""

    shape: Shape
    parts: Mapping[str, float]


def shape_of(section: ModelSection) -> Shape | None:
    """From the config's shape, a local folder's config.json, or the size in a hub name (`...-1.5B-...`).

    None where none of them says it: nothing is downloaded.

    Example:
        >>> round(shape_of(ModelSection(path="org/Model-7B-Instruct")).parameters / 1e9, 1)
        7.0
    """
    if section.from_scratch is not None:
        return _scratch(section.from_scratch)
    if section.path is None:
        return None
    file = Path(section.path) / "config.json"
    if file.is_file():
        return _of_json(cast("dict[str, object]", json.loads(file.read_text())))
    size = re.search(r"(\d+(?:\.\d+)?)\s*([bBmM])(?![a-zA-Z])", section.path)
    if size is None:
        return None
    parameters = float(size[1]) * (1e9 if size[2] in "bB" else 1e6)
    # a dense decoder holds about 12 * layers * hidden^2 with hidden = 85 * layers (common from 1 to 70 billion)
    layers = max(1, round((parameters / (12 * 85**2)) ** (1 / 3)))
    hidden = 85 * layers
    return Shape(parameters, hidden, layers, 22.0 * hidden * layers, parameters)


def _scratch(section: ScratchConfig) -> Shape:
    return _of_sizes(
        hidden=section.hidden_size,
        layers=section.layers,
        experts=Experts(1, section.intermediate_size or 4 * section.hidden_size),
        kv_share=(section.kv_heads or section.heads) / section.heads,
        vocabulary=SCRATCH_VOCABULARY,
        tied=section.tie_embeddings,
    )


def _of_json(config: Mapping[str, object]) -> Shape | None:
    try:
        hidden, heads = cast("int", config["hidden_size"]), cast("int", config["num_attention_heads"])
        return _of_sizes(
            hidden=hidden,
            layers=cast("int", config["num_hidden_layers"]),
            experts=experts_of(config),
            kv_share=cast("int", config.get("num_key_value_heads") or heads) / heads,
            vocabulary=cast("int", config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", True)),
        )
    except KeyError:
        return None


def _of_sizes(*, hidden: int, layers: int, experts: Experts, kv_share: float, vocabulary: int, tied: bool) -> Shape:
    """A gated decoder, dense or a mixture of experts."""
    attention = hidden * hidden * (2 + 2 * kv_share)
    matrices = layers * (attention + 3 * hidden * experts.size * experts.number)
    parameters = matrices + vocabulary * hidden * (1 if tied else 2)
    linear = layers * (hidden * (6 + 2 * kv_share) + 3 * (hidden + experts.size) * experts.number)
    return Shape(parameters, hidden, layers, linear, matrices)


def estimate(stage: StageConfig, *, on_gpu: bool = True) -> Estimate | None:
    """Bytes that a stage's trainer and colocated engine take; None where the model's size is unknown.

    Full training holds float32 weights, gradients and two Adam moments (16 bytes a parameter), and in 16 bits the
    copies of the weights that autocast makes and a pass keeps; with adapters the base is held once in the compute dtype
    (or in 4 bits) and only the adapters so. Activations: 34 bytes a token, layer and hidden unit in 16 bits
    (Korthikanti et al., arXiv:2205.05198, section 4.1, without the attention matrix, which sdpa never holds), or 2
    with gradient checkpointing plus one layer.

    Args:
        stage: the resolved stage.
        on_gpu: weights of the engine and the reference in bfloat16; otherwise everything in float32.
    """
    shape = shape_of(stage.model)
    if shape is None:
        return None
    width = 2 if on_gpu and stage.model.dtype != "float32" else 4
    lora = stage.model.lora
    trained = shape.parameters if lora is None else lora.rank * shape.linear
    base = width * shape.parameters - (width - NF4_BYTES) * shape.matrices * (stage.model.quantization is not None)
    device = "cuda" if on_gpu else "cpu"
    tokens = stage.batch.tokens_per_pass(device)
    layer = 17 * width * tokens * shape.hidden
    kept = width * tokens * shape.hidden * shape.layers + layer
    parts = {
        "weights": 4 * shape.parameters if lora is None else base + 4 * trained,
        "gradients and optimizer": 12 * trained,
        "activations": kept if stage.model.gradient_checkpointing else layer * shape.layers,
        "logits": 3.0 * stage.batch.logit_bytes(device),
    }
    if lora is None and width == 2:
        parts["weights in 16 bits"] = width * shape.parameters
    if stage.algorithm.kl_coef > 0 and lora is None:
        parts["reference model"] = width * shape.parameters
    if stage.engine.name == "vllm":
        parts["engine weights"] = width * shape.parameters
    return Estimate(shape, parts)


def memory_line(stage: StageConfig) -> str:
    """The estimate in a sentence.

    Example:
        >>> from reasoner.config.load import resolve
        >>> print(memory_line(resolve({"task": "gsm8k", "model": "org/Model-1.5B"}).stages[0])[:46])
        about 1.5 billion parameters; on a GPU about 4
    """
    found = estimate(stage)
    if found is None:
        return "memory: unknown before the model is there (give a folder with config.json, or a name with its size)"
    size = found.shape.parameters
    named = f"{size / 1e9:.1f} billion" if size >= 1e8 else f"{size / 1e6:.1f} million"
    parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in found.parts.items())
    total = sum(found.parts.values()) / GIB
    colocated = " and its KV cache" if stage.engine.name == "vllm" else ""
    return f"about {named} parameters; on a GPU about {total:.1f} GiB{colocated} ({parts}): an estimate, not measured"
