"""Sampling of completions for prompts, and their grading."""
