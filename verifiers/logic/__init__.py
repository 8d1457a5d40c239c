"""Formulas, models, entailment and proofs. z3 is imported only by the process that runs it."""
