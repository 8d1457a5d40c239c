"""What an evaluation on suites is given. No torch."""

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
    """Whether the user named the tokens of a completion; otherwise they are fewer where the context is small."""


class Learned(NamedTuple):
    """The training data of a model of a run."""

    stages: Sequence[StageConfig]
    """Of the run, up to the one that made the model."""
    refused: str = ""
    """Why it is not read."""
