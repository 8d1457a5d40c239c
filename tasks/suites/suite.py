"""What an evaluation set is: one record, from its data to its figure."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from verifiers import JSON

Row = Mapping[str, object]
QUESTION = "{question}"
"""What stands for the question in a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a row asks."""

    question: str
    reference: JSON
    """In the schema of the suite's verifier, or of `verifier`."""
    part: str = ""
    """Of the suite, where it has several: a subject, a subtask."""
    verifier: str | None = None
    """Where it is another than the suite's."""
    options: Mapping[str, JSON] | None = None
    """Of that verifier."""
    demonstration: str | None = None
    """A completion that its authors hold correct."""


class Difference(NamedTuple):
    """Where a definition departs from one of its sources."""

    source: str
    there: str
    here: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One evaluation set, as `reasoner eval --suite NAME` runs it."""

    name: str
    title: str
    hub: str
    """Its data set on the Hugging Face hub."""
    configs: tuple[str, ...] = ()
    """Configurations of the data set, one after the other; none: it has one."""
    split: str = "test"
    size: int
    """Problems in all."""
    columns: str
    """That a row must have, in words."""
    read: Callable[[Row, random.Random], Asked | None]
    """What a row asks; None: the row is of no part of the suite. Raises `UnfitRow`. The random state is the row's."""
    prompt: str
    """With `{question}` for the question."""
    verifier: str
    options: Mapping[str, JSON] = field(default_factory=dict[str, "JSON"])
    """Of the verifier."""
    samples: int = 1
    """Completions of each problem."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int
    """Of a completion."""
    metric: str
    """What the field calls its figure: always the mean over problems of the share of completions that are right."""
    over_parts: bool = False
    """The figure is the mean of the parts' means, each part counting the same."""
    sources: tuple[str, ...]
    """Paper and harness."""
    differs: tuple[Difference, ...] = ()

    def asks(self, asked: Asked, prompt: str | None = None) -> str:
        """What a model is asked.

        Args:
            asked: of a row.
            prompt: in the place of the suite's.
        """
        return (prompt or self.prompt).replace(QUESTION, asked.question)
