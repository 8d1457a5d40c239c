"""`reasoner export`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.cli.loading import loading_told


def export(
    run: Annotated[
        Path,
        typer.Argument(help="A run folder, one of its stages, or a checkpoint folder.", autocompletion=complete.runs),
    ],
    output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
    dtype: Annotated[
        str | None,
        typer.Option(help="float32, bfloat16 or float16. Default: that of the base model.", metavar="DTYPE"),
    ] = None,
    best: Annotated[bool, typer.Option("--best", help="The best model by the config's metric, not the last.")] = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            "--push-to-hub", help="Also upload the folder to this repository of the hub.", metavar="USER/NAME"
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository of --push-to-hub private.")] = False,
) -> None:
    """Write a plain Hugging Face folder: model with adapters merged, tokenizer, model card and prompt format."""
    with plain_errors():
        from reasoner.cli.hub import check_hub, push
        from reasoner.config.by_name import named
        from reasoner.model.paths import DTYPE_NAMES
        from reasoner.storage.files import RunError, write_folder
        from reasoner.storage.find_model import find_model, read_model

        if output.exists():
            raise RunError(f"{output} exists already. Name another folder.")
        if dtype is not None:
            named(dict.fromkeys(DTYPE_NAMES), dtype, "dtype")
        find_model(run, best=best)  # fails before anything is written
        if push_to_hub is not None:
            check_hub(push_to_hub)
        sources: list[Path] = []

        def fill(folder: Path) -> None:
            source, _ = read_model(run, lambda found: _write(found, folder, dtype), best=best, unchanged=True)
            sources.append(source)

        write_folder(output, fill, what=str(output), advice="Free disk space, or name another folder.")
        typer.echo(f"{sources[-1]} -> {output}")
        if push_to_hub is not None:
            typer.echo(push(output, push_to_hub, private=private))


def _write(source: Path, folder: Path, dtype: str | None) -> None:
    """Write a plain model; torch is imported only if the weights must be changed."""
    from reasoner.model.paths import DTYPE_FILE
    from reasoner.storage.files import copy_files

    for left in folder.iterdir():  # left from a checkpoint that its run removed while it was read
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    if (source / "adapter_config.json").is_file():
        with loading_told("torch"):
            from reasoner.model.lora import merge_checkpoint
        merge_checkpoint(source.resolve(), folder, dtype=dtype)
    elif dtype is not None or (source / DTYPE_FILE).is_file():
        with loading_told("torch"):
            from reasoner.policy.checkpoint import copy_model
        copy_model(source, folder, dtype=dtype)
    else:
        copy_files(source, folder)
    _add_companions(source, folder)


def _add_companions(source: Path, folder: Path) -> None:
    """Write model card and prompt format if the model's folder has none (a checkpoint, or a model of an older run)."""
    from reasoner.config.kept_prompt import PROMPT_FILE
    from reasoner.storage.final_link import stage_of_model

    run = stage_of_model(source)
    if run is None or ((source / PROMPT_FILE).is_file() and (source / "README.md").is_file()):
        return
    with loading_told("the tokenizer"):
        from reasoner.session.kept_model import write_companions_of

    write_companions_of(folder, source=source, run=run)
