from __future__ import annotations

from pathlib import Path

import pytest

from reasoner.storage.files import whole_folder, write_atomic
from reasoner.storage.find_model import latest_checkpoint


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


def test_what_a_killed_process_left_is_no_checkpoint(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "step-000001") as folder:
        (folder / "file").write_text("whole")
        # as if the process had been killed while it wrote the next one
        (tmp_path / ".writing-step-000002").mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "step-000001"
    assert not (tmp_path / ".writing-step-000002").exists()


def test_a_file_is_replaced(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        write_atomic(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
