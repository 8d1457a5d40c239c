"""Asking SymPy whether two expressions are equal."""

from __future__ import annotations

from verifiers.asked_process import AskedProcess


class SecondOpinion(AskedProcess):
    """SymPy's answers to pairs of expressions: "equal", "different", "unknown: why" or "limit: which".

    Args:
        cpu_seconds: of one question.
    """

    def __init__(self, cpu_seconds: float) -> None:
        super().__init__("verifiers.mathematics.opinion.decide:decide", cpu_seconds=cpu_seconds)

    @property
    def version(self) -> str:
        """What its answers depend on: `sympy 1.14.0 2s`."""
        from importlib import metadata

        return f"sympy {metadata.version('sympy')} {self.cpu_seconds:g}s"
