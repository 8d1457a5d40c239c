"""`reasoner train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.cli.loading import loading_told


def train(
    config: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or the name of a shipped config (see configs/).", autocompletion=complete.configs
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="key.key=value, METHOD.key=value or stages.N.key=value; overrides the file."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check every stage, print its settings, plan, memory and disk, and stop."),
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="With --dry-run: print every setting, not only those set.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the run folder's latest checkpoint.")] = False,
    replay: Annotated[
        Path | None,
        typer.Option(
            help="A run whose rollouts are learned from again, without an engine: the same updates bit for bit with its"
            " own config, or an experiment with another loss, estimator or optimizer."
        ),
    ] = None,
) -> None:
    """Train a model, with any method; a config may contain several stages."""
    with plain_errors():
        from reasoner.config.errors import ConfigError
        from reasoner.config.load import load_config

        run = load_config(config, overrides or [])
        from reasoner.cli.data import print_data
        from reasoner.engine.environment import go_offline_where_cut_off, prepare_process, skip_unused_packages
        from reasoner.stages.names import check_run_names

        if any(stage.cluster.starts for stage in run.stages):
            from reasoner.cluster.parts import check_cluster, engine_overrides
            from reasoner.cluster.run import run_cluster

            check_cluster(run)
            if replay is not None:
                raise ConfigError("bad-value", "--replay samples and grades nothing: leave cluster.* out.")
            given = [*(overrides or []), *engine_overrides(run)]
            run = load_config(config, given)
            if not dry_run:
                check_run_names(run, resume=resume)
                raise typer.Exit(run_cluster(run, source=config, overrides=given, resume=resume))
        prepare_process()
        if replay is None:
            check_run_names(run, resume=resume or dry_run)
        if dry_run:
            print_data(run)
        with loading_told("torch and the engine"):
            go_offline_where_cut_off()
            skip_unused_packages()
            from reasoner import processes
            from reasoner.cli.closing import print_closing
            from reasoner.preflight.disk import check_space
            from reasoner.preflight.dry_run import print_plan
            from reasoner.stages.checks import check_run
            from reasoner.stages.pipeline import run_pipeline, run_replay
            from reasoner.storage.run_lock import launched_rank

        if dry_run:
            check_run(run, names=False)
            from reasoner.model.load import card_bytes
            from reasoner.preflight.step_tokens import step_tokens

            print_plan(run, card_bytes=card_bytes(), full=full, tokens=step_tokens)
            return
        if replay is not None:
            sentence = run_replay(run, replay, resume=resume)
            if processes.is_main():
                typer.echo(sentence)
            return processes.leave()
        if (warning := check_space(run)) and launched_rank() == 0:
            typer.echo(f"warning: {warning}", err=True)
        run_pipeline(run, resume=resume, names_checked=True)
        if processes.is_main():
            print_closing(run)
        processes.leave()
