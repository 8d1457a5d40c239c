"""`reasoner eval`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.cli.loading import loading_told
from reasoner.config.errors import ConfigError
from reasoner.config.mappings import deep_merge

if TYPE_CHECKING:
    from reasoner.cli.model_argument import Given
    from reasoner.config.stage import StageConfig


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A Hugging Face model by name or folder, or a run.", autocompletion=complete.runs)
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key.key=value as for `reasoner train`: eval.samples=8, prompt.stop=[].")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Name of a task, or module:Class (see `reasoner tasks list`). Default: all of a run's own.",
            autocompletion=complete.tasks,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            help="Evaluation sets by name, a,b,c (see `reasoner suites`), each with its own definition.",
            autocompletion=complete.suites,
        ),
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Path of a suite's data: SUITE=PATH; repeatable.")
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            "--pairs",
            help="Rows {prompt, chosen, rejected} for a reward model, as in RewardBench, RewardBench 2 or docs/data.md;"
            " repeatable.",
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="Completions per problem (K). Default: 1.")
    ] = None,
    problems: Annotated[
        int | None, typer.Option("--problems", min=1, help="Maximum number of problems. Default: 512.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split of the task. Default: test.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="Option of the task: key=value; repeatable.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="vllm or hf. Default: vllm.", autocompletion=complete.engines)
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0, help="Default: 1.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", min=0.01, max=1.0, help="Default: 1.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Maximum tokens of a completion. Default: 512.")
    ] = None,
    chat: Annotated[str | None, typer.Option("--chat", help="Use the chat template: auto, always or never.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt.")] = None,
    template: Annotated[
        str | None, typer.Option("--template", help="Text around each prompt, which replaces {prompt} in it.")
    ] = None,
    verifier: Annotated[
        str | None,
        typer.Option("--verifier", help="Verifier instead of the task's own.", autocompletion=complete.verifiers),
    ] = None,
    verifier_option: Annotated[
        list[str] | None, typer.Option("--verifier-option", help="Option of the verifier: key=value; repeatable.")
    ] = None,
    allow_row_code: Annotated[
        bool,
        typer.Option("--allow-row-code", help="The run's own config may name Python files, modules and URLs."),
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="Default: 0.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for evals.jsonl and every completion; for suites: suites/MODEL."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the metrics as one JSON object.")] = False,
) -> None:
    """Evaluate a model: unbiased pass@k, avg@k and maj@k, each with a 95 % interval.

    A run is evaluated with the settings of its own evaluations: its tasks with their options and verifiers, its `eval`
    section, prompt and seed. A model with a prompt.json is evaluated with the prompt and sampling in that file. Options
    given here take precedence. For any other model the defaults are those of the options.

    A suite is evaluated by its own definition; options given here are recorded as deviations from it. Each suite's
    result is written as soon as it is finished: the same command continues after an interruption.

    A reward model is evaluated on --pairs: accuracy by subset, calibration, bias towards length (docs/rlhf.md).
    """
    with plain_errors():
        from reasoner.cli.model_argument import model_and_stage
        from reasoner.cli.reward_pairs import check_no_other, check_samples, on_pairs, read_pairs
        from reasoner.cli.suites import data_paths, suite_names
        from reasoner.cli.tasks import task_options
        from reasoner.config.found import check_found
        from reasoner.config.load import resolve
        from reasoner.engine.environment import go_offline_where_cut_off, prepare_process, skip_unused_packages
        from reasoner.model.paths import check_model
        from reasoner.stages.names import check_tasks

        prepare_process()
        found = model_and_stage(model)
        folder, trained = found.path, found.stage
        check_model(folder, "MODEL")
        if pairs:
            check_no_other(
                {
                    "--task": task, "--suite": suite, "--data": data, "--samples": samples, "--split": split,
                    "--option": option, "--engine": engine, "--temperature": temperature, "--top-p": top_p,
                    "--max-tokens": max_tokens, "--verifier": verifier, "--verifier-option": verifier_option,
                    "--seed": seed,
                }
            )  # fmt: skip
            prompt = _given({"chat": chat, "system": system, "template": template})
            stage, choices = read_pairs(found, pairs, prompt=prompt, overrides=overrides or [])
            _while_it_is_there(
                found,
                model,
                lambda folder: on_pairs(
                    _of_model(stage, folder), choices, most=problems, output=output, as_json=as_json
                ),
            )
            return
        check_samples(found, model)
        names = suite_names(suite) if suite is not None else []
        if names and (task or split or option or verifier or verifier_option):
            raise ConfigError(
                "bad-value",
                "--suite takes no --task, --split, --option, --verifier or --verifier-option: a suite defines its own.",
            )
        if data and not names:
            raise ConfigError("bad-value", "--data needs --suite: it gives the path of a suite's data.")
        if trained is not None and not allow_row_code:
            check_found(trained, task="suite" if names else task, verifier=verifier, engine=engine)
        given: dict[str, dict[str, object]] = {
            "eval": {
                "problems": problems, "samples": samples, "temperature": temperature, "top_p": top_p,
                "max_tokens": max_tokens,
            },
            "prompt": {"chat": chat, "system": system, "template": template},
            "engine": {"name": engine},
        }  # fmt: skip
        if names:
            sections = {**given, "eval": {key: one for key, one in given["eval"].items() if key != "problems"}}
            _on_suites(
                found,
                names,
                {name: _given(section) for name, section in sections.items()},
                model=model,
                paths=data_paths(data, names),
                overrides=overrides or [],
                seed=seed or 0,
                problems=problems,
                output=output,
                as_json=as_json,
                any_code=allow_row_code,
            )
            return
        tasks = _tasks(
            trained,
            task,
            model=model,
            options=task_options(option),
            split=split,
            verifier=verifier,
            verifier_options=task_options(verifier_option, flag="--verifier-option"),
        )
        raw = deep_merge(_own_settings(found), {name: _given(section) for name, section in given.items()})
        raw["model"] = {**_held_as(trained), "path": folder}
        raw |= {"task": tasks, **_given({"seed": seed})}
        stage = resolve(raw, overrides or [], where="reasoner eval").stages[0]
        check_tasks(stage, coming=None)
        with loading_told("torch and the engine"):
            go_offline_where_cut_off()
            skip_unused_packages()
            from reasoner.session.evaluate_model import evaluate_model

        typer.echo("\n".join(_setting_lines(stage, found)), err=True)

        _while_it_is_there(
            found,
            model,
            lambda folder: evaluate_model(_of_model(stage, folder), output=output, as_json=as_json),
        )


def _on_suites(
    found: Given,
    names: Sequence[str],
    given: Mapping[str, Mapping[str, object]],
    *,
    model: str,
    paths: Mapping[str, str],
    overrides: Sequence[str],
    seed: int,
    problems: int | None,
    output: Path | None,
    as_json: bool,
    any_code: bool,
) -> None:
    """Evaluate on suites: with the model's own prompt and engine, and otherwise by the suites' definitions."""
    from reasoner.cli.suites import learned_by, results_folder, said, suite_stages
    from reasoner.engine.environment import go_offline_where_cut_off, skip_unused_packages

    own = {name: section for name, section in _own_settings(found).items() if name in ("prompt", "engine", "grading")}
    own["model"] = {**_held_as(found.stage), "path": found.path}
    stages = suite_stages(names, paths, own, given, overrides, seed=seed, problems=problems)
    learned = learned_by(found, any_code=any_code)
    typer.echo("\n".join(said(stages)), err=True)
    with loading_told("torch and the engine"):
        go_offline_where_cut_off()
        skip_unused_packages()
        from reasoner.session.evaluate_suites import evaluate_suites

    def measure(folder: Path | str) -> None:
        asked = [one._replace(stage=_of_model(one.stage, folder)) for one in stages]
        evaluate_suites(asked, model=model, output=output or results_folder(model), learned=learned, as_json=as_json)

    _while_it_is_there(found, model, measure)


def _of_model(stage: StageConfig, folder: Path | str) -> StageConfig:
    """Return a copy of the stage with the model in this folder."""
    return stage.model_copy(update={"model": stage.model.model_copy(update={"path": str(folder)})})


def _while_it_is_there(found: Given, model: str, measure: Callable[[Path | str], object]) -> None:
    """Measure a model. If its run removes the checkpoint before it is loaded, measure the next one."""
    from reasoner.storage.find_model import read_model

    if found.path == model:
        measure(model)
    else:
        read_model(Path(model), measure)


def _given(section: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in section.items() if value is not None}


def _own_settings(found: Given) -> dict[str, object]:
    """Return the settings of a run's evaluations; without a run those kept with the model, or the defaults."""
    trained = found.stage
    if trained is None:
        if found.kept is None:
            return {"eval": {"problems": 512}, "rollout": {"max_tokens": 512}}
        sampling = found.kept.sampling
        return {
            "eval": {"problems": 512, **sampling.model_dump(include={"temperature", "top_p"})},
            "prompt": found.kept.prompt.model_dump(),
            "rollout": {"max_tokens": sampling.max_tokens},
        }
    held_out = trained.eval.model_dump(exclude={"metric"})
    if not trained.eval.problems:
        held_out["problems"] = 512
    engine: dict[str, object] = trained.engine.model_dump(exclude={"sync_check"})
    if trained.engine.name == "vllm-server":  # its servers no longer run
        engine = {"name": "vllm"}
    return {
        "seed": trained.seed,
        "eval": held_out,
        "prompt": trained.prompt.model_dump(),
        "rollout": {"max_tokens": trained.rollout.max_tokens},
        "grading": trained.grading.model_dump(include={"workers", "memory_megabytes", "wall_seconds"}),
        "engine": engine,
    }


def _held_as(trained: StageConfig | None) -> dict[str, object]:
    return trained.model.model_dump(include={"dtype", "attention", "max_context"}) if trained else {}


def _tasks(
    trained: StageConfig | None,
    name: str | None,
    *,
    model: str,
    options: Mapping[str, object],
    split: str | None,
    verifier: str | None,
    verifier_options: Mapping[str, object],
) -> list[dict[str, Any]]:
    """Return the tasks to evaluate on: the run's own or the named one, with the given settings applied.

    Raises:
        ConfigError: no task is named, and the model does not come from a run with a task.
    """
    own = list(trained.task) if trained else []
    chosen: list[dict[str, Any]] = [section.model_dump() for section in own if name in (None, section.name)]
    if not chosen:
        if name is None:
            of = (
                "does not come from a run that has one"
                if Path(model).exists()
                else "is not a local folder, and a hub model names no task"
            )
            raise ConfigError("bad-value", f"--task must name a task: {model} {of}.")
        chosen = [{"name": name}]
    for section in chosen:
        section["options"] = {**section.get("options", {}), **options}
        section["eval_split"] = split or section.get("eval_split", "test")
        if verifier is not None:
            section["verifier"] = {"name": verifier, "options": dict(verifier_options)}
        elif verifier_options:
            if section.get("verifier") is None:
                raise ConfigError("bad-value", "--verifier-option needs --verifier, or a run with task.verifier.")
            section["verifier"]["options"] |= verifier_options
    return chosen


def _setting_lines(stage: StageConfig, found: Given) -> Iterator[str]:
    """Yield lines with the settings of the evaluation."""
    section, prompt = stage.eval, stage.prompt
    of_run = "by the settings of the run and those given" if found.stage else "settings"
    of_model = "by the settings kept with the model and those given"
    yield (
        f"{of_model if found.kept and not found.stage else of_run}: {section.problems} problems x"
        f" {section.samples}, temperature {section.temperature:g}, top_p {section.top_p:g},"
        f" at most {stage.eval_tokens} tokens, seed {stage.seed}, engine {stage.engine.name}"
    )
    for task in stage.task:
        graded = f"{task.verifier.name} {task.verifier.options or ''}".rstrip() if task.verifier else "the task's own"
        yield f"  task {task.name} {task.eval_split} {task.options or ''}".rstrip() + f", verifier: {graded}"
    changed = prompt.model_dump(exclude_defaults=True)
    yield f"  prompt: {changed or 'as the task has it'}"
