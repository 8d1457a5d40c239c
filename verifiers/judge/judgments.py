"""Published decisions of judges, and the reliability of each judge.

Formats: `[[A>B]]` and its variants (Arena-Hard, JudgeBench), and two scores (reward models).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from verifiers.judge.agreement import agreement, cohen_kappa
from verifiers.judge.pairwise import SWAPPED, Side
from verifiers.stats import wilson_interval
from verifiers.verdict import JSON

MARK = re.compile(r"\[\[\s*([AB])\s*(>>|>|=|<|<<)\s*([AB])\s*\]\]")
LABELS: Mapping[str, Side] = {"A>B": "first", "B>A": "second", "A=B": "tie"}


def read_marks(text: str) -> Side | None:
    """Return the side that the mark `[[...]]` in a text names.

    None if the text has no mark, or marks that differ, even if only in strength (`>` and `>>`).

    Example:
        >>> read_marks("My final verdict is: [[B>>A]]"), read_marks("[[A>B]] ... or [[A=B]]")
        ('second', None)
    """
    marks = {"".join(parts) for parts in MARK.findall(text)}
    if len(marks) != 1:
        return None
    (mark,) = marks
    left, sign, right = mark[0], mark[1:-1], mark[-1]
    if left == right:
        return None
    if sign == "=":
        return "tie"
    winner = left if ">" in sign else right
    return "first" if winner == "A" else "second"


def read_scores(scores: Sequence[float]) -> Side | None:
    """Return the side with the higher score, "tie" if they are equal, and None unless there are two scores."""
    if len(scores) != 2:
        return None
    return "first" if scores[0] > scores[1] else "second" if scores[0] < scores[1] else "tie"


class Judgment(NamedTuple):
    """A judge's decision on a pair, in the order of the data set: already swapped back if the judge saw it swapped."""

    judge: str
    pair: str
    swapped: bool
    """True if the judge saw the second completion first."""
    decision: Side | None
    """None: no decision can be read from the judge's text."""
    label: Side
    """The right decision, from a person or from the facts."""


class UnreadableRow(ValueError):
    """The row is not a judgment; the message says why."""


def read_judgment(row: Mapping[str, JSON]) -> Judgment:
    """Parse a row {pair_id, judge_model, order: AB | BA, label: A>B | B>A | A=B, judge_text | scores}.

    Raises:
        UnreadableRow: label or order has an unknown value, or judge_text and scores are both missing.
    """
    label, order = LABELS.get(str(row.get("label"))), str(row.get("order", "AB"))
    if label is None or order not in ("AB", "BA"):
        raise UnreadableRow(f"label must be A>B, B>A or A=B and order AB or BA; got {row.get('label')!r}, {order!r}.")
    scores, text = row.get("scores"), row.get("judge_text")
    if isinstance(scores, list):
        decision = read_scores([float(score) for score in scores if isinstance(score, int | float)])
    elif isinstance(text, str):
        decision = read_marks(text)
    else:
        raise UnreadableRow("a judgment must have judge_text or scores.")
    if decision is not None and order == "BA":
        decision = SWAPPED[decision]
    pair = f"{row.get('response_model', '')}/{row.get('pair_id')}"
    return Judgment(str(row.get("judge_model", "judge")), pair, order == "BA", decision, label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All decisions of one judge."""

    judge: str
    judgments: Sequence[Judgment]

    def to_json(self) -> dict[str, JSON]:
        """Return counts, shares with 95 % Wilson intervals and kappa as JSON.

        Accuracy is given for each order alone, where a decision that is not the label counts as wrong, such as a tie or
        one that cannot be read. `consistent` is the share of pairs with the same decision in both orders. Accuracy of
        both orders together takes the decision of `joint` (JudgeBench, arXiv:2410.12784, section 4).
        """
        straight = {one.pair: one for one in self.judgments if not one.swapped}
        swapped = {one.pair: one for one in self.judgments if one.swapped}
        both = [(straight[pair], swapped[pair]) for pair in straight if pair in swapped]
        decided = [(one, other) for one, other in both if one.decision is not None and other.decision is not None]
        found: dict[str, JSON] = {
            "judgments": len(self.judgments),
            "cannot_be_told": sum(one.decision is None for one in self.judgments),
            "pairs": len(both),
            "accuracy_straight": share(one.decision == one.label for one in straight.values()),
            "accuracy_swapped": share(one.decision == one.label for one in swapped.values()),
            "accuracy_both": share(joint(one.decision, other.decision) == one.label for one, other in both),
            "consistent": share(one.decision == other.decision for one, other in decided),
            "first_shown": share(
                one.decision == "first" for one in straight.values() if one.decision not in (None, "tie")
            ),
        }
        usable = [one for one in self.judgments if one.decision is not None]
        if usable:
            found["against_labels"] = agreement([str(one.decision) for one in usable], [one.label for one in usable])
        if decided:
            kappa = cohen_kappa(
                [str(one.decision) for one, _ in decided], [str(other.decision) for _, other in decided]
            )
            found["kappa_of_orders"] = [kappa.value, *kappa.interval]
        return found


def joint(*decisions: Side | None) -> Side:
    """Return the side that more decisions name; a tie if neither does."""
    balance = sum((one == "first") - (one == "second") for one in decisions)
    return "first" if balance > 0 else "second" if balance < 0 else "tie"


def share(successes: Iterable[bool]) -> JSON:
    """Return [share of successes, low, high, rows] with a 95 % Wilson interval; None if there are no rows."""
    rows = list(successes)
    if not rows:
        return None
    low, high = wilson_interval(sum(rows), len(rows))
    return [sum(rows) / len(rows), low, high, len(rows)]


def by_judge(judgments: Iterable[Judgment]) -> list[Record]:
    """Group judgments by judge; return one record each, sorted by name."""
    found: dict[str, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        found[judgment.judge].append(judgment)
    return [Record(judge=name, judgments=rows) for name, rows in sorted(found.items())]


__all__ = [
    "Judgment",
    "Record",
    "UnreadableRow",
    "by_judge",
    "joint",
    "read_judgment",
    "read_marks",
    "read_scores",
]
