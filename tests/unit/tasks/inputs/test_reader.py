"""The reader: every layout of every kind of file gives the same rows, or an error that says what to do."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks import TaskError
from tasks.inputs import has_split, is_local, read, splits
from tasks.inputs.hub import hub_splits
from tasks.inputs.names import SUFFIXES, Use, meant
from tasks.row_task import lacks_test

ROWS: list[dict[str, object]] = [{"prompt": f"{n}+{n}? €\u2028", "reference": str(2 * n)} for n in range(30)]
LINES = "".join(json.dumps(row, ensure_ascii=n % 2 == 0) + "\n" for n, row in enumerate(ROWS)).encode()
LIST = json.dumps(ROWS).encode()


def table(delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["prompt", "reference"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue().encode()


def arrow(kind: str) -> bytes:
    import pyarrow as pa

    rows = pa.Table.from_pylist(ROWS)
    sink = io.BytesIO()
    if kind == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(rows, sink, row_group_size=7)
    else:
        opened = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with opened(sink, rows.schema) as to:
            to.write_table(rows)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES),
        ("rows.jsonl", LINES.rstrip()),
        ("rows.jsonl", b"\xef\xbb\xbf" + LINES),
        ("rows.jsonl", LINES.replace(b"\n", b"\r\n\n")),
        ("rows.jsonl", LIST),
        ("rows.ndjson", LINES),
        ("rows.json", LINES),
        ("rows.json", LIST),
        ("rows.json", b"\xef\xbb\xbf \n" + LIST),
        ("rows.json", json.dumps(ROWS, indent=2).encode()),
        ("rows.jsonl", b"\n".join(json.dumps(row, indent=2).encode() for row in ROWS)),
        ("rows.json", json.dumps({"data": ROWS}).encode()),
        ("rows.json", json.dumps({"version": "1.0", "data": ROWS}, indent=1).encode()),
        ("rows.json", json.dumps({"train": ROWS, "test": ROWS[:3]}).encode()),
        ("rows.json", json.dumps({"rows": [{"row_idx": n, "row": row} for n, row in enumerate(ROWS)]}).encode()),
        ("rows.json", json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode()),
        ("rows.json", json.dumps({"columns": [*ROWS[0]], "data": [[*row.values()] for row in ROWS]}).encode()),
        ("rows.csv", table(",")),
        ("rows.csv", b"\xef\xbb\xbf" + table(";")),
        ("rows.tsv", table("\t")),
        ("rows.tsv", table(",")),
        ("rows.jsonl.gz", gzip.compress(LINES)),
        ("rows.json.gz", gzip.compress(LINES)),
        ("rows.csv.bz2", bz2.compress(table(","))),
        ("rows.jsonl.xz", lzma.compress(LINES)),
        ("rows.jsonl", gzip.compress(LIST)),
        ("rows", LINES),
        ("rows.parquet", arrow("parquet")),
        ("rows.arrow", arrow("stream")),
        ("rows.arrow", arrow("file")),
        ("rows.feather", arrow("file")),
        ("rows.data", arrow("parquet")),
    ],
)
def test_every_layout_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    rows = read(str(path), split="train")
    assert list(rows) == ROWS
    assert (len(rows), rows[7], rows[-1], rows[28:]) == (30, ROWS[7], ROWS[-1], ROWS[28:])
    assert [row for where, entry in rows.entries() if (row := entry.row)] == ROWS
    with pytest.raises(IndexError):
        rows[30]


def test_zstandard_is_unpacked(tmp_path: Path) -> None:
    import pyarrow as pa

    path = tmp_path / "rows.jsonl.zst"
    with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as to:
        to.write(LINES)
    assert list(read(str(path), split="train")) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.jsonl", b"", "must have at least one row"),
        ("rows.csv", b"prompt,reference\n", "must have at least one row"),
        ("rows.csv", b"", "must name its columns"),
        ("rows.csv", b"a,a\n1,2\n", "'a' appears twice"),
        ("rows.csv", b'a,b\n1,"2\n', "must be CSV: unexpected end of data"),
        ("rows.csv", ("a,b\n" + "1,2\n" * 5000 + "1,é\n").encode("latin-1"), "line 5002 is not .byte 0xe9.*CSV UTF-8"),
        ("rows.csv", "a,b\n1,2\n".encode("utf-16"), "is UTF-16. Save it as UTF-8"),
        ("rows.json", b'[{"a": 1}, {"a": 2}', "its list does not end. It may be truncated"),
        ("rows.json", b'[{"a": 1} {"a": 2}]', "there is no comma after entry 1"),
        ("rows.json", b'[{"a": 1}]\n[{"a": 2}]\n', "more follows after its list"),
        ("rows.json", b'[{"a": 1}, {"a": \xff}]', "must be JSON in UTF-8"),
        ("rows.json", b'{"a": {"b": 1}, ', "entry 1 is not"),
        ("rows.json", b'{"data": [{"a": 1}], "rows": [{"a": 2}]}', "several lists of rows: data, rows"),
        (
            "rows.json",
            b'{"validation": [{"a": 1}], "test": [{"a": 2}]}',
            "has no split 'train'; it has validation, test",
        ),
        ("rows.parquet", b"PAR1" + b"x" * 40 + b"PAR1", "cannot be read: .*Parquet"),
        ("rows.arrow", b"no arrow", "cannot be read"),
        ("rows.jsonl.gz", gzip.compress(LINES)[:-60], "cannot be read: .*ended before"),
        ("rows.jsonl.xz", LINES, "is named .xz but is not compressed so"),
        ("rows.xlsx", b"PK\x03\x04", "is a spreadsheet. Save the sheet as CSV"),
        ("rows.jsonl", b"PK\x03\x04", "is a ZIP archive"),
        ("rows.pkl", pickle.dumps(ROWS), "may run code when it is read"),
        ("rows.jsonl", pickle.dumps(ROWS), "may run code when it is read"),
        ("rows.py", b"raise SystemExit", "is a loading script, which is never run"),
        ("rows.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("rows.txt", b"Hello\n", "is not of a known kind. Give its name"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=says) as caught:
        list(read(str(tmp_path / name), split="train"))
    assert str(tmp_path / name) in str(caught.value)


def test_a_damaged_row_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"a": 1}\n{"a": \n[1]\n{"a": "\\ud800"}\n' + b'{"a": ' + b"[" * 300 + b"]" * 300 + b'}\n{"a": 6}\n'
    )
    found = [(where.rpartition("rows.jsonl ")[2], entry.fault) for where, entry in read(str(path), split="x").entries()]
    assert [where for where, _ in found] == [f"line {n}" for n in range(1, 7)]
    says = (
        "",
        "must be JSON",
        "must be a JSON object; got list",
        "half of a surrogate pair",
        "nests more than 200",
        "",
    )
    for (_, fault), said in zip(found, says, strict=True):
        assert said in fault
        assert bool(fault) == bool(said)
    with pytest.raises(TaskError, match="line 2 must be JSON"):
        list(read(str(path), split="x"))
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n1\n1,2,3\n,4\n")
    entries = [entry for _, entry in read(str(tmp_path / "rows.csv"), split="x").entries()]
    assert [entry.row for entry in entries] == [{"a": "1", "b": "2"}, None, None, {"a": None, "b": "4"}]
    assert "must have 2 cells (a, b); it has 3" in entries[2].fault


def test_lines_and_ratios_are_bounded_in_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = json.dumps({"a": "x" * 5000})
    monkeypatch.setattr("verifiers.jsonl.MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("tasks.inputs.json_files.MAX_LINE_BYTES", 1000)
    monkeypatch.setattr("tasks.inputs.json_files.PIECE", 100)
    monkeypatch.setattr("tasks.inputs.csv_files.MAX_LINE_BYTES", 1000)
    for name, text in (("a.jsonl", long), ("a.json", f"[{long}]"), ("a.csv", f"a\n{'x' * 5000}\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(TaskError, match=r"at most|field larger than field limit"):
            list(read(str(tmp_path / name), split="train"))
    monkeypatch.undo()
    monkeypatch.setattr("verifiers.jsonl.FREE_BYTES", 1 << 20)
    many = b'{"a": "' + b"x" * 1000 + b'"}\n'
    packed = {"b.jsonl.gz": gzip.compress, "b.jsonl.bz2": bz2.compress, "b.jsonl.xz": lzma.compress}
    for name, pack in packed.items():
        (tmp_path / name).write_bytes(pack(many * 30_000))
        with pytest.raises(TaskError, match="more than 100 times its compressed size"):
            list(read(str(tmp_path / name), split="train"))


def test_a_parquet_file_unpacks_to_no_more_than_other_files(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = tmp_path / "rows.parquet"
    text = pa.array(["x" * (30 << 20)] * 10)
    pq.write_table(pa.table({"a": text}), rows, compression="zstd", use_dictionary=False)
    assert rows.stat().st_size < 1 << 20
    with pytest.raises(TaskError, match="must unpack to at most 256 MiB"):
        read(str(rows), split="train")


def test_a_file_of_arrow_that_nests_too_deep_is_refused(tmp_path: Path) -> None:
    import pyarrow as pa

    kind = pa.int64()
    for _ in range(220):
        kind = pa.list_(kind)
    with pa.OSFile(str(tmp_path / "deep.arrow"), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("a", kind)])):
        pass
    with pytest.raises(TaskError, match="cannot be read"):
        list(read(str(tmp_path / "deep.arrow"), split="train"))


def test_values_of_arrow_are_such_as_json_can_hold(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {
        "day": [datetime.date(2026, 1, 2)],
        "exact": [decimal.Decimal("1.50")],
        "text": [b"abc"],
        "bytes": [b"\xff\x00"],
        "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    row = read(str(tmp_path / "rows.parquet"), split="train")[0]
    assert row == {"day": "2026-01-02", "exact": "1.50", "text": "abc", "bytes": "/wA=", "map": {"a": 1}}


def fill(root: Path, files: dict[str, int], start: int = 0) -> None:
    """Write files with these numbers of rows, numbered through."""
    for name, count in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"n": start + at} for at in range(count)]
        start += count
        if name.endswith(".parquet"):
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), place)
        else:
            place.write_text("".join(json.dumps(row) + "\n" for row in rows))


def numbers(path: object, split: str, config: str | None = None) -> list[object]:
    given = [str(one) for one in path] if isinstance(path, list) else str(path)
    return [row["n"] for row in read(given, split=split, config=config)]


@pytest.mark.parametrize(
    ("files", "train", "test"),
    [
        ({"train.jsonl": 2, "test.jsonl": 1}, [0, 1], [2]),
        ({"my_train.jsonl": 2, "my-test.jsonl": 1}, [0, 1], [2]),
        ({"data/train-00000-of-00002.parquet": 2, "data/train-00001-of-00002.parquet": 1}, [0, 1, 2], None),
        ({"train_0.jsonl": 1, "train_1.jsonl": 1, "test_0.jsonl": 1}, [0, 1], [2]),
        ({"train/a.jsonl": 1, "train/b.jsonl": 1, "dev/c.jsonl": 1}, [0, 1], [2]),
        ({"training/a.jsonl": 1, "evaluation/b.jsonl": 1}, [0], [1]),
        ({"part-000.jsonl": 1, "part-001.jsonl": 1, ".hidden.jsonl": 1}, [0, 1], [0, 1]),
        ({"train.jsonl": 1, "validation.jsonl": 1, "test.jsonl": 1}, [0], [2]),
        ({"train_prefs-00000-of-00001.parquet": 1, "test_prefs-00000-of-00001.parquet": 1}, [0], [1]),
        ({"shard_0/rows.jsonl": 1, "shard_1/rows.jsonl": 1}, [0, 1], [0, 1]),
    ],
)
def test_the_splits_of_a_folder_are_its_names(
    tmp_path: Path, files: dict[str, int], train: list[int], test: list[int] | None
) -> None:
    fill(tmp_path, files)
    (tmp_path / "notes.txt").write_text("no data")
    assert numbers(tmp_path, "train") == train
    if test is not None:
        assert numbers(tmp_path, "test") == test
        return
    assert has_split(str(tmp_path), "test") is False
    with pytest.raises(
        TaskError, match=r"has no split 'test'; it has train\. Set split_names, for example \{test: train\}"
    ):
        numbers(tmp_path, "test")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"a_train.jsonl": 1, "b_train.jsonl": 1},
            "is ambiguous between several sets of files: a_train.jsonl, b_train.jsonl",
        ),
        ({"train.jsonl": 1, "train.parquet": 1}, "is ambiguous between several sets"),
        ({"main/train.jsonl": 1, "other/train.jsonl": 1}, "its folder as the configuration"),
        ({"train_prefs.jsonl": 1, "train_sft.jsonl": 1}, "has no split 'train'; it has train_prefs, train_sft"),
        ({"notes.md": 1}, "has no data file"),
        ({"script.py": 1}, r"loading script \(script.py\), which is never run"),
    ],
)
def test_a_folder_that_could_mean_several_things_is_refused(tmp_path: Path, files: dict[str, int], says: str) -> None:
    fill(tmp_path, files)
    with pytest.raises(TaskError, match=says):
        numbers(tmp_path, "train")


def test_the_split_that_says_what_the_rows_are_for_is_taken_and_said(tmp_path: Path) -> None:
    both = [f"{split}_{use}-00000-of-00001.parquet" for split in ("train", "test") for use in ("prefs", "sft", "gen")]
    fill(tmp_path, dict.fromkeys(both, 1))
    uses: dict[Use, str] = {"preferences": "prefs", "demonstrations": "sft"}
    for use, word in uses.items():
        for split in ("train", "test"):
            rows = read(str(tmp_path), split=split, use=use)
            assert [Path(path).name for path in rows.paths] == [f"{split}_{word}-00000-of-00001.parquet"]
            assert rows.notes == (f"{tmp_path}: the split '{split}_{word}' is taken as '{split}'.",)
        assert has_split(str(tmp_path), "test", use=use) is True
    for use in (None, "problems"):
        with pytest.raises(TaskError, match="has no split 'train'; it has test_gen, test_prefs"):
            read(str(tmp_path), split="train", use=use)


def test_words_of_a_use_do_not_win_over_a_split_of_the_name_itself() -> None:
    assert meant("train", ["train", "train_sft"], use="demonstrations") == "train"
    assert meant("train", ["train_dpo", "train_prefs"], use="preferences") is None
    assert meant("train", ["train_sft", "train_sft_long"], use="demonstrations") == "train_sft"
    assert meant("test", ["train_sft", "train_prefs"], use="preferences") is None


def test_a_configuration_is_a_folder_or_what_the_card_says(tmp_path: Path) -> None:
    fill(tmp_path, {"main/train.jsonl": 1, "other/train.jsonl": 1})
    assert (numbers(tmp_path, "train", "other"), numbers(tmp_path, "train", "main")) == ([1], [0])
    with pytest.raises(TaskError, match="has no configuration 'mian'; it has the folders main, other"):
        numbers(tmp_path, "train", "mian")
    (tmp_path / "README.md").write_text(
        "---\nlicense: mit\nconfigs:\n- config_name: small\n  data_files:\n  - split: train\n    path: main/*\n"
        "  - split: check\n    path: [other/train.jsonl]\n- config_name: all\n  data_files: '*/train.jsonl'\n---\n# A\n"
    )
    assert (numbers(tmp_path, "train", "small"), numbers(tmp_path, "check", "small")) == ([0], [1])
    with pytest.raises(TaskError, match="has the configurations small, all"):
        numbers(tmp_path, "train")
    with pytest.raises(TaskError, match="is ambiguous between several sets"):
        numbers(tmp_path, "train", "all")
    with pytest.raises(TaskError, match=r"no configuration 'smal'; its README\.md names .* Did you mean 'small'"):
        numbers(tmp_path, "train", "smal")


@pytest.mark.parametrize(
    ("card", "says"),
    [
        ("configs:\n- data_files: ../x.jsonl", "may only name files inside its folder"),
        ("configs:\n- data_files: /etc/passwd", "may only name files inside its folder"),
        ("configs:\n- data_files: data/*.parquet", "which does not exist. Download it too"),
        ("configs: [", "must be YAML"),
    ],
)
def test_a_card_that_leads_astray_is_refused(tmp_path: Path, card: str, says: str) -> None:
    fill(tmp_path, {"train.jsonl": 1})
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    with pytest.raises(TaskError, match=says):
        numbers(tmp_path, "train")


def test_what_datasets_saved_is_read(tmp_path: Path) -> None:
    import datasets

    rows = [{"n": n} for n in range(5)]
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows[:2])}
    )
    both.save_to_disk(tmp_path / "both")
    both["train"].save_to_disk(tmp_path / "one", num_shards=2)
    assert (numbers(tmp_path / "both", "train"), numbers(tmp_path / "both", "test")) == ([0, 1, 2, 3, 4], [0, 1])
    assert (numbers(tmp_path / "one", "train"), splits(str(tmp_path / "one"))) == ([0, 1, 2, 3, 4], None)
    next((tmp_path / "one").glob("*.arrow")).unlink()
    with pytest.raises(TaskError, match=r"must have the files that its state\.json names; it lacks"):
        numbers(tmp_path / "one", "train")


def test_the_cache_of_the_hub_is_read_at_its_main_revision(tmp_path: Path) -> None:
    fill(tmp_path / "snapshots" / "abc", {"train.jsonl": 2})
    fill(tmp_path / "snapshots" / "old", {"train.jsonl": 1})
    (tmp_path / "refs").mkdir()
    (tmp_path / "refs" / "main").write_text("abc")
    assert numbers(tmp_path, "train") == [0, 1]


def test_patterns_and_lists(tmp_path: Path) -> None:
    fill(tmp_path, {"train-0.jsonl": 1, "train-1.jsonl": 1, "test-0.jsonl": 1})
    assert numbers(tmp_path / "train-*.jsonl", "train") == numbers(tmp_path / "train-*.jsonl", "test") == [0, 1]
    assert (numbers(tmp_path / "*.jsonl", "train"), numbers(tmp_path / "*.jsonl", "test")) == ([0, 1], [2])
    assert numbers([tmp_path / "test-0.jsonl", tmp_path / "train-0.jsonl"], "train") == [2, 0]
    assert read([str(tmp_path / "test-0.jsonl"), str(tmp_path / "train-0.jsonl")], split="x")[1] == {"n": 0}
    with pytest.raises(TaskError, match="no data file matches"):
        numbers(tmp_path / "valid-*.jsonl", "train")
    with pytest.raises(TaskError, match="there is no file or folder"):
        numbers([tmp_path / "train-0.jsonl", tmp_path / "none.jsonl"], "train")


@pytest.mark.parametrize(
    ("split", "found"),
    [
        ("train[:5%]", [0, 1]),
        ("train[5%:10%]", [2]),
        ("train[-3:]", [27, 28, 29]),
        ("train[10:12]", [10, 11]),
        ("train[90%:]", [27, 28, 29]),
        ("test[:1]+train[:1]", [30, 0]),
        ("train[28:]+test", [28, 29, 30, 31]),
    ],
)
def test_a_part_of_a_split_is_what_datasets_takes(tmp_path: Path, split: str, found: list[int]) -> None:
    fill(tmp_path, {"train-0.jsonl": 20, "train-1.jsonl": 10, "test.jsonl": 2})
    assert numbers(tmp_path, split) == found
    rows = read(str(tmp_path), split=split)
    assert [rows[at]["n"] for at in range(len(rows))] == found
    if "+" not in split:
        from datasets import ReadInstruction

        (told,) = ReadInstruction.from_spec(split).to_absolute({"train": 30, "test": 2})
        assert [*range(30)][told.from_ : told.to] == found


@pytest.mark.parametrize("split", ["train[", "train[1:2:3]", "", "train[a:b]"])
def test_a_split_that_is_none_is_refused(tmp_path: Path, split: str) -> None:
    fill(tmp_path, {"train.jsonl": 3})
    with pytest.raises(TaskError, match="a split must be a name, or a part such as"):
        numbers(tmp_path, split)
    with pytest.raises(TaskError, match="must have at least one row"):
        numbers(tmp_path, "train[3:]")


def test_hub_names_go_to_datasets_with_config_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[object] = []

    def load(name: str, config: str | None, *, split: str, trust_remote_code: bool) -> datasets.Dataset:
        assert not trust_remote_code
        asked.append((name, config, split))
        if split == "test":
            raise ValueError("Unknown split \"test\". Should be one of ['train'].\nmore")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(read("openai/gsm8k", split="train[:5%]", config="main")) == ROWS
    assert asked == [("openai/gsm8k", "main", "train[:5%]")]
    with pytest.raises(TaskError, match=r"Unknown split \"test\".*Set split_names, for example"):
        read("openai/gsm8k", split="test")
    assert splits("openai/gsm8k") is None


def test_a_hub_split_of_another_name_is_found_by_what_datasets_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    there, asked = ["train_prefs", "train_sft", "test_prefs", "test_sft"], list[str]()

    def load(name: str, config: str | None, *, split: str, trust_remote_code: bool) -> datasets.Dataset:
        asked.append(split)
        if split.partition("[")[0] not in there:
            raise ValueError(f'Unknown split "{split.partition("[")[0]}". Should be one of {there}.')
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = read("org/set", split="train[:5%]", use="preferences")
    assert (list(rows), asked) == (ROWS, ["train[:5%]", "train_prefs[:5%]"])
    assert rows.notes == ("org/set: the split 'train_prefs[:5%]' is taken as 'train[:5%]'.",)
    with pytest.raises(TaskError, match="Unknown split"):
        read("org/set", split="train", use="problems")
    with pytest.raises(TaskError, match="Unknown split"):
        read("org/set", split="validation", use="preferences")


def test_the_hub_is_asked_for_splits_once_and_not_where_the_data_was_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from datasets import config as settings

    asked: list[object] = []

    def names(name: str, config: str | None) -> list[str]:
        asked.append((name, config))
        return ["train", "test"]

    monkeypatch.setattr(datasets, "get_dataset_split_names", names)
    monkeypatch.setattr(settings, "HF_DATASETS_CACHE", tmp_path)
    hub_splits.cache_clear()
    for config, splits_there in (("main", ["train"]), ("socratic", ["train", "test"])):
        info = tmp_path / "Org___my_set-v1" / config / "0.0.0" / "abc" / "dataset_info.json"
        info.parent.mkdir(parents=True)
        info.write_text(json.dumps({"splits": {name: {"num_examples": 1} for name in splits_there}}))
    assert hub_splits("Org/mySet-v1", config="main") == ["train"]
    assert hub_splits("Org/mySet-v1", config="socratic") == ["train", "test"]
    assert lacks_test("Org/mySet-v1", config="main") == "Org/mySet-v1"
    assert lacks_test("Org/mySet-v1", config="socratic") is None
    assert asked == []
    info.write_text("{damaged")
    for config in (None, None, "third"):  # no config is named of two; another one
        assert hub_splits("Org/mySet-v1", config=config) == ["train", "test"]
    hub_splits.cache_clear()
    assert hub_splits("Org/mySet-v1", config="socratic") == ["train", "test"]
    assert asked == [("Org/mySet-v1", None), ("Org/mySet-v1", "third"), ("Org/mySet-v1", "socratic")]
    hub_splits.cache_clear()


@pytest.mark.parametrize("path", ["rows.csv", "./data", "/data", "~/data", "a/b/*.parquet", "rows.XLSX", *SUFFIXES])
def test_a_path_of_this_disk_is_no_name_of_the_hub(path: str) -> None:
    assert is_local(path if not path.startswith(".") or path == "./data" else f"rows{path}")
    assert not is_local("openai/gsm8k")
    assert not is_local("gsm8k")


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import sys

    for name in ("pyarrow", "pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    return


@pytest.mark.usefixtures("without_data")
def test_what_needs_the_extra_names_it_and_text_does_not_need_it(tmp_path: Path) -> None:
    contents: dict[str, bytes] = {
        "a.jsonl": LINES,
        "a.json": LIST,
        "a.csv": table(","),
        "a.jsonl.gz": gzip.compress(LINES),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert list(read(str(tmp_path / name), split="train")) == ROWS
    for name, content in {"a.parquet": b"PAR1", "a.arrow": b"ARROW1", "a.jsonl.zst": b"\x28\xb5\x2f\xfd"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TaskError, match=r"pip install 'reasoner-rl\[data\]'"):
            list(read(str(tmp_path / name), split="train"))
    with pytest.raises(TaskError, match=r"pip install 'reasoner-rl\[data\]'"):
        read("openai/gsm8k", split="train")


def test_a_folder_of_many_shards_holds_few_files_open(tmp_path: Path) -> None:
    import os

    fill(tmp_path, {f"train-{n:05d}-of-00040.parquet": 1 for n in range(40)})
    rows = read(str(tmp_path), split="train")
    before = len(os.listdir("/proc/self/fd"))
    assert (len(rows), sum(1 for _ in rows)) == (40, 40)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_nothing_is_kept_in_memory(tmp_path: Path) -> None:
    """Iterating over 16 MiB, and reading its last row, takes a small part of that memory."""
    import tracemalloc

    path = tmp_path / "rows.jsonl"
    line = json.dumps({"a": "x" * 1000}) + "\n"
    with path.open("w") as file:
        for _ in range(16):
            file.write(line * 1000)
    tracemalloc.start()
    rows = read(str(path), split="train")
    assert sum(1 for _ in rows) == 16_000
    assert rows[-1] == json.loads(line)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
