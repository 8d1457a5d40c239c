"""The watch at work in a run: grades some rollouts by the held-out scorer, keeps the history, raises alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasoner.data.problems import named_apart
from reasoner.monitoring.reward_hacking import alarms, behind, figures, watched
from reasoner.records import Problem, RolloutGroup
from reasoner.rollout.grading import grading_row
from reasoner.session.session import Session
from tasks.registry import get_task
from verifiers import JSON
from verifiers.jsonl import read_jsonl

ALARMS_FILE = "alarms.jsonl"
OWN = "own"
"""Name of the held-out scorer that is each task's own verifier."""


class Watch:
    """Looks at every step's rollouts; silent where the config has no `watch` and training rewards the task's own."""

    def __init__(self, session: Session) -> None:
        self._session = session
        section, reward = session.config.watch, session.config.reward
        self._on = section.scorer is not None or reward is not None
        self._history = self._read() if self._on else []
        self._own = self._own_problems() if section.scorer is not None and section.scorer.name == OWN else {}
        self._raised: set[str] = set(_raised(session))

    def look(self, step: int, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        """The step's watch/ figures; a new alarm is shown, and written with the completions behind it."""
        if not self._on:
            return {}
        seen = watched(groups, self._score(groups))
        found = figures(seen)
        self._history.append(found)
        for alarm in alarms(self._history):
            if alarm.name in self._raised:
                continue
            self._raised.add(alarm.name)
            self._session.state["alarms"] = [*sorted(self._raised)]
            self._session.display.note(f"alarm at step {step}: {alarm.sentence}")
            row: dict[str, JSON] = {"step": step, "alarm": alarm.name, "sentence": alarm.sentence}
            row |= {"evidence": dict(alarm.evidence), "rollouts": [*behind(alarm, seen)]}
            self._session.run.append(ALARMS_FILE, [row])
        return found

    def _score(self, groups: Sequence[RolloutGroup]) -> dict[tuple[int, int], float | None]:
        section = self._session.config.watch
        if section.scorer is None:
            return {}
        places = [(index, rollout) for index, group in enumerate(groups) for rollout in group.rollouts][: section.rows]
        waiting = []
        for _, rollout in places:
            problem = self._own.get((rollout.problem.task, rollout.problem.id), rollout.problem)
            name, options = section.scorer.name, section.scorer.options
            if name == OWN:
                name, options = problem.verifier, dict(problem.verifier_options)
            waiting.append(self._session.pool.submit(name, options, grading_row(problem, rollout.completion)))
        return {
            (index, rollout.sample_index): future.result().reward
            for (index, rollout), future in zip(places, waiting, strict=True)
        }

    def _own_problems(self) -> dict[tuple[str, str], Problem]:
        found: dict[tuple[str, str], Problem] = {}
        config = self._session.config
        for place, section in enumerate(config.task):
            problems = get_task(section.name, **section.options).problems(section.train_split)
            for problem in named_apart(problems, config, place):
                found[problem.task, problem.id] = problem
        return found

    def _read(self) -> list[Mapping[str, float]]:
        """The figures of the steps before a resume."""
        file = self._session.run.path / "metrics.jsonl"
        if not file.is_file():
            return []
        rows = [row.items() for _, row in read_jsonl(file)]
        return [{k: v for k, v in row if k.startswith("watch/") and isinstance(v, int | float)} for row in rows]


def _raised(session: Session) -> list[str]:
    held = session.state.get("alarms")
    return [str(name) for name in held] if isinstance(held, list) else []


__all__ = ["ALARMS_FILE", "OWN", "Watch"]
