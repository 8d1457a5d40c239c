"""Error messages of a config: the key, the fault, and the key probably meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from verifiers.suggest import closest

OTHER_NAMES: Mapping[str, str] = {
    "adv_estimator": "algorithm.advantage",
    "advantage_estimator": "algorithm.advantage",
    "batch_size": "rollout.problems_per_step",
    "beta": "algorithm.kl_coef",
    "clip_ratio": "algorithm.loss_options.clip_low",
    "clip_ratio_high": "algorithm.loss_options.clip_high",
    "clip_ratio_low": "algorithm.loss_options.clip_low",
    "eos_token": "prompt.end_tokens",
    "epsilon": "algorithm.loss_options.clip_low",
    "epsilon_high": "algorithm.loss_options.clip_high",
    "eval_steps": "eval.every",
    "generate_max_len": "rollout.max_tokens",
    "gradient_accumulation_steps": "batch.micro_tokens",
    "init_kl_coef": "algorithm.kl_coef",
    "kl_loss_coef": "algorithm.kl_coef",
    "lambda": "gkd.lmbda",
    "learning_rate": "optim.lr",
    "loss_type": "algorithm.loss",
    "lr_scheduler_type": "optim.schedule",
    "mask_truncated_completions": "algorithm.mask_truncated",
    "max_completion_length": "rollout.max_tokens",
    "max_response_length": "rollout.max_tokens",
    "max_steps": "steps",
    "max_tokens": "rollout.max_tokens",
    "micro_batch_size": "batch.micro_tokens",
    "model_name_or_path": "model.path",
    "multi_objective_aggregation": "algorithm.normalize_components",
    "n": "rollout.group_size",
    "n_samples_per_prompt": "rollout.group_size",
    "num_generations": "rollout.group_size",
    "num_iterations": "optim.inner_epochs",
    "output_dir": "output",
    "overlong_filtering": "algorithm.mask_truncated",
    "per_device_train_batch_size": "rollout.problems_per_step",
    "ppo_epochs": "optim.inner_epochs",
    "report_to": "logging.trackers",
    "reward_funcs": "task.verifier",
    "rollout_batch_size": "rollout.problems_per_step",
    "rollouts_per_example": "rollout.group_size",
    "save_steps": "checkpoint.every",
    "shuffle_dataset": "rollout.shuffle",
    "stop_token_ids": "prompt.end_tokens",
    "teacher_model": "teacher.path",
    "teacher_model_name_or_path": "teacher.path",
    "train_batch_size": "rollout.problems_per_step",
}
"""Keys of TRL, verl, OpenRLHF and prime-rl, each with the key here that has the same or the closest effect."""


WHOLE_DISTRIBUTION: Mapping[str, float] = {"top_p": 1.0, "top_k": 0}


def without_cuts(rollout: Mapping[str, object]) -> dict[str, object]:
    """Return a rollout section without top_p and top_k, if their values keep the whole distribution.

    Raises:
        ValueError: one has another value; the message explains why training has no such setting.
    """
    for name, whole in WHOLE_DISTRIBUTION.items():
        if rollout.get(name, whole) != whole:
            raise ValueError(
                "top_p below 1 or top_k in training biases every importance ratio: the engine renormalises over the"
                f" nucleus, the trainer does not; got {name}={rollout[name]}. Leave it out here; evaluation may use it"
            )
    return {name: value for name, value in rollout.items() if name not in WHOLE_DISTRIBUTION}


def explained(problem: ErrorDetails, root: type[BaseModel]) -> str:
    """Rephrase one of pydantic's errors on a section."""
    location = [str(part) for part in problem["loc"]]
    name = ".".join(location)
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")
        given = problem.get("input")
        shown = f"; got {given!r}" if isinstance(given, str | int | float) else ""
        return f"{name + ': ' if name else ''}{message}{shown}"
    known = list(_section_at(root, location[:-1]).model_fields)
    meant = _meant(location[-1], known, root)
    hint = f" Did you mean {' or '.join(map(repr, meant))}?" if meant else f" Known here: {', '.join(known)}."
    return f"unknown key {name!r}.{hint}"


def _meant(key: str, known: Sequence[str], root: type[BaseModel]) -> list[str]:
    """Suggest keys for an unknown one: of similar spelling, known under another name, or in another config section."""
    if close := closest(key, known, cutoff=0.75):
        return [close]
    sections = {name: _section_of(field.annotation) for name, field in root.model_fields.items()}
    elsewhere = [f"{name}.{key}" for name, section in sections.items() if section and key in section.model_fields]
    other = [OTHER_NAMES[key]] if key in OTHER_NAMES else []
    further = other + (elsewhere if len(elsewhere) < 4 else [])
    return further or [name for name in [closest(key, known)] if name]


def _section_at(root: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    section = root
    for part in path:
        if part.isdigit() or part not in section.model_fields:
            continue
        section = _section_of(section.model_fields[part].annotation) or section
    return section


def _section_of(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _section_of(inner)) is not None), None)
