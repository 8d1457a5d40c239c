"""A checkpoint that cannot be written or read: told by type and errno."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from reasoner.model.load import ModelError
from reasoner.policy.checkpoint import CheckpointError, copy_model, damage_told, disk_fault, load_progress

BIG = torch.zeros(1 << 16)


@contextmanager
def small_files() -> Iterator[None]:
    """No file may grow beyond 64 KiB: the operating system refuses the write, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def by_torch(path: Path) -> None:
    with path.open("wb") as file:
        torch.save(BIG, file)


@pytest.mark.parametrize(
    "write",
    [by_torch, lambda path: save_file({"a": BIG}, path), lambda path: path.write_bytes(bytes(1 << 18))],
    ids=["torch", "safetensors", "python"],
)
def test_a_refused_write_is_known_by_its_errno_whoever_wrote(write: Callable[[Path], object], tmp_path: Path) -> None:
    with small_files(), pytest.raises(Exception) as refused:  # noqa: PT011  (each library has a type of its own)
        write(tmp_path / "file")
    assert disk_fault(refused.value) == os.strerror(errno.EFBIG)


def test_a_full_device_is_known_where_torch_hides_it() -> None:
    with pytest.raises(Exception) as refused:  # noqa: PT011
        by_torch(Path("/dev/full"))
    assert disk_fault(refused.value) == os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: no space left on device"),
        FileNotFoundError(errno.ENOENT, "gone"),
        SafetensorError("x"),
    ],
)
def test_other_errors_are_no_disk_faults(error: Exception) -> None:
    assert disk_fault(error) is None


def test_a_copy_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(bytes(1 << 18))
    with small_files(), pytest.raises(CheckpointError, match=rf"{tmp_path}/final could not be written .*MiB free"):
        copy_model(tmp_path / "source", tmp_path / "final")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("path", "cause", "told"),
    [
        ("step-000001/model", None, CheckpointError),
        ("step-000001/model", ImportError("no flash"), ModelError),
        ("step-0000011/model", None, ModelError),
        ("Qwen/Qwen3-0.6B", None, ModelError),
        (None, None, ModelError),
    ],
)
def test_only_a_model_inside_the_checkpoint_is_its_damage(
    path: str | None, cause: Exception | None, told: type[Exception], tmp_path: Path
) -> None:
    inside = path if path is None or path.startswith("Qwen") else tmp_path / path
    folder = tmp_path / "step-000001"
    with pytest.raises(told), damage_told(folder, (ModelError,)):
        raise ModelError(f"{folder} is named in the text all the same.", path=inside) from cause


def test_progress_that_is_no_progress_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    file.write_text(
        '{"step": 3, "sampler": {"a": [1, null]}, "offsets": {"x": 2}, "state": {"best": NaN, "ended": true}}'
    )
    found = load_progress(tmp_path)
    assert (found.step, found.sampler, found.offsets, found.state.ended) == (3, {"a": [1, None]}, {"x": 2}, True)
    for text in ("", "[]", '{"step": 3}', '{"step": "x", "sampler": {}, "offsets": {}}'):
        file.write_text(text)
        with pytest.raises(CheckpointError, match=r"cannot be read .* Remove that folder"):
            load_progress(tmp_path)
