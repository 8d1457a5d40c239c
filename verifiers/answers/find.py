"""Search for the final answer in a model's text, by scanning and never by evaluating. Linear in the text's length.

Forms from strongest to weakest; within a form the last one counts: `\\boxed{...}` · `#### ...` · `<answer>...</answer>`
· "the final answer is ..." / "the answer is ..." / "answer: ..." / "... is the answer", in fifteen languages · a JSON
object with an `answer` · a last line `A: ...` · a text that ends in bold `**...**` · a text that ends in `$...$` · a
last line that is only a number · a text that is only a short answer. A declaration after the strongest one may replace
it: a later `####` or `<answer>`, a later "Answer: ..." after a box, and "wait, that is wrong: the answer is ...".
Thinking, anything after the end of the turn, and anything after the beginning of another problem is ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from verifiers.answers.boxed import boxed
from verifiers.answers.declared import DECLARED, DOUBT, declared
from verifiers.answers.escapes import repair_escapes
from verifiers.answers.extraction import MAX_ANSWER, MAX_LISTED, Extraction, is_placeholder, is_value
from verifiers.answers.patterns import Pattern
from verifiers.answers.stated import SPAN, unwrapped
from verifiers.answers.visible import before_next_problem, strip_thinking, visible_text
from verifiers.jsonl import is_list, is_object

__all__ = ["DEFAULT_FORMS", "FINDERS", "Extraction", "extract_answer", "strip_thinking"]

_HASHES = Pattern(r"(?<!#)####(?!#)[ \t]*")
_TITLE = Pattern(
    r"(?:\*\*)?(?:\d{1,2}(?:\.\d{1,2})*[.):]?\s+|\(?[a-zA-Z\d][.)]\s+)?(?:\*\*)?[A-Z][a-z]+\b[^=$\\]*$|(?i:step|part|case)\s+\d"
)
_NUMBERED_TITLE = Pattern(r"(?:\*\*)?\d{1,2}(?:\.\d{1,2})*[.):]\s+(?:\*\*)?[A-Z][a-z]{2,}")
_TOTAL = Pattern(r"^(?:the\s+)?(?:final\s+)?[A-Za-z]{3,12}(?:\s+[A-Za-z]{2,12})?:\s+(?=[\d$\\*-])")
"""Matches the label of `Total: 18` after `####`."""
_ANSWER_TAG = Pattern(r"</?(?:final_?)?answer>|\[/?ANSWER\]", re.IGNORECASE)
RETRACTED = Pattern(
    r"\b(?:that(?:'s|\s+is|\s+was)\s+(?:wrong|incorrect|not\s+(?:right|correct))|(?:this|it)\s+is\s+(?:wrong|incorrect)"
    r"|(?:that|this|it)\s+(?:can't|cannot|can\s+not|couldn't)\s+be\s+(?:right|correct)"
    r"|(?:that|this|it)\s+(?:doesn't|does\s+not)\s+(?:look|seem)\s+(?:right|correct)"
    r"|scratch\s+that|strike\s+that|take\s+(?:that|it|this)\s+back|i\s+made\s+an?\s+(?:mistake|error)"
    r"|(?:ignore|disregard)\s+(?:that|the\s+above|my\s+answer)|correction\s*:)|>\s+is\s+(?:wrong|incorrect)\b",
    re.IGNORECASE,
)
"""Phrases that retract the answer before them."""
PAIR = Pattern(
    r"['\"](?:final_?\s?)?answer['\"]\s{0,4}:\s{0,4}['\"]?([^'\",{}\[\]]{1,200})['\"]?\s{0,4}[,}]", re.IGNORECASE
)
JSON_KEYS = ("final_answer", "answer", "final answer", "result", "solution")
BOLD_END = Pattern(r"\*\*([^*\n]{1,200})\*\*[\s.!。！．।]*$")
LONE_NUMBER = Pattern(r"-?\$?\d[\d,]*(?:\.\d+)?%?")
LONE_LETTER = Pattern(r"\(?[A-J]\)?")
BARE_LIMIT = 120
YES_NO = Pattern(r"(yes|no|true|false)(?:[,.;:]|\s[—–-])\s+(?=[a-z])(?![^\n]{300})[^\n]*$", re.IGNORECASE)


def extract_answer(
    text: str, *, forms: Sequence[str] | None = None, lenient: bool = False, thinking_tags: Sequence[str] = ()
) -> Extraction | None:
    """Return the final answer that the text declares; None if it declares none, or retracts it.

    Args:
        text: a model's whole completion.
        forms: accepted forms, in order of preference; None: all of DEFAULT_FORMS.
        lenient: where no form declares an answer, take the last number of the text.
        thinking_tags: names of further tags whose content is thinking.
    Raises:
        ValueError: an unknown form.

    Example:
        >>> extract_answer("So \\\\boxed{42}.").answer
        '42'
        >>> extract_answer("<think>\\\\boxed{1}</think> #### 2").answer
        '2'
    """
    accepted = DEFAULT_FORMS if forms is None else forms
    for form in accepted:
        if form not in FINDERS:
            raise ValueError(f"unknown answer form {form!r}; known: {', '.join(FINDERS)}.")
    visible = visible_text(text, thinking_tags=thinking_tags)
    visible = before_next_problem(visible, lambda before: _declares(before, accepted))
    for form in accepted:
        found = FINDERS[form](visible)
        if found is not None and form == "bare" and lenient and _is_sentence(found.answer):
            break
        if found is not None and form in _CORRECTABLE and found.answer:
            found = _corrected(found, visible, accepted)
            return _repaired(found) if found is not None else None
        if found is not None:
            taken_back = form == "declared" and found.at >= 0 and RETRACTED.search(visible, found.at)
            return _repaired(found) if found.answer and not taken_back else None
    return _last_number(visible) if lenient else None


def _repaired(found: Extraction) -> Extraction:
    """Return the extraction with lost or doubled backslashes repaired."""
    answer = repair_escapes(found.answer)
    if answer == found.answer and not found.boxes:
        return found
    boxes = tuple(repair_escapes(box) for box in found.boxes)
    return replace(found, answer=answer, boxes=boxes, repaired=found.repaired or answer != found.answer)


def _declares(text: str, forms: Sequence[str]) -> bool:
    """Return True if a text explicitly declares an answer, or is only a number or a letter."""
    found = any(FINDERS[form](text) is not None for form in _OUTRIGHT if form in forms)
    plain = text.strip().rstrip(".")
    return found or (
        len(text) < BARE_LIMIT and (LONE_NUMBER.fullmatch(plain) or LONE_LETTER.fullmatch(plain)) is not None
    )


def _corrected(found: Extraction, text: str, forms: Sequence[str]) -> Extraction | None:
    """Return the declaration that replaces this one, or this one; None if it is retracted and nothing follows."""
    for form, mark in (("hashes", "####"), ("tag", "answer>")):
        if form in forms and form != found.form and mark in text:
            later = FINDERS[form](text)
            if later is not None and later.at > found.at and (form == "tag" or is_value(later.answer)):
                found = later
    rest = text[max(found.end, found.at + 1) :]
    later = declared(rest) if "declared" in forms and DECLARED.search(rest) else None
    if later is not None and later.at >= 0 and is_value(later.answer):
        doubted = DOUBT.search(rest, 0, later.at) is not None
        if doubted or (found.form == "boxed" and not _repeats(later.answer, found.answer)):
            return later
    return None if RETRACTED.search(rest) else found


def _repeats(said: str, boxed_answer: str) -> bool:
    """Return True if a later declaration repeats the content of the box, in other words or rounded."""
    if re.match(r"\s*(?:about|approximately|roughly|around|nearly|≈|~|\\approx)", said):
        return True
    plain = said.strip(" $*.")[:80]
    return len(plain) > 1 and re.search(rf"(?<![\w.]){re.escape(plain)}(?![\w.])", boxed_answer) is not None


def _hashes(text: str) -> Extraction | None:
    """Return the text after the last `####` that is not a heading."""
    answers: list[tuple[re.Match[str], str]] = []
    for mark in reversed(list(_HASHES.finditer(text))):
        line_end = text.find("\n", mark.end())
        line_end = len(text) if line_end < 0 else line_end
        line = text[mark.end() : min(line_end, mark.end() + MAX_ANSWER)].strip()
        if not line and not answers and _is_cut_repeat(text, mark):
            continue
        if not answers and _is_title(line, below=text[line_end : line_end + 400]):
            continue
        if answers and (mark.end() + 60 < answers[0][0].start() or len(answers) > MAX_LISTED):
            break
        between = text[mark.end() : answers[0][0].start()] if answers else ""
        if answers and (between.strip().count("\n") or "\n\n" in between):
            break
        answers.insert(0, (mark, between.strip() if answers else _TOTAL.sub("", line)))
        if len(answers) == 1 and not line:
            break
    if not answers or not answers[-1][1]:
        return None
    mark, line = answers[-1]
    return Extraction(
        answer=line, form="hashes", boxes=tuple(dict.fromkeys(said for _, said in answers)), at=mark.start()
    )


def _is_cut_repeat(text: str, mark: re.Match[str]) -> bool:
    """Return True for a `####` at the truncated end of the text, if the line before has one with an answer."""
    before = text[max(0, mark.start() - MAX_ANSWER) : mark.start()].rstrip().rpartition("\n")[2]
    return not text[mark.end() :].strip() and _HASHES.match(before) is not None


def _is_title(line: str, *, below: str) -> bool:
    """Return True if the text after `####` is a heading, as in Markdown, and not an answer, as in GSM8K."""
    if _NUMBERED_TITLE.match(line):
        return True
    return bool(below.strip()) and _TITLE.match(line) is not None


def _tag(text: str) -> Extraction | None:
    marks = list(_ANSWER_TAG.finditer(text))
    adjacent: list[str] = []
    start = end = -1
    for position in range(len(marks) - 1, 0, -1):
        closing, opening = marks[position], marks[position - 1]
        if "/" in closing.group() and "/" not in opening.group():
            if adjacent and (text[closing.end() : start].strip() or len(adjacent) > MAX_LISTED):
                break
            inner = text[opening.end() : min(closing.start(), opening.end() + MAX_ANSWER)].strip()
            if is_placeholder(inner):
                continue
            nested = boxed(inner) or declared(inner) or _dollars(inner)
            adjacent.insert(0, nested.answer if nested else inner)
            start, end = opening.start(), max(end, opening.start())
    if not adjacent:
        return _half_tag(text, marks[-1]) if marks else None
    return Extraction(answer=adjacent[-1], form="tag", boxes=tuple(dict.fromkeys(adjacent)), at=end)


def _half_tag(text: str, mark: re.Match[str]) -> Extraction | None:
    """Return a short answer between a single tag and the beginning or end of the text; None if it is not short."""
    closing = "/" in mark.group()
    inner = (text[: mark.start()] if closing else text[mark.end() :]).strip()
    if not 0 < len(inner) <= BARE_LIMIT or "\n" in inner:
        return None
    nested = boxed(inner)
    return Extraction(answer=nested.answer if nested else inner, form="tag", repaired=True, at=mark.start())


def _json(text: str) -> Extraction | None:
    """Return the answer of a text that is one JSON object, with or without a code fence."""
    stripped = text.strip()
    body = stripped
    if stripped.endswith("```"):
        body = stripped[:-3].rpartition("```")[2].strip().removeprefix("json").strip()
    if not (body.startswith("{") and body.endswith("}")) or len(body) > MAX_ANSWER:
        return None
    try:
        found = json.loads(body, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        pair = PAIR.search(body)
        return Extraction(answer=pair[1].strip(), form="json") if pair else None
    for key in JSON_KEYS if is_object(found) else ():
        value = found.get(key)
        if is_list(value):
            value = ", ".join(map(str, value))
        if isinstance(value, str | bool) and str(value).strip():
            nested = boxed(str(value)) or _dollars(str(value))
            return Extraction(answer=nested.answer if nested else str(value).strip(), form="json")
    return None


def _answer_line(text: str) -> Extraction | None:
    """Return the answer of a last line `A: 18`; None if the text also has a line `B:`: a list of options."""
    line = text.rstrip().rpartition("\n")[2].strip()
    if not line.startswith("A:") or "\nB:" in text:
        return None
    answer = line[2:].strip()
    return Extraction(answer=answer[:MAX_ANSWER], form="answer line") if answer else None


def _bold(text: str) -> Extraction | None:
    found = BOLD_END.search(text[-400:])
    if not found:
        return None
    answer = unwrapped(found.group(1).strip().rstrip("."))
    return Extraction(answer=answer, form="bold", boxes=_listed(text[: -len(found.group())], answer))


def _listed(before: str, answer: str) -> tuple[str, ...]:
    """Return both answers of `$7$ or $8$`, given the text before the last one; empty if it is the only answer."""
    line = before[-400:].rpartition("\n")[2]
    spans = list(SPAN.finditer(line))
    if not spans or not JOINED.fullmatch(line, spans[-1].end()):
        return ()
    return (*(next(group for group in span.groups() if group) for span in spans), answer)


JOINED = Pattern(
    r"\s{0,8}(?:[,/|;，、；]|[,，]?\s{0,8}(?:or|and|und|oder|et|ou|y|и|или|和|或者?|与|與|と|または|과|와|또는)"
    r"(?:\s+(?:maybe|perhaps|possibly))?)\s{0,8}"
)


def _dollars(text: str) -> Extraction | None:
    stripped = text.rstrip().rstrip(".。").rstrip()
    for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if stripped.endswith(closing) and not stripped.endswith("\\" + closing):
            start = stripped.rfind(opening, 0, len(stripped) - len(closing))
            if start >= 0 and len(stripped) - start <= MAX_ANSWER:
                inner = stripped[start + len(opening) : len(stripped) - len(closing)].strip()
                if inner:
                    return Extraction(answer=inner, form="dollars", boxes=_listed(stripped[:start], inner))
    return None


def _last_line(text: str) -> Extraction | None:
    """Return a last line that is only a number."""
    line = text.rstrip().rpartition("\n")[2].strip().rstrip(".")
    return Extraction(answer=line, form="last line") if LONE_NUMBER.fullmatch(line) else None


def _bare(text: str) -> Extraction | None:
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```"):
        stripped = stripped.strip("`").strip()
    if said := YES_NO.match(stripped):
        return Extraction(answer=said[1], form="bare")
    if (
        stripped
        and "\n" not in stripped
        and len(stripped) <= BARE_LIMIT
        and not re.search(r"[a-z]{3,} [a-z]{2,} |\\boxed\s{0,9}\{", stripped)
    ):
        return Extraction(answer=stripped, form="bare")
    return None


_WORD = Pattern(r"[^\W\d_]{2,}")
_UNSPACED = Pattern(r"[\u3040-\u30ff\u3400-\u9fff]{5}")


def _is_sentence(answer: str) -> bool:
    """Return True for a sentence with a number: four words or more, or five characters of a script without spaces."""
    if "\\" in answer or NUMBER.search(answer) is None:
        return False
    return len(list(_WORD.finditer(answer))) >= 4 or _UNSPACED.search(answer) is not None


NUMBER = Pattern(r"-?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")


def _last_number(text: str) -> Extraction | None:
    found = [mark.group() for mark in NUMBER.finditer(text[-MAX_ANSWER:])]
    return Extraction(answer=found[-1].rstrip(","), form="last number") if found else None


FINDERS: Mapping[str, Callable[[str], Extraction | None]] = {
    "boxed": boxed,
    "hashes": _hashes,
    "tag": _tag,
    "declared": declared,
    "json": _json,
    "answer line": _answer_line,
    "bold": _bold,
    "dollars": _dollars,
    "last line": _last_line,
    "bare": _bare,
}
DEFAULT_FORMS: tuple[str, ...] = tuple(FINDERS)
_CORRECTABLE = frozenset(("boxed", "hashes", "tag"))
"""Forms with a known position in the text, so that a later declaration can replace them."""
_OUTRIGHT = ("boxed", "hashes", "tag", "declared")
"""Forms that declare an answer explicitly, anywhere in the text."""
