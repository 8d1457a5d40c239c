"""Engines sample completions: vLLM in process, vLLM servers, or the transformers model itself."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from reasoner.engine.base import Engine, EngineError, Finished, NoEngine

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

ENGINES: Mapping[str, str] = {
    "vllm": "reasoner.engine.vllm:VllmEngine",
    "vllm-server": "reasoner.engine.server:ServerEngine",
    "hf": "reasoner.engine.hf:HfEngine",
}


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
        EngineError: no such engine, or it cannot start here; says what to install or change.
    """
    if name not in ENGINES:
        close = difflib.get_close_matches(name, ENGINES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise EngineError(f"no engine {name!r}.{hint} Known: {', '.join(ENGINES)}.")
    from verifiers.registry import load_attribute

    cls = load_attribute(ENGINES[name])
    assert isinstance(cls, type), cls
    assert issubclass(cls, Engine), cls
    shared = {"model": model} if name == "hf" else {}
    try:
        return cls(model_path=model_path, dtype=dtype, max_model_len=max_model_len, seed=seed, **shared, **options)  # pyright: ignore[reportCallIssue]
    except TypeError as error:
        raise EngineError(f"engine {name!r}: {error}. Check engine.options.") from error


__all__ = ["ENGINES", "Engine", "EngineError", "Finished", "NoEngine", "open_engine"]
