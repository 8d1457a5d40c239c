"""Content of the page, from a run's records: summaries, and rollouts in compressed pieces."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reasoner.monitoring.glossary import GLOSSARY
from reasoner.observe.explain import Finding, History, Row
from reasoner.observe.report.charts import curves, metric_lines
from reasoner.observe.report.choice import chosen
from reasoner.observe.report.evaluations import alarms, before_after, probes
from reasoner.observe.report.records import Columns, Records
from reasoner.storage.files import RunError
from reasoner.storage.history import lines
from reasoner.storage.kept_tokenizer import kept_tokenizer
from verifiers import Outcome
from verifiers.stats import wilson_interval
from verifiers.text import whole

CHUNK = 250
"""Rollouts in one compressed piece, which is decoded to open one of them."""
GAP_UNIT = 1e-3
"""Nats; gaps are stored as integer multiples of it."""
SURPRISAL_UNIT = 1e-2
UNITS = {"gap": GAP_UNIT, "surprisal": SURPRISAL_UNIT}
"""The units, for the page."""


def packed(value: object) -> str:
    """Return a value as JSON, gzipped (with equal bytes for equal values) and in base64."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(whole(text).encode(), compresslevel=6, mtime=0)).decode()


# -------------------------------------------------------------------------------------------------------- rollouts


class Words:
    """Decoder of token ids to text, if the run's tokenizer is available."""

    def __init__(self, history: History) -> None:
        self._tokenizer = kept_tokenizer(history)
        self.table: dict[int, str] = {}

    def pieces(self, ids: Sequence[int]) -> list[str] | None:
        """Return the text of each token; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        for token in set(ids) - self.table.keys():
            self.table[token] = str(self._tokenizer.decode([token], skip_special_tokens=False))
        return [self.table[token] for token in ids]

    @property
    def known(self) -> bool:
        """True if the run has a tokenizer; a run that begins has none until its first checkpoint."""
        return self._tokenizer is not None


def gap_of(row: Row) -> float | None:
    """Return the mean |trainer - engine| over the row's trained tokens, in nats; None if not recorded."""
    if row.trainer is None or len(row.trainer) != len(row.logprobs) or not len(row.logprobs):
        return None
    kept = slice(None) if row.mask is None else row.mask
    return float(f"{np.abs(row.trainer[kept] - row.logprobs[kept]).mean():.3g}")


def sample(row: Row, words: Words) -> dict[str, Any]:
    """Return what the page shows of an opened rollout; token ids only if their text is known (in `words.table`)."""
    ids = row.token_ids.tolist()
    pieces = words.pieces(ids)
    found: dict[str, Any] = {
        "completion": row.completion,
        "prompt": row.prompt,
        "question": row.without_marks,
        "reference": row.reference,
        "answer": row.answer,
        "reason": row.reason,
        "verifier": row.verifier,
        "version": row.policy_version,
    }
    if pieces is not None and len(row.logprobs) == len(ids):
        found["ids"] = ids
        found["surprisal"] = np.rint(-row.logprobs / SURPRISAL_UNIT).astype(int).tolist()
        if row.trainer is not None and len(row.trainer) == len(ids):
            found["gap"] = np.rint((row.trainer - row.logprobs) / GAP_UNIT).astype(int).tolist()
        if row.mask is not None:
            found["mask"] = row.mask.astype(int).tolist()
    if row.turns:
        found["turns"] = [[turn.get("origin"), turn.get("text"), turn.get("errors", 0)] for turn in row.turns]
    if row.dropped:
        found["dropped"] = row.dropped
    if row.components:
        found["components"] = dict(row.components)
    if row.shaping:
        found["shaping"] = row.shaping
    if row.info:
        found["info"] = dict(row.info)
    return found


def piece_of(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return samples for one piece: a prompt is written once, and other samples refer to it by number."""
    prompts: dict[str, int] = {}
    piece: list[dict[str, Any]] = []
    for one in samples:
        prompt = str(one["prompt"])
        if prompt in prompts:
            piece.append({**{k: v for k, v in one.items() if k != "prompt"}, "same_prompt": prompts[prompt]})
        else:
            prompts[prompt] = len(prompts)
            piece.append(one)
    return piece


def frozen(
    records: Records, words: Words, *, most: int | None, named: Sequence[tuple[int, int, int]] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return rollouts for a file: (columns of all of them, packed pieces of the samples of up to `most`).

    Args:
        records: all rollouts of a file, read to its end.
        words: decoder of tokens; its table grows.
        most: number of rollouts whose text is kept (`chosen`); None: all.
        named: (step, group, sample) of rollouts that are kept first.
    """
    columns = records.columns
    rows = [row for place in named if (row := records.find(place)) is not None]
    kept = chosen(columns, most=len(columns) if most is None else most, named=rows)
    gaps: list[float | None] = []
    heads: list[str] = []
    pieces: list[str] = []
    for start in range(0, len(kept), CHUNK):
        read = [records.row(number) for number in kept[start : start + CHUNK]]
        gaps += map(gap_of, read)
        heads += (end_of(row.completion) for row in read)
        pieces.append(packed(piece_of([sample(row, words) for row in read])))
    whole_file = len(kept) == len(columns)
    index = {**columns.to_json(), "kept": None if whole_file else kept, "gap": gaps, "head": heads, "chunk": CHUNK}
    return index, pieces


# ----------------------------------------------------------------------------------------------------- transcripts


def transcripts(history: History) -> list[dict[str, Any]]:
    """Return the answers, critiques, revisions and comparisons of a constitutional stage."""
    return [*lines(history.folder / "transcripts.jsonl", like=dict)] if history.folder else []


# ------------------------------------------------------------------------------------------------------ everything


def stage_summary(history: History, columns: Columns | None = None) -> dict[str, Any]:
    """Return what the page shows of a stage before any rollout is opened; findings and the audit are apart."""
    return {
        "method": history.config.method,
        "steps": len(history.metrics),
        "of": history.config.steps,
        "complete": history.complete,
        "environment": history.environment,
        "config": config.read_text() if (config := (history.folder or Path()) / "config.yaml").is_file() else "",
        "before_after": before_after(history),
        "probes": probes(history),
        "alarms": alarms(history),
        "curves": curves(history, columns),
    }


class Frozen(NamedTuple):
    """A stage for a file."""

    summary: dict[str, Any]
    """What the page reads at once."""
    pieces: dict[str, str]
    """Packed pieces that it reads on demand, by name: "0" the columns, "1"... the samples, then the transcripts; "e0",
    "e1"... of held-out samples; "m" the metrics."""
    kept: int
    """Rollouts whose text is in the pieces, held-out samples included."""
    rollouts: int
    """All rollouts, held-out samples included."""


def freeze(
    history: History,
    found: Sequence[Finding],
    held_out: Mapping[tuple[int, int, int], str],
    *,
    most: int | None = None,
) -> Frozen:
    """Return the data of a stage for a file.

    Args:
        history: the stage, with its folder; its rollouts are read from their file again.
        found: its findings.
        held_out: verdicts of the held-out verifier by (step, group, sample).
        most: rollouts of training, and held-out samples, whose text is kept; None: all.
    Raises:
        RunError: a record is damaged.
    """
    assert history.folder is not None
    words = Words(history)
    train, evaluations = open_records(history.folder)
    for records in (train, evaluations):
        records.refresh()
        if records.damaged:
            raise RunError(records.damaged)
    named = [(one.step, one.group, one.sample) for finding in found for one in finding.rollouts]
    named += [(alarm.step, row.group, row.sample) for alarm in history.alarms for row in alarm.rollouts]
    index, pieces = frozen(train, words, most=most, named=named)
    index["held_out"] = [held_out.get(train.columns.place(row)) for row in range(len(train.columns))]
    eval_index, eval_pieces = frozen(evaluations, words, most=most)
    told = transcripts(history)
    told_pieces = [told[start : start + CHUNK] for start in range(0, len(told), CHUNK)]
    packs = {str(place): piece for place, piece in enumerate([packed(index), *pieces, *map(packed, told_pieces)])}
    packs |= {f"e{place}": piece for place, piece in enumerate([packed(eval_index), *eval_pieces])}
    packs["m"] = packed(metric_lines(history))
    summary = {
        **stage_summary(history, train.columns),
        "findings": [finding.to_json() for finding in found],
        "left_out": history.steps_left_out,
        "audit": audit_table(train.columns.integers["step"], held_out),
        "transcripts": {"count": len(told), "first": 1 + len(pieces), "pieces": len(told_pieces)},
        "words": {str(token): text for token, text in words.table.items()},
        "rollouts": {"train": len(train.columns), "eval": len(evaluations.columns)},
    }
    return Frozen(
        summary, packs, len(index["head"]) + len(eval_index["head"]), len(train.columns) + len(evaluations.columns)
    )


def open_records(folder: Path, *, searchable: bool = False) -> tuple[Records, Records]:
    """Return the rollouts of training and of evaluations of a stage, not read yet."""
    train = Records(folder / "rollouts.jsonl", folder / "updates.jsonl", searchable=searchable)
    return train, Records(folder / "eval_rollouts.jsonl", searchable=searchable)


def end_of(completion: str, *, length: int = 70) -> str:
    """Return the last characters of a completion on one line, where its answer usually is."""
    line = " ".join(completion[-2 * length :].split())
    return line if len(line) <= length and len(completion) <= 2 * length else "…" + line[-length:]


def audit_table(all_steps: Iterable[int], held_out: Mapping[tuple[int, int, int], str]) -> list[dict[str, Any]]:
    """Compare the held-out verifier with the training reward, in sixths of the run.

    Each row has the number of audited rollouts, the number rejected, and the interval of the rejected share.
    """
    if not held_out:
        return []
    found: list[dict[str, Any]] = []
    steps = sorted(set(all_steps))
    for part in np.array_split(np.asarray(steps), min(6, len(steps))):
        inside = {int(step) for step in part}
        outcomes = [outcome for place, outcome in held_out.items() if place[0] in inside]
        if outcomes:
            rejected = sum(outcome != Outcome.CORRECT for outcome in outcomes)
            interval = wilson_interval(rejected, len(outcomes))
            found.append(
                {
                    "steps": [int(part[0]), int(part[-1])],
                    "sampled": len(outcomes),
                    "rejected": rejected,
                    "low": interval.low,
                    "high": interval.high,
                }
            )
    return found


def glossary() -> dict[str, list[str]]:
    """Return the meaning and healthy range of each metric."""
    return {name: [entry.meaning, entry.healthy] for name, entry in GLOSSARY.items()}
