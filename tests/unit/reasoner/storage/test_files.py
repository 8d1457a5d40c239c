"""Files and folders are complete or absent, and a disk that refuses a write is recognised by errno."""

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

from reasoner.policy.checkpoint import copy_model
from reasoner.storage.files import (
    DISK_FULL,
    HALF_WRITTEN,
    REMOVED,
    DiskError,
    RunError,
    as_disk_error,
    disk_fault,
    remove_folder,
    tidy,
    whole_folder,
    write_atomic,
    write_folder,
    write_text,
)
from reasoner.storage.find_model import latest_checkpoint

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


def test_a_folder_takes_the_place_of_the_older_one_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "model"
    for content in ("one", "two"):
        with whole_folder(target) as folder:
            (folder / "part").mkdir()
            (folder / "part" / "file").write_text(content)
            assert target.exists() is (content == "two")
        assert (target / "part" / "file").read_text() == content
    assert [path.name for path in target.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")

    def write() -> None:
        with whole_folder(target) as folder:
            (folder / "new").write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (target / "old").read_text() == "old"


def test_what_a_killed_process_left_is_no_checkpoint_and_stays_until_the_writer_clears_it(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "step-000001") as folder:
        (folder / "file").write_text("whole")
    for name in (".writing-step-000002", ".removed-step-000000"):
        (tmp_path / name).mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "step-000001"
    assert len(list(tmp_path.iterdir())) == 3, "a reader of a run that goes on removes nothing"
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_a_kill_while_a_folder_is_replaced_leaves_one_of_the_two(
    tmp_path: Path, renamed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "best"
    with whole_folder(target) as folder:
        (folder / "file").write_text("old")
    left, rename = [renamed], Path.rename

    def killed(path: Path, place: Path) -> Path:
        left[0] -= 1
        if left[0] < 0:
            raise SystemExit
        return rename(path, place)

    def replace() -> None:
        with whole_folder(target) as folder:
            (folder / "file").write_text("new")

    monkeypatch.setattr(Path, "rename", killed)
    if renamed < 2:
        with pytest.raises(SystemExit):
            replace()
    else:
        replace()
    monkeypatch.undo()
    tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (target / "file").read_text() == ("new" if renamed == 2 else "old")


def test_a_folder_goes_at_once_for_those_who_list_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "step-000001").mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # killed before anything in it is removed
    remove_folder(tmp_path / "step-000001")
    assert latest_checkpoint(tmp_path) is None


def test_a_copy_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "final"
    source.mkdir()
    (source / "weights").write_bytes(bytes(1 << 18))
    with small_files(), pytest.raises(DiskError, match=rf"{target} could not be written .*MiB free\). Name another"):
        write_folder(target, lambda folder: copy_model(source, folder), what=str(target), advice="Name another.")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "no space"), True),
        (OSError(errno.EROFS, "read-only"), True),
        (PermissionError(errno.EACCES, "not yours"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (RunError("our own"), False),
        (RuntimeError("no space left on device"), False),
    ],
)
def test_only_a_full_disk_is_told_as_one(error: Exception, told: bool, tmp_path: Path) -> None:
    line = r"^the records could not be written \(.*; \d+ MiB free\)\. Free disk space$"
    place = tmp_path / "not" / "there"
    with pytest.raises(DiskError if told else type(error), match=line if told else None):  # noqa: SIM117
        with as_disk_error("the records", place, "Free disk space", DISK_FULL):
            raise error


def test_a_file_that_does_not_fit_leaves_what_was_there(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old")
    with small_files(), pytest.raises(OSError, match="too large"):
        write_atomic(tmp_path / "file", bytes(1 << 18))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        write_atomic(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    """Replacing a link replaces the link itself, whatever its target; the folder may be reached through a link."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    (tmp_path / "real").mkdir()
    run = tmp_path / "run"
    run.symlink_to(tmp_path / "real")
    for name in ("page.html", "config.yaml", f"{HALF_WRITTEN}config.yaml"):
        (run / name).symlink_to(precious / "file")
    for name in ("final", f"{HALF_WRITTEN}final"):
        (run / name).symlink_to(precious)
    write_text(run / "page.html", "new")
    write_atomic(run / "config.yaml", b"new")
    with whole_folder(run / "final") as folder:
        (folder / "file").write_text("new")
    for name in ("page.html", "config.yaml", "final/file"):
        assert (tmp_path / "real" / name).read_text() == "new"
    (run / f"{REMOVED}x").symlink_to(precious)
    tidy(run)
    remove_folder(run / "final")
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "page.html"]
    assert (precious / "file").read_text() == "kept"
