"""Answers in words: the letter of a choice, true and false, prose, chemical formulas."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from verifiers.mathematics.limits import LimitExceeded, ParseError
from verifiers.mathematics.nodes import Node
from verifiers.mathematics.reading.reader import clean, read
from verifiers.mathematics.reading.tokens import FUNCTIONS
from verifiers.mathematics.reading.words import phrase

MAX_LABELLED = 400
"""Limit on the characters of a letter with its text."""
_WRAP = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|textsf)\s*\{([^{}]*)\}")
_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s*(?:is\s*)?:?\s*)?([(\[]?)([A-Za-z])([)\]]?)[.:]?",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"(?:(?:option|choice|answer)\s*)?(?:[(\[]([A-Z])[)\]]|([A-Z])[).:](?=\s|$))[.:]?\s*([\s\S]*)", re.IGNORECASE
)
_OTHER_LABEL = re.compile(r"[(\[][A-Z][)\]]|(?:^|\s)[A-Z][).:](?:\s|$)|^(?:or|and|/|,)\s*\(?[A-Z]\)?\b", re.IGNORECASE)
_TRUTH_WORDS: Mapping[str, tuple[str, bool]] = {
    word: (language, value)
    for language, *words in (
        ("en", "true yes", "false no"),
        ("ru", "да верно правда", "нет неверно ложь"),
        ("zh", "是 对 正确 對 正確", "否 不是 错 错误 不对 不正确 錯 錯誤"),
        ("ja", "はい", "いいえ"),
        ("fr", "oui vrai", "non faux"),
        ("de", "ja wahr", "nein falsch"),
        ("es", "sí verdadero", "falso"),
        ("pt", "sim verdadeiro", "não"),
        ("it", "sì vero", ""),
        ("pl", "tak", "nie"),
    )
    for value, group in zip((True, False), words, strict=True)
    for word in group.split()
}
"""Word for true or false -> (language, value): answers in another language than the reference do not match."""
_TRUTH = re.compile(
    r"(?:(?:the|this|that)\s+(?:statement|claim|assertion|proposition|equation|inequality)\s+is\s+|(?:it\s+is|it's|that\s+is)\s+)?"
    rf"(not\s+)?({'|'.join(_TRUTH_WORDS)})[.!。]?",
    re.IGNORECASE,
)
_TRUTH_WORD = re.compile("|".join(_TRUTH_WORDS), re.IGNORECASE)
_NO_PROSE = re.compile(r"[^A-Za-z0-9\s.,'’:;()!?-]")
_ELEMENTS = frozenset(
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb "
    "Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu "
    "Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm".split()
)
_SYMBOLS = re.compile(r"(?:[A-Z][a-z]?){1,6}")
_TYPESET_WORD = re.compile(r"[A-Za-z\\{}$ ]{2,60}")
_FORMULA = re.compile(r"(?:[A-Z][a-z]?(?:_?\d{1,3})?|[()\[\]](?:_?\d{1,2})?|\^?\d?[+-])+")


def unwrapped(text: str) -> str:
    """Return a text without `\\text{...}` and delimiters, the form in which choices are recognised."""
    if "\\" in text:
        for _ in range(3):
            text, before = _WRAP.sub(r"\1", text), text
            if text == before:
                break
        text = text.replace("\\ ", " ")
    return clean(text).strip("{} ")


def choice(text: str) -> str | None:
    """Return the letter that is the answer, alone or with its text: `B`, `(B)`, `B. 12`, `\\text{(B) }12`; else None.

    A lower-case letter stays lower case unless something marks it as a choice.
    """
    if len(text) > MAX_LABELLED:
        return None
    plain = unwrapped(text)
    alone = _LETTER.fullmatch(plain)
    if alone:
        letter = alone[2].upper() if alone[1] and alone[3] else alone[2]
        return letter if letter.upper() in "ABCDEFGHIJ" else None
    found = _LABEL.fullmatch(plain)
    if found is None or _OTHER_LABEL.search(found[3]):
        return None
    return (found[1] or found[2]).upper()


def same_choice(reference: str, answer: str) -> bool | None:
    """Return True if two choices are equal; None if either text is not a choice."""
    wanted = choice(reference)
    if wanted is None or not wanted.isupper():
        return None
    chosen = choice(answer)
    return None if chosen is None else chosen.upper() == wanted


def labelled_value(text: str) -> Node | None:
    """Return the value of `(B) 12`, here 12; None if there is none."""
    if len(text) > MAX_LABELLED:
        return None
    label = _LABEL.fullmatch(unwrapped(text))
    if label is None or not label[3].strip() or _OTHER_LABEL.search(label[3]):
        return None
    try:
        return read(label[3].strip())
    except (ParseError, LimitExceeded):
        return None


def same_truth(reference: str, answer: str) -> bool | None:
    """Return True if two answers of true or false, yes or no, are equal; None if either text is something else."""
    wanted = truth(reference)
    if wanted is None:
        return None
    said = truth(answer)
    if said is None:
        return None
    return said == wanted


class Truth(NamedTuple):
    """The meaning of a word for true or false, and its language."""

    language: str
    value: bool


def truth(text: str) -> Truth | None:
    """Return the meaning of `Yes`, `False`, `the statement is true`, `нет`; None for anything else."""
    if len(text) > 80 or _TRUTH_WORD.search(text) is None:
        return None
    found = _TRUTH.fullmatch(unwrapped(text))
    if found is None:
        return None
    language, value = _TRUTH_WORDS[found[2].lower()]
    return Truth(language, value is not bool(found[1]))


def prose(text: str) -> str | None:
    """Return a text of words without typesetting, punctuation and articles; None for mathematics."""
    if len(text) > 300:
        return None
    plain = unwrapped(text)
    words = re.findall(r"[A-Za-z0-9]+", plain)
    if _NO_PROSE.search(plain) or not any(len(word) > 3 and word.isalpha() for word in words):
        return None
    return None if any(word in FUNCTIONS for word in words) else phrase(words)


def same_prose(reference: str, answer: str) -> bool:
    """Return True if both texts are the same words."""
    said = prose(reference)
    return bool(said) and said == prose(answer)


def formula(text: str) -> str | None:
    """Return a chemical formula without its typesetting (`\\text{H}_2\\text{O}` gives H2O); None for anything else."""
    if len(text) > 100:
        return None
    plain = unwrapped(text.replace("\\ce", "\\text")).translate(str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789", "{} "))
    written = _FORMULA.fullmatch(plain) and (any(map(str.isdigit, plain)) or len(_elements(plain)) > 1)
    return plain.replace("_", "").replace("^", "") if written else None


def _elements(plain: str) -> list[str]:
    """Return the symbols of a formula without numbers: Ti and C of TiC; empty if one of them is not an element."""
    found = re.findall(r"[A-Z][a-z]?", plain) if _SYMBOLS.fullmatch(plain) else []
    return found if _ELEMENTS.issuperset(found) else []


def other_elements(reference: str, answer: str) -> bool | None:
    """Return False if two formulas differ only in case, as Co and CO do; None for anything else."""
    if not (_TYPESET_WORD.fullmatch(reference) and _TYPESET_WORD.fullmatch(answer)):
        return None
    wanted, given = unwrapped(reference), unwrapped(answer)
    if wanted == given or wanted.casefold() != given.casefold() or not (wanted.isalpha() and given.isalpha()):
        return None
    return False if _elements(wanted) and _elements(given) else None


def same_formula(reference: str, answer: str) -> bool:
    """Return True if both texts are the same chemical formula."""
    wanted = formula(reference)
    return bool(wanted) and wanted == formula(answer)
