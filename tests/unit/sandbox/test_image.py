"""File trees that cannot be created give one sentence, however many files did not fit."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest

from sandbox import SandboxError
from sandbox import image as builder


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            shutil.Error([(f"/from/{n}", f"/to/{n}", "[Errno 28] No space left on device") for n in range(2000)]),
            r"no space is left there; free about \d+ MiB\.",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/to/x"), r"no space is left there"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), r"no space is left there"),
        (PermissionError(errno.EACCES, "Permission denied", "/to"), r": Permission denied\."),
        (OSError(errno.EROFS, "Read-only file system"), r": Read-only file system\."),
    ],
)
def test_what_keeps_a_tree_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def fail(root: Path, packages: Iterable[str], system: object) -> None:
        (root / "half").write_text("")
        raise error

    monkeypatch.setattr(builder, "cache_folder", lambda: tmp_path / "reasoner" / "sandbox")
    monkeypatch.setattr(builder, "build_root", fail)
    with pytest.raises(SandboxError, match=said) as caught:
        builder.ensure_root()
    assert len(str(caught.value)) < 400
    left = [path.name for path in (tmp_path / "reasoner" / "sandbox").iterdir()]
    assert [name for name in left if not name.endswith(".lock")] == []  # no half tree
