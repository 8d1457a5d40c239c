"""Whatever a file contains, the reader and the formats end in rows or in the package's own error."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks import TaskError
from tasks.inputs import read, records
from tasks.inputs.formats import UnfitRow, formats, recognise
from verifiers.columns import NoColumn, column_of

SETTINGS = settings(max_examples=50, deadline=None, suppress_health_check=[*HealthCheck], derandomize=True)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["user", "assistant", "human", "gpt", "#### 4", "\\boxed{2}", "A", "[[", '{"a":1}']
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | TEXTS
NAMES = sorted(
    {str(key) for one in formats() for key in one.example} | {"role", "content", "from", "value", "text", "label"}
)
KEYS = st.sampled_from(NAMES) | st.text(max_size=4)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=6)
NAME = st.sampled_from(
    [
        "r.jsonl",
        "r.json",
        "r.csv",
        "r.tsv",
        "r.parquet",
        "r.arrow",
        "r.feather",
        "r.jsonl.gz",
        "r.csv.bz2",
        "r.json.xz",
        "r",
        "r.zst",
    ]
)
PACKS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def goes_through(path: Path) -> int:
    """Return the rows, by all ways of access; an error that is not the package's own is raised."""
    count = 0
    with own_error(TaskError, str(path)):
        rows = read(str(path), split="train[:90%]")
        count = sum(entry.row is not None or len(entry.fault) > 5 for _, entry in rows.entries())
        assert count == len(rows)
        _ = rows[len(rows) - 1]
    with own_error(TaskError, str(path)):
        assert all(isinstance(row, str | dict) for _, row in records(str(path)))
    return count


@contextmanager
def own_error(kind: type[Exception], says: str) -> Iterator[None]:
    """Let a detailed error of the package pass."""
    try:
        yield
    except kind as error:
        if says not in str(error) or not str(error):
            raise AssertionError(f"{error} must say {says}") from error


@SETTINGS
@given(name=NAME, content=st.binary(max_size=300))
def test_any_bytes(name: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes(content)
    goes_through(path)


@SETTINGS
@given(
    rows=st.lists(OBJECTS, min_size=1, max_size=5),
    layout=st.sampled_from(["lines", "list", "indented", "data", "one"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-8-cut"]),
    pack=st.sampled_from([*PACKS]),
    cut=st.floats(0, 1),
    name=st.sampled_from(["r.json", "r.jsonl", "r.csv", "r"]),
)
def test_damaged_json(
    rows: list[dict[str, object]],
    layout: str,
    encoding: str,
    pack: str,
    cut: float,
    name: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    written = {
        "lines": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "list": json.dumps(rows, ensure_ascii=False),
        "indented": json.dumps(rows, indent=1),
        "data": json.dumps({"data": rows}),
        "one": "\n".join(json.dumps(row, indent=2) for row in rows),
    }[layout]
    content = written.encode(encoding.removesuffix("-cut"), errors="replace")
    content = content[: int(len(content) * cut)] if cut < 0.7 else content
    packed = PACKS[pack](content)
    path = tmp_path_factory.mktemp("json") / f"{name}{pack}"
    path.write_bytes(packed[: int(len(packed) * cut)] if encoding.endswith("-cut") else packed)
    goes_through(path)


@SETTINGS
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from("abc"), st.none() | TEXTS | st.lists(TEXTS, max_size=2), max_size=3),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 10**6),
)
def test_damaged_parquet_and_arrow(
    rows: list[dict[str, object]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        made = pa.Table.from_pylist([{"n": 1, **row} for row in rows])
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return
    source, folder = random.Random(seed), tmp_path_factory.mktemp("arrow")
    for name in ("r.parquet", "r.arrow"):
        sink = io.BytesIO()
        if name == "r.parquet":
            pq.write_table(made, sink)
        else:
            with pa.ipc.new_stream(sink, made.schema) as to:
                to.write_table(made)
        content = bytearray(sink.getvalue())
        for _ in range(source.choice([0, 1, 8])):
            content[source.randrange(len(content))] = source.randrange(256)
        path = folder / name
        path.write_bytes(content[: source.randrange(len(content)) if source.random() < 0.3 else None])
        goes_through(path)


@pytest.mark.parametrize("deep", [b"[", b'{"a":', b'[{"a":', b'{"data":['])
@pytest.mark.parametrize("ending", [b"", b"\n", b'"', b"}"])
def test_deep_nesting_and_long_lines(tmp_path: Path, deep: bytes, ending: bytes) -> None:
    for name in ("r.json", "r.jsonl", "r"):
        path = tmp_path / name
        for content in (deep * 50_000, b'{"a": 1}\n' + deep * 50_000, deep + b'"' + b"x" * (1 << 20)):
            path.write_bytes(content + ending)
            goes_through(path)


def test_lines_of_a_mebibyte_are_rows(tmp_path: Path) -> None:
    row = json.dumps({"a": "\u20ac" * (1 << 20)}, ensure_ascii=False)
    for name, text in {
        "r.jsonl": f"{row}\n{row}\n",
        "r.json": f"[{row},{row}]",
        "r.csv": f"a\n{'x' * (1 << 20)}\n" * 1,
    }.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert goes_through(tmp_path / name) in (1, 2)


@settings(SETTINGS, max_examples=120)
@given(row=OBJECTS)
def test_no_row_breaks_a_format(row: dict[str, object]) -> None:
    for one in formats():
        recognise([row], use=one.use)
        with own_error(UnfitRow, ""):
            assert isinstance(one.read(row), Mapping)
        if one.gather:
            assert all(isinstance(found, Mapping) for _, found in one.gather([("a", row), ("b", row)]))


@settings(SETTINGS, max_examples=120)
@given(row=OBJECTS, path=st.text("ab.0-", max_size=8) | KEYS)
def test_no_path_breaks_a_column(row: dict[str, object], path: str) -> None:
    with own_error(NoColumn, repr(path)):
        column_of(row, path)
