"""Several processes of one run. accelerate starts and joins them; what they share goes through here.

Every process holds the same problems in the same order, samples its share of them with its own engine, and learns from
its share of the rows; the main one (rank 0) alone writes. With one process every function gives back what it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist

Item = TypeVar("Item")


def count() -> int:
    """Processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's place among them."""
    return dist.get_rank() if count() > 1 else 0


def is_main() -> bool:
    """Whether this process writes."""
    return rank() == 0


def gather(item: Item) -> list[Item]:
    """Every process's item, by rank, on every process."""
    if count() == 1:
        return [item]
    found: list[Item | None] = [None] * count()
    dist.all_gather_object(found, item)
    return found  # pyright: ignore[reportReturnType]  (all are filled)


def wait() -> None:
    """Until every process is here."""
    if count() > 1:
        dist.barrier()


def on_main(action: Callable[[], None]) -> None:
    """Run by the main process; the others go on when it is done.

    Raises:
        RuntimeError: on the others, where it failed on the main one: none is left waiting for it.
    """
    if count() == 1:
        action()
        return
    error: Exception | None = None
    if is_main():
        try:
            action()
        except Exception as caught:  # raised below, once the others know
            error = caught
    said = gather(repr(error) if error else None)[0]
    if error is not None:
        raise error
    if said is not None:
        raise RuntimeError(f"the main process failed: {said}")


def same_everywhere(path: Path | None) -> Path | None:
    """The main process's choice of a path, for all."""
    return gather(path)[0]


def leave() -> None:
    """Let go of the others, where all is done: the last that a process of several does before it exits.

    Without it a thread of gloo's may still hold tensors while the interpreter ends, which aborts the process: a run
    that has succeeded would count as failed (https://github.com/pytorch/pytorch/pull/179291). Not for a process that
    failed: it could wait for others that wait for it (https://github.com/pytorch/torchtitan/pull/1342).
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
