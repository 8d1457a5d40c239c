"""Answers declared by words: "the answer is ...", "答案：...", "Answer: The largest n is 34", "B is correct"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from verifiers.answers.boxed import DENIED
from verifiers.answers.extraction import MAX_ANSWER, MAX_LISTED, Extraction, is_placeholder, is_value
from verifiers.answers.patterns import Pattern
from verifiers.answers.stated import SENTENCE_END, stated_value, unwrapped

_NAMED = ("die antwort", "das ergebnis", "das endergebnis", "die lösung")
"""German subjects that follow their verb: `Also lautet die Antwort 24.`"""
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
    "(?:" + "|".join(f"(?<={verb} {noun})" for verb in ("ist", "lautet", "beträgt", "also") for noun in _NAMED) + ")"
    r"\s{1,9}(?=[\d$\\*-])",
    r"\s{1,9}(?:est|sont|es|son|ist|sind|lautet|lauten|beträgt|é|è|to|là|равен|равна|равно|составляет)\b\s{0,9}:?",
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
    r"\b(?:correct|right|best)\s{1,9}(?:option|choice)",
    r"(?:最终|最終|正确|正確)?答案|答(?=\s?[：:])|答え|정답|답|故选|故選",
    r"\bответ|\bréponse(?:\s{1,9}finale)?|\brespuesta(?:\s{1,9}final)?|\bantwort|\bendergebnis|\bresposta(?:\s{1,9}final)?",
    r"\brisposta(?:\s{1,9}finale)?|\bodpowiedź|đáp\s{1,9}án|\bcevap|الجواب|الإجابة(?:\s{1,9}النهائية)?|उत्तर",
)
DECLARED = Pattern(f"(?:{'|'.join(_SUBJECTS)}){_IS}", re.IGNORECASE)
_WEAK_SUBJECTS = (
    r"\bthe\s{1,9}(?:final\s{1,9})?(?:results?|solutions?(?:\s{1,9}set)?|value|roots?)",
    r"(?<![^\n])(?:result|solution)",
    r"\b(?:die\s{1,9})?lösung",
    r"\b(?:ergebnis|lösungen|результат|итого?|résultat(?:\s{1,9}final)?|resultado(?:\s{1,9}final)?|risultato|wynik)",
    r"(?:最终|最終)?(?:结果|結果)",
)
_FOREIGN_RESULT = Pattern(
    r"ergebnis|lösungen|результат|итог|résultat|resultado|risultato|wynik|.{0,2}[结結]果", re.IGNORECASE
)
"""Words for "result", which declare an answer only if a value follows."""
DECLARED_WEAKLY = Pattern(f"(?:{'|'.join(_WEAK_SUBJECTS)}){_IS}", re.IGNORECASE)
"""Words that also appear in the middle of a derivation: used only if no "answer" is declared."""
HEADING = Pattern(
    r"^[#*_ \t]{0,20}(?:(?:the\s+)?final\s+)?answer(?:[*_: \t]{0,20}\n|\.\*{0,2}[ \t]|\*\*[ \t])",
    re.IGNORECASE | re.MULTILINE,
)
_RESULT_HEADING = Pattern(
    r"^#{1,6}[ \t]{1,4}(?:\*\*)?(?:final\s+)?(?:result|solution|conclusion)[*: \t]{0,9}\n", re.I | re.M
)

_REVERSED = Pattern(
    r"(?<=\S)\s{1,8}(?:is|as)\s+(?:therefore\s+|thus\s+|indeed\s+)?(?:(?:the|our|my)\s+(?:final\s+|correct\s+)?answer\b"
    r"|(?:the|our|my)\s+(?:final\s+)?solution(?:\s+set)?[.!\s]*\Z)",
    re.IGNORECASE,
)
_CHOSEN = Pattern(
    r"(?:\b(?i:option|choice)\s{1,4}(?:\*\*)?\(?([A-J])\)?(?:\*\*)?|\*\*\(?([A-J])\)?\*\*)\s{1,4}is\s+(?:the\s+)?"
    r"(?:correct|right|best)\b(?!\s+(?:if|when|unless|for|to))"
)
"""Matches `Option B is correct.`"""
_BEFORE = Pattern(
    r"(?:\$([^$\n]{1,200})\$|\\\(([^\n]{1,200}?)\\\)|\*\*([^*\n]{1,200})\*\*|(?<![\w.,/])(\(?-?[\d][\d,./]*%?\)?|\(?[A-E]\)?))$"
)
_SUPPOSED = Pattern(
    r"\b(?:if|suppose|supposing|assume|assuming|whether|unless)(?:\s+that)?\s*$"
    r"|\b(?:wrong|incorrect|mistaken|false|naive|tempting)\s*$|\b(?:might|could|may|(?<!\bi\s)would|some|people)\s+say(?:\s+that)?\s*$",
    re.IGNORECASE,
)
_COMMA_LANGUAGE = Pattern(
    r"ответ|réponse|respuesta|antwort|resposta|risposta|odpowiedź|cevap|(?:die\s+)?lösung|(?:end)?ergebnis|результат|итог"
    r"|résultat|resultado|risultato|wynik",
    re.IGNORECASE,
)
"""Subjects in languages with a decimal comma."""
_LEAD = r"\s*(?:\*\*|\()?\s*(?:(?:indeed|also|thus|therefore|clearly|definitely|surely|now|very|quite|in\s+fact)\s+)?"
_TAIL = (
    r"(?=[ \t]*(?:[.,;:!?*)\n。]|$)|\s+(?:and|to|with|as|since|for|in|because|within|here|too|now|above|below|indeed"
    r"|according|of|at|on|from|inside|that|after|when)\b)"
)
_PRAISED = Pattern(
    _LEAD
    + r"(?:correct|right|reasonable|plausible|verified|confirmed|sensible|logical|obvious|accurate|sound|acceptable"
    r"|as\s+(?:expected|required|above|before|shown|desired)|given(?!\s+by)|shown|stated|written|displayed|provided|highlighted"
    r"|above|below|boxed(?!\{)|in\s+(?:the\s+|its\s+)?(?:box|boxed|simplest|lowest|correct|required|form))"
    + _TAIL
    + r"|\s*in\s+[a-z]{4,}(?=\s*[.\n]|$)",
    re.IGNORECASE,
)
"""Phrases that praise an answer given elsewhere, and declare none."""
_DESCRIBED = Pattern(
    _LEAD
    + r"(?:positive|negative|non-?negative|non-?zero|consistent|inconsistent|unique|valid|whole|rational|real|even|odd"
    r"|prime|finite|an?\s+(?:positive\s+|negative\s+|whole\s+|natural\s+|rational\s+|real\s+|even\s+|odd\s+|prime\s+)*"
    r"(?:integer|number|fraction|decimal|multiple|whole))" + _TAIL + r"|\s*an?\s+[a-z][a-z-]+(?:\s+[a-z-]+){0,4}[.,!\n]"
    r"|\s*(?:greater|less|larger|smaller|more|fewer)\s+than\b|\s*(?:obtained|found|derived|computed|calculated)\s+(?:by|from|using)\s+[a-z]",
    re.IGNORECASE,
)
"""Phrases that describe an answer; taken as the answer only if there is no other."""


MAX_MARKS = 1_000
"""Number of declarations that are examined: the last ones of a text."""


def declared(text: str) -> Extraction | None:
    """Return the last answer that words declare, with those that the same words declare just before it.

    None if nothing is declared; an Extraction with an empty answer if the last declaration is denied or truncated.
    """
    marks = _marks(DECLARED, text) or _marks(DECLARED_WEAKLY, text)
    heading = _heading(text, marks[-1].end() if marks else -1)
    if heading is not None:
        return heading
    turned = _reversed(text, marks[-1].end() if marks else 0)
    if turned is not None or not marks:
        return turned
    marks = _without_denials(text, marks)
    text, marks = _without_cut_one(text, marks)
    mark = marks[-1]
    found = (
        None
        if _denies(mark) or _CUT.match(text, mark.end())
        else stated_value(text[mark.start("after") :][:MAX_ANSWER])
    )
    if found is None or DENIED.search(text[max(0, mark.start() - 80) : mark.start()].lower()):
        return Extraction(answer="", form="declared")
    return replace(
        found,
        answer=_closed(found.answer) if text[mark.start() - 1 : mark.start()] == "(" else found.answer,
        boxes=tuple(dict.fromkeys((*_side_by_side(text, marks), found.answer, *_offered(text, mark, found.answer)))),
        decimal_comma=_COMMA_LANGUAGE.match(mark[0]) is not None,
        at=mark.start(),
    )


def _denies(mark: re.Match[str]) -> bool:
    return "not" in mark["verb"].lower()


def _without_denials(text: str, marks: list[re.Match[str]]) -> list[re.Match[str]]:
    """Drop final denials ("the answer is not 12") that follow an answer with another value."""
    while len(marks) > 1 and _denies(marks[-1]):
        denied, kept = (stated_value(text[mark.end() :][:MAX_ANSWER]) for mark in marks[:-3:-1])
        if denied is None or not denied.answer or kept is None or _denies(marks[-2]) or denied.answer == kept.answer:
            break
        marks = marks[:-1]
    return marks


_CUT = Pattern(r"[\s*:$]{0,12}(?:\\[(\[])?\s{0,4}(?:\\boxed\s{0,4}\{?|\\boxe?|\\bo?|\\)?\s{0,12}\Z")
"""Matches the end of the text, apart from marks that open an answer."""


def _without_cut_one(text: str, marks: list[re.Match[str]]) -> tuple[str, list[re.Match[str]]]:
    """Drop a final "The answer is" that the end of the text truncates, if the same declaration with an answer precedes
    it.
    """
    if len(marks) > 1 and _CUT.match(text, marks[-1].end()) and not _denies(marks[-1]):
        between = text[marks[-2].end() : marks[-1].start()][:MAX_ANSWER].rstrip(" \n*#_")
        end = _LED_IN.search(between, max(0, len(between) - 40))
        if _alone_in(between[: end.start()] if end else between) is not None:
            return text[: marks[-1].start()], marks[:-1]
    return text, marks


_LED_IN = Pattern(
    r"(?<=[\s.])(?:(?:so|thus|hence|therefore|the|final|correct|and|also|daher|somit|die|das|итак|окончательный)\b[,\s]{0,4}){1,4}\Z",
    re.IGNORECASE,
)
"""Words that lead to a declaration."""


def _alone_in(between: str) -> str | None:
    """Return the answer between two declarations; None if there is more text than that, or a doubt."""
    between = between.strip()
    other = stated_value(between)
    doubted = DOUBT.search(between) or _TAKEN_BACK.search(between)
    if other is None or "\n" in between or len(between) > len(other.answer) + 6 or doubted:
        return None
    return other.answer


def _side_by_side(text: str, marks: Sequence[re.Match[str]]) -> list[str]:
    """Return the answers of equal declarations just before the last one: the 1 of `Answer: 1` above `Answer: 2`."""
    found: list[str] = []
    for earlier, later in zip(marks[-2::-1], marks[:0:-1], strict=False):
        if earlier[0].casefold().strip() != later[0].casefold().strip() or len(found) > MAX_LISTED:
            break
        other = _alone_in(text[earlier.end() : min(later.start(), earlier.end() + MAX_ANSWER)])
        if other is None:
            break
        found.insert(0, other)
    return found


DOUBT = Pattern(r"\b(?:wait|actually|no|wrong|mistake|incorrect|oops|sorry|instead|corrected|hmm)\b", re.IGNORECASE)
_TAKEN_BACK = Pattern(
    r"\b(?:was|is|were)\s+(?:a\s+|an\s+|the\s+|my\s+)?(?:wrong|incorrect|mistaken|bad|first|initial|mistake|guess)\b",
    re.I,
)
_OFFERED = Pattern(
    r"[.,;]?\s{0,4}(?:\(\s?)?(?:(?:or|alternatively|but)\b,?\s{0,4})?(?:(?:it|this|the\s+answer)\s+)?(?:(?:might|could|may)(?:\s+(?:also|well|instead))?\s+be"
    r"|(?:maybe|perhaps|possibly)(?:\s+it(?:'s|\s+is))?)\s+(\S[^\n]{0,80})",
    re.IGNORECASE,
)


def _offered(text: str, mark: re.Match[str], answer: str) -> list[str]:
    """Return a second answer just after the declared one, as a list: `... or it could be 4`."""
    start = text.find(answer, mark.end()) if answer else -1
    if not 0 <= start < mark.end() + 80:
        return []
    found = _OFFERED.match(text, start + len(answer.rstrip(".")))
    other = stated_value(found[1]) if found else None
    return [other.answer] if other is not None and is_value(other.answer) else []


def _heading(text: str, after: int) -> Extraction | None:
    """Return the answer below a heading "Answer", or below a heading "Result" if it is a value; else None."""
    marks = [mark for mark in HEADING.finditer(text) if mark.start() > after]
    if marks:
        return stated_value(text[marks[-1].end() :][:MAX_ANSWER])
    marks = [mark for mark in _RESULT_HEADING.finditer(text) if mark.start() > after]
    below = text[marks[-1].end() :][:MAX_ANSWER].lstrip() if marks else ""
    return stated_value(below) if is_value(below) and len(below.split("\n\n")) == 1 else None


def _marks(pattern: Pattern, text: str) -> list[re.Match[str]]:
    """Return the declarations of a text, without suppositions, placeholders and praise of another answer."""
    found: list[re.Match[str]] = []
    described: list[re.Match[str]] = []
    for mark in list(pattern.finditer(text))[: -MAX_MARKS - 1 : -1]:
        if _SUPPOSED.search(text, max(0, mark.start() - 24), mark.start()):
            continue
        if _PRAISED.match(text, mark.end()) or _is_instruction(text, mark):
            continue
        if _FOREIGN_RESULT.match(mark[0]) and not _ends_in_a_value(text, mark.end()):
            continue
        (described if _DESCRIBED.match(text, mark.end()) else found).append(mark)
        if len(found) > MAX_LISTED:
            break
    return (found or described)[::-1]


def _ends_in_a_value(text: str, start: int) -> bool:
    """Return True if a value begins here, and no further number follows its sentence."""
    rest = text[start : start + _LAST_WORDS + 1]
    if len(rest) > _LAST_WORDS or not is_value(rest):
        return False
    end = SENTENCE_END.search(rest, min(len(rest), 1))
    return end is None or not any(map(str.isdigit, rest[end.end() :]))


_LAST_WORDS = 400
"""Characters at the end of a text within which a result is taken as its answer."""
_PLACEHOLDERS = ("$LETTER", "$ANSWER", "$NUMBER", "\\boxed{}", "$\\boxed{")


def _is_instruction(text: str, mark: re.Match[str]) -> bool:
    """Return True if a placeholder follows: `Answer: $LETTER`, `the answer is \\boxed{}`."""
    line = text[mark.end() : mark.end() + 60].partition("\n")[0].strip(" '\"`*.")
    return bool(line) and (is_placeholder(line) or line.startswith(_PLACEHOLDERS))


def _closed(answer: str) -> str:
    """Return the answer without the closing bracket of a "(Answer: ...)"."""
    return answer[:-1].rstrip() if answer.endswith(")") and answer.count(")") > answer.count("(") else answer


def _reversed(text: str, after: int) -> Extraction | None:
    """Return the answer of `$42$ is the answer` or `Option B is correct` after every other declaration; else None."""
    chosen = list(_CHOSEN.finditer(text, after))
    marks = list(_REVERSED.finditer(text, after))
    if chosen and (not marks or chosen[-1].start() > marks[-1].start()):
        return Extraction(answer=chosen[-1][1] or chosen[-1][2], form="declared", at=chosen[-1].start())
    if not marks:
        return None
    found = _BEFORE.search(text[max(0, marks[-1].start() - 220) : marks[-1].start()])
    answer = next((group for group in found.groups() if group), "") if found else ""
    return (
        Extraction(answer=unwrapped(answer.strip()), form="declared", at=marks[-1].start()) if answer.strip() else None
    )
