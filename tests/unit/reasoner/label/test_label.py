"""A person's labels: blind, shuffled, never lost, and their totals."""

from __future__ import annotations

import io
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from reasoner.cli import app
from reasoner.label.blind import blind_pairs
from reasoner.label.labels import (
    AlreadyLabelled,
    Choice,
    Comparison,
    Label,
    LabelError,
    append_label,
    labels_file,
    models_file,
    read_labels,
    read_models,
)
from reasoner.label.page import MOST_LETTERS, Page
from reasoner.label.sitting import APART, Shown, Side, Sitting, lines, order_of, summary, tally
from reasoner.label.terminal import label_in_terminal


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        {"id": str(n), "prompt": f"p{n}", "first": f"A{n}", "second": f"B{n}", "category": "xy"[n % 2]}
        for n in range(40)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prefer_first(sitting: Sitting, count: int) -> None:
    for _ in range(count):
        shown = sitting.shown()
        assert shown is not None
        sitting.give(shown.id, "left" if shown.left.startswith("A") else "right", seconds=1.0)


def test_what_is_seen_does_not_say_which_is_which_and_the_label_knows(file: Path) -> None:
    sitting = Sitting(file)
    sides = [pair.swapped(0) for pair in sitting.pairs.values()]
    assert 10 < sum(sides) < 30
    prefer_first(sitting, 40)
    assert sitting.shown() is None
    assert {label.label for label in read_labels(file).values()} == {"first"}
    assert {label.swapped for label in read_labels(file).values()} == {True, False}


def test_a_sitting_goes_on_where_it_ended_even_after_a_cut_off_line(file: Path) -> None:
    prefer_first(Sitting(file), 7)
    with labels_file(file).open("a") as stream:
        stream.write('{"id": "3", "lab')
    again = Sitting(file)
    shown = again.shown()
    assert shown is not None
    assert again.progress()[:2] == (7, 40)
    prefer_first(again, 1)
    assert len(read_labels(file)) == 8
    assert Sitting(file, seed=0).shown() == again.shown()


def test_undo_brings_the_pair_back(file: Path) -> None:
    sitting = Sitting(file)
    first = sitting.shown()
    assert first is not None
    sitting.give(first.id, "tie")
    assert sitting.undo() == first.id
    assert sitting.shown() == first
    assert read_labels(file) == {}
    assert sitting.undo() is None


def test_win_rate_with_interval_ties_and_categories(file: Path) -> None:
    sitting = Sitting(file)
    prefer_first(sitting, 20)
    for side in ("tie", "skip"):
        shown = sitting.shown()
        assert shown is not None
        sitting.give(shown.id, side)
    found = summary(list(sitting.pairs.values()), sitting.labels)
    assert (found["all"].first, found["all"].second, found["all"].ties, found["all"].skipped) == (20, 0, 1, 1)
    assert found["all"].win_rate == 1.0
    assert found["all"].interval.low == pytest.approx(0.8389, abs=1e-4)
    assert found["x"].first + found["y"].first == 20


# ------------------------------------------------------------------------------------------------ a second time


def test_some_pairs_are_shown_again_later_with_their_sides_swapped() -> None:
    names = [f"n{n}" for n in range(40)]
    order = order_of(names, seed=3, repeat=0.1)
    assert order == order_of(reversed(names), seed=3, repeat=0.1)
    assert [slot for slot in order if not slot[1]] == order_of(names, seed=3, repeat=0)
    again = [name for name, repeat in order if repeat]
    assert len(again) == len(set(again)) == 4
    for name in again:
        between = order[order.index((name, False)) + 1 : order.index((name, True))]
        assert sum(not repeat for _, repeat in between) >= APART
    assert [len(order_of(names[:count], seed=0, repeat=0.1)) for count in (1, 4, 5, 14, 15)] == [1, 4, 6, 15, 17]
    assert len(order_of(names, seed=0, repeat=1)) == 40 + 40 - APART  # the last ones have no pairs behind them


def decide(sitting: Sitting, choose: Callable[[Shown], Side]) -> list[Shown]:
    """Decide all pairs that are shown; return them in order."""
    seen: list[Shown] = []
    while (shown := sitting.shown()) is not None:
        seen.append(shown)
        sitting.give(shown.id, choose(shown), repeat=shown.repeat)
    return seen


def test_agreement_with_oneself_and_labels_that_count_once(file: Path) -> None:
    sitting = Sitting(file, repeat=0.2)
    assert sitting.progress()[:2] == (0, 48)
    second: list[Shown] = []

    def choose(shown: Shown) -> Side:
        if shown.repeat:
            second.append(shown)
        faithful = not shown.repeat or len(second) % 4
        return "left" if (shown.left[0] == "A") == bool(faithful) else "right"

    seen = decide(sitting, choose)
    assert len(second) == 8
    for again in second:
        first = next(shown for shown in seen if shown.id == again.id)
        assert (first.left, first.right) == (again.right, again.left)
    found = sitting.progress()
    assert (found.done, found.total, found.categories) == (48, 48, {"x": (20, 20), "y": (20, 20)})
    assert (found.agreement.equal, found.agreement.of, found.agreement.share) == (6, 8, 0.75)
    assert found.agreement.interval == pytest.approx((0.4093, 0.9285), abs=1e-4)  # Wilson's of 6 of 8
    # as data, they count once
    assert len(read_labels(file)) == 40
    assert {label.label for label in read_labels(file).values()} == {"first"}
    assert summary(list(sitting.pairs.values()), sitting.labels)["all"].first == 40
    told = CliRunner().invoke(app, ["label", str(file), "--summary"])
    assert "40 of 40 pairs labelled" in told.output
    assert "agreement with oneself: 75.0% [40.9%, 92.9%], the same choice for 6 of 8 pairs shown twice" in told.output
    told = json.loads(CliRunner().invoke(app, ["label", str(file), "--summary", "--json"]).output)
    assert (told["agreement"]["equal"], told["agreement"]["of"], told["all"]["first"]) == (6, 8, 40)


def test_a_pair_is_not_shown_again_if_it_was_skipped_or_is_anothers(file: Path) -> None:
    ann = Sitting(file, who="ann", repeat=0.2)
    assert not any(shown.repeat for shown in decide(ann, lambda _: "skip"))
    assert ann.progress()[:2] == (40, 40)
    labels_file(file).unlink()
    decide(Sitting(file, who="ann"), lambda _: "tie")
    assert Sitting(file, who="bob", repeat=0.2).shown() is None
    again = Sitting(file, who="ann", repeat=0.2).shown()
    assert again is not None
    assert again.repeat


def test_undo_of_a_second_time_keeps_the_first_and_that_of_the_first_removes_both(file: Path) -> None:
    sitting = Sitting(file, repeat=0.2)
    while not (shown := sitting.shown()).repeat:  # type: ignore[union-attr]
        sitting.give(shown.id, "tie")  # type: ignore[union-attr]
    labels = read_labels(file)
    sitting.give(shown.id, "left", repeat=True)  # type: ignore[union-attr]
    assert sitting.undo() == shown.id  # type: ignore[union-attr]
    assert sitting.shown() == shown
    assert read_labels(file) == labels
    sitting.give(shown.id, "left", repeat=True)  # type: ignore[union-attr]
    append_label(file, Label(id=shown.id, label="undo", swapped=False))  # type: ignore[union-attr]
    again = Sitting(file, repeat=0.2)
    assert (shown.id, True) not in again.slots  # type: ignore[union-attr]
    with pytest.raises(LabelError, match="a first time"):
        again.give(shown.id, "left", repeat=True)  # type: ignore[union-attr]


def test_labels_of_files_without_reasons_and_second_times_are_read(file: Path) -> None:
    old = {"id": "3", "label": "first", "swapped": True, "seconds": 1.5, "who": "ann"}
    labels_file(file).write_text(json.dumps(old) + "\n" + json.dumps(old | {"id": "4", "label": "undo"}) + "\n")
    assert read_labels(file) == {"3": Label(id="3", label="first", swapped=True, seconds=1.5, who="ann")}
    sitting = Sitting(file, who="ann", repeat=0.1)
    assert sitting.progress()[:2] == (1, 44)


CHOICES: dict[str, Choice] = {"1": "first", "2": "second", "t": "tie", "s": "skip"}


def labelled(outcomes: str, lengths: list[tuple[int, int]]) -> list[tuple[Comparison, Label]]:
    return [
        (
            Comparison(id=str(n), prompt="p", first="a" * first, second="b" * second),
            Label(id=str(n), label=CHOICES[outcome], swapped=False),
        )
        for n, (outcome, (first, second)) in enumerate(zip(outcomes, lengths, strict=True))
    ]


def test_a_win_rate_is_given_at_equal_length_too_with_what_the_winner_is_longer() -> None:
    # the longer one wins 80 % whichever it is; the first is longer in 50 of 60 pairs
    outcomes = "1" * 40 + "2" * 10 + "1" * 2 + "2" * 8
    found = tally(labelled(outcomes, [(150, 50)] * 50 + [(50, 150)] * 10))
    assert found.win_rate == pytest.approx(0.7)
    assert found.at_equal_length is not None
    assert found.at_equal_length.value == pytest.approx(0.5, abs=0.01)
    assert found.winner_longer == pytest.approx(60)
    assert found.winner_length == pytest.approx(130)
    whole, equal = lines("all", found, ("runs/a", "runs/b"))
    assert whole.startswith("all: runs/a preferred 70.0% [")
    assert "at equal length 50." in equal
    assert "against 70.0% (ties as one half)" in equal
    assert "+60 characters (+86%) longer" in equal


def test_a_better_model_stays_better_at_equal_length() -> None:
    outcomes = ("1" * 7 + "2" * 3) * 10
    found = tally(labelled(outcomes, [(100, 80)] * 50 + [(80, 100)] * 50))
    assert found.at_equal_length is not None
    assert found.at_equal_length.value == pytest.approx(0.7)
    assert found.at_equal_length.low > 0.5


def test_skipped_pairs_and_ties_decide_nothing_about_length() -> None:
    found = tally(labelled("tst", [(9, 1), (9, 1), (1, 9)]))
    assert (found.win_rate, found.winner_longer) == (None, None)
    assert found.at_equal_length is not None
    assert found.at_equal_length.plain == 0.5
    assert lines("all", found, ("first", "second"))[0].startswith("all: none decided")
    assert tally([]).at_equal_length is None


def test_names_of_models_that_are_none_are_told(file: Path) -> None:
    assert read_models(file) == ("first", "second")
    models_file(file).write_text('["one"]')
    with pytest.raises(LabelError, match="must be a list of two names"):
        read_models(file)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"id": 1, "prompt": "p", "first": "a"}\n', "line 1 must be an object with id, prompt, first and second"),
        ("no json\n", "line 1"),
        ('{"id": 1, "first": "a", "second": "b"}\n' * 2, "id '1' occurs twice"),
        ("", "must have at least one row"),
    ],
)
def test_a_file_that_cannot_be_labelled_names_its_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(LabelError, match=reason):
        Sitting(path)


def test_the_terminal_takes_keys(file: Path) -> None:
    keys = iter(["x", "1", "2", "u", "t", "s", "q"])
    sitting = Sitting(file)
    label_in_terminal(sitting, read=lambda: next(keys), console=Console(file=io.StringIO(), width=80))
    assert len(sitting.labels) == 3
    assert sorted(label.label for label in sitting.labels.values())[-2:] == ["skip", "tie"]


# ------------------------------------------------------------------------------------------------------- the page


@pytest.fixture
def page(file: Path):
    server = Page(Sitting(file))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(address: str, row: object = None, **headers: str) -> dict[str, object]:
    body = None if row is None else json.dumps(row).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data=body, headers=headers), timeout=10) as answer:
        return json.loads(answer.read())


def test_the_page_shows_labels_and_undoes(page: Page) -> None:
    shown = ask(page.address + "next")
    assert set(shown) == {
        *("id", "prompt", "left", "right", "repeat"),
        *("done", "total", "categories", "agreement", "finished"),
    }
    assert shown["categories"] == {"x": [0, 20], "y": [0, 20]}
    given = {"id": shown["id"], "side": "left", "seconds": 1.5, "reason": " shorter, and right \n"}
    after = ask(page.address + "label", given)
    assert after["done"] == 1
    assert after["id"] != shown["id"]
    assert page.sitting.labels[str(shown["id"])].seconds == 1.5
    assert read_labels(page.sitting.file)[str(shown["id"])].reason == "shorter, and right"
    assert ask(page.address + "undo", {})["id"] == shown["id"]
    with urllib.request.urlopen(page.address, timeout=10) as answer:
        assert b"reasoner label" in answer.read()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


LONG = {"id": "1", "side": "left", "reason": "a" * (MOST_LETTERS + 1)}
SECOND = {"id": "1", "side": "left", "repeat": True}
"""A pair's second label before its first."""


@pytest.mark.parametrize("row", [{}, {"id": "nope", "side": "left"}, {"id": "1", "side": "first"}, [1], LONG, SECOND])
def test_the_page_refuses_what_is_no_label(page: Page, row: object) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(page.address + "label", row)
    assert refused.value.code == 400
    refused.value.close()
    assert page.sitting.labels == {}


def test_the_longest_reason_fits(page: Page) -> None:
    name = next(iter(page.sitting.pairs))
    ask(page.address + "label", {"id": name, "side": "tie", "reason": "\u0001" * MOST_LETTERS})
    assert len(read_labels(page.sitting.file)[name].reason) == MOST_LETTERS


def test_who_does_not_know_the_secret_or_comes_by_another_name_gets_nothing(page: Page) -> None:
    port = page.server_port
    for address, headers in (
        (f"http://127.0.0.1:{port}/next", {}),
        (f"http://127.0.0.1:{port}/wrong/next", {}),
        (page.address + "next", {"Host": "evil.example"}),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(address, **headers)
        assert refused.value.code == 404
        refused.value.close()


def refused(address: str, row: object, **headers: str) -> tuple[int, str]:
    """Return status and message of an error response."""
    with pytest.raises(urllib.error.HTTPError) as told:
        ask(address, row, **headers)
    status, message = told.value.code, told.value.read().decode()
    told.value.close()
    return status, message


@pytest.mark.parametrize(
    "seconds",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-5",
        "-0.001",
        "null",
        '"5"',
        "true",
        "[1]",
        '{"a": 1}',
        "1" + "0" * 400,
    ],
)
def test_a_time_that_is_none_is_refused_and_not_written(page: Page, seconds: str) -> None:
    name = next(iter(page.sitting.pairs))
    body = f'{{"id": "{name}", "side": "left", "seconds": {seconds}}}'.encode()
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(urllib.request.Request(page.address + "label", data=body), timeout=10)
    assert told.value.code == 400
    told.value.close()
    assert not labels_file(page.sitting.file).exists()


@pytest.mark.parametrize("seconds", ["0", "0.0", "12", "3.25", "86400", "1e3"])
def test_a_time_is_taken(page: Page, seconds: str) -> None:
    name = next(iter(page.sitting.pairs))
    body = f'{{"id": "{name}", "side": "skip", "seconds": {seconds}}}'.encode()
    with urllib.request.urlopen(urllib.request.Request(page.address + "label", data=body), timeout=10) as answer:
        assert answer.status == 200
    assert read_labels(page.sitting.file)[name].seconds == float(seconds)


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "٣", "99999999999999999999"])
def test_a_length_that_is_none_is_answered(page: Page, length: str) -> None:
    with socket.create_connection(("127.0.0.1", page.server_port), timeout=10) as connection:
        path = page.address.removeprefix(f"http://127.0.0.1:{page.server_port}") + "label"
        head = f"POST {path} HTTP/1.0\r\nHost: 127.0.0.1:{page.server_port}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        assert re.match(rb"HTTP/1.0 4(00|13) ", connection.recv(100))


def test_a_second_tab_does_not_replace_the_answer_of_the_first(page: Page) -> None:
    shown = ask(page.address + "next")
    assert ask(page.address + "next") == shown  # both tabs show one pair
    one, other = {"id": shown["id"], "side": "left", "tab": "a"}, {"id": shown["id"], "side": "right", "tab": "b"}
    ask(page.address + "label", one)
    written = labels_file(page.sitting.file).read_bytes()
    status, message = refused(page.address + "label", other)
    assert status == 409
    assert "already labelled" in message
    assert refused(page.address + "label", one)[0] == 409
    assert labels_file(page.sitting.file).read_bytes() == written
    ask(page.address + "undo", {"tab": "a"})
    assert ask(page.address + "label", other)["done"] == 1  # undone first, it may be given anew
    assert read_labels(page.sitting.file)[str(shown["id"])].label != "tie"


def test_undo_takes_back_the_labels_of_its_own_tab_alone(page: Page) -> None:
    given: dict[str, str] = {}
    for tab in ("a", "b", "a"):
        shown = ask(page.address + "next")
        ask(page.address + "label", {"id": shown["id"], "side": "tie", "tab": tab})
        given.setdefault(tab, str(shown["id"]))
    last = next(reversed(page.sitting.labels))
    assert ask(page.address + "undo", {"tab": "b"})["id"] == given["b"]
    assert set(page.sitting.labels) == {given["a"], last}
    for _ in range(3):
        ask(page.address + "undo", {"tab": "b"})  # nothing of its own is left
        ask(page.address + "undo", {"tab": "c"})
    assert set(page.sitting.labels) == {given["a"], last}
    ask(page.address + "undo", {"tab": "a"})
    assert set(page.sitting.labels) == {given["a"]}
    assert refused(page.address + "undo", {"tab": 5})[0] == 400


def test_undo_takes_back_nothing_that_another_person_gave_before(file: Path) -> None:
    prefer_first(Sitting(file, who="ann"), 2)
    bob = Sitting(file, who="bob")
    assert bob.undo() is None
    prefer_first(bob, 1)
    assert bob.undo() is not None
    assert bob.undo() is None
    again = Sitting(file, who="ann")
    assert again.undo() is not None  # one's own of an earlier sitting
    assert len(read_labels(file)) == 1


def test_two_sittings_where_no_lock_is_seen_do_not_replace_each_others_labels(file: Path) -> None:
    one, other = Sitting(file), Sitting(file)
    shown = one.shown()
    assert shown is not None
    assert other.shown() == shown
    one.give(shown.id, "left")
    with pytest.raises(AlreadyLabelled, match="already labelled"):
        other.give(shown.id, "right")
    assert other.undo() is None
    assert one.undo() == shown.id
    other.give(shown.id, "right")
    assert one.undo() is None  # that label is the other's
    assert set(read_labels(file)) == {shown.id}


# ------------------------------------------------------------------------------------------------- two labellers

HOLD = """
import sys, time
from pathlib import Path
from typing import Any
from reasoner.label.labels import one_labeller
with one_labeller(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(file: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def label(file: Path, *further: str) -> Any:
    return CliRunner().invoke(app, ["label", str(file), "--terminal", *further], input="1\nq\n", env={"COLUMNS": "80"})


def test_a_second_labeller_is_told_who_is_at_it(file: Path) -> None:
    with held_elsewhere(file) as process:
        told = label(file)
        assert told.exit_code == 2
        assert f"is being labelled by process {process.pid} on host {socket.gethostname()}" in told.output
        assert not labels_file(file).exists()
        summary = CliRunner().invoke(app, ["label", str(file), "--summary"])  # looking is no labelling
        assert summary.exit_code == 0
        other = file.with_name("other.jsonl")
        other.write_text(file.read_text())
        assert label(other).exit_code == 0  # another file has a lock of its own
    assert label(file).exit_code == 0  # killed: its lock went with it
    assert len(read_labels(file)) == 1
    assert not list(file.parent.glob("*.lock"))


def test_a_lock_of_another_host_is_told_apart(file: Path) -> None:
    lock = labels_file(file).with_name(labels_file(file).name + ".lock")
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 7}))
    told = label(file)
    assert told.exit_code == 2
    assert "process 7 on host elsewhere" in told.output
    assert f"remove {lock.name}" in told.output.replace(f"{lock.parent}/", "").replace("\n", "")
    for damaged in ("", "no json", json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1})):
        lock.write_text(damaged)  # of nobody, or of a process that is gone
        assert label(file).exit_code == 0


def test_a_lock_that_is_a_link_is_not_written_through(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("keep")
    labels_file(file).with_name(labels_file(file).name + ".lock").symlink_to(other)
    assert label(file).exit_code == 2
    assert other.read_text() == "keep"


# -------------------------------------------------------------------------------------------------- two models


def rollouts(folder: Path, mark: str) -> Path:
    folder.mkdir()
    rows = [
        {
            "step": step,
            "problem": f"q{n}",
            "sample": 0,
            "prompt": f"p{n}",
            "completion": f"{mark}{step}{n}",
            "task": "t",
        }
        for step in (0, 5)
        for n in range(4)
    ]
    rows[-1]["completion"] = "same"
    (folder / "eval_rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_two_models_are_compared_on_their_last_completions_of_common_problems(tmp_path: Path) -> None:
    one, other = rollouts(tmp_path / "one", "a"), rollouts(tmp_path / "other", "b")
    pairs = blind_pairs(one, other)
    assert [(row["id"], row["first"], row["second"]) for row in pairs] == [
        (f"q{n}/0", f"a5{n}", f"b5{n}") for n in range(3)
    ]
    made = tmp_path / "blind.jsonl"
    command = ["label", str(made), "--blind", str(one), str(other), "--terminal"]
    done = CliRunner().invoke(app, command, input="1\n2\nt\n", env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    assert "3 of 3 pairs labelled" in done.output
    assert f"{one} preferred" in done.output.replace("\n", "")
    again = CliRunner().invoke(app, ["label", str(made), "--summary"])  # the names are found again
    assert f"{one} preferred" in again.output.replace("\n", "")
    assert str(one) not in made.read_text()
    found = json.loads(CliRunner().invoke(app, ["label", str(made), "--summary", "--json"]).output)
    assert found["models"] == [str(one), str(other)]
    assert found["all"]["ties"] == 1
    assert found["all"]["first"] + found["all"]["second"] == 2


def test_other_prompts_under_one_problem_are_refused(tmp_path: Path) -> None:
    one, other = rollouts(tmp_path / "one", "a"), rollouts(tmp_path / "other", "b")
    text = (other / "eval_rollouts.jsonl").read_text().replace('"prompt": "p1"', '"prompt": "changed"')
    (other / "eval_rollouts.jsonl").write_text(text)
    with pytest.raises(LabelError, match="has different prompts"):
        blind_pairs(one, other)
    done = CliRunner().invoke(app, ["label", str(tmp_path / "nothing.jsonl")])
    assert done.exit_code == 2
