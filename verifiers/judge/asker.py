"""Requests to a judge model through a cache and a token budget; unreadable replies become faults."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from verifiers.judge.budget import Meter
from verifiers.judge.cache import ReplyCache
from verifiers.judge.chat import Backend, ChatRequest, Reply
from verifiers.judge.errors import JudgeFault, Unusable

Read = TypeVar("Read")


class Answer(NamedTuple):
    """A usable reply and its cost."""

    reply: Reply
    cost: float


class Asker:
    """One judge model with its cache and its meter. Thread-safe.

    Args:
        backend: answers the requests.
        cache: stores the replies that can be read.
        meter: counts tokens and cost.
        attempts: calls for one question while its reply cannot be read. After a truncated reply, max_tokens is doubled.
    """

    def __init__(self, backend: Backend, cache: ReplyCache, meter: Meter, *, attempts: int = 2) -> None:
        self.backend, self.cache, self.meter = backend, cache, meter
        self._attempts = attempts
        self._lock = threading.Lock()
        self._under_way: dict[str, threading.Event] = {}

    def ask(
        self, requests: Sequence[ChatRequest], readers: Sequence[Callable[[Reply], Read]]
    ) -> list[tuple[Read, Answer] | JudgeFault]:
        """Ask several questions at once.

        A question that another thread is already asking is not sent again: this call waits for its reply.

        Args:
            requests: the questions.
            readers: one for each request; it parses the reply and raises a JudgeFault if it cannot.
        Returns:
            For each request, in order, the parsed reply with its `Answer`, or the fault.
        """
        keys = [request.key(self.backend.identity) for request in requests]
        found: dict[str, Reply | JudgeFault] = {}
        mine = self._claim(dict.fromkeys(keys), found)
        try:
            chosen = {key: at for at, key in enumerate(keys) if key in mine}
            self._put([(key, requests[at], readers[at]) for key, at in chosen.items()], found)
        finally:
            self._release(mine)
        for at, key in enumerate(keys):
            if key not in found:
                found[key] = self._await(key, requests[at], readers[at])
        repeated = len(keys) - len(mine)
        answers = [self._read(found[key], reader) for key, reader in zip(keys, readers, strict=True)]
        self.meter.count(hits=repeated, faults=sum(isinstance(answer, JudgeFault) for answer in answers))
        return answers

    def _read(self, reply: Reply | JudgeFault, reader: Callable[[Reply], Read]) -> tuple[Read, Answer] | JudgeFault:
        if isinstance(reply, JudgeFault):
            return reply
        try:
            cost = self.meter.cost_of(reply.prompt_tokens, reply.completion_tokens)
            return reader(reply), Answer(reply, cost)
        except JudgeFault as fault:
            return fault

    def _claim(self, keys: Mapping[str, None], found: dict[str, Reply | JudgeFault]) -> set[str]:
        """Look up the keys in the cache, and claim those that are neither stored nor being asked.

        Stored replies are added to `found`. Returns the claimed keys, which the caller must ask and release.
        """
        mine: set[str] = set()
        for key in keys:
            with self._lock:
                if key in self._under_way:
                    continue
                stored = self.cache.get(key)
                if stored is not None:
                    found[key] = stored
                else:
                    self._under_way[key] = threading.Event()
                    mine.add(key)
        return mine

    def _release(self, keys: set[str]) -> None:
        with self._lock:
            events = [self._under_way.pop(key) for key in keys]
        for event in events:
            event.set()

    def _await(self, key: str, request: ChatRequest, reader: Callable[[Reply], Read]) -> Reply | JudgeFault:
        """Wait for a question that another thread is asking; ask it here if it failed there."""
        with self._lock:
            event = self._under_way.get(key)
        if event is not None:
            event.wait()
        found: dict[str, Reply | JudgeFault] = {}
        mine = self._claim({key: None}, found)
        try:
            if mine:
                self._put([(key, request, reader)], found)
        finally:
            self._release(mine)
        return found[key] if key in found else self._await(key, request, reader)

    def _put(
        self,
        asked: Sequence[tuple[str, ChatRequest, Callable[[Reply], object]]],
        found: dict[str, Reply | JudgeFault],
    ) -> None:
        """Ask the model, and again if a reply cannot be read.

        Replies and faults are added to `found`, usable replies to the cache as well.
        """
        left = list(asked)
        for attempt in range(self._attempts):
            again: list[tuple[str, ChatRequest, Callable[[Reply], object]]] = []
            replies = self.backend.answer([request for _, request, _ in left]) if left else []
            for (key, request, reader), reply in zip(left, replies, strict=True):
                found[key] = reply
                if isinstance(reply, JudgeFault):
                    continue
                try:
                    reader(reply)
                except Unusable as fault:
                    found[key] = Unusable(f"{fault} (asked {attempt + 1} times)" if attempt else str(fault))
                    cut = reply.finish_reason == "length"
                    again.append((key, request.with_tokens(2 * request.max_tokens) if cut else request, reader))
                except JudgeFault as fault:
                    found[key] = fault
                else:
                    found[key] = self.cache.put(key, reply)
            left = again


__all__ = ["Answer", "Asker"]
