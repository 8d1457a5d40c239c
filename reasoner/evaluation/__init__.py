"""Evaluation of a model on held-out problems, and the statistical estimates."""
