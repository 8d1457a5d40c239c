"""The final answer of a model's text, found by scanning, never by evaluating. Linear in the text.

Order, strongest form first; within a form the last one wins:
`\\boxed{...}` · `#### ...` · `<answer>...</answer>` · "the final answer is ..." / "the answer is ..." / "answer: ..." /
"... is the answer", in ten languages · a JSON object with an `answer` · a last line `A: ...` · a text that ends in bold
`**...**` · a text that ends in `$...$` · a last line that is nothing but a number · a text that is nothing but a short
answer. Two declarations that follow the strongest one and take it back win over it: a later `####` or `<answer>`, and
"wait, that is wrong: the answer is ...".
Text inside `<think>...</think>` never counts; an unclosed `<think>` hides everything after it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from verifiers.jsonl import is_list, is_object

MAX_ANSWER = 20_000
"""Characters of an answer that are looked at; a longer one is cut, which no reference equals."""

MAX_LISTED = 100
"""Declarations side by side that are taken for one list."""
THINK = re.compile(r"</?(?:think(?:ing)?|thought|scratchpad)>|<\|(?:begin|end)_of_thought\|>", re.IGNORECASE)
MARKUP = re.compile(r"</?(?:b|strong|i|em|u|p|span|div|code|mark)(?:\s[^<>]{0,80})?>|<br\s?/?>", re.IGNORECASE)
UNDERSCORES = re.compile(r"(?<![\w\\])__(?=[A-Z\d])|(?<=[\w:.!?)])__(?!\w)")
HASHES = re.compile(r"####[ \t]*")
ANSWER_TAG = re.compile(r"</?(?:final_?)?answer>|\[/?ANSWER\]", re.IGNORECASE)
_VERBS = (
    r"\s{1,9}(?:is|are)\s{1,9}not\b",
    r"\s{1,9}(?:is|are)\b\s{0,8}:?",
    r"\s{1,9}(?:should|must|would|will)\s{1,9}be\b",
    r"\s{1,9}equals?\b",
    r"\s{1,9}(?:comes?(?:\s{1,9}out)?|works?\s{1,9}out|turns?\s{1,9}out)\s{1,9}to(?:\s{1,9}be)?\b",
    r"\s{0,8}(?:\*\*)?\s{0,8}[:：]",
    r"\s{0,8}(?:=|→|⇒|->|=>|\\to\b)",
    r"\s{0,9}(?:是|为|為|は|은|는|هو|هي|है)\s{0,9}[:：]?",
    r"(?<=[选選])\s{0,9}[:：]?",
    r"\s{1,9}(?:est|es|ist|lautet|é|è|to|là)\b\s{0,9}:?",
    r"(?<=\.)\s",
    r"\s{1,9}[—–-]\s",
)
_IS = (
    r"(?:\s\([^()\n]{1,40}\))?"
    r"(?:\s{1,9}to\s{1,9}(?:(?:the|this)\s{1,9})?(?:question|problem|part|exercise)(?:\s{1,9}\(?\w{1,3}\)?)?)?"
    r"(?:,\s(?:therefore|then|thus|hence),)?\s{0,8}(?P<verb>" + "|".join(_VERBS) + r")(?P<after>\s*)"
)
_SUBJECTS = (
    r"\bfinal\s{1,9}answer",
    r"\bthe\s{1,9}(?:correct\s{1,9})?answers?",
    r"\banswers?",
    r"\bans\b\.?(?=\s{0,8}[:=\d$-])",
    r"\b(?:correct|right)\s{1,9}(?:option|choice)",
    r"(?:最终|最終|正确|正確)?答案|答え|정답|답|故选|故選",
    r"\bответ|\bréponse(?:\s{1,9}finale)?|\brespuesta(?:\s{1,9}final)?|\bantwort|\bresposta(?:\s{1,9}final)?",
    r"\brisposta(?:\s{1,9}finale)?|\bodpowiedź|đáp\s{1,9}án|\bcevap|الجواب|الإجابة(?:\s{1,9}النهائية)?|उत्तर",
)
DECLARED = re.compile(f"(?:{'|'.join(_SUBJECTS)}){_IS}", re.IGNORECASE)
_WEAK_SUBJECTS = (
    r"\bthe\s{1,9}(?:final\s{1,9})?(?:results?|solutions?(?:\s{1,9}set)?|value|roots?)",
    r"(?<![^\n])(?:result|solution)",
    r"\b(?:die\s{1,9})?lösung",
)
DECLARED_WEAKLY = re.compile(f"(?:{'|'.join(_WEAK_SUBJECTS)}){_IS}", re.IGNORECASE)
"""Words that also stand in the middle of a derivation: asked only where no "answer" is declared."""
HEADING = re.compile(
    r"^[#*_ \t]{0,20}(?:final\s+)?answer(?:[*_: \t]{0,20}\n|\.\*{0,2}[ \t]|\*\*[ \t])", re.IGNORECASE | re.MULTILINE
)
REVERSED = re.compile(
    r"(?<=\S)\s{1,8}(?:is|as)\s+(?:therefore\s+|thus\s+|indeed\s+)?(?:the|our|my)\s+(?:final\s+|correct\s+)?answer\b",
    re.IGNORECASE,
)
BEFORE = re.compile(
    r"(?:\$([^$\n]{1,200})\$|\\\(([^\n]{1,200}?)\\\)|\*\*([^*\n]{1,200})\*\*|(?<![\w.,/])(\(?-?[\d][\d,./]*%?\)?|\(?[A-E]\)?))$"
)
RETRACTED = re.compile(
    r"\b(?:that(?:'s|\s+is|\s+was)\s+(?:wrong|incorrect|not\s+(?:right|correct))|(?:this|it)\s+is\s+(?:wrong|incorrect)"
    r"|scratch\s+that|i\s+made\s+an?\s+(?:mistake|error)|ignore\s+(?:that|the\s+above)|correction\s*:)|>\s+is\s+(?:wrong|incorrect)\b",
    re.IGNORECASE,
)
FILLER = re.compile(
    r"(?:,\s{0,8})?(?:(?:therefore|thus|hence|so|donc|also|daher|entonces|quindi|simply|just|exactly|precisely|indeed|clearly|given\s+by|found\s+to\s+be|equal\s+to|then)\b"
    r"[\s,:]{0,8})+",
    re.IGNORECASE,
)
SPAN = re.compile(r"\*\*([^*\n]{1,200})\*\*|\$([^$\n]{1,400})\$|\\\(([^\n]{1,400}?)\\\)|`([^`\n]{1,200})`")
HEDGED = re.compile(
    r"\b(?:not|n't|or|either|neither|between|least|most|more|less|than|but|except|different|if|unless|when|maybe|possibly|and)\b",
    re.IGNORECASE,
)
DOUBT = re.compile(r"\b(?:wait|actually|no|wrong|mistake|incorrect|oops|sorry|instead|corrected|hmm)\b", re.IGNORECASE)
OPENED = re.compile(r"\s*\n\s*(?:[>•-]\s+|```\w*\n)")
PAIR = re.compile(
    r"['\"](?:final_?\s?)?answer['\"]\s{0,4}:\s{0,4}['\"]?([^'\",{}\[\]]{1,200})['\"]?\s{0,4}[,}]", re.IGNORECASE
)
JSON_KEYS = ("final_answer", "answer", "final answer", "result", "solution")
BOLD_END = re.compile(r"\*\*([^*\n]{1,200})\*\*[\s.!]*$")
NEGATED = re.compile(r"^\s*(?:definitely\s+|certainly\s+)?(?:not\b|isn't\b|n't\b|nicht\b|pas\b|не\b)", re.IGNORECASE)
SENTENCE_END = re.compile(
    r"\.(?=\s|$)|[\n。]|;(?=\s)|,(?=\s+(?:and so|so|which|because|since|but|as|not)\b)"
    r"|\s(?=(?:because|since|which|rather|instead|as)\b)"
    r"|\s(?=\((?!or\b|and\b|not\b|maybe\b|possibly\b|perhaps\b)(?:[a-z]{2,}|\d+\)))"
    r"|\s{0,8}(?=です|입니다|이다)|!(?=\s+(?:[A-Z]|[^\x00-\x7f])|\s*$)"
)
ANOTHER = re.compile(r"\s*(?:,\s*)?\b(?:or|and)\s+[$\d\\*-]")
LONE_NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?%?")
BARE_LIMIT = 120
YES_NO = re.compile(r"(yes|no|true|false)(?:[,.;:]|\s[—–-])\s+(?=[a-z])(?![^\n]{300})[^\n]*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """An extracted answer."""

    answer: str
    form: str
    """Which form declared it: boxed, hashes, tag, declared, json, answer line, bold, dollars, last line, bare."""
    repaired: bool = False
    """True where a malformed box was mended (a missing brace, a lost backslash)."""
    boxes: tuple[str, ...] = ()
    """Every declaration adjacent to the last one, itself included (several answers side by side), without repeats."""
    at: int = -1
    """Where its declaration begins, where that matters; -1 elsewhere."""


def extract_answer(text: str, *, forms: Sequence[str] | None = None, lenient: bool = False) -> Extraction | None:
    """The final answer that the text declares, or None.

    Args:
        text: a model's whole completion.
        forms: accepted forms, in order of preference; None: all of DEFAULT_FORMS.
        lenient: where no form declares an answer, take the last number of the text.
    Raises:
        ValueError: an unknown form.

    Example:
        >>> extract_answer("So \\\\boxed{42}.").answer
        '42'
        >>> extract_answer("<think>\\\\boxed{1}</think> #### 2").answer
        '2'
    """
    visible = _without_markup(strip_thinking(text))
    for form in DEFAULT_FORMS if forms is None else forms:
        if form not in FINDERS:
            raise ValueError(f"unknown answer form {form!r}; known: {', '.join(FINDERS)}.")
        found = FINDERS[form](visible)
        if found is not None and form in _CORRECTABLE and found.answer:
            return _corrected(found, visible, forms or DEFAULT_FORMS)
        if found is not None:
            return found if found.answer else None
    return _last_number(visible) if lenient else None


def strip_thinking(text: str) -> str:
    """The text outside `<think>` blocks; a lone `</think>` hides everything before it (the opening tag was a prompt's).

    Example:
        >>> strip_thinking("a<think>b</think>c"), strip_thinking("b</think>c"), strip_thinking("a<think>b")
        ('ac', 'c', 'a')
    """
    parts: list[str] = []
    depth = at = 0
    for mark in THINK.finditer(text):
        opening = not mark.group().startswith(("</", "<|end", "<|END"))
        if opening:
            if depth == 0:
                parts.append(text[at : mark.start()])
            depth += 1
        elif depth > 0:
            depth -= 1
        else:
            parts.clear()
        at = mark.end()
    if depth == 0:
        parts.append(text[at:])
    return "".join(parts)


def _without_markup(text: str) -> str:
    """Without HTML's bold and the like; Markdown's second spelling of bold as its first."""
    if "<" in text:
        text = MARKUP.sub("", text)
    return UNDERSCORES.sub("**", text) if "__" in text else text


@dataclass(frozen=True, slots=True)
class _Box:
    start: int
    end: int
    content: str
    repaired: bool


def boxes(text: str) -> list[_Box]:
    """Every `\\boxed{...}` in order, with nested braces; an unclosed one ends with its line and is marked repaired."""
    found: list[_Box] = []
    at = 0
    while (mark := _next_box(text, at)) is not None:
        start, open_brace, lost = mark
        close = _closing_brace(text, open_brace)
        if close is None:
            line_end = text.find("\n", open_brace)
            end = len(text) if line_end < 0 else line_end
            content = text[open_brace + 1 : end].rstrip().rstrip("$.").rstrip()
            found.append(_Box(start, end, content[:MAX_ANSWER], True))
            at = end
        else:
            found.append(_Box(start, close + 1, text[open_brace + 1 : close][:MAX_ANSWER], lost))
            at = close + 1
    return found


_BOX = re.compile(r"(?:\\(?:boxed|fbox|framebox)|(\\?\x08oxed))[ \t\n]{0,20}\{")


def _next_box(text: str, at: int) -> tuple[int, int, bool] | None:
    """(start, index of the opening brace, whether the backslash-b was lost) of the next box."""
    found = _BOX.search(text, at)
    return (found.start(), found.end() - 1, found[1] is not None) if found else None


def _closing_brace(text: str, opening: int) -> int | None:
    depth = 0
    at = opening
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 2
            continue
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return None


def _boxed(text: str) -> Extraction | None:
    found = boxes(text)
    if not found:
        return None
    disowned: set[str] = set()
    while found and (_is_negated(text, found[-1].start) or DISOWNED.match(text, found[-1].end)):
        disowned.add(found.pop().content.strip())
    if not found or found[-1].content.strip() in disowned:
        return Extraction(answer="", form="boxed")
    last = found[-1]
    adjacent = [last]
    for earlier in reversed(found[:-1]):
        between = text[earlier.end : adjacent[0].start]
        if len(between) > 40 or "\n\n" in between or not ADJACENT.fullmatch(between) or len(adjacent) > MAX_LISTED:
            break
        adjacent.insert(0, earlier)
    return Extraction(
        answer=last.content.strip(),
        form="boxed",
        repaired=last.repaired,
        boxes=tuple(dict.fromkeys(_named(text, box) for box in adjacent)) if len(adjacent) > 1 else (),
        at=last.start,
    )


def _named(text: str, box: _Box) -> str:
    """`x = \\boxed{2}` beside another box as `x = 2`."""
    name = NAMED.search(text[max(0, box.start - 16) : box.start])
    return f"{name[1]}={box.content.strip()}" if name and "=" not in box.content else box.content.strip()


NAMED = re.compile(r"(?<![\w\\])([A-Za-z](?:_\w)?)\s{0,4}=\s{0,4}\$?$")
ADJACENT = re.compile(
    r"[^A-Za-z0-9]{0,20}|[\s$,;.&]*\\?(?:and|or|quad|qquad|lor|vee|text\{\s?(?:and|or)\s?\})[\s$,;.&]*"
    r"|[\s$,;.]*(?:and\b)?[\s$,;.]*[A-Za-z](?:_\w)?\s{0,4}=\s{0,4}\$?"
    r"|[\s$,;.]*(?:or|perhaps|maybe|possibly)\b[^.\n]{0,32}"
)
"""What stands between two boxes of one answer, or of none: `or perhaps`."""


def _corrected(found: Extraction, text: str, forms: Sequence[str]) -> Extraction | None:
    """What a later declaration puts in the place of this one; None where it is taken back and nothing follows."""
    for form, mark in (("hashes", "####"), ("tag", "answer>")):
        if form in forms and form != found.form and mark in text:
            later = FINDERS[form](text)
            if later is not None and later.at > found.at:
                found = later
    rest = text[found.at :]
    marks = list(DECLARED.finditer(rest, min(len(rest), 1)))
    mark = marks[-1] if marks else None
    if mark is not None and "declared" in forms and DOUBT.search(rest, 0, mark.start()):
        later = _declared(rest)
        if later is not None and (later.answer[:1].isdigit() or later.answer[:1] in "-\\$(" or len(later.answer) < 3):
            return later
    return None if RETRACTED.search(rest) else found


def _is_negated(text: str, at: int) -> bool:
    before = text[max(0, at - 80) : at].lower().rstrip(" $\\(:")
    return before.endswith((" not", "n't", " never", "not equal to")) or bool(DENIED.search(before))


DISOWNED = re.compile(
    r"[\s$*.)]{0,4}(?:is|was|would\s+be)\s+(?:wrong|incorrect|not\s+(?:right|correct|the\s+answer))\b", re.IGNORECASE
)


DENIED = re.compile(
    r"(?:\bnot|n't|\bnever)\s+(?:think|believe|say|claim|mean|the\s+case|true|clear|agree)\b[^.!?\n]*$|\b(?:doubt|refuse|deny|reject|disagree)\b[^.!?\n]*$"
    r"|\b(?:wrong|incorrect|mistaken|false)\s+(?:answer|result|value|one|choice|option)s?\s+(?:is|are|was|would\s+be|might\s+be)$"
)
SUPPOSED = re.compile(
    r"\b(?:if|suppose|supposing|assume|assuming|whether|unless)(?:\s+that)?\s*$"
    r"|\b(?:wrong|incorrect|mistaken|false|naive|tempting)\s*$|\b(?:might|could|may|would|some|people)\s+say(?:\s+that)?\s*$",
    re.IGNORECASE,
)


def _hashes(text: str) -> Extraction | None:
    marks = list(HASHES.finditer(text))
    if not marks:
        return None
    line = text[marks[-1].end() : marks[-1].end() + MAX_ANSWER].split("\n", 1)[0].strip()
    adjacent = [line]
    for earlier, later in zip(marks[-2::-1], marks[:0:-1], strict=True):
        between = text[earlier.end() : later.start()]
        if len(between) > 60 or between.strip().count("\n") or "\n\n" in between:
            break
        adjacent.insert(0, between.strip())
    boxes = tuple(dict.fromkeys(adjacent))
    return Extraction(answer=line, form="hashes", boxes=boxes, at=marks[-1].start()) if line else None


def _tag(text: str) -> Extraction | None:
    marks = list(ANSWER_TAG.finditer(text))
    adjacent: list[str] = []
    start = end = -1
    for position in range(len(marks) - 1, 0, -1):
        closing, opening = marks[position], marks[position - 1]
        if "/" in closing.group() and "/" not in opening.group():
            if adjacent and text[closing.end() : start].strip():
                break
            inner = text[opening.end() : closing.start()].strip()[:MAX_ANSWER]
            nested = _boxed(inner) or _declared(inner) or _dollars(inner)
            adjacent.insert(0, nested.answer if nested else inner)
            start, end = opening.start(), max(end, opening.start())
    if not adjacent:
        return _half_tag(text, marks[-1]) if marks else None
    if not adjacent[-1]:
        return None
    return Extraction(answer=adjacent[-1], form="tag", boxes=tuple(dict.fromkeys(adjacent)), at=end)


def _half_tag(text: str, mark: re.Match[str]) -> Extraction | None:
    """A short answer between one tag and an end of the text."""
    closing = "/" in mark.group()
    inner = (text[: mark.start()] if closing else text[mark.end() :]).strip()
    short = 0 < len(inner) <= BARE_LIMIT and "\n" not in inner
    return Extraction(answer=inner, form="tag", repaired=True, at=mark.start()) if short else None


def _declared(text: str) -> Extraction | None:
    marks = _marks(DECLARED, text) or _marks(DECLARED_WEAKLY, text)
    headings = list(HEADING.finditer(text))
    if headings and (not marks or headings[-1].start() > marks[-1].end()):
        return _said(text[headings[-1].end() :])
    turned = _reversed(text, marks[-1].end() if marks else 0)
    if turned is not None or not marks:
        return turned
    mark = marks[-1]
    found = None if "not" in mark.group("verb").lower() else _said(text[mark.start("after") :])
    if found is None or DENIED.search(text[max(0, mark.start() - 80) : mark.start()].lower()):
        return Extraction(answer="", form="declared")
    adjacent = [found.answer]
    for earlier, later in zip(marks[-2::-1], marks[:0:-1], strict=True):  # `Answer: 1`, `Answer: 2`, ...
        between = text[earlier.end() : later.start()].strip()
        if earlier.group().casefold().strip() != later.group().casefold().strip() or "\n" in between:
            break
        other = _said(between)
        if other is None or len(between) > len(other.answer) + 6:
            break
        adjacent.insert(0, other.answer)
    return replace(found, boxes=tuple(dict.fromkeys(adjacent)))


def _marks(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return [m for m in pattern.finditer(text) if not SUPPOSED.search(text, max(0, m.start() - 24), m.start())]


def _said(rest: str) -> Extraction | None:
    """The answer at the start of what follows "the answer is"."""
    rest = rest[:MAX_ANSWER]
    if opened := OPENED.match(rest):  # a quotation, a bullet, a fence below "The answer is:"
        rest = rest[opened.end() :]
    rest = rest.lstrip()
    if NEGATED.match(rest):
        return None
    if re.match(r"\*\*\s", rest):  # the end of a bold "Answer:"
        rest = rest[2:].lstrip()
    rest = rest[filler.end() :] if (filler := FILLER.match(rest)) else rest
    inner = _wrapped(rest)
    if inner is None:
        end = SENTENCE_END.search(rest, min(len(rest), 1))
        inner = (rest[: end.start()] if end else rest).strip()
        spans = list(SPAN.finditer(inner))
        before = inner[: spans[0].start()] if spans else ""
        if len(spans) == 1 and len(before.split()) > 1 and before.isascii() and not HEDGED.search(inner):
            inner = next(group for group in spans[0].groups() if group)
        inner = inner.strip("*").strip()
        whole = re.fullmatch(r"\$([^$]+)\$\.?", inner)
        inner = whole.group(1) if whole else inner
    return Extraction(answer=inner.strip(), form="declared")


def _reversed(text: str, after: int) -> Extraction | None:
    """`$42$ is the answer`, behind every other declaration."""
    marks = list(REVERSED.finditer(text, after))
    if not marks:
        return None
    found = BEFORE.search(text[max(0, marks[-1].start() - 220) : marks[-1].start()])
    answer = next((group for group in found.groups() if group), "") if found else ""
    return Extraction(answer=_unwrapped(answer.strip()), form="declared") if answer.strip() else None


def _json(text: str) -> Extraction | None:
    """The answer of a text that is one JSON object, fenced or not."""
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
            nested = _boxed(str(value)) or _dollars(str(value))
            return Extraction(answer=nested.answer if nested else str(value).strip(), form="json")
    return None


def _wrapped(rest: str) -> str | None:
    """The content of what the text opens right away: `**...**`, `$...$`, `\\(...\\)`, `\\[...\\]`.

    None where another value follows it: `$3$ or $4$`.
    """
    for opening, closing in (("**", "**"), ("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if rest.startswith(opening):
            end = rest.find(closing, len(opening))
            if end > 0:
                inner = rest[len(opening) : end].strip()
                return None if ANOTHER.match(rest, end + len(closing)) else _unwrapped(inner)
    if rest.startswith("$"):
        end = rest.find("$", 1)
        following = rest[end + 1 : end + 2] if end > 0 else ""
        if end > 1 and (not following or not following.isdigit()):
            return None if ANOTHER.match(rest, end + 1) else rest[1:end]
    return None


def _unwrapped(inner: str) -> str:
    return inner[1:-1] if len(inner) > 2 and inner[0] == inner[-1] == "$" else inner


def _answer_line(text: str) -> Extraction | None:
    """A last line `A: 18`; not where the text also has a `B:` line, which makes it a list of options."""
    line = text.rstrip().rpartition("\n")[2].strip()
    if not line.startswith("A:") or "\nB:" in text:
        return None
    answer = line[2:].strip()
    return Extraction(answer=answer[:MAX_ANSWER], form="answer line") if answer else None


def _bold(text: str) -> Extraction | None:
    found = BOLD_END.search(text[-400:])
    if not found:
        return None
    answer = _unwrapped(found.group(1).strip().rstrip("."))
    return Extraction(answer=answer, form="bold", boxes=_listed(text[: -len(found.group())], answer))


def _listed(before: str, answer: str) -> tuple[str, ...]:
    """What `$7$ or ` just before the last `$8$` makes of it: two answers."""
    line = before[-400:].rpartition("\n")[2]
    spans = list(SPAN.finditer(line))
    if not spans or not JOINED.fullmatch(line, spans[-1].end()):
        return ()
    return (*(next(group for group in span.groups() if group) for span in spans), answer)


JOINED = re.compile(r"\s{0,8}(?:[,/|;]|,?\s{0,8}(?:or|and)(?:\s+(?:maybe|perhaps|possibly))?)\s{0,8}")


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
    """A last line that is nothing but a number."""
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
        and not re.search(r"[a-z]{3,} [a-z]{2,} ", stripped)
    ):
        return Extraction(answer=stripped, form="bare")
    return None


NUMBER = re.compile(r"-?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?%?")


def _last_number(text: str) -> Extraction | None:
    found = NUMBER.findall(text[-MAX_ANSWER:])
    return Extraction(answer=found[-1].rstrip(","), form="last number") if found else None


FINDERS: Mapping[str, Callable[[str], Extraction | None]] = {
    "boxed": _boxed,
    "hashes": _hashes,
    "tag": _tag,
    "declared": _declared,
    "json": _json,
    "answer line": _answer_line,
    "bold": _bold,
    "dollars": _dollars,
    "last line": _last_line,
    "bare": _bare,
}
DEFAULT_FORMS: tuple[str, ...] = tuple(FINDERS)
_CORRECTABLE = frozenset(("boxed", "hashes", "tag"))
"""Forms that say where they stand, so that a later declaration can take their place."""
