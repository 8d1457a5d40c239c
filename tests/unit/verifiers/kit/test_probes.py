"""Probes of a score: what each changes, and that the report finds what a score was made to like."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from verifiers.kit.probes import (
    ASSURANCES,
    OPENINGS,
    OPINION,
    PROBES,
    ProbeReport,
    Prompt,
    Shift,
    Subject,
    evenly,
    measure,
    opinion_of,
    variants,
    with_opinion,
)

APPLY = {probe.name: probe.apply for probe in PROBES}
CODE = "Use this:\n```python\nprint(1). print(2)\n```"
Score = Callable[[Prompt, str], "float | None"]


def subjects(count: int = 40) -> list[Subject]:
    """Make pairs whose better completion names the number of its prompt, in texts of many lengths."""
    source = random.Random(0)
    made: list[Subject] = []
    for number in range(count):
        tail = " ".join(["It is so."] * source.randint(1, 9))
        worse = f"It is {number + 7}. {tail}"
        made.append(
            Subject(
                prompt=f"Say {number}.",
                completions=(f"It is {number}. {tail}", worse),
                opinion=opinion_of(worse),
            )
        )
    return made


def quality(prompt: Prompt, completion: str) -> float:
    """Score the content alone: 1 for the prompt's number, and a little noise that the content fixes."""
    number = str(prompt).removeprefix("Say ").partition(".")[0]
    return float(f"It is {number}." in completion) + (int(number) % 5) / 10


def probed(score: Score, given: list[Subject] | None = None) -> ProbeReport:
    given = subjects() if given is None else given
    rows = variants(given)
    return measure(given, rows, [score(row.prompt, row.completion) for row in rows])


def moved(report: ProbeReport) -> dict[str, float]:
    return {one.probe: one.shift.value for one in report.shifts if one.shift is not None}


def one(report: ProbeReport, name: str) -> Shift:
    return next(shift for shift in report.shifts if shift.probe == name)


# ------------------------------------------------------------------------------------------------- what is changed


def test_every_probe_keeps_the_words_and_is_the_same_every_time() -> None:
    text = "It is 4. Two and two are four.\nAsk again?"
    for probe in PROBES:
        changed = probe.apply("What is 2+2?", text)
        assert changed != text
        assert changed == probe.apply("What is 2+2?", text)
        words = changed.replace("*", "").replace("- ", "").split()
        assert all(word in words for word in text.split())


def test_the_wording_follows_the_prompt_and_is_one_for_both_completions() -> None:
    openings = {APPLY["flattery"](f"ask {n}", "It is 4.").removesuffix(" It is 4.") for n in range(40)}
    assert openings == set(OPENINGS)
    assert {APPLY["assurance"](f"ask {n}", "4").removeprefix("4 ") for n in range(40)} == set(ASSURANCES)
    chat = [{"role": "user", "content": "ask 1"}]
    assert APPLY["flattery"](chat, "x") == APPLY["flattery"]("ask 1", "x")


@pytest.mark.parametrize("size", [1, 30, 400, 3000])
def test_padding_about_doubles_the_text(size: int) -> None:
    padded = APPLY["padding"]("p", "x" * size)
    assert size < len(padded) - size < size + 70


@pytest.mark.parametrize(
    ("probe", "text", "changed"),
    [
        ("repetition", "It is 4.", "It is 4.\n\nIt is 4."),
        ("last sentence again", "It is 3.5. Or 4?", "It is 3.5. Or 4? Or 4?"),
        ("last sentence again", "One.\nTwo. Three.", "One.\nTwo. Three. Three."),
        ("last sentence again", CODE, CODE),
        ("heading", "It is 4.", "## Answer\n\nIt is 4."),
        ("heading", "# Answer\nIt is 4.", "# Answer\nIt is 4."),
        ("bullets", "It is 3.5. Why?\n\nSo.", "- It is 3.5.\n- Why?\n\n- So."),
        ("bullets", "- a\n2. b\n# c", "- a\n2. b\n# c"),
        ("bullets", CODE, CODE),
        ("bold", "It is 4. Yes.\nNo.", "**It is 4.** Yes.\nNo."),
        ("bold", "It is **4**.", "It is **4**."),
        ("bold", "- It is 4.", "- It is 4."),
        ("bold", "", ""),
        ("bullets", " ", " "),
    ],
)
def test_what_repetition_and_format_do(probe: str, text: str, changed: str) -> None:
    assert APPLY[probe]("p", text) == changed


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("2+2?", f"2+2?\n\n{OPINION}5"),
        ("Q: 2+2?\nA:", f"Q: 2+2?\n\n{OPINION}5\n\nA:"),
        ("Answer:", f"Answer:\n\n{OPINION}5"),
        (
            [{"role": "system", "content": "s"}, {"role": "user", "content": "2+2?"}],
            [{"role": "system", "content": "s"}, {"role": "user", "content": f"2+2?\n\n{OPINION}5"}],
        ),
        (
            [{"role": "system", "content": "s"}],
            [{"role": "system", "content": "s"}, {"role": "user", "content": f"{OPINION}5"}],
        ),
    ],
)
def test_the_opinion_stands_with_the_users_last_words(prompt: Any, asked: Any) -> None:
    before = [dict(turn) for turn in prompt] if isinstance(prompt, list) else prompt
    assert with_opinion(prompt, "5") == asked
    assert prompt == before  # the prompt itself is not changed


def test_a_long_opinion_ends_with_a_sentence_or_a_word() -> None:
    assert opinion_of(" It is 4.\n") == "It is 4."
    assert opinion_of("It is four. " * 60).endswith("It is four.")
    assert len(opinion_of("It is four. " * 60)) <= 300
    assert opinion_of("word " * 100).endswith("word")
    assert opinion_of("x" * 400) == "x" * 300


# ---------------------------------------------------------------------------------------------------- what is found


def test_a_score_of_the_content_alone_does_not_move() -> None:
    report = probed(quality)
    assert set(moved(report)) == set(APPLY)
    assert max(map(abs, moved(report).values())) < 1e-9
    assert report.opinion is not None
    assert report.opinion.change is not None
    assert report.opinion.change.value == pytest.approx(0)
    assert (report.opinion.turned, report.opinion.turned_away) == (0.0, 0.0)
    assert {shift.overtakes for shift in report.shifts} == {0.0}


def test_a_score_that_likes_flattery_is_found_and_the_other_probes_are_not() -> None:
    report = probed(lambda prompt, text: quality(prompt, text) + 1.5 * text.startswith(OPENINGS))
    found = moved(report)
    assert found.pop("flattery") == pytest.approx(1.5 / report.spread)
    assert max(map(abs, found.values())) < 1e-9
    flattered = one(report, "flattery")
    assert flattered.raised == 1.0
    assert (flattered.overtakes, flattered.overtakes_plain) == (1.0, 0.0)
    assert one(report, "assurance").raised == 0.0


def test_a_score_that_likes_length_is_found_by_padding_and_repetition_most() -> None:
    found = moved(probed(lambda prompt, text: quality(prompt, text) + len(text) / 40))
    assert found["padding"] > 1
    assert found["repetition"] > 1
    assert abs(found["bold"]) < 0.15


def test_a_score_that_agrees_with_the_user_is_found() -> None:
    def agreeing(prompt: Prompt, completion: str) -> float:
        return quality(prompt, completion) + 3 * (f"{OPINION}{completion}" in str(prompt))

    report = probed(agreeing)
    assert report.opinion is not None
    assert report.opinion.change is not None
    assert report.opinion.margin == pytest.approx(1 / report.spread)
    assert report.opinion.change.value == pytest.approx(-3 / report.spread)
    assert (report.opinion.turned, report.opinion.turned_away) == (1.0, 0.0)
    assert max(map(abs, moved(report).values())) < 1e-9


def test_an_opinion_that_changes_both_scores_alike_changes_no_margin() -> None:
    report = probed(lambda prompt, text: quality(prompt, text) - 5 * (OPINION in str(prompt)))
    assert report.opinion is not None
    assert report.opinion.change is not None
    assert report.opinion.change.value == pytest.approx(0)


@pytest.mark.parametrize("lost", [None, math.nan, math.inf])
def test_rows_that_cannot_be_scored_are_counted(lost: float | None) -> None:
    def short(prompt: Prompt, completion: str) -> float | None:
        return quality(prompt, completion) if len(completion) < 80 else lost

    report = probed(short)
    given = subjects()
    plain = sum(len(text) < 80 for subject in given for text in subject.completions)
    assert 0 < plain < 80
    assert (report.rows, report.ungraded) == (plain, 80 - plain)
    padded = one(report, "padding")
    assert padded.rows + padded.ungraded == plain
    assert padded.ungraded > 0
    assert report.opinion is not None
    assert report.opinion.pairs + report.opinion.ungraded == 40
    assert report.opinion.pairs < 40


def test_rows_that_a_probe_does_not_change_are_counted() -> None:
    given = [Subject(prompt="p", completions=("**a**",)), Subject(prompt="q", completions=("b.",))]
    report = probed(lambda prompt, text: float(len(text)), given)
    bold = one(report, "bold")
    assert (bold.rows, bold.unchanged, bold.pairs, bold.overtakes) == (1, 1, 0, None)
    assert report.opinion is None
    assert report.to_json()["opinion"] is None
    json = report.to_json()["shifts"]
    assert isinstance(json, list)
    assert json[-1]["shift"][1:] == [None, None]  # type: ignore[index,call-overload]  # one row has no interval


def test_equal_scores_have_no_unit() -> None:
    report = probed(lambda prompt, text: 1.0)
    assert report.spread == 0
    assert moved(report) == {}
    assert report.opinion is not None
    assert report.opinion.change is None
    nothing = probed(lambda prompt, text: None)
    assert (nothing.rows, nothing.ungraded) == (0, 80)
    assert probed(quality, []).to_json()["rows"] == 0


def test_the_interval_counts_a_pair_once() -> None:
    """Both completions of a pair have one wording, so that they are no two observations."""
    report = probed(lambda prompt, text: quality(prompt, text) + text.startswith(OPENINGS[:2]))
    shift = one(report, "flattery").shift
    assert shift is not None
    values = [float(APPLY["flattery"](subject.prompt, "x").startswith(OPENINGS[:2])) for subject in subjects()]
    mean = sum(values) / 40
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / 39 / 40)
    assert shift.high - shift.low == pytest.approx(2 * 2.0227 * error / report.spread, rel=1e-3)


def test_items_are_taken_at_even_distances() -> None:
    assert evenly(range(10), 5) == [0, 2, 4, 6, 8]
    assert evenly(range(3), 5) == [0, 1, 2]
    assert evenly(range(3), 0) == []
