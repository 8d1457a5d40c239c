"""Properties that composed verifiers take from their parts, and each of their rules at its bound, by hand."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from verifiers import BadOption, GradingRow, Outcome, Verdict, Verifier, get_verifier, graded, registry
from verifiers.compose import (
    AllOf,
    Composite,
    Gate,
    Part,
    PerRow,
    Weighted,
    by_value,
    listed,
    part_at,
    part_from,
    written_parts,
)
from verifiers.errors import BadReference

ASKED: list[str] = []


class Fixed(Verifier):
    """Gives the reward and the outcome that it is told, and says right or wrong by a rule."""

    reference_schema = {"type": "string"}
    grade_seconds = 2.0
    memory_bytes = 300
    concurrency = 3
    version = "2"

    def __init__(self, *, reward: float | None = 1.0, outcome: str = "", label: str = "") -> None:
        self._verdict = graded(reward or 0.0, label, answer=label or None)
        if outcome:
            self._verdict = Verdict(outcome=Outcome(outcome), reward=reward, detail={"reason": label})
        self._label = label

    def grade(self, row: GradingRow) -> Verdict:
        ASKED.append(self._label)
        return self._verdict


class Shape(Fixed):
    """Says nothing of right and wrong."""

    reference_schema = {}
    grade_seconds = 0.5
    memory_bytes = None
    concurrency = None
    version = "1"
    shaping = True


class Other(Fixed):
    reference_schema = {"type": "number"}
    memory_bytes = 200
    concurrency = 2
    merges_equal = True
    in_process = True


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found at once, without a look at what is installed."""
    ours = {f"{__name__}:{kind.__name__}": kind for kind in (Fixed, Shape, Other)}
    monkeypatch.setattr(registry, "_decorated", {**registry._decorated, **ours})


def part(kind: type[Verifier], name: str, reward: float | None = 1.0, **extra: Any) -> dict[str, Any]:
    options = {"reward": reward, "label": name, **extra.pop("options", {})}
    return {"verifier": f"{__name__}:{kind.__name__}", "name": name, "options": options, **extra}


def said(made: Verifier, **row: Any) -> tuple[Verdict, list[str]]:
    """The verdict, and the names of the parts that were asked."""
    ASKED.clear()
    return made.verify(completion="c", reference=row.pop("reference", "r"), **row), [*ASKED]


def composed(name: str, **options: Any) -> Composite:
    made = get_verifier(name, **options)
    assert isinstance(made, Composite)
    return made


# ------------------------------------------------------------------------------------------------ what parts bring


def test_time_is_added_memory_is_that_of_the_largest_and_concurrency_that_of_the_narrowest() -> None:
    both = composed("all-of", parts=[part(Fixed, "a"), part(Other, "b"), part(Shape, "c")])
    assert (both.grade_seconds, both.memory_bytes, both.concurrency, both.merges_equal) == (4.5, 300, 2, True)
    assert both.version == f"{AllOf.version}+a:2+b:2+c:1"
    plain = composed("all-of", parts=[part(Shape, "c")])
    assert (plain.memory_bytes, plain.concurrency, plain.merges_equal, plain.grades) == (None, None, False, False)


def test_the_schema_is_that_of_the_parts_that_share_the_whole_reference() -> None:
    fixed, other, shape = part(Fixed, "a"), part(Other, "b"), part(Shape, "c")
    assert composed("all-of", parts=[shape, fixed]).reference_schema == {"type": "string"}
    assert composed("all-of", parts=[fixed, other]).reference_schema == {"type": "string"}
    assert composed("all-of", parts=[fixed, other | {"reference": "b"}]).reference_schema == {}
    assert composed("all-of", parts=[shape]).reference_schema == {}


def test_a_part_of_this_process_is_found_at_any_depth() -> None:
    def inside(kind: type[Verifier]) -> bool:
        inner = {"verifier": "all-of", "options": {"parts": [part(kind, "a")]}}
        return composed("weighted", parts=[part(Fixed, "b"), inner]).any_in_process()

    assert (inside(Other), inside(Fixed)) == (True, False)
    assert composed("weighted", parts=[part(Other, "a")]).any_in_process()


@pytest.mark.parametrize(
    ("cls", "options", "parts"),
    [
        (Weighted, {"parts": ["exact", "math"]}, ["exact", "math"]),
        (AllOf, {"parts": ["exact"]}, ["exact"]),
        (Gate, {"gate": "format", "then": "exact"}, ["format", "exact"]),
        (PerRow, {"choices": {"a": "exact", "*": "math"}}, ["exact", "math"]),
        (Weighted, {"parts": "exact"}, []),
    ],
)
def test_a_class_names_the_parts_in_its_options(cls: type[Composite], options: Any, parts: list[str]) -> None:
    assert cls.parts_in(options) == parts


def test_written_parts_are_found_by_name() -> None:
    spec = {"verifier": "exact", "name": "e"}
    assert written_parts({"parts": ["math", spec, 3, {"weight": 1}]}) == {"math": {"verifier": "math"}, "e": spec}
    assert written_parts({"choices": {"a": "math", "b": spec}}) == {"a": {"verifier": "math"}, "b": spec}
    assert (listed({"a": 1}), listed([1, 2]), listed("x"), written_parts({"parts": "math"})) == ([1], [1, 2], [], {})


# -------------------------------------------------------------------------------------------------- parts as written


def test_a_part_is_built_by_name_and_never_changes() -> None:
    made = part_from("exact", where="p")
    assert (made.name, made.weight, made.reference, made.options) == ("exact", 1.0, None, {})
    with pytest.raises(FrozenInstanceError):
        made.weight = 2.0  # type: ignore[misc]
    with pytest.raises(TypeError, match="positional"):
        Part("exact", "exact", {}, 1.0, None, made.made)  # type: ignore[call-arg,misc]
    assert not hasattr(made, "__dict__")
    assert part_from({"verifier": "exact", "options": None, "weight": 2}, where="p").weight == 2.0


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"verifier": 3}, "p must be a verifier's name or an object"),
        ({"name": "x"}, "p must be a verifier's name or an object"),
        (["exact"], "p must be a verifier's name or an object"),
        ({"verifier": "exact", "options": [1]}, "p: options must be an object"),
        ({"verifier": "exact", "weight": True}, "p: weight must be a number"),
        ({"verifier": "exact", "reference": 3}, "p: reference must be a key"),
    ],
)
def test_a_part_that_is_none_is_refused(spec: Any, says: str) -> None:
    with pytest.raises(BadOption, match=says):
        part_from(spec, where="p")


def test_names_of_parts_differ_and_one_of_them_may_decide() -> None:
    for count in (2, 3):
        with pytest.raises(BadOption, match="'a' occurs twice"):
            composed("all-of", parts=[part(Fixed, "a")] * count)
    made = composed("all-of", parts=[part(Fixed, "a"), part(Fixed, "b", 0.5)], correct="b")
    assert (made.correct, made.decider(made.parts)) == ("b", "b")
    for name in ("weighted", "all-of"):
        with pytest.raises(BadOption, match="parts must name at least one verifier"):
            composed(name, parts=[])


def test_a_part_has_its_own_reference_in_each_of_several() -> None:
    made = part_from({"verifier": "exact", "reference": "k"}, where="p")
    assert made.reference_of({"k": 1, "l": 2}) == 1
    assert made.reference_of({"any": [{"k": 1}, {"k": 2}]}) == {"any": [1, 2]}
    assert part_from({"verifier": "exact", "reference": "any"}, where="p").reference_of({"any": "x"}) == "x"
    for reference in ("k", ["k"], {"l": 2}, {"any": [{"k": 1}], "l": 2}):
        with pytest.raises(BadReference, match="reference must be an object with key 'k'"):
            made.reference_of(reference)  # type: ignore[arg-type]
    whole = part_from("exact", where="p")
    assert whole.reference_of({"k": 1}) == {"k": 1}
    row = GradingRow(completion="c", reference={"k": 1})
    assert (whole.row_of(row), made.row_of(row).reference) == (row, 1)


# ------------------------------------------------------------------------------------------------------ combining


def test_nothing_is_asked_after_a_part_that_cannot_grade() -> None:
    lost = part(Fixed, "lost", None, options={"outcome": "verifier_error"})
    verdict, asked = said(composed("weighted", parts=[part(Fixed, "a"), lost, part(Fixed, "b")]))
    assert (verdict.outcome, verdict.reward, asked) == (Outcome.VERIFIER_ERROR, None, ["a", "lost"])
    assert (verdict.reason, verdict.components) == ("lost: lost", {"a": 1.0})
    keyed = composed("weighted", parts=[part(Fixed, "a", reference="k")])
    assert said(keyed, reference="text")[0].outcome is Outcome.BAD_REFERENCE
    with pytest.raises(BadReference):
        keyed.check_reference("text")


def test_the_answer_without_a_part_that_decides_is_the_first() -> None:
    verdict, _ = said(composed("weighted", parts=[part(Shape, ""), part(Shape, "b"), part(Shape, "c")][1:]))
    assert (verdict.decided_by, verdict.answer) == (None, "b")
    assert verdict.detail["parts"] == {"b": "b", "c": "c"}


@pytest.mark.parametrize(
    ("reward", "outcome", "kept"),
    [
        (-0.5, Outcome.SCORED, -0.5),
        (-4e-10, Outcome.INCORRECT, 0.0),
        (0.1234567894, Outcome.PARTIAL, 0.123456789),
        (1 + 4e-10, Outcome.CORRECT, 1.0),
        (1.5, Outcome.SCORED, 1.5),
        (2.0, Outcome.SCORED, 2.0),
    ],
)
def test_a_value_is_right_wrong_between_or_scored(reward: float, outcome: Outcome, kept: float) -> None:
    verdict = by_value(reward, "why")
    assert (verdict.outcome, verdict.reward, verdict.reason) == (outcome, kept, "why")


# --------------------------------------------------------------------------------------------------- weighted sums


def weighed(*weights: float, kind: type[Verifier] = Shape, reward: float = 1.0, **options: Any) -> Verdict:
    parts = [part(kind, f"p{n}", reward, weight=weight, options=options) for n, weight in enumerate(weights)]
    return said(composed("weighted", parts=parts))[0]


def test_sums_have_nine_digits() -> None:
    assert weighed(0.1234567894, kind=Fixed).reward == 0.123456789
    assert weighed(1.1234567894).reward == 1.123456789
    assert weighed(0.5, 0.0, reward=0.0).reward == 0.0


@pytest.mark.parametrize(
    ("weights", "reward", "outcome"),
    [
        ((0.0, 1.0), 1.0, Outcome.CORRECT),
        ((0.25, 0.5), 0.5, Outcome.PARTIAL),
        ((1 + 1e-9,), 0.5, Outcome.PARTIAL),
        ((0.5, 0.5), 1.0, Outcome.CORRECT),
        ((1 + 3e-9,), 0.5, Outcome.SCORED),
        ((1.5,), 0.5, Outcome.SCORED),
        ((2.0,), 0.25, Outcome.SCORED),
        ((1.0, -0.5), 1.0, Outcome.SCORED),
        ((1.0, -1.0), 1.0, Outcome.SCORED),
    ],
)
def test_a_sum_of_shaping_parts_is_a_share_where_it_stays_in_0_to_1(
    weights: tuple[float, ...], reward: float, outcome: Outcome
) -> None:
    assert weighed(*weights, reward=reward).outcome is outcome


def test_a_share_of_a_part_that_is_scored_is_scored() -> None:
    assert weighed(1.0, reward=0.5, outcome="scored").outcome is Outcome.SCORED


@pytest.mark.parametrize(("weight", "by"), [(0.0, "judge"), (0.5, "judge"), (-0.5, None), (-1.0, None)])
def test_a_penalty_decides_nothing(weight: float, by: str | None) -> None:
    made = composed("weighted", parts=[part(Fixed, "judge", weight=weight), part(Shape, "form")])
    assert said(made)[0].decided_by == by


# ---------------------------------------------------------------------------------------------------------- all-of


def least(*parts: dict[str, Any], correct: str | None = None) -> tuple[float | None, Outcome, str | None, list[str]]:
    verdict, asked = said(composed("all-of", parts=list(parts), correct=correct))
    return verdict.reward, verdict.outcome, verdict.decided_by, asked


def test_the_least_reward_counts_and_nothing_is_asked_after_a_zero() -> None:
    half, zero, right = part(Fixed, "half", 0.5), part(Fixed, "zero", 0.0), part(Fixed, "right")
    form, flat = part(Shape, "form", 0.25), part(Shape, "flat", 0.0)
    below = part(Shape, "below", -0.5, options={"outcome": "scored"})
    assert least(half, right) == (0.5, Outcome.PARTIAL, "half", ["half", "right"])
    assert least(half, zero, right) == (0.0, Outcome.INCORRECT, "zero", ["half", "zero"])
    assert least(right, form) == (0.25, Outcome.CORRECT, "right", ["right", "form"])
    assert least(right, flat, half) == (0.0, Outcome.INCORRECT, "flat", ["right", "flat"])
    assert least(form, part(Shape, "more", 0.5)) == (0.25, Outcome.PARTIAL, "form", ["form", "more"])
    assert least(below, flat) == (-0.5, Outcome.SCORED, "below", ["below", "flat"])
    assert least(below, right) == (-0.5, Outcome.SCORED, "below", ["below", "right"])


def test_the_named_part_of_all_of_is_always_asked() -> None:
    zero, right, form = part(Fixed, "zero", 0.0), part(Fixed, "right"), part(Shape, "form")
    assert least(zero, form, right, correct="right") == (0.0, Outcome.CORRECT, "right", ["zero", "form", "right"])
    assert least(zero, form, correct="zero") == (0.0, Outcome.INCORRECT, "zero", ["zero"])


# ----------------------------------------------------------------------------------------------------------- gates


def gated(gate: dict[str, Any], then: dict[str, Any], **options: Any) -> tuple[Any, ...]:
    verdict, asked = said(composed("gate", gate=gate, then=then, **options))
    return verdict.reward, verdict.outcome, verdict.decided_by, asked


def test_a_gate_opens_at_its_threshold() -> None:
    half, none, right = part(Shape, "half", 0.5), part(Shape, "none", 0.0), part(Fixed, "right")
    assert gated(half, right) == (0.0, Outcome.INCORRECT, "half", ["half"]), "by default at 1, and 0 where it is shut"
    assert gated(half, right, threshold=0.5) == (1.0, Outcome.CORRECT, "right", ["half", "right"])
    assert gated(none, right, threshold=0.0) == (1.0, Outcome.CORRECT, "right", ["none", "right"])
    assert gated(part(Shape, "full"), right) == (1.0, Outcome.CORRECT, "right", ["full", "right"])


def test_what_is_right_behind_a_gate_is_said_by_then_or_else_by_the_gate() -> None:
    judge, form = part(Fixed, "judge"), part(Shape, "form", 0.25)
    zero, half = part(Fixed, "zero", 0.0), part(Fixed, "half", 0.5)
    assert gated(judge, zero) == (0.0, Outcome.INCORRECT, "zero", ["judge", "zero"])
    assert gated(judge, form) == (0.25, Outcome.CORRECT, "judge", ["judge", "form"])
    assert gated(judge, part(Shape, "flat", 0.0)) == (0.0, Outcome.CORRECT, "judge", ["judge", "flat"])
    assert gated(part(Shape, "open"), form) == (0.25, Outcome.PARTIAL, "form", ["open", "form"])
    assert gated(half, form) == (0.0, Outcome.PARTIAL, "half", ["half"]), "the gate's own word"
    assert gated(half, judge) == (0.0, Outcome.INCORRECT, "half", ["half"]), "never right behind a shut gate"
    silent = part(Fixed, "silent", 0.0, options={"outcome": "no_answer"})
    assert gated(silent, judge, closed=-1.0) == (-1.0, Outcome.NO_ANSWER, "silent", ["silent"])


def test_what_is_behind_a_shut_gate_does_not_matter_even_where_it_was_graded() -> None:
    made = composed("gate", gate=part(Shape, "form", 0.0), then=part(Fixed, "then"))
    lost = Verdict(outcome=Outcome.VERIFIER_ERROR, reward=None)
    shut = made.combine({"form": graded(0.0, "no"), "then": lost})
    assert (shut.reward, shut.outcome, shut.components) == (0.0, Outcome.INCORRECT, {"form": 0.0})
    assert made.combine({"form": graded(1.0, "yes"), "then": lost}).outcome is Outcome.VERIFIER_ERROR
    assert made.combine({"form": lost, "then": graded(1.0, "yes")}).outcome is Outcome.VERIFIER_ERROR


# ------------------------------------------------------------------------------------------------ a choice per row


def test_a_row_names_its_verifier_in_its_info_or_its_reference() -> None:
    made = composed("per-row", key="kind", choices={"a": part(Fixed, "x", 0.5), "b": part(Fixed, "y", 0.25)})
    assert said(made, info={"kind": "a"})[0].reward == 0.5
    assert said(made, reference={"kind": "b"})[0].reward == 0.25
    assert said(made, info={"kind": "a"}, reference={"kind": "b"})[0].reward == 0.5, "the info first"
    assert said(made)[0].outcome is Outcome.BAD_REFERENCE
    assert said(made)[0].decided_by is None


def test_the_reference_of_a_row_is_checked_where_it_names_its_verifier() -> None:
    made = composed("per-row", key="kind", choices={"a": {"verifier": "numeric", "reference": "gold"}})
    for fine in ("text", {"gold": "x"}, {"kind": "a", "gold": 3}):
        made.check_reference(fine)  # type: ignore[arg-type]
    for bad in ({"kind": "a", "gold": "no number"}, {"kind": "b", "gold": 3}):
        with pytest.raises(BadReference):
            made.check_reference(bad)  # type: ignore[arg-type]


def test_a_detail_of_a_judge_is_kept_whole_and_no_other() -> None:
    made = get_verifier("weighted", parts=["exact", "numeric"])
    assert isinstance(made, Composite)
    plain = {"exact": graded(1.0, "a"), "numeric": graded(0.0, "b")}
    assert "judged" not in made.combine(plain).detail
    judged = Verdict(outcome=Outcome.CORRECT, reward=1.0, detail={"reason": "a", "level": 3, "judges": []})
    found = made.combine({"exact": judged, "numeric": graded(0.0, "b")}).detail
    assert found["judged"] == {"exact": {"reason": "a", "level": 3, "judges": []}}
    assert found["parts"] == {"exact": "a", "numeric": "b"}


def test_a_part_is_found_by_the_rest_of_its_path() -> None:
    inner = {"verifier": "weighted", "name": "total", "options": {"parts": [{"verifier": "math", "name": "m"}]}}
    assert part_at("total/m", "gate", {"gate": "format", "then": inner}) == ("math", {})
