"""Detection of prompts that already contain their answer, from which a model would learn to copy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tasks.base import Message
from verifiers import JSON

TAIL = 400
"""Characters at the end of a prompt that are searched: the last lines."""
SHORT = 6
"""A reference answer of at most this many characters is taken whole, without a search for a declared final answer."""
MARK = re.compile(
    r"(?:^|(?<=\n))[ \t]*####[ \t]*|\\boxed\{|\b(?:answer|solution|result)\b(?:[ \t]+is\b|[ \t]*[:=])|"
    r"(?:^|(?<=\n))[ \t]*A:",
    re.IGNORECASE,
)
"""Phrases that declare a final answer."""
EXAMPLE = re.compile(r"\b(example|e\.g|such as|for instance|sample|format|like|if|whether|not|suppose)\b", re.I)
"""Words in front of a declared answer that show it is none: an example of an answer, or one that is asked about."""
OPTION = re.compile(r"^\W{0,3}(?:[A-Za-z]|\d{1,2}|[ivx]{1,4})[.):\]]+\s+(?=\S)")
"""The label of a line in a list of choices."""
NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")


class Leak(NamedTuple):
    """A leak: a prompt that ends in its answer."""

    what: str
    """Description of the leak, as the end of a sentence about the row."""
    sure: bool
    """True if declared as the answer. False: the last line is the reference answer, which may be part of the question.
    """


def prompt_leak(prompt: str | Sequence[Message], reference: JSON) -> Leak | None:
    r"""Return the leak if a prompt ends in its answer; None if it does not, or if that cannot be determined.

    Leaks are: a chat that ends with an assistant's turn; a text that ends in "Answer: 42", "#### 42" or "\boxed{42}",
    where 42 is the reference answer; a last line that is the reference answer and not a choice in a list.

    Example:
        >>> prompt_leak("What is 6*7?\nAnswer: 42", "42").sure
        True
        >>> prompt_leak("Which is larger?\nA) 41\nB) 42\nAnswer:", "42") is None
        True
    """
    text = prompt
    if not isinstance(text, str):
        if prompt and text[-1]["role"] == "assistant":
            return Leak("its prompt ends with an assistant turn, which may be the answer: leave that turn out", True)
        text = text[-1]["content"] if text else ""
    answers = _answers(reference)
    tail = text[-TAIL:].rstrip()
    if not answers or not tail:
        return None
    last = tail.rpartition("\n")[2].casefold().replace(",", "")
    if not any(answer.replace(",", "") in last for answer in answers):
        return None  # the usual case
    declared = _declared(tail)
    if declared is not None and _same(declared.answer, answers) and not EXAMPLE.search(declared.before):
        return Leak(f"its prompt ends in its answer ({declared.text[-60:]!r})", True)
    lines = [line.strip() for line in tail.split("\n") if line.strip()]
    if len(lines) > 1 and _same(lines[-1], answers) and not _listed(lines):
        return Leak(f"the last line of its prompt is its reference answer ({lines[-1][-60:]!r})", False)
    return None


class Declared(NamedTuple):
    """The final answer that a text ends with."""

    text: str
    before: str
    """The text before it on its line."""
    answer: str


def _declared(tail: str) -> Declared | None:
    marks = [*MARK.finditer(tail)]
    if not marks:
        return None
    mark = marks[-1]
    said = tail[mark.end() :].strip().removeprefix("**").strip()
    if "\n" in said or not said:
        return None
    before = tail[: mark.start()].rpartition("\n")[2]
    return Declared(tail[mark.start() :].strip(), before, said)


def _answers(reference: JSON) -> set[str]:
    """Return the reference answers that are text or numbers, and the final answers that they declare, normalised."""
    if isinstance(reference, dict):
        return _answers(reference.get("any") or reference.get("answer"))
    if isinstance(reference, list):
        return {answer for one in reference if not isinstance(one, list) for answer in _answers(one)}
    if isinstance(reference, bool) or not isinstance(reference, str | int | float):
        return set()
    text = str(reference).strip()
    declared = _declared(text[-TAIL:]) if len(text) > SHORT else None
    return {folded for one in (text, declared.answer if declared else "") if (folded := _folded(one))}


def final_answer(reference: str) -> str:
    """Return the final answer that a reference answer declares, normalised; the whole text if it declares none."""
    text = reference.strip()
    declared = _declared(text[-TAIL:]) if len(text) > SHORT else None
    return _folded(declared.answer if declared else text)


def _same(said: str, answers: set[str]) -> bool:
    """Return True if an answer is one of the reference answers; for "B) 42", if "B" or "42" is."""
    label = OPTION.match(said)
    halves = (label[0].strip().rstrip(".):]"), said[label.end() :]) if label else ()
    return any(_folded(one) in answers for one in (said, *halves))


def _folded(text: str) -> str:
    """Normalise an answer: case, spacing, dollar signs, enclosing brackets, thousands commas, a final point."""
    text = re.sub(r"^[\s$*\\(\[{]+|[\s$*.\\)\]}:]+$", "", text.casefold())
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    return " ".join(text.split())


def _listed(lines: Sequence[str]) -> bool:
    """Return True if the last line is one of several of its kind, or is announced by the line before it."""
    last, before = lines[-1], lines[-2]
    if OPTION.match(last) or before.endswith((":", ",", ";", "-", "(")):
        return True
    return _kind(before) == _kind(last)


def _kind(line: str) -> str:
    """Classify a line: number, word (a few words that are not a sentence) or sentence."""
    if NUMBER.fullmatch(line):
        return "number"
    return "sentence" if line[-1] in ".?!=" or len(line.split()) > 6 else "word"


__all__ = ["Leak", "final_answer", "prompt_leak"]
