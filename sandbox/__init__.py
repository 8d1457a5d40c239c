"""Sandbox for untrusted code: Docker or bubblewrap, with the same calls and the same guarantees. No torch."""

from sandbox.api import (
    Job,
    JobOutcome,
    JobResult,
    JobTooLarge,
    Limits,
    Sandbox,
    SandboxError,
    SandboxUnavailable,
)
from sandbox.opening import BACKENDS, open_sandbox

__distribution__ = "reasoner-rl"
__all__ = [
    "BACKENDS",
    "Job",
    "JobOutcome",
    "JobResult",
    "JobTooLarge",
    "Limits",
    "Sandbox",
    "SandboxError",
    "SandboxUnavailable",
    "open_sandbox",
]
