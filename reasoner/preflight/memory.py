"""Memory that training will take: an estimate from shapes, before anything is loaded."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, cast

from reasoner.config.estimators import traits_of
from reasoner.config.mappings import is_mapping
from reasoner.config.methods import METHODS
from reasoner.config.sections import ClusterSection, ModelSection, ScratchConfig
from reasoner.config.stage import StageConfig
from reasoner.model.families import Experts, experts_of
from verifiers.plain_yaml import read_yaml_file

SCRATCH_VOCABULARY = 259
"""256 bytes and three special tokens."""
GIB = 1 << 30
NF4_BYTES = 4.127 / 8
"""Bytes per parameter in NF4 with double quantization: arXiv:2305.14314, section 3."""
MOMENTS = {"adamw": 8.0, "adamw_8bit": 2 * (1 + 4 / 256), "adamw_offload": 8.0}
"""Bytes per parameter of AdamW's two moments; 8-bit ones have a float32 scale for every 256."""
PROCESS_BYTES = 600e6
"""Bytes of a process with torch and transformers and no model (measured: 590 MB)."""
VLLM_BYTES = 900e6
"""Bytes that vLLM adds to a process besides weights and cache (measured: 0.8 to 1.0 GB)."""
PROMPT_TOKENS = 256
"""Assumed length of a prompt if nothing is known about prompts."""


class Shape(NamedTuple):
    """Sizes of a model that determine its memory."""

    parameters: float
    hidden: int
    layers: int
    linear: float
    """Input plus output sizes over all linear layers: the parameters of an adapter of rank 1."""
    matrices: float
    """Parameters of the linear layers, which a 4-bit base stores in 4 bits."""
    feed_forward: float
    """Inner units of a token's feed-forward network, over all experts that process the token."""
    kv_share: float
    """Number of key-value heads divided by query heads."""
    vocabulary: int


class StepTokens(NamedTuple):
    """Tokens processed by the model in a step."""

    prompt: int
    """Length of the longest prompt that is sampled from; 0 if none is."""
    step: float
    """Tokens of all rows of the update."""


class Split(NamedTuple):
    """How the launched processes divide a run."""

    processes: int = 1
    sharded: bool = False
    """True if FSDP2 shards weights, gradients and optimizer over the processes."""

    @classmethod
    def of(cls, cluster: ClusterSection) -> Split:
        """Read what `accelerate launch` or torchrun has set for this process, or what `cluster` will start."""
        if "WORLD_SIZE" in os.environ:
            count = int(os.environ["WORLD_SIZE"])
            return cls(count, count > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true"))
        count, sharded = max(1, cluster.trainers), False
        if count > 1 and cluster.accelerate and (file := Path(cluster.accelerate)).is_file():
            found = read_yaml_file(file)
            sharded = is_mapping(found) and found.get("distributed_type") == "FSDP"
        return cls(count, sharded)


class Estimate(NamedTuple):
    """Estimated bytes by part, and the shape from which they follow."""

    shape: Shape
    parts: Mapping[str, float]
    """Bytes by part at the peak of the run."""

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return sum(self.parts.values())


def shape_of(section: ModelSection) -> Shape | None:
    """Return the shape from the config, a local folder's config.json, or the size in a hub name (`...-1.5B-...`).

    None if none of them gives it; nothing is downloaded.

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
    # a dense decoder has about 12 * layers * hidden^2 parameters; hidden = 85 * layers is common from 1 to 70 billion
    layers = max(1, round((parameters / (12 * 85**2)) ** (1 / 3)))
    hidden = 85 * layers
    return Shape(parameters, hidden, layers, 22.0 * hidden * layers, parameters, hidden * 8 / 3, 1.0, 128_000)


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
            per_token=cast("int", config.get("num_experts_per_tok") or 1),
            kv_share=cast("int", config.get("num_key_value_heads") or heads) / heads,
            vocabulary=cast("int", config["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", True)),
        )
    except KeyError:
        return None


def _of_sizes(
    *, hidden: int, layers: int, experts: Experts, kv_share: float, vocabulary: int, tied: bool, per_token: int = 1
) -> Shape:
    """Return the shape of a gated decoder, dense or a mixture of experts."""
    attention = hidden * hidden * (2 + 2 * kv_share)
    matrices = layers * (attention + 3 * hidden * experts.size * experts.number)
    parameters = matrices + vocabulary * hidden * (1 if tied else 2)
    linear = layers * (hidden * (6 + 2 * kv_share) + 3 * (hidden + experts.size) * experts.number)
    active = experts.size * min(experts.number, per_token)
    return Shape(parameters, hidden, layers, linear, matrices, active, kv_share, vocabulary)


def estimate(
    stage: StageConfig, *, on_gpu: bool = True, tokens: StepTokens | None = None, split: Split | None = None
) -> Estimate | None:
    """Estimate the bytes of a stage's process at its peak, including the engine; None if the model's size is unknown.

    Full training stores float32 weights, gradients and AdamW's two moments (16 bytes per parameter; 10 with 8-bit
    moments), and in 16 bits the copies of the weights that autocast makes and a pass keeps. With adapters the base is
    stored once in the compute dtype (or in 4 bits), and only the adapters are stored in this way. Of the update and the
    hf engine's cache only the larger counts, because they do not exist at the same time; with `rollout.ahead` both do,
    and the engine has a copy of the weights.

    Of several processes each has a copy of all, and DDP's buckets for gradients, unless they are sharded. Then weights,
    gradients, optimizer, value and reference model are divided by the number of processes, and a pass gathers layers:
    two in the compute dtype, with embedding and output layer, and the full gradient of the largest of them before it is
    reduced, in the compute dtype and in float32.

    Args:
        stage: the resolved stage.
        on_gpu: True: engine and reference have bfloat16 weights; False: everything is in float32, in the memory of the
            process.
        tokens: token counts of a step; None: a pass is as large as `batch` allows.
        split: the processes of the run; None: those that were launched, or that `cluster` starts.
    """
    split = split or Split.of(stage.cluster)
    shape = shape_of(stage.model)
    if shape is None:
        return None
    width = 2 if on_gpu and stage.model.dtype != "float32" else 4
    lora, method = stage.model.lora, METHODS[stage.method]
    trains = method.learns_from is not None
    trained = shape.parameters if lora is None else lora.rank * shape.linear
    base = width * shape.parameters - (width - NF4_BYTES) * shape.matrices * (stage.model.quantization is not None)
    moments = 0.0 if stage.optim.name == "adamw_offload" and on_gpu else MOMENTS[stage.optim.name]
    parts = {
        "process": 0 if on_gpu else PROCESS_BYTES,
        "weights": 4 * shape.parameters if lora is None else base + 4 * trained,
        "optimizer": moments * trained if trains else 0,
    }
    if lora is None and width == 2:
        parts["weights in 16 bits"] = width * shape.parameters
    if stage.needs_reference and lora is None:
        parts["reference model"] = width * shape.parameters
    if stage.has_teacher_model and (taught := shape_of(ModelSection(path=stage.teacher.path))) is not None:
        parts["teacher"] = width * taught.parameters
    if has_value_model(stage):
        parts["value model"] = (4 + 4 + moments) * trained
    update = _update(stage, shape, trained, width=width, on_gpu=on_gpu, tokens=tokens) if trains else {}
    cache: dict[str, float] = {}
    if stage.needs_engine and stage.engine.name == "vllm":
        parts |= _vllm(stage, shape, width, on_gpu=on_gpu)  # of several processes each has one, or a part of one
    elif stage.needs_engine and stage.engine.name == "hf":
        cache = {"KV cache": _hf_cache(stage, shape, width, tokens)}
        if split.sharded or stage.rollout.ahead:  # it cannot sample from shards, nor from weights that are changed
            parts["engine weights"] = width * shape.parameters
    parts |= update | cache if stage.rollout.ahead else max(update, cache, key=lambda part: sum(part.values()))
    parts = _divided(parts, shape, trained, split, width=width)
    return Estimate(shape, {name: value for name, value in parts.items() if value})


SHARDED = ("weights", "optimizer", "gradients", "reference model", "value model", "teacher")
"""Parts that sharding divides among the processes."""


def _divided(parts: dict[str, float], shape: Shape, trained: float, split: Split, *, width: int) -> dict[str, float]:
    """Return the parts of one process of several."""
    if split.processes == 1:
        return parts
    if not split.sharded:
        return parts | {"gradient buckets": 4 * trained if "gradients" in parts else 0}
    layer, ends = shape.matrices / shape.layers, shape.parameters - shape.matrices
    divided = {name: value / split.processes if name in SHARDED else value for name, value in parts.items()}
    divided.pop("weights in 16 bits", None)  # only the gathered layers exist in the compute dtype
    divided["gathered layers"] = width * (2 * layer + ends)
    if trained == shape.parameters:
        divided["gathered layers"] += (width + 4) * max(layer, ends)
    return divided


def has_value_model(stage: StageConfig) -> bool:
    """Return True if a stage trains a value model with its own trunk."""
    valued = "values" in traits_of(stage.algorithm.advantage).needs
    return METHODS[stage.method].learns_from == "rewards" and valued and stage.value.trunk == "separate"


def _update(
    stage: StageConfig, shape: Shape, trained: float, *, width: int, on_gpu: bool, tokens: StepTokens | None
) -> dict[str, float]:
    """Estimate gradients, the activations that a pass keeps for them, and logits (none for a reward model).

    Activations are what autograd saves of a layer in transformers' decoders with sdpa, counted by its own hooks: 8
    units of the hidden size per token (6 if norms are frozen), 2 for each share of keys and values, and 4 inner ones of
    the gated feed-forward network. Korthikanti et al., arXiv:2205.05198, section 4.1, count another decoder in this
    way.
    """
    device = "cuda" if on_gpu else "cpu"
    run = min(stage.batch.tokens_per_pass(device), tokens.step if tokens else math.inf)
    lora = stage.model.lora
    units = (8 if lora is None else 6) + 2 * shape.kv_share + 4 * shape.feed_forward / shape.hidden
    layer = width * run * (units * shape.hidden + (7 * lora.rank if lora else 0)) * (1 + has_value_model(stage))
    kept = width * run * shape.hidden * shape.layers + layer
    found = {
        "gradients": 4 * trained,
        "activations": kept if stage.model.gradient_checkpointing else layer * shape.layers,
    }
    if METHODS[stage.method].policy != "reward":
        logit_bytes = min(stage.batch.logit_bytes(device), 4.0 * run * shape.vocabulary)
        found["logits"] = 3.0 * logit_bytes
        if METHODS[stage.method].policy == "distribution":  # those of the teacher are in logit_bytes too
            found["logits"] *= 2
    return found


def _hf_cache(stage: StageConfig, shape: Shape, width: int, tokens: StepTokens | None) -> float:
    """Estimate the keys and values of the rows that the hf engine samples at once."""
    rollout, most = stage.rollout, cast("int", stage.engine.options.get("max_batch", 256))
    learned = rollout.problems_per_step * rollout.group_size if stage.samples_to_learn else 0
    rows = min(most, max(learned, stage.eval.problems * stage.eval.samples if stage.evaluates else 0))
    longest = (tokens.prompt if tokens else 0) or PROMPT_TOKENS
    longest += max(rollout.max_tokens, stage.eval_tokens)
    return rows * longest * shape.layers * 2 * shape.kv_share * shape.hidden * width


def _vllm(stage: StageConfig, shape: Shape, width: int, *, on_gpu: bool) -> dict[str, float]:
    """Estimate vLLM in this process. On a GPU its cache takes what it is given, and sleeps while the policy learns."""
    devices = cast("int", stage.engine.options.get("tensor_parallel_size", 1))
    found = {"engine weights": width * shape.parameters / devices}
    if not on_gpu:
        options, scratch = stage.engine.options, stage.model.from_scratch
        cache = float(cast("float", options.get("kv_cache_gigabytes", 1.0))) * GIB
        if scratch is not None:  # a full batch of its longest rows, if that is less
            tokens = cast("int", options.get("max_batch", 256)) * scratch.max_positions
            cache = min(cache, 2.0 * shape.layers * shape.kv_share * shape.hidden * width * tokens)
        found["KV cache"] = cache
        found["engine process"] = VLLM_BYTES
    return found


def memory_line(
    stage: StageConfig, *, on_gpu: bool = True, tokens: StepTokens | None = None, split: Split | None = None
) -> str:
    """Describe the estimate in a sentence; arguments as of `estimate`.

    Example:
        >>> from reasoner.config.load import resolve
        >>> print(memory_line(resolve({"task": "gsm8k", "model": "org/Model-1.5B"}).stages[0])[:46])
        about 1.5 billion parameters; on a GPU about 4
    """
    split = split or Split.of(stage.cluster)
    found = estimate(stage, on_gpu=on_gpu, tokens=tokens, split=split)
    if found is None:
        return "memory: unknown until the model is available (give a folder with config.json, or a name with its size)"
    size = found.shape.parameters
    named = f"{size / 1e9:.1f} billion" if size >= 1e8 else f"{size / 1e6:.1f} million"
    parts = ", ".join(f"{name} {value / GIB:.1f}" for name, value in found.parts.items())
    colocated = " and its KV cache" if on_gpu and stage.needs_engine and stage.engine.name == "vllm" else ""
    offloaded = ", optimizer on the host" if on_gpu and stage.optim.name == "adamw_offload" else ""
    several = f" for each of {split.processes} processes" if split.processes > 1 else ""
    several += ", which share one model" if split.sharded else ""
    place = f"on a {'GPU' if on_gpu else 'CPU'}{several}"
    return (
        f"about {named} parameters; {place} about {found.total / GIB:.1f} GiB{colocated}"
        f" ({parts}{offloaded}): an estimate, not measured"
    )
