from __future__ import annotations

import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from reasoner.cli import app
from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent
from verifiers.judge.agreement import agreement, cohen_kappa, graded_agreement, kendall, pearson, ranks, spearman
from verifiers.judge.errors import JudgeFault
from verifiers.judge.judgments import by_judge, read_judgment, read_marks
from verifiers.judge.pairwise import PairQuestion, Preference, compare_pairs
from verifiers.judge.verifier import Judge

JUDGES = {
    "Skywork/Skywork-Reward-Llama-3.1-8B": 62.3,
    "Skywork/Skywork-Reward-Gemma-2-27B": 64.3,
    "Ray2333/GRM-Gemma-2B-rewardmodel-ft": 59.4,
    "internlm/internlm2-7b-reward": 59.4,
    "internlm/internlm2-20b-reward": 63.4,
}


def data(name: str) -> list[dict[str, Any]]:
    root = os.environ.get("REASONER_DATA_DIR")
    if not root:
        pytest.skip(f"set REASONER_DATA_DIR to the folder that holds rubric/{name}.jsonl.gz")
    with gzip.open(Path(root) / "rubric" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize("seed", range(6))
def test_agreement_is_that_of_scikit_learn_and_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(1, 6, 200)
    second = np.clip(first + random.integers(-2, 3, 200), 1, 5)
    one, other = [str(v) for v in first], [str(v) for v in second]
    for weights, theirs in (("none", None), ("linear", "linear"), ("quadratic", "quadratic")):
        ours = cohen_kappa(one, other, order=list("12345"), weights=weights)  # type: ignore[arg-type]
        assert ours.value == pytest.approx(cohen_kappa_score(one, other, labels=list("12345"), weights=theirs))
    left, right = first.astype(float).tolist(), (second + random.normal(0, 0.1, 200).round(1)).tolist()
    assert pearson(left, right) == pytest.approx(stats.pearsonr(left, right).statistic)
    assert spearman(left, right) == pytest.approx(stats.spearmanr(left, right).statistic)
    assert kendall(left, right) == pytest.approx(stats.kendalltau(left, right).statistic)
    assert ranks(left) == stats.rankdata(left).tolist()
    found: Any = graded_agreement(left, second.astype(float).tolist())
    assert found["accuracy"][0] == np.mean(first == second)
    interval = stats.binomtest(int(np.sum(first == second)), 200).proportion_ci(method="wilson")
    assert found["accuracy"][1:] == pytest.approx([interval.low, interval.high])
    assert found["mean_error"] == pytest.approx(np.mean(np.abs(first - second)))


def test_the_interval_of_kappa_is_that_of_resampling() -> None:
    random = np.random.default_rng(1)
    first = random.integers(0, 3, 400)
    second = np.where(random.random(400) < 0.7, first, random.integers(0, 3, 400))
    for weights in ("none", "quadratic"):
        ours = cohen_kappa([str(v) for v in first], [str(v) for v in second], weights=weights)  # type: ignore[arg-type]
        drawn = []
        for _ in range(400):
            rows = random.integers(0, 400, 400)
            drawn.append(cohen_kappa_score(first[rows], second[rows], weights=None if weights == "none" else weights))
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert ours.interval.low == pytest.approx(low, abs=0.02)
        assert ours.interval.high == pytest.approx(high, abs=0.02)


def test_kappa_where_nothing_varies_is_not_a_number() -> None:
    assert math.isnan(cohen_kappa(["a", "a"], ["a", "a"]).value)
    assert agreement(["a", "a"], ["a", "a"])["kappa"] == [None, None, None]
    assert cohen_kappa(["a", "b"] * 50, ["b", "a"] * 50).value == -1
    with pytest.raises(ValueError, match="same rows"):
        cohen_kappa(["a"], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[A>B]]", "first"),
        ("so [[B>>A]].", "second"),
        ("[[ A=B ]]", "tie"),
        ("[[A<<B]]", "second"),
        ("[[A>B]] and again [[A>B]]", "first"),
        ("[[A>B]] or [[A>>B]]", None),
        ("[[B>A]] ... final verdict [[A>B]]", None),
        ("[[A>A]]", None),
        ("A is better", None),
        ("", None),
    ],
)
def test_marks(text: str, said: str | None) -> None:
    assert read_marks(text) == said


def test_judgebench_against_a_direct_recount() -> None:
    rows = data("judgebench_judgments")
    flip = {"A>B": "B>A", "B>A": "A>B", "A=B": "A=B", None: None}
    words = {"first": "A>B", "second": "B>A", "tie": "A=B", None: None}
    equal = 0
    for row in rows:  # every judge's decision, as the file's authors recorded it, or that there is none
        ours = words[read_judgment({**row, "order": "AB"}).decision]
        if row["scores"] and row["scores"][0] == row["scores"][1]:
            equal += 1
            assert ours == "A=B"  # recorded as B>A; two equal scores prefer nothing
        else:
            assert ours == row["decision"], row
    assert equal == 8
    records: dict[str, Any] = {record.judge: record.to_json() for record in by_judge(map(read_judgment, rows))}
    assert len(records) == 7
    for judge, found in records.items():
        mine = [row for row in rows if row["judge_model"] == judge]
        decided: dict[tuple[str, str], dict[str, Any]] = {}
        for row in mine:
            said = row["decision"]
            if row["scores"] and row["scores"][0] == row["scores"][1]:
                said = "A=B"
            frame = said if row["order"] == "AB" else flip[said]
            decided.setdefault((row["response_model"], row["pair_id"]), {"label": row["label"]})[row["order"]] = frame
        right = sum(pair["AB"] == pair["label"] for pair in decided.values())
        both = 0
        for pair in decided.values():
            votes = [pair["AB"], pair["BA"]]
            both += votes.count(pair["label"]) > votes.count(flip[pair["label"]])
        told = [pair for pair in decided.values() if pair["AB"] is not None and pair["BA"] is not None]
        same = sum(pair["AB"] == pair["BA"] for pair in told)
        assert found["accuracy_straight"][0] == right / len(decided)
        assert found["accuracy_both"][0] == both / len(decided)
        assert found["consistent"][0] == same / len(told)
        assert found["cannot_be_told"] == sum(row["decision"] is None for row in mine)
        if judge in JUDGES:
            assert 100 * found["accuracy_straight"][0] == pytest.approx(JUDGES[judge], abs=0.05)
            assert found["consistent"][0] == 1
        usable = [(p[o], p["label"]) for p in decided.values() for o in ("AB", "BA") if p[o] is not None]
        kappa = cohen_kappa_score([a for a, _ in usable], [b for _, b in usable])
        assert found["against_labels"]["kappa"][0] == pytest.approx(kappa)
    assert records["claude-3-haiku-20240307"]["cannot_be_told"] == 13


@pytest.mark.parametrize("name", ["mt_bench_eval", "vicuna_eval"])
def test_repeated_scores_of_prometheus(name: str) -> None:
    rows = data(name)
    assert len(rows) == 320
    scores = np.array([row["gpt4_score"] for row in rows], dtype=float)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        first, second = scores[:, a].tolist(), scores[:, b].tolist()
        found: Any = graded_agreement(first, second)
        assert found["accuracy"][0] == np.mean(scores[:, a] == scores[:, b])
        assert found["kappa"][0] == pytest.approx(cohen_kappa_score(scores[:, a], scores[:, b]))
        weighted = cohen_kappa_score(scores[:, a], scores[:, b], weights="quadratic")
        assert found["kappa_quadratic"][0] == pytest.approx(weighted)
        assert found["pearson"] == pytest.approx(stats.pearsonr(first, second).statistic)
        assert found["spearman"] == pytest.approx(stats.spearmanr(first, second).statistic)
        assert found["kendall"] == pytest.approx(stats.kendalltau(first, second).statistic)


def make(server: ScriptedJudge, where: Path, **options: Any) -> Judge:
    return Judge(**({"url": server.url, "model": "m", "cache": str(where / "cache"), "seconds": 5.0} | options))


PAIR = PairQuestion("Which is longer?", "a", "aaa", "Write.")


def longer(body: scripted.Body, number: int) -> Sent:
    first, second = (len(scripted.data_of(body, name)) for name in ("first", "second"))
    return scripted.better(body, 1 if first > second else 2 if second > first else 0)


def test_a_pair_is_asked_in_both_orders(tmp_path: Path) -> None:
    with ScriptedJudge(longer) as server:
        found = compare_pairs(make(server, tmp_path), [PAIR, PAIR._replace(first="bbb"), PAIR._replace(first="cccc")])
    assert [one.better for one in found if isinstance(one, Preference)] == ["second", "tie", "first"]
    assert [one.probability for one in found if isinstance(one, Preference)] == [0.0, 0.5, 1.0]
    assert all(isinstance(one, Preference) and one.consistent for one in found)
    assert len(server.bodies) == 6


def test_a_judge_that_loves_the_first_place_prefers_nothing(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.better(body, 1)) as server, ScriptedJudge(longer) as other:
        judge = make(server, tmp_path)
        (tie,) = compare_pairs(judge, [PAIR])
        (decided,) = compare_pairs(judge, [PAIR], third=make(other, tmp_path, model="other"))
    assert isinstance(tie, Preference)
    assert (tie.better, tie.sides, tie.probability, tie.consistent) == ("tie", ("first", "second"), 0.5, False)
    assert isinstance(decided, Preference)
    assert (decided.better, decided.sides) == ("second", ("first", "second", "second"))


def test_probabilities_of_a_pair_and_faults(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        if scripted.data_of(body, "first") == "a":
            return scripted.with_shares(body, {1: 0.6, 2: 0.3, 0: 0.1}, key="better")
        return scripted.with_shares(body, {1: 0.2, 2: 0.8}, key="better")

    with ScriptedJudge(script) as server:
        (found,) = compare_pairs(make(server, tmp_path, scores="expectation"), [PAIR])
    assert isinstance(found, Preference)
    assert found.probability == pytest.approx((0.65 + 0.8) / 2)
    with ScriptedJudge(lambda body, number: Sent(status=403)) as server:
        (fault,) = compare_pairs(make(server, tmp_path), [PAIR])
    assert isinstance(fault, JudgeFault)


def test_audits_from_the_command_line(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        if "<first-" in scripted.said_to(body):
            return longer(body, number)
        return scripted.level(body, int(len(scripted.data_of(body)) > 3))

    pairs = tmp_path / "pairs.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": "p", "first": "aa", "second": "a", "label": "first"},
        {"prompt": "p", "first": "aa", "second": "aaa", "label": 1},
        {"prompt": "p", "first": "aa", "second": "aaaa", "label": "A=B"},
    ]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = tmp_path / "scores.jsonl"
    texts = [("long one", 1), ("no", 0), ("oh", 1), ("quite long", 1)]
    scores.write_text(
        "".join(json.dumps({"completion": t, "reference": {"question": "q"}, "human": s}) + "\n" for t, s in texts)
    )
    with ScriptedJudge(script) as server:
        options = [f"url={server.url}", "model=m", f"cache={tmp_path / 'cache'}"]
        given = [word for option in options for word in ("-o", option)]
        said = CliRunner().invoke(app, ["verifiers", "audit", "judge", str(pairs), "--json", *given])
        assert said.exit_code == 0, said.output
        found = json.loads(said.stdout)["judge"]
        assert found["against_labels"]["accuracy"][0] == pytest.approx(2 / 3)
        assert found["consistent"][0] == 1
        said = CliRunner().invoke(app, ["verifiers", "audit", "judge", str(scores), "-c", "score=human", *given])
        assert said.exit_code == 0, said.output
        assert "kappa_quadratic" in said.stdout
        assert "0.7500" in said.stdout
    judged = tmp_path / "judged.jsonl"
    judged.write_text(json.dumps({"pair_id": 1, "order": "BA", "label": "A>B", "judge_text": "[[B>A]]"}) + "\n")
    said = CliRunner().invoke(app, ["verifiers", "audit", "judgments", str(judged)])
    assert said.exit_code == 0, said.output
    assert "accuracy_swapped     1.0000" in said.stdout
    judged.write_text(json.dumps({"order": "AB", "label": "??", "judge_text": ""}) + "\n")
    said = CliRunner().invoke(app, ["verifiers", "audit", "judgments", str(judged)])
    assert said.exit_code != 0
    assert "row 1" in said.output
