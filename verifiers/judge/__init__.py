"""A model asked for its judgement: prompts that data cannot end, replies by schema, a cache, budgets, named faults."""

from verifiers.judge.questions import Level, Question

__all__ = ["Level", "Question"]
