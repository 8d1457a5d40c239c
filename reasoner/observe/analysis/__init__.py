"""Comparison, regrading and audit of finished runs (without torch)."""
