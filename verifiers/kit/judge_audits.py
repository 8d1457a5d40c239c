"""Audits of judges on labelled files: recorded judgements, pairs to compare, or completions with scores.

{judge_text | scores, order, label, pair_id, judge_model}   recorded judgements; NAME is `judgments`
{prompt, first, second, label}                              NAME is a judge, which compares in both orders
{completion, reference, prompt?, score}                     NAME is any verifier; rewards against human scores
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from verifiers.base import GradingRow
from verifiers.errors import BadOption
from verifiers.jsonl import is_object
from verifiers.judge.agreement import agreement, graded_agreement
from verifiers.judge.errors import JudgeFault
from verifiers.judge.judgments import Judgment, UnreadableRow, by_judge, read_judgment, share
from verifiers.judge.pairwise import PairQuestion, Preference, compare_pairs
from verifiers.judge.verifier import ModelJudge
from verifiers.kit.audit import AuditError
from verifiers.kit.files import read_records
from verifiers.pool import GradingPool, GradingRequest
from verifiers.registry import get_verifier
from verifiers.verdict import JSON

JUDGMENTS = "judgments"
PAIR_QUESTION = "Which of the two texts answers the prompt better?"
WORDS: Mapping[str, str] = {
    **dict.fromkeys(("first", "a", "a>b", "0"), "first"),
    **dict.fromkeys(("second", "b", "b>a", "1"), "second"),
    **dict.fromkeys(("tie", "a=b", "2", "none"), "tie"),
}

Row = Mapping[str, JSON]


def judge_audit(
    name: str, path: str, *, options: Mapping[str, JSON], names: Mapping[str, str], workers: int = 2
) -> dict[str, JSON] | None:
    """Run the audit that fits the file's columns; return None if they are those of right and wrong answers.

    Args:
        name: `judgments` for judgements recorded in the file; otherwise the verifier to audit.
        path: JSONL, gzipped or not.
        options: of the verifier; for pairs also `question`, the question of the comparison.
        names: field -> column of the file, where they differ.
        workers: number of grading processes.
    Raises:
        AuditError: the file is empty, or a row is invalid; the message names it.
    """
    if path == "-" and name != JUDGMENTS:  # standard input is read only once: leave it to the other audit
        return None
    rows: list[Row] = []
    for number, row in read_records(path):
        if isinstance(row, str):
            raise AuditError(f"{path} line {number}: {row}")
        rows.append({**row, **{field: row.get(column) for field, column in names.items()}})
        if number == 1 and name != JUDGMENTS and not _is_for_judges(rows[0]):
            return None
    if not rows:
        raise AuditError(f"{path} must contain at least one row; it is empty.")
    if name == JUDGMENTS:
        return judgments_audit(rows)
    if {"first", "second"} <= set(rows[0]):
        return pairs_audit(name, rows, options)
    return scores_audit(name, rows, options, workers)


def _is_for_judges(row: Row) -> bool:
    return {"first", "second", "label"} <= set(row) or ("score" in row and "expected" not in row)


def judgments_audit(rows: Sequence[Row]) -> dict[str, JSON]:
    """Return each judge's accuracy and consistency, from its decisions."""
    found: list[Judgment] = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(read_judgment(row))
        except UnreadableRow as error:
            raise AuditError(f"row {number}: {error}") from error
    return {record.judge: record.to_json() for record in by_judge(found)}


def pairs_audit(name: str, rows: Sequence[Row], options: Mapping[str, JSON]) -> dict[str, JSON]:
    """Compare a judge's preferences, asked in both orders, with the labels."""
    given = dict(options)
    question = str(given.pop("question", PAIR_QUESTION))
    judge = get_verifier(name, **given)
    if not isinstance(judge, ModelJudge):
        raise BadOption(f"pairs need a judge (judge, judge-model); {name} is not one.")
    pairs = [PairQuestion(question, str(row["first"]), str(row["second"]), _text(row.get("prompt"))) for row in rows]
    labels = [_side(row.get("label"), number) for number, row in enumerate(rows, 1)]
    answers = compare_pairs(judge, pairs)
    kept = [(a, label) for a, label in zip(answers, labels, strict=True) if isinstance(a, Preference)]
    faults = [str(answer) for answer in answers if isinstance(answer, JudgeFault)]
    found: dict[str, JSON] = {
        "pairs": len(rows),
        "ungraded": len(faults),
        "causes": _first_few(faults),
        "consistent": share(answer.consistent for answer, _ in kept),
    }
    if kept:
        found["against_labels"] = agreement([answer.better for answer, _ in kept], [label for _, label in kept])
    return {name: found}


def _side(value: JSON, number: int) -> str:
    found = WORDS.get(str(value).strip().lower())
    if found is None:
        raise AuditError(
            f"row {number}: label must be first, second or tie (or 0, 1, 2; A>B, B>A, A=B); got {value!r}."
        )
    return found


def scores_audit(name: str, rows: Sequence[Row], options: Mapping[str, JSON], workers: int) -> dict[str, JSON]:
    """Compare a verifier's rewards (or a judge's levels, if it gives them) with human scores."""
    scores: list[float] = []
    requests: list[GradingRequest] = []
    for number, row in enumerate(rows, 1):
        score, completion = row.get("score"), row.get("completion")
        if isinstance(score, bool) or not isinstance(score, int | float) or not isinstance(completion, str):
            raise AuditError(f"row {number} must have a completion and a number as score; got {score!r}.")
        scores.append(float(score))
        prompt = _text(row.get("prompt"))
        requests.append(
            GradingRequest(
                name, GradingRow(completion=completion, reference=row.get("reference"), prompt=prompt), options
            )
        )
    with GradingPool(workers=workers) as pool:
        verdicts = list(pool.grade(requests))
    kept = [(v, score) for v, score in zip(verdicts, scores, strict=True) if v.reward is not None]
    found: dict[str, JSON] = {"rows": len(rows), "ungraded": len(rows) - len(kept)}
    found["causes"] = _first_few([v.reason for v in verdicts if v.reward is None])
    if kept:
        levels = [v.detail.get("level", v.reward) for v, _ in kept]
        given = [float(level) for level in levels if isinstance(level, int | float)]
        found["against_scores"] = graded_agreement(given, [score for _, score in kept])
    return {name: found}


def _first_few(causes: Sequence[str]) -> JSON:
    return [*list(dict.fromkeys(causes))[:5]]


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def shown(report: Mapping[str, JSON]) -> list[str]:
    """Return the report as lines of text."""
    lines: list[str] = []
    for name, given in report.items():
        lines.append(name)
        lines += [f"  {line}" for line in _lines(given if is_object(given) else {})]
    return lines


def _lines(given: Row) -> list[str]:
    lines: list[str] = []
    for key, value in given.items():
        if isinstance(value, dict):
            lines += [key, *(f"  {line}" for line in _lines(value))]
        elif isinstance(value, list) and len(numbers := [part for part in value if isinstance(part, int | float)]) >= 3:
            of = f"  of {numbers[3]}" if len(numbers) > 3 else ""
            lines.append(f"{key:20} {numbers[0]:.4f}  [{numbers[1]:.4f}, {numbers[2]:.4f}]{of}")
        else:
            lines.append(f"{key:20} {value}")
    return lines


__all__ = ["JUDGMENTS", "judge_audit", "shown"]
