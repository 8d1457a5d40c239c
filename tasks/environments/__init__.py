"""Environments: tools and games that reply to the policy between its turns. Text only: no tokens, no torch."""

from tasks.environments.base import Environment, EnvironmentFault, Episode, Inline, Reply, Turn, environment
from tasks.environments.registry import get_environment, installed_environments
from tasks.environments.tools import Answer, Past, Tool, ToolEnvironment

__all__ = [
    "Answer",
    "Environment",
    "EnvironmentFault",
    "Episode",
    "Inline",
    "Past",
    "Reply",
    "Tool",
    "ToolEnvironment",
    "Turn",
    "environment",
    "get_environment",
    "installed_environments",
]
