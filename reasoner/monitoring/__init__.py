"""Metrics of a step, their glossary, and the reward-hacking monitor."""
