"""Our own errors as one plain line, with their exit status; other errors keep their traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from reasoner.errors import FAILED, INTERRUPTED, Interrupted, ReasonerError

EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "accelerate", "peft", "tokenizers", "huggingface_hub", "gguf"), "train"),
    **dict.fromkeys(("datasets", "pyarrow", "pandas"), "data"),
    "httpx": "judge",
    **dict.fromkeys(("uvicorn", "prometheus_client"), "serve"),
}
"""Modules that a plain `pip install` does not include, each with the extra that does."""


def plain_typer(**settings: Any) -> typer.Typer:
    """Return a command group with plain-text help and errors: typer's panels would interpret markup in quoted input."""
    given = {"add_completion": False, **settings}
    return typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None, **given)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Print our own errors as one line on standard error and exit with their status; 130 for Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt as error:
        resumable = isinstance(error, Interrupted)
        typer.echo("stopped; continue with --resume" if resumable else "stopped at once", err=True)
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        advice = f"pip install 'reasoner-rl[{extra}]'"
        typer.echo(f"error: this needs {error.name}, which is not installed: {advice}.", err=True)
        sys.exit(FAILED)
    except Exception as error:
        # imported here: most commands end without an error, and start faster without these imports
        from sandbox import SandboxError
        from tasks import TaskError
        from verifiers import VerifierError

        if not isinstance(error, ReasonerError | VerifierError | TaskError | SandboxError):
            raise
        from verifiers.terminal.program import as_started

        typer.echo(f"error: {as_started(str(error))}", err=True)
        sys.exit(error.exit_code)
