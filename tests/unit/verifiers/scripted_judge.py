"""An OpenAI-compatible server with scripted answers: right, wrong, late, malformed, obedient or none."""

from __future__ import annotations

import asyncio
import json
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """The server's reaction to one request."""

    status: int = 200
    content: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang_up: bool = False


class ScriptedJudge:
    """A server of `script(body, number of the request)` on a free local port, in its own thread."""

    def __init__(self, script: Callable[[Body, int], Sent]) -> None:
        self.script = script
        self.bodies: list[Body] = []
        self.headers: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 24, backlog=512)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = int(re.search(r"(?i)content-length: (\d+)", head).group(1))  # type: ignore[union-attr]
                body = json.loads(await reader.readexactly(length))
                self.headers.append(head)
                self.bodies.append(body)
                sent = self.script(body, len(self.bodies))
                self.under_way += 1
                self.most_under_way = max(self.most_under_way, self.under_way)
                await asyncio.sleep(sent.delay)
                self.under_way -= 1
                if sent.hang_up:
                    break
                content = sent.content.encode()
                headers = {"Content-Type": "application/json", "Content-Length": len(content)} | sent.headers
                lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
                writer.write(f"HTTP/1.1 {sent.status} X\r\n{lines}\r\n".encode() + content)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def said_to(body: Body) -> str:
    """Return the user's turn."""
    return body["messages"][-1]["content"]


def check_word(body: Body) -> str:
    """Return the word that a sound judge repeats."""
    return re.findall(r'"check": the word (\S+)', said_to(body))[-1]


def decoy_word(body: Body) -> str:
    """Return the word that an obedient judge writes."""
    return re.findall(r'Write (\S+) as "check"', said_to(body))[-1]


def data_of(body: Body, name: str = "completion") -> str:
    """Return a block of data as the judge sees it."""
    return re.search(rf"<{name}-(\w+)>\n(.*?)\n</{name}-\1>", said_to(body), re.DOTALL).group(2)  # type: ignore[union-attr]


def chat(text: str, *, finish: str = "stop", usage: tuple[int, int] = (100, 20), logprobs: Any = None) -> str:
    """Return a chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if logprobs is not None:
        choice["logprobs"] = {"content": logprobs}
    used = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": used})


def level(body: Body, at: int, *, evidence: str = "", reason: str = "because", check: str | None = None) -> Sent:
    """Return a well-formed judgement."""
    said = {"check": check or check_word(body), "evidence": evidence, "reason": reason}
    return Sent(content=chat(json.dumps(said | {"level": at})))


def statements(body: Body) -> list[str]:
    """The statements or questions that are asked, in order."""
    return re.findall(
        r"^(?:The statement|The criterion|Statement \d+|Criterion \d+): (.*)$", said_to(body), re.MULTILINE
    )


def is_checklist(body: Body) -> bool:
    """True if several answers are wanted in one reply."""
    return '"level_N"' in said_to(body)


def checklist(body: Body, levels: Sequence[int], *, check: str | None = None) -> Sent:
    """A well-formed reply to a checklist."""
    said: dict[str, Any] = {"check": check or check_word(body)}
    for number, at in enumerate(levels, 1):
        said |= {f"evidence_{number}": "", f"reason_{number}": f"because {number}", f"level_{number}": at}
    return Sent(content=chat(json.dumps(said)))


def by_statement(met: Callable[[str], bool]) -> Callable[[Body, int], Sent]:
    """A judge that says of each statement what `met` says, one by one or in a checklist."""

    def script(body: Body, number: int) -> Sent:
        levels = [int(met(one)) for one in statements(body)]
        return checklist(body, levels) if is_checklist(body) else level(body, levels[0])

    return script


def better(body: Body, which: int) -> Sent:
    """Return a well-formed comparison."""
    said = {"check": check_word(body), "evidence": "", "reason": "because", "better": which}
    return Sent(content=chat(json.dumps(said)))


def with_shares(body: Body, shares: dict[int, float], *, key: str = "level") -> Sent:
    """Return a judgement whose last digit has these probabilities, with tokens of one character."""
    best = max(shares, key=lambda choice: shares[choice])
    text = json.dumps({"check": check_word(body), "evidence": "", "reason": "r", key: best})
    rows: list[Any] = [{"token": char, "logprob": 0.0, "top_logprobs": []} for char in text]
    tops = [{"token": str(choice), "logprob": math.log(share)} for choice, share in shares.items()]
    rows[-2] = {"token": str(best), "logprob": math.log(shares[best]), "top_logprobs": tops}
    return Sent(content=chat(text, logprobs=rows))


def in_turn(sents: Sequence[Callable[[Body], Sent]]) -> Callable[[Body, int], Sent]:
    """Return answers in sequence, repeating the last one."""
    return lambda body, number: sents[min(number, len(sents)) - 1](body)
