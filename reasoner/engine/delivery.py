"""New weights on their way into servers: the whole model, or a LoRA adapter that vLLM applies itself."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reasoner.engine.base import Adapter, EngineError, NamedTensors
from reasoner.engine.check import Checksum, check_checksum
from reasoner.engine.fleet import Fleet
from reasoner.engine.remote import ADAPTER_PREFIX, Lost, Refused, Server
from reasoner.engine.weights import WeightStore, Written

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
"""peft's names, by which vLLM finds an adapter in a folder."""


class Delivery:
    """Sends weights to a fleet. Used on the main process alone, where nothing else is said."""

    def __init__(self, fleet: Fleet, store: WeightStore) -> None:
        self._fleet, self._store = fleet, store
        self._run = f"{ADAPTER_PREFIX}{secrets.token_hex(4)}"
        """Beginning of the names of this run's adapters."""

    def choose_ways(self, weights: str) -> None:
        """Decide for each server if it reads the files of new weights or fetches them, by trying.

        Args:
            weights: "auto", "file" or "pull".
        Raises:
            EngineError: a server must read the files but does not see them, or it lacks the worker extension.
        """
        folder, servers = self._store.folder, self._fleet.servers
        seen = folder / "seen"
        seen.write_text(secrets.token_hex(16))
        for server in servers:
            try:
                server.pulls = weights == "pull" or not server.sees(seen)
            except (Lost, Refused) as error:
                raise EngineError(
                    f"{server.url} must run `python -m reasoner.engine.serve` of this version: {error}"
                ) from error
            if server.pulls and weights == "file":
                raise EngineError(
                    f"{server.url} must be able to read {folder}, where this trainer writes weights; it cannot. Set"
                    " engine.options.weights: pull, or weights_folder to a folder that both see."
                )
        for pulls, way in ((False, f"read new weights in {folder}"), (True, "fetch new weights over HTTP")):
            if urls := [server.url for server in servers if server.pulls == pulls]:
                self._fleet.notes.append(
                    f"vLLM servers that {way}: {', '.join(urls)} (engine.options.weights={weights})"
                )

    def send_model(self, weights: NamedTensors, version: int, *, only: set[str] | None = None) -> str:
        """Send a whole model to every reachable server, or to those of the given URLs; return its checksum as given.

        Raises:
            EngineError: a worker of a server received other weights, or no server has the new ones.
        """
        given = Checksum()
        with self._written(given.over(weights), version) as written:

            def deliver(server: Server) -> list[str]:
                if only is not None and server.url not in only:
                    return []
                with self._at_server(server, written) as folder:
                    return server.load(folder, version)

            for _, digests in self._fleet.on_each(deliver):
                for digest in digests:
                    check_checksum(written.digest, digest)
        return given.digest()

    def send_adapter(self, adapter: Adapter, version: int) -> str:
        """Send an adapter to every reachable server, under a new name; return its checksum as given.

        Raises:
            Refused: vLLM cannot apply it; nothing has changed.
            EngineError: a worker of a server received another adapter, or no server has the new one.
        """
        given, name = Checksum(), f"{self._run}-v{version}"
        with self._written(given.over(adapter.tensors), version, file=ADAPTER_FILES[0]) as written:
            config = written.folder / ADAPTER_FILES[1]
            config.write_text(json.dumps(dict(adapter.config)))
            written.files[config.name] = config.stat().st_size

            def deliver(server: Server) -> tuple[list[str], str | None]:
                with self._at_server(server, written) as folder:
                    digests = server.rpc("reasoner_checksum", str(folder))
                    return digests, server.load_adapter(name, folder)

            for server, (digests, refusal) in self._fleet.on_each(deliver):
                for digest in digests:
                    check_checksum(written.digest, str(digest))
                if refusal:
                    raise Refused(f"{server.url}: {refusal}")
        return given.digest()

    def without_base(self) -> set[str]:
        """Return the URLs of reachable servers that do not have this run's base model under the adapters."""
        return {server.url for server in self._fleet.reachable if not server.has_base(self._run)}

    @contextmanager
    def _written(self, weights: NamedTensors, version: int, *, file: str | None = None) -> Iterator[Written]:
        with self._store.written(weights, f"v{version}-{secrets.token_hex(4)}", file=file) as written:
            if any(server.pulls for server in self._fleet.reachable):
                self._store.serve([server.url for server in self._fleet.servers if server.pulls])
            yield written

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
