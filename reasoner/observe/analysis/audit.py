"""Is the reward being gamed? Rewarded rollouts graded by a verifier that did not train on them.

Evidence, not prophecy: what is reported is where two verifiers disagree, over time, with the rollouts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reasoner.observe.analysis.rescore import Regraded, regrade
from reasoner.observe.explain import explain, ordered
from reasoner.observe.explain.finding import Finding, Level, places
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History, Row
from verifiers import get_verifier
from verifiers.stats import wilson_interval

ALLOWED = 0.02
"""Share of rewarded rollouts that two sound verifiers may see differently: `math` and Math-Verify differ on one to two
in a hundred of real model outputs (benchmarks/math_verifier.py)."""


class Explained(NamedTuple):
    """One stage with everything that is said of it."""

    history: History
    findings: list[Finding]
    """The audit's among them."""
    graded: list[Regraded]
    """Rewarded rollouts with the held-out verdict."""


def explain_and_audit(run: Path, *, sample: int = 200, verifier: str | None = None) -> list[Explained]:
    """Every stage of a run with its findings and those of the audit.

    Args:
        run: a run folder or one of its stages.
        sample: rewarded rollouts of each stage that a held-out verifier grades; 0: none.
        verifier: that verifier; None: a stricter one for the task.
    Raises:
        RunError: there is no run in that folder.
    """
    if verifier is not None:
        get_verifier(verifier)  # a name that leads nowhere is said, whether or not there is something to grade
    stages: list[Explained] = []
    for history, found in explain(run):
        graded = audited(history, sample=sample, verifier=verifier)
        everything = ordered([*found, *audit_findings(graded, chosen=verifier is not None)])
        stages.append(Explained(history, everything, graded))
    return stages


def held_out_for(row: Row) -> str | None:
    """The name of a verifier that grades such a reference in another way, where there is one."""
    if not isinstance(row.reference, str):
        return None
    own = row.verifier.rpartition(":")[2]
    return "exact" if own == "math" else "math"


def audited(history: History, *, sample: int, verifier: str | None = None) -> list[Regraded]:
    """Up to `sample` rewarded rollouts, spread over the run, with the held-out verdict.

    Where rewards come in degrees (a reward model, a rubric), no answer is right or wrong: nothing is chosen by itself.
    """
    if verifier is None and any(row.outcome in ("scored", "partial") for row in history.graded):
        return []
    rewarded = [row for row in history.graded if row.right and (verifier or held_out_for(row))]
    if not rewarded or sample == 0:
        return []
    chosen = sorted(random.Random(0).sample(range(len(rewarded)), min(sample, len(rewarded))))
    rows = [rewarded[i] for i in chosen]
    return regrade(rows, history.config, verifier=verifier or held_out_for(rows[0]), workers=1)


def audit_findings(done: Sequence[Regraded], *, chosen: bool = False) -> list[Finding]:
    """At most one finding: the held-out verifier rejects more of the rewarded rollouts than two verifiers may differ.

    Args:
        done: of `audited`.
        chosen: the held-out verifier was named by the user.
    """
    rejected = [item for item in done if item.verdict.reward is not None and item.verdict.reward < 1]
    graded = [item for item in done if item.verdict.reward is not None]
    if not graded:
        return []
    share = len(rejected) / len(graded)
    name = graded[0].verdict.verifier
    strict = name == "exact" and not chosen  # differs on every equal form: tells only of answers that share nothing
    if wilson_interval(len(rejected), len(graded)).low < (0.5 if strict else ALLOWED):
        return []
    return [
        Finding(
            code="held-out-gap",
            level=Level.NOTE if strict else Level.FAULT,
            cost=min(1.0, 0.3 + share),
            title=f"A held-out verifier ({name}) rejects {percent(share)} of the rewarded rollouts: the reward"
            f" may be gamed",
            evidence=(
                f"{len(rejected)} of {len(graded)} sampled; over time {over_time(done)}",
                *(
                    f"answer {str(item.row.answer)[:40]!r} against {str(item.row.reference)[:40]!r}:"
                    f" {item.verdict.reason[:80]}"
                    for item in rejected[:2]
                ),
            ),
            change="read them in `reasoner report RUN`; where the training verifier is wrong, tighten it and"
            " `reasoner rescore RUN --verifier NAME`.",
            rollouts=places([item.row for item in rejected]),
        )
    ]


def over_time(done: Sequence[Regraded]) -> str:
    """Rejected shares in the thirds of the audited rollouts."""
    flags = np.asarray([item.verdict.reward is not None and item.verdict.reward < 1 for item in done], dtype=np.float64)
    return " -> ".join(percent(float(part.mean())) for part in np.array_split(flags, min(3, len(flags))))
