"""Judgements that others made: what their judge decided, or that it cannot be told.

Formats: `[[A>B]]` and its relatives (Arena-Hard, JudgeBench), two scores (reward models), and Prometheus's
`Feedback: ... [RESULT] 4` with the prompt that asks for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from verifiers.judge.agreement import agreement, cohen_kappa
from verifiers.judge.pairwise import SWAPPED, Side
from verifiers.judge.questions import Question, with_even_rewards
from verifiers.stats import wilson_interval
from verifiers.verdict import JSON

MARK = re.compile(r"\[\[\s*([AB])\s*(>>|>|=|<|<<)\s*([AB])\s*\]\]")
RESULT = re.compile(r"\[RESULT\]\s*\(?\s*(\d+)\b")
LABELS: Mapping[str, Side] = {"A>B": "first", "B>A": "second", "A=B": "tie"}
PROMETHEUS = re.compile(
    r"###The instruction to evaluate:\n(?P<prompt>.*)\n\n###Response to evaluate:\n(?P<completion>.*)"
    r"\n\n###Reference Answer \(Score 5\):\n(?P<reference>.*)\n\n###Score Rubrics:\n\[(?P<question>.*?)\]\n"
    r"(?P<levels>(?:Score \d:.*\n)+)",
    re.DOTALL,
)
LEVEL = re.compile(r"^Score (\d): ?(.*?)\s*(?=^Score \d:|\Z)", re.MULTILINE | re.DOTALL)


def read_marks(text: str) -> Side | None:
    """The side that a text's `[[...]]` names; None where it has none, or two that differ, even in strength.

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
    """The side with the higher score; equal scores are a tie."""
    if len(scores) != 2:
        return None
    return "first" if scores[0] > scores[1] else "second" if scores[0] < scores[1] else "tie"


def read_result(text: str) -> int | None:
    """The number after `[RESULT]`; None where there is none, or two that differ.

    Example:
        >>> read_result("Feedback: clear, but short. [RESULT] 4")
        4
    """
    found = set(RESULT.findall(text))
    return int(found.pop()) if len(found) == 1 else None


class Exam(NamedTuple):
    """What a Prometheus prompt asks about."""

    question: Question
    prompt: str
    completion: str


def read_prometheus(instruction: str) -> Exam | None:
    """Question, prompt and completion of a Prometheus prompt; None where it is none."""
    found = PROMETHEUS.search(instruction)
    if found is None:
        return None
    levels = [(int(number), text.strip()) for number, text in LEVEL.findall(found["levels"])]
    if len(levels) < 2 or not all(text for _, text in levels):
        return None
    question = Question(
        question=found["question"], levels=with_even_rewards(sorted(levels)), reference_answer=found["reference"]
    )
    return Exam(question, found["prompt"], found["completion"])


class Judgment(NamedTuple):
    """One judge's word on one pair, in the pair's own frame."""

    judge: str
    pair: str
    swapped: bool
    """Whether the judge saw the second completion first."""
    said: Side | None
    """None: it cannot be told."""
    label: Side
    """What a person, or the truth, says."""


class UnreadableRow(ValueError):
    """A row is no judgement; the message says why."""


def read_judgment(row: Mapping[str, JSON]) -> Judgment:
    """A row {pair_id, judge_model, order: AB | BA, label: A>B | B>A | A=B, judge_text | scores}.

    Raises:
        UnreadableRow: a column is missing or unknown.
    """
    label, order = LABELS.get(str(row.get("label"))), str(row.get("order", "AB"))
    if label is None or order not in ("AB", "BA"):
        raise UnreadableRow(f"label must be A>B, B>A or A=B and order AB or BA; got {row.get('label')!r}, {order!r}.")
    scores, text = row.get("scores"), row.get("judge_text")
    if isinstance(scores, list):
        said = read_scores(cast("list[float]", scores))
    elif isinstance(text, str):
        said = read_marks(text)
    else:
        raise UnreadableRow("a judgement must have judge_text or scores.")
    if said is not None and order == "BA":
        said = SWAPPED[said]
    pair = f"{row.get('response_model', '')}/{row.get('pair_id')}"
    return Judgment(str(row.get("judge_model", "judge")), pair, order == "BA", said, label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How reliable one judge was."""

    judge: str
    judgments: Sequence[Judgment]

    def to_json(self) -> dict[str, JSON]:
        """Counts, shares with 95 % Wilson intervals, kappa.

        Of the orders: accuracy of each alone, a tie or a judgement that cannot be told counting as wrong; how often
        both say the same; accuracy of both together, where the side that more orders name wins and nothing else does
        (JudgeBench, arXiv:2410.12784, section 4).
        """
        straight = {one.pair: one for one in self.judgments if not one.swapped}
        swapped = {one.pair: one for one in self.judgments if one.swapped}
        both = [(straight[pair], swapped[pair]) for pair in straight if pair in swapped]
        told = [(one, other) for one, other in both if one.said is not None and other.said is not None]
        found: dict[str, JSON] = {
            "judgments": len(self.judgments),
            "cannot_be_told": sum(one.said is None for one in self.judgments),
            "pairs": len(both),
            "accuracy_straight": share(one.said == one.label for one in straight.values()),
            "accuracy_swapped": share(one.said == one.label for one in swapped.values()),
            "accuracy_both": share(joint(one.said, other.said) == one.label for one, other in both),
            "consistent": share(one.said == other.said for one, other in told),
            "first_shown": share(one.said == "first" for one in straight.values() if one.said not in (None, "tie")),
        }
        usable = [one for one in self.judgments if one.said is not None]
        if usable:
            found["against_labels"] = agreement([str(one.said) for one in usable], [one.label for one in usable])
        if told:
            kappa = cohen_kappa([str(one.said) for one, _ in told], [str(other.said) for _, other in told])
            found["kappa_of_orders"] = [kappa.value, *kappa.interval]
        return found


def joint(*said: Side | None) -> Side:
    """The side that more calls name; a tie where neither does."""
    balance = sum((one == "first") - (one == "second") for one in said)
    return "first" if balance > 0 else "second" if balance < 0 else "tie"


def share(successes: Iterable[bool]) -> JSON:
    """Share and its 95 % Wilson interval, and how many; None of nothing."""
    rows = list(successes)
    if not rows:
        return None
    low, high = wilson_interval(sum(rows), len(rows))
    return [sum(rows) / len(rows), low, high, len(rows)]


def by_judge(judgments: Iterable[Judgment]) -> list[Record]:
    """Records of all judges, by name."""
    found: dict[str, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        found[judgment.judge].append(judgment)
    return [Record(judge=name, judgments=rows) for name, rows in sorted(found.items())]


__all__ = [
    "Exam",
    "Judgment",
    "Record",
    "UnreadableRow",
    "by_judge",
    "joint",
    "read_judgment",
    "read_marks",
    "read_prometheus",
    "read_result",
    "read_scores",
]
