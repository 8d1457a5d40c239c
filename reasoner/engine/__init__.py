"""Engines sample completions: vLLM in process, vLLM servers, or the transformers model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reasoner.config.by_name import check_options, named
from reasoner.config.errors import ConfigError
from reasoner.engine.base import Engine, EngineError, Finished, NoEngine
from reasoner.model.gguf import local_model
from verifiers.options import option_fault
from verifiers.registry import load_attribute

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

ENGINES: Mapping[str, str] = {
    "vllm": "reasoner.engine.vllm:VllmEngine",
    "vllm-server": "reasoner.engine.server:ServerEngine",
    "hf": "reasoner.engine.hf:HfEngine",
}
SHARED = ("model_path", "dtype", "max_model_len", "seed", "model")
"""Keyword arguments that every engine is built with (`model` only if `shares_model`); all others are its options."""


def open_engine(
    name: str,
    *,
    model_path: str,
    dtype: str = "float32",
    max_model_len: int,
    seed: int = 0,
    model: PreTrainedModel | None = None,
    **options: object,
) -> Engine:
    """Start an engine.

    Args:
        name: "vllm", "vllm-server", "hf", or `module:attribute` of the user's own class.
        model_path: model folder or hub name; the tokenizer is read from there too.
        dtype: "float32" or "bfloat16".
        max_model_len: most tokens of prompt and completion together.
        seed: seed of the engine itself; each request has its own seed.
        model: the trainer's live model, for an engine that shares it instead of loading a copy.
        **options: options of this engine.
    Raises:
        ConfigError: there is no such engine or option.
        EngineError: the engine cannot start here; the message says what to install or change.
    """
    cls = engine_class(name, options)
    shared = {"model_path": local_model(model_path), "dtype": dtype, "max_model_len": max_model_len, "seed": seed}
    return cls(**shared, **({"model": model} if cls.shares_model else {}), **options)


def engine_class(name: str, options: Mapping[str, object]) -> type[Engine]:
    """Find the class of an engine and check the options against its signature. Nothing is started.

    Raises:
        ConfigError: there is no such engine or option, or a value has the wrong type.
    """
    found: object = named(ENGINES, name, "engine")
    cls = load_attribute(found) if isinstance(found, str) else found
    if not (isinstance(cls, type) and issubclass(cls, Engine)):
        raise ConfigError("bad-value", f"engine.name must lead to a subclass of reasoner.engine.Engine; got {cls!r}.")
    check_options(cls.__init__, options, f"engine.options: engine {name!r}", besides=SHARED)
    fault = option_fault(cls.__init__, options)
    if fault:
        raise ConfigError("bad-value", f"engine.options of engine {name!r}: {fault}.")
    return cls


__all__ = ["ENGINES", "Engine", "EngineError", "Finished", "NoEngine", "engine_class", "open_engine"]
