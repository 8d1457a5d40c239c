"""The trainer: GRPO, PPO and their neighbours over one policy interface."""

__version__ = "0.1.0"
