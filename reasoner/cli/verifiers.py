"""`reasoner verifiers`: the plug-in author's tools."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="List, write, check, audit and serve verifiers.")


@app.command("list")
def list_verifiers() -> None:
    """Show every installed verifier and where it comes from."""
    from verifiers import installed

    for source in installed():
        typer.echo(f"{source.name:12} {source.origin:16} {source.target}")
