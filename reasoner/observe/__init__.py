"""What is read of runs: explanations, comparisons, reports, the terminal."""
