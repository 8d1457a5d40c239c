"""Evaluation sets by name: their data, prompt, sampling, verifier and the metric that papers report."""
