"""preflight names a cause before its symptom, in a sentence whose settings can be typed as they are printed."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

from reasoner.config.load import resolve
from reasoner.preflight.causes import Causes, Greedy, Lenient, _hotter, _verifier_override
from reasoner.preflight.preflight import sentences
from reasoner.records import Completion, FinishReason, Rollout, Segment
from tasks import Problem
from tests.unit.reasoner.preflight.test_preflight import measured
from verifiers import Outcome, Verdict

HOT = Greedy(48, 0.28, 0.08)


def unread(row: dict, rng: np.random.Generator) -> None:
    row["reward"] = row["verdict"]["reward"] = 0.0
    row["verdict"].update(outcome="no_answer", answer=None)
    row["completion"] = "He has 16 books now."


def test_answers_that_are_not_read_come_before_a_stronger_model() -> None:
    done = measured(change=unread)
    done.causes = Causes(lenient=Lenient(96, 90, 30, "task.0.verifier=x"), greedy=HOT)
    first, second, *others = sentences(done)
    assert first.startswith("in 100 % of the completions the verifier finds no answer, as in 'He has 16 books now.'")
    assert "read leniently 94 % of them have one, and 31 % are right. Set task.0.verifier=x" in first
    assert second.startswith(
        "temperature 1 is high for this model: greedily 28 % of 48 problems are right, sampled 8 %"
    )
    assert second.endswith("set rollout.temperature=0.7.")
    assert any("begin with an sft stage" in sentence for sentence in others)


def test_a_verifier_that_reads_no_more_leniently_is_not_recommended() -> None:
    done = measured(change=unread)
    done.causes = Causes(lenient=Lenient(96, 3, 0, "task.0.verifier=x"))
    first = next(iter(sentences(done)))
    assert "verifier=x" not in first
    assert first.endswith("say in prompt.system or prompt.template how the answer must be written.")


@pytest.mark.parametrize(
    ("found", "hot"),
    [(HOT, True), (Greedy(48, 0.10, 0.08), False), (Greedy(4, 0.5, 0.3), False), (Greedy(48, 0.0, 0.0), False)],
)
def test_a_temperature_is_hot_where_greedy_answers_are_right_far_more_often(found: Greedy, hot: bool) -> None:
    assert _hotter(found) is hot


@pytest.mark.parametrize(
    ("template", "marks", "says"),
    [
        ({"chat (the config)": 4.0, "plain": 2.7}, (), "set prompt.chat=never."),
        ({"chat (the config)": 11.0, "plain": 10.9}, (), "surprising after every prompt"),
        ({"chat (the config)": 11.0, "plain": 10.9}, ("<|im_start|>",), "it is another model's"),
        ({}, ("<|im_start|>",), "it is another model's"),
        ({"chat (the config)": 1.9, "plain": 1.8}, (), None),  # weak, and no more surprised than by its own text
        ({"chat (the config)": 1.9, "plain": 1.8}, ("<|im_start|>",), None),
    ],
)
def test_a_template_that_is_not_the_models_comes_first(
    template: dict[str, float], marks: tuple[str, ...], says: str | None
) -> None:
    done = measured(accuracy=lambda step: 0.0)
    own = -float(np.mean([row.logprobs.mean() for row in done.rows]))
    assert 1.0 < own < 2.18  # so that 10.9 is five times as much, and 1.8 is not
    done.template, done.causes = template, Causes(unused_marks=marks)
    first = next(iter(sentences(done)))
    named = any(words in first for words in ("prompt.chat", "every prompt", "another model's"))
    assert named is (says is not None)
    assert says is None or says in first


def test_a_model_that_is_often_right_has_its_own_template() -> None:
    done = measured(accuracy=lambda step: 0.6)
    done.causes = Causes(unused_marks=("<|im_start|>",))
    assert not any("another model's" in sentence for sentence in sentences(done))


@pytest.mark.parametrize(
    "task",
    ["gsm8k", {"name": "gsm8k"}, ["arithmetic", {"name": "gsm8k", "weight": 2.0}]],
)
def test_the_verifiers_override_is_taken_however_the_tasks_are_written(task: object) -> None:
    raw: dict[str, object] = {"task": task, "model": "m"}
    config = resolve(raw).stages[0]
    problem = Problem(id="1", prompt="p", reference="1", verifier="math", task="gsm8k")
    rollout = Rollout(
        problem=problem,
        prompt_text="p",
        prompt_ids=(1,),
        completion=Completion(
            text="",
            token_ids=(),
            rollout_logprobs=(),
            loss_mask=(),
            segments=(Segment(start=0, end=0, origin="policy"),),
            finish_reason=FinishReason.STOP,
            policy_version=0,
        ),
        verdict=Verdict(outcome=Outcome.NO_ANSWER, reward=0.0),
        sample_index=0,
        step=1,
    )
    override = _verifier_override(config, rollout, "math", {"lenient": True})
    changed = resolve(raw, shlex.split(override)).stages[0]
    section = next(section for section in changed.task if section.name == "gsm8k")
    assert section.verifier is not None
    assert (section.verifier.name, section.verifier.options) == ("math", {"lenient": True})
    rewarded = resolve({**raw, "reward": {"name": "exact"}}).stages[0]
    key = _verifier_override(rewarded, rollout, "math", {"lenient": True})
    assert resolve(raw, shlex.split(key)).stages[0].reward == section.verifier
