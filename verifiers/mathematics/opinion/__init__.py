"""A second opinion on what the tiers leave undecided: SymPy, in a process that can be killed."""
