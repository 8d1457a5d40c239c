"""Rows on which a reward model is measured: a prompt, the completions that are right, and those that are wrong.

A row is a preference (reasoner/data/preferences.py), or has several completions on a side:
  {prompt, chosen: [...], rejected: [...]}   as in RewardBench 2 (allenai/reward-bench-2)
Each completion is text, or messages that end with the assistant's. Optional columns: `id`, `subset` (or `category`),
and the counts `num_correct`, `num_incorrect` and `total_completions`, which must then be those of the lists. In a
table of text (CSV) a list with such a count may be written as JSON. No torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reasoner.config.sections import PreferenceSection
from reasoner.data.preferences import Prompt, answer_of, category_of, id_of, pair_of, preferences_in, prompt_fault
from reasoner.data.rows import usable_rows
from tasks import BadRow, UnusableRow
from tasks.inputs.spool import Picked
from verifiers.jsonl import is_list, is_object

CHOICE_SHAPE = (
    "{prompt, chosen, rejected} with one completion or a list of them on each side, and optionally subset, or a"
    " preference of another format of docs/data.md (preferences.format); other columns are named by preferences.columns"
)
"""Description of a row, for error messages."""
COUNTS = {"num_correct": ("chosen",), "num_incorrect": ("rejected",), "total_completions": ("chosen", "rejected")}
"""Column of a count -> the columns whose completions it counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One prompt with right and wrong completions.

    Example:
        >>> Choice(id="0", prompt="2+2=?", chosen=("4",), rejected=("5", "22")).rejected
        ('5', '22')
    """

    id: str
    """The row's own id, or file and row number."""
    prompt: Prompt
    chosen: tuple[str, ...]
    """The right completions; at least one."""
    rejected: tuple[str, ...]
    """The wrong completions; at least one."""
    subset: str = ""
    tie: bool = False
    """True if the label says that neither completion is better."""


class Choices(NamedTuple):
    """Usable rows, and those left out."""

    rows: Sequence[Choice]
    bad: list[BadRow]
    ties: int
    """Number of rows labelled as ties, which have no right completion and are left out."""
    notes: Sequence[str]
    """Notes for the user on how the rows were found."""


def load_choices(section: PreferenceSection) -> Choices:
    """Read the rows of `train`, from their test split where the data have several."""
    notes: list[str] = []
    found, bad = usable_rows(
        preferences_in(section, "test", section.train),
        read=lambda row, where: choice_of(row, section, where=where),
        notes=notes,
    )
    decided = Picked(found, (place for place, choice in enumerate(found) if not choice.tie))
    return Choices(decided, bad, len(found) - len(decided), notes)


def choice_of(row: Mapping[str, object], section: PreferenceSection, *, where: str) -> Choice:
    """Read a row in our columns.

    Raises:
        UnusableRow: a column is missing, a completion is empty, right and wrong at once or not an answer to the
            prompt, or a count differs from the list.
    """
    sides = {key: _several(row, key) for key in ("chosen", "rejected")}
    if sides == {"chosen": None, "rejected": None}:
        pair = pair_of(row, section, where=where)
        return Choice(
            id=pair.id,
            prompt=pair.prompt,
            chosen=(pair.first,),
            rejected=(pair.second,),
            subset=pair.category,
            tie=pair.target == 0.5,
        )
    if row.get("prompt") is None:
        raise UnusableRow("has no value in column 'prompt', which rows with lists of completions need")
    answers = {
        key: [answer_of(one, row["prompt"], key) for one in ([row.get(key)] if several is None else several)]
        for key, several in sides.items()
    }
    prompts = [prompt for side in answers.values() for prompt, _ in side]
    chosen, rejected = (tuple(text for _, text in answers[key]) for key in ("chosen", "rejected"))
    if fault := _fault(prompts, chosen, rejected):
        raise UnusableRow(fault)
    for column, counted in COUNTS.items():
        number = sum(len(answers[key]) for key in counted)
        if (given := row.get(column)) is not None and str(given) != str(number):
            raise UnusableRow(f"{column} is {given}, but {' and '.join(counted)} have {number} completions")
    return Choice(
        id=id_of(row, where),
        prompt=prompts[0],
        chosen=chosen,
        rejected=rejected,
        subset=category_of(row),
    )


def _several(row: Mapping[str, object], key: str) -> Sequence[object] | None:
    """Return the completions of a side that is a list of them; None if it is one completion."""
    value = row.get(key)
    if isinstance(value, str) and value.lstrip().startswith("[") and any(row.get(count) for count in COUNTS):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UnusableRow(f"{key} has a count, but is not a list of completions: {error}") from error
    if not is_list(value) or (value and all(map(is_object, value))):  # messages are one completion
        return None
    return value


def _fault(prompts: Sequence[Prompt], chosen: Sequence[str], rejected: Sequence[str]) -> str | None:
    """Return why right and wrong completions cannot be compared; None if they can."""
    for side, texts in (("chosen", chosen), ("rejected", rejected)):
        if not texts:
            return f"{side} must have at least one completion"
        if not all(text.strip() for text in texts):
            return f"a {side} completion is empty"
    if {*chosen} & {*rejected}:
        return "the same text is chosen and rejected"
    if any(prompt != prompts[0] for prompt in prompts):
        return "all completions must answer the same conversation"
    return prompt_fault(prompts[0])
