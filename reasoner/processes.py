"""Communication between the processes of one run, which accelerate starts and connects.

Every process has the same problems in the same order, samples its share of them with its own engine, and trains on its
share of the rows. Only the main process (rank 0) writes. With a single process, every function returns its input.

What is exchanged here travels over a gloo group of its own, through host memory: such a call may wait for the slowest
completion of a step. Neither that wait nor those bytes belong to the group of the devices (NCCL), which adds gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

Item = TypeVar("Item")


_group: dist.ProcessGroup | None = None
"""The group of `connect`; None: torch's default group."""


class ProcessError(RuntimeError):
    """Another process of the run died, or did not arrive in time."""


def connect(*, wait_seconds: int) -> None:
    """Open the group for all later calls; every process must call it. It replaces the group of an earlier stage.

    Args:
        wait_seconds: longest wait for another process, which may still be sampling.
    """
    global _group
    if count() > 1:
        if _group is not None:
            dist.destroy_process_group(_group)
        made = dist.new_group(backend="gloo", timeout=timedelta(seconds=wait_seconds))
        assert isinstance(made, dist.ProcessGroup), made  # every process is a member
        _group = made


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
        RuntimeError: on the other processes, if the action failed on the main one, so that none waits forever.
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
        raise RuntimeError(f"the main process failed: {message}")


def same_everywhere(path: Path | None) -> Path | None:
    """Return the main process's path, on every process."""
    return gather(path)[0]


def leave() -> None:
    """Destroy the process group. Call it last, on every process, after a successful run.

    Otherwise a thread of gloo may still own tensors when the interpreter exits, which aborts the process: a successful
    run would count as failed (https://github.com/pytorch/pytorch/pull/179291). Do not call it in a process that failed:
    it could wait for others that wait for it (https://github.com/pytorch/torchtitan/pull/1342).
    """
    global _group
    _group = None
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
