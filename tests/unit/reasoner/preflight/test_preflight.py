from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import betabinom

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import TaskSection
from reasoner.data.problems import listed
from reasoner.observe.explain import Finding, Level
from reasoner.observe.explain.pass_rates import fitted
from reasoner.observe.explain.signal_chance import Belief, Beta, signal_chance
from reasoner.preflight.advice import sentences
from reasoner.preflight.all_rows import AllRows
from reasoner.preflight.causes import Causes
from reasoner.preflight.measured import Bin, Kept, Preflight
from reasoner.preflight.preflight import _bins, pass_rates, sampling_stage, to_json
from reasoner.preflight.problem_list import problem_list, write_problems
from reasoner.preflight.surprise import Surprise
from reasoner.storage.history import Row
from tasks import Problem
from tasks.survey import Repeats
from tests.unit.reasoner.runs import make_history, make_records, stage
from verifiers import JSON


@pytest.mark.parametrize(("a", "b", "size"), [(1.0, 1.0, 8), (0.3, 2.0, 4), (5.0, 0.5, 16)])
def test_the_chance_of_signal_is_that_of_sampled_groups(a: float, b: float, size: int) -> None:
    rng = np.random.default_rng(0)
    right = rng.binomial(size, rng.beta(a, b, 200_000))
    assert signal_chance(Beta(a, b), size) == pytest.approx(((right > 0) & (right < size)).mean(), abs=0.005)


def test_the_fitted_belief_finds_the_pass_rates() -> None:
    rng = np.random.default_rng(1)
    counts = [(int(c), 8) for c in rng.binomial(8, rng.beta(0.5, 1.5, 3000))]
    found = fitted(counts)
    assert isinstance(found, Beta)
    assert found.mean == pytest.approx(0.25, abs=0.02)
    assert found.a == pytest.approx(0.5, rel=0.2)
    alike = fitted([(4, 8)] * 50)
    assert isinstance(alike, Beta)
    assert alike.a > 20
    assert fitted([]) == Beta(1.0, 1.0)


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


def made_of(counts: list[tuple[int, int]], **changes: object) -> Preflight:
    """Make samples from the number of right ones and of all for each problem; completions differ."""
    (row, *_), rows = make_history(make_records(steps=1)).rows, list[Row]()
    for problem, (right, total) in enumerate(counts):
        for sample in range(total):
            reward = float(sample < right)
            one = replace(row, group=problem, sample=sample, problem=f"p{problem}", completion=f"{problem}/{sample}")
            outcome = "correct" if reward else "incorrect"
            rows.append(replace(one, reward=reward, verdict_reward=reward, outcome=outcome))
    done = measured(accuracy=lambda step: 0.5)
    whole = fitted(counts)
    return replace(done, rows=rows, whole=whole, bins=[bin_of("all", whole, problems=len(counts))], **changes)


def bin_of(name: str, belief: Belief, *, problems: int = 8) -> Bin:
    return Bin(name=name, problems=problems, belief=belief, low=0.0, high=1.0)


def slow_chance(belief: Belief, size: int) -> float:
    """Compute by the beta-binomial's probabilities of no and of only right samples."""
    return float(
        sum(
            share * (1 - betabinom.pmf(0, size, *part) - betabinom.pmf(size, size, *part))
            for share, part in belief.parts
        )
    )


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def test_a_larger_group_is_the_first_that_half_the_problems_give_signal_with() -> None:
    done = made_of([(0, 8), (1, 8), (0, 8), (0, 8), (1, 8)] * 3)
    done.config = stage(rollout={"group_size": 4, "problems_per_step": 24})
    chances = {size: slow_chance(done.whole, size) for size in (4, 8, 16, 32)}
    assert chances[4] < chances[8] < 0.5 < chances[16]
    (said,) = sentences(done)
    assert said == (
        f"group_size=16 would give {percent(chances[16])} of the groups signal, 4 gives {percent(chances[4])}: set"
        " rollout.group_size=16 and rollout.problems_per_step=6 for the same number of samples per step."
    )
    done.config = stage(rollout={"group_size": 16, "problems_per_step": 6})
    assert [*sentences(done)] == []


def test_problems_that_are_never_solved_want_a_start_or_easier_ones() -> None:
    done = made_of([(0, 8)] * 9 + [(3, 8)])
    (said,) = sentences(done)
    assert said == (
        "90 % of the problems were never solved in 8 samples: begin with an sft stage or a stronger model, or with"
        " easier problems."
    )
    few = made_of([(0, 2)] * 9 + [(1, 2)])
    few.config = stage(rollout={"group_size": 2})
    assert slow_chance(few.whole, 16) > 0.5
    assert [said.split(":")[0] for said in sentences(few)] == ["90 % of the problems were never solved in 2 samples"]
    done.bins = [bin_of("easy", Beta(3, 1)), bin_of("hard", Beta(1, 9)), bin_of("middling", Beta(1, 1))]
    assert next(s for s in sentences(done) if "never solved" in s).endswith(
        "or with easier problems (easy: 75 % right)."
    )


def test_problems_that_are_always_solved_want_harder_ones() -> None:
    done = made_of([(8, 8)] * 9 + [(3, 8)])
    done.bins = [bin_of("easy", Beta(3, 1)), bin_of("hard", Beta(1, 9))]
    assert [s for s in sentences(done) if "solved every time" in s] == [
        "90 % of the problems are solved every time: use harder ones (hard: 10 % right)."
    ]


def test_a_kind_of_problems_with_twice_the_signal_is_worth_keeping() -> None:
    done = made_of([(8, 8)] * 3 + [(0, 8)] * 3 + [(4, 8)])
    now = slow_chance(done.whole, 8)
    assert 0.1 < now < 0.45
    done.bins = [
        bin_of("useful", Beta(20, 20)),
        bin_of("useful but few", Beta(20, 20), problems=7),
        bin_of("useless", Beta(1, 400)),
    ]
    (said,) = [said for said in sentences(done) if "--write-problems" in said]
    assert said == (
        f"useful gives {percent(slow_chance(Beta(20, 20), 8))} of its groups signal, the whole data {percent(now)}:"
        " --write-problems FILE keeps the problems that are likely to have some."
    )


def test_samples_that_repeat_each_other_want_a_higher_temperature() -> None:
    done = made_of([(1, 4)] * 6 + [(4, 4)] * 6)
    assert not any("temperature" in said for said in sentences(done))
    for row in done.rows:
        row.completion = "the same" if row.problem in {f"p{n}" for n in range(6)} else row.completion
    done.config = stage(rollout={"group_size": 4, "temperature": 0.6})
    (said,) = [said for said in sentences(done) if "temperature" in said]
    assert "only 25 % of the completions differ from each other: raise rollout.temperature above 0.6." in said
    for row in done.rows:
        row.completion = row.completion.replace("the same", f"{row.sample}") if row.problem != "p6" else "right"
    assert not any("temperature" in said for said in sentences(done)), "where all are right, all may be alike"


def test_other_findings_are_handed_on_with_their_change() -> None:
    def finding(code: str, level: Level = Level.FAULT, follows: str = "") -> Finding:
        return Finding(code=code, level=level, cost=0.5, title=f"It is {code}", change="fix it", follows=follows)

    done = made_of([(2, 8)] * 3 + [(6, 8)] * 3)
    told_above = [finding(code) for code in ("all-wrong", "all-right", "no-diversity")]
    done.findings = [*told_above, finding("note", Level.NOTE), finding("child", follows="x"), finding("truncated")]
    assert [*sentences(done)] == ["It is truncated. Try: fix it"]


def test_nothing_to_change_where_the_signal_is_there() -> None:
    done = measured(accuracy=lambda step: 0.5)
    assert [*sentences(done)] == []
    row = to_json(done)
    assert row["shares"]["mixed"] > 0.9
    assert json.dumps(row)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ({"chat (the config)": 4.0, "plain": 2.7}, "set prompt.chat=never."),
        ({"chat": 2.7, "plain (the config)": 4.0}, "set prompt.chat=always."),
        ({"chat (the config)": 4.0, "plain": 2.9}, None),
        ({"chat (the config)": 2.7, "plain": 4.0}, None),
    ],
)
def test_prompts_are_changed_only_where_the_others_are_much_likelier(
    template: dict[str, float], says: str | None
) -> None:
    done = measured(accuracy=lambda step: 0.5)
    done.causes = Causes(surprise=Surprise(ways=template))
    said = [*sentences(done)]
    if says is None:
        assert said == []
        return
    first, last = said
    assert first.endswith(says)
    assert last.startswith("the shares and the signal above follow from this: after the change")


def rows_of(problems: list[tuple[str, float | None, int]]) -> list[Row]:
    """Make four samples of each (task, difficulty, right)."""
    (row, *_) = make_history(make_records(steps=1)).rows
    return [
        replace(
            row,
            problem=f"{n}",
            task=task,
            difficulty=difficulty,
            verdict_reward=float(sample < right),
            outcome="correct" if sample < right else "incorrect",
        )
        for n, (task, difficulty, right) in enumerate(problems)
        for sample in range(4)
    ]


def test_difficulties_fall_into_quarters_of_their_levels() -> None:
    found = _bins(rows_of([("sums", level / 10, right) for level in range(10) for right in (0, 1, 4)]))
    assert [(b.name, b.problems) for b in found] == [
        ("difficulty quarter 1", 9),
        ("difficulty quarter 2", 6),
        ("difficulty quarter 3", 9),
        ("difficulty quarter 4", 6),
    ]
    assert [b.difficulties for b in found] == [(0.0, 0.2), (0.3, 0.4), (0.5, 0.7), (0.8, 0.9)]
    assert all(b.belief.mean == pytest.approx(5 / 12, abs=0.02) for b in found)


def test_without_difficulties_problems_are_told_apart_by_task() -> None:
    found = _bins(rows_of([("sums", None, 0), ("code", None, 4), ("sums", None, 0), ("", None, 2)]))
    assert [(b.name, b.problems, b.difficulties) for b in found] == [
        ("all", 1, None),
        ("code", 1, None),
        ("sums", 2, None),
    ]
    assert found[1].belief.mean > 0.8 > 0.2 > found[2].belief.mean
    one_level = _bins(rows_of([("sums", 0.5, 0), ("code", 0.5, 4)]))
    assert [(b.name, b.difficulties) for b in one_level] == [("code", None), ("sums", None)]
    some = _bins(rows_of([("sums", 0.5, 0), ("code", None, 4), ("sums", 0.25, 1)]))
    assert [b.name for b in some] == ["code", "difficulty 0.25", "difficulty 0.5"]


def problem(name: str, difficulty: float | None = None, **info: JSON) -> Problem:
    return Problem(id=name, prompt="p", reference="1", verifier="exact", difficulty=difficulty, info=info)


def test_the_problem_list_drops_what_was_never_solved_and_config_reads_it(tmp_path: Path) -> None:
    done = measured(accuracy=lambda step: (0.0, 0.5, 1.0, 0.5)[step - 1])
    known = [problem(name) for name in done.counts]
    kept = problem_list(done, known, least=0.7)
    names = [str(row["id"]) for row in kept]
    mixed = [name for name, (right, total) in done.counts.items() if 0 < right < total]
    assert set(names) == set(mixed)
    file = tmp_path / "problems.jsonl"
    write_problems(file, kept)
    section = TaskSection(name="arithmetic", problems_file=str(file))
    assert [problem.id for problem in listed(known, section)] == names
    with pytest.raises(ConfigError, match="none of which"):
        [*listed([problem("other")], section)]


def test_a_problem_that_was_not_sampled_is_judged_by_those_of_its_difficulty() -> None:
    done = measured(accuracy=lambda step: 0.5)
    easy, hard = Beta(5, 5), Beta(0.05, 50)
    done.whole, done.bins = Beta(1, 1), [
        Bin(name="difficulty quarter 1", problems=8, belief=easy, low=0, high=1, difficulties=(0.0, 0.24)),
        Bin(name="difficulty quarter 4", problems=8, belief=hard, low=0, high=1, difficulties=(0.76, 1.0)),
    ]  # fmt: skip
    named = [("easy", 0.1), ("between", 0.4), ("hard", 0.9), ("unknown", None)]
    known = [problem(name, difficulty) for name, difficulty in named]
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


def test_a_learned_reward_is_not_called_all_wrong() -> None:
    done = made_of([(0, 8)] * 16)
    assert any("never solved" in sentence for sentence in sentences(done))
    scored = replace(done, rows=[replace(row, outcome="scored", verdict_reward=-1.5, reward=-1.5) for row in done.rows])
    assert scored.counts == {}
    assert not any("never solved" in sentence for sentence in sentences(scored))


def of_levels(counts: dict[int, list[tuple[int, int]]], **changes: object) -> Preflight:
    """Make samples of problems whose info has a level, with kinds and bins as preflight finds them."""
    done = made_of([count for some in counts.values() for count in some])
    levels = [level for level, some in counts.items() for _ in some]
    for row in done.rows:
        row.info = {"level": levels[int(row.problem[1:])]}
    whole, kinds = pass_rates(done.rows)
    return replace(done, whole=whole, kinds=kinds, bins=_bins(done.rows, kinds), **changes)


def test_two_kinds_of_problems_are_told_with_their_field_and_what_to_do() -> None:
    done = of_levels({5: [(0, 8)] * 90, 1: [(3, 8), (5, 8)] * 5})
    assert [(b.name, b.problems) for b in done.bins] == [("level=5", 90), ("level=1", 10)]
    first, second = sentences(done)
    assert first.startswith(
        "there are two kinds of problems: 90 % are never solved (level=5) and 10 % are right in 50 % of their samples"
        " (level=1); hardly any and 9"
    )
    assert first.endswith("leave out the first kind, or begin with an sft stage on it or a stronger model.")
    assert second.startswith("level=1 gives 9")
    assert "--write-problems FILE keeps the problems" in second
    known = [problem("p0", level=5), problem("p95", level=1), problem("new", level=1), problem("hard", level=5)]
    assert [row["id"] for row in problem_list(done, known)] == ["p95", "new"], "the level says it of those not sampled"


def test_kinds_between_which_nothing_lies_teach_little() -> None:
    done = of_levels({5: [(0, 8)] * 60, 1: [(8, 8)] * 40})
    assert next(iter(sentences(done))) == (
        "there are two kinds of problems: 60 % are never solved (level=5) and 40 % are always solved (level=1); hardly"
        " any and hardly any of their groups of 8 have signal: neither teaches much. Use problems whose difficulty lies"
        " between them."
    )
    easy = of_levels({1: [(8, 8)] * 40, 5: [(2, 8), (3, 8), (4, 8)] * 20})
    assert next(iter(sentences(easy))).endswith("leave out the second kind.")


def test_kinds_that_both_have_signal_are_no_matter() -> None:
    done = of_levels({5: [(1, 8), (2, 8)] * 30, 1: [(6, 8), (7, 8)] * 30})
    assert done.kinds is not None
    assert [*sentences(done)] == []


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (Kept(40, 100, 40, 0.6), "keeps 40 of the 100 problems, of whose groups 60 % are likely to have signal"),
        (Kept(60, 100, 40, 0.6), "20 of them were not sampled (--problems 100 samples all)."),
        (Kept(40, 100, 40, 0.13), None),  # no gain
        (Kept(98, 100, 98, 0.6), None),  # nearly all
        (Kept(5, 100, 5, 0.9), None),  # nearly none
    ],
)
def test_the_list_of_problems_is_offered_where_it_gains(kept: Kept, told: str | None) -> None:
    done = replace(made_of([(0, 8)] * 87 + [(1, 8)] * 13), kept=kept)
    assert slow_chance(done.whole, 8) < 0.15
    said = [sentence for sentence in sentences(done) if "--write-problems" in sentence]
    assert (said == []) if told is None else (len(said) == 1 and told in said[0])
    wrong = replace(done, causes=Causes(surprise=Surprise(ways={"chat (the config)": 4.0, "plain": 2.7})))
    assert len([*sentences(wrong)]) == 2, "under another template nobody knows which have signal"


def rows_told(contradicting: int) -> AllRows:
    repeats = Repeats(0, contradicting // 2, [], [(0, 1)], 100 - contradicting // 2, contradicting, contradicting)
    return AllRows(100, repeats, ("train/0", "train/1"))


def test_contradicting_references_come_before_what_they_may_cause() -> None:
    done = replace(made_of([(0, 8)] * 20 + [(6, 8), (7, 8), (8, 8)] * 20), all_rows=rows_told(40))
    done.findings = [
        Finding(code=code, level=Level.FAULT, cost=0.5, title=f"It is {code}", change="fix it")
        for code in ("contradicting-references", "references-doubtful", "ungraded")
    ]
    first, second, last = sentences(done)
    assert first.startswith("40 % of the 100 training rows (40) have the prompt of another row and another reference")
    assert second == "It is ungraded. Try: fix it"
    assert last.startswith("the shares and the signal above follow from this")
    few = replace(done, all_rows=rows_told(8), findings=[])
    assert len([*sentences(few)]) > 1, "a tenth of the rows does not explain why a quarter is never solved"
    assert not any("follow from this" in sentence for sentence in sentences(few))
    none = replace(done, all_rows=rows_told(4), findings=[], kinds=None)
    assert not any("another reference" in sentence for sentence in sentences(none))
