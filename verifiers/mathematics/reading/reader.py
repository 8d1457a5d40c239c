"""Parsing of one answer's text to a tree: items, units, words, dates and times around the grammar of expressions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from verifiers.mathematics.limits import MAX_ANSWER_CHARS, MAX_DEPTH, LimitExceeded, ParseError
from verifiers.mathematics.nodes import (
    Call,
    Clock,
    Date,
    Div,
    Dots,
    Group,
    GroupKind,
    Mul,
    NamedSet,
    Node,
    Num,
    Quantity,
    Relation,
    SetOp,
    Sym,
    Text,
    Unit,
)
from verifiers.mathematics.reading.conditions import CLOSERS, OPENERS, condition_apart
from verifiers.mathematics.reading.grammar import Parser
from verifiers.mathematics.reading.tokens import Token, normalise_characters, tokenize
from verifiers.mathematics.reading.words import EXTREMES, MONTHS, PARTS, SCALES, SMALL, phrase, value_of_words
from verifiers.mathematics.units import (
    CURRENCIES,
    KNOWN,
    LETTERS,
    SENSES,
    SYMBOLS,
    currency,
    is_unit_word,
    parse_unit,
    with_sense,
)

MAX_SIDES = 12
"""Limit on the sides of a chain of equations that are parsed separately."""
MAX_WRAPPERS = 20
"""Limit on the nested delimiters that are removed."""
_PLAIN = re.compile(r"-?\d{1,15}")
_PLAIN_FRACTION = re.compile(r"\\[dt]?frac\{(\d{1,15})\}\{(\d{1,15})\}|(\d{1,15})/(\d{1,15})")
_CLOCK = re.compile(r"(\d{1,2}):([0-5]\d)(?::([0-5]\d))?\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_HOURS_MINUTES = re.compile(r"(\d{1,4})\s?h(?:rs?|ours?)?\.?\s?(\d{1,4})\s?m(?:ins?|inutes?)?\.?")
_HOUR = re.compile(r"(\d{1,2})\s*([ap])\.?\s?m\.?|(\d{1,2})\s*o'?clock", re.IGNORECASE)
_ISO_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})")
_SLASH_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})")
_MONTH_DAY = re.compile(r"([A-Za-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?(?:,?\s+(\d{4}))?")
_DAY_MONTH = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?(?:\s+of)?\s+([A-Za-z]{3,9})\.?(?:,?\s+(\d{4}))?")
_TEXT_WRAP = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|textrm)\s*\{([^{}]*)\}")
_ENUMERATED = re.compile(r"\(?[A-Ja-j]\)\s+\S")
_LEADING = frozenset(
    "about approximately exactly roughly approx is equals equal only the a an of there are therefore thus hence so "
    "answer final".split()
)
_LOGIC = frozenset(
    "if else or not is unless when wrong than plus minus something some maybe perhaps possibly except where".split()
)
"""Words after a value that change its meaning."""
_SETS = {
    f"{every}{words}": NamedSet(name)
    for every in ("", "all ", "any ")
    for words, name in (
        ("integers", "Z"),
        ("positive real numbers", "R^+"),
        ("positive reals", "R^+"),
        ("negative real numbers", "R^-"),
        ("nonzero real numbers", "R^*"),
        ("nonnegative real numbers", "R^>=0"),
        ("rational numbers", "Q"),
        ("complex numbers", "C"),
    )
}
_FOLDED_TEXT = {"all reals": NamedSet("R"), "none": Text(("none",)), "infinity": None, **_SETS}


_BRACED_COLON = re.compile(r"(?<=\d)\s?\{\s?:\s?\}\s?(?=\d)")
_DECIMAL_COMMA = re.compile(r"(?<=\d)\s?\{\s?,\s?\}\s?(?=\d{1,2}(?!\d)|\d{4})|(?<=(?<!\d)0)\{,\}(?=\d)")
"""Matches `3{,}14`, whose comma cannot separate thousands."""
_SPACED_GROUP = re.compile(r"(?<=\d)\s?\{\s?,\s?\}\s?(?=\d{3}(?!\d))")


def clean(text: str) -> str:
    """Return the text without delimiters and trailing punctuation, with decimal commas as points."""
    stripped = text.strip()
    if "{" in stripped and ("{:" in stripped or ",}" in stripped or ", }" in stripped or "{ ," in stripped):
        stripped = _SPACED_GROUP.sub("{,}", _DECIMAL_COMMA.sub(".", _BRACED_COLON.sub(":", stripped)))
    for _ in range(MAX_WRAPPERS):
        if stripped[-1:].isalnum():  # no delimiter or punctuation below ends with that
            break
        before = stripped
        for opening, closing in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**")):
            if (
                len(stripped) > len(opening) + len(closing)
                and stripped.startswith(opening)
                and stripped.endswith(closing)
                and not stripped.endswith("\\" + closing)
                and opening not in stripped[len(opening) : -len(closing)]
            ):
                stripped = stripped[len(opening) : -len(closing)].strip()
        if stripped.startswith("\\boxed{") and stripped.endswith("}"):
            stripped = stripped[7:-1].strip()
        stripped = stripped.rstrip(" \n\t,;:，；。．")
        if stripped.endswith(".") and not stripped.endswith(".."):
            stripped = stripped[:-1].rstrip()
        stripped = stripped.removesuffix("\\")
        if stripped == before:
            break
    return stripped


_JOINED_FORMULAS = re.compile(r"\$\s{1,3}(y|et|e|o|ou)\s{1,3}\$")


def _joined(found: re.Match[str]) -> str:
    """Return the English joining word for `$x=5$ y $x=2$` in Spanish, French, Portuguese and Italian."""
    return f"$ {'or' if found[1].startswith('o') else 'and'} $"


@lru_cache(maxsize=4096)
def read(text: str) -> Node:
    """Parse one answer to a tree.

    Raises:
        ParseError: this is neither mathematics nor words that can be compared.
        LimitExceeded: too long, too deep or too large to read.

    Example:
        >>> read("42")
        Num(value=42, ulp=None, groups=None)
    """
    if _PLAIN.fullmatch(text) and not text.startswith("-"):
        return Num(int(text))
    fraction = _PLAIN_FRACTION.fullmatch(text)
    if fraction:  # same result as the grammar, but faster
        top, bottom = fraction[1] or fraction[3], fraction[2] or fraction[4]
        return Div(Num(int(top)), Num(int(bottom)))
    if len(text) > MAX_ANSWER_CHARS:
        raise LimitExceeded(f"the answer has over {MAX_ANSWER_CHARS} characters")
    _check_braces(text)
    cleaned = clean(_JOINED_FORMULAS.sub(_joined, text))
    if not cleaned:
        raise ParseError("an empty answer")
    special = _clock_or_date(cleaned)
    if special is not None:
        return special
    try:
        tokens = tokenize(cleaned)
        if not tokens:
            raise ParseError("an answer without content")
        _check_depth(tokens)
        return _answer(_engineers_unit(tokens))
    except RecursionError as error:
        raise LimitExceeded("the answer is nested too deep") from error


@lru_cache(maxsize=1024)
def read_verbatim(text: str) -> Node:
    """Return a text outside the grammar as its tokens. It equals only itself, in any spacing and typesetting.

    Raises:
        ParseError: its braces or environments do not balance, or it has no letter or digit.
        LimitExceeded: as in `read`.
    """
    _check_braces(text)
    tokens = tokenize(clean(text))
    _check_depth(tokens)
    counts = [sum(token.text == mark for token in tokens) for mark in ("{", "}")]
    begins = [sum(token.text.startswith(mark) for token in tokens) for mark in ("begin:", "end:")]
    if counts[0] != counts[1] or begins[0] != begins[1]:
        raise ParseError("its braces do not balance")
    if (len(tokens) < 2 and text.isascii()) or not any(char.isalnum() for token in tokens for char in token.text):
        raise ParseError("it has no answer")
    return Text(tuple(token.text for token in tokens))


def _engineers_unit(tokens: list[Token]) -> list[Token]:
    """Make the j of `1+2j` the imaginary unit: a j after a number, if there is no other letter."""
    letters = {token.text for token in tokens if token.kind in ("sym", "word", "const")}
    if letters == {"I"}:  # as SymPy prints it
        return [
            Token("const", "i", token.spaced)
            if token.text == "I" and place and tokens[place - 1].text == "*"
            else token
            for place, token in enumerate(tokens)
        ]
    if letters != {"j"}:
        return tokens
    return [
        Token("const", "i", token.spaced) if token.text == "j" and place and tokens[place - 1].kind == "num" else token
        for place, token in enumerate(tokens)
    ]


def _check_braces(text: str) -> None:
    """Check the nesting of braces before tokenizing, which searches the ends of some groups from their beginning."""
    if text.count("{") <= 4 * MAX_DEPTH:
        return
    depth = 0
    for char in text:
        depth += (char == "{") - (char == "}")
        if depth > 4 * MAX_DEPTH:
            raise LimitExceeded("the answer is nested too deep")


def _check_depth(tokens: Sequence[Token]) -> None:
    depth = 0
    for token in tokens:
        depth += (token.text in OPENERS) - (token.text in CLOSERS)
        if depth > 4 * MAX_DEPTH:
            raise LimitExceeded("the answer is nested too deep")


def _clock_or_date(text: str) -> Node | None:
    if len(text) > 60:
        return None
    plain = _TEXT_WRAP.sub(r" \1 ", text).replace("\\", " ").replace("~", " ").replace("$", " ")
    plain = " ".join(normalise_characters(plain).split())
    if plain.lower() in ("noon", "midnight"):
        return Clock(Fraction(720 if plain.lower() == "noon" else 0), "p" if plain.lower() == "noon" else "a")
    for pattern, make in _TIMES:
        if (found := pattern.fullmatch(plain)) is not None and (node := make(found)) is not None:
            return node
    return None


def _hours_and_minutes(found: re.Match[str]) -> Node:
    return Quantity(Num(60 * int(found[1]) + int(found[2])), parse_unit(["minute"]))


def _clock_time(found: re.Match[str]) -> Node | None:
    hour, minute, second, half = found.groups()
    return _clock(int(hour), int(minute) + Fraction(int(second or 0), 60), half or "") if int(hour) < 25 else None


def _slash_date(found: re.Match[str]) -> Node:
    month, day = int(found[1]), int(found[2])
    return Date(int(found[3]), *((day, month) if month > 12 else (month, day)))


def _month_and_day(month: str, day: str, year: str | None) -> Node | None:
    return Date(int(year or 0), MONTHS[month.lower()], int(day)) if month.lower() in MONTHS else None


_TIMES: Sequence[tuple[re.Pattern[str], Callable[[re.Match[str]], Node | None]]] = (
    (_HOURS_MINUTES, _hours_and_minutes),
    (_CLOCK, _clock_time),
    (_HOUR, lambda found: _clock(int(found[1] or found[3]), Fraction(0), found[2] or "")),
    (_ISO_DATE, lambda found: Date(int(found[1]), int(found[2]), int(found[3]))),
    (_SLASH_DATE, _slash_date),
    (_MONTH_DAY, lambda found: _month_and_day(found[1], found[2], found[3])),
    (_DAY_MONTH, lambda found: _month_and_day(found[2], found[1], found[3])),
)
"""Notations of times and dates -> their nodes."""


def _clock(hour: int, minutes: Fraction, half: str) -> Clock:
    half = half.lower()
    if half and hour <= 12:
        hour = hour % 12 + (12 if half == "p" else 0)
    return Clock(60 * hour + minutes, half)


def _answer(tokens: list[Token]) -> Node:
    parts = _split(tokens)
    if len(parts) == 1:
        return _item(parts[0])
    if len(parts) == 2 and parts[1][0].text.lower() in ("where", "for", "with"):
        qualified = _qualified([*parts[0], *parts[1]])  # x^2 + C, where C is a constant
        if qualified is not None:
            return qualified
    if all(token.kind in ("word", "sep") for token in tokens):
        if all(len(part) == 1 and part[0].text.isupper() and len(part[0].text) < 6 for part in parts):
            return Group(GroupKind.LIST, tuple(Sym(part[0].text) for part in parts))  # A, C
        return _text(tokens)
    try:
        items = [_item(part) for part in parts if part]
    except ParseError:
        return _item(tokens)  # one bracket around several items, as in ]0, 1[
    if len(items) == 1:
        return items[0]
    return _compound(items) or Group(GroupKind.LIST, _unlabelled(items))


def _split(tokens: list[Token]) -> list[list[Token]]:
    """Split at separators outside brackets and environments."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for index, token in enumerate(tokens):
        if token.kind in ("op", "cmd"):
            depth += token.text in OPENERS or token.text.startswith("begin:")
            depth -= (token.text in CLOSERS or token.text.startswith("end:")) and depth > 0
        ampersand = token.text == "&" and token.kind == "op"
        if (
            (token.kind == "sep" or ampersand)
            and depth == 0
            and not (token.text == "and" and _within_words(tokens, index))
        ):
            parts.append([])
        else:
            parts[-1].append(token)
    kept = [piece for part in parts if part for piece in condition_apart(part)]
    if not kept:
        raise ParseError("separators alone")
    return kept


def _within_words(tokens: Sequence[Token], place: int) -> bool:
    """Return True if this "and" belongs to a number in words: `one hundred and four`, `one and a half`."""
    if not place or place + 1 >= len(tokens):
        return False
    before = tokens[place - 1].text.lower()
    if before in SCALES:
        return True
    return before in SMALL and tokens[-1].text.lower().rpartition("-")[2].removesuffix("s") in PARTS


def _compound(items: list[Node]) -> Node | None:
    """Join `5 hours and 30 minutes`: quantities of one dimension in falling size are one quantity; else None."""
    if not all(isinstance(item, Quantity) for item in items) or len(items) > 4:
        return None
    quantities = [item for item in items if isinstance(item, Quantity)]
    units = [quantity.unit for quantity in quantities]
    if len({unit.dimension for unit in units}) != 1 or not units[0].dimension:
        return None
    if any(later.factor >= earlier.factor for earlier, later in itertools.pairwise(units)):
        return None
    total = Fraction(0)
    for quantity in quantities:
        if not isinstance(quantity.value, Num):
            return None
        total += quantity.value.value * quantity.unit.factor
    return Quantity(Num(total / units[-1].factor), units[-1])


def _solutions(items: list[Node]) -> tuple[Node, ...] | None:
    """Return `p = 5, q = 2, p = 7, q = 2` as the pairs (5, 2) and (7, 2); None for anything else."""
    names: list[str] = []
    for item in items:
        if not (isinstance(item, Relation) and item.ops == ("=",) and isinstance(item.sides[0], Sym)):
            return None
        names.append(item.sides[0].name)
    size = len(set(names))
    if not 1 < size < len(names) or len(names) % size or names != names[:size] * (len(names) // size):
        return None
    values = [item.sides[1] for item in items if isinstance(item, Relation)]
    rows = [values[place : place + size] for place in range(0, len(values), size)]
    return tuple(Group(GroupKind.TUPLE, tuple(row)) for row in rows)


def _unlabelled(items: list[Node]) -> tuple[Node, ...]:
    """Return the values of `n = 2, 3, 4` and `x = 1 or x = 2`; other items unchanged."""
    if (solutions := _solutions(items)) is not None:
        return solutions
    first = items[0]
    if not (isinstance(first, Relation) and first.ops == ("=",) and isinstance(first.sides[0], Sym)):
        return tuple(items)
    name, values = first.sides[0], [first.sides[1]]
    for item in items[1:]:
        if isinstance(item, Relation):
            if item.ops != ("=",) or item.sides[0] != name:
                return tuple(items)
            values.append(item.sides[1])
        else:
            values.append(item)
    return tuple(values)


def _item(tokens: list[Token]) -> Node:
    while len(tokens) > 1 and _is_leading(tokens):
        tokens = tokens[1:]
    while len(tokens) > 1 and tokens[-1].text in (".", "!") and tokens[-2].kind == "word":
        tokens = tokens[:-1]
    signed = len(tokens) > 1 and tokens[0].kind == "word" and tokens[1].kind in ("num", "cmd")
    if signed and tokens[0].text.lower() in ("minus", "negative"):
        tokens = [Token("op", "-"), *tokens[1:]]
    tokens = _spelled_units(_without_remark(tokens))
    if len(tokens) > 1 and tokens[0].text in CURRENCIES and tokens[0].kind == "op":
        inner = _item(tokens[1:])
        if isinstance(inner, Quantity):
            return Quantity(inner.value, with_sense(currency(tokens[0].text), inner.unit))
        return Quantity(inner, currency(tokens[0].text))
    if len(tokens) > 2 and tokens[0].text == "-" and tokens[1].text in CURRENCIES:
        return _item([tokens[1], tokens[0], *tokens[2:]])
    if (qualified := _qualified(tokens)) is not None:
        return qualified
    if tokens[0].kind in ("word", "fn") and (extreme := _extreme(tokens)) is not None:
        return extreme
    if tokens[0].kind == "word":
        return _all_but(tokens) or _words_first(tokens)
    if (measured := _measured_sides(tokens)) is not None:
        return measured
    parser = Parser(tokens)
    node = parser.item()
    return node if parser.done else _with_unit(node, tokens[parser.position :])


def _extreme(tokens: list[Token]) -> Node | None:
    """Return `maximum 12`, `最小值为-4`, `max = 12` as a named value; None for anything else."""
    place = next((i for i, token in enumerate(tokens[:4]) if token.kind not in ("word", "fn")), 0)
    label = " ".join(token.text.lower() for token in tokens[:place]).removesuffix(" is")
    if not place or label not in EXTREMES:
        return None
    marked = tokens[place].text in ("=", ":")
    if (tokens[0].kind == "fn" and not marked) or place + marked >= len(tokens):
        return None
    return Relation((Text((EXTREMES[label],)), _item(tokens[place + marked :])), ("=",))


_QUALIFIERS = frozenset(
    "for where with any all every each some arbitrary is are a an the real constant constants number numbers parameter"
    " value values integer integers whole positive nonzero complex rational being".split()
)
_EVERY = frozenset(("all", "every", "any", "each", "the"))


def _qualified(tokens: list[Token]) -> Node | None:
    """Return `f(x) = cx for any real c` as a family, `n is odd` and `all odd n` as `odd n`; None for anything else."""
    place = next((i for i, t in enumerate(tokens) if t.kind == "word"), len(tokens))
    words = [token.text.lower() for token in tokens[place:] if token.kind == "word"]
    if not words:
        return None
    if 0 < place < len(tokens) - 1 and words[0] in ("for", "where", "with"):
        names = [token.text for token in tokens[place:] if token.kind == "sym"]
        if len(names) == 1 and tokens[-2].text == "in" and tokens[-1].text.startswith("set:"):
            if len(words) + 3 != len(tokens) - place or not set(words) <= _QUALIFIERS:
                return None
            over = NamedSet(tokens[-1].text.removeprefix("set:"))
            return Group(GroupKind.LIST, (_item(tokens[:place]), Relation((Sym(names[0]), over), ("in",))))
        if len(names) != 1 or len(words) + 1 != len(tokens) - place or not set(words) <= _QUALIFIERS:
            return None
        over = NamedSet("Z" if set(words) & {"integer", "integers", "whole"} else "R")
        value = _item(tokens[:place])
        return Group(GroupKind.LIST, (value, Relation((Sym(names[0]), over), ("in",))))
    lone = [token for token in tokens if token.kind == "sym"]
    if len(lone) != 1 or len(words) + 1 != len(tokens):
        return None
    if tokens[0] is lone[0] and words[0] in ("is", "are") and len(words) > 1:
        return Text((*phrase(words[1:]).split(), lone[0].text))
    if tokens[-1] is lone[0] and words[0] in _EVERY and len(words) > 1:
        return Text((*phrase(words[1:]).split(), lone[0].text))
    return None


def _measured_sides(tokens: list[Token]) -> Node | None:
    """Parse `d = 0.05 m = 5 cm`, `C = $5`: a chain of equations with units, each side parsed separately; else None."""
    if not any(token.kind == "rel" and token.text in ("=", "approx") for token in tokens):
        return None
    if not any(token.kind == "word" or token.text in CURRENCIES for token in tokens):
        return None
    sides: list[list[Token]] = [[]]
    ops: list[str] = []
    depth = 0
    for token in tokens:
        if token.kind in ("op", "cmd"):
            depth += token.text in OPENERS or token.text.startswith("begin:")
            depth -= (token.text in CLOSERS or token.text.startswith("end:")) and depth > 0
        if token.kind == "rel" and depth == 0:
            ops.append(token.text)
            sides.append([])
        else:
            sides[-1].append(token)
    if not set(ops) <= {"=", "approx"} or not ops or not all(sides) or len(ops) > MAX_SIDES:
        return None
    if all(token.kind == "word" for token in sides[-1]):
        return None
    first = Parser(_spaced_letters(sides[0]))
    try:
        left = first.item()
        read_sides = [left if first.done else _item(sides[0]), *(_item(side) for side in sides[1:])]
    except ParseError:
        return None
    return Relation(tuple(read_sides), tuple(ops)) if any(isinstance(s, Quantity) for s in read_sides) else None


def _without_remark(tokens: list[Token]) -> list[Token]:
    """Drop words in brackets after a value: `5 (approximately)`."""
    if len(tokens) > 3 and tokens[-1].text == ")" and tokens[-2].kind == "word" and tokens[0].kind == "num":
        opening = next((place for place in range(len(tokens) - 1, 0, -1) if tokens[place].text == "("), 0)
        if opening and all(token.kind == "word" for token in tokens[opening + 1 : -1]):
            return tokens[:opening]
    return tokens


def _is_leading(tokens: list[Token]) -> bool:
    first = tokens[0]
    if first.kind == "rel":
        return first.text in ("=", "approx")
    if first.text == ":":
        return True
    word = first.text.lower()
    if word in ("a", "an") and tokens[1].text.lower() in PARTS:
        return False
    if first.text in ("a", "A") and first.kind == "sym":
        following = tokens[1]
        return following.kind == "word" and following.spaced and not is_unit_word(following.text)
    return first.kind == "word" and word in _LEADING


def _spelled_units(tokens: list[Token]) -> list[Token]:
    """Mark letters that are units, and a "to" that is a ratio, by their position: `5 m/s`, `3 to 4`."""
    if len(tokens) < 3:
        return _spaced_letters(tokens)
    last, before = tokens[-1], tokens[-2]
    if len(tokens) == 3 and tokens[1] == Token("word", "to", True) and tokens[0].kind == last.kind == "num":
        return [tokens[0], Token("op", ":", True), last]
    prefixed = last.kind in ("word", "sym") and (before.text == "mu" or last.text == "Omega")
    if prefixed and before.text + last.text in SYMBOLS:
        return [*tokens[:-2], Token("word", before.text + last.text, True)]
    return _spaced_letters(tokens)


def _spaced_letters(tokens: list[Token]) -> list[Token]:
    """Mark the letters after a number and a space as units, if all of them can be: `5 m`, `9.8 m/s^2`."""
    place = next((place for place, token in enumerate(tokens) if token.kind == "sym"), 0)
    before, rest = tokens[:place], tokens[place:]
    if not place or not rest[0].spaced or not all(_is_literal(token) for token in before):
        return tokens
    if sum((token.text in "({") - (token.text in ")}") for token in before):
        return tokens
    letters = sum(token.kind == "sym" for token in rest)
    if letters > 1 and rest[0].text.islower() and not any(token.text in ("/", "^", "*") for token in rest):
        return tokens  # 3 m g
    end = next(
        (i for i, token in enumerate(rest) if token.kind == "word" and token.text.lower() in _ADVERBS), len(rest)
    )
    if rest[0].text not in LETTERS or not all(_fits_unit(token) for token in rest[:end]):
        return tokens
    return [*tokens[:place], *(Token("word", t.text, t.spaced) if t.kind == "sym" else t for t in rest)]


_ADVERBS = frozenset((*SENSES, "to", "towards", "due"))
"""Words after a unit that give its sense."""


def _is_literal(token: Token) -> bool:
    return token.kind in ("num", "repeat", "const") or token.text in (*"+-*/^.(){}", "frac", "times", "sqrt")


def _fits_unit(token: Token) -> bool:
    if token.kind in ("sym", "word"):
        return token.text in SYMBOLS or token.text.lower() in KNOWN
    return token.kind == "num" or token.text in (*"-*/^(){}", "times")


def _all_but(tokens: list[Token]) -> Node | None:
    """Return `all real numbers except 3` as a set; None for anything else."""
    words = [token.text.lower() for token in tokens[:7]]
    place = next((place for place, word in enumerate(words) if word in ("except", "but", "excluding")), 0)
    if not place or phrase(words[:place]) != "all reals" or place + 1 == len(tokens):
        return None
    parser = Parser(tokens[place + 1 :])
    item = parser.item()
    if isinstance(item, Relation) and item.ops == ("=",):
        item = item.sides[1]
    left_out = item if isinstance(item, Group) else Group(GroupKind.SET, (item,))
    return SetOp("minus", (NamedSet("R"), left_out)) if parser.done else None


def _words_first(tokens: list[Token]) -> Node:
    words = [part for token in tokens if token.kind != "op" for part in token.text.lower().split("-")]
    if all(token.kind in ("word", "sep") or token.text == "a" for token in tokens):
        value = value_of_words(words)
        if value is not None:
            return Num(value)
        for size in range(min(len(words) - 1, 12), 0, -1):
            value = value_of_words(words[:size])
            if value is not None:
                return Quantity(Num(value), parse_unit(words[size:]))
        return _text(tokens)
    if len(tokens) > 2 and tokens[0].kind == "word" and tokens[1].text == "=" and tokens[1].kind == "rel":
        return Relation((Text((tokens[0].text.lower(),)), _item(tokens[2:])), ("=",))
    if len(tokens) == 2 and tokens[1].kind == "num":
        return Text(tuple(token.text for token in tokens))
    return _text(tokens)


def _text(tokens: Sequence[Token]) -> Node:
    folded = phrase([token.text for token in tokens])
    known = _FOLDED_TEXT.get(folded.replace("non-", "non"))
    return known if known is not None else Text(tuple(folded.split()))


def _flat_fraction(rest: list[Token]) -> list[Token]:
    """Return the tokens of `\\frac{m}{s^2}` after a value as `m / (s^2)`."""
    middle = next(
        (place for place in range(len(rest) - 1) if rest[place].text == "}" and rest[place + 1].text == "{"), 0
    )
    return [*rest[2:middle], Token("op", "/"), *rest[middle + 1 :]] if middle else rest


def _mixed_units(node: Node, rest: list[Token]) -> Node | None:
    """Return `5 ft 6 in`, `2 hours 30 minutes` as one quantity; None for anything else."""
    if not (isinstance(node, Num) and rest[0].kind == "word" and len(rest) <= 12):
        return None
    parts: list[list[Token]] = [[]]
    for token in rest:
        if token.kind == "num" and parts[-1] and parts[-1][-1].kind == "word":
            parts.append([])
        parts[-1].append(token)
    if len(parts) < 2 or not all(is_unit_word(part[-1].text) for part in parts):
        return None
    if not all(len(part) == 2 and part[0].kind == "num" for part in parts[1:]) or len(parts[0]) != 1:
        return None
    return _compound([Quantity(node, parse_unit([parts[0][0].text])), *(_item(part) for part in parts[1:])])


_COMPASS = {"N": "north", "S": "south", "E": "east", "W": "west", "n": "north", "s": "south", "e": "east", "w": "west"}


def _compass(words: list[str]) -> tuple[str, ...]:
    """Return the direction after an angle: `30° N`, `40° north of east`; empty for other words."""
    named = [_COMPASS.get(word, word.lower()) for word in words if word.lower() not in ("of", "the", "due", "from")]
    return tuple(named) if named and all(name in SENSES for name in named) else ()


def _with_unit(node: Node, rest: list[Token]) -> Node:
    """Combine an expression with what follows it: a scale word, a unit, a percent word, a currency after the number."""
    if rest[0].kind == "word" and rest[0].text.lower() in SCALES:
        node = Mul((node, Num(SCALES[rest[0].text.lower()])))
        rest = rest[1:]
    elif rest[0].kind == "word" and rest[0].text.lower() in ("dozen", "dozens"):
        node, rest = Mul((node, Num(12))), rest[1:]
    if not rest:
        return node
    if len(rest) == 1 and rest[0].text in CURRENCIES:
        return Quantity(node, currency(rest[0].text))
    if rest[0].text == "frac":
        rest = _flat_fraction(rest)
    mixed = _mixed_units(node, rest)
    if mixed is not None:
        return mixed
    words = [token.text for token in rest]
    if words[0].lower() in ("percent", "pct", "percentage"):
        return Call("percent", (node,))
    if words[0].lower() in ("degree", "degrees", "deg") and len(words) == 1:
        return Call("degree", (node,))
    if isinstance(node, Call) and node.name == "degree" and (compass := _compass(words)):
        return Quantity(node, Unit((), Fraction(1), (), compass))
    if words[0].lower() == "base" and len(rest) == 2 and isinstance(node, Num) and rest[1].text.isdigit():
        from verifiers.mathematics.nodes import BaseNumber

        return BaseNumber(str(node.value), int(rest[1].text))
    fits = all(
        token.kind in ("word", "num", "sym", "const") or token.text in ("/", "^", "*", "-", "(", ")", "{", "}", ".")
        for token in rest
    )
    words_of_logic = _LOGIC & {word.lower() for word in words}
    loose_number = any(
        token.kind == "num" and (place == 0 or words[place - 1] not in ("^", "{", "-", "/", "per", "_"))
        for place, token in enumerate(rest)
    )
    if words_of_logic or loose_number:
        raise ParseError("a clause after the value")
    if not fits or not any(token.kind == "word" for token in rest):
        raise ParseError(f"unexpected {rest[0].text!r}")
    if isinstance(node, Dots | Text):
        raise ParseError("words after words")
    if len(rest) > 8 and not is_unit_word(words[0]):
        raise ParseError("a sentence after the value")
    unit = parse_unit([word for word in words if word not in "{}"])
    if isinstance(node, Relation):
        return Relation((*node.sides[:-1], Quantity(node.sides[-1], unit)), node.ops)
    return Quantity(node, unit)
