"""New weights on their way into servers: the whole model, or a LoRA adapter that vLLM applies itself."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from reasoner.engine.base import Adapter, EngineError, NamedTensors
from reasoner.engine.check import Checksum, check_checksum
from reasoner.engine.fleet import Fleet
from reasoner.engine.remote import ADAPTER_PREFIX, Lost, Refused, Server, adapter_name
from reasoner.engine.weights import WeightStore, Written

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
"""peft's names, by which vLLM finds an adapter in a folder."""


class AdapterRoom(NamedTuple):
    """Number of adapters that a server has room for."""

    together: int
    """In one batch of requests (--max-loras)."""
    in_memory: int
    """In host memory (--max-cpu-loras)."""

    @classmethod
    def of(cls, ahead: int) -> AdapterRoom:
        """Return what `ahead` batches need that are sampled with the adapters that they began with.

        The present batch and each one ahead may have a version of its own; one more is loaded beside them. vLLM keeps
        unloaded adapters in host memory, drops the one that was used least recently, and ends if it has to load one
        again whose files are gone. From its load to its last use an adapter stands beside at most `ahead` older and
        `ahead` newer ones that are in use.
        """
        return cls(ahead + 2, 2 * ahead + 2)


class Delivery:
    """Sends weights to a fleet. Used on the main process alone, where nothing else is said."""

    def __init__(self, fleet: Fleet, store: WeightStore) -> None:
        self._fleet, self._store = fleet, store
        self._run = f"{ADAPTER_PREFIX}{secrets.token_hex(4)}"
        """Beginning of the names of this run's adapters."""
        self._adapters: dict[str, Written] = {}
        """Files of the adapters that servers must have, by name."""
        self._weights, self._seen = "auto", store.folder / "seen"

    def choose_ways(self, weights: str) -> None:
        """Decide for each server if it reads the files of new weights or fetches them, by trying.

        Args:
            weights: "auto", "file" or "pull".
        Raises:
            EngineError: a server must read the files but does not see them, or it lacks the worker extension.
        """
        folder, servers = self._store.folder, self._fleet.servers
        self._weights = weights
        self._seen.write_text(secrets.token_hex(16))
        for server in servers:
            try:
                self._choose_way(server)
            except (Lost, Refused) as error:
                raise EngineError(
                    f"{server.url} must run `python -m reasoner.engine.serve` of this version: {error}"
                ) from error
        for pulls, way in ((False, f"read new weights in {folder}"), (True, "fetch new weights over HTTP")):
            if urls := [server.url for server in servers if server.pulls == pulls]:
                self._fleet.notes.append(
                    f"vLLM servers that {way}: {', '.join(urls)} (engine.options.weights={weights})"
                )

    def _choose_way(self, server: Server) -> None:
        server.pulls = self._weights == "pull" or not server.sees(self._seen)
        if server.pulls and self._weights == "file":
            raise EngineError(
                f"{server.url} must be able to read {self._store.folder}, where this trainer writes weights; it cannot."
                " Set engine.options.weights: pull, or weights_folder to a folder that both see."
            )

    def send_model(self, weights: NamedTensors, version: int, *, only: set[str] | None = None) -> str:
        """Send a whole model to every reachable server, or to those of the given URLs; return its checksum as given.

        Raises:
            EngineError: a worker of a server received other weights, or no server has the new ones.
        """
        given = Checksum()
        written = self._write(given.over(weights), version)

        def deliver(server: Server) -> list[str]:
            if only is not None and server.url not in only:
                return []
            with self._at_server(server, written) as folder:
                return server.load(folder, version)

        try:
            for _, digests in self._fleet.on_each(deliver):
                for digest in digests:
                    check_checksum(written.digest, digest)
        finally:
            written.remove()
        return given.digest()

    def send_adapter(self, adapter: Adapter, version: int) -> str:
        """Send an adapter to every reachable server, under a new name; return its checksum as given.

        Versions that are not kept are unloaded. A server that was started again gets those that are, too.

        Raises:
            Refused: vLLM cannot apply it.
            EngineError: a worker of a server received another adapter, or no server has the new one.
        """
        newest, given = adapter_name(self._run, version), Checksum()
        kept = {adapter_name(self._run, number) for number in adapter.keep if number != version}
        for name in self._adapters.keys() - kept:
            self._adapters.pop(name).remove()
        written = self._write(given.over(adapter.tensors), version, file=ADAPTER_FILES[0])
        config = written.folder / ADAPTER_FILES[1]
        config.write_text(json.dumps(dict(adapter.config)))
        written.files[config.name] = config.stat().st_size
        self._adapters[newest] = written

        def deliver(server: Server) -> str | None:
            server.unload_adapters(keep=kept)
            for name, files in self._adapters.items():
                if name in server.models:
                    continue
                with self._at_server(server, files) as folder:
                    for digest in server.rpc("reasoner_checksum", str(folder)):
                        check_checksum(files.digest, str(digest))
                    if refusal := server.load_adapter(name, folder):
                        return refusal
            server.model = newest
            return None

        for server, refusal in self._fleet.on_each(deliver):
            if refusal:
                raise Refused(f"{server.url}: {refusal}")
        return given.digest()

    def without_base(self) -> set[str]:
        """Return the URLs of reachable servers that do not have this run's base model under the adapters."""
        return {server.url for server in self._fleet.reachable if not server.has_base(self._run)}

    def check_room(self, ahead: int) -> None:
        """Check that every server has room for the adapters of batches that are sampled ahead.

        Raises:
            EngineError: one has not; the message says how to start it.
        """
        needed = AdapterRoom.of(ahead)
        for server in self._fleet.servers:
            for one in server.rpc("reasoner_adapter_room"):
                found = AdapterRoom(*one)
                if found.together < needed.together or found.in_memory < needed.in_memory:
                    raise EngineError(
                        f"{server.url} must have room for {needed.together} adapters in a batch and {needed.in_memory}"
                        f" in memory, with rollout.ahead={ahead} and during_update=pin; it has {found.together} and"
                        f" {found.in_memory}. Start it with --enable-lora --max-loras {needed.together} --max-cpu-loras"
                        f" {needed.in_memory}, or lower rollout.ahead."
                    )

    def _write(self, weights: NamedTensors, version: int, *, file: str | None = None) -> Written:
        for server in self._fleet.reachable:
            if server.pulls is None:  # it was started again on another machine
                try:
                    self._choose_way(server)
                except (Lost, Refused) as error:
                    self._fleet.leave_out(server, Lost(str(error)))
        written = self._store.write(weights, f"v{version}-{secrets.token_hex(4)}", file=file)
        if any(server.pulls for server in self._fleet.reachable):
            self._store.serve([server.url for server in self._fleet.servers if server.pulls])
        return written

    @contextmanager
    def _at_server(self, server: Server, written: Written) -> Iterator[Path]:
        """Get files to where a server's workers can read them; yield their folder there."""
        if not server.pulls:
            yield written.folder
            return
        place = hashlib.blake2b(server.url.encode(), digest_size=6).hexdigest()
        into = self._store.folder.parent / f"reasoner-pulled-{place}"
        source = self._store.source(written, url=server.url, into=into)
        server.fetch(source)
        try:
            yield source.folder
        finally:
            with suppress(Lost):
                server.rpc("reasoner_drop", str(source.folder))
