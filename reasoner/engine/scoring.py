"""vLLM servers that only score texts, with weights of their own: the teacher of distillation."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import sleep

from reasoner.engine.base import EngineError
from reasoner.engine.gate import KEY_VARIABLE
from reasoner.engine.remote import COMPLETIONS, Lost, Refused, Server, prompt_logprobs, score_body

AT_ONCE = 16
"""Requests in flight per server (ours)."""
ATTEMPTS = 6
"""Attempts of a request over all servers, with 1, 2, 4, ... seconds between them (ours)."""
REQUEST_SECONDS = 600.0
"""Longest wait for one answer."""


class ScoringServers:
    """vLLM servers with the same model that are already running."""

    def __init__(self, urls: Sequence[str], *, setting: str, key_variable: str, ca_file: str | None = None) -> None:
        """Connect to the servers.

        Args:
            urls: http://HOST:PORT of each.
            setting: key of the config that names them, for messages.
            key_variable: environment variable with their key.
            ca_file: certificates that sign theirs, for https; None: those of this machine.
        Raises:
            EngineError: one does not answer, or the key is not set.
        """
        key = os.environ.get(key_variable, "").strip() or None
        if key is None and key_variable != KEY_VARIABLE:
            raise EngineError(f"{key_variable} must be set to the key of {setting}; it is not. Export it.")
        self._setting = setting
        self._servers = [Server(url, seconds=REQUEST_SECONDS, key=key, ca_file=ca_file) for url in urls]
        for server in self._servers:
            if not server.ready():
                self.close()
                raise EngineError(
                    f"{setting}: {server.url} does not answer as a vLLM server. Start it, or fix the URL."
                )
            server.start = None  # started again, it has the same weights

    def context(self) -> int:
        """Return the most tokens of a text that all servers can score, with the one that vLLM samples behind it."""
        return min(self._context(server) for server in self._servers)

    def _context(self, server: Server) -> int:
        models = server.listed()
        return int(models[0].get("max_model_len") or 1 << 30) - 1

    def score(self, rows: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return for each text the [T-1] log-probabilities of each token given those before it, at temperature 1.

        Raises:
            EngineError: a server refuses a text, or none answers.
        """
        turns = itertools.cycle(self._servers)
        asked = [(row, next(turns)) for row in rows]
        with ThreadPoolExecutor(AT_ONCE * len(self._servers), thread_name_prefix="reasoner-score") as pool:
            return list(pool.map(lambda one: self._score(*one), asked))

    def _score(self, token_ids: Sequence[int], first: Server) -> list[float]:
        start, why = self._servers.index(first), ""
        for attempt in range(ATTEMPTS):
            server = self._servers[(start + attempt) % len(self._servers)]
            try:
                return prompt_logprobs(
                    server.post(COMPLETIONS, {"model": server.model, **score_body(token_ids)}), token_ids
                )
            except Lost as error:
                why = str(error)
            except Refused as error:
                raise EngineError(f"{self._setting}: {server.url} refused to score a text: {error}") from error
            if attempt + 1 < ATTEMPTS:
                sleep(2.0**attempt)
        raise EngineError(f"{self._setting}: no server answers. {why}. Start them again, then continue with --resume.")

    def text_of(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids by the first server's tokenizer, special tokens included.

        Raises:
            EngineError: it does not say.
        """
        server = self._servers[0]
        try:
            return str(server.post("/detokenize", {"model": server.model, "tokens": list(token_ids)})["prompt"])
        except (Lost, Refused, KeyError) as error:
            raise EngineError(
                f"{self._setting}: {server.url} does not answer POST /detokenize, by which its tokenizer is compared"
                f" with the policy's: {error}"
            ) from error

    def close(self) -> None:
        """Close the connections; the servers keep running."""
        for server in self._servers:
            server.stop()
