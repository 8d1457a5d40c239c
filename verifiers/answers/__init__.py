"""Verifiers of short answers, and finding an answer in a completion."""
