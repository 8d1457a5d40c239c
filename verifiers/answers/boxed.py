"""Boxes: `\\boxed{...}` and its misspellings in model output, and which boxes together form one answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from verifiers.answers.escapes import repair_escapes
from verifiers.answers.extraction import MAX_ANSWER, MAX_LISTED, Extraction, is_placeholder


@dataclass(frozen=True, slots=True)
class Box:
    """One box: its start, end and content; `repaired` is True if any of these was malformed."""

    start: int
    end: int
    content: str
    repaired: bool


_BOX = re.compile(r"ox(?:ed)?[ \t\n]{0,20}(?:\[[^\[\]{}]{0,80}\])?\{")
_BOX_START = re.compile(r"(?:\\(?:[bB]|fb|frameb|bb)|(\\?\x08|\\beginb|<b|(?<![\\A-Za-z])b))$")
"""Texts accepted before the `ox` of a box; the group matches a malformed start, which is repaired."""


def _next_box(text: str, at: int) -> tuple[int, int, bool] | None:
    """Return (start, index of the opening brace, True if the start was malformed) of the next box, or None."""
    while (found := _BOX.search(text, at)) is not None:
        begun = _BOX_START.search(text, max(at, found.start() - 8), found.start())
        if begun is not None:
            return begun.start(), found.end() - 1, begun[1] is not None
        at = found.end()
    return None


def boxes(text: str) -> list[Box]:
    """Return every `\\boxed{...}` in order, with nested braces. An unclosed one ends with its line (repaired)."""
    found: list[Box] = []
    mark = _next_box(text, 0)
    closings = _closings(text, mark[0]) if mark else {}
    while mark is not None:
        start, opening, repaired = mark
        close = closings.get(opening)
        if close is None:
            line_end = text.find("\n", opening)
            at = len(text) if line_end < 0 else line_end
            content = text[opening + 1 : min(at, opening + 1 + MAX_ANSWER)].rstrip().rstrip("$.").rstrip()
            found.append(Box(start, at, content, True))
        else:
            at = close + 1
            inner = text[opening + 1 : min(close, opening + 1 + MAX_ANSWER)]
            content = repair_escapes(inner)
            found.append(Box(start, at, content, repaired or content != inner))
        mark = _next_box(text, at)
    return found


_BRACE = re.compile(r"\\[{}\\]|[{}]")


def _closings(text: str, start: int) -> dict[int, int]:
    """Return opening brace -> closing brace, by index, for all braces from `start` on that are closed."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for mark in _BRACE.finditer(text, start):
        if mark[0] == "{":
            opened.append(mark.start())
        elif mark[0] == "}" and opened:
            found[opened.pop()] = mark.start()
    return found


def boxed(text: str) -> Extraction | None:
    """Return the last box that has an answer, with the boxes that form one answer with it.

    A box is skipped if the text denies it ("not", "is wrong"). None if there is no box with an answer; an Extraction
    with an empty answer if every candidate is denied.
    """
    found = [box for box in boxes(text) if not is_placeholder(box.content)]
    if not found:
        return None
    disowned: set[str] = set()
    while found and (is_negated(text, found[-1].start) or DISOWNED.match(text, found[-1].end)):
        disowned.add(found.pop().content.strip())
    if not found or found[-1].content.strip() in disowned:
        return Extraction(answer="", form="boxed")
    last = found[-1]
    joined = [last]
    for earlier in reversed(found[:-1]):
        if len(joined) > MAX_LISTED or not _are_one(text, earlier, joined[0]):
            break
        joined.insert(0, earlier)
    return Extraction(
        answer=last.content.strip(),
        form="boxed",
        repaired=last.repaired,
        boxes=tuple(dict.fromkeys(_named(text, box) for box in joined)) if len(joined) > 1 else (),
        at=last.start,
        end=last.end,
    )


def _named(text: str, box: Box) -> str:
    """Return the content of a box, as `x = 2` if the text has `x = \\boxed{2}`."""
    name = _NAME.search(text[max(0, box.start - 16) : box.start])
    return f"{name[1]}={box.content.strip()}" if name and "=" not in box.content else box.content.strip()


_NAME = re.compile(r"(?<![\w\\])([A-Za-z](?:_\w)?)\s{0,4}=\s{0,4}\$?$")
_SPACING = re.compile(
    r"\\(?:q?quad|[,;:! ]|hspace\{[^{}]{0,20}\}|text(?:rm|bf)?|mathrm|mbox|textit|displaystyle|land|wedge)"
    r"|[{}$]|\\[()\[\]]|\*\*"
)
_OR = re.compile(r"\\(?:lor|vee)(?![A-Za-z])")
_JOINS = re.compile(
    r"[^A-Za-z0-9]{0,20}"
    r"|[\s,;.&/]*(?:and|or|und|oder|et|ou|y|o|и|или|和|或|及|vs\.?|versus)[\s,;.&]*"
    r"|[\s,;.]*(?:and|or)?[\s,;.]*[A-Za-z](?:_\w)?\s*=\s*"
    r"|[\s,;.]*(?:or|perhaps|maybe|possibly)\b[^.\n]{0,32}"
    r"|(?:[a-z]{3,14}|(?:for|in)\s+(?:part|case)\s+\(?[a-z\d]{1,3}\)?),?\s+(?:and|or)"
)
"""Texts between two boxes of one answer, or of neither: `or perhaps`."""
_ALTERNATIVE = re.compile(
    r"[\s.,;()\[\]—–-]*(?:\(?\s?(?:or|alternatively|otherwise|possibly|maybe|perhaps|else)\b"
    r"|(?:but\s+)?(?:it|the\s+answer|this)\s+(?:could|might|may)(?:\s+(?:also|well|instead))?\s+be\b"
    r"|(?:or\s+)?(?:maybe|perhaps|possibly)\b)[^.\n]{0,80}",
    re.IGNORECASE,
)
"""Phrases that offer a second answer as an alternative, in the same sentence or a new one."""
_FRAME = re.compile(
    r"^[\s>*•#-]*(?:\*\*)?(?P<frame>option|case|scenario|possibility|alternative|candidate|if|when|guess)\b",
    re.IGNORECASE,
)
"""Beginnings of a sentence that holds only under a condition."""
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)]|\([a-z\d]\))\s+(?P<label>[^\n$\\]{1,40}?)\s*[:=]\s*$", re.IGNORECASE)
_ORDINAL = re.compile(r"\b(?:first|second|third|fourth|fifth|one|two|three|other|another|\d+|[a-z])\b", re.IGNORECASE)


_ANSWERED = frozenset(
    "root solution value zero intercept point number side length vertex focus eigenvalue answer part".split()
)
"""Nouns of which one answer may have several."""


def _are_one(text: str, earlier: Box, later: Box) -> bool:
    """Return True if two consecutive boxes belong to one answer: as parts of one list, or as alternatives."""
    between = text[earlier.end : later.start] if later.start - earlier.end <= 240 else None
    if between is None:
        return False
    plain = _SPACING.sub(" ", _OR.sub(" or ", between)).strip(" ")
    if len(plain) <= 40 and "\n\n" not in plain and _JOINS.fullmatch(plain):
        return True
    if len(plain) <= 120 and _ALTERNATIVE.fullmatch(plain):
        return True
    before = _SPACING.sub(" ", _line_before(text, earlier.start))
    line = plain.rpartition("\n")[2] if "\n" in plain else re.split(r"(?<=[.!?])\s", plain)[-1]
    frames = _FRAME.match(before), _FRAME.match(line)
    if frames[0] and frames[1]:
        return frames[0]["frame"].lower() == frames[1]["frame"].lower()
    labels = _BULLET.match(before), _BULLET.match(line)
    if not (labels[0] and labels[1]):
        return False
    first, second = (_ORDINAL.sub("", label["label"].lower()).split() for label in labels if label)
    same = first == second and first != ["step"]
    return same or bool(first and second and first[-1] == second[-1] and first[-1] in _ANSWERED)


def _line_before(text: str, at: int) -> str:
    """Return the part of the sentence or line before this position."""
    line = text[max(0, at - 200) : at].rpartition("\n")[2]
    return re.split(r"(?<=[.!?])\s", line)[-1]


def is_negated(text: str, at: int) -> bool:
    """Return True if the words before this position deny what follows."""
    before = text[max(0, at - 80) : at].lower().rstrip(" $\\(:")
    return before.endswith((" not", "n't", " never", "not equal to")) or bool(DENIED.search(before))


DISOWNED = re.compile(
    r"[\s$*.)]{0,4}(?:is|was|would\s+be)\s+(?:a\s+|the\s+|an\s+)?(?:wrong|incorrect|mistaken|not\s+(?:right|correct|the\s+answer))\b",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"(?:\bnot|n't|\bnever)\s+(?:think|believe|say|claim|mean|the\s+case|true|clear|agree)\b[^.!?\n]*$|\b(?:doubt|refuse|deny|reject|disagree)\b[^.!?\n]*$"
    r"|\b(?:wrong|incorrect|mistaken|false)\s+(?:answer|result|value|one|choice|option)s?\s+(?:is|are|was|would\s+be|might\s+be)$"
)
