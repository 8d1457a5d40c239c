"""Equivalent forms of a tree: evaluated matrices, unit vectors, families over the integers, nCr."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from verifiers.mathematics.nodes import (
    EXPRESSION,
    Add,
    Call,
    Cases,
    Const,
    Div,
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
    children,
    contains,
    symbols,
)

INTEGERS = frozenset(("Z", "N", "Z^+", "N^+", "N_0", "N^*", "Z^*", "Z_+", "Z^{+}"))
PARAMETERS = frozenset(("R", "R^+", "R^*", "R^>=0", "C", "Q"))
"""Sets for a free constant: `f(x) = cx, c in R`."""
WHOLE_LETTERS = frozenset(("n", "k", "m", "l", "i", "j"))
"""Letters of indices and other integers."""
MAX_CELLS = 400
MAX_DETERMINANT = 4
"""Limit on the rows of a determinant that is evaluated."""


def rebuilt(node: Node, change: Callable[[Node], Node]) -> Node:
    """Return the node with `change` applied to each direct part."""
    match node:
        case Add():
            return Add(tuple(change(term) for term in node.terms))
        case Mul():
            return Mul(tuple(change(factor) for factor in node.factors))
        case Neg():
            return Neg(change(node.operand))
        case PlusMinus():
            return PlusMinus(change(node.operand), node.sign)
        case Div():
            return Div(change(node.top), change(node.bottom))
        case Pow():
            return Pow(change(node.base), change(node.exponent))
        case Call():
            return Call(node.name, tuple(change(argument) for argument in node.args))
        case Group():
            return Group(node.kind, tuple(change(item) for item in node.items))
        case Relation():
            return Relation(tuple(change(side) for side in node.sides), node.ops)
        case Quantity():
            return Quantity(change(node.value), node.unit)
        case Interval():
            return replace(node, low=change(node.low), high=change(node.high))
        case SetOp():
            return SetOp(node.op, tuple(change(part) for part in node.parts))
        case Ratio():
            return Ratio(tuple(change(part) for part in node.parts))
        case Matrix():
            return Matrix(tuple(tuple(change(cell) for cell in row) for row in node.rows), node.bar)
        case Cases():
            return Cases(tuple(tuple(change(cell) for cell in row) for row in node.rows))
        case _:
            return node


def substituted(node: Node, values: dict[str, Node]) -> Node:
    """Return the node with variables replaced throughout."""
    if isinstance(node, Sym):
        return values.get(node.name, node)
    return rebuilt(node, lambda part: substituted(part, values))


def renamed(node: Node, names: dict[str, str]) -> Node:
    """Return the node with variables renamed throughout."""
    return substituted(node, {old: Sym(new) for old, new in names.items()})


def has_odd_roots(node: Node) -> bool:
    """Return True if a part is a power with a variable base and an exponent p/q with odd q."""
    return _odd_root(node) is not None or any(map(has_odd_roots, children(node)))


def _odd_root(node: Node) -> tuple[Num, Node] | None:
    """Return (q, p) of such a power; None for anything else."""
    if not isinstance(node, Pow):
        return None
    sign = isinstance(node.exponent, Neg)
    power = node.exponent.operand if isinstance(node.exponent, Neg) else node.exponent
    if not (isinstance(power, Div) and isinstance(power.top, Num) and isinstance(power.bottom, Num)):
        return None
    index = power.bottom
    if index.value <= 1 or index.value % 2 != 1 or not symbols(node.base):
        return None
    return index, Neg(power.top) if sign else power.top


def with_real_roots(node: Node) -> Node:
    """Return `(x - 1)^{2/3}` as the square of the real cube root, which has a value for negative bases."""
    if isinstance(node, Pow) and (found := _odd_root(node)) is not None:
        return Pow(Call("root", (with_real_roots(node.base), found[0])), found[1])
    return rebuilt(node, with_real_roots)


# ---- matrices ------------------------------------------------------------------------------------


def worked_out(node: Node) -> Matrix | None:
    """Evaluate a multiple, a sum, a product or a transpose of matrices; None for anything else."""
    match node:
        case Matrix():
            return node if not node.bar and sum(map(len, node.rows)) <= MAX_CELLS else None
        case Neg():
            return _scaled(Num(-1), worked_out(node.operand))
        case Div() if not contains(node.bottom, Matrix):
            return _scaled(Div(Num(1), node.bottom), worked_out(node.top))
        case Pow() if node.exponent in (Sym("T"), Sym("top"), Sym("t")):
            inner = worked_out(node.base)
            return None if inner is None else Matrix(tuple(zip(*inner.rows, strict=True)))
        case Mul() if sum(contains(factor, Matrix) for factor in node.factors) <= 3:
            total: Matrix | None = None
            for factor in (f for f in node.factors if contains(f, Matrix)):
                found = worked_out(factor)
                total = found if total is None else _product(total, found)
                if total is None:
                    return None
            rest = [factor for factor in node.factors if not contains(factor, Matrix)]
            return _scaled(Mul(tuple(rest)) if len(rest) > 1 else rest[0], total) if rest else total
        case Add():
            parts = [worked_out(term) for term in node.terms]
            total = parts[0]
            for part in parts[1:]:
                total = _sum(total, part)
            return total
        case _:
            return None


def _scaled(factor: Node, matrix: Matrix | None) -> Matrix | None:
    if matrix is None or not isinstance(factor, EXPRESSION):
        return None
    return Matrix(tuple(tuple(Mul((factor, cell)) for cell in row) for row in matrix.rows))


def _sum(left: Matrix | None, right: Matrix | None) -> Matrix | None:
    if left is None or right is None or [*map(len, left.rows)] != [*map(len, right.rows)]:
        return None
    return Matrix(
        tuple(
            tuple(Add((a, b)) for a, b in zip(row, other, strict=True))
            for row, other in zip(left.rows, right.rows, strict=True)
        )
    )


def _product(left: Matrix | None, right: Matrix | None) -> Matrix | None:
    if left is None or right is None or len(left.rows[0]) != len(right.rows):
        return None
    if len(left.rows) * len(right.rows) * len(right.rows[0]) > MAX_CELLS:
        return None
    columns = list(zip(*right.rows, strict=True))
    cells = [[[Mul((a, b)) for a, b in zip(row, column, strict=True)] for column in columns] for row in left.rows]
    return Matrix(tuple(tuple(Add(tuple(c)) if len(c) > 1 else c[0] for c in row) for row in cells))


def dot_product(node: Node) -> Node | None:
    """Evaluate the dot product of two columns or two rows; None for anything else."""
    if not isinstance(node, Mul):
        return None
    vectors = [factor for factor in node.factors if isinstance(factor, Matrix)]
    rest = tuple(factor for factor in node.factors if not contains(factor, Matrix))
    if len(vectors) != 2 or len(rest) + 2 != len(node.factors):
        return None
    shapes = [(len(vector.rows), len(vector.rows[0])) for vector in vectors]
    if shapes[0] != shapes[1] or 1 not in shapes[0] or shapes[0] == (1, 1):
        return None
    total = Add(tuple(Mul(pair) for pair in zip(children(vectors[0]), children(vectors[1]), strict=True)))
    return Mul((*rest, total)) if rest else total


def determinant(matrix: Matrix) -> Node | None:
    """Return the determinant of a square matrix of at most MAX_DETERMINANT rows; None for any other matrix."""
    size = len(matrix.rows)
    if size > MAX_DETERMINANT or len(matrix.rows[0]) != size:
        return None
    if not all(isinstance(cell, EXPRESSION) for cell in children(matrix)):
        return None
    if size == 1:
        return matrix.rows[0][0]
    terms: list[Node] = []
    for place, cell in enumerate(matrix.rows[0]):
        minor = determinant(Matrix(tuple((*row[:place], *row[place + 1 :]) for row in matrix.rows[1:])))
        assert minor is not None
        term = Mul((cell, minor))
        terms.append(Neg(term) if place % 2 else term)
    return Add(tuple(terms))


# ---- vectors -------------------------------------------------------------------------------------

_UNITS = (Const("i"), Sym("j"), Sym("k"))


def in_unit_vectors(items: tuple[Node, ...]) -> Node | None:
    """Return `(a, b, c)` as `a i + b j + c k`; None unless it has two or three scalar components."""
    if not 2 <= len(items) <= 3 or not all(isinstance(item, EXPRESSION) for item in items):
        return None
    return Add(tuple(Mul((item, unit)) for item, unit in zip(items, _UNITS, strict=False)))


def is_in_unit_vectors(node: Node) -> bool:
    """Return True if an expression is a sum with unit vectors."""
    return isinstance(node, Add | Mul | Neg) and bool(symbols(node) & {"j", "k"}) and symbols(node) <= {"j", "k"}


# ---- families and combinations -------------------------------------------------------------------


def family(node: Node) -> tuple[Node, frozenset[str]] | None:
    """Return `x = pi + 2 pi k, k in Z` without its last part, and the names that run over a set; else None."""
    if not (isinstance(node, Group) and node.kind is GroupKind.LIST):
        return None
    names = frozenset(
        item.sides[0].name
        for item in node.items
        if isinstance(item, Relation)
        and item.ops == ("in",)
        and isinstance(item.sides[0], Sym)
        and isinstance(item.sides[1], NamedSet)
        and (item.sides[1].name in INTEGERS or (item.sides[1].name in PARAMETERS and not _is_argument(item, node)))
    )
    kept = tuple(item for item in node.items if not (isinstance(item, Relation) and item.ops == ("in",)))
    if not names or not kept or not any(symbols(item) & names for item in kept):
        return None
    return _unalternated(kept[0] if len(kept) == 1 else Group(GroupKind.LIST, kept), names), names


def without_domain(node: Node) -> Node:
    """Drop the domain of the variable from `f(x) = x^2, x in R` and `2^n - 1, n >= 1`; other nodes unchanged."""
    if not (isinstance(node, Group) and node.kind is GroupKind.LIST and len(node.items) > 1):
        return node
    kept = tuple(
        item
        for item in node.items
        if not (
            isinstance(item, Relation) and (_is_argument(item, node) if item.ops == ("in",) else _natural(item, node))
        )
    )
    if len(kept) == len(node.items) or not kept:
        return node
    return kept[0] if len(kept) == 1 else Group(node.kind, kept)


def _natural(condition: Relation, node: Group) -> bool:
    """Return True if the condition says that an index of the other items begins at 0 or 1: `n >= 1`, `n > 0`."""
    name, bound = condition.sides[0], condition.sides[-1]
    if not isinstance(name, Sym) or name.name not in WHOLE_LETTERS or not isinstance(bound, Num):
        return False
    if condition.ops not in ((">",), (">=",)):
        return False
    least = bound.value + (condition.ops == (">",))
    others = (symbols(item) for item in node.items if item is not condition)
    return least in (0, 1) and any(name.name in names for names in others)


def _is_argument(membership: Relation, node: Group) -> bool:
    """Return True if the name in `x in R` is the argument of a function: f(x) = x^2, x in R."""
    left = (item.sides[0] for item in node.items if isinstance(item, Relation) and item.ops == ("=",))
    return any(symbols(membership.sides[0]) & symbols(side) for side in left)


def _unalternated(node: Node, names: frozenset[str]) -> Node:
    """Return `(-1)^n a + b` over the integers n as its two families, for even and odd n."""
    value = node.sides[1] if isinstance(node, Relation) and node.ops == ("=",) else node
    if len(names) != 1 or not isinstance(value, EXPRESSION) or not _alternates(value, names):
        return node
    (name,) = names
    even = Mul((Num(2), Sym(name)))
    return Group(GroupKind.LIST, tuple(_signs_settled(value, name, parity, even) for parity in (0, 1)))


def _alternates(node: Node, names: frozenset[str]) -> bool:
    if isinstance(node, Pow) and node.base == Neg(Num(1)) and node.exponent == Sym(next(iter(names))):
        return True
    return any(_alternates(child, names) for child in children(node))


def _signs_settled(node: Node, name: str, parity: int, even: Node) -> Node:
    """Replace n by 2 n + parity, and evaluate (-1)^n."""
    if isinstance(node, Pow) and node.base == Neg(Num(1)) and node.exponent == Sym(name):
        return Num(-1) if parity else Num(1)
    if node == Sym(name):
        return Add((even, Num(parity))) if parity else even
    return rebuilt(node, lambda part: _signs_settled(part, name, parity, even))


def combinations(node: Node) -> Node:
    """Return `C(n, k)` and `P(n, k)` of numbers as binomial coefficients and permutations."""
    if isinstance(node, Mul):
        factors: list[Node] = []
        for factor in node.factors:
            before = factors[-1] if factors else None
            if (
                isinstance(before, Sym)
                and before.name in ("C", "P")
                and isinstance(factor, Group)
                and len(factor.items) == 2
            ):
                top, bottom = factor.items
                factors[-1] = Call("binom", (top, bottom))
                if before.name == "P":
                    factors.append(Call("factorial", (bottom,)))
            else:
                factors.append(combinations(factor))
        return factors[0] if len(factors) == 1 else Mul(tuple(factors))
    if isinstance(node, EXPRESSION) and children(node):
        return rebuilt(node, combinations)
    return node
