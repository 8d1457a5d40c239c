"""Checks before a run: its cost, the signal of its data, the state of the machine."""
