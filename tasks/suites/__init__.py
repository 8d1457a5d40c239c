"""Evaluation sets by name: where the data is, what is asked and how, what grades it, which figure the field reports."""
