"""Files of JSON lines: line numbers, skipped lines, refused lines and their messages."""

from __future__ import annotations

import gzip
import io
import pickle
import re
import sys
from pathlib import Path

import pytest

from verifiers.jsonl import MAX_LINE_BYTES, JsonLinesError, numbered_lines, parse_line, read_jsonl

ROWS = '\ufeff\n{"a": "\u2028"}\n \t\r\n{"a": "\\ud83d\\ude00"}'.encode()


def test_objects_come_with_the_number_of_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(ROWS))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ROWS)))
    for path in (tmp_path / "rows.jsonl", str(tmp_path / "rows.jsonl.gz"), "-"):
        assert list(read_jsonl(path)) == [(2, {"a": "\u2028"}), (4, {"a": "\U0001f600"})]
    assert [number for number, _ in read_jsonl(tmp_path / "rows.jsonl", growing=True)] == [2]


@pytest.mark.parametrize(
    ("name", "content", "line", "reason"),
    [
        ("rows.jsonl", b'{}\n{"a": 1\n', 2, "must be JSON in UTF-8: Expecting"),
        ("rows.jsonl", b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n", 2, "must be JSON in UTF-8: Unexpected UTF-8 BOM"),
        ("rows.jsonl", b'{}\n\n{"a": "\xe9"}\n', 3, "must be JSON in UTF-8: .*can't decode byte 0xe9"),
        ("rows.jsonl", b'{"a": "\\uD800"}\n', 1, r"contains '\\ud800', half of a surrogate pair"),
        ("rows.jsonl", b"[1]\n", 1, "must be a JSON object; got list"),
        ("rows.jsonl", b"[" * 100_000, 1, "must be JSON in UTF-8: maximum recursion"),
        ("rows.jsonl", gzip.compress(b"{}\n", mtime=0), 1, "It looks gzipped: name it .gz"),
        ("rows.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:30], 0, "cannot be read: .*ended before"),
        ("rows.jsonl.gz", b"{}\n", 0, "cannot be read: Not a gzipped file"),
        ("missing/rows.jsonl", None, 0, "cannot be read: .*No such file"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None, line: int, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JsonLinesError) as caught:
        list(read_jsonl(path))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.path, error.line, error.exit_code) == (path, line, 2)
    assert re.search(reason, error.reason)
    assert str(error) == f"{path}{f' line {line}' if line else ''} {error.reason}"


def packed(path: Path, pieces: list[bytes]) -> Path:
    with gzip.open(path, "wb", compresslevel=9) as file:
        for piece in pieces:
            file.write(piece)
    return path


def test_a_line_and_a_packed_file_have_limits(tmp_path: Path) -> None:
    line = b'{"a": "' + b"x" * (20 << 20) + b'"}\n'
    for name, one in (("long.jsonl", b" " * (MAX_LINE_BYTES + 1)), ("long.jsonl.gz", b" " * (MAX_LINE_BYTES + 1))):
        if name.endswith(".gz"):
            packed(tmp_path / name, [one])
        else:
            (tmp_path / name).write_bytes(one)
        with pytest.raises(JsonLinesError, match=r"line 1 must be at most 64 MiB long"):
            list(numbered_lines(tmp_path / name))
    bomb = packed(tmp_path / "bomb.jsonl.gz", [line] * 14)
    with pytest.raises(JsonLinesError, match=r"line 13 is reached after 260 MiB, more than 100 times"):
        list(numbered_lines(bomb))
    blank = packed(tmp_path / "blank.jsonl.gz", [b"\n" * (1 << 20)] * 2)
    assert list(numbered_lines(blank)) == []
    assert len(list(read_jsonl(packed(tmp_path / "rows.jsonl.gz", [line] * 3)))) == 3


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300, "1" * 5000, '{"a": ' + "9" * 5000 + "}"],
)
def test_deep_lines_and_endless_numbers_are_no_json_of_ours(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"deep|recursion|digits"):
        parse_line(text.encode())
    (tmp_path / "rows.jsonl").write_text(text + "\n")
    with pytest.raises(JsonLinesError, match="must be JSON in UTF-8"):
        list(read_jsonl(tmp_path / "rows.jsonl"))


def test_wide_lines_are_not_deep() -> None:
    assert len(parse_line(b"[" + b"[[1],{}]," * 5000 + b"1]")) == 5001  # pyright: ignore[reportArgumentType]
    assert parse_line(b"[" * 190 + b"]" * 190)
