"""Finished runs compared, graded again and audited (without torch)."""
