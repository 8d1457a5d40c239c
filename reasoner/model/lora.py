"""Low-rank adapters (arXiv:2106.09685) through peft, and the plain weights of a model that may carry them.

The adapters sit inside the transformers model itself, so everything that runs the model runs them. What leaves the
trainer (to an engine, to a plain model folder) is merged on the way: the trainer's own weights are never touched.

Used of peft beyond its documented interface (read in 0.17 to 0.21); no other module touches it:

- a layer's `_active_adapter`: peft's own `set_adapter` also decides which adapters are trained.
- names of parameters and modules: `.lora_A.NAME.` and so on for an adapter's, `.lora_dropout.`, and `.base_layer.` for
  what it lies on.

`tests/unit/test_private_names.py` says what to do where one of them is gone.
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
"""peft's name of an adapter's weights."""


@contextmanager
def _making(seed: int) -> Iterator[None]:
    """With random numbers of its own, and without peft's warning that it adapts fused experts by another rank."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys", RuntimeWarning)
        torch.manual_seed(seed)
        yield


def add_adapter(model: PreTrainedModel, section: LoraConfig, *, seed: int, weights: Path | None = None) -> PeftModel:
    """Put an adapter into the model (in place) and freeze everything else.

    Args:
        model: the base model.
        section: rank, scale and targets.
        seed: of the random half of a new adapter (the other half is zero: a new adapter changes nothing).
        weights: a folder that `save_adapter` wrote.
    Raises:
        ModelError: the targets name no layer of this model, or the folder holds another adapter.
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
    """Whether an adapter lies on the input embedding or the output layer, which are one matrix in many models."""
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    names = [name for name, module in model.named_modules() if id(module) in ends]
    targets = [] if isinstance(section.targets, str) else section.targets
    return any(name == target or name.endswith(f".{target}") for name in names for target in targets)


def _untie(model: PreTrainedModel) -> None:
    """Give the output layer a matrix of its own: an adapter changes one of the two, and a tied model has one."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    weight = embedding.get_parameter("weight")
    if isinstance(head, nn.Module) and head.get_parameter("weight") is weight:
        head.register_parameter("weight", nn.Parameter(weight.detach().clone(), requires_grad=False))
    model.config.tie_word_embeddings = False
    model.config.get_text_config().tie_word_embeddings = False


def another_adapter(adapted: PeftModel, name: str, *, seed: int) -> None:
    """Put a further adapter of the same shape beside the policy's, to be trained with it; the policy's stays active."""
    config = copy.deepcopy(adapted.peft_config[ADAPTER])
    with _making(seed):
        adapted.add_adapter(name, config)
    for parameter_name, parameter in adapted.named_parameters():
        if is_adapter(parameter_name):
            parameter.requires_grad_(True)
    adapted.eval()


def is_adapter(name: str, adapter: str | None = None) -> bool:
    """Whether a parameter belongs to an adapter, or to the one of this name."""
    return ".lora_" in name and (adapter is None or adapter in name.split("."))


def plain_name(name: str) -> str:
    """The name of a parameter in the model without adapters."""
    return name.replace(".base_layer", "")


def dropout_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that drop an adapter's inputs in training."""
    return [module for name, module in model.named_modules() if ".lora_dropout." in name]


_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
"""By model, and gone with it. A lock on the model itself would be copied and saved with it."""


def exclusive(model: nn.Module) -> threading.RLock:
    """The lock of a model whose adapters are switched: one thread runs it at a time."""
    return _LOCKS.setdefault(model, threading.RLock())


def fingerprint(model: PreTrainedModel) -> str:
    """Of the base under the adapters: names, shapes and the first numbers of each tensor."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        if not is_adapter(name):
            first = tensor.detach().reshape(-1)[:64].float().cpu().numpy().tobytes()
            digest.update(f"{plain_name(name)} {tuple(tensor.shape)} ".encode() + first)
    return digest.hexdigest()


@contextmanager
def using_adapter(adapted: PeftModel, name: str) -> Iterator[None]:
    """One adapter active instead of the policy's, in every layer and for this thread alone; what is trained stays so.

    A backward pass that recomputes layers must run inside as well.
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
    """Replace an adapter's weights by those of a folder.

    Raises:
        ValueError: the folder lacks a tensor of this adapter, or holds one that it does not have.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    given = load_file(folder / ADAPTER_FILE)
    held = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
    given = {key: spread_like(tensor, held[key]) if key in held else tensor for key, tensor in given.items()}
    found = set_peft_model_state_dict(adapted, given, adapter_name=name)
    missing = [key for key in found.missing_keys if is_adapter(key, name)]
    if missing or found.unexpected_keys:
        raise ValueError(f"{folder} holds another adapter: {[*missing, *found.unexpected_keys][:3]} differ.")


def adapter_weights(adapted: PeftModel, *, name: str = ADAPTER) -> Iterator[tuple[str, Tensor]]:
    """Names in the adapted model and whole tensors of one adapter; where sharded, every process must walk them."""
    for full_name, held in adapted.state_dict().items():
        if is_adapter(full_name, name):
            yield full_name, whole(held)


def save_adapter(adapted: PeftModel, weights: dict[str, Tensor], folder: Path, *, name: str = ADAPTER) -> None:
    """Write one adapter alone, of `adapter_weights`, as any peft reader takes it."""
    # the embeddings are never trained; "auto" would ask the hub whether they were
    adapted.save_pretrained(str(folder), selected_adapters=[name], save_embedding_layers=False, state_dict=weights)
    nested = folder / name
    if nested.is_dir():  # peft puts every adapter but "default" into a folder of its name
        for file in nested.iterdir():
            file.rename(folder / file.name)
        nested.rmdir()


def plain_weights(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Hugging Face names and tensors of the full model: adapters merged into copies, each tied tensor once.

    One merged copy lives at a time where the caller keeps none: memory grows by the largest matrix alone. Where the
    weights are sharded, every process must walk through them.
    """
    adapted: dict[str, Any] = {name: one for name, one in model.named_modules() if hasattr(one, "get_delta_weight")}
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
        for owner, one in adapted.items():  # experts that lie in one module are adapted one around the other
            if name.startswith(f"{owner}.base_layer.") and leaf == getattr(one, "parameter_name", "weight"):
                with torch.no_grad():
                    held = (held.float() + whole(one.get_delta_weight(ADAPTER)).float()).to(held.dtype)
        yield plain_name(name), held


def merge_checkpoint(adapter: Path, target: Path, *, dtype: str | None = None) -> None:
    """Write the plain model folder of a checkpoint's adapter: the base that its run was begun with, adapter merged.

    Args:
        adapter: the adapter's folder in the checkpoint.
        target: the folder to write.
        dtype: of the model; None: that of the base.
    Raises:
        ModelError: the folder lies outside a run, so that nothing names the base.
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
