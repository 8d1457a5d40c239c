"""Chance of winning the game `guess` by three strategies, by dynamic programming. Prints JSON.

    python benchmarks/guess_strategies.py --numbers 64 --guesses 6

- no memory: each guess is drawn from all numbers, whatever the replies were.
- possible numbers: each guess is drawn from the numbers that the replies leave.
- bisection: each guess halves the numbers that the replies leave; the best that is possible.
"""

from __future__ import annotations

import argparse
import json
from fractions import Fraction
from functools import cache


@cache
def possible_numbers(numbers: int, guesses: int) -> Fraction:
    """Return the chance to find one hidden number among `numbers` by `guesses` random guesses among those left.

    Example:
        >>> possible_numbers(3, 2)
        Fraction(7, 9)
    """
    if guesses == 0 or numbers == 0:
        return Fraction(0)
    chance = Fraction(0)
    for guess in range(numbers):
        below, above = guess, numbers - guess - 1
        chance += Fraction(1, numbers)
        chance += Fraction(below, numbers) * possible_numbers(below, guesses - 1)
        chance += Fraction(above, numbers) * possible_numbers(above, guesses - 1)
    return chance / numbers


def main() -> None:
    """Print the three chances."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, default=64)
    parser.add_argument("--guesses", type=int, default=6)
    given = parser.parse_args()
    found = {
        "numbers": given.numbers,
        "guesses": given.guesses,
        "no memory": 1 - (1 - 1 / given.numbers) ** given.guesses,
        "possible numbers": float(possible_numbers(given.numbers, given.guesses)),
        "bisection": min(given.numbers, 2**given.guesses - 1) / given.numbers,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
