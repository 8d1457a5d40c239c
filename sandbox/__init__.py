"""Runs untrusted code: Docker or bubblewrap, the same calls and the same guarantees. No torch."""

from sandbox.api import (
    Job,
    JobOutcome,
    JobResult,
    Limits,
    Sandbox,
    SandboxError,
    SandboxUnavailable,
)

__all__ = [
    "Job",
    "JobOutcome",
    "JobResult",
    "Limits",
    "Sandbox",
    "SandboxError",
    "SandboxUnavailable",
]
