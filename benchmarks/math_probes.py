"""Check by SymPy of the equalities that the math verifier's probes decide. Prints JSON.

The verifier accepts two expressions on agreement to over 120 digits at each point; a proof would be stronger. This
program asks SymPy about each accepted pair of a labelled file, five CPU seconds each, and reports how many it calls
equal, how many right answers it would lose, and what it costs.

    python benchmarks/math_probes.py tests/cases/math.jsonl
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import time
from collections import Counter

from verifiers import get_verifier
from verifiers.kit.audit import read_cases
from verifiers.mathematics.nodes import Node, Num
from verifiers.mathematics.opinion.ask import SecondOpinion

SECONDS = 5.0


def accepted_pairs(path: str) -> tuple[int, int, list[tuple[Node, Node]]]:
    """Return the number of cases, of questions to the probes, and the distinct pairs that the probes called equal."""
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
    sympy = SecondOpinion(SECONDS)
    sympy.ask(Num(1), Num(1))  # starts its process
    for pair in pairs:
        started = time.perf_counter()
        said[sympy.ask(*pair).partition(":")[0]] += 1
        spent.append(time.perf_counter() - started)
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
