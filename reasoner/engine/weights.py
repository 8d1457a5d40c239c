"""New weights on their way to servers: as files in the engine's dtype, read in place or fetched from here over HTTP."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor

from reasoner.engine import weight_host
from reasoner.engine.base import EngineError, NamedTensors
from reasoner.engine.check import Checksum
from reasoner.engine.fetch import Source
from reasoner.engine.remote import Lost
from verifiers.serve.addresses import http_address

BUCKET_BYTES = 1 << 30
"""Bytes of tensors that are collected in memory before they are written to a file (ours)."""


@dataclass(frozen=True)
class Written:
    """Weights of one version in files."""

    folder: Path
    files: dict[str, int]
    """Bytes of each file."""
    digest: str
    """Checksum of the tensors in the files."""

    def remove(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())


def in_dtype(weights: NamedTensors, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights with every matrix in `dtype`.

    Vectors (norms, biases) are left as they are: they are few, and an engine may hold some of them in float32.
    """
    for name, tensor in weights:
        yield name, tensor.to(dtype) if tensor.is_floating_point() and tensor.dim() > 1 else tensor


def write_buckets(
    weights: NamedTensors, folder: Path, *, bucket_bytes: int = BUCKET_BYTES, file: str | None = None
) -> Written:
    """Write weights to safetensors files of at most `bucket_bytes`; a larger tensor has a file of its own.

    No more than one bucket is held in memory. With `file` all go into one file of that name.
    """
    from safetensors.torch import save_file

    files: dict[str, int] = {}
    bucket: dict[str, Tensor] = {}
    sent = Checksum()

    def flush() -> None:
        name = file or f"weights-{len(files) + 1:05d}.safetensors"
        save_file(bucket, folder / name)
        files[name] = (folder / name).stat().st_size
        bucket.clear()

    held = 0
    for name, tensor in sent.over(weights):
        size = tensor.numel() * tensor.element_size()
        if bucket and held + size > bucket_bytes and file is None:
            flush()
            held = 0
        bucket[name] = tensor.contiguous().cpu()
        held += size
    flush()
    return Written(folder, files, sent.digest())


class WeightHost:
    """The process that serves the files to servers, so that their bytes take no time from training."""

    def __init__(self, folder: Path, *, host: str, port: int, key: str) -> None:
        """Start the process and wait until it listens.

        Args:
            folder: files in its folders are served.
            host: address to listen on.
            port: port to listen on; 0: a free one.
            key: key that clients must send.
        Raises:
            EngineError: it cannot listen there.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-I", weight_host.__file__, str(folder), host, str(port)],
            env=os.environ | {weight_host.WEIGHT_KEY_VARIABLE: key},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal reaches only the trainer
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        said = self._process.stdout.readline().strip()
        if not said.isdecimal():
            why = self._process.stderr.read().strip().splitlines()[-1:]
            self.close()
            raise EngineError(
                f"weights must be served at {host}:{port}, where servers fetch them; {''.join(why) or 'it ended'}. Set"
                " engine.options.weights_host and weights_port to an address of this machine and a free port."
            )
        self.port = int(said)

    @property
    def running(self) -> bool:
        """True until the process ends."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


class WeightStore:
    """Folder through which servers get new weights."""

    def __init__(self, folder: Path, *, dtype: str, host: str | None, port: int) -> None:
        """Use a folder for the files.

        Args:
            folder: folder of this trainer alone.
            dtype: dtype of matrices in the files.
            host: address at which servers fetch files; None: that from which this machine reaches each server.
            port: port at which servers fetch files; 0: a free one.
        """
        self.folder = folder
        self._dtype = getattr(torch, dtype)
        self._host, self._port, self._key = host, port, secrets.token_urlsafe(24)
        self._process: WeightHost | None = None

    def write(self, weights: NamedTensors, name: str, *, file: str | None = None) -> Written:
        """Write the weights to files.

        Args:
            weights: names and tensors.
            name: name of the files' folder.
            file: name of the one file that takes them all; None: as many as their size asks for.
        Raises:
            EngineError: the folder has no room for them.
        """
        from safetensors import SafetensorError

        folder = self.folder / name
        folder.mkdir()
        try:
            return write_buckets(in_dtype(weights, self._dtype), folder, file=file)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise EngineError(
                f"weights could not be written to {folder}: {error}. Free some of it (a container: --shm-size), or"
                " set engine.options.weights_folder to a folder with more room."
            ) from error

    def serve(self, urls: list[str]) -> None:
        """Make sure that the process that serves the files runs, for servers at these addresses.

        Raises:
            EngineError: it cannot listen.
        """
        if self._process is not None and self._process.running:
            return
        self.close()
        ours = {self._host} if self._host else {address for url in urls if (address := address_towards(url))}
        host = ours.pop() if len(ours) == 1 else "0.0.0.0"  # everywhere, if servers see this machine differently
        self._process = WeightHost(self.folder, host=host, port=self._port, key=self._key)

    def source(self, written: Written, *, url: str, into: Path) -> Source:
        """Return what the server at `url` must know to fetch the files.

        Raises:
            Lost: this machine has no way to the server.
        """
        assert self._process is not None, "serve first"
        host = self._host or address_towards(url)
        if host is None:
            raise Lost(f"{url}: this machine has no way to it")
        return Source(
            url=f"{http_address(host, self._process.port)}/{written.folder.name}",
            key=self._key,
            files=written.files,
            into=str(into),
        )

    def close(self) -> None:
        """Stop serving."""
        if self._process is not None:
            self._process.close()
            self._process = None


def address_towards(url: str) -> str | None:
    """Return this machine's address as the machine at `url` sees it; None if there is no way to it. Nothing is sent."""
    at = urlsplit(url)
    assert at.hostname is not None
    try:
        family, kind, *_, address = socket.getaddrinfo(at.hostname, at.port or 80, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # of a datagram socket: only chooses the route
            return str(probe.getsockname()[0])
    except OSError:
        return None
