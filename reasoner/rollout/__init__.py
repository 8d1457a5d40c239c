"""Prompts in, graded groups out."""
