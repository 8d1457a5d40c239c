"""`judge-model`: a judge whose model runs in the trainer's own process, through transformers or vLLM.

With transformers the reply up to the level is given, and the model's probabilities of the levels are read from one
forward pass. There is no evidence and no reason, but an expected level for the cost of a prompt. With vLLM the
model writes the whole reply, constrained to its schema by guided decoding. Letters: V vocabulary.
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
from verifiers.judge.errors import BudgetSpent, JudgeFault
from verifiers.judge.prompts import PROMPT_VERSION
from verifiers.judge.verifier import MAX_CHARACTERS, ModelJudge, open_cache
from verifiers.verdict import JSON

FILES_OF_A_MODEL = ("*.json", "*.safetensors", "*.bin", "*.jinja", "*.model")


def prompt_text(turns: Sequence[Turn], tokenizer: PreTrainedTokenizerBase) -> str:
    """Render the chat up to the model's turn. Without a chat template the turns are joined by blank lines.

    A system message that the template refuses is put in front of the user's message.

    Raises:
        ModelError: the template refuses the chat even then.
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
    """Return the token ids of a prompt. Special tokens are added only without a chat template, which writes its own."""
    return list(tokenizer(text, add_special_tokens=not tokenizer.chat_template)["input_ids"])


def digest_of(path: str) -> str:
    """Return a digest of a model folder: names, sizes and modification times of its files. For a hub name, the name."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    files = sorted({file for pattern in FILES_OF_A_MODEL for file in folder.glob(pattern)})
    said = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def continuation(schema: Mapping[str, JSON]) -> tuple[str, str, list[int]]:
    """Split a reply whose last value is a choice: (text up to that value, its key, the possible values)."""
    properties: dict[str, Any] = dict(cast("Mapping[str, Any]", schema["properties"]))
    *before, key = properties
    said = "".join(f'"{name}": "", ' for name in before)
    return (
        f'{{{said}"{key}": ',
        key,
        [int(choice) for choice in properties[key]["enum"]],
    )


class ForwardBackend:
    """Backend that reads the probabilities of the choices from one forward pass per prompt."""

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
        """Answer each request in its own forward pass, so that probabilities do not depend on other requests."""
        with self._one_at_a_time:
            move(self._model, self._device)
            try:
                return [self._answer(request) for request in requests]
            finally:
                if self._device.type != "cpu":  # the trainer needs the memory
                    move(self._model, "cpu")

    def _answer(self, request: ChatRequest) -> Reply | JudgeFault:
        start, _, choices = continuation(request.schema)
        prompt = prompt_text(request.turns, self._tokenizer) + start
        written = [encoded(f"{prompt}{choice}", self._tokenizer) for choice in choices]
        shared = written[0][:-1]
        if any(ids[:-1] != shared for ids in written):
            return JudgeFault(
                f"{self.path}: its tokenizer does not encode {start[-12:]!r} plus a digit with the digit as last token"
            )
        if len(shared) >= self._limit:
            return JudgeFault(f"{len(shared)} tokens exceed the context of {self._limit} tokens of {self.path}")
        most = len(shared) + 1
        try:
            self._meter.reserve(most)
        except BudgetSpent as error:
            return error
        used = 0
        try:
            logprobs_V = self._next_logprobs(shared)
            used = len(shared)
        finally:
            self._meter.settle(most, prompt_tokens=used, completion_tokens=min(used, 1))
        logprobs = {str(choice): float(logprobs_V[ids[-1]]) for choice, ids in zip(choices, written, strict=True)}
        best = max(logprobs, key=lambda choice: (logprobs[choice], choice))
        tokens = (Token(start, {}), Token(best, logprobs), Token("}", {}))
        return Reply(f"{start}{best}}}", "stop", len(shared), 1, tokens)

    @torch.no_grad()
    def _next_logprobs(self, ids: Sequence[int]) -> Tensor:
        """Return [V] log-probabilities of the next token, in float32."""
        given = torch.tensor([list(ids)], device=self._device)
        logits = self._model(input_ids=given, use_cache=False, logits_to_keep=1).logits
        return logits[0, -1].float().log_softmax(-1).cpu()


class GuidedBackend:
    """Backend with vLLM in this process; each reply is constrained to its schema. Greedy at temperature 0."""

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
        limit, found = self._engine.max_model_len, dict[int, Reply | JudgeFault]()
        waiting: list[int] = []
        for at, (ids, request) in enumerate(rows):
            if len(ids) + request.max_tokens > limit:
                said = f"{len(ids)} + {request.max_tokens} tokens exceed the context of {limit} tokens"
                found[at] = JudgeFault(said)
            else:
                waiting.append(at)
        with self._one_at_a_time:
            while waiting:
                portion = [*itertools.takewhile(lambda at: self._meter.reserve_now(_most(rows[at])), waiting)]
                if not portion:
                    found |= {at: self._spent(_most(rows[at])) for at in waiting}
                    break
                found |= zip(portion, self._generated([rows[at] for at in portion]), strict=True)
                waiting = waiting[len(portion) :]
        return [found[at] for at in range(len(rows))]

    def _generated(self, rows: Sequence[tuple[list[int], ChatRequest]]) -> list[Reply]:
        """Replies to rows whose tokens were set aside; what they took is charged, the rest given back."""
        replies: list[Reply] = []
        try:
            replies = list(self._engine.generate_json(list(rows)))
        finally:
            for row, reply in itertools.zip_longest(rows, replies):
                used = (0, 0) if reply is None else (reply.prompt_tokens, reply.completion_tokens)
                self._meter.settle(_most(row), prompt_tokens=used[0], completion_tokens=used[1])
        return replies

    def _spent(self, most: int) -> BudgetSpent:
        try:
            self._meter.reserve(most)
        except BudgetSpent as error:
            return error
        raise AssertionError(f"a budget that has no room for {most} tokens let them be reserved")

    def close(self) -> None:
        """Free the engine's memory."""
        self._engine.close()


def _most(row: tuple[list[int], ChatRequest]) -> int:
    """Tokens that a call can take."""
    ids, request = row
    return len(ids) + request.max_tokens


class JudgeModel(ModelJudge):
    """Judge that grades completions on one question with a model in this process, in batches.

    Args:
        model: a folder or hub name.
        engine: "forward" (transformers; only the level, by its probability) or "vllm" (the whole reply, guided).
        dtype: dtype of the weights; auto is bfloat16 on CUDA and float32 on the CPU.
        engine_options: options of vLLM: kv_cache_gigabytes, gpu_memory_utilization, max_model_len.
        cache: SQLite file of replies; None: in the user's cache folder; "": in memory.
        token_budget: tokens that this process may use for this judge; None: no limit.
        options: options of every judge: scores, repeats, orders, temperature, max_tokens, max_characters, canary. With
            "forward" the default of scores is expectation, and there is no canary because the model writes no text.
    Raises:
        BadOption: `engine` is unknown, `token_budget` is below 1, or "forward" is combined with repeats or a
            temperature.
    """

    name = "judge-model"
    machine_options = frozenset(
        "model engine dtype engine_options cache token_budget repeats orders max_tokens".split()
    )
    grade_seconds = 300.0

    def __init__(
        self,
        *,
        model: str,
        engine: Literal["forward", "vllm"] = "forward",
        dtype: str = "auto",
        engine_options: dict[str, JSON] | None = None,
        cache: str | None = None,
        token_budget: int | None = None,
        scores: str | None = None,
        repeats: int = 1,
        orders: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        max_characters: int = MAX_CHARACTERS,
        canary: bool = True,
    ) -> None:
        if engine not in ("forward", "vllm"):
            raise BadOption(f"engine must be forward or vllm; got {engine!r}.")
        if engine == "forward" and (repeats > 1 or temperature):
            raise BadOption("engine forward samples nothing: remove repeats and temperature.")
        writes = engine == "vllm"
        super().__init__(
            scores=scores or ("level" if writes else "expectation"),
            repeats=repeats,
            orders=orders,
            temperature=temperature,
            max_tokens=max_tokens,
            max_characters=max_characters,
            canary=canary and writes,
        )
        self.checklists = writes
        if token_budget is not None and token_budget < 1:
            raise BadOption(f"token_budget must be >= 1; got {token_budget}. Leave it out for no limit.")
        place = default_cache() if cache is None else cache
        made = [model, engine, dtype, dict(engine_options or {}), place, token_budget]
        self._opened = json.dumps(made, sort_keys=True)
        self.version = f"{PROMPT_VERSION}:{model}"

    @property
    def asker(self) -> Asker:
        with _opening:
            return _open(self._opened)


_opening = threading.Lock()


@functools.cache
def _open(opened: str) -> Asker:
    """Open a judge. All judges with the same options in this process share one model in memory."""
    path, engine, dtype, options, cache, budget = json.loads(opened)
    meter = Meter(tokens=budget, prompt_price=0.0, completion_price=0.0)
    try:
        backend: Backend = (
            GuidedBackend(path, dtype=dtype, meter=meter, **options)
            if engine == "vllm"
            else ForwardBackend(path, dtype=dtype, meter=meter)
        )
    except ModelError as error:
        raise JudgeFault(f"judge-model: {error}") from error
    return Asker(backend, open_cache(cache), meter, attempts=1)
