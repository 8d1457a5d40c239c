"""Terminal output during a run."""
