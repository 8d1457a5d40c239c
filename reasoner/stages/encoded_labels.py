"""Loading and encoding of a stage's labelled completions, each with a mismatched one. Letters: B rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.algorithm.batch import Batch
from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection
from reasoner.data.encode import batch_of, encode
from reasoner.data.rows import Encoded, RowPolicy, length_fault, report_bad_rows
from reasoner.data.unpaired import UNPAIRED_SHAPE, Labelled, load_unpaired, lopsided, mismatched, one_label
from reasoner.session.session import Session
from tasks import BadRow, UnusableRow
from tasks.inputs.spool import Joined, Spool


class EncodedLabel(NamedTuple):
    """A labelled completion as token ids, and its prompt with a completion of another prompt."""

    desirable: bool
    first: Encoded
    """The prompt and its completion."""
    second: Encoded
    """The prompt and a mismatched completion, from which the KL is estimated."""
    number: int
    """Index among the rows of its split."""


def load_labels(session: Session) -> tuple[Sequence[EncodedLabel], Sequence[EncodedLabel]]:
    """Return training and held-out rows as token ids; unusable rows are left out and reported.

    Raises:
        ConfigError: no training row is left, all have the same label, or a row is unusable and preferences.bad_rows is
            to stop.
    """
    config, policy = session.config, session.policy
    section = config.preferences
    bad: list[BadRow] = []
    sides: list[Sequence[EncodedLabel]] = []
    total = 0
    for split, found in load_unpaired(section, split_pairs=config.kto.split_pairs)._asdict().items():
        limit = min(section.max_tokens or policy.context, policy.context)
        kept, long = encode_labels(found.rows, policy.tokenizer, config.prompt, limit=limit, seed=config.seed)
        total += len(found.rows) + len(found.bad)
        bad += [*found.bad, *long]
        sides.append(kept)
        desirable = sum(row.desirable for row in kept)
        notes = [*found.notes, f"{split}: {len(kept)} rows, {desirable} of them desirable"]
        if split == "train":
            notes += filter(None, [lopsided(desirable, len(kept), config.kto)])
        for note in notes if session.fresh else ():
            session.display.note(note)
    report = report_bad_rows(
        bad,
        total=total,
        policy=RowPolicy(section.bad_rows, "preferences.bad_rows"),
        shape=UNPAIRED_SHAPE,
        folder=session.run.path,
    )
    if report and session.fresh:
        session.display.note(report)
    if not sides[0]:
        raise ConfigError("bad-value", "preferences.train must contain at least one usable row; there is none.")
    if fault := one_label(sum(row.desirable for row in sides[0]), len(sides[0])):
        raise ConfigError("bad-value", f"preferences.train: {fault}.")
    session.same_data("rows", Joined(sides))
    return sides[0], sides[1]


def encode_labels(
    rows: Sequence[Labelled], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, limit: int, seed: int
) -> tuple[Sequence[EncodedLabel], list[BadRow]]:
    """Encode rows; those over `limit` tokens or rejected by the chat template are returned as bad rows.

    A mismatched completion is cut where its row would be over the limit.
    """
    own: Spool[tuple[bool, Encoded]] = Spool()
    prompts: list[int] = []
    bad: list[BadRow] = []
    for row in rows:
        try:
            encoded = encode(row.prompt, row.completion, tokenizer, section, name=row.id)
        except UnusableRow as error:
            bad.append(BadRow(row.id, str(error)))
            continue
        if fault := length_fault(encoded, limit):
            bad.append(BadRow(row.id, fault))
        else:
            own.append((row.desirable, encoded))
            prompts.append(hash(encoded.prompt_ids))
    kept: Spool[EncodedLabel] = Spool()
    for (desirable, first), other in zip(own, mismatched(prompts, seed=seed), strict=True):
        ids = own[other][1].completion_ids[: limit - len(first.prompt_ids)]
        second = replace(first, completion_ids=ids, loss_mask=(True,) * len(ids))
        kept.append(EncodedLabel(desirable, first, second, len(kept)))
    return kept, bad


def labels_batch(rows: Sequence[EncodedLabel]) -> Batch:
    """Build the batch of B labelled rows: reward 1 if desirable, else 0."""
    return batch_of(
        [row.first for row in rows],
        rewards=[float(row.desirable) for row in rows],
        groups=[row.number for row in rows],
    )


def mismatched_batch(rows: Sequence[EncodedLabel]) -> Batch:
    """Build the batch of the rows' mismatched completions."""
    return batch_of([row.second for row in rows], groups=[row.number for row in rows])
