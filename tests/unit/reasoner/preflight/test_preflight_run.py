"""`preflight` on a tiny model: real samples, a real update, and every number recomputed by hand."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from scipy.stats import beta

from reasoner.algorithm.batch import Batch
from reasoner.config.load import resolve
from reasoner.config.sections import PromptSection, TaskSection
from reasoner.config.stage import RunConfig, StageConfig, deep_merge
from reasoner.data.encode import batch_of, completion_ids
from reasoner.data.problems import listed
from reasoner.data.prompt import render
from reasoner.data.rows import Encoded
from reasoner.engine.hf import HfEngine
from reasoner.policy.policy import Policy
from reasoner.preflight.advice import sentences
from reasoner.preflight.measured import Preflight
from reasoner.preflight.preflight import preflight, to_json
from reasoner.preflight.problem_list import problem_list, write_problems
from reasoner.stages.sft import negative_log_likelihood
from tasks import Problem
from tasks.registry import get_task

TASK = {"family": "addition", "digits": 1}
TEMPLATE = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}<<{% endif %}"
GRADERS = """
def even(*, completion: str, reference: str) -> bool:
    return len(completion.encode()) % 2 == 0

def never(*, completion: str, reference: str) -> bool:
    return False

def broken(*, completion: str, reference: str) -> bool:
    raise KeyError(reference)
"""
"""The first one gives signal for any model."""


def train_problems() -> list[Problem]:
    return list(get_task("arithmetic", **TASK).problems("train"))


def stage_of(folder: Path, **changes: object) -> StageConfig:
    return run_of(folder, **changes).stages[0]


def run_of(folder: Path, *, grader: str = "even", **changes: object) -> RunConfig:
    raw: dict[str, object] = {
        "output": str(folder / "run"),
        "steps": 50,
        "task": {"name": "arithmetic", "options": TASK, "verifier": {"name": f"{folder}/graders.py:{grader}"}},
        "prompt": {"chat": "never"},
        "model": {"path": str(folder / "model"), "dtype": "float32"},
        "rollout": {"problems_per_step": 3, "group_size": 2, "max_tokens": 6},
        "engine": {"name": "hf"},
        "optim": {"lr": 1e-3},
        "eval": {"problems": 4},
    }
    return resolve(deep_merge(raw, changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes the task's demonstrations after plain prompts, and the same backwards after chats."""
    folder = tmp_path_factory.mktemp("preflight")
    (folder / "graders.py").write_text(GRADERS)
    scratch = {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 96}, "path": None}
    policy = Policy(stage_of(folder, model=scratch, optim={"lr": 1e-2}), accelerator=Accelerator(cpu=True))
    policy.tokenizer.chat_template = TEMPLATE
    problems = train_problems()
    rows: list[Encoded] = []
    for way in ("never", "always"):
        prompts = render(problems, policy.tokenizer, PromptSection(chat=way))
        for problem, prompt in zip(problems, prompts, strict=True):
            text = str(problem.demonstration)[:: 1 if way == "never" else -1]
            ids = completion_ids(text, policy.tokenizer)
            rows.append(Encoded(id=way, prompt_ids=prompt.ids, completion_ids=ids, loss_mask=(True,) * len(ids)))
    for step in range(40):
        policy.update(batch_of(rows[step % 5 :: 5]), negative_log_likelihood)
    policy.save(folder / "model")
    return folder


class Clock:
    """A clock that advances only in the parts of a step that say so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.rounds = 0

    def taking(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, seconds: float) -> None:
        plain = getattr(owner, name)

        def slow(*given: Any, **named: Any) -> object:
            self.now += seconds
            return plain(*given, **named)

        monkeypatch.setattr(owner, name, slow)

    def generate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plain = HfEngine.generate

        def slow(engine: HfEngine, *given: Any) -> Iterator[object]:
            self.rounds += 1
            self.now += 100.0 if self.rounds == 1 else 10.0 * self.rounds
            yield from plain(engine, *given)

        monkeypatch.setattr(HfEngine, "generate", slow)


class Run(NamedTuple):
    """Run a preflight; return it, and the number of requests to the engine."""

    done: Preflight
    rounds: int


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """Run on an artificial clock: log-probabilities take 3 s, an update 5 s, a sync 7 s."""
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        for name, seconds in (("annotate", 3.0), ("accumulate", 5.0), ("named_weights", 7.0)):
            clock.taking(patch, Policy, name, seconds)
        clock.generate(patch)
        patch.setattr(time, "perf_counter", lambda: clock.now)
        done = preflight(run_of(folder), problems=10, seconds=1000.0)
    return Run(done, clock.rounds)


def groups(done: Preflight) -> dict[tuple[int, int], list[float]]:
    """Return the rewards of each group, by (round, place)."""
    found: dict[tuple[int, int], list[float]] = {}
    for row in done.rows:
        assert row.reward is not None
        found.setdefault((row.step, row.group), []).append(row.reward)
    return found


def test_it_samples_rounds_of_a_step_until_there_are_enough_problems(run: Run) -> None:
    assert run.rounds == 4  # 3 problems each: the first number of rounds with at least 10
    assert sorted(groups(run.done)) == [(step, group) for step in range(1, 5) for group in range(3)]
    assert {len(rewards) for rewards in groups(run.done).values()} == {2}
    known = {problem.id: problem for problem in train_problems()}
    drawn = [row.problem for row in run.done.rows[::2]]
    assert len(set(drawn)) == 12
    for row in run.done.rows:
        assert row.prompt == known[row.problem].prompt
        assert row.reward == float(len(row.completion.encode()) % 2 == 0)
    by_hand = {drawn[place]: (sum(rewards), 2) for place, rewards in enumerate(groups(run.done).values())}
    assert run.done.counts == by_hand


def test_the_shares_of_problems(run: Run) -> None:
    right = [sum(rewards) for rewards in groups(run.done).values()]
    wanted = {"all wrong": right.count(0) / 12, "mixed": right.count(1) / 12, "all right": right.count(2) / 12}
    assert run.done.shares() == pytest.approx(wanted)
    assert 0 < wanted["mixed"] < 1
    assert to_json(run.done)["shares"] == pytest.approx(wanted, abs=1e-4)


def test_the_time_of_a_step_is_that_of_its_parts_as_often_as_there_is_signal(run: Run) -> None:
    rounds = [any(len(set(r)) > 1 for (step, _), r in groups(run.done).items() if step == at) for at in range(1, 5)]
    share = sum(rounds) / 4
    assert share > 0
    assert run.done.split == pytest.approx(
        {
            "generation": statistics.median([20.0, 30.0, 40.0]),  # the first round warms up
            "grading wait": 0.0,
            "logprobs": 3.0 * share,
            "update": (5.0 + 3.0) * share,  # the probe of the step scores some rows again
            "sync": 7.0 * share,
        }
    )
    assert run.done.seconds_per_step == pytest.approx(sum(run.done.split.values()))
    tokens = [row.tokens for row in run.done.rows]
    assert run.done.tokens_per_step == pytest.approx(sum(tokens) / len(tokens) * 3 * 2)
    step = to_json(run.done)["step"]
    assert step["hours"] == pytest.approx(run.done.seconds_per_step * 50 / 3600, abs=1e-3)
    assert 10 < run.done.memory_mb < 1e6


def test_the_first_update_is_on_rows_that_have_their_groups_advantage(run: Run) -> None:
    updated = {(row.step, row.group) for row in run.done.rows if row.advantage is not None}
    (step,) = {step for step, _ in updated}
    assert step in (3, 4)
    for at, rewards in groups(run.done).items():
        rows = [row for row in run.done.rows if (row.step, row.group) == at]
        if at not in updated:
            assert all(row.trainer is None for row in rows)
            continue
        spread = statistics.pstdev(rewards) + 1e-6
        for row, reward in zip(rows, rewards, strict=True):
            assert row.advantage == pytest.approx((reward - statistics.fmean(rewards)) / spread, rel=1e-5)
            assert row.trainer is not None
            assert row.trainer.tolist() == pytest.approx(row.logprobs.tolist(), abs=1e-3), "the weights that sampled"


def test_bins_are_the_problems_of_each_difficulty(run: Run) -> None:
    known = {problem.id: problem.difficulty for problem in train_problems()}
    levels = sorted({known[row.problem] for row in run.done.rows})
    assert 1 < len(levels) <= 4
    for level, found in zip(levels, run.done.bins, strict=True):
        assert found.name == f"difficulty {level:.2g}"
        assert found.difficulties == (level, level)
        assert found.problems == len({row.problem for row in run.done.rows if known[row.problem] == level})
        for share, bound in ((0.05, found.low), (0.95, found.high)):
            below, above = (
                sum(part * beta.cdf(x, *belief) for part, belief in found.belief.parts)
                for x in (bound - 1e-5, bound + 1e-5)
            )
            assert below <= share <= above
    assert sum(found.problems for found in run.done.bins) == 12


@torch.no_grad()
def nats(folder: Path, way: str, done: Preflight) -> float:
    """Return the loss per token of the sampled problems' worked solutions after one kind of prompt, by a plain forward
    pass.
    """
    sampled = {row.problem for row in done.rows}
    policy = Policy(stage_of(folder), accelerator=Accelerator(cpu=True))
    total, count = 0.0, 0
    for problem in (problem for problem in train_problems() if problem.id in sampled):
        text = str(problem.prompt) if way == "plain" else f"[{problem.prompt}]<<"
        prompt, answer = (
            policy.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (text, problem.demonstration)
        )
        ids = torch.tensor([[*prompt, *answer]])
        scores = policy.model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        total -= float(scores[len(prompt) - 1 :].sum())
        count += len(answer)
    return total / count


def test_the_prompts_that_the_model_was_trained_on_are_found(folder: Path, run: Run) -> None:
    plain, chat = nats(folder, "plain", run.done), nats(folder, "chat", run.done)
    assert plain < 0.7 * chat
    assert run.done.causes.surprise.ways == pytest.approx({"plain (the config)": plain, "chat": chat}, rel=1e-4)
    assert not any("prompt.chat" in sentence for sentence in sentences(run.done))
    wrong = preflight(run_of(folder, prompt={"chat": "auto"}), problems=1, seconds=0.0)
    plain, chat = nats(folder, "plain", wrong), nats(folder, "chat", wrong)
    assert wrong.causes.surprise.ways == pytest.approx({"chat (the config)": chat, "plain": plain}, rel=1e-4)
    said = [sentence for sentence in sentences(wrong) if "prompt.chat" in sentence]
    assert len(said) == 1
    assert said[0].startswith("the worked solutions are much likelier after plain prompts (")
    assert f"({plain:.2f} nats a token against {chat:.2f})" in said[0]
    assert said[0].endswith("set prompt.chat=never.")


def test_nothing_is_kept_and_time_and_samples_are_bounded(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = preflight(run_of(folder, grader="never"), problems=100, samples=4, seconds=0.0)
    assert len(groups(done)) == 3, "one round, whatever the problems asked for"
    assert {len(rewards) for rewards in groups(done).values()} == {4}
    assert sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts) == before


def test_without_signal_a_step_is_sampling_alone(folder: Path) -> None:
    done = preflight(run_of(folder, grader="never"), problems=6)
    assert done.shares() == {"all wrong": 1.0, "mixed": 0.0, "all right": 0.0}
    assert done.split["generation"] > 0
    assert [done.split[part] for part in ("logprobs", "update", "sync")] == [0.0, 0.0, 0.0]
    assert any(sentence.startswith("100 % of the problems were never solved") for sentence in sentences(done))


def test_an_update_is_timed_on_other_rows_where_the_last_rounds_have_no_signal(folder: Path) -> None:
    one_group = run_of(folder, rollout={"problems_per_step": 1, "group_size": 2})
    mixed = [len(set(rewards)) > 1 for rewards in groups(preflight(one_group, problems=16)).values()]
    rounds = next(at for at in range(3, 17) if any(mixed[:at]) and not any(mixed[at - 2 : at]))
    done = preflight(one_group, problems=rounds)
    assert [len(set(rewards)) > 1 for rewards in groups(done).values()] == mixed[:rounds]
    assert min(done.split[part] for part in ("logprobs", "update", "sync")) > 0


def test_the_memory_is_measured_on_a_step_of_all_its_groups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    updated: list[int] = []
    plain = Policy.accumulate

    def counted(policy: Policy, batch: Batch, *given: Any, **named: Any) -> None:
        updated.append(len(batch))
        plain(policy, batch, *given, **named)

    monkeypatch.setattr(Policy, "accumulate", counted)
    wanted = {"rollout": {"problems_per_step": 12, "group_size": 4}}
    run = run_of(folder, **wanted)
    done = preflight(run, problems=24)
    rewards: dict[tuple[int, int], set[float | None]] = {}
    for row in done.rows:
        rewards.setdefault((row.step, row.group), set()).add(row.reward)
    kept = {step: sum(at[0] == step and len(found) > 1 for at, found in rewards.items()) for step in (1, 2)}
    assert all(0 < count < 12 for count in kept.values()), "some groups have signal, some have none"
    assert updated == [*(4 * count for count in kept.values()), 48]


def test_what_could_not_be_graded_is_no_evidence(folder: Path) -> None:
    done = preflight(run_of(folder, grader="broken", grading={"max_ungraded_share": 1.0}), problems=3)
    assert done.counts == {}
    assert set(done.shares().values()) == {0.0}
    found = to_json(done)
    assert found["ungraded"]["share"] == 1.0
    assert "KeyError" in found["ungraded"]["causes"][0]
    said = [*sentences(done)]
    assert said[0].startswith("100 % of the completions could not be graded (6 of 6)")
    assert not any("group_size" in sentence for sentence in said), "no advice from a belief without evidence"


def test_the_file_of_problems_is_read_by_the_next_run(run: Run, tmp_path: Path) -> None:
    problems = train_problems()
    rows = problem_list(run.done, problems, least=1.0)
    assert 0 < len(rows) < len(problems)
    write_problems(tmp_path / "problems.jsonl", rows)
    section = TaskSection(name="arithmetic", problems_file=str(tmp_path / "problems.jsonl"))
    assert [problem.id for problem in listed(problems, section)] == [row["id"] for row in rows]
    assert np.mean([float(str(row["signal"])) for row in rows]) > to_json(run.done)["signal"]["2"]
