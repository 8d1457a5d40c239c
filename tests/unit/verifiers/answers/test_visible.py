"""The part of a text that a user sees: no thinking, no special tokens, no next problem; and repaired backslashes."""

from __future__ import annotations

import pytest

from verifiers.answers.boxed import boxed, boxes
from verifiers.answers.escapes import repair_escapes
from verifiers.answers.extraction import is_placeholder, is_value
from verifiers.answers.visible import before_next_problem, end_of_turn, strip_thinking

THINKING = {
    "a<think>b</think>c": "ac",
    "b</think>c": "c",
    "a<think>b": "a",
    "[THINK]b[/THINK]c": "c",
    "◁think▷b◁/think▷c": "c",
    "<seed:think>b</seed:think>c": "c",
    "< Reasoning >b</ reasoning>c": "c",
    "<unused94>thought\nb<unused95>c": "c",
    "<|START_THINKING|>b<|END_THINKING|>c": "c",
    "<|channel|>analysis<|message|>b<|end|><|start|>assistant<|channel|>final<|message|>c<|return|>": "c",
    "b<|end|><|start|>assistant<|channel|>final<|message|>c": "c",
    "<|channel|>commentary to=x <|message|>b<|call|>": "",
    "analysisWe tryassistantfinalc": "c",
    "analysis of the matter: c": "analysis of the matter: c",
    "a [thinking aloud] c": "a [thinking aloud] c",
    "x < think and y > z": "x < think and y > z",
}


@pytest.mark.parametrize("text", THINKING)
def test_thinking_is_cut_in_the_formats_of_the_models_in_use(text: str) -> None:
    assert strip_thinking(text) == THINKING[text]


TURNS = {
    "42<|im_end|>\n<|im_start|>user": "42",
    "<s>42</s>": "42",
    "<|im_start|>assistant\n42": "42",
    "<|start_header_id|>assistant<|end_header_id|>42<|eot_id|>43": "42",
    "<s>41</s>": "41",
    "no <s>41</s> but 42": "no <s>41</s> but 42",
    "a < b > c": "a < b > c",
    "42<｜end▁of▁sentence｜>": "42",
}


@pytest.mark.parametrize("text", TURNS)
def test_a_text_ends_with_the_turn(text: str) -> None:
    assert end_of_turn(text) == TURNS[text]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("42\nQuestion: what is 1?", "42"),
        ("42\n\n**Problem:** what is 1?", "42\n"),
        ("42\n### Question\nwhat is 1?", "42"),
        ("Question: what?\n42", "Question: what?\n42"),
        ("Question 1: a? 42\nQuestion 2: b?", "Question 1: a? 42\nQuestion 2: b?"),
        ("no number\nQuestion: what is 1?", "no number\nQuestion: what is 1?"),
    ],
)
def test_a_text_ends_where_another_problem_begins_if_it_was_answered(text: str, kept: str) -> None:
    assert before_next_problem(text, lambda before: "42" in before) == kept


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("\x0crac{1}{2}", "\\frac{1}{2}"),
        ("\\\\frac{1}{2}", "\\frac{1}{2}"),
        ("frac{1}{2}", "\\frac{1}{2}"),
        ("\theta", "\\theta"),
        ("\\\\begin{pmatrix}1\\\\\\\\2\\\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
        ("\\begin{pmatrix}1\\\\x\\end{pmatrix}", "\\begin{pmatrix}1\\\\x\\end{pmatrix}"),
        ("fraction", "fraction"),
        ("a\tand b", "a\tand b"),
    ],
)
def test_backslashes_are_as_they_were_meant(text: str, meant: str) -> None:
    assert repair_escapes(text) == meant


def test_boxes_in_every_spelling() -> None:
    text = "\\boxed{1} \\fbox{2} \\bbox[5px]{3} \\Boxed{4} boxed{5} \\beginboxed{6} \x08oxed{7} \\boxed {8} inboxed{9}"
    text += " \\boxed{1"
    assert [box.content for box in boxes(text)] == [*"12345678", "1"]
    assert [box.repaired for box in boxes(text)] == [*4 * [False], *3 * [True], False, True]
    assert boxed("no") is None


def test_placeholders_and_values() -> None:
    for text in ("", "...", "\\ldots", "your answer", "$LETTER", "\\text{answer}", "<number>"):
        assert is_placeholder(text), text
    for text in ("42", "x", "A", "\\text{none}", "0"):
        assert not is_placeholder(text), text
    for text in ("42", "-1", "$x$", "\\frac12", "(B)", "B", ".5", "**7**"):
        assert is_value(text), text
    for text in ("correct", "a multiple of 4", "given above", "in the box"):
        assert not is_value(text), text
