"""The value in the text after "the answer is": the 34 of "The largest $n$ is 34", the 8 hours of "Jane needs 8
hours".
"""

from __future__ import annotations

import re

from verifiers.answers.extraction import Extraction, is_value
from verifiers.answers.patterns import Pattern

_FILLER = Pattern(
    r"(?:,\s{0,8})?(?:(?:therefore|thus|hence|so|donc|also|daher|entonces|quindi|simply|just|exactly|precisely|indeed|clearly|definitely|certainly|surely|for\s+sure|given\s+by|found\s+to\s+be|equal\s+to|then|as\s+follows)\b"
    r"[\s,:]{0,8})+",
    re.IGNORECASE,
)
SPAN = Pattern(r"\*\*([^*\n]{1,200})\*\*|\$([^$\n]{1,400})\$|\\\(([^\n]{1,400}?)\\\)|`([^`\n]{1,200})`")
_HEDGED = Pattern(
    r"\b(?:not|n't|or|either|neither|between|least|most|more|less|than|but|except|different|if|unless|when|maybe|possibly|and|cannot|never)\b",
    re.IGNORECASE,
)
_OPENED = Pattern(r"\s*\n\s*(?:[>•-]\s+|```\w*\n)")
_NEGATED = Pattern(
    r"^\s*(?:definitely\s+|certainly\s+)?(?:not\b|isn't\b|n't\b|nicht\b(?!\s+(?:definiert|lösbar|möglich))|pas\b(?!\s+de\b)"
    r"|не\b(?!\s+(?:существует|определен))|不(?!存在|能|可能|成立|唯一))",
    re.IGNORECASE,
)
SENTENCE_END = Pattern(
    r"\.(?=\s|$)|[\n。]|;(?=\s)(?!\s{1,4}(?:[-−]?\d[\d,./]{0,40}|\$[^$\n]{1,80}\$)\s{0,4}(?:[;.\n]|$))"
    r"|,(?=\s+(?:and so|and that|and this|so|which|because|since|but|as|not)\b)"
    r"|\s(?=(?:because|since|which|rather|instead|as)\b)|(?<=[\dA-J)])\s(?=(?:not|non|nicht)\s)"
    r"|\s(?=\((?!or\b|and\b|not\b|maybe\b|possibly\b|perhaps\b)(?:[a-z]{2,}|\d+\)))"
    r"|\s{0,8}(?=です|입니다|이다)|!(?=\s+(?:[A-Z]|[^\x00-\x7f])|\s*$)"
)
_ANOTHER = Pattern(
    r"\s*(?:[,，、]\s*)?(?:\b(?:or|and|und|oder|et|ou|y|o|e|или|и|lub|và|hoặc)\s+"
    r"|(?:和|或者?|与|與|及び?|と|または|과|와|또는)\s*)[$\d\\*-]|\s*[,，、;；]\s*(?:\$|\\\()\s*-?\s*(?:\d|\\[dt]?frac|\\sqrt)"
)
"""Matches a second value after the first."""
_ANOTHER_LABELLED = Pattern(r"\s*[,，、;；]\s*(?:\$|\\\()\s*[A-Za-z](?:_\{?\w\}?)?\s*=")
"""Matches a second labelled value after a labelled one."""
_SAID_OF = Pattern(r"\s*(?:is|=|equals|are)\s+(?=[$\d\\-])")
_COPULA = Pattern(
    r"(?:\b(?:is|are|equals?|be|was|were|becomes|est|est\s+de|beträgt|ist|es|é|è|равн[аоы]|равен|составляет)\b|是|为|為|等于|等於|有)\s{0,4}:?\s{0,4}"
    r"(?:(?:exactly|just|only|simply|therefore|thus)\s+)?",
    re.IGNORECASE,
)
_VERB = Pattern(
    r"\b(?:would|will|needs?|needed|takes?|took|has|have|had|costs?|gets?|got|earns?|earned|makes?|made|can|must|should|pays?|paid"
    r"|spends?|spent|runs?|ran|left|sold|sells?|uses?|used|requires?|weighs?|contains?|saves?|saved|bought|buys?|gives?|gave"
    r"|arrives?|leaves?|travels?|grows?|grew|rises?|falls?|reaches|finishes|starts?|begins?|began|ends?|lasts?|(?!hundred)[a-z]{3,}ed|walks?|walked|drives?|drove|reads?|ate|eats?|converges|aura|doit|faut|tiene|hat|braucht|нужно|потребуется|можно)\b",
    re.IGNORECASE,
)
_QUANTITY = Pattern(r"\$[^$\n]{1,200}\$|\\\([^\n]{1,200}?\\\)|\\?\$?(?<![A-Za-z\d.])-?\d[\d,./]*(?<![,./])%?")
_CLAUSE = Pattern(
    r"(?P<value>(?:\\?\$?-?\d[\d,]*(?:\.\d+)?%?|\$[^$]{1,80}\$)(?:[ ][A-Za-z]{1,20}){0,3}|\(?[A-J]\)?),\s+"
    r"(?P<clause>[A-Za-z]{2,}(?:[ '’,-]{1,2}[A-Za-z]+){0,30})[\s.!]*",
)
_PRONOUN = Pattern(r"(?:it|this|that|these|those|they|he|she|we|the|because|since|as|for|given)\b", re.IGNORECASE)
_VALUE_WORD = Pattern(
    r"\b(?:or|and|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|hundred|thousand|zero|half"
    r"|infinity|infinite|none|undefined|maybe|perhaps|possibly|might|could|but|not|no|unless|except|if)\b",
    re.IGNORECASE,
)


def stated_value(rest: str) -> Extraction | None:
    """Return the answer at the start of the text after "the answer is"; None if that text denies it."""
    if opened := _OPENED.match(rest):  # a quotation, a bullet, a fence below "The answer is:"
        rest = rest[opened.end() :]
    rest = rest.lstrip()
    if _NEGATED.match(rest):
        return None
    if re.match(r"\*\*\s", rest):  # the end of a bold "Answer:"
        rest = rest[2:].lstrip()
    rest = rest[filler.end() :] if (filler := _FILLER.match(rest)) else rest
    inner = _wrapped(rest)
    if inner is None:
        rest = _before_bold_ends(rest)
        end = SENTENCE_END.search(rest, min(len(rest), 1))
        inner = _value_in((rest[: end.start()] if end else rest).strip())
        inner = inner.strip("*").strip()
        whole = re.fullmatch(r"\$([^$]+)\$\.?", inner)
        inner = whole.group(1) if whole else inner
    return Extraction(answer=inner.strip(), form="declared")


_GOES_ON = Pattern(r"\s*[,;]?\s*(?:or|and|oder|und|ou|et|o|y|или|и|perhaps|maybe)\b|\s*[或和]", re.IGNORECASE)


def _before_bold_ends(rest: str) -> str:
    """Return the text up to the end of the bold span that it is in: the `5.` of `**The answer is 5.** Indeed`."""
    line = rest.partition("\n")[0]
    if line.count("**") % 2 == 0 or _GOES_ON.match(line, line.index("**") + 2):
        return rest
    return line.partition("**")[0]


def _value_in(inner: str) -> str:
    """Return the value that a sentence states: the 34 of "The largest $n$ is 34", the 8 hours of "Jane needs 8 hours".

    The sentence itself if it states no single value.
    """
    if clause := _CLAUSE.fullmatch(inner):
        letter = clause["value"].strip("()").isalpha()
        words = clause["clause"]
        if _PRONOUN.match(words) and not re.search(r"\b(?:might|could|maybe|may)\b", words):
            return clause["value"]
        if not letter and not _VALUE_WORD.search(words):
            return clause["value"]
    if not _is_prose(inner):
        return inner
    copulas = list(_COPULA.finditer(inner))
    if copulas and not re.search(r"\b(?:if|unless|either|whether|or|not)\b|n't\b", inner, re.IGNORECASE):
        tail = inner[copulas[-1].end() :].strip()
        if is_value(tail) and not _HEDGED.search(tail):
            return _without_circumstance(tail)
    if _HEDGED.search(inner):
        return inner
    spans = list(SPAN.finditer(inner))
    if len(spans) == 1 and len(inner[: spans[0].start()].split()) > 1 and inner[: spans[0].start()].isascii():
        return next(group for group in spans[0].groups() if group)
    quantities = list(_QUANTITY.finditer(inner))
    if len(quantities) == 1 and (_VERB.search(inner, 0, quantities[0].start()) or not inner.isascii()):
        return _without_circumstance(inner[quantities[0].start() :])
    return inner


_CIRCUMSTANCE = Pattern(
    r"(?P<value>\\?\$?-?\d[^\s]*(?:\s[$€£%])?(?:\s[A-Za-z]+){0,3}?)\s(?:sur|dans|pour|à|auf|im|every|each|at|in|on|for|after|when|from|by|during|to|with|that|who|left"
    r"|altogether|so)\s?[A-Za-z][^\d$\\]*",
    re.IGNORECASE,
)


def _without_circumstance(value: str) -> str:
    """Return the value without its circumstances: the $18 of "$18 every day at the market"."""
    found = _CIRCUMSTANCE.fullmatch(value)
    return found["value"] if found else value


def _is_prose(inner: str) -> bool:
    """Return True if a text begins like a sentence: with a word, or with a formula about which something is stated."""
    return bool(
        re.match(
            r"(?:[A-Za-z]\s+(?:is|equals)\b|[A-Za-z]{2,}|[^\x00-\x7f]{2,}|[Aa]\s)(?!\s*[=({^_])|\$[^$]{1,40}\$\s+(?:is|equals)\b",
            inner,
        )
    )


def _wrapped(rest: str) -> str | None:
    """Return the content of a wrapper at the start of the text: `**...**`, `$...$`, `\\(...\\)`, `\\[...\\]`.

    None if there is no wrapper, or if another value or a sentence about it follows: `$3$ or $4$`, `$n$ is 34`.
    """
    for opening, closing in (("**", "**"), ("$$", "$$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if rest.startswith(opening):
            end = rest.find(closing, len(opening))
            if end > 0:
                inner = rest[len(opening) : end].strip()
                after = end + len(closing)
                return None if _goes_on(rest, after, inner) else unwrapped(inner)
    if rest.startswith("$"):
        end = rest.find("$", 1)
        following = rest[end + 1 : end + 2] if end > 0 else ""
        if end > 1 and (not following or not following.isdigit()):
            return None if _goes_on(rest, end + 1, rest[1:end]) else rest[1:end]
    return None


def _goes_on(rest: str, end: int, inner: str) -> bool:
    """Return True if more belongs to the wrapped text: a second value, or a statement about it as in `$n$ is 34`."""
    labelled = "=" in inner and _ANOTHER_LABELLED.match(rest, end) is not None
    return labelled or (_ANOTHER.match(rest, end) or _SAID_OF.match(rest, end)) is not None


def unwrapped(inner: str) -> str:
    """Return the text without one enclosing pair of dollars."""
    return inner[1:-1] if len(inner) > 2 and inner[0] == inner[-1] == "$" else inner
