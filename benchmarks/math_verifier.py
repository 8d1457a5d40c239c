"""Throughput and latency of the math verifier and of Math-Verify, in one process and interleaved rounds. Prints JSON.

The mix: 60 % integers and decimals, 15 % fractions, 10 % expressions, 5 % tuples and intervals, 5 % matrices and
equations, 5 % garbage. Half of the answers are right.

    python benchmarks/math_verifier.py --rows 2000 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable

from verifiers import GradingRow, Verifier, get_verifier
from verifiers.mathematics.reading.reader import read, read_verbatim

Pair = tuple[str, str]
"""(answer, reference)."""


def numbers(source: random.Random) -> Pair:
    """Return integers and decimals."""
    value = source.randrange(-9999, 100_000)
    form = source.choice(["{}", "{:,}", "{}.0", "{}.5", "\\${}", "{}\\text{{ cm}}"])
    gold = str(value) + (".5" if form == "{}.5" else "")
    return form.format(value), gold


def fractions(source: random.Random) -> Pair:
    """Return a fraction in two spellings."""
    top, bottom, factor = source.randrange(1, 99), source.randrange(2, 99), source.randrange(1, 5)
    return f"\\frac{{{top * factor}}}{{{bottom * factor}}}", source.choice(
        [f"\\dfrac{{{top}}}{{{bottom}}}", f"{top}/{bottom}"]
    )


def expressions(source: random.Random) -> Pair:
    """Return polynomials, radicals, functions, constants."""
    a, b = source.randrange(2, 20), source.randrange(2, 20)
    return source.choice(
        [
            (f"(x+{a})(x-{b})", f"x^2+{a - b}x-{a * b}".replace("+-", "-")),
            (f"\\sqrt{{{a * a * b}}}", f"{a}\\sqrt{{{b}}}"),
            (f"\\frac{{1}}{{\\sqrt{{{b}}}}}", f"\\frac{{\\sqrt{{{b}}}}}{{{b}}}"),
            (f"{a}\\pi", f"\\pi \\cdot {a}"),
            (f"\\ln {a**2}", f"2\\ln {a}"),
            (f"{a}^{{n+1}}", f"{a}\\cdot {a}^n"),
        ]
    )


def structures(source: random.Random) -> Pair:
    """Return tuples, sets and intervals."""
    a, b, c = (source.randrange(-20, 20) for _ in range(3))
    return source.choice(
        [
            (f"({a}, {b})", f"({a},{b})"),
            (f"\\{{{a},{b},{c}\\}}", f"\\{{{c}, {a}, {b}\\}}"),
            (f"x > {a}", f"({a}, \\infty)"),
            (f"[{a},{a + 5}]", f"{a} \\le x \\le {a + 5}"),
        ]
    )


def larger(source: random.Random) -> Pair:
    """Return matrices and equations."""
    a, b = source.randrange(2, 20), source.randrange(2, 20)
    return source.choice(
        [
            (
                f"\\begin{{pmatrix}}{a}&{b}\\\\0&1\\end{{pmatrix}}",
                f"\\begin{{bmatrix}} {a} & {b} \\\\ 0 & 1 \\end{{bmatrix}}",
            ),
            (f"y={a}x+{b}", f"{a}x-y+{b}=0"),
            (f"x^2+y^2={a * a}", f"y^2+x^2={a * a}"),
        ]
    )


def garbage(source: random.Random) -> Pair:
    """Return nonsense as models write it."""
    return source.choice(
        ["\\frac{1}{", "???", "I do not know", "{{{", "9" * 60, "\\text{see above}", "(((1,2)", "x==y"]
    ), "42"


KINDS: list[tuple[str, float, Callable[[random.Random], Pair]]] = [
    ("integers and decimals", 0.60, numbers),
    ("fractions", 0.15, fractions),
    ("expressions", 0.10, expressions),
    ("tuples and intervals", 0.05, structures),
    ("matrices and equations", 0.05, larger),
    ("garbage", 0.05, garbage),
]


def traffic(rows: int, seed: int) -> list[tuple[str, GradingRow]]:
    """Return (kind, row) pairs in random order; every second answer belongs to another problem of its kind."""
    source = random.Random(seed)
    found: list[tuple[str, GradingRow]] = []
    for kind, share, make in KINDS:
        for index in range(round(rows * share)):
            answer, gold = make(source)
            if index % 2:
                answer, _ = make(source)
            found.append(
                (kind, GradingRow(completion=f"So the final answer is $\\boxed{{{answer}}}$.", reference=gold))
            )
    source.shuffle(found)
    return found


def timed(verifier: Verifier, rows: list[tuple[str, GradingRow]]) -> list[float]:
    """Return the seconds of each row; no text occurs twice."""
    read.cache_clear()
    read_verbatim.cache_clear()
    spent = []
    for _, row in rows:
        started = time.perf_counter()
        verifier.verify(completion=row.completion, reference=row.reference)
        spent.append(time.perf_counter() - started)
    return spent


def percentile(values: list[float], share: float) -> float:
    """Return the value at a fraction `share` of the sorted values."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def long_text(verifier: Verifier, rounds: int) -> float:
    """Return the seconds that 10,000 characters of reasoning before the answer add; fastest of several."""
    thought = "Then 3x + 4 = 10, so x = 2; let me check: $3 \\cdot 2 + 4 = 10$. " * 160
    answer = "The final answer is \\boxed{42}."

    def best(completion: str) -> float:
        spent = []
        for _ in range(50 * rounds):
            started = time.perf_counter()
            verifier.verify(completion=completion, reference="42")
            spent.append(time.perf_counter() - started)
        return min(spent)

    return best(thought[:10_000] + answer) - best(answer)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    ours, theirs = get_verifier("math"), get_verifier("math-verify")
    warm = traffic(50, seed=-1)
    timed(ours, warm)
    timed(theirs, warm)
    our_rounds, their_rounds, ratios = [], [], []
    kinds: dict[str, list[float]] = {}
    for turn in range(arguments.rounds):
        rows = traffic(arguments.rows, seed=turn)
        mine = timed(ours, rows)
        other = timed(theirs, rows)
        our_rounds.append(mine)
        their_rounds.append(other)
        ratios.append(sum(other) / sum(mine))
        for (kind, _), seconds in zip(rows, mine, strict=True):
            kinds.setdefault(kind, []).append(seconds)
    best, best_other = min(our_rounds, key=sum), min(their_rounds, key=sum)
    tiers = Counter(
        str(ours.verify(completion=row.completion, reference=row.reference).detail.get("tier", "none"))
        for _, row in traffic(arguments.rows, seed=0)
    )
    print(
        json.dumps(
            {
                "rows": len(best),
                "rounds": arguments.rounds,
                "per_second": round(len(best) / sum(best)),
                "math_verify_per_second": round(len(best_other) / sum(best_other)),
                "times_as_fast": {"median": statistics.median(ratios), "all": ratios},
                "p50_ms": percentile(best, 0.5) * 1000,
                "p99_ms": percentile(best, 0.99) * 1000,
                "math_verify_p99_ms": percentile(best_other, 0.99) * 1000,
                "median_ms_by_kind": {kind: statistics.median(values) * 1000 for kind, values in sorted(kinds.items())},
                "share_by_tier": {tier: count / len(best) for tier, count in tiers.most_common()},
                "ten_thousand_characters_add_ms": long_text(ours, arguments.rounds) * 1000,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
