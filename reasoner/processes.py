"""Communication between the processes of one run, which accelerate starts and connects.

Every process has the same problems in the same order, samples its share of them with its own engine, and trains on its
share of the rows. Only the main process (rank 0) writes. With a single process, every function returns its input.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

Item = TypeVar("Item")


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
    dist.all_gather_object(found, item)
    return found  # pyright: ignore[reportReturnType]  (all are filled)


def wait() -> None:
    """Wait until every process has reached this call."""
    if count() > 1:
        dist.barrier()


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
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
