"""Engines sample completions: vLLM in process, vLLM servers, or the transformers model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from reasoner.config.by_name import check_options
from reasoner.config.errors import ConfigError
from reasoner.engine.base import Engine, EngineError, Finished, NoEngine
from verifiers.options import option_fault
from verifiers.registry import load_attribute
from verifiers.suggest import did_you_mean

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

ENGINES: Mapping[str, str] = {
    "vllm": "reasoner.engine.vllm:VllmEngine",
    "vllm-server": "reasoner.engine.server:ServerEngine",
    "hf": "reasoner.engine.hf:HfEngine",
}
SHARED = ("model_path", "dtype", "max_model_len", "seed", "model")
"""What every engine is given; the rest of its arguments are its options."""


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
        name: "vllm", "vllm-server" or "hf".
        model_path: model folder or hub name; the tokenizer is read from there too.
        dtype: "float32" or "bfloat16".
        max_model_len: tokens of prompt and completion together.
        seed: of the engine itself; each request brings its own.
        model: the trainer's live model, shared by the hf engine instead of a copy of its own.
        **options: the engine's own.
    Raises:
        ConfigError: no such engine or option.
        EngineError: it cannot start here; says what to install or change.
    """
    cls = engine_class(name, options)
    shared = {"model": model} if name == "hf" else {}
    return cls(model_path=model_path, dtype=dtype, max_model_len=max_model_len, seed=seed, **shared, **options)  # pyright: ignore[reportCallIssue]


def engine_class(name: str, options: Mapping[str, object]) -> type[Engine]:
    """The class of an engine, which takes these options; nothing is started.

    Raises:
        ConfigError: no such engine or option, or a value of another kind.
    """
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES)
        raise ConfigError("bad-value", f"no engine {name!r}.{hint} Known: {', '.join(ENGINES)}. Set engine.name.")
    cls = load_attribute(ENGINES[name])
    assert isinstance(cls, type), cls
    assert issubclass(cls, Engine), cls
    check_options(cls.__init__, options, f"engine.options: engine {name!r}", besides=SHARED)
    fault = option_fault(cls.__init__, options)
    if fault:
        raise ConfigError("bad-value", f"engine.options of engine {name!r}: {fault}.")
    return cls


__all__ = ["ENGINES", "Engine", "EngineError", "Finished", "NoEngine", "engine_class", "open_engine"]
