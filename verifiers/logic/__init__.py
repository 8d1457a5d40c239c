"""Formulas, models, entailment and proofs. z3 is imported where it is needed."""
