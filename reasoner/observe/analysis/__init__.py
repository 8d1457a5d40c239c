"""Finished runs compared, graded again and audited; no torch."""
