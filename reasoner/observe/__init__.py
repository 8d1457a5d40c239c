"""Views of runs: explanations, comparisons, reports, terminal output."""
