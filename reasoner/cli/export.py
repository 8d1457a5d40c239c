"""`reasoner export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli.errors import plain_errors


def export(
    run: Annotated[Path, typer.Argument(help="A run folder, one of its stages, or a checkpoint folder.")],
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    best: Annotated[bool, typer.Option("--best", help="The best model by the config's metric, not the last.")] = False,
) -> None:
    """Write a plain Hugging Face folder: model, tokenizer, generation config; adapters merged."""
    with plain_errors():
        from reasoner.storage.files import RunError, whole_folder
        from reasoner.storage.find_model import find_model

        if output.exists():
            raise RunError(f"{output} must not exist; it does. Name another folder.")
        from reasoner.policy.checkpoint import copy_model

        source = find_model(run, best=best)
        if (source / "adapter_config.json").is_file():
            from reasoner.model.lora import merge_checkpoint

            with whole_folder(output) as folder:
                merge_checkpoint(source.resolve(), folder)
        else:
            copy_model(source, output)
        typer.echo(f"{source} -> {output}")
