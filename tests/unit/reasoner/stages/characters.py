"""A reward in a file of its own: the grading workers that import it load no torch."""

from __future__ import annotations


def characters(completion: str, reference: str) -> float:
    return sum(map(ord, completion)) % 7 / 7
