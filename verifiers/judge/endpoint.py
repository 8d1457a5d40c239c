"""Judge models behind an OpenAI-compatible chat endpoint: structured replies, retries, limits."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from verifiers.errors import BadOption
from verifiers.jsonl import is_list, is_object
from verifiers.judge.budget import Meter
from verifiers.judge.chat import ChatRequest, Reply, Token
from verifiers.judge.counting import Tokens, counted, own_count
from verifiers.judge.errors import Busy, JudgeFault
from verifiers.judge.models import same_model
from verifiers.judge.secret import key_of, without_key
from verifiers.text import whole
from verifiers.verdict import JSON

if TYPE_CHECKING:
    import httpx

STRUCTURED = ("json_schema", "vllm", "prompt")
"""Ways to constrain a reply to its schema: OpenAI's response_format, vLLM's structured_outputs, the prompt alone."""
COME_BACK = (408, 425, 429, 500, 502, 503, 504, 529)
"""HTTP statuses after which a call is retried."""
MAX_REPLY_BYTES = 8 << 20
MOST_OTHERS = 20
"""Unexpected model names that are logged, at most."""
MOST_LOGPROB = 0.01
"""Largest log-probability that is accepted, as a rounding error above 0."""
MOST_NAME = 200
"""Characters of a model's name and of a finish_reason that are kept."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 20.0
"""Seconds between retries. Pauses double; each is drawn from the upper half of its length, so that clients spread out.

Both are our choice.
"""


UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)
"""Exceptions that parsing an arbitrary answer may raise."""
_log = logging.getLogger(__name__)


class _Answered(NamedTuple):
    """An HTTP answer before parsing."""

    status: int
    after: str | None
    content: bytes


class _BrokeOff(Busy):
    """An answer that was interrupted after status 200, or is too large."""


class Endpoint:
    """Client of `URL/chat/completions`.

    Args:
        url: address of the API, as in http://127.0.0.1:8000/v1.
        model: name of the model there.
        revision: of the weights, if the name does not identify them; part of the cache key.
        key_variable: environment variable that contains the API key; empty: no key is sent.
        structured: json_schema (OpenAI, vLLM and most servers), vllm, or prompt for servers that constrain nothing.
        seconds: timeout of one question, retries included.
        retries: of calls that fail for a temporary reason: busy, unreachable, an error of the server.
        concurrency: simultaneous calls.
        meter: counts tokens and cost.
    Raises:
        BadOption: an option is invalid, or `url` contains a user or a password.
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
        if "@" in urlsplit(url).netloc:
            raise BadOption(
                "url must not contain a user or a password. Name the variable that contains the key: key_variable."
            )
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
        self._others: set[str] = set()
        """Names of unexpected models that have answered."""
        self._threads: ThreadPoolExecutor | None = None

    @property
    def identity(self) -> Mapping[str, JSON]:
        """Model, revision and `structured`. Without the address: a server that moves is the same judge."""
        return {"model": self._model, "revision": self._revision, "structured": self._structured}

    def answer(self, requests: Sequence[ChatRequest]) -> list[Reply | JudgeFault]:
        if len(requests) == 1:
            return [self._answer(requests[0])]
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._concurrency, thread_name_prefix="judge")
        return list(self._threads.map(self._answer, requests))

    def _answer(self, request: ChatRequest) -> Reply | JudgeFault:
        """Return a reply or a fault, with the API key masked in both."""
        key = ""
        with self._room:
            try:
                key = key_of(self._key_variable)
                return self._noticed(_without_key(self._with_retries(request, key), key))
            except JudgeFault as fault:
                return type(fault)(without_key(str(fault), key))
            except Exception as error:  # nothing that an endpoint sends may end a batch or leak the key
                return JudgeFault(without_key(f"{self._where}: {type(error).__name__}: {error}", key))

    def _noticed(self, reply: Reply) -> Reply:
        """Return the reply; log a warning, once for each name, if another model answered than was asked."""
        if reply.model and not same_model(self._model, reply.model):
            with self._lock:
                known, self._others = reply.model in self._others, self._others | {reply.model}
            if not known and len(self._others) <= MOST_OTHERS:
                _log.warning("%s is answered by model %r", self._where, reply.model)
        return reply

    def _with_retries(self, request: ChatRequest, key: str) -> Reply:
        deadline = time.monotonic() + self._seconds
        for attempt in range(self._retries + 1):
            try:
                return self._metered(request, deadline, key)
            except Busy as busy:
                pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.5, 1.0)
                pause = max(pause, busy.after or 0.0)
                if attempt == self._retries or time.monotonic() + pause >= deadline:
                    raise JudgeFault(f"{busy} ({attempt + 1} attempts within {self._seconds:g} s)") from busy
                time.sleep(pause)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _metered(self, request: ChatRequest, deadline: float, key: str) -> Reply:
        """Make one call and charge it, also if it fails, unless it was refused or did not arrive."""
        most = request.prompt_bytes() + request.max_tokens
        self._meter.reserve(most)
        used = Tokens(0, 0)
        try:
            answered = self._exchange(request, deadline, key)
            if answered.status == 200:
                used = own_count(request, answered.content.decode(errors="replace"))  # if it cannot be parsed
            reply = self._read(answered, request, key)
            used = Tokens(reply.prompt_tokens, reply.completion_tokens)
            return reply
        except TimeoutError as error:  # the server may have generated all the same: charged in full
            used = Tokens(most - request.max_tokens, request.max_tokens)
            raise Busy(f"{self._where} did not answer in time") from error
        except _BrokeOff:
            used = own_count(request, None)
            raise
        finally:
            self._meter.settle(most, prompt_tokens=used.prompt, completion_tokens=used.completion)

    def _exchange(self, request: ChatRequest, deadline: float, key: str) -> _Answered:
        import httpx

        left = max(0.05, deadline - time.monotonic())
        began = False
        try:
            with self._connected().stream(
                "POST", self._url, content=json.dumps(self._body(request)), headers=_headers(key), timeout=left
            ) as response:
                began = response.status_code == 200
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > MAX_REPLY_BYTES:
                        raise _BrokeOff(f"{self._where} answered more than {MAX_REPLY_BYTES} bytes")
                    if time.monotonic() > deadline:
                        raise TimeoutError
                return _Answered(response.status_code, response.headers.get("retry-after"), bytes(content))
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise TimeoutError from error
        except httpx.HTTPError as error:
            kind = _BrokeOff if began else Busy
            raise kind(f"{self._where} cannot be reached ({type(error).__name__}: {error})") from error

    def _connected(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                limits = httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency)
                self._client = httpx.Client(limits=limits)
                weakref.finalize(self, self._client.close)
            return self._client

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

    def _read(self, answered: _Answered, request: ChatRequest, key: str) -> Reply:
        status = answered.status
        if status in COME_BACK:
            raise Busy(f"{self._where} answered {status}: {_shown(answered, key)}", _seconds(answered.after))
        if status != 200:
            hint = " If it does not know response_format, set structured to vllm or prompt." if status == 400 else ""
            raise JudgeFault(f"{self._where} answered {status}: {_shown(answered, key)}.{hint}")
        try:
            return read_completion(json.loads(answered.content), request)
        except UNREADABLE as error:
            what = f"no chat completion ({type(error).__name__}): {_shown(answered, key)}"
            raise Busy(f"{self._where} answered {what}") from error


def read_completion(body: JSON, request: ChatRequest) -> Reply:
    """Return the first choice of a chat completion, with its token counts.

    A refusal becomes a reply "refused: ..." with the finish reason "refusal".

    Raises:
        KeyError, IndexError, TypeError, ValueError, OverflowError: the body is no chat completion.
    """
    answer = _object(body)
    choice = _object(_list(answer["choices"])[0])
    message = _object(choice["message"])
    text, refusal, model = message.get("content"), message.get("refusal"), answer.get("model")
    name = whole(model[:MOST_NAME]) if isinstance(model, str) else ""
    if refusal:
        used = counted(answer.get("usage"), request, str(refusal))
        return Reply(f"refused: {str(refusal)[:1000]}", "refusal", *used, model=name)
    if not isinstance(text, str):
        raise TypeError("content must be a string")
    ended = choice.get("finish_reason")
    reason = ended[:MOST_NAME] if isinstance(ended, str) and ended else "stop"
    return Reply(text, reason, *counted(answer.get("usage"), request, text), _tokens(choice), name)


def _headers(key: str) -> dict[str, str]:
    return {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})


def _without_key(reply: Reply, key: str) -> Reply:
    """Return the reply with the key masked. Its tokens are dropped if its text changed, since they no longer match."""
    text, model = without_key(reply.text, key), without_key(reply.model, key)
    tokens = reply.tokens if text == reply.text else ()
    return reply._replace(text=text, model=model, finish_reason=without_key(reply.finish_reason, key), tokens=tokens)


def _object(value: JSON) -> dict[str, JSON]:
    if not is_object(value):
        raise TypeError(f"{type(value).__name__} instead of an object")
    return value


def _list(value: JSON) -> list[JSON]:
    if not is_list(value):
        raise TypeError(f"{type(value).__name__} instead of a list")
    return value


def _logprob(value: JSON) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value <= MOST_LOGPROB:
        raise TypeError("a log-probability must be a number, at most 0")
    return min(0.0, float(value))


def _tokens(choice: Mapping[str, JSON]) -> tuple[Token, ...]:
    logprobs = choice.get("logprobs")
    if not is_object(logprobs):
        return ()
    tokens: list[Token] = []
    for row in map(_object, _list(logprobs.get("content") or [])):
        tops = [row, *map(_object, _list(row.get("top_logprobs") or []))]
        tokens.append(Token(str(row["token"]), {str(top["token"]): _logprob(top["logprob"]) for top in tops}))
    return tuple(tokens)


def _seconds(after: str | None) -> float | None:
    try:
        return max(0.0, float(after)) if after else None
    except ValueError:  # a date: the usual pause is used
        return None


def _shown(answered: _Answered, key: str) -> str:
    """Return the start of an answer for a message.

    The key is masked before the answer is cut, since half a key would not be recognised.
    """
    return without_key(answered.content[:2000].decode(errors="replace"), key)[:300]


__all__ = ["STRUCTURED", "Endpoint", "read_completion"]
