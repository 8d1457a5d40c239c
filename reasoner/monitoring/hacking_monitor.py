"""Detection of reward hacking during a run, with a held-out scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from reasoner.config.sections import OWN
from reasoner.config.stage import StageConfig
from reasoner.data.problems import every_problem, named_apart
from reasoner.monitoring.reward_hacking import alarm_examples, alarms, watch_metrics, watched
from reasoner.records import Problem, RolloutGroup
from reasoner.rollout.grading import grading_row
from reasoner.storage.run_folder import RunFolder
from tasks.inputs.spool import Spool
from verifiers import JSON
from verifiers.jsonl import read_jsonl
from verifiers.pool import GradingPool

ALARMS_FILE = "alarms.jsonl"


class HackingMonitor:
    """Monitor that grades some rollouts of every step with a held-out scorer and raises alarms of reward hacking.

    It is inactive if the config has no `watch.scorer` and training uses only the tasks' own verifiers.
    """

    def __init__(
        self,
        config: StageConfig,
        *,
        pool: GradingPool,
        run: RunFolder,
        raised: list[str],
        note: Callable[[str], None],
    ) -> None:
        """Set up the monitor. `raised`: names of earlier alarms, extended in place; `note`: displays a line."""
        self._config, self._pool, self._run, self._raised, self._note = config, pool, run, raised, note
        self._active = config.watch.scorer is not None or config.reward is not None
        self._history = self._read() if self._active else []
        own = config.watch.scorer is not None and config.watch.scorer.name == OWN
        self._own = self._own_problems() if own else ()
        self._own_places = {(problem.task, problem.id): place for place, problem in enumerate(self._own)}

    def observe(self, step: int, groups: Sequence[RolloutGroup]) -> dict[str, float]:
        """Return the step's watch/ metrics. Display new alarms and write them to alarms.jsonl with example rollouts."""
        if not self._active:
            return {}
        seen = watched(groups, self._score(groups))
        found = watch_metrics(seen)
        self._history.append(found)
        for alarm in alarms(self._history):
            if alarm.name in self._raised:
                continue
            self._raised.append(alarm.name)
            self._raised.sort()
            self._note(f"alarm at step {step}: {alarm.sentence}")
            row: dict[str, JSON] = {"step": step, "alarm": alarm.name, "sentence": alarm.sentence}
            row |= {"evidence": dict(alarm.evidence), "rollouts": [*alarm_examples(alarm, seen)]}
            self._run.append(ALARMS_FILE, [row])
        return found

    def _score(self, groups: Sequence[RolloutGroup]) -> dict[tuple[int, int], float | None]:
        section = self._config.watch
        if section.scorer is None:
            return {}
        places = [(index, rollout) for index, group in enumerate(groups) for rollout in group.rollouts][: section.rows]
        waiting = []
        for _, rollout in places:
            place = self._own_places.get((rollout.problem.task, rollout.problem.id))
            problem = rollout.problem if place is None else self._own[place]
            name, options = section.scorer.name, section.scorer.options
            if name == OWN:
                name, options = problem.verifier, dict(problem.verifier_options)
            waiting.append(self._pool.submit(name, options, grading_row(problem, rollout.completion)))
        return {
            (index, rollout.sample_index): future.result().quality
            for (index, rollout), future in zip(places, waiting, strict=True)
        }

    def _own_problems(self) -> Sequence[Problem]:
        """Read the training problems, each with the verifier of its task."""
        config = self._config
        each = (every_problem(section, section.train_split) for section in config.task)
        return Spool(chain.from_iterable(named_apart(found, config, place) for place, found in enumerate(each)))

    def _read(self) -> list[Mapping[str, float]]:
        """Read the watch/ metrics of the steps before a resume."""
        file = self._run.path / "metrics.jsonl"
        if not file.is_file():
            return []
        rows = [row.items() for _, row in read_jsonl(file)]
        return [{k: v for k, v in row if k.startswith("watch/") and isinstance(v, int | float)} for row in rows]
