"""Congruences as sets of residues: `n = ±1 (mod 6)`, `n = 1, 5 (mod 6)`, `n = 6k + 1 or n = 6k + 5`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from verifiers.mathematics.equality import constants
from verifiers.mathematics.equality.comparer import Comparer
from verifiers.mathematics.nodes import (
    Add,
    Call,
    Group,
    GroupKind,
    Mul,
    NamedSet,
    Neg,
    Node,
    PlusMinus,
    Relation,
    Sym,
)

MAX_MODULUS = 10_000
"""Largest common modulus at which two sets of residues are compared."""


class _Residue(NamedTuple):
    value: int
    modulus: int
    """0 if it was not written, as for the 1 in `n = 1, 5 (mod 6)`."""


def same_residues(comparer: Comparer, gold: Node, answer: Node) -> bool | None:
    """Return True if both sides state the same residues of one letter; None if a side states something else."""
    if not (_has_congruence(gold) or _has_congruence(answer)):
        return None
    wanted, given = _residues(gold), _residues(answer)
    if wanted is None or given is None or (wanted[0] != given[0] and wanted[0] and given[0]):
        return None
    comparer.reach("structure")
    common = math.lcm(*(residue.modulus for residue in (*wanted[1], *given[1])))
    return _all_below(common, wanted[1]) == _all_below(common, given[1]) if common <= MAX_MODULUS else None


def _all_below(common: int, found: list[_Residue]) -> set[int]:
    return {value for residue in found for value in range(residue.value % residue.modulus, common, residue.modulus)}


def _statements(node: Node) -> tuple[Node, ...]:
    return node.items if isinstance(node, Group) and node.kind is GroupKind.LIST else (node,)


def _has_congruence(node: Node) -> bool:
    if isinstance(node, Relation):
        return "equiv" in node.ops
    return isinstance(node, Group) and any(map(_has_congruence, node.items))


def _residues(node: Node) -> tuple[str, list[_Residue]] | None:
    """Return (letter or "", its residues); None if anything else is stated."""
    names: set[str] = set()
    found: list[_Residue] = []
    for item in _statements(node):
        if isinstance(item, Relation) and item.ops == ("in",) and item.sides[1] == NamedSet("Z"):
            continue  # k in Z
        if isinstance(item, Relation):
            name, value = item.sides[0], item.sides[-1]
            if not isinstance(name, Sym) or item.ops not in (("equiv",), ("=",)):
                return None
            names.add(name.name)
            read = [*(_signed(value) if item.ops == ("equiv",) else _multiples(value))]
        else:
            read = [*_signed(item)] or [*_multiples(item)]
        if not read:
            return None
        found += read
    if len(names) > 1 or not found or not found[-1].modulus:
        return None
    last = 0
    for place in range(len(found) - 1, -1, -1):  # the modulus at the end of a list applies to all items before it
        last = found[place].modulus or last
        found[place] = _Residue(found[place].value, last)
    return "".join(names), found


def _signed(node: Node) -> Iterator[_Residue]:
    """Yield the residues of `1 (mod 6)`, `±1 (mod 6)` or a bare 1; nothing for anything else."""
    if isinstance(node, PlusMinus | Neg):
        for residue in _signed(node.operand):
            yield _Residue(-residue.value, residue.modulus)
            if isinstance(node, PlusMinus):
                yield residue
        return
    modulus = 0
    if isinstance(node, Call) and node.name == "residue":
        node = node.args[0]
    if isinstance(node, Call) and node.name == "mod":
        node, modulus = node.args[0], _whole(node.args[1]) or 0
        if modulus < 1:
            return
    if isinstance(node, PlusMinus):
        yield from (_Residue(residue.value, modulus) for residue in _signed(node))
    elif (value := _whole(node)) is not None:
        yield _Residue(value, modulus)


def _multiples(node: Node) -> Iterator[_Residue]:
    """Yield the residues of `6k + 1`, `6k ± 1` or `6k`, where k is any integer; nothing for anything else."""
    terms = node.terms if isinstance(node, Add) else (node,)
    steps = [term for term in terms if isinstance(term, Mul)]
    rest = [term for term in terms if not isinstance(term, Mul)]
    if len(steps) != 1 or len(rest) > 1 or len(steps[0].factors) != 2 or not isinstance(steps[0].factors[1], Sym):
        return
    modulus = _whole(steps[0].factors[0])
    if modulus is None or modulus < 1:
        return
    if not rest:
        yield _Residue(0, modulus)
    else:
        yield from (_Residue(residue.value, modulus) for residue in _signed(rest[0]) if not residue.modulus)


def _whole(node: Node) -> int | None:
    value = constants.literal(node)
    return int(value) if value is not None and value.denominator == 1 else None
