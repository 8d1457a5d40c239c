"""What SymPy says of the equalities that the math verifier's probes decide. Prints JSON.

The verifier accepts two expressions on agreement to over 120 digits at each point; a proof would be stronger. This
program asks SymPy to simplify the difference of each accepted pair of a labelled file to zero, five seconds each, in a
process of its own, and reports how many it proves, how many right answers it would lose, and what it costs.

    python benchmarks/math_probes.py tests/cases/math.jsonl
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import statistics
import time
from collections import Counter
from typing import Any

from verifiers import get_verifier
from verifiers.kit.audit import read_cases
from verifiers.mathematics.nodes import Add, Call, Const, Div, Mul, Neg, Node, Num, Pow, Relation, Sym

SECONDS = 5.0
_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "abs": "Abs", "ceil": "ceiling", "binom": "binomial"}
_SAME = "sin cos tan cot sec csc sinh cosh tanh coth floor factorial asin acos atan Abs ceiling binomial".split()


def to_sympy(node: Node, *, positive: bool) -> Any:
    """A scalar tree as SymPy builds it; ValueError for what it has no counterpart of here."""
    import sympy

    def built(part: Node) -> Any:
        return to_sympy(part, positive=positive)

    match node:
        case Num():
            return sympy.Rational(node.value.numerator, node.value.denominator)
        case Sym():
            return sympy.Symbol(node.name, **({"positive": True} if positive else {"real": True}))
        case Const():
            return {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}[node.name]
        case Add():
            return sympy.Add(*map(built, node.terms))
        case Mul():
            return sympy.Mul(*map(built, node.factors))
        case Neg():
            return -built(node.operand)
        case Div():
            return built(node.top) / built(node.bottom)
        case Pow():
            return built(node.base) ** built(node.exponent)
        case Call():
            return _call(
                node, [built(argument) for argument in node.args if not isinstance(argument, Relation)], positive
            )
        case _:
            raise ValueError(type(node).__name__)


def _call(node: Call, args: list[Any], positive: bool) -> Any:
    import sympy

    if node.name == "root":
        odd = args[1].is_odd and not positive
        return sympy.real_root(*args) if odd else sympy.root(*args)
    if node.name in ("ln", "log"):
        base = args[1] if len(args) > 1 else (sympy.Integer(10) if node.name == "log" else sympy.E)
        return sympy.log(args[0]) / sympy.log(base)
    if node.name in ("degree", "percent"):
        return args[0] * (sympy.pi / 180 if node.name == "degree" else sympy.Rational(1, 100))
    if node.name in ("sum", "prod") and isinstance(node.args[0], Relation):
        index, low = (to_sympy(side, positive=positive) for side in node.args[0].sides)
        return (sympy.summation if node.name == "sum" else sympy.product)(args[1], (index, low, args[0]))
    name = _NAMES.get(node.name, node.name)
    if name not in _SAME:
        raise ValueError(node.name)
    return getattr(sympy, name)(*args)


def opinion(pair: tuple[Node, Node]) -> tuple[str, float]:
    """("proved", "not proved" or "not built", seconds)."""
    import sympy

    started = time.perf_counter()
    said = "not proved"
    try:
        for positive in (False, True):
            left, right = (to_sympy(node, positive=positive) for node in pair)
            if sympy.simplify(left - right) == 0:
                said = "proved"
                break
    except (ValueError, TypeError, NotImplementedError, AttributeError):
        said = "not built"
    return said, time.perf_counter() - started


def accepted_pairs(path: str) -> tuple[int, int, list[tuple[Node, Node]]]:
    """(cases, questions put to the probes, the different pairs that they called equal)."""
    module = importlib.import_module("verifiers.mathematics.equality.scalars")
    asked, pairs = 0, dict[tuple[Node, Node], None]()
    probe_equal = module.probe_equal

    def watched(left: Node, right: Node) -> bool:
        nonlocal asked
        asked += 1
        equal = probe_equal(left, right)
        if equal:
            pairs[left, right] = None
        return equal

    module.probe_equal = watched  # pyright: ignore[reportAttributeAccessIssue]
    verifier, cases = get_verifier("math"), read_cases(path, {})
    for case in cases:
        verifier.verify(completion=case.completion, reference=case.reference)
    module.probe_equal = probe_equal  # pyright: ignore[reportAttributeAccessIssue]
    return len(cases), asked, list(pairs)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases")
    cases, asked, pairs = accepted_pairs(parser.parse_args().cases)
    said: Counter[str] = Counter()
    spent: list[float] = []
    pool = multiprocessing.get_context("spawn").Pool(1)
    for pair in pairs:
        try:
            answer, seconds = pool.apply_async(opinion, (pair,)).get(SECONDS if spent else 60)
        except multiprocessing.TimeoutError:
            pool.terminate()
            pool = multiprocessing.get_context("spawn").Pool(1)
            answer, seconds = "over the limit", SECONDS
        said[answer] += 1
        spent.append(seconds)
    pool.terminate()
    print(
        json.dumps(
            {
                "cases": cases,
                "questions_to_the_probes": asked,
                "pairs_called_equal": len(pairs),
                "sympy": dict(said),
                "sympy_median_ms": statistics.median(spent) * 1000,
                "sympy_max_ms": max(spent) * 1000,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
