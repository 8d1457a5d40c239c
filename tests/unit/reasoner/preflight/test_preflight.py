from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import TaskSection
from reasoner.data.problems import listed
from reasoner.preflight.preflight import Bin, Preflight, problem_list, sampling_stage, sentences, to_json
from reasoner.preflight.signal_chance import Beta, fitted, signal_chance
from tasks import Problem
from tests.unit.reasoner.runs import make_history, make_records, stage


@pytest.mark.parametrize(("a", "b", "size"), [(1.0, 1.0, 8), (0.3, 2.0, 4), (5.0, 0.5, 16)])
def test_the_chance_of_signal_is_that_of_sampled_groups(a: float, b: float, size: int) -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(size, rng.beta(a, b, 200_000))
    assert signal_chance(Beta(a, b), size) == pytest.approx(((right > 0) & (right < size)).mean(), abs=0.005)


def test_the_fitted_belief_finds_the_pass_rates() -> None:
    rng = np.random.default_rng(1)
    counts = [(int(c), 8) for c in rng.binomial(8, rng.beta(0.5, 1.5, 3000))]
    found = fitted(counts)
    assert found.mean == pytest.approx(0.25, abs=0.02)
    assert found.a == pytest.approx(0.5, rel=0.2)
    assert fitted([(4, 8)] * 50).a > 20  # every problem alike
    assert fitted([]) == Beta(1.0, 1.0)
    assert Beta(2, 2).quantile(0.5) == pytest.approx(0.5, abs=1e-3)


def measured(**changes: object) -> Preflight:
    made = make_records(steps=4, problems=16, **changes)  # type: ignore[arg-type]
    history = make_history(made)
    counts: dict[str, list[int]] = {}
    for row in history.rows:
        counts.setdefault(row.problem, []).append(int(row.right))
    whole = fitted([(sum(c), len(c)) for c in counts.values()])
    bins = [Bin(name="all", problems=len(counts), belief=whole, low=0.0, high=1.0)]
    return Preflight(
        config=stage(), rows=history.rows, bins=bins, whole=whole, seconds_per_step=2.0, split={"update": 2.0},
        tokens_per_step=100.0, memory_mb=1.0, seconds=3.0, findings=[],
    )  # fmt: skip


def test_what_to_change_for_problems_that_are_too_hard() -> None:
    done = measured(accuracy=lambda step: 0.0)
    assert done.shares()["all wrong"] == 1.0
    assert any("never solved" in sentence for sentence in sentences(done))
    rare = measured(accuracy=lambda step: 0.05)
    assert any("rollout.group_size=" in sentence for sentence in sentences(rare))


def test_nothing_to_change_where_the_signal_is_there() -> None:
    done = measured(accuracy=lambda step: 0.5)
    assert [*sentences(done)] == []
    row = to_json(done)
    assert row["shares"]["mixed"] > 0.9
    assert json.dumps(row)


def test_the_template_that_the_model_was_trained_on() -> None:
    done = measured(accuracy=lambda step: 0.5)
    done.template = {"chat (the config)": 4.0, "plain": 0.5}
    assert any("set prompt.chat=never" in sentence for sentence in sentences(done))


def test_the_problem_list_drops_what_was_never_solved_and_config_reads_it(tmp_path: Path) -> None:
    done = measured(accuracy=lambda step: (0.0, 0.5, 1.0, 0.5)[step - 1])
    known = [(name, None) for name in done.counts]
    kept = problem_list(done, known, least=0.7)
    names = [str(row["id"]) for row in kept]
    mixed = [name for name, (right, total) in done.counts.items() if 0 < right < total]
    assert set(names) == set(mixed)
    file = tmp_path / "problems.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in kept))
    problems = [Problem(id=name, prompt="p", reference="1", verifier="exact") for name, _ in known]
    section = TaskSection(name="arithmetic", problems_file=str(file))
    assert [problem.id for problem in listed(problems, section)] == names
    with pytest.raises(ConfigError, match="none of which"):
        listed([Problem(id="other", prompt="p", reference="1", verifier="exact")], section)


def test_a_problem_that_was_not_sampled_is_judged_by_those_of_its_difficulty() -> None:
    done = measured(accuracy=lambda step: 0.5)
    easy, hard = Beta(5, 5), Beta(0.05, 50)
    done.whole, done.bins = Beta(1, 1), [
        Bin(name="difficulty quarter 1", problems=8, belief=easy, low=0, high=1, difficulties=(0.0, 0.24)),
        Bin(name="difficulty quarter 4", problems=8, belief=hard, low=0, high=1, difficulties=(0.76, 1.0)),
    ]  # fmt: skip
    known = [("easy", 0.1), ("between", 0.4), ("hard", 0.9), ("unknown", None)]
    assert [row["id"] for row in problem_list(done, known)] == ["easy", "between", "unknown"]


def test_the_stage_that_samples_is_found_and_its_model_asked_for() -> None:
    raw = {"task": "arithmetic", "output": "nowhere", "stages": [{"method": "sft", "model": "m"}, {"method": "grpo"}]}
    with pytest.raises(ConfigError, match="--model"):
        sampling_stage(resolve(raw), None, None)
    found = sampling_stage(resolve(raw), 4, "other")
    assert (found.method, found.model.path, found.rollout.group_size) == ("grpo", "other", 4)
    assert sampling_stage(resolve(raw), None, None, untrained=True).model.path == "m"
    with pytest.raises(ConfigError, match="samples"):
        sampling_stage(resolve({"task": "arithmetic", "model": "m", "method": "sft"}), None, None)
