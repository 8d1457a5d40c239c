"""`reasoner eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli.errors import plain_errors

if TYPE_CHECKING:
    from reasoner.config.stage import StageConfig


def evaluate(
    model: Annotated[str, typer.Argument(help="A Hugging Face model by name or folder, or a run.")],
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
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Tokens of a completion; 512, or as the run's.")
    ] = None,
    chat: Annotated[str | None, typer.Option("--chat", help="Use the chat template: auto, always or never.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    template: Annotated[
        str | None, typer.Option("--template", help="Around each prompt, which stands at {prompt}.")
    ] = None,
    verifier: Annotated[str | None, typer.Option("--verifier", help="Instead of the task's own.")] = None,
    seed: Annotated[int, typer.Option("--seed")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder for evals.jsonl and every completion.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Evaluate a model: unbiased pass@k, avg@k and maj@k, each with a 95 % interval.

    A run is evaluated with the prompt settings that it was trained with and, on its own task, with that task's options;
    what is given here wins.
    """
    with plain_errors():
        from reasoner.cli.tasks import task_options
        from reasoner.config.load import resolve
        from reasoner.engine.environment import prepare_process
        from reasoner.storage.find_model import read_model

        prepare_process()
        folder, trained = _model_and_stage(model)
        prompt = {"chat": chat, "system": system, "template": template}
        same = next((section for section in trained.task if section.name == task), None) if trained else None
        raw: dict[str, object] = {
            "model": {"path": folder},
            "seed": seed,
            "task": {
                "name": task,
                "options": (same.options if same else {}) | task_options(option),
                "eval_split": split,
                **({"verifier": {"name": verifier}} if verifier else {}),
            },
            "prompt": (trained.prompt.model_dump() if trained else {})
            | {key: value for key, value in prompt.items() if value is not None},
            "rollout": {"max_tokens": max_tokens or (trained.rollout.max_tokens if trained else 512)},
            "eval": {"problems": problems, "samples": samples, "temperature": temperature, "top_p": top_p},
            "engine": {"name": engine},
        }
        stage = resolve(raw, [], where="reasoner eval").stages[0]
        from reasoner.session.evaluate_model import evaluate_model

        def measure(found: Path | str) -> None:
            named = stage.model.model_copy(update={"path": str(found)})
            evaluate_model(stage.model_copy(update={"model": named}), output=output, as_json=as_json)

        if folder == model:
            measure(folder)
        else:  # of a run that may go on, and remove the checkpoint before it is loaded
            read_model(Path(model), measure)


def _model_and_stage(model: str) -> tuple[str, StageConfig | None]:
    """The model folder of a run, a stage or a checkpoint, and the config it was trained with; else the name as it is.

    Raises:
        RunError: the folder is a run without a model, or holds an adapter alone.
    """
    folder = Path(model)
    if not folder.is_dir():
        return model, None
    from reasoner.config.load import load_config
    from reasoner.storage.files import RunError
    from reasoner.storage.find_model import find_model

    found = folder if (folder / "config.json").is_file() else find_model(folder)
    if (found / "adapter_config.json").is_file():
        raise RunError(
            f"{found} holds an adapter alone. Merge it first: `reasoner export {model} FOLDER`, then evaluate FOLDER."
        )
    written = next((parent / "config.yaml" for parent in list(found.parents)[:3] if _is_run(parent)), None)
    return str(found), load_config(str(written)).stages[0] if written else None


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file()
