"""Grading by a model: prompts that the graded text cannot break out of, structured replies, a cache, token budgets."""

from verifiers.judge.questions import Level, Question

__all__ = ["Level", "Question"]
