"""The grading service over HTTP, and its client."""
