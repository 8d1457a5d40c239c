"""Grading service over HTTP, and its client."""
