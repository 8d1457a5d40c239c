"""Verifiers that run a model: a judge, a reward model."""
