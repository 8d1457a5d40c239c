"""Loading of models and tokenizers from the hub or a folder, and creation of small models from scratch."""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from accelerate import init_empty_weights
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.kept_prompt import read_kept_prompt
from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.model.families import is_known
from reasoner.model.forward import UNPADDED, allow_unpadded
from reasoner.model.gguf import local_model
from reasoner.model.internals import attention_of
from reasoner.model.measured import measure
from reasoner.model.paths import ModelError
from reasoner.model.quantized import bits_config, settle
from reasoner.model.save import stored_dtype
from reasoner.model.sharding import stored_tensors
from reasoner.model.soundness import weights_fault

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model"]
"""Files of a model on the hub that are read."""
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}\n"
    "{% else %}{{ message.content }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML; marks the assistant's tokens for supervised fine-tuning."""


class Loaded(NamedTuple):
    """A model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype for a config name; auto is bfloat16 on CUDA and float32 on the CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def load_model(section: ModelSection, *, seed: int, weights_dtype: torch.dtype = torch.float32) -> Loaded:
    """Load the model of a config section, without adapters, in evaluation mode (no dropout).

    Args:
        section: path or from_scratch, attention, quantization and tokenizer.
        seed: seed of randomly initialized weights.
        weights_dtype: dtype of the weights in memory.
    Raises:
        ModelError: path and from_scratch are both missing, or model or tokenizer cannot be loaded or are damaged.
    """
    if section.from_scratch is not None:
        return _from_scratch(section, seed, weights_dtype)
    if section.path is None:
        raise ModelError("model must have a path or from_scratch; got neither. Pass model=NAME_OR_FOLDER.")
    quantization = _quantization(section, weights_dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            local_model(section.path),
            dtype=weights_dtype,
            attn_implementation=section.attention,
            trust_remote_code=False,
            **quantization,
        )
    except (OSError, ValueError, ImportError, SafetensorError, pickle.UnpicklingError) as error:
        raise _no_such_model(section.path, error) from error
    if quantization:
        model = settle(model)
    check_weights(model, section.path)
    tokenizer = _tokenizer(section)
    _fit_embedding(model, tokenizer, section, seed)
    _own_memory(model)
    allow_unpadded(model)
    check_family(model)
    return Loaded(model.eval(), tokenizer)


class Empty(NamedTuple):
    """A model whose weights are read only once it is sharded, by `sharding.fill`."""

    loaded: Loaded
    stored: Mapping[str, Path]
    """File of each tensor."""


def load_empty(section: ModelSection, *, weights_dtype: torch.dtype) -> Empty | None:
    """Build a model whose weights take no memory yet: nothing writes to their pages before they are sharded.

    Returns:
        the model; None if it must be loaded as a whole: it is made from scratch, its files are not safetensors or have
        other names or shapes than its parameters, or it must be measured or enlarged first.
    """
    if section.path is None or section.from_scratch is not None:
        return None
    try:
        path = local_model(section.path)
        folder = Path(path) if Path(path).is_dir() else Path(snapshot_download(path, allow_patterns=MODEL_FILES))
        config, tokenizer = load_config_and_tokenizer(section.model_copy(update={"path": str(folder)}))
        stored = stored_tensors(folder)
    except (OSError, ValueError, SafetensorError):  # the whole load says what is wrong
        return None
    if not stored or not is_known(config) or section.quantization:
        return None
    with init_empty_weights(include_buffers=False):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=weights_dtype, attn_implementation=section.attention, trust_remote_code=False
        )
    model.tie_weights()
    if not _fits(model, stored):
        return None
    filled: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, held in module.named_parameters(recurse=False):
            if held not in filled:
                filled[held] = nn.Parameter(torch.empty(held.shape, dtype=weights_dtype))
            setattr(module, name, filled[held])
    with suppress(OSError, ValueError):
        model.generation_config = GenerationConfig.from_pretrained(folder)
    allow_unpadded(model)
    return Empty(Loaded(model.eval(), tokenizer), stored)


def _fits(model: PreTrainedModel, stored: Mapping[str, Path]) -> bool:
    """Return True if every parameter of a model is stored under its own name, in its shape."""
    shapes: dict[str, list[int]] = {}
    for file in set(stored.values()):
        with safe_open(file, framework="pt") as tensors:
            shapes |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118 (no mapping)
    return all(shapes.get(name) == list(held.shape) for name, held in model.named_parameters())


def check_filled(parameters: Mapping[str, Tensor], sizes: Sequence[Mapping[str, float]], path: str) -> None:
    """Check a model that each process filled with its own shards, as `check_weights` does a whole one.

    Args:
        parameters: by the names that `fill` was given.
        sizes: what `fill` returned, of every process.
        path: of the model, for the message.
    Raises:
        ModelError: a value is not finite, or a matrix is all zeros; the message names it.
    """
    for name, parameter in parameters.items():
        found = [one[name] for one in sizes]
        if not all(map(math.isfinite, found)):
            raise _damaged(f"{name} contains values that are not finite", path)
        if max(found) == 0 and parameter.ndim >= 2:
            raise _damaged(f"{name} contains only zeros", path)


def _damaged(fault: str, path: str) -> ModelError:
    return ModelError(
        f"model {path!r} is damaged: {fault}. Its file was cut or overwritten, or it was saved by a run that had"
        " diverged: fetch or export it again.",
        path=path,
    )


def dtype_of(section: ModelSection) -> torch.dtype:
    """Return the dtype in which a trained model of this config section is saved: that of its base's files."""
    if section.from_scratch is not None or section.path is None:
        return torch.float32
    path = local_model(section.path)
    try:
        return stored_dtype(path, AutoConfig.from_pretrained(path, trust_remote_code=False))
    except (OSError, ValueError):  # e.g. a folder with only an adapter has no model config
        return torch.float32


def _fit_embedding(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, section: ModelSection, seed: int
) -> None:
    """Enlarge the embedding if the tokenizer has more tokens than the embedding has rows.

    Raises:
        ModelError: the config does not allow enlarging it.
    """
    rows, tokens = model.get_input_embeddings().get_parameter("weight").shape[0], tokens_of(tokenizer)
    if tokens <= rows:
        return
    if not section.resize_embeddings or section.quantization:
        raise _too_many_tokens(section, tokens, rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.resize_token_embeddings(tokens)


def tokens_of(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the highest token id plus one."""
    added = cast("dict[int, object]", getattr(tokenizer, "added_tokens_decoder", {}))
    return max(len(tokenizer), max(added, default=-1) + 1)


def _too_many_tokens(section: ModelSection, tokens: int, rows: int) -> ModelError:
    return ModelError(
        f"the tokenizer {section.tokenizer or section.path!r} has {tokens} tokens, the embedding of {section.path!r}"
        f" only {rows} rows: the model cannot read the other tokens. Set model.tokenizer to one that fits, or"
        " model.resize_embeddings: true to enlarge the embedding (without quantization)."
    )


def check_weights(model: PreTrainedModel, path: str) -> None:
    """Check that a model's weights are not damaged.

    Raises:
        ModelError: some are not finite, or a matrix is all zeros; the message names it.
    """
    fault = weights_fault(model)
    if fault is not None:
        raise _damaged(fault, path)


def check_family(model: PreTrainedModel) -> None:
    """Check a model of a family that is not in `families.py` by measuring it; disable unpadded passes if necessary.

    Raises:
        ModelError: its log-probabilities differ from transformers' own forward pass.
    """
    if is_known(model.config):
        return
    found = measure(model, "padded")
    if not found.agrees:
        raise ModelError(
            f"models of the family {model.config.model_type!r} are not known here, and the trainer's log-probabilities"
            f" of this one differ from transformers' own by {found.gap:.2g} nats: its logits are not just the scaled"
            " and capped output layer of the last hidden states. Use a model of another family, or add this one to"
            " reasoner/model/families.py."
        )
    if attention_of(model) == UNPADDED and not measure(model, "unpadded").agrees:
        model.set_attn_implementation("sdpa")


def _own_memory(model: nn.Module) -> None:
    """Copy CPU weights out of the memory-mapped file if their address is not a multiple of 64 bytes.

    Matrix products of differently aligned tensors differ in their last bits, so a resumed run would diverge from an
    uninterrupted one.
    """
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % 64:
            parameter.data = parameter.data.clone()


def _quantization(section: ModelSection, dtype: torch.dtype) -> dict[str, object]:
    """Return the quantization arguments of from_pretrained; empty without quantization."""
    if section.quantization is None:
        return {}
    try:
        return {"quantization_config": bits_config(dtype)}
    except ImportError as error:
        raise ModelError(
            f"model.quantization={section.quantization} needs bitsandbytes, and {first_line(error)}"
            " Install it (pip install 'reasoner-rl[qlora]'), or remove model.quantization."
        ) from error


def own_code(error: Exception) -> str:
    """Return advice on a model that needs trust_remote_code; "" for any other error."""
    if "trust_remote_code" not in str(error):
        return ""
    return "it brings its own Python code, which is never run. Use a model of a family that transformers supports."


def _no_such_model(path: str, error: Exception) -> ModelError:
    if advice := own_code(error):
        return ModelError(f"model {path!r} must be one of transformers' own classes: {advice}", path=path)
    return ModelError(
        f"model {path!r} must be a Hugging Face causal model, by hub name or folder: "
        f"{first_line(error)} Check the name, your network, or give a folder with config.json.",
        path=path,
    )


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer with a padding token. For a model that we wrote, restore the chat template used in training.

    Raises:
        ModelError: there is no such tokenizer, or it has no end-of-sequence token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(local_model(path), trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        reason = own_code(error) or first_line(error)
        raise ModelError(
            f"tokenizer {path!r} cannot be loaded: {reason} Set model.tokenizer to one that fits.", path=path
        ) from error
    if tokenizer.eos_token_id is None:
        raise ModelError(f"tokenizer {path!r} must have an eos_token; it has none.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    kept = read_kept_prompt(path)
    if kept is not None and kept.template_replaced:  # the file's template is for programs without prompt sections
        tokenizer.chat_template = kept.own_template
    return tokenizer


def _tokenizer(section: ModelSection) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a config section, with its chat template."""
    path = section.tokenizer or section.path
    assert path is not None
    return _with_template(load_tokenizer(path), section)


def _with_template(tokenizer: PreTrainedTokenizerBase, section: ModelSection) -> PreTrainedTokenizerBase:
    """Set the tokenizer's chat template to the config's, if the config names one.

    Raises:
        ModelError: the file cannot be read.
    """
    if section.chat_template is not None:
        try:
            tokenizer.chat_template = Path(section.chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"model.chat_template={section.chat_template!r} cannot be read: {first_line(error)} Give the path of a"
                " file that contains a chat template."
            ) from error
    return tokenizer


def load_config_and_tokenizer(section: ModelSection) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Load config and tokenizer of a model, without its weights.

    Raises:
        ModelError: there is no such model or tokenizer, or the tokenizer has too many tokens for the embedding.
    """
    assert section.path is not None
    try:
        config = AutoConfig.from_pretrained(local_model(section.path), trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise _no_such_model(section.path, error) from error
    tokenizer = _tokenizer(section)
    rows = int(getattr(config.get_text_config(), "vocab_size", 0) or 1 << 40)
    if tokens_of(tokenizer) > rows:
        raise _too_many_tokens(section, tokens_of(tokenizer), rows)
    return config, tokenizer


def move(module: nn.Module, device: torch.device | str) -> None:
    """Move a module to a device (pyright does not accept a device in `to` of a transformers model)."""
    module.to(device)


def default_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def card_bytes() -> int | None:
    """Return the memory of the training device in bytes; None on a CPU."""
    device = default_device()
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def context_limit(config: PreTrainedConfig, section: ModelSection) -> int:
    """Return the context length: most tokens of prompt and completion together."""
    own = getattr(config, "max_position_embeddings", None) or 1 << 20
    return min(own, section.max_context) if section.max_context else own


def eos_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return all tokens that end a completion: the tokenizer's and the generation config's, sorted."""
    listed = _listed(model.generation_config.eos_token_id if model.generation_config else None)
    return tuple(sorted({cast("int", tokenizer.eos_token_id), *listed}))


def configured_ends(path: str, config: PreTrainedConfig) -> tuple[int, ...]:
    """Return eos_token_id from a model's generation config, or from its config if it has none."""
    try:
        return _listed(GenerationConfig.from_pretrained(local_model(path)).eos_token_id)
    except (OSError, ValueError):
        return _listed(getattr(config.get_text_config(), "eos_token_id", None))


def _listed(ids: int | list[int] | None) -> tuple[int, ...]:
    return tuple(map(int, ids if isinstance(ids, list) else [] if ids is None else [ids]))


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of 256 bytes and ChatML's three special tokens.

    It encodes any text, needs no training, and its vocabulary is small enough for a CPU.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend: Tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def scratch_config(shape: ScratchConfig, tokenizer: PreTrainedTokenizerBase) -> Qwen2Config:
    """Build the Qwen2 config of a model trained from scratch: the given sizes, with the tokenizer's vocabulary."""
    return Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size or 4 * shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads or shape.heads,
        max_position_embeddings=shape.max_positions,
        tie_word_embeddings=shape.tie_embeddings,
        eos_token_id=cast("int", tokenizer.eos_token_id),
        pad_token_id=cast("int", tokenizer.pad_token_id),
        bos_token_id=None,
    )


def _from_scratch(section: ModelSection, seed: int, weights_dtype: torch.dtype) -> Loaded:
    assert section.from_scratch is not None
    tokenizer = _tokenizer(section) if section.tokenizer else _with_template(byte_tokenizer(), section)
    config = scratch_config(section.from_scratch, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = AutoModelForCausalLM.from_config(
                config, attn_implementation=section.attention, trust_remote_code=False
            )
        except ImportError as error:
            raise ModelError(f"model.attention {section.attention!r} does not run here: {first_line(error)}") from error
    allow_unpadded(model)
    return Loaded(model.to(weights_dtype).eval(), tokenizer)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, ending with a full stop; without message, the error's type."""
    text = str(error).strip().splitlines()
    line = text[0].strip() if text else type(error).__name__
    return line if line.endswith((".", "!", "?")) else line + "."
