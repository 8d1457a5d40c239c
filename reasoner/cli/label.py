"""`reasoner label`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from verifiers.jsonl import json_line
from verifiers.text import one_line

if TYPE_CHECKING:
    from verifiers import JSON


def label(
    file: Annotated[Path, typer.Argument(help="Pairs to compare (docs/data.md); with --blind: the file to write.")],
    blind: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--blind",
            help="Two runs (or files of completions) on the same problems, to be compared without their names.",
            autocompletion=complete.runs,
        ),
    ] = None,
    terminal: Annotated[bool, typer.Option("--terminal", help="In the terminal instead of a page.")] = False,
    summary: Annotated[bool, typer.Option("--summary", help="Print a summary of the labels so far, and exit.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the page; 0: any free port.")] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the order of pairs and sides.")] = 0,
    repeat: Annotated[
        float,
        typer.Option(
            "--repeat", min=0, max=1, help="Share of the pairs shown a second time, for agreement with oneself."
        ),
    ] = 0.1,
    who: Annotated[str, typer.Option("--who", help="Name stored with each label.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Compare pairs of completions by keyboard, on a local page or in the terminal; continues after the last label."""
    with plain_errors():
        from reasoner.label.labels import one_labeller
        from reasoner.label.sitting import Sitting

        with nullcontext() if summary or not file.absolute().parent.is_dir() else one_labeller(file):
            if blind is not None:
                make_blind_file(file, *blind)
            sitting = Sitting(file, seed=seed, who=who, repeat=repeat)
            if not summary and sitting.shown() is not None:
                if terminal:
                    from reasoner.label.terminal import label_in_terminal

                    label_in_terminal(sitting)
                else:
                    serve(sitting, port)
        print_summary(sitting, as_json=as_json)


def make_blind_file(file: Path, first: Path, second: Path) -> None:
    """Write the pairs of two models; a file that already contains them stays, so that labelling can continue."""
    from reasoner.label.blind import blind_pairs
    from reasoner.label.labels import LabelError, models_file
    from reasoner.storage.files import write_text

    text = "".join(json_line(row) + "\n" for row in blind_pairs(first, second))
    if file.exists() and file.read_text(encoding="utf-8") != text:
        raise LabelError(f"{file} exists and contains other pairs. Name another file for {first} and {second}.")
    write_text(file, text)
    write_text(models_file(file), json_line([str(first), str(second)]) + "\n")


def serve(sitting: object, port: int) -> None:
    """Serve the page until Ctrl-C or the last pair."""
    import threading
    import webbrowser

    from reasoner.label.page import Page
    from reasoner.label.sitting import Sitting

    assert isinstance(sitting, Sitting)
    page = Page(sitting, port=port)
    thread = threading.Thread(target=page.serve_forever, daemon=True)
    thread.start()
    typer.echo(f"{page.address}  (? shows the keys; Ctrl-C ends)")
    webbrowser.open(page.address)
    try:
        while sitting.shown() is not None:
            thread.join(timeout=0.5)
        thread.join(timeout=1.0)  # the page still asks for the end state after the last label
    except KeyboardInterrupt:
        pass
    finally:
        page.shutdown()


def print_summary(sitting: object, *, as_json: bool) -> None:
    """Print wins, ties, the win rate with its interval, plain and at equal length, by category, and the agreement."""
    from reasoner.label.labels import labels_file, read_models
    from reasoner.label.sitting import Sitting, agreement, agreement_json, lines, summary
    from reasoner.label.sitting import as_json as rows

    assert isinstance(sitting, Sitting)
    found = summary(list(sitting.pairs.values()), sitting.labels)
    models, agreed = read_models(sitting.file), agreement(sitting.slots)
    if as_json:
        about: dict[str, JSON] = {"labelled": len(sitting.labels), "pairs": len(sitting.pairs), "models": [*models]}
        typer.echo(json_line({**about, "agreement": agreement_json(agreed), **rows(found)}))
        return
    typer.echo(f"{len(sitting.labels)} of {len(sitting.pairs)} pairs labelled, in {labels_file(sitting.file)}")
    for category, one in found.items():
        for line in lines(category, one, models):
            typer.echo(one_line(line))
    if agreed.of:
        typer.echo(str(agreed))
