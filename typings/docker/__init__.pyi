"""The part of the Docker library that the sandbox uses; it ships no types."""

from collections.abc import Mapping
from typing import Any

from docker.api import APIClient
from docker.context import Context as Context

class DockerClient:
    api: APIClient
    @classmethod
    def from_env(cls, *, timeout: float = ..., environment: Mapping[str, str] | None = ...) -> DockerClient: ...
    def __getattr__(self, name: str) -> Any: ...
