"""A person compares two completions: a small local page, or the terminal. Imports no torch."""
