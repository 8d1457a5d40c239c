"""Accuracy of a verifier on labelled cases: confusion matrix by category, with intervals and thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from verifiers.base import GradingRow
from verifiers.errors import VerifierError
from verifiers.jsonl import is_object
from verifiers.kit.files import read_records
from verifiers.stats import wilson_interval
from verifiers.verdict import JSON

SMALL_CATEGORY = 10
"""Rows below which a category is shown, but exempt from the per-category threshold."""


class AuditError(VerifierError, ValueError):
    """A labelled file is invalid; the message names the row."""

    exit_code = 2


class Case(NamedTuple):
    """Labelled row."""

    id: str
    category: str
    completion: str
    reference: JSON
    expected: bool
    """True if the verifier should accept the completion (reward 1)."""
    prompt: str | None = None
    info: Mapping[str, JSON] | None = None

    @property
    def row(self) -> GradingRow:
        """The row that the verifier grades."""
        return GradingRow(
            completion=self.completion, reference=self.reference, prompt=self.prompt, info=self.info or {}
        )


def read_cases(path: str, names: Mapping[str, str]) -> list[Case]:
    """Read the rows {id, category, completion, reference, expected, prompt, info} of a file of JSON lines.

    Args:
        path: the file, gzipped or not; `-` is standard input.
        names: field -> column of the file, where they differ. All but completion and expected may be missing.
    Raises:
        AuditError: a row lacks a column or has an unusable label.
        FileError: the file cannot be read.
    """
    cases: list[Case] = []
    for number, row in read_records(path):
        if isinstance(row, str):
            raise AuditError(f"{path} line {number}: {row}")
        values = {name: row.get(names.get(name, name)) for name in Case._fields}
        for name in ("completion", "expected"):
            if values[name] is None:
                column = names.get(name, name)
                raise AuditError(f"{path} line {number} must have a column {column!r}; it has {', '.join(row)}.")
        key = str(number) if values["id"] is None else str(values["id"])
        category = "all" if values["category"] is None else str(values["category"])
        where = f"{path} line {number}"
        expected, prompt, info = _label(values["expected"], where), values["prompt"], values["info"]
        if prompt is not None and not isinstance(prompt, str):
            raise AuditError(f"{where}: prompt must be text; got {prompt!r:.80}.")
        if info is not None and not is_object(info):
            raise AuditError(f"{where}: info must be an object; got {info!r:.80}.")
        cases.append(Case(key, category, str(values["completion"]), values["reference"], expected, prompt, info))
    if not cases:
        raise AuditError(f"{path} must contain at least one case; it is empty.")
    return cases


def _label(value: JSON, where: str) -> bool:
    known: Mapping[str, bool] = {"true": True, "1": True, "1.0": True, "correct": True}
    known = {**known, "false": False, "0": False, "0.0": False, "incorrect": False}
    key = str(value).strip().lower()
    if key not in known:
        raise AuditError(f"{where}: expected must be true or false (or 1/0, correct/incorrect); got {value!r}.")
    return known[key]


@dataclass
class Matrix:
    """Counts of one category. A row that could not be graded counts as rejected, and also as ungraded."""

    accepted_right: int = 0
    accepted_wrong: int = 0
    rejected_right: int = 0
    rejected_wrong: int = 0
    ungraded: int = 0

    def add(self, *, expected: bool, accepted: bool, graded: bool) -> None:
        """Count one row."""
        self.accepted_right += accepted and expected
        self.accepted_wrong += accepted and not expected
        self.rejected_wrong += not accepted and not expected
        self.rejected_right += not accepted and expected
        self.ungraded += not graded

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.accepted_right + self.accepted_wrong + self.rejected_right + self.rejected_wrong

    @property
    def accuracy(self) -> float:
        """Fraction of rows graded as labelled; 0 without rows."""
        return (self.accepted_right + self.rejected_wrong) / max(1, self.rows)

    @property
    def false_positives(self) -> float:
        """Fraction of the wrong answers that were accepted."""
        return self.accepted_wrong / max(1, self.accepted_wrong + self.rejected_wrong)

    @property
    def false_negatives(self) -> float:
        """Fraction of the right answers that were not accepted."""
        return self.rejected_right / max(1, self.accepted_right + self.rejected_right)

    def to_json(self) -> dict[str, JSON]:
        """Return the counts, and each rate with its 95 % Wilson interval, as [rate, low, high]."""
        wrong, right = self.accepted_wrong + self.rejected_wrong, self.accepted_right + self.rejected_right
        return {
            "rows": self.rows,
            "right_accepted": self.accepted_right,
            "right_rejected": self.rejected_right,
            "wrong_accepted": self.accepted_wrong,
            "wrong_rejected": self.rejected_wrong,
            "ungraded": self.ungraded,
            "accuracy": [self.accuracy, *wilson_interval(self.accepted_right + self.rejected_wrong, self.rows)],
            "false_positives": [self.false_positives, *wilson_interval(self.accepted_wrong, wrong)],
            "false_negatives": [self.false_negatives, *wilson_interval(self.rejected_right, right)],
        }


class Mistake(NamedTuple):
    """Case that was not graded as labelled, and what the verifier said."""

    case: Case
    said: str


class Thresholds(NamedTuple):
    """Thresholds that an audit must meet, as fractions; None: no threshold."""

    min_accuracy: float | None = None
    max_false_positives: float | None = None
    max_false_negatives: float | None = None
    min_category: float | None = None


@dataclass
class Audit:
    """Result of an audit: the matrix of each category and of all rows, and every mistake."""

    overall: Matrix = field(default_factory=Matrix)
    categories: dict[str, Matrix] = field(default_factory=dict[str, Matrix])
    mistakes: list[Mistake] = field(default_factory=list[Mistake])

    def add(self, case: Case, *, reward: float | None, said: str) -> None:
        """Count one graded case. It is accepted if its reward is at least 1; None means that it was not graded."""
        accepted = reward is not None and reward >= 1
        for matrix in (self.overall, self.categories.setdefault(case.category, Matrix())):
            matrix.add(expected=case.expected, accepted=accepted, graded=reward is not None)
        if accepted != case.expected:
            self.mistakes.append(Mistake(case, said))

    def failures(self, wanted: Thresholds) -> list[str]:
        """Return a sentence for each threshold that is not met."""
        found: list[str] = []
        whole = self.overall
        if wanted.min_accuracy is not None and whole.accuracy < wanted.min_accuracy:
            found.append(f"accuracy {whole.accuracy:.2%} is below {wanted.min_accuracy:.2%}")
        if wanted.max_false_positives is not None and whole.false_positives > wanted.max_false_positives:
            found.append(f"false positives {whole.false_positives:.2%} are above {wanted.max_false_positives:.2%}")
        if wanted.max_false_negatives is not None and whole.false_negatives > wanted.max_false_negatives:
            found.append(f"false negatives {whole.false_negatives:.2%} are above {wanted.max_false_negatives:.2%}")
        if wanted.min_category is not None:
            found += [
                f"category {name} has accuracy {matrix.accuracy:.2%}, below {wanted.min_category:.2%}"
                for name, matrix in sorted(self.categories.items())
                if matrix.rows >= SMALL_CATEGORY and matrix.accuracy < wanted.min_category
            ]
        return found

    def to_json(self) -> dict[str, JSON]:
        """Return the matrices as JSON, without the mistakes."""
        by_name = {name: matrix.to_json() for name, matrix in sorted(self.categories.items())}
        return {"overall": self.overall.to_json(), "categories": dict(by_name)}


def tally(graded: Iterable[tuple[Case, float | None, str]]) -> Audit:
    """Return the audit of (case, reward, what the verifier said) triples."""
    audit = Audit()
    for case, reward, said in graded:
        audit.add(case, reward=reward, said=said)
    return audit


__all__ = ["Audit", "AuditError", "Case", "Matrix", "Mistake", "Thresholds", "read_cases", "tally"]
