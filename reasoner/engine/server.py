"""vLLM servers: one or several, started here or given by URL. A request goes to the one with the fewest pending.

A server that dies or hangs is no longer used, and its unfinished requests are repeated on the others with their own
seeds. It returns at a later weight sync. New weights are written to files, in the engine's dtype; a server reads them
if it sees them, and fetches them over HTTP otherwise. Letters: T tokens.
"""

from __future__ import annotations

import heapq
import itertools
import os
import queue
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from reasoner import processes
from reasoner.config.tolerances import TOLERANCES
from reasoner.engine.base import (
    Adapter,
    Engine,
    EngineError,
    Finished,
    NamedTensors,
    among,
    check_requests,
    most_tokens,
    stop_strings,
)
from reasoner.engine.check import checksum
from reasoner.engine.delivery import AdapterRoom, Delivery
from reasoner.engine.fleet import Fleet
from reasoner.engine.gate import KEY_VARIABLE
from reasoner.engine.remote import (
    COMPLETIONS,
    Lost,
    OwnServer,
    PlacedServer,
    Refused,
    Server,
    prompt_logprobs,
    score_body,
)
from reasoner.engine.serve import engine_key
from reasoner.engine.weights import WeightStore
from reasoner.records import Completion, FinishReason, Request, SamplingParams, Segment, VersionSpan
from verifiers.one_writer import Held, WriterLock

GENERATE = "/inference/v1/generate"
"""vLLM's route whose answers say which weights sampled each token."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM 0.32 has room for (vllm/config/lora.py, MaxLoRARanks)."""

WEIGHTS_PREFIX, OWNER_FILE = "reasoner-weights-", "owner.lock"
"""Beginning of the name of a trainer's folder of weights, and the file in it that the trainer holds locked."""

MOST_STOPS = 4
"""Most stop strings of a request to /v1/completions, in OpenAI's interface and in vLLM's."""


class Seats:
    """Places for requests in flight. A free one goes to the waiting request of the lowest priority, then the oldest."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._waiting: list[tuple[int, int, threading.Event]] = []
        self._turns = itertools.count()

    @contextmanager
    def taken(self, priority: int) -> Iterator[None]:
        """Wait for a place, and hold it."""
        with self._lock:
            mine = None
            if self._free:
                self._free -= 1
            else:
                mine = threading.Event()
                heapq.heappush(self._waiting, (priority, next(self._turns), mine))
        if mine is not None:
            mine.wait()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    heapq.heappop(self._waiting)[-1].set()
                else:
                    self._free += 1


class Placed(Protocol):
    """Servers that somebody else places, starts and starts again, maybe at another address."""

    def ask(self, model: str, options: Sequence[str]) -> str:
        """Ask for servers of a model with these arguments of vLLM; return the mark that they will have."""
        ...

    def count(self, role: str) -> int:
        """Return their number."""
        ...

    def address(self, role: str, index: int, *, asked: str | None = None) -> str | None:
        """Return the present address of one; None: it is not up, or has another mark."""
        ...


class ServerEngine(Engine):
    """Engine that samples through OpenAI-compatible vLLM servers.

    Repeated requests give the same tokens only up to rounding in batched arithmetic: which requests are batched
    together depends on when they arrive.
    """

    runs_beside: ClassVar[bool] = True
    loads_beside: ClassVar[bool] = True
    pins: ClassVar[bool] = True

    def __init__(
        self,
        *,
        model_path: str,
        dtype: str = "float32",
        max_model_len: int,
        seed: int = 0,
        urls: Sequence[str] = (),
        servers: int = 1,
        devices: Sequence[str] = (),
        max_batch: int = 256,
        kv_cache_gigabytes: float = 1.0,
        gpu_memory_utilization: float = 0.85,
        arguments: Sequence[str] = (),
        weights: Literal["auto", "file", "pull"] = "auto",
        weights_folder: str = "/dev/shm",
        weights_host: str | None = None,
        weights_port: int = 0,
        lora: Literal["adapter", "merged"] = "adapter",
        lora_rank: int | None = None,
        spans: bool = False,
        pinned: int = 0,
        loads: bool = True,
        placed: Placed | None = None,
        key_variable: str = KEY_VARIABLE,
        key: str | None = None,
        ca_file: str | None = None,
        host: str = "127.0.0.1",
        health_seconds: float = 5.0,
        request_seconds: float = 1800.0,
        start_seconds: float = 600.0,
    ) -> None:
        """Start the servers, or connect to those given by `urls`.

        Args:
            model_path: model folder or hub name.
            dtype: dtype of the servers started here.
            max_model_len: most tokens of prompt and completion together.
            seed: seed of the servers started here.
            urls: servers that are already running (`python -m reasoner.engine.serve`), e.g. http://127.0.0.1:8000.
            servers: number of servers to start if no urls are given.
            devices: CUDA_VISIBLE_DEVICES of each started server, e.g. ["0", "1"]; empty: inherited from this process.
            max_batch: requests in flight per server.
            kv_cache_gigabytes: KV cache of each server on a CPU.
            gpu_memory_utilization: share of GPU memory for each server on a GPU.
            arguments: further command-line arguments for vLLM's server.
            weights: how new weights reach a server. "file": it reads the trainer's files; "pull": it fetches them over
                HTTP into its own memory while it goes on sampling; "auto": "file" if it sees the files, else "pull".
            weights_folder: folder for the files, in memory; a server that fetches them uses a folder of that name.
            weights_host: this machine's address for servers that fetch; None: that from which it reaches each server.
            weights_port: port at which servers fetch; 0: a free one.
            lora: what travels of a policy with LoRA. "adapter": the adapter alone, which vLLM applies, or merged
                weights where vLLM cannot; "merged": the whole model with the adapter merged into it. Merged is faster
                on a CPU; in bfloat16 it rounds away changes that are small beside the weight.
            lora_rank: rank of the policy's adapter; None: it has none. Set by the trainer.
            spans: ask for the version of each token, for completions that go on while weights are loaded. Set by the
                trainer.
            pinned: number of batches ahead whose requests name the version of their adapter; 0: all get the newest. Set
                by the trainer.
            loads: False if another process sends the servers their weights.
            placed: servers that `reasoner train cluster.samplers=N` starts. Set by the trainer.
            key_variable: environment variable with the servers' key, if it is not REASONER_ENGINE_KEY. Where it is not
                set, a key is drawn for the servers started here.
            key: the key itself, for further processes of this run; None: as `key_variable` says.
            ca_file: PEM certificates that sign those of https servers; None: those that this machine trusts.
            host: address that servers started here listen on. Other machines (further processes of this run) reach them
                only at another address than 127.0.0.1. Connections are not encrypted.
            health_seconds: seconds between health checks of each server, and the time for an answer. After three checks
                without one the server counts as lost; its requests go to the others.
            request_seconds: timeout of a request, in seconds; a server that exceeds it counts as lost.
            start_seconds: timeout for the start of a server, in seconds; exceeding it is an error.
        Raises:
            EngineError: a server could not be started or does not answer.
        """
        if devices and len(devices) != servers:
            raise EngineError(f"devices must have one entry per server; got {len(devices)} for {servers} servers.")
        self._dtype, self._limit, self._max_batch, self._loads = dtype, max_model_len, max_batch, loads
        self._spans, self._pinned, self._lock = spans, pinned, threading.Lock()
        self._folder, self._owner = _own_folder(Path(weights_folder))
        self._store = WeightStore(self._folder, dtype=dtype, host=weights_host, port=weights_port)
        self.version = 0
        self._closed = False
        self._lora = lora if lora_rank is not None else "merged"
        self.key = key or engine_key(key_variable if placed is None else KEY_VARIABLE)  # whoever places them sets that
        if urls and key_variable != KEY_VARIABLE and not (key or os.environ.get(key_variable, "").strip()):
            raise EngineError(
                f"engine.options.key_variable names {key_variable}, which must be set to the key of the servers; it is"
                " not. Export it."
            )
        options = ("--dtype", dtype, "--max-model-len", str(max_model_len), "--seed", str(seed))
        until = time.monotonic() + start_seconds
        most = max_batch + (spans or pinned > 0)  # with a place for the probe beside the requests under way
        rank = lora_rank if self._lora == "adapter" else None
        options += ("--max-num-seqs", str(most), *lora_options(rank, ahead=pinned))
        options += (*memory_options(kv_cache_gigabytes, gpu_memory_utilization), *arguments)
        given: list[Server] = []
        if urls:
            given += [Server(url, seconds=request_seconds, key=self.key, ca_file=ca_file) for url in urls]
        elif placed is not None:
            asked = placed.ask(model_path, options)
            for number in range(placed.count("sampler")):
                address = partial(placed.address, "sampler", number, asked=asked)
                given.append(PlacedServer(address, number=number, seconds=request_seconds, key=self.key, until=until))
        else:
            given += [
                OwnServer(
                    model_path,
                    number=number,
                    log=self._folder / f"server-{number}.log",
                    device=devices[number] if devices else None,
                    seconds=request_seconds,
                    options=options,
                    host=host,
                    key=self.key,
                )
                for number in range(servers)
            ]
        self._fleet = Fleet(given)
        self._delivery = Delivery(self._fleet, self._store)
        self._seats = Seats(max_batch * len(self.servers))
        try:
            self._fleet.wait_until_ready(until)
            if loads:
                self._delivery.choose_ways(weights)
                if pinned:
                    self._delivery.check_room(pinned)
        except BaseException:
            self.close()
            raise
        self._fleet.watch(health_seconds)

    @property
    def servers(self) -> list[Server]:
        """All servers, those that are lost too."""
        return self._fleet.servers

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        check_requests(requests, params, limit=self._limit)
        most = max((len(stop_strings(request, params)) for request in requests), default=0)
        if most > MOST_STOPS:
            raise EngineError(
                f"vLLM's servers take at most {MOST_STOPS} stop strings in a request; got {most} (prompt.stop and those"
                " of the environment). Use fewer, or engine.name=vllm."
            )
        return self._generate(list(requests), params)

    def _generate(self, requests: list[Request], params: SamplingParams) -> Iterator[Finished]:
        if not requests:
            return
        done: queue.SimpleQueue[Finished | BaseException] = queue.SimpleQueue()
        waiting = iter(enumerate(requests))
        lock, stop = threading.Lock(), threading.Event()

        def work() -> None:
            while not stop.is_set():
                with lock:
                    index, request = next(waiting, (-1, None))
                if request is None:
                    return
                try:
                    with self._seats.taken(request.priority):
                        if stop.is_set():
                            return
                        done.put(Finished(index, self._complete(request, params)))
                except BaseException as error:  # re-raised in the caller's thread
                    done.put(error)
                    return

        count = min(len(requests), self._max_batch * len(self.servers))
        pool = ThreadPoolExecutor(count, thread_name_prefix="reasoner-request")
        try:
            for _ in range(count):
                pool.submit(work)
            for _ in requests:
                item = done.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _complete(self, request: Request, params: SamplingParams) -> Completion:
        if self._spans:
            return _with_spans(self._post(GENERATE, lambda model: generate_body(model, request, params)))
        version = self.version if request.version is None else request.version
        answer = self._post(COMPLETIONS, lambda model: completion_body(model, request, params), request.version)
        choice = answer["choices"][0]
        return _completion(choice, choice["logprobs"]["token_logprobs"], version)

    def _post(self, path: str, body: Callable[[str], dict[str, object]], version: int | None = None) -> dict[str, Any]:
        """Send one request to the server with the fewest pending; if that server is lost, try another one.

        `body` takes the name of the model to ask for: the adapter of a version, or None: the newest weights.
        """
        while True:
            with self._lock:
                alive = self._fleet.alive
                if not alive:
                    raise self._fleet.all_lost()
                server = min(alive, key=lambda one: one.pending)
                server.pending += 1
            try:
                return server.post(path, body(server.named(version)))
            except Lost as error:
                self._fleet.leave_out(server, error)
            except Refused as error:
                raise EngineError(f"{server.url} refused a request: {error}") from error
            finally:
                with self._lock:
                    server.pending -= 1

    def load_weights(self, weights: NamedTensors, version: int) -> str:
        if self._loads:
            self._fleet.revive()
            given = self._delivery.send_model(weights, version)
        else:
            given = checksum(weights)
        self._fleet.agree()
        self.version = version
        return given

    def load_adapter(self, adapter: Adapter, version: int) -> str | None:
        if self._lora == "merged":
            return None
        if self._loads:
            self._fleet.revive()
        without = processes.gather(self._delivery.without_base() if self._loads else set[str]())[0]
        if without:
            base = adapter.base()
            self._delivery.send_model(base, version, only=without) if self._loads else checksum(base)
        given, refusal = "", None
        try:
            given = self._delivery.send_adapter(adapter, version) if self._loads else checksum(adapter.tensors)
        except Refused as error:
            refusal = str(error)
        if refusal := processes.gather(refusal)[0]:
            if self._pinned:
                raise EngineError(
                    f"vLLM must apply the adapter with rollout.during_update=pin; it does not: {refusal}. Set"
                    " engine.options.lora to merged and during_update to go_on."
                )
            self._lora = "merged"
            self._fleet.notes.append(
                f"the adapter is merged into the model for vLLM, which does not apply it: {refusal}"
            )
            return None
        self._fleet.agree()
        self.version = version
        return given

    def score(self, token_ids: Sequence[int]) -> list[float]:
        body = score_body(token_ids)
        answers = self._fleet.on_each(lambda one: one.post(COMPLETIONS, {"model": one.model, **body}))
        scored = [(server, prompt_logprobs(answer, token_ids)) for server, answer in answers]
        first = scored[0][1]
        for server, other in scored:
            gap = statistics.fmean(abs(a - b) for a, b in zip(first, other, strict=True))
            if not gap <= TOLERANCES[self._dtype].probe:
                raise EngineError(
                    f"{server.url} scores a text {gap:.3g} nats per token differently from the others: other weights."
                )
        return first

    def choose(self, prompts: Sequence[Sequence[int]], choices: Mapping[str, Sequence[int]]) -> list[list[float]]:
        """Use guided decoding (one request per prompt) if every choice is a single token; else the default method."""
        if any(len(ids) != 1 for ids in choices.values()):
            return super().choose(prompts, choices)

        def ask(prompt: Sequence[int]) -> list[float]:
            answer = self._post(COMPLETIONS, lambda model: choice_body(model, prompt, list(choices)))
            logprobs = answer["choices"][0]["logprobs"]["top_logprobs"][0]
            return among([logprobs[f"token_id:{ids[0]}"] for ids in choices.values()])

        count = min(len(prompts), self._max_batch * len(self.servers))
        with ThreadPoolExecutor(max(1, count), thread_name_prefix="reasoner-choice") as pool:
            return list(pool.map(ask, prompts))

    def take_notes(self) -> list[str]:
        notes, self._fleet.notes = self._fleet.notes, []
        return notes

    def sleep(self) -> None:
        """Do nothing: servers have their own devices."""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._fleet.close()
            self._store.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._owner.release()


def _own_folder(parent: Path) -> tuple[Path, WriterLock]:
    """Make a folder for weights, locked while this process lives. Folders of processes that died are removed."""
    for lock in parent.glob(f"{WEIGHTS_PREFIX}*/{OWNER_FILE}"):
        with suppress(Held, OSError):  # it is in use, or somebody else's
            WriterLock.hold(lock).release()
            shutil.rmtree(lock.parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=WEIGHTS_PREFIX, dir=parent))
    return folder, WriterLock.hold(folder / OWNER_FILE)


def _completion(
    choice: Mapping[str, Any], logprobs: Sequence[float], version: int, versions: tuple[VersionSpan, ...] = ()
) -> Completion:
    tokens = tuple(choice["token_ids"])
    if choice["finish_reason"] not in ("stop", "length"):
        raise EngineError(f"vLLM ended a request with {choice['finish_reason']!r}; expected stop or length.")
    return Completion(
        text=choice["text"],
        token_ids=tokens,
        rollout_logprobs=tuple(map(float, logprobs)),
        loss_mask=(True,) * len(tokens),
        segments=(Segment(start=0, end=len(tokens), origin="policy"),),
        finish_reason=FinishReason(choice["finish_reason"]),
        policy_version=version,
        versions=versions,
    )


def _with_spans(answer: Mapping[str, Any]) -> Completion:
    """Read an answer of GENERATE.

    Raises:
        EngineError: its spans do not cover its tokens, or have a version that no trainer set.
    """
    choice = answer["choices"][0]
    said = choice["weight_versions"] or []
    ends = [0, *(span["end"] for span in said)]
    if [span["start"] for span in said] != ends[:-1] or ends[-1] != len(choice["token_ids"]):
        raise EngineError(f"vLLM must say which weights sampled {len(choice['token_ids'])} tokens; it said {said}.")
    if unknown := [span["version"] for span in said if not span["version"].isdecimal()]:
        raise EngineError(f"vLLM sampled with weights that this trainer did not send (version {unknown[0]!r}).")
    spans = tuple(VersionSpan(int(span["version"]), span["start"], span["end"]) for span in said)
    logprobs = [at["logprob"] for at in choice["logprobs"]["content"]]
    return _completion(choice, logprobs, spans[0].version, spans if len(spans) > 1 else ())


def generate_body(model: str, request: Request, params: SamplingParams) -> dict[str, object]:
    """Build the JSON body of a request to GENERATE."""
    return {
        "model": model,
        "token_ids": list(request.prompt_ids),
        "output_mode": "text",
        "sampling_params": _sampling(request, params),
    }


def completion_body(model: str, request: Request, params: SamplingParams) -> dict[str, object]:
    """Build the JSON body of a /v1/completions request."""
    return {
        "model": model,
        "prompt": list(request.prompt_ids),
        **_sampling(request, params),
        "return_token_ids": True,
    }


def _sampling(request: Request, params: SamplingParams) -> dict[str, object]:
    return {
        "max_tokens": most_tokens(request, params),
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k or -1,
        "seed": request.seed,
        "stop": list(stop_strings(request, params)) or None,
        "stop_token_ids": None if params.end_ids is None else list(params.end_ids),
        "ignore_eos": params.end_ids is not None,
        "include_stop_str_in_output": True,
        "logprobs": 0,
    }


def choice_body(model: str, prompt: Sequence[int], texts: Sequence[str]) -> dict[str, object]:
    """Build the JSON body of a request whose answer must be one of the texts, each a single token."""
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": 1,
        "temperature": 1.0,
        "seed": 0,
        "logprobs": len(texts),
        "return_tokens_as_token_ids": True,
        "structured_outputs": {"choice": list(texts)},
    }


def memory_options(kv_cache_gigabytes: float, gpu_memory_utilization: float) -> tuple[str, ...]:
    """Return vLLM's memory arguments for this machine."""
    import torch

    if torch.cuda.is_available():
        return ("--gpu-memory-utilization", str(gpu_memory_utilization))
    cache = str(int(kv_cache_gigabytes * (1 << 30)))
    # splitting a prompt over two steps needs resetting a seeded generator, which torch supports only on CUDA
    whole = ("--no-enable-chunked-prefill",)
    return ("--kv-cache-memory-bytes", cache, "--gpu-memory-utilization", "0.05", "--enforce-eager", *whole)


def lora_options(rank: int | None, *, ahead: int = 0) -> tuple[str, ...]:
    """Return vLLM's arguments for adapters of this rank, with room for those of batches that are sampled ahead.

    Raises:
        EngineError: vLLM has no room for so large a rank.
    """
    if rank is None:
        return ()
    fitting = [most for most in LORA_RANKS if most >= rank]
    if not fitting:
        raise EngineError(
            f"vLLM applies adapters of a rank up to {LORA_RANKS[-1]}; got model.lora.rank={rank}. Set"
            " engine.options.lora: merged."
        )
    room = AdapterRoom.of(ahead)
    slots = ("--max-loras", str(room.together), "--max-cpu-loras", str(max(8, room.in_memory)))
    return ("--enable-lora", *slots, "--max-lora-rank", str(fitting[0]))
