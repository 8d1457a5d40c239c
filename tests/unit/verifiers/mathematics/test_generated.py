"""Parsing by generation: random trees, written in several dialects, parse back equal; with one leaf changed, unequal.

Equality is judged by values in Python's own complex numbers at three points, which share nothing with the verifier.

What is equal is told by values in Python's own complex numbers at three points, which share nothing with the verifier.
"""

from __future__ import annotations

import cmath
import dataclasses
from collections.abc import Callable, Iterator, Mapping

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from verifiers.mathematics.equality.compare import compare
from verifiers.mathematics.nodes import Add, Call, Const, Div, Group, GroupKind, Mul, Neg, Node, Num, Pow, Sym, children
from verifiers.mathematics.reading.reader import read

FUNCTIONS: Mapping[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "ln": cmath.log, "arctan": cmath.atan, "sinh": cmath.sinh,
}  # fmt: skip
POINTS = ({"x": 1.37, "y": 0.61, "t": 2.19}, {"x": 0.45, "y": 1.83, "t": 0.77}, {"x": 2.71, "y": 0.29, "t": 1.13})
SMALL = st.integers(2, 30).map(Num)
LEAVES = st.one_of(SMALL, st.sampled_from([Sym("x"), Sym("y"), Sym("t"), Const("pi"), Const("e")]))


def _grown(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    pair = st.tuples(inner, inner)
    return st.one_of(
        pair.map(Add),
        st.tuples(inner, inner.map(Neg)).map(Add),
        pair.map(Mul),
        pair.map(lambda sides: Div(*sides)),
        st.builds(Pow, inner, st.integers(2, 4).map(Num)),
        st.builds(lambda node: Call("root", (node, Num(2))), inner),
        st.builds(lambda name, node: Call(name, (node,)), st.sampled_from(sorted(FUNCTIONS)), inner),
    )


TREES = st.recursive(LEAVES, _grown, max_leaves=8)


def latex(node: Node) -> str:
    r"""Write as textbooks do: \frac, \cdot, \left( \right)."""
    match node:
        case Num():
            return str(node.value)
        case Sym() | Const():
            return {"pi": r"\pi", "e": "e"}.get(node.name, node.name)
        case Add():
            return " + ".join(latex(term) for term in node.terms).replace("+ -", "- ")
        case Neg():
            return "-" + _bracketed(latex, node.operand, (Add, Neg), *LATEX_BRACKETS)
        case Mul():
            return r" \cdot ".join(_bracketed(latex, part, (Add, Neg), *LATEX_BRACKETS) for part in node.factors)
        case Div():
            return rf"\frac{{{latex(node.top)}}}{{{latex(node.bottom)}}}"
        case Pow():
            base = _bracketed(latex, node.base, (Add, Neg, Mul, Div, Pow, Call), *LATEX_BRACKETS)
            return f"{base}^{{{latex(node.exponent)}}}"
        case Call(name="root"):
            return rf"\sqrt{{{latex(node.args[0])}}}"
        case Call():
            return rf"\{node.name}\left({latex(node.args[0])}\right)"
        case Group():
            return r"\left(" + ", ".join(map(latex, node.items)) + r"\right)"
        case _:
            raise AssertionError(node)


def plain(node: Node) -> str:
    """Write as on a keyboard: a/b, a*b, a^b, sqrt(a)."""
    match node:
        case Num():
            return str(node.value)
        case Sym() | Const():
            return node.name
        case Add():
            return " + ".join(plain(term) for term in node.terms).replace("+ -", "- ")
        case Neg():
            return "-" + _bracketed(plain, node.operand, (Add, Neg, Div), "(", ")")
        case Mul():
            return "*".join(_bracketed(plain, part, (Add, Neg, Div), "(", ")") for part in node.factors)
        case Div():
            top, bottom = (_bracketed(plain, part, (Add, Neg, Div, Mul), "(", ")") for part in (node.top, node.bottom))
            return f"{top}/{bottom}"
        case Pow():
            base = _bracketed(plain, node.base, (Add, Neg, Mul, Div, Pow, Call), "(", ")")
            return f"{base}^{plain(node.exponent)}"
        case Call(name="root"):
            return f"sqrt({plain(node.args[0])})"
        case Call():
            return f"{node.name}({plain(node.args[0])})"
        case Group():
            return "(" + ", ".join(map(plain, node.items)) + ")"
        case _:
            raise AssertionError(node)


LATEX_BRACKETS = (r"\left(", r"\right)")


def python(node: Node) -> str:
    """Write as Python and SymPy print."""
    return plain(node).replace("^", "**")


def display(node: Node) -> str:
    r"""Write as a model does in a box: \dfrac, \times, plain brackets, enclosing dollars."""
    written = latex(node).replace(r"\frac", r"\dfrac").replace(r"\cdot", r"\times")
    return f"${written}$"


DIALECTS = (latex, plain, python, display)


def _bracketed(write: Callable[[Node], str], node: Node, kinds: tuple[type, ...], left: str, right: str) -> str:
    return f"{left}{write(node)}{right}" if isinstance(node, kinds) else write(node)


def value(node: Node, point: Mapping[str, float]) -> complex:
    """Evaluate by Python's own arithmetic."""
    match node:
        case Num():
            return complex(node.value)
        case Sym():
            return point[node.name]
        case Const():
            return {"pi": cmath.pi, "e": cmath.e}[node.name]
        case Add():
            return sum((value(term, point) for term in node.terms), 0j)
        case Neg():
            return -value(node.operand, point)
        case Mul():
            return value(node.factors[0], point) * value(node.factors[1], point)
        case Div():
            return value(node.top, point) / value(node.bottom, point)
        case Pow():
            return value(node.base, point) ** value(node.exponent, point)
        case Call(name="root"):
            return cmath.sqrt(value(node.args[0], point))
        case Call():
            return FUNCTIONS[node.name](value(node.args[0], point))
        case _:
            raise AssertionError(node)


def values(node: Node) -> list[complex]:
    """Return the values at every point; assume that they are neither too large nor undefined."""
    try:
        found = [value(node, point) for point in POINTS]
    except (ZeroDivisionError, OverflowError, ValueError):
        assume(False)
        raise
    assume(all(1e-6 < abs(one) < 1e6 for one in found))
    return found


def apart(left: list[complex], right: list[complex]) -> bool:
    """Return True if values differ beyond any rounding of a float, at two points at least."""
    return sum(abs(a - b) > 1e-5 * max(abs(a), abs(b)) for a, b in zip(left, right, strict=True)) >= 2


def changed(node: Node) -> Iterator[Node]:
    """Yield the tree with one leaf replaced, for each leaf in turn."""
    match node:
        case Num():
            yield Num(node.value + 1)
        case Sym():
            yield Sym({"x": "y", "y": "t", "t": "x"}[node.name])
        case Const():
            yield Num(3)
        case _:
            parts = children(node)
            for place, part in enumerate(parts):
                for other in changed(part):
                    yield _with(node, (*parts[:place], other, *parts[place + 1 :]))


def _with(node: Node, parts: tuple[Node, ...]) -> Node:
    match node:
        case Add() | Mul():
            return type(node)(parts)
        case Neg():
            return Neg(parts[0])
        case Div() | Pow():
            return type(node)(*parts)
        case Call() | Group():
            return dataclasses.replace(node, **{"args" if isinstance(node, Call) else "items": parts})
        case _:
            raise AssertionError(node)


@settings(max_examples=120, deadline=None)
@given(TREES, st.sampled_from(DIALECTS), st.sampled_from(DIALECTS))
def test_a_tree_is_read_back_equal_in_every_dialect(
    tree: Node, one: Callable[[Node], str], other: Callable[[Node], str]
) -> None:
    values(tree)
    result = compare(read(one(tree)), read(other(tree)))
    assert result.equal, (one(tree), other(tree), result)


@settings(max_examples=120, deadline=None)
@given(TREES, st.sampled_from(DIALECTS), st.sampled_from(DIALECTS), st.data())
def test_a_tree_with_one_leaf_changed_is_not_equal_either_way(
    tree: Node, one: Callable[[Node], str], other: Callable[[Node], str], data: st.DataObject
) -> None:
    perturbed = data.draw(st.sampled_from(list(changed(tree))))
    assume(apart(values(tree), values(perturbed)))
    for gold, answer in ((tree, perturbed), (perturbed, tree)):
        result = compare(read(one(gold)), read(other(answer)))
        assert not result.equal, (one(gold), other(answer), result)


REWRITES: tuple[Callable[[Node, Node], tuple[Node, Node]], ...] = (
    lambda a, b: (Add((a, b)), Add((b, a))),
    lambda a, b: (Mul((a, b)), Mul((b, a))),
    lambda a, b: (Add((a, Neg(b))), Neg(Add((b, Neg(a))))),
    lambda a, b: (Mul((a, Add((a, b)))), Add((Pow(a, Num(2)), Mul((a, b))))),
    lambda a, b: (Div(a, b), Div(Mul((a, Num(3))), Mul((Num(3), b)))),
    lambda a, b: (Pow(Add((a, b)), Num(2)), Add((Add((Pow(a, Num(2)), Mul((Num(2), Mul((a, b)))))), Pow(b, Num(2))))),
    lambda a, b: (Div(Num(1), Div(a, b)), Div(b, a)),
)
"""Two ways to write the same value."""


@settings(max_examples=120, deadline=None)
@given(TREES, TREES, st.sampled_from(REWRITES), st.sampled_from(DIALECTS))
def test_an_equality_holds_in_both_directions(
    a: Node, b: Node, rule: Callable[[Node, Node], tuple[Node, Node]], write: Callable[[Node], str]
) -> None:
    left, right = rule(a, b)
    values(left)
    trees = read(write(left)), read(write(right))
    for gold, answer in (trees, trees[::-1]):
        result = compare(gold, answer)
        assert result.equal, (write(left), write(right), result)


@settings(max_examples=80, deadline=None)
@given(st.lists(TREES, min_size=2, max_size=4), st.sampled_from(DIALECTS), st.randoms())
def test_a_tuple_keeps_its_order_and_a_set_does_not(items: list[Node], write: Callable[[Node], str], rng) -> None:
    found = [values(item) for item in items]
    assume(all(apart(a, b) for place, a in enumerate(found) for b in found[place + 1 :]))
    moved = list(items)
    rng.shuffle(moved)
    ordered = [Group(GroupKind.TUPLE, tuple(part)) for part in (items, moved)]
    assert compare(read(write(ordered[0])), read(write(ordered[1]))).equal == (items == moved)
    if write in (latex, display):
        braces = [r"\{" + ", ".join(map(latex, part)) + r"\}" for part in (items, moved)]
        assert compare(read(braces[0]), read(braces[1])).equal


@pytest.mark.parametrize("write", DIALECTS)
def test_every_dialect_writes_what_it_is_given(write: Callable[[Node], str]) -> None:
    tree = Div(Add((Sym("x"), Neg(Num(2)))), Call("root", (Num(3), Num(2))))
    assert compare(read(write(tree)), tree).equal
    assert not compare(read(write(tree)), Div(Add((Sym("x"), Num(2))), Call("root", (Num(3), Num(2))))).equal
