"""The folder of a run: its files written and read; no torch."""
