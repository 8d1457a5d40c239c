"""Files that are not regular: pipes without an end, links of both kinds; and numbers too long to be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from verifiers.jsonl import JsonLinesError, numbered_lines
from verifiers.own_files import write_own
from verifiers.plain_yaml import read_yaml


def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(JsonLinesError, match="it is a pipe"):
        next(numbered_lines(tmp_path / "rows.jsonl"))


def test_a_pipe_that_a_shell_made_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b'{"a": 1}\n')
    os.close(writer)
    assert list(numbered_lines(f"/dev/fd/{reader}")) == [(1, b'{"a": 1}\n')]
    os.close(reader)


@pytest.mark.parametrize("kind", ["pipe", "hard link", "symbolic link", "file", "nothing"])
def test_a_file_takes_the_place_of_whatever_is_there(kind: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    place = tmp_path / "page.html"
    make = {
        "pipe": lambda: os.mkfifo(place),
        "hard link": lambda: os.link(tmp_path / "precious", place),
        "symbolic link": lambda: place.symlink_to(tmp_path / "precious"),
        "file": lambda: place.write_text("old"),
        "nothing": lambda: None,
    }
    make[kind]()
    write_own(place, b"new")
    assert place.read_text() == "new"
    assert not place.is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "precious"]


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(IsADirectoryError):
        write_own(tmp_path / "page.html", b"new")


@pytest.mark.parametrize("number", ["0x" + "f" * 5000, "9" * 5000, "0b" + "1" * 5000])
def test_an_endless_number_is_no_yaml_of_ours(number: str) -> None:
    with pytest.raises(yaml.YAMLError, match="digits"):
        read_yaml(f"x: [{number}]")
    assert read_yaml(f"x: {'9' * 100}") == {"x": int("9" * 100)}
