"""An OpenAI-compatible chat endpoint as a judge's model: structured replies, retries, limits."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from verifiers.errors import BadOption
from verifiers.jsonl import is_list, is_object
from verifiers.judge.budget import Meter
from verifiers.judge.chat import ChatRequest, Reply, Token
from verifiers.judge.errors import Busy, JudgeFault
from verifiers.verdict import JSON

if TYPE_CHECKING:
    import httpx

STRUCTURED = ("json_schema", "vllm", "prompt")
"""How a reply is held to its schema: OpenAI's response_format, vLLM's structured_outputs, or by asking alone."""
COME_BACK = (408, 425, 429, 500, 502, 503, 504, 529)
MAX_REPLY_BYTES = 8 << 20
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 20.0
"""Seconds: pauses double, and each is drawn from the upper half of its length (ours), so that clients spread out."""


class Endpoint:
    """Calls `URL/chat/completions`.

    Args:
        url: of the API, as in http://127.0.0.1:8000/v1.
        model: its name there.
        revision: of its weights, where the name alone does not tell: part of the cache key.
        key_variable: environment variable that holds the API key; unset: no key is sent.
        structured: json_schema (OpenAI, vLLM and most servers), vllm, or prompt for servers that constrain nothing.
        seconds: for one question, retries included.
        retries: of calls that fail for a reason that passes: busy, away, a server's own fault.
        concurrency: calls under way at a time.
        meter: of tokens.
    """

    def __init__(
        self,
        *,
        url: str,
        model: str,
        meter: Meter,
        revision: str = "",
        key_variable: str = "",
        structured: str = "json_schema",
        seconds: float = 120.0,
        retries: int = 5,
        concurrency: int = 16,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadOption(f"url must be the API's address, as in http://127.0.0.1:8000/v1; got {url!r}.")
        if structured not in STRUCTURED:
            raise BadOption(f"structured must be one of {', '.join(STRUCTURED)}; got {structured!r}.")
        if seconds <= 0 or retries < 0 or concurrency < 1:
            raise BadOption(
                f"seconds and concurrency must be positive, retries >= 0; got {seconds}, {concurrency}, {retries}."
            )
        self._url = url.rstrip("/") + "/chat/completions"
        self._model, self._revision, self._structured = model, revision, structured
        self._key_variable = key_variable
        self._seconds, self._retries, self._concurrency = seconds, retries, concurrency
        self._meter = meter
        self._room = threading.BoundedSemaphore(concurrency)
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._threads: ThreadPoolExecutor | None = None

    @property
    def identity(self) -> Mapping[str, JSON]:
        """The address is no part of it: a server that moves is the same judge."""
        return {"model": self._model, "revision": self._revision, "structured": self._structured}

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | JudgeFault]:
        if len(requests) == 1:
            return [self._answer(requests[0])]
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="judge")
        return list(self._threads.map(self._answer, requests))

    def _answer(self, request: ChatRequest) -> Reply | JudgeFault:
        with self._room:
            try:
                return self._with_retries(request)
            except JudgeFault as fault:
                return fault

    def _with_retries(self, request: ChatRequest) -> Reply:
        deadline = time.monotonic() + self._seconds
        for attempt in range(self._retries + 1):
            try:
                return self._metered(request, deadline)
            except Busy as busy:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.0)
                pause = max(pause, busy.after or 0.0)
                if attempt == self._retries or time.monotonic() + pause >= deadline:
                    raise JudgeFault(f"{busy} ({attempt + 1} attempts within {self._seconds:g} s)") from busy
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _metered(self, request: ChatRequest, deadline: float) -> Reply:
        most = request.prompt_bytes() + request.max_tokens
        self._meter.reserve(most)
        used = 0, 0
        try:
            reply = self._exchange(request, deadline)
            used = reply.prompt_tokens, reply.completion_tokens
            return reply
        except TimeoutError as error:  # the server may have worked all the same: charged as if it had
            used = most - request.max_tokens, request.max_tokens
            raise Busy(f"{self._where} did not answer in time") from error
        finally:
            self._meter.settle(most, prompt_tokens=used[0], completion_tokens=used[1])

    def _exchange(self, request: ChatRequest, deadline: float) -> Reply:
        import httpx

        left = max(0.05, deadline - time.monotonic())
        try:
            with self._connected().stream(
                "POST", self._url, content=json.dumps(self._body(request)), headers=self._headers(), timeout=left
            ) as response:
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > MAX_REPLY_BYTES:
                        raise JudgeFault(f"{self._where} answered more than {MAX_REPLY_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise TimeoutError
                return self._read(response.status_code, response.headers.get("retry-after"), bytes(content))
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise TimeoutError from error
        except httpx.HTTPError as error:
            raise Busy(f"{self._where} cannot be reached ({type(error).__name__}: {error})") from error

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                limits = httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
                self._client = httpx.Client(limits=limits)
                weakref.finalize(self, self._client.close)
            return self._client

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._key_variable:
            key = os.environ.get(self._key_variable, "")
            if not key:
                raise JudgeFault(f"environment variable {self._key_variable} must hold the API key; it is not set.")
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def _body(self, request: ChatRequest) -> dict[str, JSON]:
        body: dict[str, JSON] = {
            "model": self._model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in request.turns],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if self._structured == "json_schema":
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "judgement", "schema": dict(request.schema), "strict": True},
            }
        elif self._structured == "vllm":
            body["structured_outputs"] = {"json": dict(request.schema)}
        if request.top_logprobs:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        return body

    @property
    def _where(self) -> str:
        return f"judge {self._model!r} at {self._url}"

    def _read(self, status: int, after: str | None, content: bytes) -> Reply:
        if status in COME_BACK:
            raise Busy(f"{self._where} answered {status}: {_shown(content)}", _seconds(after))
        if status != 200:
            hint = " If it does not know response_format, set structured to vllm or prompt." if status == 400 else ""
            raise JudgeFault(f"{self._where} answered {status}: {_shown(content)}.{hint}")
        try:
            return read_completion(json.loads(content))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise Busy(
                f"{self._where} answered no chat completion ({type(error).__name__}): {_shown(content)}"
            ) from error


def read_completion(body: JSON) -> Reply:
    """The first choice of a chat completion.

    Raises:
        KeyError, IndexError, TypeError, ValueError: it is none.
    """
    answer = _object(body)
    choice = _object(_list(answer["choices"])[0])
    message = _object(choice["message"])
    text = message.get("content")
    if message.get("refusal"):
        return Reply(f"refused: {message['refusal']}", "refusal", *_usage(answer, ""))
    if not isinstance(text, str):
        raise TypeError("content must be a string")
    return Reply(text, str(choice.get("finish_reason") or "stop"), *_usage(answer, text), _tokens(choice))


def _object(value: JSON) -> dict[str, JSON]:
    if not is_object(value):
        raise TypeError(f"{type(value).__name__} where an object is due")
    return value


def _list(value: JSON) -> list[JSON]:
    if not is_list(value):
        raise TypeError(f"{type(value).__name__} where a list is due")
    return value


def _number(value: JSON) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} where a number is due")
    return value


def _usage(answer: Mapping[str, JSON], text: str) -> tuple[int, int]:
    """As the server counts; where it does not, a token for each byte of the reply (more than there are)."""
    usage = answer.get("usage")
    if not is_object(usage):
        return 0, len(text.encode("utf-8", "replace"))
    return int(_number(usage.get("prompt_tokens") or 0)), int(_number(usage.get("completion_tokens") or 0))


def _tokens(choice: Mapping[str, JSON]) -> tuple[Token, ...]:
    logprobs = choice.get("logprobs")
    if not is_object(logprobs):
        return ()
    tokens: list[Token] = []
    for row in map(_object, _list(logprobs.get("content") or [])):
        tops = [row, *map(_object, _list(row.get("top_logprobs") or []))]
        tokens.append(Token(str(row["token"]), {str(top["token"]): float(_number(top["logprob"])) for top in tops}))
    return tuple(tokens)


def _seconds(after: str | None) -> float | None:
    try:
        return max(0.0, float(after)) if after else None
    except ValueError:  # a date: the pause of our own will do
        return None


def _shown(content: bytes) -> str:
    return content[:300].decode(errors="replace")


__all__ = ["STRUCTURED", "Endpoint", "read_completion"]
