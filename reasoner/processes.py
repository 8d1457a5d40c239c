"""Communication between the processes of one run, which accelerate starts and connects.

Every process has the same problems in the same order, samples its share of them with its own engine, and trains on its
share of the rows. Only the main process (rank 0) writes. With a single process, every function returns its input.

What is exchanged here travels over a gloo group of its own, through host memory: such a call may wait for the slowest
completion of a step. Neither that wait nor those bytes belong to the group of the devices (NCCL), which adds gradients.

A process that is killed closes its connections, and whoever waits for it is told at once. A machine that vanishes says
nothing. So every process keeps a connection to the main one, over which the kernels ask each other for a sign of life
(TCP keepalive); no Python runs for that, so a process may compute for as long as it likes. Nothing can interrupt a
thread that waits in gloo or NCCL: the process says what has happened, and ends.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

Item = TypeVar("Item")
CHECK_SECONDS, CHECKS = 5, 3
"""A connection is checked after so many seconds of silence, and is lost after so many checks without an answer."""
CONNECT_SECONDS = 20.0
GRACE_SECONDS = 30.0
"""Seconds for a process to end by itself once another one has died, which gloo and NCCL tell those that wait for it."""
HELLO = struct.Struct("!16sI")
BYE = b"."


_group: dist.ProcessGroup | None = None
"""The group of `connect`; None: torch's default group."""


class ProcessError(RuntimeError):
    """Another process of the run died, or did not arrive in time."""


def connect(*, wait_seconds: int) -> None:
    """Open the group for all later calls; every process must call it. It replaces the group of an earlier stage.

    Args:
        wait_seconds: longest wait for another process, which may still be sampling.
    """
    global _group, _watch
    if count() > 1:
        if _group is not None:
            dist.destroy_process_group(_group)
        made = dist.new_group(backend="gloo", timeout=timedelta(seconds=wait_seconds))
        assert isinstance(made, dist.ProcessGroup), made  # every process is a member
        _group = made
        if _watch is None:
            _watch = Watch(rank(), count(), lambda main: gather(main)[0])


@contextmanager
def _others() -> Iterator[None]:
    """Say of an error between the processes what to look for."""
    try:
        yield
    except RuntimeError as error:  # gloo raises nothing more specific
        late = "timed out" in str(error).lower()
        raise ProcessError(
            f"process {rank()} waited for another one, which {'did not arrive in time' if late else 'has ended'}."
            " Look for the first error among the processes"
            + (", or raise processes.wait_seconds if one was still sampling." if late else ".")
            + " Continue with --resume."
        ) from error


def group() -> dist.ProcessGroup | None:
    """Return the group of `connect`, for other libraries; None: torch's default group."""
    return _group


def count() -> int:
    """Return the number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank, 0 to count() - 1."""
    return dist.get_rank() if count() > 1 else 0


def is_main() -> bool:
    """Return True on the main process, the only one that writes."""
    return rank() == 0


def gather(item: Item) -> list[Item]:
    """Collect every process's item; return them in rank order, on every process."""
    if count() == 1:
        return [item]
    found: list[Item | None] = [None] * count()
    with _others():
        dist.all_gather_object(found, item, group=_group)
    return found  # pyright: ignore[reportReturnType]  (all are filled)


def wait() -> None:
    """Wait until every process has reached this call."""
    if count() > 1:
        with _others():
            dist.barrier(group=_group)


def on_main(action: Callable[[], None]) -> None:
    """Run the action on the main process while the others wait for it.

    Raises:
        ProcessError: on the other processes, if the action failed on the main one, so that none waits forever.
    """
    if count() == 1:
        action()
        return
    error: Exception | None = None
    if is_main():
        try:
            action()
        except Exception as caught:  # raised below, after the other processes are informed
            error = caught
    message = gather(repr(error) if error else None)[0]
    if error is not None:
        raise error
    if message is not None:
        raise ProcessError(f"the main process failed: {message}")


def same_everywhere(path: Path | None) -> Path | None:
    """Return the main process's path, on every process."""
    return gather(path)[0]


def says_another_ended(error: BaseException) -> bool:
    """Return True if an error says only that another process of the run has ended, or did not arrive.

    Where gradients are added, gloo raises a plain RuntimeError that names its file, and NCCL a DistError.
    """
    gloo = isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    return count() > 1 and (gloo or isinstance(error, ProcessError | dist.DistError))


def leave() -> None:
    """Destroy the process group. Call it last, on every process, after a successful run.

    Otherwise a thread of gloo may still own tensors when the interpreter exits, which aborts the process: a successful
    run would count as failed (https://github.com/pytorch/pytorch/pull/179291). Do not call it in a process that failed:
    it could wait for others that wait for it (https://github.com/pytorch/torchtitan/pull/1342).
    """
    global _group, _watch
    if _watch is not None:
        _watch.leave()
    _group = _watch = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


class Watch:
    """This process's connections: of the main process to all others, of the others to the main one."""

    def __init__(self, rank: int, count: int, tell: Callable[[tuple[int, bytes]], tuple[int, bytes]]) -> None:
        """Connect; every process of the run must do so at the same time.

        Args:
            rank: of this process; 0 is the main one, which the others reach at MASTER_ADDR.
            count: number of processes.
            tell: returns the main process's argument on every process.
        """
        self._peers: dict[socket.socket, str] = {}
        self._leaving = False
        if rank == 0:
            with _listener() as listener:
                port, key = tell((listener.getsockname()[1], os.urandom(16)))
                self._accept(listener, set(range(1, count)), key)
        else:
            port, key = tell((0, b""))
            self._reach(os.environ.get("MASTER_ADDR", "localhost"), port, HELLO.pack(key, rank))
        for one in self._peers:
            _keep_alive(one)
        threading.Thread(target=self._listen, name="reasoner-keepalive", daemon=True).start()

    def _accept(self, listener: socket.socket, missing: set[int], key: bytes) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        while missing and (left := deadline - time.monotonic()) > 0:
            listener.settimeout(left)
            with suppress(OSError):
                one, address = listener.accept()
                one.settimeout(left)
                theirs, rank = HELLO.unpack(one.recv(HELLO.size, socket.MSG_WAITALL).ljust(HELLO.size))
                if theirs == key:
                    missing.discard(rank)
                    self._peers[one] = f"process {rank} at {address[0].removeprefix('::ffff:')}"
        if missing:
            ranks = ", ".join(map(str, sorted(missing)))
            _say(
                f"cannot be reached at MASTER_ADDR by {ranks}: if its machine vanishes, others wait for"
                " processes.wait_seconds"
            )

    def _reach(self, host: str, port: int, hello: bytes) -> None:
        with suppress(OSError):  # the main process says so
            one = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
            one.sendall(hello)
            self._peers[one] = f"process 0 at {host}"

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for one in self._peers:
                one.setblocking(False)
                selector.register(one, selectors.EVENT_READ)
            while selector.get_map():
                for ready, _ in selector.select():
                    one = ready.fileobj
                    assert isinstance(one, socket.socket)
                    selector.unregister(one)
                    self._heard(one)

    def _heard(self, one: socket.socket) -> None:
        peer = self._peers[one]
        try:
            said = one.recv(1)
        except ConnectionResetError:
            said = b""
        except OSError as error:
            seconds = CHECK_SECONDS * (1 + CHECKS)
            return self._end(f"{peer} has not answered for {seconds} s ({error}): its machine or its network is gone")
        if said != BYE:
            late = threading.Timer(GRACE_SECONDS, self._end, [f"{peer} has ended"])
            late.daemon = True
            late.start()
        return None

    def _end(self, why: str) -> None:
        if not self._leaving:
            _say(f"{why}. This process ends too; continue with --resume")
            os.kill(os.getpid(), signal.SIGKILL)  # the main thread may wait in a collective for ever

    def leave(self) -> None:
        """Take leave of the others, at the end of a run."""
        self._leaving = True
        for one in self._peers:
            with suppress(OSError):
                one.sendall(BYE)
            one.close()


def _listener() -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _keep_alive(one: socket.socket) -> None:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    lost = CHECK_SECONDS * (1 + CHECKS)
    options = {"TCP_KEEPIDLE": CHECK_SECONDS, "TCP_KEEPINTVL": CHECK_SECONDS, "TCP_KEEPCNT": CHECKS}
    for name, value in {**options, "TCP_USER_TIMEOUT": 1000 * lost}.items():
        if (option := getattr(socket, name, None)) is not None:  # not every system has all of them
            one.setsockopt(socket.IPPROTO_TCP, option, value)


def _say(what: str) -> None:
    print(f"error: {what}.", file=sys.stderr, flush=True)


_watch: Watch | None = None
"""This process's connections; opened with the first group."""
