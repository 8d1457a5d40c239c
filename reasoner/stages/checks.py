"""What no stage could get past, found before a model is loaded."""

from __future__ import annotations

import pkgutil
from pathlib import Path

from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig
from reasoner.engine import engine_class
from reasoner.monitoring.trackers import check_trackers
from reasoner.policy.optimizer import check_optimizer
from reasoner.stages.names import check_names
from reasoner.stages.references import stage_of


def check_run(config: RunConfig, *, names: bool = True) -> None:
    """Raise for whatever a stage needs and will not have, before the first of them begins.

    Args:
        config: all stages.
        names: False where `check_run_names` has looked already.
    Raises:
        ConfigError, ModelError, TaskError, VerifierError: says what to change.
    """
    for index in range(len(config.stages)):
        stage = stage_of(config, index)
        if names:
            check_names(stage, coming=Path(config.output) if index else None)
        check_libraries(stage)


def check_stage(stage: StageConfig, *, coming: Path | None) -> None:
    """Raise for whatever one stage needs and will not have; arguments and errors are those of `check_names`."""
    check_names(stage, coming=coming)
    check_libraries(stage)


def check_libraries(stage: StageConfig) -> None:
    """Raise for an engine, tracker, optimizer or loss that is not here or takes no such options.

    Raises:
        ConfigError: says what to change or to install.
    """
    engine_class(stage.engine.name, stage.engine.options)
    check_trackers(stage.logging.trackers)
    check_optimizer(stage)
    check = METHODS[stage.method].check
    if check is not None:
        pkgutil.resolve_name(check)(stage)
