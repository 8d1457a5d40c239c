"""Alternative readings of a tree: a named value, an interval, a list of both signs, a quantity."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

from verifiers.mathematics import integrals, rewrites
from verifiers.mathematics.equality.constants import infinite
from verifiers.mathematics.equality.realsets import FLIPPED, LINES
from verifiers.mathematics.limits import MAX_ITEMS, LimitExceeded
from verifiers.mathematics.nodes import (
    Add,
    Builder,
    Call,
    Cases,
    Clock,
    Const,
    Div,
    Dots,
    Group,
    GroupKind,
    Interval,
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
    children,
    contains,
    symbols,
)
from verifiers.mathematics.units import SYMBOLS, parse_unit

DECORATIONS = ("prime", "subscript", "bar", "angle", "triangle", "arc", "measuredangle")
"""Calls that turn one name into another."""


def plain(node: Node) -> Node:
    """Return the tree without what only introduces a value.

    That is: `x in` before a set, a congruence as an equation, a 1 x 1 matrix, a system as a list, the name of a point.
    """
    if isinstance(node, Relation) and node.ops == ("in",) and is_name(node.sides[0]):
        return node.sides[1]
    if isinstance(node, Relation) and "equiv" in node.ops and not any(map(_is_residue, node.sides)):
        return Relation(node.sides, tuple("=" if op == "equiv" else op for op in node.ops))  # f(x) = 0 for all x
    if isinstance(node, Matrix) and not node.bar and len(node.rows) == 1 and len(node.rows[0]) == 1:
        return node.rows[0][0]
    if isinstance(node, Cases) and all(len(row) == 1 and isinstance(row[0], Relation) for row in node.rows):
        return Group(GroupKind.LIST, tuple(row[0] for row in node.rows))  # a system
    if isinstance(node, Mul) and len(node.factors) == 2:  # a named point: A(3, 4)
        name, point = node.factors
        if isinstance(name, Sym) and name.name.isupper() and isinstance(point, Group) and _coordinates(point):
            return point
    return node


def stated(node: Node) -> Node:
    """Return `{x | x = k pi, k in Z}` as its statement about x; any other node unchanged."""
    if not isinstance(node, Builder):
        return node
    cap = isinstance(node.condition, SetOp) and node.condition.op == "cap"
    parts = children(node.condition) if cap else (node.condition,)
    first = parts[0]
    if not (isinstance(first, Relation) and first.ops == ("=",) and first.sides[0] == node.head):
        return node
    return Group(GroupKind.LIST, parts) if len(parts) > 1 else first


def _is_residue(node: Node) -> bool:
    return isinstance(node, Call) and node.name in ("residue", "mod")


def _coordinates(point: Group) -> bool:
    return point.kind is GroupKind.TUPLE and not symbols(point)


def letter_unit(node: Node, other: Node) -> Node:
    """Return `1000 m`, compared with a quantity, as a quantity: a last factor that is a unit's letter is that unit."""
    if not (isinstance(other, Quantity) and other.unit.dimension and isinstance(node, Mul)):
        return node
    *factors, last = node.factors
    base, power = (last.base, last.exponent) if isinstance(last, Pow) else (last, Num(1))
    if not (isinstance(base, Sym) and base.name in SYMBOLS and isinstance(power, Num)):
        return node
    value = factors[0] if len(factors) == 1 else Mul(tuple(factors))
    return node if symbols(value) else Quantity(value, parse_unit([base.name, "^", str(power.value)]))


def whole_line(node: Node) -> bool:
    """Return True for (-oo, oo)."""
    ends = node.items if isinstance(node, Group) and node.kind is GroupKind.TUPLE and len(node.items) == 2 else ()
    return tuple(infinite(end) for end in ends) == (-1, 1)


def words(text: Text) -> tuple[str, ...]:
    """Return the words of a text, in lower case, without possessive `'s` and hyphens."""
    return tuple(word.lower().removesuffix("'s") for part in text.words for word in part.split("-"))


def is_name(node: Node) -> bool:
    """Return True for a pure name, such as `x`, `dy/dx`, `f(x)`, `A^{-1}` or `(x, y)` on the left of `=`."""
    if isinstance(node, Sym | Text):
        return True
    if isinstance(node, NamedSet):  # the set of solutions, the domain
        return node.name in ("L", "D")
    if isinstance(node, Div):  # dy/dx
        parts = [part.factors[0] if isinstance(part, Mul) else part for part in (node.top, node.bottom)]
        parts = [part.base if isinstance(part, Pow) else part for part in parts]
        return all(part in (Sym("d"), Sym("partial")) for part in parts)
    if isinstance(node, Group) and node.kind in (GroupKind.TUPLE, GroupKind.SET):
        return all(isinstance(item, Sym) for item in node.items)
    if isinstance(node, Call) and node.name == "apply":  # f(x)
        return all(isinstance(child, Sym) for child in node.args)
    if isinstance(node, Call) and node.name in DECORATIONS:
        return all(is_name(child) for child in children(node))
    if isinstance(node, Mul) and len(node.factors) == 2 and isinstance(node.factors[0], Sym | Pow):
        if not is_name(node.factors[0]):
            return False
        inner = node.factors[1]
        return isinstance(inner, Sym) or (isinstance(inner, Group) and inner.kind is GroupKind.TUPLE)
    if isinstance(node, Mul) and isinstance(node.factors[0], Div):  # d/dx of something
        return is_name(node.factors[0])
    if isinstance(node, Pow):  # A^{-1}, f^{-1}
        return isinstance(node.base, Sym) and node.exponent == Neg(Num(1))
    return isinstance(node, Mul) and len(node.factors) <= 3 and all(isinstance(f, Sym) for f in node.factors)


def as_products(gold: Node, answer: Node) -> tuple[Node, Node] | None:
    """Return both sides with `h(a + b)` as a product, if the other side uses h without applying it; else None.

    An f is always a function, and so is a name before a number in brackets.
    """
    if not (contains(gold, Call) or contains(answer, Call)):
        return None
    applied, bare = (_applied(gold), _applied(answer)), (_bare_names(gold), _bare_names(answer))
    names = (applied[0] & bare[1]) | (applied[1] & bare[0])
    return (_multiplied(gold, names), _multiplied(answer, names)) if names else None


def _ambiguous_name(node: Node) -> str:
    """Return the letter before a bracket that may be a factor; "" for a function and for anything else."""
    if not (isinstance(node, Call) and node.name == "apply" and len(node.args) == 2 and symbols(node.args[1])):
        return ""
    head = node.args[0]
    return head.name if isinstance(head, Sym) and len(head.name) == 1 and head.name not in "fP" else ""


def _applied(node: Node) -> frozenset[str]:
    name = _ambiguous_name(node)
    return frozenset((name,) if name else ()).union(*map(_applied, children(node)))


def _bare_names(node: Node) -> frozenset[str]:
    if isinstance(node, Sym):
        return frozenset((node.name,))
    parts = node.args[1:] if isinstance(node, Call) and node.name == "apply" else children(node)
    return frozenset[str]().union(*map(_bare_names, parts))


def _multiplied(node: Node, names: frozenset[str]) -> Node:
    if isinstance(node, Call) and _ambiguous_name(node) in names:
        return Mul((node.args[0], _multiplied(node.args[1], names)))
    return rewrites.rebuilt(node, lambda part: _multiplied(part, names))


_FUNCTIONS = frozenset((*"fghFGHpqPQ", "phi", "psi"))
_BOUND = frozenset("abkmnpqstuvwxyz")


def bound_like(answer: Relation, gold: Relation) -> Relation | None:
    """Return the definition `f(t) = 2t + 1` with the variables of `f(x) = 2x + 1`; None if that is impossible.

    Only variables of a function f, g, h, p, q, φ or ψ are renamed: A(r) and A(d) may differ.
    """
    (head, names), (other_head, others) = _applied_to(gold.sides[0]), _applied_to(answer.sides[0])
    if names == others or len(names) != len(others):
        return answer
    inner = symbols(answer.sides[1])
    if not inner & {*names, *others}:
        return answer
    known = isinstance(head, Sym) and head.name.removesuffix("^{-1}").rstrip("'") in _FUNCTIONS and head == other_head
    if not known or not {*names, *others} <= _BOUND or len(set(others)) < len(others):
        return None
    if inner & (set(names) - set(others)):
        return None  # f(t) = 2x + 1 is a constant
    return Relation(
        (gold.sides[0], rewrites.renamed(answer.sides[1], dict(zip(others, names, strict=True)))), answer.ops
    )


def _applied_to(name: Node) -> tuple[Node, list[str]]:
    """Return the f and the [x, y] of `f(x, y)`; the node and [] for anything else."""
    if isinstance(name, Call) and name.name == "apply":
        head, *arguments = name.args
    elif isinstance(name, Mul) and len(name.factors) == 2:  # P(x)
        head, inner = name.factors
        arguments = [*inner.items] if isinstance(inner, Group) else [inner]
    else:
        return name, []
    letters = [argument.name for argument in arguments if isinstance(argument, Sym)]
    return (head, letters) if len(letters) == len(arguments) else (name, [])


def all_bound_like(answer: Group, gold: Group) -> Group:
    """Rename the variables of several function definitions to those of the reference, by function name."""
    heads = {_applied_to(item.sides[0])[0]: item for item in gold.items if isinstance(item, Relation)}
    items: list[Node] = []
    for item in answer.items:
        like = heads.get(_applied_to(item.sides[0])[0]) if isinstance(item, Relation) else None
        renamed = bound_like(item, like) if like is not None and isinstance(item, Relation) else item
        items.append(item if renamed is None else renamed)
    return Group(answer.kind, tuple(items))


def natural_logarithms(gold: Node, answer: Node) -> tuple[Node, Node]:
    """Return both sides with a bare log as ln, if the reference belongs to analysis, where log is never decimal.

    That is an integral, or an exact expression that has, outside the logarithm, pi, e, a trigonometric function or a
    constant C as a term: `\\frac{\\pi\\log 2}{8}`. Elsewhere `log 7` may be decimal, and a bare log does not equal ln.
    """
    if not (_bare_logarithm(gold) or _bare_logarithm(answer)) or contains(gold, Quantity):
        return gold, answer
    if not _has_integral(gold) and not (_has_logarithm(gold) and _of_analysis(gold)):
        return gold, answer
    return _as_natural(gold), _as_natural(answer)


def _bare_logarithm(node: Node) -> bool:
    bare = isinstance(node, Call) and node.name == "log" and len(node.args) == 1
    return bare or any(map(_bare_logarithm, children(node)))


def _has_logarithm(node: Node) -> bool:
    return (isinstance(node, Call) and node.name in ("log", "ln")) or any(map(_has_logarithm, children(node)))


def _has_integral(node: Node) -> bool:
    return (isinstance(node, Call) and node.name == "int") or any(map(_has_integral, children(node)))


_CIRCULAR = frozenset("sin cos tan cot arcsin arccos arctan sinh cosh tanh arcsinh arccosh arctanh".split())


def _of_analysis(node: Node) -> bool:
    match node:
        case Call(name="log" | "ln"):
            return False
        case Const():
            return node.name in ("pi", "e")
        case Call() if node.name in _CIRCULAR:
            return True
        case Add() if Sym("C") in node.terms:
            return True
        case _:
            return any(map(_of_analysis, children(node)))


def _as_natural(node: Node) -> Node:
    if isinstance(node, Call) and node.name == "log" and len(node.args) == 1:
        return Call("ln", (_as_natural(node.args[0]),))
    return rewrites.rebuilt(node, _as_natural)


def is_definition(relation: Relation) -> bool:
    """Return True for `name = value`."""
    left, right = relation.sides
    return relation.ops == ("=",) and is_name(left) and not (symbols(left) & symbols(right) and isinstance(left, Sym))


def oriented(relation: Relation) -> Relation:
    """Return a relation with > or >= as one with < or <=, by swapping its sides; others unchanged."""
    if relation.ops[0] in (">", ">="):
        return Relation(relation.sides[::-1], (FLIPPED[relation.ops[0]],))
    return relation


def interval_of(relation: Relation) -> Node | None:
    """Return `a < x <= b`, `x > a` or `0 < f(x) < 1` as an interval; None unless a single name is bounded."""
    ops, sides = relation.ops, relation.sides
    if ops == ("!=",) and isinstance(sides[0], Sym) and not symbols(sides[1]):
        infinity = Const("oo")
        return SetOp(
            "cup", (_interval(Neg(infinity), sides[1], False, False), _interval(sides[1], infinity, False, False))
        )
    if len(ops) == 1 and ops[0] in FLIPPED:
        relation = oriented(relation)
        low, high = relation.sides
        closed = relation.ops[0] == "<="
        if isinstance(low, Call) and low.name == "abs" and isinstance(low.args[0], Sym) and not symbols(high):
            return _interval(Neg(high), high, closed, closed)
        if _is_unknown(low) and not symbols(high):
            return _interval(Neg(Const("oo")), high, False, closed)
        if _is_unknown(high) and not symbols(low):
            return _interval(low, Const("oo"), closed, False)
        return None
    if len(ops) == 2 and _is_unknown(sides[1]) and not (symbols(sides[0]) | symbols(sides[2])):
        if ops[0] in ("<", "<=") and ops[1] in ("<", "<="):
            return _interval(sides[0], sides[2], ops[0] == "<=", ops[1] == "<=")
        if ops[0] in (">", ">=") and ops[1] in (">", ">="):
            return _interval(sides[2], sides[0], ops[1] == ">=", ops[0] == ">=")
    return None


def _is_unknown(node: Node) -> bool:
    """Return True for x or f(x)."""
    return isinstance(node, Sym) or (isinstance(node, Call) and node.name == "apply" and is_name(node))


def _interval(low: Node, high: Node, low_closed: bool, high_closed: bool) -> Node:
    if not (low_closed or high_closed):
        return Group(GroupKind.TUPLE, (low, high))
    return Interval(low, high, low_closed, high_closed)


def as_set(node: Node) -> Node:
    """Return an open interval as the pair that it is written as, and a builder over an inequality as an interval.

    Other nodes are unchanged.
    """
    if isinstance(node, Builder) and isinstance(node.condition, Relation) and isinstance(node.head, Sym):
        found = interval_of(node.condition)
        return found if found is not None else node
    if isinstance(node, Interval) and not (node.low_closed or node.high_closed):
        return Group(GroupKind.TUPLE, (node.low, node.high))
    if isinstance(node, Interval) and isinstance(node.low, Neg) and node.low.operand == Const("oo"):
        return replace(node, low_closed=False) if node.low_closed else node
    return node


def is_range(node: Node) -> bool:
    """Return True if this may be a set of reals: see `realsets`."""
    match node:
        case Interval() | SetOp() | Builder():
            return True
        case NamedSet():
            return node.name in LINES
        case Relation():
            return any(op in FLIPPED or op in ("!=", "in") for op in node.ops)
        case Group():
            if node.kind is GroupKind.TUPLE:
                return len(node.items) == 2
            if node.kind is GroupKind.SET:
                return True
            return any(is_range(i) for i in node.items if isinstance(i, Relation))
        case _:
            return False


def states_a_value(relation: Relation) -> bool:
    """Return True if the left side is what was asked for: `m + n = 73`, `f(2) = 42`, `sin t = 3/5`, `P(X > 2) = 1/2`.

    `2x = 73`, `x^2 = 4` and `5x - 7y + 4 = 0` are equations instead.
    """
    left, right = relation.sides[0], relation.sides[-1]
    if set(relation.ops) != {"="} or symbols(right):
        return False
    if right == Num(0) and isinstance(left, Add) and not all(map(symbols, left.terms)):
        return False
    if contains(left, (Relation, Call)) or len(symbols(left)) > 1:
        return True
    factors = left.factors if isinstance(left, Mul) else ()
    return len(factors) == 2 and isinstance(factors[0], Sym) and isinstance(factors[1], Num)


def labels_a_value(relation: Relation) -> bool:
    """Return True if the left side names the value on the right: `tan A = 3/4`, `AB/CD = 2`, `V_1 : V = 11 : 21`.

    So does `|E| = kq/r^2`. `sin x = 1/2`, `|x| = 5` and `x : 2 = 3 : 6` are equations to be solved instead.
    """
    left, right = relation.sides[0], relation.sides[-1]
    if set(relation.ops) != {"="} or symbols(left) & symbols(right):
        return False
    if isinstance(left, Ratio):
        return all(map(is_name, left.parts)) and (isinstance(right, Ratio) or not symbols(right))
    if isinstance(left, Div):
        return not symbols(right) and _names_a_part(left.top) and _names_a_part(left.bottom)
    if not isinstance(left, Call) or not symbols(left) or symbols(left) & _UNKNOWNS:
        return False
    return left.name == "abs" or not symbols(right)


_UNKNOWNS = frozenset(("x", "y", "z", "t", "w", "u"))
"""Letters for the unknowns of equations."""


def _names_a_part(node: Node) -> bool:
    """Return True for the name of a segment, an area, a numbered quantity: AB, S_{ABC}, V_1."""
    if isinstance(node, Text):  # NO, which is elsewhere a word
        return len(node.words) == 1 and len(node.words[0]) == 2 and node.words[0].isupper()
    if isinstance(node, Mul):
        return len(node.factors) == 2 and all(isinstance(f, Sym) and f.name.isupper() for f in node.factors)
    return isinstance(node, Sym) and (len(node.name) > 1 and node.name[0].isupper())


_CONSTANT = re.compile(r"[CKABD]|[CcKkAaBb]_\d|C'")
"""Matches names of constants of integration in a reference."""
VARIABLES = frozenset(("x", "y", "z", "t", "u", "v", "s", "theta", "phi"))
"""Letters for variables of functions."""


def constants_renamed(gold: Node, answer: Node) -> list[dict[str, str]]:
    """Return renamings of an answer's constants of integration to the names in the reference, the likeliest first.

    Covers `x^3 + K` for `x^3 + C`, `k e^{2x}` for `C e^{2x}`, and C_1 and C_2 exchanged. A constant may be renamed if
    it is a term by itself, or if all other names are variables.
    """
    names, others = symbols(gold), symbols(answer)
    if names == others:
        numbered = sorted(name for name in names if "_" in name and _CONSTANT.fullmatch(name))
        free = [name for name in names if _CONSTANT.fullmatch(name)] if len(numbered) > 1 else []
        if not 2 <= len(numbered) <= 3 or not names - set(free) <= VARIABLES:
            return []
        orders = itertools.permutations(numbered)
        return [dict(zip(numbered, order, strict=True)) for order in orders if list(order) != numbered]
    free = [name for name in names if _CONSTANT.fullmatch(name)]
    missing, extra = sorted(names - others), sorted(others - names)
    if len(missing) != len(extra) or len(missing) > 3:
        return []
    if all(a.lower() == b.lower() and a[:1] in "cC" for a, b in zip(missing, extra, strict=True)):
        return [dict(zip(extra, missing, strict=True))]
    if not set(missing) <= set(free) or not all(integrals.FREE_CONSTANT.fullmatch(name) for name in extra):
        return []
    variables = names - set(free)
    terms = gold.terms if isinstance(gold, Add) else ()
    if not variables or not (variables <= VARIABLES or all(Sym(name) in terms for name in missing)):
        return []
    return [dict(zip(extra, order, strict=True)) for order in itertools.permutations(missing)]


def clock_as_ratio(clock: Clock) -> Ratio | None:
    """Return a time such as `15:10` as the ratio 3 to 2; None with am or pm, or with seconds."""
    if clock.meridiem or clock.minutes.denominator != 1:
        return None
    hours, minutes = divmod(int(clock.minutes), 60)
    return Ratio((Num(hours), Num(minutes)))


def is_letter(node: Node) -> bool:
    """Return True for a single capital letter, as used for choices."""
    return isinstance(node, Sym) and len(node.name) == 1 and node.name.isupper()


def both_signs(node: Node) -> Node:
    """Expand every ± to + and to -, all together, and return the values as a list."""
    if not contains(node, PlusMinus):
        return node if isinstance(node, Group) else Group(GroupKind.LIST, (node,))
    items = node.items if isinstance(node, Group) else (node,)
    if isinstance(node, Relation) and node.ops == ("=",):
        items = (node.sides[1],)
    expanded: list[Node] = []
    for item in items:
        if contains(item, PlusMinus):
            expanded += [_signed(item, 1), _signed(item, -1)]
        else:
            expanded.append(item)
    if len(expanded) > MAX_ITEMS:
        raise LimitExceeded(f"over {MAX_ITEMS} values")
    return Group(GroupKind.LIST if not isinstance(node, Group) else node.kind, tuple(expanded))


def _signed(node: Node, sign: int) -> Node:
    match node:
        case PlusMinus():
            inner = _signed(node.operand, sign)
            return inner if node.sign * sign > 0 else Neg(inner)
        case Add():
            return Add(tuple(_signed(term, sign) for term in node.terms))
        case Mul():
            return Mul(tuple(_signed(factor, sign) for factor in node.factors))
        case Neg():
            return Neg(_signed(node.operand, sign))
        case Div():
            return Div(_signed(node.top, sign), _signed(node.bottom, sign))
        case Pow():
            return Pow(_signed(node.base, sign), _signed(node.exponent, sign))
        case Call():
            return Call(node.name, tuple(_signed(argument, sign) for argument in node.args))
        case Group():
            return Group(node.kind, tuple(_signed(item, sign) for item in node.items))
        case Relation():
            return Relation(tuple(_signed(side, sign) for side in node.sides), node.ops)
        case Quantity():
            return Quantity(_signed(node.value, sign), node.unit)
        case _:
            return node


def assignments(group: Group) -> dict[str, Node]:
    """Return `x = 1, y = 2` as a mapping; empty unless all items are assignments to different names."""
    found: dict[str, Node] = {}
    for item in group.items:
        if isinstance(item, Mul) and (point := plain(item)) is not item:
            found[repr(item.factors[0])] = point  # A(1, 2)
            continue
        if not (isinstance(item, Relation) and item.ops == ("=",) and is_name(item.sides[0])):
            return {}
        found[repr(item.sides[0])] = item.sides[1]
    return found if len(found) == len(group.items) else {}


def grouped(number: Num) -> Group:
    """Return `1,234` as the list that it may also mean."""
    return Group(GroupKind.LIST, tuple(Num(part) for part in number.groups or ()))


def has_dots(*groups: Group) -> bool:
    """Return True if an item of a group is an ellipsis."""
    return any(isinstance(item, Dots) for group in groups for item in group.items)


def parameter_like(answer: Group, gold: Group) -> Group:
    """Rename the parameter of `n = 2^m, m >= 0` to that of `n = 2^k, k >= 0`; both must be integers."""
    (old, *more), (new, *others) = (sorted(_parameters(side)) or [""] for side in (answer, gold))
    if more or others or "" in (old, new) or old == new or old in symbols(gold) or new in symbols(answer):
        return answer
    renamed = rewrites.renamed(answer, {old: new})
    assert isinstance(renamed, Group)
    return renamed


def _parameters(group: Group) -> frozenset[str]:
    """Return letters of integers that an inequality bounds and that another item has on its right side."""
    found: set[str] = set()
    for item in group.items:
        name = item.sides[0] if isinstance(item, Relation) and item.ops[0] in FLIPPED else None
        if isinstance(name, Sym) and name.name in rewrites.WHOLE_LETTERS:
            found.add(name.name)
    equations = [item.sides for item in group.items if isinstance(item, Relation) and item.ops == ("=",)]
    return frozenset(n for n in found if any(n in symbols(b) and n not in symbols(a) for a, b in equations))


def renamed_like(builder: Builder, like: Builder) -> Builder:
    """Rename the only variable in the head of a set builder to that of the other builder."""
    (old, *more), (new, *others) = sorted(symbols(builder.head)) or [""], sorted(symbols(like.head)) or [""]
    if more or others or "" in (old, new) or old == new or new in symbols(builder.condition):
        return builder
    return Builder(rewrites.renamed(builder.head, {old: new}), rewrites.renamed(builder.condition, {old: new}))


def coordinate_names(names: dict[str, Node]) -> bool:
    """Return True if all names are x, y or z."""
    return set(names) <= {repr(Sym(letter)) for letter in "xyz"}
