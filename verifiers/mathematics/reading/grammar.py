"""Recursive-descent parser from the tokens of one answer to one tree, linear in the number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from verifiers.mathematics import rewrites
from verifiers.mathematics.limits import MAX_DEPTH, LimitExceeded, ParseError
from verifiers.mathematics.nodes import (
    Add,
    BaseNumber,
    Builder,
    Call,
    Cases,
    Const,
    Div,
    Dots,
    Group,
    GroupKind,
    Matrix,
    Mul,
    NamedSet,
    Neg,
    Node,
    Num,
    PlusMinus,
    Pow,
    Quantity,
    Ratio,
    Relation,
    SetOp,
    Sym,
    Text,
)
from verifiers.mathematics.reading.built import (
    ANGLES,
    bracketed,
    chained,
    determinant,
    either_way,
    function_of,
    is_mixed,
    is_numeric,
    negated,
    number,
    of_digits,
    repeating,
    times,
)
from verifiers.mathematics.reading.calculus import from_side, product_of, take_side
from verifiers.mathematics.reading.tokens import Token
from verifiers.mathematics.reading.words import SMALL, phrase
from verifiers.mathematics.units import SYMBOLS, divided, is_unit_word, parse_unit

END = Token("end", "")
SET_NAMES = {"emptyset": "empty", "varnothing": "empty", "oslash": "empty", "Reals": "R"}
DECORATIONS = frozenset(("widetilde", "tilde", "dot", "ddot", "underline"))
PREFIX_NAMES = frozenset(("angle", "triangle", "Delta", "measuredangle", "odot", "square", "arc"))
MATRICES = {"pmatrix", "bmatrix", "matrix", "Bmatrix", "smallmatrix", "array", "vmatrix", "Vmatrix"}
CASES = frozenset(("cases", "dcases", "rcases", "aligned", "align", "gathered", "split", "equation"))
BIG = {"sum": "sum", "prod": "prod", "int": "int", "lim": "lim", "iint": "int", "oint": "int"}
_CLOSERS = {")", "]", "}", "\\}", "|", "rangle", "rfloor", "rceil", "rvert", "rVert"}
_START_OPS = {"(", "{", "|", "["}
_START_COMMANDS_EXCLUDED = frozenset(
    "cup cap setminus backslash bmod pmod mod rangle rfloor rceil rvert rVert circ prime forall exists choose over pm "
    "mp degree uplus bigcup bigcap".split()
)
_FUNCTION_LETTERS = frozenset(("f", "g", "h", "F", "G", "H", "phi", "psi"))
MAX_CONDITION = 24
"""Limit on the tokens of an event and its condition."""
_AFTER_INTERVAL = frozenset((")", "}", "\\}", "cup", "cap", "setminus", "\\\\", "&"))
_LOOSE_FUNCTIONS = frozenset(("max", "min", "gcd", "lcm"))


class Parser:
    """A parser that passes once over the tokens, with one token of lookahead (a few more for prose)."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = list(tokens)
        self.position = 0
        self.depth = 0
        self.bars = 0
        self.outward = False
        """True within `]a, b[`, where an opening bracket closes."""

    # ---- lookahead -------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> Token:
        """Return the token `ahead` places on, or END after the last."""
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else END

    def take(self) -> Token:
        """Consume and return the next token."""
        token = self.peek()
        self.position += 1
        return token

    def at(self, text: str, kind: str | None = None) -> bool:
        """Return True if the next token has this text (and kind), and is not a word or variable."""
        token = self.tokens[self.position] if self.position < len(self.tokens) else END
        return token.text == text and token.kind not in ("word", "sym") and (kind is None or token.kind == kind)

    def accept(self, text: str) -> bool:
        """Consume the next token if it has this text; return True if it had."""
        if self.at(text):
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        """Consume the next token, which must have this text.

        Raises:
            ParseError: it has another text.
        """
        if not self.accept(text):
            raise ParseError(f"expected {text!r}, got {self.peek().text!r}")

    @property
    def done(self) -> bool:
        """True if every token has been consumed."""
        return self.position >= len(self.tokens)

    def _deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise LimitExceeded(f"the answer is nested over {MAX_DEPTH} deep")

    # ---- relations, ratios and sets --------------------------------------------------------------

    def relation(self) -> Node:
        """Parse `a = b`, `a < b <= c`, or a bare set or expression."""
        sides = [self.ratio()]
        ops: list[str] = []
        while self.peek().kind == "rel" and not (self.at("mid") and self.bars):
            ops.append(self.take().text)
            if self.peek() == END and ops:
                raise ParseError("a relation without a right side")
            sides.append(self.ratio())
        return Relation(tuple(sides), tuple(ops)) if ops else sides[0]

    def ratio(self) -> Node:
        """Parse `a : b : c`."""
        first = self.set_expression()
        if not self.at(":"):
            return first
        parts = [first]
        while self.accept(":"):
            parts.append(self.set_expression())
        return Ratio(tuple(parts))

    def set_expression(self) -> Node:
        """Parse unions, intersections and differences, left to right with equal precedence."""
        left = self.sum()
        while True:
            if self.accept("cup") or self.accept("bigcup"):
                op = "cup"
            elif self.accept("cap") or self.accept("bigcap"):
                op = "cap"
            elif self.accept("setminus") or self.accept("backslash"):
                op = "minus"
            else:
                return left
            right = self.sum()
            if isinstance(left, SetOp) and left.op == op and op != "minus":
                left = SetOp(op, (*left.parts, right))
            else:
                left = SetOp(op, (left, right))

    # ---- sums and products -----------------------------------------------------------------------

    def sum(self) -> Node:
        """Parse terms joined by + - ± ∓."""
        self._deeper()
        terms = [self._signed_term()]
        while True:
            if self.accept("+"):
                terms.append(self._signed_term())
            elif self.accept("-"):
                terms.append(negated(self._signed_term()))
            elif self.at("pm") or self.at("mp"):
                sign = 1 if self.take().text == "pm" else -1
                terms.append(PlusMinus(self._signed_term(), sign))
            else:
                break
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Add(tuple(terms))

    def _signed_term(self) -> Node:
        negative, plus_minus = False, 0
        while True:
            if self.accept("-"):
                negative = not negative
            elif self.accept("+"):
                if self.accept("/") and self.accept("-"):
                    plus_minus = 1
            elif self.at("pm") or self.at("mp"):
                plus_minus = 1 if self.take().text == "pm" else -1
            else:
                break
        term = self.product()
        if plus_minus:
            term = PlusMinus(term, plus_minus)
        return negated(term) if negative else term

    def product(self) -> Node:
        """Parse factors joined by * × · / ÷, or by nothing: `a/bc` is a/(bc), `1/2x` is (1/2)x."""
        left = self._implicit(self.power())
        while True:
            if self.accept("*") or self.accept("times"):
                left = times(left, self._implicit(self._signed_factor()))
            elif self.at("/") and self.peek(1).kind not in ("word",):
                self.take()
                left = self._quotient(left)
            elif self.accept("pmod"):
                modulus = self._argument()
                left = Call("residue", (Call("mod", (left, modulus)), modulus))
            elif self.accept("bmod") or self.accept("mod"):
                left = Call("mod", (left, self._implicit(self._signed_factor())))
            else:
                return left

    def _signed_factor(self) -> Node:
        negative = False
        while self.at("-") or self.at("+"):
            negative ^= self.take().text == "-"
        factor = self.power()
        return Neg(factor) if negative else factor

    def _quotient(self, left: Node) -> Node:
        bottom = self._signed_factor()
        if isinstance(bottom, Num) and is_numeric(left):
            return self._implicit(Div(left, bottom))
        return Div(left, self._implicit(bottom))

    def _implicit(self, first: Node) -> Node:
        factors = [first]
        while self._starts_factor():
            token = self.peek()
            if token.kind in ("num", "repeat") and isinstance(factors[-1], Num):
                fraction = self._mixed(factors[-1])
                if fraction is None:
                    raise ParseError("two numbers side by side")
                factors[-1] = fraction
                continue
            if self.at("(") and (applied := self._application(factors)) is not None:
                factors[-1] = applied
                continue
            mixed = self.at("frac") and isinstance(factors[-1], Num) and len(factors) == 1
            factor = self.power()
            sign = factor.name if isinstance(factor, Call) and factor.name in ("percent", "degree") else ""
            inner = factor.args[0] if sign and isinstance(factor, Call) else factor
            if mixed and is_mixed(factors[-1], inner):
                whole = Add((factors[-1], inner))
                factors[-1] = Call(sign, (whole,)) if sign else whole
            else:
                factors.append(factor)
        return product_of(factors)

    def _application(self, factors: list[Node]) -> Node | None:
        """Parse `f(x)`, `N(0)`, `f^{-1}(2)`: the last factor applied to the next bracket; None if it is not a function.

        A name before a number in brackets is a function. So are f, g, h, F, G, H, phi and psi before any bracket, if
        they always have a bracket and follow no other name: `mg(h+r)` is a product.
        """
        last = factors[-1]
        inverse = isinstance(last, Pow) and last.exponent == Neg(Num(1))
        name = last.base if isinstance(last, Pow) and inverse else last
        if not isinstance(name, Sym) or not (name.name[:1].isalpha()):
            return None
        if name.name in ("P", "Pr") and (chance := self._conditional(name)) is not None:
            return chance
        numeric = not inverse and self._brackets_a_number()
        follows_name = len(factors) > 1 and isinstance(factors[-2], Sym)
        if not numeric and (follows_name or name.name.rstrip("'") not in self._functions):
            return None
        start = self.position
        self.take()
        items = self._items(")")
        self.expect(")")
        if not items or (len(items) > 1 and not name.name[:1].islower()):
            self.position = start
            return None
        return Call("apply", (Sym(name.name + "^{-1}") if inverse else name, *items))

    def _brackets_a_number(self) -> bool:
        """Return True if the bracket that opens here has only a number, with or without a sign."""
        place = 2 if self.peek(1).text in ("-", "+") else 1
        if self.peek(place).kind == "num" and self.peek(place + 1).text == "/":
            place += 2
        return (self.peek(place).kind in ("num", "repeat") or self.peek(place).text == "pi") and self.peek(
            place + 1
        ).text == ")"

    @cached_property
    def _functions(self) -> frozenset[str]:
        """Letters of functions that are followed by a bracket wherever they appear."""
        found: set[str] = set()
        bare: set[str] = set()
        for place, token in enumerate(self.tokens):
            if token.kind == "sym" and token.text in _FUNCTION_LETTERS:
                after = place + 1
                while after < len(self.tokens) and self.tokens[after].text in ("'", "prime", "^", "{", "}", "-", "1"):
                    after += 1
                opens = after < len(self.tokens) and self.tokens[after].text == "("
                (found if opens else bare).add(token.text)
        return frozenset(found - bare)

    def _conditional(self, name: Sym) -> Node | None:
        """Parse `P(A|B)`, whose bar is not an absolute value, and `P(X > 2)`; None for anything else."""
        end = next((i for i in range(1, MAX_CONDITION) if self.peek(i).text in (")", "")), 0)
        bars = [i for i in range(1, end) if self.peek(i).text in ("|", "mid")]
        compares = any(self.peek(i).kind == "rel" and i not in bars for i in range(1, end))
        if len(bars) > 1 or not (bars or compares) or self.peek(end).text != ")":
            return None
        start = self.position
        self.take()
        self.bars += 1
        try:
            parts = [self.relation()]
            if bars:
                self.take()
                parts.append(self.relation())
        finally:
            self.bars -= 1
        if not self.accept(")"):
            self.position = start
            return None
        return Call("apply", (name, *parts))

    def _mixed(self, whole: Num) -> Node | None:
        """Parse the fraction of `1 4/5` (an integer, a space, a fraction); None for anything else."""
        top, slash, bottom = self.peek(), self.peek(1), self.peek(2)
        if not (top.spaced and slash.text == "/" and bottom.kind == "num" and whole.ulp is None):
            return None
        if not (top.text.isdigit() and bottom.text.isdigit() and int(bottom.text)):
            return None
        self.position += 3
        mixed = Add((whole, Div(Num(int(top.text)), Num(int(bottom.text)))))
        return Call("percent", (mixed,)) if self.accept("%") else mixed

    def _starts_factor(self) -> bool:
        token = self.peek()
        if token.kind in ("num", "repeat", "sym", "const", "fn"):
            return True
        if token.kind == "cmd":
            name = token.text
            if name == "frac" and self.peek(2).kind == "word" and self.peek(2).text in SYMBOLS:
                return False
            return name not in _START_COMMANDS_EXCLUDED and not name.startswith(("end:", "set:"))
        if token.kind == "op" and token.text in _START_OPS:
            if token.text == "[":
                return not (token.spaced or self.outward or self._closes(self.peek(1)))
            return not (token.text == "|" and self.bars)
        return False

    @staticmethod
    def _closes(following: Token) -> bool:
        """Return True if a `[` before this token ends a half-open interval."""
        return following == END or following.kind in ("sep", "rel") or following.text in _AFTER_INTERVAL

    # ---- powers and postfix ----------------------------------------------------------------------

    def power(self) -> Node:
        """Parse a primary with all marks after it: ! ' % ° _ ^."""
        base = self.primary()
        while True:
            if self.at("^"):
                self.take()
                base = self._raised(base)
            elif self.at("_"):
                self.take()
                if isinstance(base, Pow) and isinstance(base.base, Sym):  # v^2_0
                    base = Pow(self._subscripted(base.base), base.exponent)
                else:
                    base = self._subscripted(base)
            elif self.at("!"):
                self.take()
                double = self.at("!")
                if double:
                    self.take()
                base = Call("factorial2" if double else "factorial", (base,))
            elif self.at("%") or (self.at("percent")):
                self.take()
                base = Call("percent", (base,))
            elif self.at("degree"):
                self.take()
                base = Call("degree", (base,))
            elif self.at("'") or self.at("prime"):
                self.take()
                base = Sym(base.name + "'") if isinstance(base, Sym) else Call("prime", (base,))
            else:
                return base

    def _raised(self, base: Node) -> Node:
        if self.at("circ") or (self.at("{") and self.peek(1).text == "circ" and self.peek(2).text == "}"):
            self.position += 1 if self.at("circ") else 3
            return Call("degree", (self._with_minutes(base),))
        if self.at("'") or self.at("prime") or (self.at("{") and self.peek(1).text == "prime"):
            self.position += 1 if not self.at("{") else 3
            return Sym(base.name + "'") if isinstance(base, Sym) else Call("prime", (base,))
        self._deeper()
        exponent = self._exponent()
        self.depth -= 1
        if isinstance(exponent, Group) and len(exponent.items) == 1:  # x^{\\{3+1\\}}
            exponent = exponent.items[0]
        return Pow(base, exponent)

    def _with_minutes(self, degrees: Node) -> Node:
        """Parse the minutes and seconds of `12° 30' 15''`, and return the sum in degrees."""
        parts = [degrees]
        for size in (60, 3600):
            marks = self.peek(1), self.peek(2)
            raised = marks[0].text == "^" and marks[1].text == "prime"
            if self.peek().kind != "num" or not (raised or marks[0].text in ("'", "prime")):
                break
            parts.append(Div(number(self.take().text), Num(size)))
            while self.at("'") or self.at("prime") or (self.at("^") and self.peek(1).text == "prime"):
                self.take()
        return parts[0] if len(parts) == 1 else Add(tuple(parts))

    def _exponent(self) -> Node:
        negative = False
        while self.at("-") or self.at("+"):
            negative ^= self.take().text == "-"
        if self.at("{"):
            inner = self._argument()
        else:
            inner = self.primary()
            if self.at("^"):  # right associative: 2^3^4
                self.take()
                inner = self._raised(inner)
            elif self.at("!"):
                self.take()
                inner = Call("factorial", (inner,))
        return Neg(inner) if negative else inner

    def _subscripted(self, base: Node) -> Node:
        if isinstance(base, Num | BaseNumber) or (isinstance(base, Mul) and of_digits(base)):
            token = self.peek(1) if self.at("{") else self.peek()
            if isinstance(base, Num) and token.text.lower() in SMALL:
                self.position += 3 if self.at("{") else 1
                return BaseNumber(str(base.value), SMALL[token.text.lower()])
            if isinstance(base, Num) and base.ulp is None and token.kind == "num" and token.text.isdigit():
                self.position += 3 if self.at("{") else 1
                return BaseNumber(str(base.value), int(token.text))
            raise ParseError("a subscript on a number must be its base")
        text = self._flat()
        if not text:
            raise ParseError("an empty subscript")
        if isinstance(base, Sym | Const):
            return Sym(f"{base.name}_{text}")
        if isinstance(base, Call) and base.name == "prime" and isinstance(base.args[0], Sym):
            return Sym(f"{base.args[0].name}_{text}'")
        return Call("subscript", (base, Sym(text)))

    def _flat(self) -> str:
        """Consume the next token or braced group and return its text, by which subscripts are compared."""
        if not self.at("{"):
            return self.take().text
        depth, parts = 0, list[str]()
        while True:
            token = self.take()
            if token is END:
                raise ParseError("an open subscript")
            depth += (token.text == "{") - (token.text == "}")
            if depth == 0:
                return "".join(part for part in parts if part not in "{}")
            parts.append(token.text)

    def _argument(self, *, single: bool = False) -> Node:
        """Parse a braced group, or one token (one digit if `single`, as in `\\frac12`)."""
        self._deeper()
        try:
            if self.accept("{"):
                if self.at("}"):
                    raise ParseError("an empty group")
                inner = self._items("}")
                self.expect("}")
                if len(inner) == 1:
                    return inner[0]
                return Group(GroupKind.SET, tuple(inner))
            token = self.peek()
            if single and token.kind == "num" and token.text.isdigit() and len(token.text) > 1:
                self.tokens[self.position] = Token("num", token.text[1:])
                return Num(int(token.text[0]))
            return self.primary()
        finally:
            self.depth -= 1

    # ---- primaries -------------------------------------------------------------------------------

    def primary(self) -> Node:
        """Parse a number, name, function, bracket or command."""
        token = self.take()
        if token.kind == "num":
            return number(token.text)
        if token.kind == "sym":
            return Sym(token.text)
        if token.kind == "const":
            return Sym("j") if token.text == "j" else Const(token.text)
        if token.kind == "repeat":
            return repeating(token.text)
        if token.kind == "based":
            digits, _, base = token.text.partition("_")
            return BaseNumber(digits, int(base.strip("{ }")))
        if token.kind == "fn":
            return self._function(token.text)
        if token.kind in ("op", "cmd"):
            self._deeper()
            node = self._bracket(token) if token.text in ("(", "[", "]", "{", "\\{", "|") else self._command(token.text)
            self.depth -= 1
            return node
        raise ParseError(f"unexpected {token.text!r}")

    def _bracket(self, token: Token) -> Node:
        if token.text == "|":
            return self._absolute("|")
        if token.text == "{":
            self.position -= 1
            return self._argument()
        if token.text == "\\{":
            return self._set()
        bars, self.bars = self.bars, 0
        outward, self.outward = self.outward, token.text == "]"
        items = self._items(")", "]", "[")
        self.bars, self.outward = bars, outward
        closer = self.take().text
        if closer not in (")", "]", "["):
            raise ParseError("an open bracket")
        return bracketed(token.text, closer, items)

    def _items(self, *closers: str) -> list[Node]:
        """Parse comma-separated relations up to a closer, which is not consumed."""
        if any(self.at(closer) for closer in closers if closer != "["):
            return []
        items: list[Node] = []
        while True:
            items.append(self.item())
            if self.peek().kind != "sep" or self.peek().text == "or":
                break
            self.take()
            if self.peek().kind == "sep":  # ", and"
                self.take()
            if any(self.at(closer) for closer in closers if closer != "["):
                break
        if not any(self.at(closer) for closer in closers):
            raise ParseError(f"expected {closers[0]!r}, got {self.peek().text!r}")
        return items

    def item(self) -> Node:
        """Parse one item of a list: a relation, an ellipsis, or words."""
        if self.at("dots"):
            self.take()
            return Dots()
        if self.peek().kind == "word":
            words: list[str] = []
            while self.peek().kind == "word":
                words.append(self.take().text)
            if len(words) == 1 and len(words[0]) == 1:
                return Sym(words[0])
            return Text(tuple(words))
        left = self.relation()
        if self.depth and self.peek().kind == "word" and is_unit_word(self.peek().text):
            return self._measured(left)
        if self.accept("over"):
            return Div(left, self.relation())
        if self.accept("choose"):
            return Call("binom", (left, self.relation()))
        return left

    def _measured(self, value: Node) -> Node:
        """Parse the unit after a value within brackets: `(3 cm, 4 cm)`, `\\frac{13.6 eV}{n^2}`."""
        words: list[str] = []
        while self.peek().kind == "word" or (words and (self.at("/") or self.at("^") or self.at("*"))):
            words.append(self.take().text)
            if words[-1] == "^":
                words.append(self._flat())
        unit = parse_unit(words)
        if isinstance(value, Relation):
            return Relation((*value.sides[:-1], Quantity(value.sides[-1], unit)), value.ops)
        return Quantity(value, unit)

    def _set(self) -> Node:
        if self.accept("\\}"):
            return NamedSet("empty")
        bars, self.bars = self.bars, self.bars + 1
        head = self.item()
        if self.accept("|") or self.accept(":") or self.accept("mid"):
            condition = self._conditions()
            self.bars = bars
            return Builder(head, condition)
        items = [head]
        while self.peek().kind == "sep":
            self.take()
            if self.peek().kind == "sep":
                self.take()
            if self.at("\\}"):
                break
            items.append(self.item())
        self.bars = bars
        self.expect("\\}")
        if len(items) == 1 and isinstance(head, Ratio) and len(head.parts) == 2:
            return Builder(head.parts[0], head.parts[1])
        if len(items) == 1 and isinstance(head, Relation):
            for place, side in enumerate(head.sides):
                if isinstance(side, Ratio) and len(side.parts) == 2:  # {x in R : x > 0}
                    return Builder(
                        chained((*head.sides[:place], side.parts[0]), head.ops[:place]),
                        chained((side.parts[1], *head.sides[place + 1 :]), head.ops[place:]),
                    )
        if len(items) == 1 and isinstance(head, NamedSet):
            return head
        return Group(GroupKind.SET, tuple(items))

    def _conditions(self) -> Node:
        conditions = [self.relation()]
        kind = "cap"
        while self.peek().kind == "sep":
            kind = "cup" if self.take().text == "or" else kind
            if self.peek().kind == "sep":
                kind = "cup" if self.take().text == "or" else kind
            conditions.append(self.relation())
        self.expect("\\}")
        return conditions[0] if len(conditions) == 1 else SetOp(kind, tuple(conditions))

    def _absolute(self, closer: str) -> Node:
        self.bars += 1
        inner = self.sum()
        self.bars -= 1
        self.expect(closer)
        if closer != "rVert" and isinstance(inner, Matrix):
            return determinant("abs", (inner,))
        return Call("abs", (inner,))

    # ---- functions and commands ------------------------------------------------------------------

    def _function(self, name: str) -> Node:
        exponent: Node | None = None
        base: Node | None = None
        while True:
            if self.at("^") and exponent is None:
                self.take()
                exponent = self._exponent()
            elif self.at("_") and base is None:
                self.take()
                base = self._argument()
            else:
                break
        arguments = self._function_arguments(name)
        return function_of(name, arguments, base=base, exponent=exponent)

    def _function_arguments(self, name: str) -> tuple[Node, ...]:
        if self.at("("):
            self.take()
            bars, self.bars = self.bars, 0
            items = self._items(")")
            self.bars = bars
            self.expect(")")
            if not items:
                raise ParseError(f"{name} without an argument")
            return tuple(items)
        if self.at("{"):
            argument = self._argument()
            return (argument,)
        if name in _LOOSE_FUNCTIONS and self.at("\\{"):
            self.take()
            inner = self._set()
            return inner.items if isinstance(inner, Group) else (inner,)
        return (self._loose_argument(),)

    def _loose_argument(self) -> Node:
        """Parse the argument of `\\sin 2x`: factors up to the next function, sign or separator."""
        self._deeper()
        negative = False
        while self.at("-"):
            self.take()
            negative = not negative
        factors = [self.power()]
        while self._starts_factor() and self.peek().kind != "fn" and not self.at("("):
            if self.peek().kind in ("num", "repeat"):
                raise ParseError("two numbers side by side")
            factors.append(self.power())
        argument: Node = factors[0] if len(factors) == 1 else Mul(tuple(factors))
        if self.at("/") and self.peek(1).kind in ("num", "const", "sym"):
            self.take()
            argument = Div(argument, self.power())
        self.depth -= 1
        return Neg(argument) if negative else argument

    def _command(self, name: str) -> Node:
        head, colon, _ = name.partition(":")
        handler = self._commands.get(head + colon)
        if handler is None:
            raise ParseError(f"unknown command {name!r}")
        return handler(self, name)

    def _fraction(self, name: str) -> Node:
        top = self._argument(single=True)
        bottom = self._argument(single=True)
        if name != "frac":
            return Call("binom", (top, bottom))
        if isinstance(top, Quantity) and isinstance(bottom, Quantity):
            return Quantity(Div(top.value, bottom.value), divided(top.unit, bottom.unit))
        return Quantity(Div(top.value, bottom), top.unit) if isinstance(top, Quantity) else Div(top, bottom)

    def _constant_set(self, name: str) -> Node:
        return NamedSet(SET_NAMES[name])

    def _bars(self, name: str) -> Node:
        return self._absolute("r" + name[1:])

    def _rounded(self, name: str) -> Node:
        inner = self.sum()
        self.expect("r" + name[1:])
        return Call(name[1:], (inner,))

    def _angle_brackets(self, name: str) -> Node:
        items = self._items("rangle", ">")
        self.take()
        return Group(GroupKind.TUPLE, tuple(items))

    def _prefix(self, name: str) -> Node:
        return Call(name, (either_way(self.power(), 3 if name in ANGLES else 0),))

    def _decoration(self, name: str) -> Node:
        return Call(name, (either_way(self._argument(), 0),))

    def _overline(self, name: str) -> Node:
        argument = self._argument()
        segment = isinstance(argument, Sym) and len(argument.name) == 2 and argument.name.isupper()
        return either_way(argument, 2) if segment else Call("bar", (argument,))

    def _dots(self, name: str) -> Node:
        return Dots()

    def _quantified(self, name: str) -> Node:
        return Call(name, (self.relation(), *((self.relation(),) if self._comma() else ())))

    def _symbol(self, name: str) -> Node:
        return Sym(name)

    def _currency(self, name: str) -> Node:
        raise ParseError("a currency sign inside an expression")

    def _comma(self) -> bool:
        if self.peek().kind == "sep" and self.peek().text in (",", ";"):
            self.take()
            return True
        return False

    def _root(self, name: str) -> Node:
        index: Node = Num(2)
        if self.at("["):
            self.take()
            index = self.sum()
            self.expect("]")
        return Call("root", (self._argument(), index))

    def _named_set(self, name: str) -> Node:
        letter, suffix = name.removeprefix("set:"), ""
        while self.at("^") or self.at("_"):
            self.take()
            suffix += "^" + self._flat()
        return NamedSet(letter.strip("{} ") + suffix)

    def _environment(self, begin: str) -> Node:
        name = begin.removeprefix("begin:")
        if name in ("array", "tabular"):
            self._skip_columns()
        cases = name in CASES
        if not (cases or name in MATRICES):
            raise ParseError(f"unknown environment {name!r}")
        rows: list[tuple[Node, ...]] = [()]
        while not self.at(f"end:{name}"):
            if self.accept("\\\\"):
                if rows[-1]:
                    rows.append(())
                continue
            if self.accept("&"):
                continue
            if self.peek() is END:
                raise ParseError("an open environment")
            if cases and self.peek().kind == "sep":
                self.take()
                continue
            rows[-1] = (*rows[-1], self._cell(cases=cases))
        self.take()
        kept = tuple(row for row in rows if row)
        if not kept:
            raise ParseError("an empty environment")
        if cases:
            return Cases(kept)
        if len({len(row) for row in kept}) != 1:
            raise ParseError("rows must have equal lengths")
        return Matrix(kept, bar=name in ("vmatrix", "Vmatrix"))

    def _cell(self, *, cases: bool) -> Node:
        if cases:
            words: list[str] = []
            while self.peek().kind == "word":
                words.append(self.take().text)
            if words and (self.at("&") or self.at("\\\\") or self.peek().text.startswith("end:")):
                return Text(tuple(phrase(words).split()))
            if not _DENYING.isdisjoint(word.lower() for word in words):
                raise ParseError("a negated condition")
        elif self.at("dots"):
            self.take()
            return Dots()
        return self.relation()

    def _skip_columns(self) -> None:
        if not self.accept("{"):
            return
        while not self.accept("}"):
            if self.take() is END:
                raise ParseError("an open column list")

    def _big(self, command: str) -> Node:
        name = BIG[command]
        low: Node = Text(())
        high: Node = Text(())
        while self.at("_") or self.at("^"):
            if self.take().text == "_":
                side = take_side(self.tokens, self.position) if name == "lim" and self.at("{") else ""
                if name in ("sum", "prod") and self.at("{") and self.peek(2).text == "=":
                    self._index_is_a_variable(self.peek(1))
                low = from_side(self._argument(), side)
            else:
                high = self._argument()
        body = self.product()
        if name in ("sum", "prod") and isinstance(low, Relation) and isinstance(low.sides[0], Sym):
            index = {low.sides[0].name: f"index {self.depth}"}  # its letter does not matter
            low, body = rewrites.renamed(low, index), rewrites.renamed(body, index)
        return Call(name, (low, high, body))

    def _index_is_a_variable(self, index: Token) -> None:
        """Make the i of `\\sum_{i=1}`, and every i after it, a variable and not the imaginary unit."""
        if index.kind == "const":
            self.tokens[self.position :] = [
                Token("sym", token.text, token.spaced) if token.kind == "const" and token.text == index.text else token
                for token in self.tokens[self.position :]
            ]

    _commands = {
        **dict.fromkeys(("frac", "binom", "dbinom", "tbinom"), _fraction),
        "sqrt": _root,
        **dict.fromkeys(SET_NAMES, _constant_set),
        "set:": _named_set,
        "begin:": _environment,
        **dict.fromkeys(("lvert", "lVert"), _bars),
        **dict.fromkeys(("lfloor", "lceil"), _rounded),
        "langle": _angle_brackets,
        **dict.fromkeys(PREFIX_NAMES, _prefix),
        **dict.fromkeys(("overline", "bar"), _overline),
        **dict.fromkeys(DECORATIONS, _decoration),
        **dict.fromkeys(BIG, _big),
        "dots": _dots,
        **dict.fromkeys(("forall", "exists"), _quantified),
        **dict.fromkeys("partial nabla star dagger aleph infty top bot Box checkmark".split(), _symbol),
        **dict.fromkeys("$€£", _currency),
    }
    """Command, up to its colon if it has one -> its parser."""


_DENYING = frozenset("unless not except never nicht kein außer sauf кроме не".split())
"""Words after which the condition is the opposite of what follows."""
