"""Checks before any model is loaded: names, options, paths and libraries of every stage."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.engine import engine_class
from reasoner.monitoring.trackers import check_trackers
from reasoner.policy.optimizer import check_optimizer
from reasoner.stages.names import check_names
from reasoner.stages.references import stage_of


def check_run(config: RunConfig, *, names: bool = True) -> None:
    """Check the names and libraries of all stages before the first one starts.

    Args:
        config: all stages.
        names: False if `check_run_names` has already run.
    Raises:
        ConfigError, ModelError, TaskError, VerifierError: a check failed; the message says what to change.
    """
    for index in range(len(config.stages)):
        stage = stage_of(config, index)
        if names:
            check_names(stage, coming=Path(config.output) if index else None)
        check_libraries(stage)


def check_stage(stage: StageConfig, *, coming: Path | None) -> None:
    """Check names and libraries of one stage; arguments and errors are those of `check_names`."""
    check_names(stage, coming=coming)
    check_libraries(stage)


def check_libraries(stage: StageConfig) -> None:
    """Check that the stage's engine, trackers, optimizer and loss are available and accept their options.

    Raises:
        ConfigError: one is not or does not; the message says what to change or to install.
    """
    engine = engine_class(stage.engine.name, stage.engine.options)
    if stage.rollout.ahead and not engine.runs_beside:
        raise ConfigError(
            "bad-value",
            f"rollout.ahead must be 0 with engine.name={stage.engine.name}, which samples in the trainer's own process"
            f" and cannot do so while the policy learns; got {stage.rollout.ahead}. Use vllm-server or hf.",
        )
    if stage.rollout.goes_on:
        if not engine.loads_beside:
            raise ConfigError(
                "bad-value",
                f"rollout.during_update must be wait with engine.name={stage.engine.name}, which takes no new weights"
                " while it samples; got go_on. Use vllm-server.",
            )
        if stage.model.lora is not None and stage.engine.options.get("lora") != "merged":
            raise ConfigError(
                "bad-value",
                "engine.options.lora must be merged with model.lora and rollout.during_update=go_on, because vLLM"
                " finishes each completion with the adapter that it began with. Or set during_update to pin, which says"
                " so of the whole batch.",
            )
    if stage.rollout.pins:
        if not engine.pins:
            raise ConfigError(
                "bad-value",
                f"rollout.during_update must be wait with engine.name={stage.engine.name}, which has one version of the"
                " weights at a time; got pin. Use vllm-server.",
            )
        if stage.model.lora is None or stage.engine.options.get("lora") == "merged":
            lacking = "without model.lora" if stage.model.lora is None else "with engine.options.lora=merged"
            raise ConfigError(
                "bad-value",
                f"rollout.during_update must be go_on or wait {lacking}; got pin. Of whole models a server has one"
                " version at a time: only adapters stand beside one another.",
            )
    check_trackers(stage.logging.trackers)
    check_optimizer(stage)
    check = METHODS[stage.method].check
    if check is not None:
        pkgutil.resolve_name(check)(stage)
