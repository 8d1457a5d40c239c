"""`reasoner preflight`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.cli.loading import loading_told
from verifiers.jsonl import json_line

if TYPE_CHECKING:
    from rich.table import Table

    from reasoner.preflight.measured import Preflight


def preflight(
    config: Annotated[
        str, typer.Argument(help="A YAML file, or the name of a shipped config.", autocompletion=complete.configs)
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.key=value, as for `reasoner train`.")] = None,
    problems: Annotated[int, typer.Option("--problems", min=1, help="Problems to sample.")] = 256,
    samples: Annotated[
        int | None, typer.Option("--samples", min=2, help="Completions per problem. Default: rollout.group_size.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", help="Start no new round of sampling after this time.")
    ] = 100.0,
    model: Annotated[str | None, typer.Option("--model", help="Model instead of the stage's own.")] = None,
    write: Annotated[
        Path | None, typer.Option("--write-problems", help="Write the problems that are likely to have signal (JSONL).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Estimate, before a GPU is used, the signal of the data for the model, the cost of a step, and what to change."""
    with plain_errors():
        from reasoner.config.load import load_config

        run = load_config(config, overrides or [])
        from reasoner.engine.environment import go_offline_where_cut_off, prepare_process, skip_unused_packages
        from reasoner.model.paths import check_model
        from reasoner.stages.names import check_run_names

        prepare_process()
        if model is None:
            check_run_names(run, resume=True)
        else:
            check_model(model, "--model")
        with loading_told("torch and the engine"):
            go_offline_where_cut_off()
            skip_unused_packages()
            from reasoner.data.problems import load_problems
            from reasoner.preflight.advice import causes_of
            from reasoner.preflight.preflight import preflight as measure
            from reasoner.preflight.preflight import to_json
            from reasoner.preflight.problem_list import problem_list, write_problems

        done = measure(run, problems=problems, samples=samples, seconds=seconds, model=model)
        if write is not None:
            known = [problem for part in load_problems(done.config)[0] for problem in part]
            rows = problem_list(done, known)
            write_problems(write, rows)
            typer.echo(
                f"{len(rows)} of {len(known)} problems -> {write}; use them with task.problems_file={write}", err=True
            )
            if causes_of(done):
                typer.echo("write them again after what is advised first: it changes which are solved", err=True)
        if as_json:
            typer.echo(json_line(to_json(done)))
        else:
            _print(done)


def _print(done: Preflight) -> None:
    from reasoner.preflight.advice import sentences
    from reasoner.preflight.preflight import to_json
    from verifiers.terminal.console import plain_console
    from verifiers.terminal.program import as_started

    console = plain_console()
    row, config = to_json(done), done.config
    shares = ", ".join(f"{value:.0%} {name}" for name, value in done.shares().items())
    console.print(
        f"{row['problems']} problems x {config.rollout.group_size}: {shares};"
        f" {done.whole.mean:.1%} of the samples right",
    )
    console.print(_difficulty_table(done))
    sizes = ", ".join(f"{size}: {float(share):.0%}" for size, share in row["signal"].items())
    console.print(f"groups with signal by group size: {sizes}")
    for line in _completion_lines(row, max_tokens=config.rollout.max_tokens):
        console.print(line)
    split = ", ".join(f"{name} {value:.1f}" for name, value in done.split.items())
    console.print(
        f"a step: {done.seconds_per_step:.1f} s ({split}) and {done.tokens_per_step:,.0f} sampled tokens;"
        f" {config.steps} steps: {done.seconds_per_step * config.steps / 60:.0f} min; memory {done.memory_mb:.0f} MB",
    )
    advice = [*sentences(done)]
    console.print("what to change:" if advice else "nothing to change", style="bold")
    for number, sentence in enumerate(advice, 1):
        console.print(as_started(f"{number}. {sentence}"))
    console.print(f"({done.seconds:.0f} s)", style="dim")


def _difficulty_table(done: Preflight) -> Table:
    from rich.table import Table

    from reasoner.observe.explain.signal_chance import signal_chance

    size = done.config.rollout.group_size
    table = Table(box=None, pad_edge=False)
    for title in ("", "problems", "pass rate", "90 % of problems", f"groups with signal at G={size}"):
        table.add_column(title, justify="left" if not title else "right")
    for each in done.bins:
        chance = f"{signal_chance(each.belief, size):.0%}"
        spread = f"{each.low:.0%} to {each.high:.0%}"
        table.add_row(each.name, str(each.problems), f"{each.belief.mean:.1%}", spread, chance)
    return table


def _completion_lines(row: Mapping[str, Any], *, max_tokens: int) -> Iterator[str]:
    """Yield lines on lengths, and on the share and examples of completions without an answer or without a grade."""
    tokens = row["tokens"]
    yield (
        f"completions: {tokens['median']} tokens (median), {tokens['p95']} (95 %),"
        f" {tokens['truncated']:.1%} truncated at {max_tokens}"
    )
    for name in ("no_answer", "ungraded"):
        found = row[name]
        yield f"{name.replace('_', ' ')}: {found['share']:.1%}"
        for example in found.get("examples") or found.get("causes") or []:
            yield f"    ...{str(example)[-120:]!r}"
