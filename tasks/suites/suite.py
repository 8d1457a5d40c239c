"""Definition of an evaluation set as one record, from its data to its metric."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from verifiers import JSON

Row = Mapping[str, object]
QUESTION = "{question}"
"""Placeholder of the question in a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Question of a row, with its reference."""

    question: str
    reference: JSON
    """In the format of `verifier` or, if it is None, of the suite's verifier."""
    part: str = ""
    """Subject or subtask, if the suite has several parts."""
    verifier: str | None = None
    """Verifier of this row; None: the suite's."""
    options: Mapping[str, JSON] | None = None
    """Options of the verifier; None: the suite's."""
    demonstration: str | None = None
    """A correct completion, according to the authors of the data set."""


class Difference(NamedTuple):
    """Difference between a definition and one of its sources."""

    source: str
    there: str
    """Choice of the source."""
    here: str
    """Choice of this suite."""
    why: str
    """Reason for the difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One evaluation set, as `reasoner eval --suite NAME` runs it."""

    name: str
    title: str
    hub: str
    """Name of its data set on the Hugging Face hub."""
    configs: tuple[str, ...] = ()
    """Configurations of the data set that are read in this order; (): the default one."""
    split: str = "test"
    size: int
    """Number of problems."""
    columns: str
    """Columns that a row must have, in words."""
    read: Callable[[Row, random.Random], Asked | None]
    """Reads a row with its own random state; returns None if it belongs to no part of the suite. Raises `UnfitRow`."""
    prompt: str
    """Prompt with the placeholder `{question}`."""
    verifier: str
    options: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Options of the verifier."""
    samples: int = 1
    """Completions per problem."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int
    """Maximum number of tokens of a completion."""
    metric: str
    """Usual name of the metric, which is always the mean over problems of the share of right completions."""
    over_parts: bool = False
    """True: the metric is the unweighted mean of the parts' means."""
    sources: tuple[str, ...]
    """Papers and evaluation harnesses that the definition follows."""
    differs: tuple[Difference, ...] = ()

    def asks(self, asked: Asked, prompt: str | None = None) -> str:
        """Return the prompt of a question.

        Args:
            asked: the question of a row.
            prompt: template with `{question}`; None: the suite's.
        """
        return (prompt or self.prompt).replace(QUESTION, asked.question)
