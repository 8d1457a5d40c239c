"""Boxes: `\\boxed{...}` and what models write in its place, and which of them are one answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from verifiers.answers.escapes import mended
from verifiers.answers.extraction import MAX_ANSWER, MAX_LISTED, Extraction, is_placeholder


@dataclass(frozen=True, slots=True)
class Box:
    """One box: where it begins and ends, and what is in it."""

    start: int
    end: int
    content: str
    repaired: bool


_BOX = re.compile(r"ox(?:ed)?[ \t\n]{0,20}(?:\[[^\[\]{}]{0,80}\])?\{")
_BOX_START = re.compile(r"(?:\\(?:[bB]|fb|frameb|bb)|(\\?\x08|\\beginb|<b|(?<![\\A-Za-z])b))$")
"""What may stand before the `ox` of a box; the group is a start that was mended."""


def _next_box(text: str, at: int) -> tuple[int, int, bool] | None:
    """(start, index of the opening brace, whether its beginning was mended) of the next box."""
    while (found := _BOX.search(text, at)) is not None:
        begun = _BOX_START.search(text, max(at, found.start() - 8), found.start())
        if begun is not None:
            return begun.start(), found.end() - 1, begun[1] is not None
        at = found.end()
    return None


def boxes(text: str) -> list[Box]:
    """Every `\\boxed{...}` in order, with nested braces; an unclosed one ends with its line and is marked repaired."""
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
            content = mended(inner)
            found.append(Box(start, at, content, repaired or content != inner))
        mark = _next_box(text, at)
    return found


_BRACE = re.compile(r"\\[{}\\]|[{}]")


def _closings(text: str, start: int) -> dict[int, int]:
    """Where each brace that opens from here on is closed, if it is."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for mark in _BRACE.finditer(text, start):
        if mark[0] == "{":
            opened.append(mark.start())
        elif mark[0] == "}" and opened:
            found[opened.pop()] = mark.start()
    return found


def boxed(text: str) -> Extraction | None:
    """The last box that holds an answer and is not disowned, with those that are one answer with it."""
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
    """`x = \\boxed{2}` beside another box as `x = 2`."""
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
"""What stands between two boxes of one answer, or of none: `or perhaps`."""
_ALTERNATIVE = re.compile(
    r"[\s.,;()\[\]—–-]*(?:\(?\s?(?:or|alternatively|otherwise|possibly|maybe|perhaps|else)\b"
    r"|(?:but\s+)?(?:it|the\s+answer|this)\s+(?:could|might|may)(?:\s+(?:also|well|instead))?\s+be\b"
    r"|(?:or\s+)?(?:maybe|perhaps|possibly)\b)[^.\n]{0,80}",
    re.IGNORECASE,
)
"""What offers a second answer beside the first, in a sentence of its own or not."""
_FRAME = re.compile(
    r"^[\s>*•#-]*(?:\*\*)?(?P<frame>option|case|scenario|possibility|alternative|candidate|if|when|guess)\b",
    re.IGNORECASE,
)
"""How a sentence that holds under a condition begins."""
_BULLET = re.compile(r"^\s*(?:[-*•]|\d{1,2}[.)]|\([a-z\d]\))\s+(?P<label>[^\n$\\]{1,40}?)\s*[:=]\s*$", re.IGNORECASE)
_ORDINAL = re.compile(r"\b(?:first|second|third|fourth|fifth|one|two|three|other|another|\d+|[a-z])\b", re.IGNORECASE)


_ANSWERED = frozenset(
    "root solution value zero intercept point number side length vertex focus eigenvalue answer part".split()
)
"""What there may be several of in one answer."""


def _are_one(text: str, earlier: Box, later: Box) -> bool:
    """Whether two boxes in a row are parts of one list, or two answers to choose from."""
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
    """The sentence or the line up to this place."""
    line = text[max(0, at - 200) : at].rpartition("\n")[2]
    return re.split(r"(?<=[.!?])\s", line)[-1]


def is_negated(text: str, at: int) -> bool:
    """Whether what stands here is denied by the words before it."""
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
