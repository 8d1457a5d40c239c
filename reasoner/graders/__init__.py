"""Verifiers that hold a model: a judge, a reward model."""
