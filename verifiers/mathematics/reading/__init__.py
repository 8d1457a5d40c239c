"""Parsing of text to a tree of mathematics."""
