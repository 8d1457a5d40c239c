"""Known errors as one plain line, with an exit code; anything else keeps its traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

USAGE, FAILED, INTERRUPTED = 2, 1, 130

KNOWN = (
    "ConfigError",
    "ModelError",
    "TaskError",
    "EngineError",
    "VerifierError",
    "SandboxError",
    "RunError",
    "CheckpointError",
    "TrainingError",
    "UngradedError",
    "LabelError",
)
"""Base classes of our own errors, by name: importing them all would make every command slow."""

TRAINER = ("torch", "transformers", "accelerate", "peft")
"""What the trainer's commands need beside a plain `pip install`."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn our own errors into one line on standard error: exit 2 for bad input, 1 for a failure, 130 for Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt as error:
        known = type(error).__name__ == "Interrupted"
        typer.echo("stopped; go on with --resume" if known else "stopped at once", err=True)
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        if error.name not in TRAINER:
            raise
        typer.echo(f"error: this needs {error.name}, which is not installed: pip install 'reasoner[train]'.", err=True)
        sys.exit(FAILED)
    except Exception as error:
        names = {cls.__name__ for cls in type(error).__mro__}
        if not names & set(KNOWN):
            raise
        typer.echo(f"error: {error}", err=True)
        usage = names & {
            "ConfigError",
            "ModelError",
            "TaskError",
            "UnknownVerifier",
            "BadOption",
            "FileError",
            "AuditError",
            "RunError",
            "LabelError",
        }
        sys.exit(USAGE if usage else FAILED)
