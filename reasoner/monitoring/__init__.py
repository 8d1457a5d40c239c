"""Metrics of a step, their glossary, and the monitor of reward hacking."""
