"""The terminal during a run."""
