"""Low-rank adapters (arXiv:2106.09685) through peft, and the plain weights of a model that may carry them.

The adapters are part of the transformers model itself, so any code that runs the model also runs them. Weights that
leave the trainer (to an engine or a model folder) are merged into copies; the trainer's own weights stay unchanged.

Private parts of peft used here (checked in versions 0.17 to 0.21); no other module touches any:

- a layer's `_active_adapter`: peft's own `set_adapter` also decides which adapters are trained.
- names of parameters and modules: `.lora_A.NAME.` etc. of an adapter, `.lora_dropout.`, and `.base_layer.` of the
  adapted layer.

`tests/unit/test_private_names.py` says what to do if one of them is missing.
"""

from __future__ import annotations

import copy
import hashlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from reasoner.config.load import load_config
from reasoner.config.sections import LoraConfig
from reasoner.model.load import compute_dtype, default_device, dtype_of, first_line, load_model
from reasoner.model.paths import ModelError
from reasoner.model.quantized import plain_weight, quantized_layers
from reasoner.model.save import DTYPES, write_model
from reasoner.model.sharding import spread_like, whole

if TYPE_CHECKING:
    from peft import PeftModel

ADAPTER = "default"
"""Name of the policy's adapter."""
ADAPTER_FILE = "adapter_model.safetensors"
"""peft's file name for an adapter's weights."""


@contextmanager
def _making(seed: int) -> Iterator[None]:
    """Isolate random numbers by a seed, and silence peft's warning that fused experts get another rank."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys", RuntimeWarning)
        torch.manual_seed(seed)
        yield


def add_adapter(model: PreTrainedModel, section: LoraConfig, *, seed: int, weights: Path | None = None) -> PeftModel:
    """Add an adapter to the model in place, and freeze all other weights.

    Args:
        model: the base model.
        section: rank, scale and targets.
        seed: seed of the random half of a new adapter. The other half is zero, so a new adapter changes no output.
        weights: folder written by `save_adapter`; None: a new adapter.
    Raises:
        ModelError: the targets match no layer of this model, or the folder contains an adapter that does not fit.
    """
    import peft

    config = peft.LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,  # pyright: ignore[reportArgumentType]  (peft takes any number)
        lora_dropout=section.dropout,
        target_modules=section.targets,
        task_type="CAUSAL_LM",
    )
    if _adapts_embedding(model, section):
        _untie(model)
    try:
        with _making(seed):
            adapted = peft.get_peft_model(model, config, adapter_name=ADAPTER)
        if weights is not None:
            load_adapter(adapted, weights)
    except (ValueError, RuntimeError, OSError, SafetensorError) as error:
        which = f"the adapter {weights}" if weights else "the adapter"
        raise ModelError(
            f"{which} does not fit the model: {first_line(error)} Check model.lora.targets and model.lora.rank.",
            path=weights,
        ) from error
    adapted.eval()
    return adapted


def _adapts_embedding(model: PreTrainedModel, section: LoraConfig) -> bool:
    """Return True if the adapter targets the input embedding or the output layer, which many models tie."""
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    names = [name for name, module in model.named_modules() if id(module) in ends]
    targets = [] if isinstance(section.targets, str) else section.targets
    return any(name == target or name.endswith(f".{target}") for name in names for target in targets)


def _untie(model: PreTrainedModel) -> None:
    """Give the output layer its own matrix: an adapter changes only one of the two tied layers."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    weight = embedding.get_parameter("weight")
    if isinstance(head, nn.Module) and head.get_parameter("weight") is weight:
        head.register_parameter("weight", nn.Parameter(weight.detach().clone(), requires_grad=False))
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False


def another_adapter(adapted: PeftModel, name: str, *, seed: int) -> None:
    """Add a second trainable adapter of the same shape next to the policy's, which stays active."""
    config = copy.deepcopy(adapted.peft_config[ADAPTER])
    with _making(seed):
        adapted.add_adapter(name, config)
    for parameter_name, parameter in adapted.named_parameters():
        if is_adapter(parameter_name):
            parameter.requires_grad_(True)
    adapted.eval()


def is_adapter(name: str, adapter: str | None = None) -> bool:
    """Return True if a parameter belongs to an adapter (to the adapter of that name, if given)."""
    return ".lora_" in name and (adapter is None or adapter in name.split("."))


def plain_name(name: str) -> str:
    """Return a parameter's name in the model without adapters."""
    return name.replace(".base_layer", "")


def dropout_modules(model: nn.Module) -> list[nn.Module]:
    """Return the dropout modules on the inputs of adapters."""
    return [module for name, module in model.named_modules() if ".lora_dropout." in name]


_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
"""Locks by model, removed with it. A lock stored in the model itself would be copied and saved with it."""


def exclusive(model: nn.Module) -> threading.RLock:
    """Return the model's lock. It must be acquired to run a model whose adapters are switched: one thread at a time."""
    return _LOCKS.setdefault(model, threading.RLock())


def fingerprint(model: PreTrainedModel) -> str:
    """Return a digest of the base model under the adapters: names, shapes and first 64 values of each tensor."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        if not is_adapter(name):
            first = tensor.detach().reshape(-1)[:64].float().cpu().numpy().tobytes()
            digest.update(f"{plain_name(name)} {tuple(tensor.shape)} ".encode() + first)
    return digest.hexdigest()


@contextmanager
def using_adapter(adapted: PeftModel, name: str) -> Iterator[None]:
    """Activate one adapter instead of the policy's within the block; which parameters are trained does not change.

    Other threads are locked out of the model meanwhile (`exclusive`).

    A backward pass that recomputes layers must run inside the block too.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
    with exclusive(adapted.get_base_model()):
        before = [layer._active_adapter for layer in layers]
        for layer in layers:
            layer._active_adapter = [name]
        try:
            yield
        finally:
            for layer, active in zip(layers, before, strict=True):
                layer._active_adapter = active


def load_adapter(adapted: PeftModel, folder: Path, *, name: str = ADAPTER) -> None:
    """Replace an adapter's weights by those in a folder.

    Raises:
        ValueError: the folder lacks a tensor of this adapter, or contains one that it does not have.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    given = load_file(folder / ADAPTER_FILE)
    held = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
    given = {key: spread_like(tensor, held[key]) if key in held else tensor for key, tensor in given.items()}
    found = set_peft_model_state_dict(adapted, given, adapter_name=name)
    missing = [key for key in found.missing_keys if is_adapter(key, name)]
    if missing or found.unexpected_keys:
        raise ValueError(f"{folder} contains another adapter: {[*missing, *found.unexpected_keys][:3]} differ.")


def adapter_weights(adapted: PeftModel, *, name: str = ADAPTER) -> Iterator[tuple[str, Tensor]]:
    """Yield names and full tensors of one adapter. If sharded, every process must iterate over all of them."""
    for full_name, held in adapted.state_dict().items():
        if is_adapter(full_name, name):
            yield full_name, whole(held)


def save_adapter(adapted: PeftModel, weights: dict[str, Tensor], folder: Path, *, name: str = ADAPTER) -> None:
    """Write the weights of one adapter (from `adapter_weights`) in peft's format."""
    # the embeddings are never trained; "auto" would ask the hub about them
    adapted.save_pretrained(str(folder), selected_adapters=[name], save_embedding_layers=False, state_dict=weights)
    nested = folder / name
    if nested.is_dir():  # peft writes every adapter except "default" into a folder of its own
        for file in nested.iterdir():
            file.rename(folder / file.name)
        nested.rmdir()


def peft_weights(adapted: PeftModel) -> Iterator[tuple[str, Tensor]]:
    """Yield the policy's adapter under the names of peft's files. If sharded, every process must iterate over all."""
    for name, tensor in adapter_weights(adapted):
        yield ".".join(part for part in name.split(".") if part != ADAPTER), tensor.detach()


def peft_config(adapted: PeftModel) -> dict[str, object]:
    """Return what an engine must know of the policy's adapter, as in peft's adapter_config.json."""
    config = adapted.peft_config[ADAPTER].to_dict()
    kept = ("r", "lora_alpha", "bias", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "target_parameters")
    targets = config["target_modules"]
    return {
        "peft_type": "LORA",
        "target_modules": targets if isinstance(targets, str) else sorted(targets or ()),
        **{name: config[name] for name in kept if name in config},
    }


def plain_weights(model: PreTrainedModel, *, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Yield Hugging Face names and tensors of the full model: adapters merged into copies, tied tensors once.

    With `merged=False` they are those of the base model under the adapters.

    Only one merged copy exists at a time if the caller keeps none, so memory grows only by the largest matrix. If the
    weights are sharded, every process must iterate over all of them.
    """
    adapted: dict[str, Any] = {}
    if merged:
        adapted = {name: one for name, one in model.named_modules() if hasattr(one, "get_delta_weight")}
    in_bits = quantized_layers(model)
    once = {name for name, _ in model.named_parameters()}
    again = {name for name, _ in model.named_parameters(remove_duplicate=False)} - once
    for name, held in model.state_dict().items():
        if name in again or is_adapter(name):
            continue
        layer, _, kind = name.partition(".weight")
        if layer in in_bits:
            if kind:  # scales and tables of the 4-bit weight
                continue
            held = plain_weight(in_bits[layer])
        tensor = whole(held)
        held, leaf = tensor.detach(), name.rpartition(".")[2]
        for owner, one in adapted.items():  # experts in one module have nested adapter layers
            if name.startswith(f"{owner}.base_layer.") and leaf == getattr(one, "parameter_name", "weight"):
                with torch.no_grad():
                    held = (held.float() + whole(one.get_delta_weight(ADAPTER)).float()).to(held.dtype)
        yield plain_name(name), held


def merge_checkpoint(adapter: Path, target: Path, *, dtype: str | None = None) -> None:
    """Write a checkpoint's adapter, merged into the base model of its run, as a plain model folder.

    Args:
        adapter: the adapter's folder in the checkpoint.
        target: the folder to write.
        dtype: dtype of the written model; None: that of the base.
    Raises:
        ModelError: the adapter does not lie in a run folder, so the base model is unknown.
    """
    written = adapter.parents[2] / "config.yaml" if len(adapter.parents) > 2 else adapter
    if written.name != "config.yaml" or not written.is_file():
        raise ModelError(f"{adapter} must lie in the checkpoints of a run, whose config.yaml names the base model.")
    stage = load_config(str(written)).stages[0]
    assert stage.model.lora is not None
    held = compute_dtype(stage.model.dtype, default_device()) if stage.model.quantization else torch.float32
    loaded = load_model(stage.model, seed=stage.seed, weights_dtype=held)
    add_adapter(loaded.model, stage.model.lora, seed=stage.seed, weights=adapter)
    wanted = dtype_of(stage.model) if dtype is None else DTYPES[dtype]
    write_model(loaded.model, loaded.tokenizer, dict(plain_weights(loaded.model)), target, wanted)
