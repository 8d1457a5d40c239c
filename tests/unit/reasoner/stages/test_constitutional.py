from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config
from reasoner.config.sections import ConstitutionalSection
from reasoner.model.load import load_model
from reasoner.stages.constitutional import Question, about_answer, comparison_text, fill, label_of, shuffled
from reasoner.stages.pipeline import run_pipeline
from reasoner.stages.principles import Principle, load_principles
from tasks import Problem
from tasks.registry import get_task
from tasks.topics import FORBIDDEN, keeps_off
from tests.unit.verifiers import scripted_judge as scripted
from verifiers import get_verifier
from verifiers.judge.injections import ATTACKS
from verifiers.judge.prompts import disarm
from verifiers.judge.structure import without_structure


def test_templates_are_filled_once_and_what_fills_them_is_left_alone() -> None:
    given = {"answer": "{critique} and {{}}", "critique": "{answer}", "principle": "p"}
    assert fill("{principle}: {answer}|{critique}|{other}", given) == "p: {critique} and {{}}|{answer}|{other}"
    assert fill("nothing", given) == "nothing"
    assert fill("{answer}{answer}", {"answer": "{answer}"}) == "{answer}{answer}"


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_shipped_template_shows_an_answer_with_structure_of_a_chat_in_it(attack: Any) -> None:
    text, section = attack.apply("It is Lyon, surely."), ConstitutionalSection()
    problem = Problem(id="1", prompt="Capital of France?", reference=None, verifier="exact")
    principle = Principle("name", "critique", "revision", "comparison")
    shown = [
        about_answer(section.critique, problem, text, principle="p"),
        about_answer(section.revision, problem, text, principle="p", critique=without_structure(text)),
        comparison_text(section.comparison, Question(0, problem, principle, text, "Paris")),
        comparison_text(section.comparison, Question(0, problem, principle, "Paris", text)),
    ]
    assert len(without_structure(text).encode()) <= len(text.encode())  # a prompt that fitted still fits
    for said in shown:
        assert "It is Lyon" in said
        for token in ("<|", "|>", "</s>", "<s>", "[INST]", "[/INST]", "<<SYS", "<</SYS", "<start_of", "<end_of"):
            assert token not in said
        assert not re.search("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]", said)
    assert {"critique", "revision", "comparison"} == {
        name for name, field in ConstitutionalSection.model_fields.items() if "{prompt}" in str(field.default)
    }  # every template is tried


def test_labels_need_both_orders() -> None:
    assert label_of(0.9, 0.7, 0.0) == "first"
    assert label_of(0.2, 0.4, 0.0) == "second"
    assert label_of(0.99, 0.49, 0.0) == "tie"  # the order decides
    assert label_of(0.6, 0.55, 0.1) == "tie"  # too near to one half
    assert label_of(0.5, 0.5, 0.0) == label_of(1.0, 0.5, 0.0) == label_of(0.5, 0.0, 0.0) == "tie"


def test_principles(tmp_path: Path) -> None:
    general = load_principles("general")
    assert len(general) >= 8
    assert general[0].revision != general[0].critique
    assert [principle.comparison for principle in load_principles("topics")] == ["no x", "no y", "no z"]
    for text, said in (
        ("- {name: a}", "name and text"),
        ("- {name: a, text: b}\n" * 2, "different names"),
        (":", "read"),
    ):
        (tmp_path / "bad.yaml").write_text(text if text != ":" else "a: [")
        with pytest.raises(ConfigError, match=said):
            load_principles(str(tmp_path / "bad.yaml"))
    with pytest.raises(ConfigError, match="missing"):
        load_principles("missing")


def test_shuffled_labels_say_nothing() -> None:
    pairs: list[dict[str, Any]] = [{"id": str(at), "label": "first", "probability": 0.875} for at in range(400)]
    found = shuffled(pairs, seed=0)
    assert 150 < sum(pair["label"] == "first" for pair in found) < 250
    assert found == shuffled(pairs, seed=0)
    assert {(pair["label"], pair["probability"]) for pair in found} == {("first", 0.875), ("second", 0.125)}


def test_the_toy_worlds_gold_is_right_and_its_rule_is_strict() -> None:
    task = get_task("topics", kind="all", train_size=800, careless=0.5)
    kinds: dict[str, int] = {}
    verifier = get_verifier("tasks.topics:keeps_off")
    for problem in task.problems("train"):
        kind = problem.id.split("/")[1]
        kinds[kind] = kinds.get(kind, 0) + 1
        verdict = verifier.verify(completion=problem.demonstration or "", reference=problem.reference)
        careless = kind == "ask" and any(letter in (problem.demonstration or "") for letter in FORBIDDEN)
        assert verdict.reward == (0 if careless else 1)
    assert set(kinds) == {"ask", "critique", "revise", "compare"}
    assert min(kinds.values()) > 50
    train = {problem.prompt for problem in get_task("topics").problems("train")}
    assert not train & {problem.prompt for problem in get_task("topics").problems("test")}
    assert keeps_off(completion="dkax", reference={"allowed": "dka"}).reward == 0
    assert keeps_off(completion="dkaa", reference={"allowed": "dka"}).reward == pytest.approx(2 / 3)
    assert keeps_off(completion="dk", reference=None).reward is None


TINY = """
seed: 1
task: {name: topics, options: {train_size: 200, test_size: 20}}
prompt: {chat: never}
model: {from_scratch: {hidden_size: 16, layers: 1, heads: 2, max_positions: 64}}
rollout: {problems_per_step: 12, group_size: 2, max_tokens: 8}
engine: {name: hf}
eval: {problems: 0}
logging: {tensorboard: false}
stages:
  - {method: sft, steps: 2, sft: {rows_per_step: 4}}
  - method: constitutional
    label: own
    steps: 2
    constitutional:
      principles: topics
      rounds: 2
      critique: "{principle}?{answer}:"
      revision: "{principle}!{answer},{critique}:"
      comparison: "{principle}|{first}|{second}:"
  - {method: sft, label: revisions, steps: 2, sft: {rows_per_step: 4, data: ["stage:own/sft"]}}
  - {method: dpo, steps: 2, dpo: {pairs_per_step: 4}, preferences: {train: "stage:own"}}
"""


def test_the_loop_end_to_end_leaves_everything_on_disk(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    config = load_config(str(tmp_path / "tiny.yaml"), [f"output={tmp_path / 'run'}"])
    last = run_pipeline(config, resume=False)
    assert (last / "final" / "config.json").is_file()
    folder = tmp_path / "run" / "1-constitutional"
    rows: dict[str, list[dict[str, Any]]] = {
        name: [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("transcripts.jsonl", "sft.jsonl", "pairs.jsonl", "rollouts.jsonl", "metrics.jsonl")
    }
    told = [row for row in rows["transcripts.jsonl"] if "rounds" in row]
    compared = [row for row in rows["transcripts.jsonl"] if "chances" in row]
    assert len(told) == len(rows["rollouts.jsonl"]) == 2 * 12 * 2 == len(rows["sft.jsonl"])
    assert all(len(row["rounds"]) == 2 for row in told)
    assert [row["answer"] for row in told] == [row["completion"].strip() for row in rows["rollouts.jsonl"]]
    assert {one["principle"] for row in told for one in row["rounds"]} == {"no_x", "no_y", "no_z"}
    for row in told:
        assert row["revision"] == (row["rounds"][1]["revision"] or row["rounds"][0]["revision"] or row["answer"])
    changed = [row for row in told if row["revision"] != row["answer"] and row["answer"]]
    assert len(rows["pairs.jsonl"]) == len(changed) + len(compared)
    for row in compared:
        assert row["label"] == label_of(*row["chances"], margin=0.0)
    loaded = load_model(
        config.stages[0].model.model_copy(
            update={"path": str(tmp_path / "run" / "0-sft" / "final"), "from_scratch": None}
        ),
        seed=0,
    )
    row = compared[0]  # the first order's chance, from the logits themselves
    first, second = without_structure(row["first"]), without_structure(row["second"])
    asked = f"{row['principle'].replace('_', ' ')}|{first}|{second}:"
    ids = torch.tensor([loaded.tokenizer(asked)["input_ids"]])
    letters = [loaded.tokenizer(letter)["input_ids"][0] for letter in "AB"]
    with torch.no_grad():
        chance = loaded.model(ids).logits[0, -1, letters].softmax(-1)[0].item()
    assert row["chances"][0] == pytest.approx(chance, abs=1e-4)
    assert {"constitutional/changed", "constitutional/agreed"} <= set(rows["metrics.jsonl"][0])


def test_another_judge_compares_and_its_faults_are_no_labels(tmp_path: Path) -> None:
    def shorter(body: scripted.Body, number: int) -> scripted.Sent:
        first, second = (scripted.data_of(body, name) for name in ("first", "second"))
        if min(first, second) < "d":
            return scripted.Sent(status=403, content="not today")
        return scripted.better(body, 1 if len(first) < len(second) else 2 if len(second) < len(first) else 0)

    with scripted.ScriptedJudge(shorter) as server:
        options = json.dumps({"url": server.url, "model": "m", "cache": str(tmp_path / "cache")})
        judged = f"    constitutional:\n      judge: {{name: judge, options: {options}}}"
        (tmp_path / "tiny.yaml").write_text(TINY.replace("    constitutional:", judged))
        config = load_config(str(tmp_path / "tiny.yaml"), [f"output={tmp_path / 'run'}"])
        run_pipeline(config.model_copy(update={"stages": config.stages[:2]}), resume=False)
    folder = tmp_path / "run" / "1-constitutional"
    rows = [json.loads(line) for line in (folder / "transcripts.jsonl").read_text().splitlines()]
    compared = [row for row in rows if "rounds" not in row]
    faults = [row for row in compared if "fault" in row]
    assert 0 < len(faults) < len(compared)
    assert all("answered 403" in row["fault"] and "label" not in row for row in faults)
    for row in compared:
        if row not in faults:
            first, second = len(disarm(row["first"])), len(disarm(row["second"]))
            assert row["label"] == ("first" if first < second else "second" if second < first else "tie")
    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert sum(pair["category"] == "comparison" for pair in pairs) == len(compared) - len(faults)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["constitutional/faults"] for row in metrics) == len(faults)
