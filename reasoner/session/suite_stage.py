"""Input records of an evaluation on suites. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reasoner.config.stage import StageConfig
from tasks.suites.suite import Suite


class SuiteStage(NamedTuple):
    """A suite and the stage that runs it."""

    suite: Suite
    stage: StageConfig
    own_tokens: bool
    """True if the user set the completion length; otherwise it is reduced for a model with a small context."""


class Learned(NamedTuple):
    """The training data of a model of a run."""

    stages: Sequence[StageConfig]
    """Stages of the run, up to the one that wrote the model."""
    refused: str = ""
    """Reason why the data cannot be read; "" if it can."""
