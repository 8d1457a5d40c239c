"""Notations of formulas as tables: spellings of operators in plain text, Unicode, LaTeX, Prover9 and TPTP."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import NamedTuple

from verifiers.logic.formula import COMPARISONS, FormulaError

MAX_LENGTH = 20_000
WORDS: Mapping[str, str] = {
    "iff": "<->", "implies": "->", "or": "|", "xor": "^", "and": "&", "not": "~",
}  # fmt: skip
SIGNS: Mapping[str, str] = {
    "↔": "<->", "<=>": "<->", "⇔": "<->", "≡": "<->", "⟷": "<->", "⟺": "<->",
    "→": "->", "=>": "->", "⇒": "->", "⊃": "->", "⟶": "->", "⟹": "->",
    "←": "<-", "⇐": "<-",
    "∨": "|", "||": "|", "\\/": "|", "⋁": "|",
    "⊕": "^", "⊻": "^", "<~>": "^",
    "∧": "&", "&&": "&", "/\\": "&", "⋀": "&",
    "¬": "~", "!": "~", "∼": "~", "￢": "~",
    "≠": "!=", "≤": "<=", "≥": ">=", "==": "=", "×": "*", "−": "-",
    "∀": "forall", "∃": "exists", "⊤": "true", "⊥": "false", "$T": "true", "$F": "false",
}  # fmt: skip
COMMANDS: Mapping[str, str] = {
    "forall": "forall", "exists": "exists", "neg": "~", "lnot": "~", "sim": "~",
    "land": "&", "wedge": "&", "lor": "|", "vee": "|", "oplus": "^", "veebar": "^",
    "to": "->", "rightarrow": "->", "Rightarrow": "->", "implies": "->", "supset": "->", "longrightarrow": "->",
    "Longrightarrow": "->", "leftarrow": "<-", "Leftarrow": "<-", "impliedby": "<-",
    "leftrightarrow": "<->", "Leftrightarrow": "<->", "longleftrightarrow": "<->", "Longleftrightarrow": "<->",
    "iff": "<->", "equiv": "<->",
    "neq": "!=", "ne": "!=", "le": "<=", "leq": "<=", "ge": ">=", "geq": ">=", "lt": "<", "gt": ">",
    "times": "*", "cdot": "*", "top": "true", "bot": "false", "colon": ":",
}  # fmt: skip
"""LaTeX command -> operator."""
PASSED_OVER = frozenset("left right big Big bigl bigr Bigl Bigr quad qquad displaystyle".split())
"""LaTeX commands that only affect layout."""
QUANTIFIER_WORDS: Mapping[str, str] = {"forall": "forall", "all": "forall", "exists": "exists"}
"""Words that are quantifiers if a name follows; elsewhere they are names."""
TPTP_QUANTIFIERS: Mapping[str, str] = {"!": "forall", "?": "exists"}
"""Signs that are quantifiers if `[` follows."""
TPTP_CONSTANTS: Mapping[str, str] = {"$true": "true", "$false": "false"}
CLOSING: Mapping[str, str] = {"(": ")", "[": "]", "{": "}"}
_CALLED = re.compile(r"\\(?:text|math|operatorname)(?:rm|it|sf|bf|tt)?\*?\s*\{\s*([^{}\\]*?)\s*\}")
"""Matches a name in LaTeX: `\\text{Dog}`, `\\mathrm{Dog}`."""
_REWRITTEN = (
    (_CALLED, r" \1"),
    (re.compile(r"\\_"), "_"),
    (re.compile(r"\\[,;:! ]|\\\\"), " "),
    (re.compile(r"\s+"), " "),
    (re.compile(r"^\s*(?:\$\$?(?![TF]\b|true\b|false\b)|\\\(|\\\[)|(?:\$\$?|\\\)|\\\])\s*\.?\s*$"), " "),
    (re.compile(r"\bfor\s+(?:all|every|each)\s+(?=\w)", re.I), "∀"),
    (re.compile(r"\bthere\s+(?:exists?|is)\s+(?:an?\s+)?(?=\w)", re.I), "∃"),
    (re.compile(r",?\s*\bsuch\s+that\b:?", re.I), ":"),
)
_WRAPPED = re.compile(
    r"\s*(?P<kind>fof|cnf|tff)\s*\(\s*(?:\w+|'[^'\n]*')\s*,\s*\w+\s*,(?P<formula>.*)\)\s*\.?\s*", re.S
)
_TOKEN = re.compile(
    r"(?P<word>[^\W\d][\w']*|\d+[^\W\d]\w*|\$[A-Za-z]+)|(?P<number>\d+)|'(?P<quoted>[^'\n]{1,100})'|\\(?P<command>[A-Za-z]+)"
    r"|(?P<sign><->|<=>|<~>|->|=>|<=|>=|!=|==|\|\||&&|\\/|/\\|[~!?&|^()\[\]{}=<>+*,.:−-]|[^\w\s'\\])"
)
_OPERATORS = frozenset([*WORDS.values(), *SIGNS.values(), *COMPARISONS, *"+*,.:?()[]{}"])


class Token(NamedTuple):
    """One token of a formula."""

    kind: str
    """`name`, `number`, or `sign`: an operator, a bracket, a quantifier, true or false."""
    text: str
    touches: bool
    """True if there is no space between it and the token before it."""


class Written(NamedTuple):
    """A text as tokens, with the rule for free variables."""

    tokens: list[Token]
    variable: re.Pattern[str]
    """Matches names that are variables although no quantifier binds them: u to z as in Prover9, or capitals in
    `cnf(...)`.
    """


FREE = re.compile(r"[u-z]\d*")
FREE_IN_CLAUSES = re.compile(r"[A-Z]\w*")


def tokens_of(text: str) -> Written:
    """Split a formula in any of the notations into tokens, without wrappers (`fof(...)`, `$...$`, a full stop).

    Raises:
        FormulaError: it is too long, or has a sign that no notation has.
    """
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"a formula may have {MAX_LENGTH} characters; this one has {len(text)}.")
    wrapped = _WRAPPED.fullmatch(text)
    text = wrapped["formula"] if wrapped else text
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    text = text.rstrip()
    if text.endswith("."):
        text = text[:-1].rstrip()
    found: list[Token] = []
    at = end = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TOKEN.match(text, at)
        token = None if match is None else _token(match, text, touches=bool(found) and at == end)
        if match is None or token is None:
            raise FormulaError(f"unexpected {text[at : at + 10]!r}.")
        at = match.end()
        if token.text:
            found.append(token)
            end = at
    if wrapped is not None:  # a comparison outside TPTP
        found = [token._replace(text="<-") if token[:2] == ("sign", "<=") else token for token in found]
    clauses = wrapped is not None and wrapped["kind"] == "cnf"
    return Written(_quantified(_with_arrows(found)), FREE_IN_CLAUSES if clauses else FREE)


def _token(match: re.Match[str], text: str, *, touches: bool) -> Token | None:
    """Return the token of a match; with empty text if it only affects layout, None if no notation has it."""
    kind, said = match.lastgroup or "", match[match.lastgroup or 0]
    after = text[match.end() :][:9].lstrip()[:1]
    sign: str | None = None
    if kind == "word":
        sign = WORDS.get(said.lower()) or TPTP_CONSTANTS.get(said) or SIGNS.get(said)
        if said.lower() in ("true", "false"):
            sign = said.lower()
        if sign is None and said.startswith("$"):
            return None
    elif kind == "command":
        sign = "" if said in PASSED_OVER else COMMANDS.get(said)
        if sign is None:
            return None
    elif kind == "sign":
        quantifier = TPTP_QUANTIFIERS.get(said) if after == "[" else None
        sign = quantifier or SIGNS.get(said, said)
        if sign not in _OPERATORS:
            return None
    if sign is not None:
        return Token("sign", sign, touches)
    return Token("number" if kind == "number" else "name", said, touches)


def _with_arrows(tokens: list[Token]) -> list[Token]:
    """Recognise Prover9's `p <- q`; in `x < -y` and `x <-3` the minus belongs to the next token."""
    read: list[Token] = []
    for at, token in enumerate(tokens):
        apart = at + 1 < len(tokens) and not tokens[at + 1].touches
        if token == ("sign", "-", True) and apart and read and read[-1][:2] == ("sign", "<"):
            read[-1] = read[-1]._replace(text="<-")
        else:
            read.append(token)
    return read


def _quantified(tokens: list[Token]) -> list[Token]:
    """Turn words such as `all` into quantifiers if a name follows."""
    read = list(tokens)
    for at, (token, after) in enumerate(itertools.pairwise(tokens)):
        meant = QUANTIFIER_WORDS.get(token.text.lower()) if token.kind == "name" else None
        if meant is not None and after.kind == "name" and not after.touches:
            read[at] = Token("sign", meant, token.touches)
    return read


__all__ = ["CLOSING", "FREE", "MAX_LENGTH", "Token", "Written", "tokens_of"]
