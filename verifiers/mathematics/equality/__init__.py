"""Comparison of two trees for the same meaning."""
