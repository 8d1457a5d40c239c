"""From text to a tree of mathematics."""
