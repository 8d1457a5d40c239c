"""`reasoner train`."""

from __future__ import annotations

from typing import Annotated

import typer

from reasoner.cli.errors import plain_errors


def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config (see configs/).")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key.key=value, METHOD.key=value or stages.N.key=value; wins over the file."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check every stage, print its resolved config and plan, do nothing."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the run folder's latest checkpoint stands.")
    ] = False,
) -> None:
    """Train a model: every method; a config may hold several stages."""
    with plain_errors():
        from reasoner.config.load import load_config

        run = load_config(config, overrides or [])
        from reasoner.engine.environment import prepare_process

        prepare_process()
        from reasoner import processes
        from reasoner.cli.closing import print_closing
        from reasoner.preflight.disk import check_space
        from reasoner.preflight.dry_run import print_plan
        from reasoner.stages.pipeline import check_run, run_pipeline

        if dry_run:
            check_run(run)
            from reasoner.model.load import default_device
            from reasoner.preflight.step_tokens import step_tokens

            print_plan(run, on_gpu=default_device().type == "cuda", tokens=step_tokens)
            return
        if (warning := check_space(run)) and processes.launched_rank() == 0:
            typer.echo(f"warning: {warning}", err=True)
        run_pipeline(run, resume=resume)
        if processes.is_main():
            print_closing(run)
        processes.leave()
