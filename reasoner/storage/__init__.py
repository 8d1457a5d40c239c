"""Files of a run folder: writing and reading. No torch."""
