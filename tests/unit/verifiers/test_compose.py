"""Composed rewards: arithmetic by hand, short cuts, parts that cannot grade, parts of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from verifiers import BadOption, BadReference, GradingRow, Outcome, UnknownVerifier, Verdict, get_verifier
from verifiers.compose import part_at
from verifiers.pool import GradingPool

FAULTY = f"{Path(__file__).parent / 'faulty.py'}:Faulty"
HERE = f"{Path(__file__).parent / 'batching.py'}:InProcess"
TAGS = {"verifier": "format", "options": {"tags": ["think", "answer"]}, "weight": 0.2}
RIGHT = "<think>it is 3</think><answer>3</answer>"


@pytest.mark.parametrize(
    ("completion", "reward", "outcome", "components"),
    [
        (RIGHT, 1.0, Outcome.CORRECT, {"exact": 1.0, "format": 1.0}),
        ("<answer>3</answer>", 0.8, Outcome.CORRECT, {"exact": 1.0, "format": 0.0}),
        ("<think>x</think><answer>4</answer>", 0.2, Outcome.INCORRECT, {"exact": 0.0, "format": 1.0}),
        ("I will not say which it is.", 0.0, Outcome.NO_ANSWER, {"exact": 0.0, "format": 0.0}),
    ],
)
def test_weighted_sum(completion: str, reward: float, outcome: Outcome, components: dict[str, float]) -> None:
    made = get_verifier("weighted", parts=[{"verifier": "exact", "weight": 0.8}, TAGS])  # pyright: ignore
    verdict = made.verify(completion=completion, reference="3")
    assert (verdict.reward, verdict.outcome, verdict.components) == (pytest.approx(reward), outcome, components)


def test_penalties_leave_the_unit_interval() -> None:
    parts = [
        "exact",
        {"verifier": "repetition", "weight": -0.5, "name": "fresh"},
        {"verifier": "length", "options": {"soft": 1, "hard": 3}},
    ]
    verdict = get_verifier("weighted", parts=parts).verify(completion="a b #### 3", reference="3")  # pyright: ignore
    assert (verdict.outcome, verdict.reward) == (Outcome.CORRECT, pytest.approx(1 - 0.5 + 0))
    assert verdict.components == {"exact": 1.0, "fresh": 1.0, "length": 0.0}
    low = get_verifier("weighted", parts=[{"verifier": "exact", "weight": -2}])  # pyright: ignore
    below = low.verify(completion="#### 3", reference="3")
    assert (below.outcome, below.reward) == (Outcome.SCORED, -2.0)


def test_all_of_stops_at_the_first_zero_and_gates_hide_what_is_behind_them() -> None:
    both = get_verifier("all-of", parts=[TAGS | {"weight": 1}, "exact"])  # pyright: ignore
    assert both.verify(completion=RIGHT, reference="3").reward == 1
    shut = both.verify(completion="<answer>3</answer>", reference="3")
    assert (shut.reward, shut.components) == (0, {"format": 0.0})
    gate = get_verifier("gate", gate=TAGS, then="exact", closed=-1.0)  # pyright: ignore
    assert gate.verify(completion=RIGHT, reference="3").outcome is Outcome.CORRECT
    closed = gate.verify(completion="3", reference="3")
    assert (closed.reward, closed.components) == (-1.0, {"format": 0.0})
    assert closed.outcome is Outcome.INCORRECT


def test_a_part_that_cannot_grade_is_not_a_zero() -> None:
    made = get_verifier("weighted", parts=[TAGS, {"verifier": "numeric", "reference": "number"}])  # pyright: ignore
    verdict = made.verify(completion=RIGHT, reference={"number": "no number"})
    assert (verdict.outcome, verdict.reward) == (Outcome.BAD_REFERENCE, None)
    assert verdict.reason.startswith("numeric: reference must be a number")
    assert verdict.components == {"format": 1.0}
    assert made.verify(completion=RIGHT, reference={"number": 3}).reward == pytest.approx(1.2)
    with pytest.raises(BadReference, match="object with key 'number'"):
        made.check_reference("3")


@pytest.mark.parametrize("fault", ["raise", "segfault"])
def test_a_part_that_fails_is_named(fault: str) -> None:
    with GradingPool(workers=1) as pool:
        options = {"parts": ["exact", FAULTY]}
        verdict = pool.submit("weighted", options, GradingRow(completion=fault, reference="x")).result()  # pyright: ignore
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert (f"part {FAULTY!r}: ValueError" if fault == "raise" else "SIGSEGV") in verdict.reason


def test_parts_of_this_process_are_graded_here_and_the_others_in_workers() -> None:
    parts = [{"verifier": HERE, "name": "here"}, {"verifier": FAULTY, "name": "there"}]
    with GradingPool(workers=1) as pool:
        good = pool.submit("weighted", {"parts": parts}, GradingRow(completion="good", reference="good")).result()  # pyright: ignore
        hung = pool.submit("weighted", {"parts": parts}, GradingRow(completion="hang", reference="good")).result()  # pyright: ignore
    assert good.components["there"] == 1.0
    assert good.components["here"] == 0.5
    assert hung.outcome is Outcome.VERIFIER_ERROR
    assert hung.reason.startswith("there: grading took longer than 1 s")
    assert hung.components == {"here": 0.5}


def test_a_verifier_per_row() -> None:
    choices = {"number": "numeric", "*": "exact"}
    made = get_verifier("per-row", key="kind", choices=choices)  # pyright: ignore
    given = [("1.50", "1.5", "number", 1), ("1.50", "1.5", "word", 0), ("1.5", "1.5", None, 1)]
    for answer, gold, kind, reward in given:
        info = {"kind": kind} if kind else {}
        assert made.verify(completion=f"#### {answer}", reference=gold, info=info).reward == reward  # pyright: ignore
    strict = get_verifier("per-row", key="kind", choices={"number": "numeric"})  # pyright: ignore
    odd: Verdict = strict.verify(completion="#### 1", reference="1", info={"kind": "x"})
    assert odd.outcome is Outcome.BAD_REFERENCE


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([], BadOption),
        ([3], BadOption),
        ([{"verifier": "exact", "wieght": 1}], BadOption),
        ([{"verifier": "exact", "weight": "1"}], BadOption),
        (["exact", "exact"], BadOption),
        (["no-such"], UnknownVerifier),
        ([{"verifier": "exact", "options": {"no_such": 1}}], BadOption),
        ([{"verifier": "weighted", "options": {"parts": ["exact"], "correct": "exat"}}], BadOption),
    ],
)
def test_bad_parts_are_errors_at_once(parts: list[object], error: type[Exception]) -> None:
    with pytest.raises(error):
        get_verifier("weighted", parts=parts)  # pyright: ignore


FORM = {"verifier": "format", "options": {"tags": ["think", "answer"]}}
FUNCTIONS = """
def digits(*, completion):
    return min(1.0, sum(c.isdigit() for c in completion) / 10)

def same(*, completion, reference):
    return reference in completion

def format_reward(completions, **kwargs):
    return [1.0 if "<think>" in c[0]["content"] else 0.0 for c in completions]

def accuracy_reward(completions, solution, **kwargs):
    return [1.0 if s in c[0]["content"].split(">")[-2] else 0.0 for c, s in zip(completions, solution)]
"""
BOTH, FORMED, PLAIN = RIGHT, "<think>it is 4</think><answer>4</answer>", "<answer>3</answer>"
"""Right in the right format, wrong in it, right without it."""


def shapes(folder: Path) -> dict[str, tuple[dict[str, object], tuple[float, float, float]]]:
    """Composed rewards by name: options of `weighted`, and the rewards of BOTH, FORMED and PLAIN by hand."""
    (folder / "own.py").write_text(FUNCTIONS)
    own = f"{folder / 'own.py'}:"
    trl = [
        {"verifier": "trl", "name": "form", "options": {"function": own + "format_reward"}},
        {"verifier": "trl", "name": "accuracy", "options": {"function": own + "accuracy_reward"}},
    ]
    short = {"verifier": "length", "weight": 10, "options": {"soft": 0, "hard": 100, "unit": "characters"}}
    fresh = {"verifier": "repetition", "weight": 0.1, "name": "fresh"}
    lengths = [10 * (100 - len(text)) / 100 for text in (BOTH, FORMED, PLAIN)]
    return {
        "1 + 1": ({"parts": ["exact", FORM]}, (2.0, 1.0, 1.0)),
        "1 + 1, format first": ({"parts": [FORM, "exact"]}, (2.0, 1.0, 1.0)),
        "1 + 0.2 + 0.1": ({"parts": ["math", FORM | {"weight": 0.2}, fresh]}, (1.3, 0.3, 1.1)),
        "1 + 10": ({"parts": ["exact", short]}, (1 + lengths[0], lengths[1], 1 + lengths[2])),
        "function first": ({"parts": [own + "digits", "exact"]}, (1.2, 0.2, 1.1)),
        "TRL functions": ({"parts": trl}, (2.0, 1.0, 1.0)),
        "named": (
            {"parts": [{"verifier": own + "same", "name": "same"}, "exact"], "correct": "exact"},
            (2.0, 0.0, 2.0),
        ),
        "in a sum": (
            {"parts": [{"verifier": "weighted", "name": "sum", "options": {"parts": [FORM, "exact"]}}, fresh]},
            (2.1, 1.1, 1.1),
        ),
    }


SHAPES = (
    "1 + 1",
    "1 + 1, format first",
    "1 + 0.2 + 0.1",
    "1 + 10",
    "function first",
    "TRL functions",
    "named",
    "in a sum",
)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_right_is_what_the_grading_part_says(name: str, tmp_path: Path) -> None:
    options, rewards = shapes(tmp_path)[name]
    made = get_verifier("weighted", **options)  # pyright: ignore
    for text, reward, right in zip((BOTH, FORMED, PLAIN), rewards, (True, False, True), strict=True):
        verdict = made.verify(completion=text, reference="3")
        assert (verdict.reward, verdict.right, verdict.mark) == (pytest.approx(reward), right, float(right))
        assert verdict.outcome in (Outcome.CORRECT, Outcome.INCORRECT)
        assert sum(verdict.weights[part] * verdict.components[part] for part in verdict.weights) == pytest.approx(
            reward
        )
        assert verdict.components[verdict.decided_by or ""] == float(right)
        assert Verdict.from_json(verdict.to_json()) == verdict


def test_full_marks_of_a_function_of_another_trainer(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def two(completions, solution, **kwargs):\n    return [2.0, 0.0][: len(solution)]\n"
    )
    options = {"function": f"{tmp_path / 'own.py'}:two"}
    assert get_verifier("trl", **options).verify(completion="3", reference="3").outcome is Outcome.SCORED  # pyright: ignore
    part = {"verifier": "trl", "name": "two", "weight": 2.0, "options": options | {"full": 2.0}}
    verdict = get_verifier("weighted", parts=[FORM, part]).verify(completion="3", reference="3")  # pyright: ignore
    assert (verdict.reward, verdict.right) == (2.0, True)
    with pytest.raises(BadOption, match="must be above 0"):
        get_verifier("trl", **options, full=0.0)  # pyright: ignore


def test_a_sum_that_no_part_decides_is_right_or_wrong_only_where_it_is_a_share() -> None:
    share = get_verifier("weighted", parts=[FORM | {"weight": 0.5}, {"verifier": "repetition", "weight": 0.5}])  # pyright: ignore
    assert share.verify(completion=BOTH, reference="3").outcome is Outcome.CORRECT
    assert share.verify(completion="x", reference="3").outcome is Outcome.PARTIAL
    more = get_verifier("weighted", parts=[FORM, "repetition"])  # pyright: ignore
    for text in (BOTH, "x", "a b c d " * 9):
        verdict = more.verify(completion=text, reference="3")
        assert (verdict.outcome, verdict.mark, verdict.quality) == (Outcome.SCORED, None, verdict.reward)


def test_right_behind_a_gate_and_in_all_of() -> None:
    gate = get_verifier("gate", gate=FORM, then="exact", closed=-0.5)  # pyright: ignore
    said = [gate.verify(completion=text, reference="3") for text in (BOTH, FORMED, PLAIN)]
    assert [(v.reward, v.right, v.mark) for v in said] == [(1.0, True, 1.0), (0.0, False, 0.0), (-0.5, False, 0.0)]
    paid = get_verifier("gate", gate="exact", then={"verifier": "length", "options": {"soft": 1, "hard": 9}})  # pyright: ignore
    said = [paid.verify(completion=text, reference="3") for text in (BOTH, FORMED)]
    assert [(v.reward, v.outcome) for v in said] == [(0.75, Outcome.CORRECT), (0.0, Outcome.INCORRECT)]
    short = {"verifier": "length", "options": {"soft": 0, "hard": 10}}
    least = get_verifier("all-of", parts=["exact", short])  # pyright: ignore
    said = [least.verify(completion=text, reference="3") for text in (BOTH, FORMED, PLAIN, "I will not say.")]
    assert [(v.reward, v.right) for v in said] == [(0.7, True), (0.0, False), (0.9, True), (0.0, False)]
    assert said[3].outcome is Outcome.NO_ANSWER
    alone = get_verifier("all-of", parts=[FORM, "exact"], correct="exact")  # pyright: ignore
    said = [alone.verify(completion=text, reference="3") for text in (BOTH, FORMED, PLAIN)]
    assert [(v.reward, v.right) for v in said] == [(1.0, True), (0.0, False), (0.0, True)]
    chosen = get_verifier(
        "per-row", key="kind", choices={"*": {"verifier": "weighted", "options": {"parts": [FORM, "exact"]}}}
    )  # pyright: ignore
    verdict = chosen.verify(completion=FORMED, reference="3")
    assert (verdict.reward, verdict.right, verdict.decided_by) == (1.0, False, "*/exact")
    assert verdict.weights == {"*/format": 1.0, "*/exact": 1.0}


def test_the_answer_is_that_of_the_part_that_decides() -> None:
    parts = [{"verifier": "regex", "name": "any", "reference": "any"}, {"verifier": "exact", "reference": "gold"}]
    made = get_verifier("weighted", parts=parts, correct="exact")  # pyright: ignore
    verdict = made.verify(completion="#### 5", reference={"any": ".*", "gold": "3"})
    assert (verdict.answer, verdict.outcome, verdict.reward) == ("5", Outcome.INCORRECT, 1.0)
    silent = made.verify(completion="I will not say which it is.", reference={"any": ".*", "gold": "3"})
    assert (silent.answer, silent.outcome) == (None, Outcome.NO_ANSWER)


def test_the_deciding_part_is_found_in_the_options() -> None:
    inner = {"verifier": "weighted", "name": "sum", "options": {"parts": ["format", {"verifier": "math", "name": "m"}]}}
    assert part_at("sum/m", "gate", {"gate": "format", "then": inner}) == ("math", {})
    assert part_at("exact", "weighted", {"parts": ["format", "exact"]}) == ("exact", {})
    assert part_at("*", "per-row", {"key": "k", "choices": {"*": "numeric"}}) == ("numeric", {})
    own = {"verifier": "math", "options": {"lenient": True}}
    assert part_at("math", "weighted", {"parts": [own]}) == ("math", {"lenient": True})
    options = {"parts": ["format", own | {"name": "a/b.py:sums"}], "correct": "format"}
    assert part_at("a/b.py:sums", "weighted", options) == ("math", {"lenient": True})
    assert part_at("math", "weighted", {"parts": [own], "correct": "math"}) == ("math", {"lenient": True})
    assert part_at("gone", "weighted", options) == ("weighted", options)
    assert part_at("", "exact", {"ignore_case": True}) == ("exact", {"ignore_case": True})
    with pytest.raises(BadOption, match=r"correct must name a part; got 'mth'\. Did you mean 'math'"):
        get_verifier("weighted", parts=["math", "repetition"], correct="mth")  # pyright: ignore
