"""Verifiers of short answers, and the search for the final answer in a completion."""
