"""`reasoner eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoner.cli.errors import plain_errors


def evaluate(
    model: Annotated[str, typer.Argument(help="A Hugging Face model by name or folder, or a run's `final` folder.")],
    task: Annotated[str, typer.Option("--task", help="Name of a task, or module:Class (see `reasoner tasks list`).")],
    samples: Annotated[int, typer.Option("--samples", min=1, help="Completions per problem (K).")] = 1,
    problems: Annotated[int, typer.Option("--problems", min=1, help="At most this many problems.")] = 512,
    split: Annotated[str, typer.Option("--split", help="Split of the task.")] = "test",
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the task: key=value; repeatable.")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="vllm or hf.")] = "vllm",
    temperature: Annotated[float, typer.Option("--temperature", min=0.0)] = 1.0,
    top_p: Annotated[float, typer.Option("--top-p", min=0.01, max=1.0)] = 1.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Tokens of a completion.")] = 512,
    chat: Annotated[str, typer.Option("--chat", help="Use the chat template: auto, always or never.")] = "auto",
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    template: Annotated[str, typer.Option("--template", help="Around each prompt, which stands at {prompt}.")] = (
        "{prompt}"
    ),
    verifier: Annotated[str | None, typer.Option("--verifier", help="Instead of the task's own.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for evals.jsonl and every completion.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Evaluate a model: unbiased pass@k, avg@k and maj@k, each with a 95 % interval."""
    with plain_errors():
        from reasoner.config import resolve

        raw: dict[str, object] = {
            "model": {"path": model},
            "seed": seed,
            "task": {
                "name": task,
                "options": _options(option or []),
                "eval_split": split,
                **({"verifier": {"name": verifier}} if verifier else {}),
            },
            "prompt": {"chat": chat, "template": template, **({"system": system} if system else {})},
            "rollout": {"max_tokens": max_tokens},
            "eval": {"problems": problems, "samples": samples, "temperature": temperature, "top_p": top_p},
            "engine": {"name": engine},
        }
        stage = resolve(raw, [], where="reasoner eval").stages[0]
        from reasoner.engine.environment import prepare_process

        prepare_process()
        from reasoner.standalone import evaluate_model

        evaluate_model(stage, output=output, as_json=as_json)


def _options(pairs: list[str]) -> dict[str, object]:
    import yaml

    found: dict[str, object] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign:
            raise typer.BadParameter(f"--option must be key=value; got {pair!r}.")
        found[key] = yaml.safe_load(value)
    return found
