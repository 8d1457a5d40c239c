"""Comparison of two completions by a person, on a small local page or in the terminal. Imports no torch."""
