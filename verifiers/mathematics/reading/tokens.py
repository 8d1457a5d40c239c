"""Splitting text into tokens: LaTeX, plain text, Python-like and Unicode mathematics, in one linear pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from verifiers.mathematics.limits import MAX_DIGITS, MAX_TOKENS, LimitExceeded, ParseError
from verifiers.mathematics.reading.foreign import JOINING, foreign_unit, is_foreign_word
from verifiers.mathematics.reading.words import NUMBERED, SHORT_WORDS
from verifiers.mathematics.units import GLUED, KNOWN, LETTERS, SYMBOLS


class Token(NamedTuple):
    """One token; kinds: num repeat based sym const fn word op cmd rel sep."""

    kind: str
    text: str
    spaced: bool = False
    """True if white space precedes it."""


_UNICODE: Mapping[str, str] = {
    **dict.fromkeys("−–—‐‑‒﹣", "-"),
    "×": r"\times ",
    "✕": r"\times ",
    "÷": "/",
    "∕": "/",
    "⁄": "/",
    **dict.fromkeys("·⋅∙•", r"\cdot "),
    "√": r"\sqrt ",
    "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≦": r"\le ",
    "⩽": r"\le ",
    "≥": r"\ge ",
    "≧": r"\ge ",
    "⩾": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "±": r"\pm ",
    "∓": r"\mp ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∉": r"\notin ",
    "∖": r"\setminus ",
    "∅": r"\emptyset ",
    "Ø": r"\emptyset ",
    "°": r"^\circ ",
    "º": r"^\circ ",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "Δ": r"\Delta ",
    "∆": r"\Delta ",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "〈": r"\langle ",
    "〉": r"\rangle ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "∣": "|",
    "∥": r"\parallel ",
    "⊥": r"\perp ",
    "…": r"\ldots ",
    "⋯": r"\ldots ",
    "→": r"\to ",
    "⇒": r"\Rightarrow ",
    "⟹": r"\Rightarrow ",
    "∴": "",
    "∨": r"\lor ",
    "∧": r"\land ",
    "∀": r"\forall ",
    "∃": r"\exists ",
    "∑": r"\sum ",
    "∏": r"\prod ",
    "∫": r"\int ",
    "′": "'",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "∶": ":",
    "\u00a0": " ",
    "\u2009": " ",
    "\u202f": " ",
    "\u200a": " ",
    "\u3000": " ",
    "。": ".",
    "或": " or ",
    "和": " and ",
    "与": " and ",
    "、": ",",
    "½": r"\frac{1}{2}",
    "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}",
    "⅖": r"\frac{2}{5}",
    "⅗": r"\frac{3}{5}",
    "⅘": r"\frac{4}{5}",
    "⅙": r"\frac{1}{6}",
    "⅚": r"\frac{5}{6}",
    "⅛": r"\frac{1}{8}",
    "⅜": r"\frac{3}{8}",
    "⅝": r"\frac{5}{8}",
    "⅞": r"\frac{7}{8}",
    "𝑖": "i",
    "ⅈ": "i",
    "ℯ": "e",
    "𝑒": "e",
    "𝜋": r"\pi ",
    "ϕ": r"\phi ",
    "𝑥": "x",
    "𝑦": "y",
    "ℓ": r"\ell ",
    "µ": r"\mu ",
    "¢": " cents ",
    **dict.fromkeys("✓✔✅☑🎉", ""),
}
_GREEK = dict(
    zip(
        "αβγδεζηθικλμνξοπρςστυφχψωΓΘΛΞΠΣΦΨΩ",
        (
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma sigma tau "
            "upsilon phi chi psi omega Gamma Theta Lambda Xi Pi Sigma Phi Psi Omega"
        ).split(),
        strict=True,
    )
)
_INVISIBLE = dict.fromkeys([*range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF, 0xAD], None)
_SMILES = dict.fromkeys((code for code in range(0x1F300, 0x1FB00) if code not in (0x1F44E, 0x1F6AB)), None)
"""Decorative pictures; a thumb down and a prohibition sign have a meaning and are not among them."""
_TRANSLATION: dict[int, str | None] = {
    **{ord(char): text for char, text in _UNICODE.items()},
    **{ord(char): f"\\{name} " for char, name in _GREEK.items()},
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **_INVISIBLE,
    **_SMILES,
}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋ₙ", "0123456789+-n")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙ]+")

GREEK_NAMES = frozenset(_GREEK.values()) | {"varphi", "vartheta", "varepsilon", "ell", "Delta", "hbar", "Upsilon"}
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc asin acos atan sinh cosh tanh coth sech csch "
    "Fraction Rational arcsinh arccosh arctanh asinh acosh atanh arsinh arcosh artanh ln log lg exp sqrt cbrt abs "
    "floor ceil gcd lcm max min det sgn sign arctg arcctg cotg cosec cosech cotgh "
    "arg deg dim ker rank tr re im binomial factorial cis".split()
)
NAMED_FUNCTIONS = frozenset("Re Im Abs Max Min tg ctg sh ch th cth tgh ctgh arcctg arctg erf Gamma".split())
"""Functions only after a backslash, in `\\operatorname` or before a bracket; elsewhere they are letters."""
ALIASES: Mapping[str, str] = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "asinh": "arcsinh",
    "acosh": "arccosh",
    "atanh": "arctanh",
    "sgn": "sign",
    "Re": "re",
    "Im": "im",
    "Abs": "abs",
    "Max": "max",
    "Min": "min",
    "tg": "tan",
    "ctg": "cot",
    "cotg": "cot",
    "cosec": "csc",
    "arctg": "arctan",
    "arcctg": "arccot",
    "sh": "sinh",
    "ch": "cosh",
    "th": "tanh",
    "cth": "coth",
    "tgh": "tanh",
    "ctgh": "coth",
    "cotgh": "coth",
    "cosech": "csch",
    "arsinh": "arcsinh",
    "arcosh": "arccosh",
    "artanh": "arctanh",
    "Gamma": "gamma",
}
RELATIONS: Mapping[str, str] = {
    "le": "<=",
    "leq": "<=",
    "leqslant": "<=",
    "leqq": "<=",
    "ge": ">=",
    "geq": ">=",
    "geqslant": ">=",
    "geqq": ">=",
    "lt": "<",
    "gt": ">",
    "ne": "!=",
    "neq": "!=",
    "not=": "!=",
    "in": "in",
    "notin": "notin",
    "approx": "approx",
    "simeq": "approx",
    "equiv": "equiv",
    "sim": "sim",
    "cong": "cong",
    "propto": "propto",
    "parallel": "parallel",
    "perp": "perp",
    "subset": "subset",
    "subseteq": "subseteq",
    "to": "to",
    "rightarrow": "to",
    "Rightarrow": "implies",
    "implies": "implies",
    "iff": "iff",
    "Leftrightarrow": "iff",
    "mapsto": "mapsto",
    "leftrightarrow": "iff",
    "mid": "mid",
    "nmid": "nmid",
    "ll": "ll",
    "gg": "gg",
    "colon": ":",
}
_IGNORED = frozenset(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr middle displaystyle textstyle "
    "scriptstyle "
    "limits nolimits quad qquad rm bf it sf tt cal allowbreak nonumber mathstrut strut hfill thinspace enspace space "
    "medspace thickspace negthinspace large Large small normalsize boldmath hline noindent therefore because par "
    "centering mathop mathrel mathord mathbin mathopen mathclose mathpunct smash relax bigskip newline ensuremath "
    "unicode triangleq checkmark".split()
)
TEXT_COMMANDS = frozenset(
    "text textbf textit textrm mbox hbox emph textnormal textsf texttt textsc textup underline uline fbox".split()
)
ALPHABETS = frozenset(
    "mathrm operatorname mathbf mathit mathsf mathtt boldsymbol bm pmb vec mathcal mathfrak mathscr hat widehat "
    "overrightarrow overset boxed".split()
)
_SPACING_ARGUMENT = frozenset("hspace vspace phantom hphantom vphantom color textcolor colorbox label tag kern".split())
_EMITTED: Mapping[str, tuple[str, str]] = {
    **{name: ("sym", name) for name in GREEK_NAMES},
    "varphi": ("sym", "phi"), "vartheta": ("sym", "theta"), "varepsilon": ("sym", "epsilon"),
    "pi": ("const", "pi"), "infty": ("const", "oo"), "imath": ("const", "i"), "jmath": ("const", "j"),
    **{name: ("fn", ALIASES.get(name, name)) for name in (*FUNCTIONS, *NAMED_FUNCTIONS) if name != "Gamma"},
    "sqrt": ("cmd", "sqrt"), **dict.fromkeys(("dfrac", "tfrac", "cfrac"), ("cmd", "frac")),
    **{name: ("rel", sign) for name, sign in RELATIONS.items()},
    **dict.fromkeys(("cdot", "ast", "bullet"), ("op", "*")), "times": ("op", "times"), "div": ("op", "/"),
    **dict.fromkeys(("ldots", "dots", "cdots", "dotsc", "dotsb", "vdots", "ddots"), ("op", "dots")),
    **dict.fromkeys(("\\", "cr"), ("op", "\\\\")), "lbrace": ("op", "\\{"), "rbrace": ("op", "\\}"),
    "$": ("op", "$"), "pounds": ("op", "£"), "euro": ("op", "€"), "%": ("op", "%"), "_": ("op", "_"), "#": ("op", "#"),
    **dict.fromkeys(("lor", "vee"), ("sep", "or")), **dict.fromkeys(("land", "wedge"), ("sep", "and")),
}  # fmt: skip
"""Command -> kind and text of its single token; a command in no table is a token with its own name."""
_MASTER = re.compile(
    r"""(?P<space>\s+|~)
      | (?P<repeat>\d*\.\d*\\(?:overline|bar|dot)\s*\{?\s*\d[\d\s\\dot{}]*\}|\d*\.\d*\\dot\s*\d
                  |\d+\.\d*\(\d+\)|\d*\.\d+\s?(?:\.\.\.+|\\[lc]?dots(?![A-Za-z])))
      | (?P<based>(?:\d[\dA-F]*[A-F]|[A-F]+\d|[A-F]{2})[\dA-F]*_(?:\{\s*\d{2}\s*\}|\d{2}(?!\d)))
      | (?P<num>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+(?![A-Za-z\d]))?)
      | (?P<command>\\(?:[A-Za-z]+\*?|.|$))
      | (?P<accented>(?=[A-Za-z]{0,40}[À-ÖØ-öø-ɏ])[A-Za-zÀ-ÖØ-öø-ɏ]{3,})
      | (?P<letters>[A-Za-z]+)
      | (?P<foreign>[\u0400-\u052f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]+\.?)
      | (?P<rel><=>|=>|->|<=|>=|==|!=|=<|<|>|=|~=)
      | (?P<op>\*\*|\.\.\.+|&&|.)""",
    re.VERBOSE | re.DOTALL,
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?")
_GROUP_MARK = re.compile(r"(?<=\d)(?:\\,|\{,\}|,\s?\\!\s?|\\!,|\\ |_|\\;|\\:|\{\\,\})(?=\s*\d{3}(?!\d))\s*")
_GROUP_SPACE = re.compile(r"(?<![\d.,])\d{1,3}(?:[ ~]\d{3})+(?![\d]|\s*/)")
_BASED_TEXT = re.compile(r"\\(?:text|mathrm|texttt|mathtt)\s*\{([\dA-F]{1,40})\}(?=_)")
_ORDINAL = re.compile(
    r"(?<=\d)(?:(?:st|nd|rd|th)(?![A-Za-z])|\^\{(?:st|nd|rd|th)\}|\^?\\(?:text|textrm|mathrm)\s*\{(?:st|nd|rd|th)\}"
    r"|\^\{\\(?:text|textrm|mathrm)\s*\{(?:st|nd|rd|th)\}\})"
    r"(?!\s*[A-Za-z])"
)
_REPEAT_DIGITS = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(.*)", re.DOTALL)
_TIMES_TEN = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*(?:\^|\*\*))")
_CHOOSE = re.compile(r"(?:\{\s*\})?[_^]\{?(\d{1,4})\}?\s*(?:\\(?:mathrm|text)\{C\}|C)_\{?(\d{1,4})\}?")
_FACTORIAL_EQUALS = re.compile(r"(?<=[\d)])!=(?=\s*\d)")
"""Matches the `!=` of `5!=120`, which states a value: "5 is not 120" would be no answer."""
_VULGAR = re.compile(r"(?:\{\s*\})?\^\{?(\d{1,9})\}?(?:\\!)*\s?/\s?(?:\\!)*_\{?(\d{1,9})\}?")
_TYPESET_E = re.compile(r"(?<=\d)\s*\\(?:text|mathrm|rm)\s*\{\s*[eE]\s*\}\s*(?=[+-]?\d)")
_SIGNS = re.compile(r"[<>=^≤≥]|\\[lg]eq?(?![a-z])")
_TEMPERATURE = re.compile(
    r"(?:\^\{?\s*\\circ\s*\}?|\\degree)\s*(?:([CF])(?![A-Za-z\d_^])|\\(?:text|mathrm)\s*\{\s*([CF])\s*\}|\{\s*([CF])\s*\})"
)
_AXES = frozenset("axis axe intercept coordinate plane value score test direction component".split())
_MODULO = re.compile(r"\(\s*(?:\\(?:text|mathrm)\s*\{\s*)?(?:\\b|\\)?mod(?:ulo)?\s*\}?\s*([^()]{1,40}?)\s*\)")
_PREFIXED_BASE = re.compile(r"(?<![\w.])0(?:[xX]([\da-fA-F]{1,40})|b([01]{1,99})|o([0-7]{1,60}))(?!\w)")
_LOWER_BASE = re.compile(r"(?<![\w.\\])(?=[\da-f]*[a-f])([\da-f]{2,40})(?=_\{?16\}?)")
_IN_BASE = re.compile(r"(?<=[\dA-F])\s*(?:\\text\{\s*)?\(\s*(?:in\s+)?base\s*(\d{1,2})\s*\)\s*\}?$")
_MODULE = re.compile(r"(?<![A-Za-z.])(?:math|np|numpy|sp|sympy|cmath)\.(?=[A-Za-z])|(?<![A-Za-z])Matrix(?=\(\[)")
_OVERLINED = re.compile("(?:\\d[\u0305\u0307])+")
_LETTER_RUN = re.compile(r"[A-Za-z][A-Za-z'’\-]*[A-Za-z]|[A-Za-z]")


def normalise_characters(text: str) -> str:
    """Rewrite Unicode mathematics as LaTeX or ASCII, and remove invisible characters."""
    if text.isascii():
        return text
    text = _OVERLINED.sub(lambda run: "\\overline{" + run[0][::2] + "}", text)
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + run[0].translate(_SUBSCRIPTS) + "}", text)
    return text.translate(_TRANSLATION)


def _temperature(found: re.Match[str]) -> str:
    scale = next(group for group in found.groups() if group)
    return r"\text{ celsius}" if scale == "C" else r"\text{ fahrenheit}"


def _with_base(found: re.Match[str]) -> str:
    digits, base = next((text, base) for text, base in zip(found.groups(), (16, 2, 8), strict=True) if text)
    return f"{digits.upper()}_{{{base}}}"


_REWRITTEN: tuple[tuple[tuple[str, ...], re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    ((" ", "~"), _GROUP_SPACE, lambda found: found[0].replace(" ", "").replace("~", "")),
    (("x", "X"), _TIMES_TEN, r"\\times "),
    (("circ", "degree"), _TEMPERATURE, _temperature),
    (("mod",), _MODULO, r"\\pmod{\1}"),
    (("{d}",), re.compile(r"\\text(?:rm|up|normal)?\{d\}(?=\s?\\?[A-Za-z])"), "d "),
    (("US",), re.compile(r"\bUS\s?(?=\\?\$)"), ""),
    (("Rs",), re.compile(r"\bRs\.?\s{0,3}(?=\d)"), "₹"),
    (("0x", "0b", "0o", "0X"), _PREFIXED_BASE, _with_base),
    (("_",), _LOWER_BASE, lambda found: found[0].upper()),
    (("base",), _IN_BASE, r"_{\1}"),
    ((".", "Matrix"), _MODULE, ""),
    (("!=",), _FACTORIAL_EQUALS, "! ="),
    (("/_", "!/"), _VULGAR, r"\\frac{\1}{\2}"),
    (("e}", "E}"), _TYPESET_E, "e"),
    (("C",), _CHOOSE, r"\\binom{\1}{\2}"),
    (("st", "nd", "rd", "th"), _ORDINAL, ""),
    (("_",), _BASED_TEXT, r"\1"),
)
"""(texts of which one must occur, pattern, replacement), applied in this order."""


class Tokenizer:
    """A tokenizer for one answer. Within brackets other than braces, `1,234` is a pair and not a number."""

    def __init__(self, text: str) -> None:
        text = _GROUP_MARK.sub("", normalise_characters(text))
        for hints, pattern, replacement in _REWRITTEN:
            if any(hint in text for hint in hints):
                text = pattern.sub(replacement, text)
        self.text = text
        self.lone_dollar = self.text.count("$") - self.text.count("\\$") == 1
        self.tokens: list[Token] = []
        self.spaced = False
        self.depth = 0
        self.position = 0

    def run(self) -> list[Token]:
        """Return all tokens.

        Raises:
            LimitExceeded: too many tokens, or a number with too many digits.
            ParseError: a text command without its braces.
        """
        self._range(len(self.text), words=False)
        return self.tokens

    def _emit(self, kind: str, text: str) -> None:
        self.tokens.append(Token(kind, text, self.spaced))
        self.spaced = False
        if len(self.tokens) > MAX_TOKENS:
            raise LimitExceeded(f"the answer has over {MAX_TOKENS} tokens")

    def _range(self, end: int, *, words: bool) -> None:
        text = self.text
        while self.position < end:
            match = _MASTER.match(text, self.position, end)
            if match is None:
                raise ParseError("a character that cannot be read")
            kind, start = match.lastgroup, self.position
            self.position = match.end()
            if kind == "space":
                self.spaced = True
            elif kind == "num":
                self._number(match[0], start, end)
            elif kind == "letters":
                if words:
                    self._word_run(start, end)
                else:
                    self._letters(match[0], start, end)
            elif kind == "command":
                self._command(match[0][1:].rstrip("*"), end)
            elif kind == "accented":
                self._emit("word", match[0])
            elif kind == "foreign":
                self._foreign(match[0].rstrip("."))
            elif kind == "repeat":
                self._repeat(match[0])
            elif kind == "based":
                self._emit("based", match[0])
            elif kind == "rel":
                self._emit(
                    "rel",
                    {"==": "=", "=<": "<=", "->": "to", "=>": "implies", "<=>": "iff", "~=": "approx"}.get(
                        match[0], match[0]
                    ),
                )
            else:
                self._operator(match[0])

    def _number(self, digits: str, start: int, end: int) -> None:
        if self.depth == 0:
            grouped = _GROUPED.match(self.text, start, end)
            if grouped and (start == 0 or self.text[start - 1] not in ".,"):
                digits = grouped[0]
                self.position = grouped.end()
        if len(digits) > MAX_DIGITS:
            raise LimitExceeded(f"a number has over {MAX_DIGITS} digits")
        if digits.endswith(".") and not self.text[self.position : end].strip(" $*\\])}"):
            digits = digits[:-1]
        if digits.endswith(".") and self.text.startswith("..", self.position):
            digits, self.position = digits[:-1], self.position - 1
        self._emit("num", digits)

    def _repeat(self, text: str) -> None:
        if text[-1] in ".s" and (found := re.match(r"\d*\.\d+", text)):  # 0.333...
            self._endless(found[0])
            return
        text = text.replace("(", "\\bar{").replace(")", "}")
        found = _REPEAT_DIGITS.fullmatch(text)
        assert found is not None, text
        cycle = "".join(char for char in found[3] if char.isdigit())
        self._emit("repeat", f"{found[1] or 0}.{found[2]}.{cycle}")

    def _endless(self, digits: str) -> None:
        """Emit `0.1666...` as a repeating decimal, if it ends in a cycle seen three times (twice for a long one)."""
        if len(digits) > MAX_DIGITS:
            raise LimitExceeded(f"a number has over {MAX_DIGITS} digits")
        whole, _, decimals = digits.partition(".")
        for size in range(1, 13):
            times = 3 if size < 3 else 2
            cycle = decimals[-size:]
            if len(decimals) >= size * times and decimals.endswith(cycle * times):
                kept = decimals
                while kept.endswith(cycle):
                    kept = kept[:-size]
                self._emit("repeat", f"{whole or 0}.{kept}.{cycle}")
                return
        self._emit("num", digits)

    def _after_number(self) -> bool:
        if not self.tokens:
            return False
        last = self.tokens[-1]
        return last.kind in ("num", "repeat") or last.text in ("}", ")", "%", "pi") or self._in_unit(last)

    def _in_unit(self, last: Token) -> bool:
        place = len(self.tokens) - 1
        while place > 0 and len(self.tokens) - place < 5 and last.text in ("/", "*", "^", "(", "{", "frac"):
            place -= 1
            last = self.tokens[place]
        if last.kind == "sym" and place:
            letter = last.text == "mu" or (last.spaced and last.text in LETTERS)
            return letter and self.tokens[place - 1].kind in ("num", "repeat")
        if place < len(self.tokens) - 1 and self.tokens[-1].text == "{":
            return last.kind == "num" or last.text == "}"
        return last.kind == "word" and (
            last.text.lower() in KNOWN or last.text in SYMBOLS or last.text in ("square", "sq", "cubic", "cu")
        )

    def _word_run(self, start: int, end: int) -> None:
        run = _LETTER_RUN.match(self.text, start, end)
        assert run is not None
        self.position = run.end()
        self._word(run[0])

    def _foreign(self, run: str) -> None:
        """Emit the known unit, scale or words of a run in another script.

        Raises:
            ParseError: it is not a word, but a letter that looks like another one.
        """
        if run.lower() in JOINING:
            self._emit("sep", JOINING[run.lower()])
            return
        known = foreign_unit(run)
        if known is not None:
            for part in known:
                self._emit("op" if part == "*" else "num" if part.isdigit() else "word", part)
        elif is_foreign_word(run):
            self._emit("word", run)
        else:
            raise ParseError(f"unexpected {run[:20]!r}")

    def _word(self, word: str) -> None:
        lowered = word.lower()
        if lowered in _JOINING:
            self._emit("sep", _JOINING[lowered])
        elif lowered in ("pi", "infinity"):
            self._emit("const", "pi" if lowered == "pi" else "oo")
        elif lowered in ("constant", "const") and self.tokens and self.tokens[-1].text == "+":
            self._emit("sym", "C")
        else:
            self._emit("word", word)

    def _letters(self, run: str, start: int, end: int) -> None:
        if self._hyphenated(run, start, end):
            return
        lowered = run.lower()
        if run in ("min", "sec", "deg") and self._after_number() and self._nothing_follows(end):
            self._emit("word", run)
        elif run in FUNCTIONS or (run in NAMED_FUNCTIONS and (run in ("Re", "Im") or self._opens(end))):
            self._emit("fn", ALIASES.get(run, run))
        elif lowered in _JOINING:
            self._emit("sep", _JOINING[lowered])
        elif run in ("et", "ou", "y") and self._after_number() and _BEFORE_NUMBER.match(self.text, self.position, end):
            self._emit("sep", "or" if run == "ou" else "and")
        elif lowered in ("pi", "inf", "infinity", "oo"):
            self._emit("const", "pi" if lowered == "pi" else "oo")
        elif len(run) == 1:
            self._single(run)
        elif (
            len(run) > 1
            and (
                (run in SYMBOLS and (run in GLUED or self.spaced))
                or (self.spaced and len(run) > 2 and lowered in KNOWN)
            )
            and self._after_number()
        ):
            self._emit("word", run)
        elif self._joined(run, end) or self._prefixed(run):
            return
        elif (
            (run.isupper() and len(run) <= 5 and run not in ("AM", "PM", "DNE", "YES", "NO", "TRUE", "FALSE"))
            or run in GREEK_NAMES
            or run in ("phi", "theta")
        ):
            self._emit("sym", run)
        elif self._is_word(run, lowered) and not (len(run) == 2 and self.text.startswith("^", self.position)):
            self._emit("word", run)  # but Be^{2x} is a product
        else:
            for letter in run:
                self._single(letter)

    def _opens(self, end: int) -> bool:
        """Return True if a round bracket follows immediately."""
        return self.text[self.position : min(end, self.position + 6)].removeprefix("\\left").startswith("(")

    def _nothing_follows(self, end: int) -> bool:
        return not self.text[self.position : end].lstrip(" ~")[:1].strip("}.,$/*)").strip()

    def _hyphenated(self, run: str, start: int, end: int) -> bool:
        if len(run) < 2 or self.position >= end or self.text[self.position] not in "-'":
            return False
        whole = _LETTER_RUN.match(self.text, start, end)
        if whole is None or len(whole[0]) <= len(run):
            return False
        parts = re.split(r"[-'’]", whole[0])
        if len(parts) == 2 and len(parts[0]) == 1 and parts[1].lower().removesuffix("s") in _AXES:
            parts = parts[1:]
        if not all(len(part) >= 3 or part in ("t", "s", "to") for part in parts) or any(
            part in FUNCTIONS for part in parts
        ):
            return False
        self.position = whole.end()
        self._emit("word", whole[0])
        return True

    def _is_word(self, run: str, lowered: str) -> bool:
        if len(run) >= 4:
            return any(vowel in lowered for vowel in "aeiouy") or lowered in SHORT_WORDS or lowered in KNOWN
        if lowered in SHORT_WORDS or lowered in NUMBERED:
            return True
        return len(run) in (2, 3) and run[0].isupper() and run[1:].islower() and self.text.strip() == run

    def _joined(self, run: str, end: int) -> bool:
        """Emit a second label glued to a joining word, as in `x=1orx=2`; return False for anything else."""
        found = _GLUED_JOINING.fullmatch(run)
        labels = found is not None and not self.spaced and self._after_number() and self.position < end
        if found is None or not labels or self.text[self.position] not in "=(_":
            return False
        self._emit("sep", found[1])
        self._single(found[2])
        return True

    def _prefixed(self, run: str) -> bool:
        """Emit a known name glued to at most two letters (`sinx`, `lnx`, `pir`); return False for anything else."""
        for size in (6, 5, 4, 3, 2):
            name, rest = run[:size], run[size:]
            if 0 < len(rest) <= 2 and (name in FUNCTIONS and name not in ("re", "im", "tr", "deg", "arg", "dim")):
                if len(run) > 4 and self._is_word(run, run.lower()) and len(rest) > 1:
                    return False
                self._emit("fn", ALIASES.get(name, name))
                for letter in rest:
                    self._single(letter)
                return True
        if run.startswith("pi") and len(run) == 3:
            self._emit("const", "pi")
            self._single(run[2])
            return True
        return False

    def _single(self, letter: str) -> None:
        self._emit("const" if letter in "ei" else "sym", letter)

    def _operator(self, char: str) -> None:
        if char in "([":
            self.depth += 1
        elif char in ")]" and self.depth:
            self.depth -= 1
        if char == "$":
            self._dollar()
        elif char == ",":
            self._emit("sep", ",")
        elif char in (";", "；"):
            self._emit("sep", ";")
        elif char == "**":
            self._emit("op", "^")
        elif char.startswith("..."):
            self._emit("op", "dots")
        elif char in "\"'`" and char != "'":
            return
        elif char in "€£¥₹":
            self._emit("op", char)
        else:
            self._emit("op", char)

    def _dollar(self) -> None:
        """Emit a currency sign if a digit follows and the dollar cannot be a delimiter; otherwise nothing."""
        rest = self.text[self.position : self.position + 2].strip()
        if rest[:1].isdigit() and self.lone_dollar:
            self._emit("op", "$")

    def _braced(self, end: int) -> tuple[int, int]:
        """Return the span within the braces that start here.

        Raises:
            ParseError: there are no braces.
        """
        text, index = self.text, self.position
        while index < end and text[index].isspace():
            index += 1
        if index >= end or text[index] != "{":
            raise ParseError("a text command must have braces")
        depth, start = 0, index + 1
        while index < end:
            char = text[index]
            if char == "\\":
                index += 2
                continue
            depth += (char == "{") - (char == "}")
            index += 1
            if depth == 0:
                return start, index - 1
        raise ParseError("an open brace")

    def _within(self, end: int, *, words: bool) -> None:
        start, stop = self._braced(end)
        self.position = start
        self.spaced = False
        self._range(stop, words=words)
        self.position = stop + 1

    def _command(self, name: str, end: int) -> None:
        handler = self._handlers.get(name)
        if handler is not None:
            handler(self, name, end)
        elif name in _GREEK_FUNCTIONS and self._opens(end):
            self._emit("fn", _GREEK_FUNCTIONS[name])
        elif name not in _EMITTED and (glued := _GLUED_COMMAND.match(name)):
            self.position -= len(name) - glued.end()
            self._command(glued[0], end)
        else:
            self._emit(*_EMITTED.get(name, ("cmd", name)))

    def _ignored(self, name: str, end: int) -> None:
        """Skip the command, and the invisible delimiter of `\\left.`; spacing commands count as a space."""
        if name in ("left", "right", "middle") and self.position < end and self.text[self.position] == ".":
            self.position += 1
        elif name not in ("left", "right", "!"):
            self.spaced = True

    def _text_command(self, name: str, end: int) -> None:
        """Read the braces as words, or as mathematics if they have a relation; `\\text{max}(` is a function."""
        try:
            start, stop = self._braced(end)
            inner = self.text[start:stop].strip()
            if (inner in FUNCTIONS or inner in NAMED_FUNCTIONS) and self.text[stop + 1 : stop + 3].lstrip().startswith(
                "("
            ):
                self.position = stop + 1
                self._emit("fn", ALIASES.get(inner, inner))
            else:
                self._within(end, words=not _SIGNS.search(self.text, start, stop))
        except ParseError:
            return

    def _skip_argument(self, name: str, end: int) -> None:
        _, stop = self._braced(end)
        self.position = stop + 1

    def _brace(self, name: str, end: int) -> None:
        self._emit("op", "\\" + name)
        self._nest(opening=name == "{")

    def _delimiter(self, name: str, end: int) -> None:
        self._emit("cmd", name)
        self._nest(opening=name.startswith("l"))

    def _nest(self, *, opening: bool) -> None:
        self.depth = max(0, self.depth + (1 if opening else -1))

    def _mathematics_mark(self, name: str, end: int) -> None:
        self.spaced = True

    def _named(self, name: str, end: int) -> None:
        """Emit the begin or end of an environment, or the letter of a set, named in braces or by one letter."""
        if name in ("mathbb", "Bbb") and (letter := _NEXT_LETTER.match(self.text, self.position, end)):
            self._emit("cmd", f"set:{letter[1]}")
            self.position = letter.end()
            return
        start, stop = self._braced(end)
        inner = self.text[start:stop].strip()
        self._emit("cmd", f"set:{inner}" if name in ("mathbb", "Bbb") else f"{name}:{inner.rstrip('*')}")
        self.position = stop + 1

    def _negated(self, name: str, end: int) -> None:
        match = _MASTER.match(self.text, self.position, end)
        if match is None:
            return
        self.position = match.end()
        word = match[0].lstrip("\\")
        self._emit("rel", {"=": "!=", "in": "notin"}.get(word, f"not {word}"))

    def _alphabet(self, name: str, end: int) -> None:
        try:
            start, stop = self._braced(end)
        except ParseError:
            return
        inner = self.text[start:stop].strip().strip("~").strip()
        if name == "overset":
            self.position = stop + 1
            return
        unit_like = name in ("mathrm", "operatorname", "mathbf", "mathit", "mathsf", "mathtt")
        if unit_like and self._after_number() and _is_unit(inner):
            self._within(end, words=True)
            return
        plain = inner.replace("\\,", "").replace("~", "").strip()
        if unit_like and plain.isalpha() and len(plain) > 1 and plain in (FUNCTIONS | NAMED_FUNCTIONS):
            self._emit("fn", ALIASES.get(plain, plain))
            self.position = stop + 1
        else:
            self._emit("op", "{")
            self._within(end, words=False)
            self._emit("op", "}")

    _handlers = {
        **dict.fromkeys((*_IGNORED, *",!;:> \n/-@&", ""), _ignored),
        **dict.fromkeys(TEXT_COMMANDS, _text_command),
        **dict.fromkeys(ALPHABETS, _alphabet),
        **dict.fromkeys(_SPACING_ARGUMENT, _skip_argument),
        **dict.fromkeys("{}", _brace),
        **dict.fromkeys(("lfloor", "rfloor", "lceil", "rceil", "langle", "rangle"), _delimiter),
        **dict.fromkeys("()[]", _mathematics_mark),
        **dict.fromkeys(("begin", "end", "mathbb", "Bbb"), _named),
        "not": _negated,
    }
    """Command -> its method, called with the command's name and the end of the text."""


_JOINING: Mapping[str, str] = {"and": "and", "or": "or", "und": "and", "oder": "or"}
_GLUED_JOINING = re.compile(r"(and|or)([A-Za-z])")
_BEFORE_NUMBER = re.compile(r"\$?\s+\$?[-−]?\d")
_GLUED_COMMAND = re.compile(
    r"q?quad(?=[A-Za-z])|(?:cdot|times|leqslant|geqslant|leq|geq|pi|sin(?!c)|cos|tan|cot|ln|log)(?=[A-Za-z]\Z)"
)
"""Matches a command that lost the space after it: `\\quadx`, `\\cdotb`, `\\pir`."""
_GREEK_FUNCTIONS: Mapping[str, str] = {"Gamma": "gamma", "zeta": "zeta"}
_NEXT_LETTER = re.compile(r"\s*([A-Z])(?![A-Za-z])")
_UNIT_TEXT = re.compile(r"(?:[A-Za-z]+|\\(?:cdot|times|mu|Omega|[,;:! ])|[\s~^{}\-\d/*.()])+")


def _is_unit(text: str) -> bool:
    """Return True if the text is a product of unit symbols: `m\\,s^{-2}`."""
    if not _UNIT_TEXT.fullmatch(text):
        return False
    runs = re.findall(r"(?<![A-Za-z\\])[A-Za-z]+", text)
    return bool(runs) and all(run in SYMBOLS or run.lower() in KNOWN for run in runs)


def tokenize(text: str) -> list[Token]:
    """Return the tokens of one answer; see `Tokenizer.run` for the errors."""
    return Tokenizer(text).run()
