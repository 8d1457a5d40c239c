from __future__ import annotations

import base64
import gzip
import html
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reasoner.observe.report import build_report, write_report
from reasoner.observe.report.charts import Graded, difficulty_chart
from reasoner.observe.report.data import packed
from tests.unit.reasoner.observe.analysis.test_rounds import write_stage
from tests.unit.reasoner.runs import make_history, make_records, write_run


def unpack(page: str, name: str) -> object:
    found = re.search(rf'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    assert found, name
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def test_the_page_holds_every_rollout_and_asks_for_nothing(tmp_path: Path) -> None:
    made = make_records()
    page = build_report(write_run(tmp_path / "run", made), audit=20)
    index = unpack(page, "s0-0")
    assert isinstance(index, dict)
    assert len(index["step"]) == len(made.rollouts)
    assert [index["outcomes"][i] for i in index["outcome"]] == [row["verdict"]["outcome"] for row in made.rollouts]
    texts = [row["completion"] for piece in range(1, 4) for row in unpack(page, f"s0-{piece}")]  # type: ignore[attr-defined]
    assert texts == [row["completion"] for row in made.rollouts]
    assert sum(value is not None for value in index["held_out"]) == 20
    markup = re.sub(r"<script[^>]*>.*?</script>|<style>.*?</style>", "", page, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)\s*=\s*"(?!data:|#)', markup)
    styles = re.findall(r'<(?:style|script type="text/plain" id="library-[^"]*css")>(.*?)</', page, flags=re.DOTALL)
    assert len(styles) == 3
    assert not re.search(r"url\((?!data:)", "".join(styles))
    assert "{{" not in markup


def test_the_page_has_the_rounds_of_a_run(tmp_path: Path) -> None:
    for number, last in enumerate([[0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]):
        write_stage(tmp_path / f"{number}-dpo", "dpo", {0: [0.0, 0.5, 1.0, 1.0], 3: last})
    head = unpack(build_report(tmp_path, audit=0), "head")
    assert [stage["rounds"] for stage in head["stages"]] == [head["stages"][0]["rounds"]] * 2  # type: ignore[index, call-overload]
    rounds = head["stages"][0]["rounds"]  # type: ignore[index, call-overload]
    shown = [(row["stage"], row["estimate"], row["win_rate"] and row["win_rate"][0]) for row in rounds]
    assert shown == [
        ("0-dpo", [0.625, 0.0, 1.0], None),
        ("0-dpo", [0.75, 0.0, 1.0], 0.625),
        ("1-dpo", [1.0, 0.0, 1.0], 0.75),
    ]
    alone = unpack(build_report(tmp_path / "0-dpo", audit=0), "head")
    assert alone["stages"][0]["rounds"] == []  # type: ignore[index, call-overload]


@pytest.mark.parametrize("name", ["{{js}}", "{{data}}", "{{title}}{{css}}", "<script>alert(1)</script>", "a & b"])
def test_a_run_may_have_any_name(tmp_path: Path, name: str) -> None:
    """A run named like the page's own marks: the name is in the title, and the rest of the page is unchanged."""
    name = name.replace("/", "_")
    plain = build_report(write_run(tmp_path / "run", make_records(steps=2)), audit=0)
    page = build_report(write_run(tmp_path / name, make_records(steps=2)), audit=0)
    assert f"<title>{html.escape(name)}</title>" in page
    assert unpack(page, "head")["title"] == name  # type: ignore[index, call-overload]
    for mark in ("<script", "</script>", "</style>"):
        assert page.count(mark) == plain.count(mark)
    assert page.rpartition("<script>")[2] == plain.rpartition("<script>")[2]


def test_the_page_takes_the_place_of_a_link(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_records(steps=2))
    (tmp_path / "precious").write_text("kept")
    (run / "report.html").symlink_to(tmp_path / "precious")
    write_report(run, run / "report.html", audit=0)
    assert (tmp_path / "precious").read_text() == "kept"
    assert not (run / "report.html").is_symlink()
    assert unpack((run / "report.html").read_text(), "head")["title"] == "run"  # type: ignore[index, call-overload]
    (tmp_path / "linked").symlink_to(run)
    assert write_report(tmp_path / "linked", tmp_path / "linked" / "report.html", audit=0).bytes > 0


def test_transcripts_of_a_constitutional_stage_are_pieces_behind_the_rollouts(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_records(steps=2))
    told = [{"step": 1, "group": at, "answer": f"answer {at}"} for at in range(300)]
    (run / "transcripts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    page = build_report(run, audit=0)
    (stage,) = unpack(page, "head")["stages"]  # type: ignore[index, call-overload]
    first, pieces = stage["transcripts"]["first"], stage["transcripts"]["pieces"]
    assert (stage["transcripts"]["count"], pieces) == (300, 2)
    assert [row for at in range(pieces) for row in unpack(page, f"s0-{first + at}")] == told  # type: ignore[attr-defined]


def test_packing_is_the_same_bytes_for_the_same_value(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    for now in (1e9, 1.7e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        found.append(packed({"a": [1, "é"]}))
    assert found[0] == found[1]
    raw = base64.b64decode(found[0])
    assert raw[4:8] == bytes(4), "gzip's MTIME (RFC 1952, section 2.3)"
    assert json.loads(gzip.decompress(raw)) == {"a": [1, "é"]}


def test_pass_rates_by_difficulty() -> None:
    history = make_history(make_records(steps=4))
    chart = difficulty_chart([Graded(row.step, row.difficulty, row.right) for row in history.graded])
    assert chart is not None
    assert chart["x"] == [1, 2, 3, 4]
    easy = [row for row in history.rows if row.step == 1 and row.difficulty == 0]
    assert chart["series"][0]["values"][0] == sum(row.right for row in easy) / len(easy)


def test_text_that_looks_like_markup_cannot_end_the_data(tmp_path: Path) -> None:
    made = make_records(steps=2)
    made.rollouts[0]["completion"] = "</script><script>alert(1)</script>"
    page = build_report(write_run(tmp_path / "run", made), audit=0)
    assert "alert(1)" not in page
    assert unpack(page, "s0-1")[0]["completion"] == "</script><script>alert(1)</script>"  # type: ignore[index]


def test_reading_a_run_needs_no_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_records(steps=2))
    code = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path;"
        "from reasoner.observe.report import build_report;"
        f"from reasoner.observe.analysis.compare import trained_rows; build_report(Path({str(run)!r}), audit=2);"
        f"print(len(trained_rows(Path({str(run)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "48"
