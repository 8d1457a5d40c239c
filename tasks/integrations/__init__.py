"""Environments inside other trainers, TRL and verl. Their packages are imported on first use."""
