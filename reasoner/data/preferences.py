"""Preference data: which of two completions of one prompt is better. Reads several row shapes, returns `Pair`s.

A row has one of these shapes, recognised by its columns (`preferences.columns` renames them), or is converted to one
(`tasks.inputs.formats`):
  {prompt, chosen, rejected}         texts; prompt, chosen and rejected may be lists of chat messages
  {chosen, rejected}                 whole conversations: messages, or transcripts of "Human:" and "Assistant:" turns
  {prompt, first, second, label}     the label names the better one, or a tie
Optional columns: `probability` (that the first is better), `margin`, `category` (or `subset`) and `id`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reasoner.config.sections import PreferenceSection
from reasoner.data.rows import Source, chat_of, divided, held_out_paths, source_in, usable_rows
from tasks import BadRow, Message, UnusableRow
from tasks.inputs.formats import Reading, UnfitRow
from tasks.inputs.spool import Picked
from verifiers.kit.probes import Subject, opinion_of
from verifiers.suggest import did_you_mean

PAIR_SHAPE = (
    "{prompt, chosen, rejected}, {chosen, rejected} of whole conversations, or {prompt, first, second, label}, or of a"
    " format of docs/data.md (preferences.format); other columns are named by preferences.columns"
)
"""Description of a preference row, for error messages."""
Prompt = str | tuple[Message, ...]
OPTIONAL = frozenset({"id", "prompt", "probability", "margin", "category"})
"""Columns that a row may lack."""
TURN = re.compile(r"\n\n(Human|Assistant): ?")
ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two completions of one prompt, the better one first.

    Example:
        >>> Pair(id="0", prompt="Say hello.", first="Hello!", second="No.").target
        1.0
    """

    id: str
    """File and row number, or the row's own id."""
    prompt: Prompt
    first: str
    """The better completion, or the one more likely to be; in a tie, either."""
    second: str
    target: float = 1.0
    """Probability that the first is better: 1; 0.5 for a tie; or a value between with `targets: probability`."""
    margin: float = 0.0
    """How much better the first is, in units of the reward; >= 0."""
    category: str = ""

    @property
    def subject(self) -> Subject:
        """The pair for the probes of a score: its user believes the worse completion."""
        return Subject(prompt=self.prompt, completions=(self.first, self.second), opinion=opinion_of(self.second))


class Pairs(NamedTuple):
    """Usable pairs and bad rows."""

    pairs: Sequence[Pair]
    bad: list[BadRow]
    notes: Sequence[str] = ()
    """Notes for the user on how the rows were found."""


class Splits(NamedTuple):
    """Training pairs and held-out pairs."""

    train: Pairs
    test: Pairs


def load_pairs(section: PreferenceSection) -> Splits:
    """Load the pairs of a config section; each file is read once.

    If the section has no `test` and the data has no test split, `train` is split by a digest of the prompt: all pairs
    of one prompt are on the same side, on every machine, in any order of the rows.
    """

    def read(paths: Sequence[str], split: Literal["train", "test"]) -> Pairs:
        notes: list[str] = []
        pairs, bad = usable_rows(
            preferences_in(section, split, paths),
            read=lambda row, where: pair_of(row, section, where=where),
            notes=notes,
        )
        if section.ties != "drop":
            return Pairs(pairs, bad, notes)
        return Pairs(Picked(pairs, (place for place, pair in enumerate(pairs) if pair.target != 0.5)), bad, notes)

    pairs, bad, notes = read(section.train, "train")
    paths, own = held_out_paths(section, section.train, use="preferences", share=section.held_out_share)
    if paths:
        test = read(paths, "test")
        test = test._replace(notes=[*own, *test.notes])
    else:
        pairs, tests = divided(pairs, section.held_out_share)
        test = Pairs(tests, [])
    return Splits(Pairs(pairs[: section.limit], bad, notes), test)


def preferences_in(section: PreferenceSection, split: Literal["train", "test"], paths: Sequence[str]) -> Source:
    """Return the preferences of a config section, read from `paths`."""
    return source_in(section, paths, use="preferences", split=split, optional=OPTIONAL)


def read_pair(row: Mapping[str, object], section: PreferenceSection, *, where: str) -> Pair:
    """Read one row in the data's own columns as a pair, the better completion first.

    Raises:
        UnusableRow: a column is missing, the label is unknown, a completion is empty, or both are the same.
    """
    try:
        renamed = Reading(None, section.columns, OPTIONAL).read(row)
    except UnfitRow as error:
        raise UnusableRow(str(error)) from error
    return pair_of(renamed, section, where=where)


def pair_of(row: Mapping[str, object], section: PreferenceSection, *, where: str) -> Pair:
    """Convert a row in this module's columns to a pair; raises UnusableRow as `read_pair` does."""
    prompt, first, second = _sides(row)
    target = _target(row, section)
    if target < 0.5:
        first, second, target = second, first, 1 - target
    for side, text in (("chosen", first), ("rejected", second)):
        if not text.strip():
            raise UnusableRow(f"the {side} completion is empty")
    if first == second:
        raise UnusableRow("chosen and rejected are the same text")
    if fault := prompt_fault(prompt):
        raise UnusableRow(fault)
    return Pair(
        id=id_of(row, where),
        prompt=prompt,
        first=first,
        second=second,
        target=target,
        margin=_margin(row.get("margin")),
        category=category_of(row),
    )


def id_of(row: Mapping[str, object], where: str) -> str:
    """Return the row's own id, which may be 0; `where` it is without one."""
    own = row.get("id")
    return where if own is None or own == "" else str(own)


def category_of(row: Mapping[str, object]) -> str:
    """Return the category of a row, which RewardBench and others call its subset; "" without one."""
    return str(row.get("category") or row.get("subset") or "")


def prompt_fault(prompt: Prompt) -> str | None:
    """Return why a prompt cannot be answered; None if it can."""
    if not (prompt.strip() if isinstance(prompt, str) else "".join(m["content"] for m in prompt).strip()):
        return "the prompt is empty"
    if not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
        return "its prompt ends with an assistant turn: leave that turn out"
    return None


def answer_of(value: object, given: object, key: str) -> tuple[Prompt, str]:
    """Return the prompt that a completion answers, and the completion's text.

    Args:
        value: the completion: text, or messages that end with an assistant's, which may repeat the prompt.
        given: the prompt: text or messages.
        key: the completion's column, for messages.
    Raises:
        UnusableRow: they are neither text nor messages, or do not fit together.
    """
    side = _side(value, key)
    return _head(side, _conversation(given, "prompt")), _last(side)


TARGETS: Mapping[Literal["first", "second", "tie"], float] = {"first": 1.0, "second": 0.0, "tie": 0.5}


def _sides(row: Mapping[str, object]) -> tuple[Prompt, str, str]:
    labelled = "first" in row and "second" in row
    keys = ("first", "second") if labelled else ("chosen", "rejected")
    for key in keys:
        if row.get(key) is None:
            names = [*map(str, row)]
            meant = did_you_mean(key, names) if key not in names else ""
            raise UnusableRow(f"has no value in column {key!r} (columns: {', '.join(names) or 'none'}){meant}")
    given = row.get("prompt")
    if given is not None:
        answers = [answer_of(row[key], given, key) for key in keys]
        if answers[0][0] != answers[1][0]:
            raise UnusableRow("chosen and rejected must be the same conversation up to a last assistant turn")
        return answers[0][0], answers[0][1], answers[1][1]
    whole = [turns for turns in (_side(row[key], key) for key in keys) if not isinstance(turns, str)]
    if len(whole) < 2:
        raise UnusableRow(
            "has no column 'prompt', and its completions are not whole conversations. Name the column"
            " (preferences.columns), or use the common beginning of both texts (preferences.format: trl_implicit)"
        )
    if whole[0][:-1] != whole[1][:-1] or whole[0][-1]["role"] != "assistant" or whole[1][-1]["role"] != "assistant":
        raise UnusableRow("chosen and rejected must be the same conversation up to a last assistant turn")
    return whole[0][:-1], whole[0][-1]["content"], whole[1][-1]["content"]


def _side(value: object, key: str) -> str | tuple[Message, ...]:
    """Return a completion as text, or a conversation as turns."""
    if isinstance(value, str):
        return transcript(value) or value
    return _conversation(value, key)


def _conversation(value: object, key: str) -> Prompt:
    return value if isinstance(value, str) else chat_of(value, key)


def _last(side: str | tuple[Message, ...]) -> str:
    """Return the completion of a side: the text itself, or the content of its last message."""
    return side if isinstance(side, str) else side[-1]["content"]


def _head(side: str | tuple[Message, ...], prompt: Prompt) -> Prompt:
    """Return the prompt that a side answers: `prompt`, with the system message that the side puts before it, if any."""
    head = () if isinstance(side, str) else side[:-1]
    if not head or head == prompt:
        return prompt
    if isinstance(prompt, str) and head[-1]["role"] == "user" and head[-1]["content"].strip() == prompt.strip():
        before = head[:-1]
        if not before:
            return prompt
        if all(message["role"] == "system" for message in before):
            return head
    raise UnusableRow("a completion of several messages must repeat the prompt and add one assistant message")


def transcript(text: str) -> tuple[Message, ...] | None:
    r"""Split "\n\nHuman: ...\n\nAssistant: ..." into turns; None if the text is not such a transcript.

    Example:
        >>> [m["role"] for m in transcript("\n\nHuman: hi\n\nAssistant: hello") or ()]
        ['user', 'assistant']
    """
    parts = TURN.split(text)
    if len(parts) < 5 or parts[0].strip():
        return None
    return tuple(
        Message(role=ROLES[who], content=content.strip()) for who, content in zip(parts[1::2], parts[2::2], strict=True)
    )


def _target(row: Mapping[str, object], section: PreferenceSection) -> float:
    if section.targets == "probability" and (given := row.get("probability")) is not None:
        if not isinstance(given, int | float) or not 0 <= given <= 1:
            raise UnusableRow(f"probability must be a number from 0 to 1; got {given!r}")
        return float(given)
    if "first" not in row or "second" not in row:
        return 1.0
    label = row.get("label")
    for side, target in TARGETS.items():
        if str(label).strip() in section.labels.get(side, []):
            return target
    known = ", ".join(repr(value) for side in TARGETS for value in section.labels.get(side, []))
    raise UnusableRow(f"label {label!r} must be one of {known}; see preferences.labels")


def _margin(value: object) -> float:
    if value is None:
        return 0.0
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise UnusableRow(f"margin must be a finite number >= 0; got {value!r}")
    return float(value)


def shares(pairs: Iterable[Pair]) -> Iterator[str]:
    """Describe a data set in a line: pairs, ties, and how often the chosen completion is longer."""
    count = ties = longer = 0
    for pair in pairs:
        count += 1
        ties += pair.target == 0.5
        longer += pair.target != 0.5 and len(pair.first) > len(pair.second)
    yield f"{count} pairs, {ties} ties; the chosen is the longer one in {longer} of {count - ties}"
