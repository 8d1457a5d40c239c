"""Loading and running a transformer."""
