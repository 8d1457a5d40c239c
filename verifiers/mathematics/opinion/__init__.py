"""A second opinion on pairs that the tiers leave undecided: SymPy, in a process that can be killed."""
