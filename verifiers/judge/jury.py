"""`jury`: several judges on one question; the mean or median of their rewards, and their disagreement."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from verifiers.base import GradingRow
from verifiers.compose import Composite, listed, part_from
from verifiers.errors import BadOption, BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.judge.questions import QUESTION_SCHEMA
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

POOLED = {"mean": statistics.fmean, "median": statistics.median}


class Jury(Composite):
    """Several judges whose rewards are pooled. Judges that fail are left out as long as a quorum has answered.

    Args:
        judges: each {"verifier": "judge", "options": {...}, "name": its name}.
        pool: mean or median.
        quorum: judges that must have answered; None: more than half.
    """

    name = "jury"
    reference_schema = QUESTION_SCHEMA
    machine_options = frozenset({"judges"})
    injectable = True

    @classmethod
    def parts_in(cls, options: Mapping[str, JSON]) -> Sequence[JSON]:
        return listed(options.get("judges"))

    @classmethod
    def no_looser(cls, option: str, value: JSON, bound: JSON) -> bool:
        """Return True: the options of each judge are checked by its own verifier."""
        return True

    def __init__(self, *, judges: list[JSON], pool: str = "mean", quorum: int | None = None) -> None:
        super().__init__([part_from(judge, where=f"judges[{at}]") for at, judge in enumerate(judges)])
        if len(judges) < 2 or pool not in POOLED:
            raise BadOption(
                f"a jury must have at least two judges, and pool mean or median; got {len(judges)}, {pool}."
            )
        self._pool, self._quorum = pool, len(judges) // 2 + 1 if quorum is None else quorum
        if not 1 <= self._quorum <= len(judges):
            raise BadOption(f"quorum must be from 1 to {len(judges)}; got {quorum}.")
        self.examples = self.parts[0].made.examples
        self.checklists = all(getattr(part.made, "checklists", False) for part in self.parts)

    def settled(self, verdicts: Mapping[str, Verdict]) -> bool:
        """Return False: every judge is always asked."""
        return False

    def grade(self, row: GradingRow) -> Verdict:
        for part in self.parts:
            part.made.check_reference(row.reference)
        return self.combine({part.name: part.made.verify_batch([row])[0] for part in self.parts})

    def check_reference(self, reference: JSON) -> None:
        for part in self.parts:
            part.made.check_reference(reference)

    def combine(self, verdicts: Mapping[str, Verdict]) -> Verdict:
        rewards = {name: verdict.reward for name, verdict in verdicts.items() if verdict.reward is not None}
        bad = next((v for v in verdicts.values() if v.outcome is Outcome.BAD_REFERENCE), None)
        if bad is not None:
            raise BadReference(bad.reason)
        away = {name: verdict.reason for name, verdict in verdicts.items() if verdict.reward is None}
        if len(rewards) < self._quorum:
            causes = "; ".join(f"{name}: {reason}" for name, reason in away.items())
            reason = f"{len(rewards)} of {len(verdicts)} judges answered: {causes}"
            joined = fixed(Outcome.VERIFIER_ERROR, reason[:2000])
        else:
            reward = self._pooled([*rewards.values()])
            nearest = min(rewards, key=lambda name: abs(rewards[name] - reward))
            joined = graded(reward, f"{nearest}: {verdicts[nearest].reason}")
            if answers := self._answers({name: verdicts[name] for name in rewards}):
                joined = replace(joined, detail={**joined.detail, "answers": answers})
        heard: dict[str, JSON] = {
            name: {"reward": v.reward, **{key: value for key, value in v.detail.items() if key != "answers"}}
            for name, v in verdicts.items()
        }
        return replace(
            joined,
            detail={**joined.detail, "judges": heard, "disagreement": _spread([*rewards.values()])},
            seconds=sum(verdict.seconds for verdict in verdicts.values()),
            components=rewards,
        )

    def _pooled(self, rewards: Sequence[float]) -> float:
        return min(1.0, max(0.0, round(POOLED[self._pool](rewards), 9)))

    def _answers(self, heard: Mapping[str, Verdict]) -> list[JSON]:
        """Pool the answers to a checklist question by question; empty if the judges were asked a single question.

        A judge that found nothing to grade (an empty text) counts with its reward of 0 for every question.
        """
        lists = {name: found for name, verdict in heard.items() if is_list(found := verdict.detail.get("answers"))}
        pooled: list[JSON] = []
        for at in range(max(map(len, lists.values()), default=0)):
            answered = {
                name: one
                for name, found in lists.items()
                if is_object(one := found[at]) and _is_number(one.get("reward"))
            }
            rewards = [float(str(one["reward"])) for one in answered.values()]
            rewards += [verdict.reward or 0.0 for name, verdict in heard.items() if name not in lists]
            reasons = "; ".join(f"{name}: {one.get('reason')}" for name, one in answered.items())
            judges: dict[str, JSON] = {name: dict(one) for name, one in answered.items()}
            pooled.append(
                {
                    "reward": self._pooled(rewards),
                    "reason": reasons[:1000],
                    "judges": judges,
                    "disagreement": _spread(rewards),
                }
            )
        return pooled


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _spread(rewards: Sequence[float]) -> float:
    return round(max(rewards, default=0.0) - min(rewards, default=0.0), 9)


__all__ = ["Jury"]
