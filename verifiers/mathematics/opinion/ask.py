"""Questions to SymPy about the equality of two expressions."""

from __future__ import annotations

from verifiers.asked_process import AskedProcess


class SecondOpinion(AskedProcess):
    """SymPy's answers for pairs of expressions: "equal", "different", "unknown: why" or "limit: which".

    Args:
        cpu_seconds: CPU limit of one question.
    """

    def __init__(self, cpu_seconds: float) -> None:
        super().__init__("verifiers.mathematics.opinion.decide:decide", cpu_seconds=cpu_seconds)

    @property
    def version(self) -> str:
        """The version on which its answers depend: `sympy 1.14.0 2s`."""
        from importlib import metadata

        return f"sympy {metadata.version('sympy')} {self.cpu_seconds:g}s"
