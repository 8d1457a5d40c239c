"""Writes go only to one's own regular files: a link in their place is replaced or refused, never followed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.verifiers.kit.test_files import ROWS, read, run, write
from verifiers.errors import FileError
from verifiers.own_files import open_own, write_own


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    (tmp_path / "precious").write_text("kept")
    return tmp_path / "precious"


def test_a_file_takes_the_place_of_a_link(tmp_path: Path, precious: Path) -> None:
    for name, target in (("to a file", precious), ("to nothing", tmp_path / "absent"), ("to a folder", tmp_path)):
        (tmp_path / name).symlink_to(target)
        write_own(tmp_path / name, b"new")
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_text() == "new"
    assert precious.read_text() == "kept"
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("how", ["append", "change"])
def test_nothing_is_added_to_what_a_link_leads_to(tmp_path: Path, precious: Path, how: str) -> None:
    (tmp_path / "link").symlink_to(precious)
    with pytest.raises(
        FileError, match=r"link must be a file of its own; it is a link to '.*precious'. Remove the link"
    ):
        open_own(tmp_path / "link", how)  # pyright: ignore[reportArgumentType]
    assert precious.read_text() == "kept"


def test_a_folder_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    write_own(tmp_path / "folder" / "file", b"one")
    with os.fdopen(open_own(tmp_path / "folder" / "file", "append"), "ab") as file:
        file.write(b" two")
    assert (tmp_path / "real" / "file").read_text() == "one two"


def test_devices_are_links_by_design(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_own(Path("/dev/stdout"), b"shown\n")
    write_own(Path("/dev/null"), b"gone")
    assert capfd.readouterr().out == "shown\n"
    assert Path("/dev/stdout").is_symlink()


def test_verdicts_go_to_a_file_of_their_own(tmp_path: Path, precious: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", ROWS[:2])
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "absent.jsonl")
    code, _, error = run(rows, "--verifier", "exact", "--output", str(tmp_path / "out.jsonl"))
    assert (code, "it is a link to" in error) == (2, True)
    assert not (tmp_path / "absent.jsonl").exists()
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    assert run(rows, "--verifier", "exact", "--output", str(tmp_path / "folder" / "out.jsonl"))[0] == 0
    assert len(read(tmp_path / "real" / "out.jsonl")) == 2
