from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoner.config.load import load_config, resolve, shipped_configs
from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.graders import judge_model
from reasoner.graders.judge_model import JudgeModel, continuation, prompt_text
from reasoner.model.load import load_model
from reasoner.stages.checks import check_run
from reasoner.stages.pipeline import run_pipeline
from verifiers import BadOption, GradingRow, Outcome, get_verifier
from verifiers.judge.chat import ChatRequest, Reply
from verifiers.judge.pairwise import PairQuestion, Preference, compare_pairs
from verifiers.judge.prompts import grading_prompt
from verifiers.judge.questions import Question
from verifiers.pool import GradingPool, GradingRequest

QUESTION = {"question": "Is it polite?", "levels": [{"level": at, "description": f"level {at}"} for at in (1, 2, 3)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model of random weights that reads bytes."""
    path = tmp_path_factory.mktemp("judge") / "model"
    section = ModelSection(from_scratch=ScratchConfig(hidden_size=32, layers=1, heads=2, max_positions=4096), path=None)
    loaded = load_model(section, seed=3)
    loaded.model.save_pretrained(path)
    loaded.tokenizer.save_pretrained(path)
    return str(path)


def rows(count: int) -> list[GradingRow]:
    return [
        GradingRow(completion=f"Good day, number {at}.", reference=QUESTION, prompt="Greet.") for at in range(count)
    ]


def taught(folder: str, path: Path) -> str:
    """The same model with its head biased towards digits, so that it prefers a level."""
    loaded = load_model(ModelSection(path=folder), seed=0)
    digits = [loaded.tokenizer(str(at), add_special_tokens=False)["input_ids"][0] for at in (1, 2, 3)]
    head = loaded.model.get_output_embeddings()
    with torch.no_grad():
        head.weight[digits] *= 60
    loaded.model.save_pretrained(path)
    loaded.tokenizer.save_pretrained(path)
    return str(path)


def test_the_reward_is_the_expectation_over_the_models_own_probabilities(folder: str, tmp_path: Path) -> None:
    folder = taught(folder, tmp_path / "taught")
    judge = JudgeModel(model=folder, cache=str(tmp_path / "cache"))
    verdicts = judge.verify_batch(rows(3))
    loaded = load_model(ModelSection(path=folder), seed=0)
    for row, verdict in zip(rows(3), verdicts, strict=True):
        question = Question.from_json(row.reference)
        prompt = grading_prompt(question=question, completion=row.completion, prompt=row.prompt, canary=False)
        start, key, choices = continuation(prompt.schema)
        assert (start, key, choices) == ('{"check": "", "evidence": "", "reason": "", "level": ', "level", [1, 2, 3])
        text = prompt_text(prompt.turns, loaded.tokenizer) + start
        ids = torch.tensor([loaded.tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            logits = loaded.model(ids).logits[0, -1].double()
        digits = [loaded.tokenizer(str(at), add_special_tokens=False)["input_ids"][0] for at in (1, 2, 3)]
        shares = logits.softmax(-1)[digits]
        expected = ((shares * torch.tensor([0.0, 0.5, 1.0])).sum() / shares.sum()).item()
        if shares.sum() < 0.05:  # the judge says that it did not mean any level
            assert verdict.outcome is Outcome.VERIFIER_ERROR
            assert "did not mean any" in verdict.reason
        else:
            assert verdict.reward == pytest.approx(expected, abs=1e-5)
    assert any(verdict.graded for verdict in verdicts)


def test_batches_through_the_pool_and_the_cache(folder: str, tmp_path: Path) -> None:
    model = taught(folder, tmp_path / "taught")
    options = {"model": model, "cache": str(tmp_path / "cache")}
    rubric = {"judge": {"verifier": "judge-model", "options": options}}
    with GradingPool(workers=1) as pool:
        found = list(pool.grade(GradingRequest("judge-model", row, options) for row in rows(6)))
        whole = [
            GradingRow(completion=row.completion, reference=[{"name": "polite", "judged": QUESTION}], prompt=row.prompt)
            for row in rows(6)
        ]
        judged = list(pool.grade(GradingRequest("rubric", row, rubric) for row in whole))
    judge = get_verifier("judge-model", **options)
    assert isinstance(judge, JudgeModel)
    assert judge.usage.calls == 6  # the rubric's questions were in the cache
    graded = [verdict for verdict in found if verdict.graded]
    assert len(graded) >= 3
    assert [verdict.reward for verdict in judged] == [verdict.reward for verdict in found]
    assert len({verdict.reward for verdict in graded}) > 1
    for verdict in graded:
        shares = verdict.detail["shares"]
        assert isinstance(shares, dict)
        assert sum(float(str(share)) for share in shares.values()) == pytest.approx(1, abs=1e-4)


def test_pairs_in_both_orders(folder: str, tmp_path: Path) -> None:
    judge = JudgeModel(model=taught(folder, tmp_path / "taught"), cache="")
    pairs = [PairQuestion("Which is better?", f"one {at}", f"another {at}") for at in range(4)]
    for answer in compare_pairs(judge, pairs):
        if isinstance(answer, Preference):
            assert 0 <= answer.probability <= 1


def test_what_does_not_fit_is_a_fault_and_what_is_no_option_is_refused(folder: str, tmp_path: Path) -> None:
    judge = JudgeModel(model=folder, cache=str(tmp_path / "cache"))
    verdict = judge.verify(completion="x" * 5000, reference=QUESTION)
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert "exceed the context of 4096" in verdict.reason
    with pytest.raises(BadOption, match="samples nothing"):
        JudgeModel(model=folder, temperature=1.0, repeats=2)
    missing = JudgeModel(model=str(tmp_path / "missing"), cache="")
    with GradingPool(workers=1) as pool:
        options = {"model": str(tmp_path / "missing"), "cache": ""}
        verdict = pool.submit("judge-model", options, rows(1)[0]).result()
    assert missing.name == verdict.verifier
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert "missing" in verdict.reason


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_shipped_configs_pass_the_checks_of_a_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good day."}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    monkeypatch.chdir(tmp_path)
    check_run(load_config(name))


def test_a_reward_that_cannot_be_made_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    levels = [{"level": 1, "description": "no"}, {"level": 2, "description": "More than half", "not all": None}]
    judged = {"judged": {"question": "How many?", "levels": levels}}
    stages = [{"method": "sft"}, {"method": "grpo", "reward": {"name": "rubric", "options": {"rubric": [judged]}}}]
    config = resolve({"task": "topics", "output": str(tmp_path / "run"), "model": "none", "stages": stages})
    with pytest.raises(BadOption, match="a level must be an object of"):
        run_pipeline(config, resume=False)
    assert not (tmp_path / "run").exists()


def test_a_budget_stops_the_judge_before_it_is_exceeded(folder: str, tmp_path: Path) -> None:
    model = taught(folder, tmp_path / "taught")
    free = JudgeModel(model=model, cache="")
    tokens = free.verify_batch(rows(1))[0].detail["tokens"]
    assert isinstance(tokens, int)
    judge = JudgeModel(model=model, cache=str(tmp_path / "c"), token_budget=2 * tokens + tokens // 2)
    found = judge.verify_batch(rows(4))
    assert [verdict.graded for verdict in found] == [True, True, False, False]
    assert "budget" in found[2].reason
    assert judge.usage.prompt_tokens + judge.usage.completion_tokens <= 2 * tokens + tokens // 2
    assert judge.verify_batch(rows(2))[1].graded  # from the cache, which costs nothing
    with pytest.raises(BadOption, match="token_budget must be >= 1"):
        JudgeModel(model=model, token_budget=0)


def test_levels_in_both_orders_are_averaged(folder: str, tmp_path: Path) -> None:
    model = taught(folder, tmp_path / "taught")
    question = Question.from_json(QUESTION)
    (both,) = JudgeModel(model=model, cache="", orders=2).verify_batch(rows(1))
    (once,) = JudgeModel(model=model, cache="").verify_batch(rows(1))
    assert both.detail["levels"] is not None
    assert both.detail["tokens"] == 2 * once.detail["tokens"]  # type: ignore[operator]
    rising, falling = (
        grading_prompt(question=question, completion="c", prompt=None, canary=False, reverse=reverse).turns[1].content
        for reverse in (False, True)
    )
    assert rising.index("1: level 1") < rising.index("3: level 3")
    assert falling.index("3: level 3") < falling.index("1: level 1")


def test_one_forward_pass_answers_no_checklist(folder: str, tmp_path: Path) -> None:
    options = {"model": folder, "cache": ""}
    with pytest.raises(BadOption, match="criteria_per_call must be 1"):
        get_verifier("rubric", judge={"verifier": "judge-model", "options": options}, criteria_per_call=2)
    judge = JudgeModel(model=folder, cache="")
    verdict = judge.verify(completion="a", reference={"questions": ["q", "r"]})
    assert verdict.outcome is Outcome.BAD_REFERENCE


class WritingEngine:
    """Stands in for vLLM: answers every request with the text that a test gives it, and notes how many came at once."""

    max_model_len = 4096

    def __init__(self, **_: object) -> None:
        self.batches: list[int] = []

    def generate_json(self, rows: Sequence[tuple[list[int], ChatRequest]]) -> list[Reply]:
        self.batches.append(len(rows))
        replies: list[Reply] = []
        for ids, request in rows:
            choices = {key: held["enum"][-1] for key, held in request.schema["properties"].items() if "enum" in held}  # type: ignore[union-attr, index, operator]
            check = re.findall(r'"check": the word (\S+)', request.turns[-1].content)[-1].rstrip(".")
            texts = {key: "" for key in request.schema["properties"] if key not in choices}  # type: ignore[union-attr]
            replies.append(Reply(json.dumps({**texts, **choices, "check": check}), "stop", len(ids), 10))
        return replies


def test_a_budget_cuts_a_batch_of_written_replies_into_what_fits(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(judge_model, "VllmEngine", WritingEngine)
    options: dict[str, Any] = {"model": folder, "engine": "vllm", "max_tokens": 200, "cache": str(tmp_path / "a")}
    free = JudgeModel(**options)
    spent = free.verify_batch(rows(1))[0].detail["tokens"]  # of one call, 10 of the reply among them
    assert isinstance(spent, int)
    budget = 2 * (spent + 190) + spent  # two at once by what they may take, and more by what they took
    judge = JudgeModel(**{**options, "cache": str(tmp_path / "b")}, token_budget=budget)
    found = judge.verify_batch(rows(6))
    assert judge.asker.backend._engine.batches[:2] == [2, 1]  # type: ignore[attr-defined]
    graded = [verdict.graded for verdict in found]
    assert graded == sorted(graded, reverse=True)
    assert 3 <= sum(graded) < 6
    assert judge.usage.prompt_tokens + judge.usage.completion_tokens <= budget
    assert all("budget" in verdict.reason for verdict in found if not verdict.graded)


def test_a_model_that_writes_answers_a_checklist(folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(judge_model, "VllmEngine", WritingEngine)
    judge = {"verifier": "judge-model", "options": {"model": folder, "engine": "vllm", "cache": str(tmp_path / "c")}}
    rubric = get_verifier("rubric", judge=judge, criteria_per_call=4)
    criteria = [{"name": "a", "judged": "q1", "points": 3}, {"name": "b", "judged": {"statement": "s"}, "points": -1}]
    verdict = rubric.verify(completion="Good day.", reference=criteria)  # type: ignore[arg-type]
    assert verdict.reward == pytest.approx(2 / 3)
    assert verdict.components == {"a": 1.0, "b": 1.0}
