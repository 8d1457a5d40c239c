"""`judge-model`: a judge whose model runs in the trainer's own process, through transformers or vLLM.

With transformers the reply is written for the model up to the level, and the model's probabilities of the levels are
read off in one forward pass: no evidence and no reason, but an expectation for the price of a prompt. With vLLM the
model writes the whole reply, held to its schema by guided decoding. Letters: V vocabulary.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.sections import ModelSection, PromptSection
from reasoner.data.prompt import chat_text, messages_of
from reasoner.engine.vllm import VllmEngine
from reasoner.model.load import compute_dtype, default_device, load_config_and_tokenizer, load_model, move
from reasoner.model.paths import ModelError
from tasks import Message, UnusableRow
from verifiers.errors import BadOption
from verifiers.judge.asker import Asker
from verifiers.judge.budget import Meter
from verifiers.judge.cache import default_cache
from verifiers.judge.chat import Backend, ChatRequest, Reply, Token, Turn
from verifiers.judge.errors import JudgeFault
from verifiers.judge.prompts import PROMPT_VERSION
from verifiers.judge.verifier import MAX_CHARACTERS, ModelJudge, open_cache
from verifiers.verdict import JSON

FILES_OF_A_MODEL = ("*.json", "*.safetensors", "*.bin", "*.jinja", "*.model")


def prompt_text(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> str:
    """The chat as the model reads it, up to its own turn; without a chat template the turns one under the other.

    A system message that the template refuses stands in front of the user's.

    Raises:
        ModelError: the template refuses the chat all the same.
    """
    if not tokenizer.chat_template:
        return "".join(f"{turn.content}\n\n" for turn in turns)
    messages = [Message(role=turn.role, content=turn.content) for turn in turns]
    try:
        return chat_text(messages, tokenizer, PromptSection(), reply_follows=True)
    except UnusableRow:
        folded = messages_of(messages, PromptSection(system_in="user"))
    try:
        return chat_text(folded, tokenizer, PromptSection(), reply_follows=True)
    except UnusableRow as error:
        raise ModelError(f"the judge's chat cannot be rendered: {error} Use another model as the judge.") from error


def encoded(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt; a chat template has written the special tokens already."""
    return list(tokenizer(text, add_special_tokens=not tokenizer.chat_template)["input_ids"])


def digest_of(path: str) -> str:
    """Which weights a folder holds: its files' names, sizes and times of change; of a hub name the name."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    files = sorted({file for pattern in FILES_OF_A_MODEL for file in folder.glob(pattern)})
    said = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def continuation(schema: Mapping[str, JSON]) -> tuple[str, str, list[int]]:
    """(the reply up to its last value, that value's key, what it may be), for a schema whose last value is a choice."""
    properties: dict[str, Any] = dict(cast("Mapping[str, Any]", schema["properties"]))
    *before, key = properties
    said = "".join(f'"{name}": "", ' for name in before)
    return (
        f'{{{said}"{key}": ',
        key,
        [int(choice) for choice in properties[key]["enum"]],
    )


class ForwardBackend:
    """Reads the probabilities of the choices off one forward pass a prompt."""

    def __init__(self, path: str, *, dtype: str, meter: Meter) -> None:
        self.path, self._meter = path, meter
        self._device = default_device()
        loaded = load_model(ModelSection(path=path), seed=0, weights_dtype=compute_dtype(dtype, self._device))
        self._model, self._tokenizer = loaded
        self._model.requires_grad_(False)
        self._limit = int(getattr(self._model.config, "max_position_embeddings", None) or 1 << 20)
        self._dtype = dtype
        self._digest = digest_of(path)
        self._one_at_a_time = threading.Lock()

    @property
    def identity(self) -> Mapping[str, JSON]:
        return {"weights": self._digest, "how": "forward", "dtype": self._dtype, "device": self._device.type}

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | JudgeFault]:
        """Each prompt is a pass of its own: its probabilities do not depend on what waits beside it."""
        with self._one_at_a_time:
            move(self._model, self._device)
            try:
                return [self._answer(request) for request in requests]
            finally:
                if self._device.type != "cpu":  # the trainer needs the room
                    move(self._model, "cpu")

    def _answer(self, request: ChatRequest) -> Reply | JudgeFault:
        start, _, choices = continuation(request.schema)
        prompt = prompt_text(request.turns, self._tokenizer) + start
        written = [encoded(f"{prompt}{choice}", self._tokenizer) for choice in choices]
        shared = written[0][:-1]
        if any(ids[:-1] != shared for ids in written):
            return JudgeFault(
                f"{self.path}: its tokenizer does not end {start[-12:]!r} and a digit with that digit alone"
            )
        if len(shared) >= self._limit:
            return JudgeFault(f"{len(shared)} tokens are over the context of {self._limit} of {self.path}")
        logprobs_V = self._next_logprobs(shared)
        logprobs = {str(choice): float(logprobs_V[ids[-1]]) for choice, ids in zip(choices, written, strict=True)}
        best = max(logprobs, key=lambda choice: (logprobs[choice], choice))
        self._meter.settle(0, prompt_tokens=len(shared), completion_tokens=1)
        tokens = (Token(start, {}), Token(best, logprobs), Token("}", {}))
        return Reply(f"{start}{best}}}", "stop", len(shared), 1, tokens)

    @torch.no_grad()
    def _next_logprobs(self, ids: Sequence[int]) -> Tensor:
        """[V] log-probabilities of the next token, in float32."""
        given = torch.tensor([list(ids)], device=self._device)
        logits = self._model(input_ids=given, use_cache=False, logits_to_keep=1).logits
        return logits[0, -1].float().log_softmax(-1).cpu()


class GuidedBackend:
    """vLLM in this process, each reply held to its schema. Greedy where the temperature is 0."""

    def __init__(self, path: str, *, dtype: str, meter: Meter, **options: Any) -> None:
        config, self._tokenizer = load_config_and_tokenizer(ModelSection(path=path))
        self._dtype = str(compute_dtype(dtype, default_device())).removeprefix("torch.")
        options = {"max_model_len": getattr(config, "max_position_embeddings", None) or 8192} | options
        self._engine = VllmEngine(model_path=path, dtype=self._dtype, sleeps=False, **options)
        self._meter, self._digest = meter, digest_of(path)
        self._one_at_a_time = threading.Lock()

    @property
    def identity(self) -> Mapping[str, JSON]:
        return {"weights": self._digest, "how": "guided", "dtype": self._dtype}

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | JudgeFault]:
        texts = [prompt_text(request.turns, self._tokenizer) for request in requests]
        rows = [(encoded(text, self._tokenizer), request) for text, request in zip(texts, requests, strict=True)]
        limit = self._engine.max_model_len
        fits = [len(ids) + request.max_tokens <= limit for ids, request in rows]
        with self._one_at_a_time:
            replies = iter(self._engine.generate_json(list(itertools.compress(rows, fits))))
        return [
            self._metered(next(replies))
            if fit
            else JudgeFault(f"{len(ids)} + {request.max_tokens} tokens are over the context of {limit}")
            for (ids, request), fit in zip(rows, fits, strict=True)
        ]

    def _metered(self, reply: Reply) -> Reply:
        self._meter.settle(0, prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        return reply

    def close(self) -> None:
        """Release the engine's memory."""
        self._engine.close()


class JudgeModel(ModelJudge):
    """The level that a model in this process gives a completion on one question, in batches.

    Args:
        model: a folder or hub name.
        engine: forward (transformers; the level alone, by its probability) or vllm (the whole reply, guided).
        dtype: of the weights; auto is bfloat16 on CUDA and float32 on the CPU.
        engine_options: of vLLM: kv_cache_gigabytes, gpu_memory_utilization, max_model_len.
        cache: SQLite file of replies; None: in the user's cache folder; "" : in memory.
        options: those of every judge: scores, repeats, temperature, max_tokens, max_characters, canary. With `forward`
            scores is expectation unless told otherwise, and no canary is laid: the model does not write.
    """

    name = "judge-model"
    machine_options = frozenset({"model", "engine", "dtype", "engine_options", "cache", "repeats", "max_tokens"})
    grade_seconds = 300.0

    def __init__(
        self,
        *,
        model: str,
        engine: Literal["forward", "vllm"] = "forward",
        dtype: str = "auto",
        engine_options: dict[str, JSON] | None = None,
        cache: str | None = None,
        scores: str | None = None,
        repeats: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        max_characters: int = MAX_CHARACTERS,
        canary: bool = True,
    ) -> None:
        if engine not in ("forward", "vllm"):
            raise BadOption(f"engine must be forward or vllm; got {engine!r}.")
        if engine == "forward" and (repeats > 1 or temperature):
            raise BadOption("engine forward samples nothing: leave out repeats and temperature.")
        writes = engine == "vllm"
        super().__init__(
            scores=scores or ("level" if writes else "expectation"),
            repeats=repeats,
            temperature=temperature,
            max_tokens=max_tokens,
            max_characters=max_characters,
            canary=canary and writes,
        )
        made = [model, engine, dtype, dict(engine_options or {}), default_cache() if cache is None else cache]
        self._opened = json.dumps(made, sort_keys=True)
        self.version = f"{PROMPT_VERSION}:{model}"

    @property
    def asker(self) -> Asker:
        with _opening:
            return _open(self._opened)


_opening = threading.Lock()


@functools.cache
def _open(opened: str) -> Asker:
    """One model in memory for all judges with the same options in this process."""
    path, engine, dtype, options, cache = json.loads(opened)
    meter = Meter(tokens=None, prompt_price=0.0, completion_price=0.0)
    try:
        backend: Backend = (
            GuidedBackend(path, dtype=dtype, meter=meter, **options)
            if engine == "vllm"
            else ForwardBackend(path, dtype=dtype, meter=meter)
        )
    except ModelError as error:
        raise JudgeFault(f"judge-model: {error}") from error
    return Asker(backend, open_cache(cache), meter, attempts=1)
