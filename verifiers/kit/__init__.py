"""Tools for authors of verifiers."""
