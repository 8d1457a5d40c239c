"""preflight names a cause before its symptom, in a sentence whose settings can be typed as they are printed."""

from __future__ import annotations

import shlex
from dataclasses import replace

import numpy as np
import pytest

from reasoner.config.load import resolve
from reasoner.preflight.advice import sentences
from reasoner.preflight.causes import Causes, Greedy, Lenient, _hotter, _verifier_override, cooler
from reasoner.preflight.surprise import Surprise
from reasoner.records import Completion, FinishReason, Rollout, Segment
from tasks import Problem
from tests.unit.reasoner.preflight.test_preflight import made_of, measured
from verifiers import Outcome, Verdict

HOT = Greedy(48, 0.28, 0.08, 1.0)
AGAIN = (
    "the shares and the signal above follow from this: after the change, run preflight again before anything else is"
    " tried."
)


def unread(row: dict, rng: np.random.Generator) -> None:
    row["reward"] = row["verdict"]["reward"] = 0.0
    row["verdict"].update(outcome="no_answer", answer=None)
    row["completion"] = "He has 16 books now."


def test_answers_that_are_not_read_come_before_a_stronger_model() -> None:
    done = measured(change=unread)
    done.causes = Causes(lenient=Lenient(96, 90, 30, "task.0.verifier=x"), greedy=Greedy(48, 0.0, 0.0, 1.0))
    first, last = sentences(done)
    assert first.startswith("in 100 % of the completions the verifier finds no answer, as in 'He has 16 books now.'")
    assert "read leniently 94 % of them have one, and 31 % are right. Set task.0.verifier=x" in first
    assert last == AGAIN, "what follows from the cause is left out"


def test_answers_lost_by_the_temperature_are_no_matter_of_form() -> None:
    done = measured(change=unread)
    done.causes = Causes(greedy=HOT._replace(unread=0.1, cooler=0.25))
    first, last = sentences(done)
    assert first == (
        "temperature 1 is high for this model: greedily 28 % of 48 problems are right, sampled 8 %, at temperature 0.7"
        " 25 %; set rollout.temperature=0.7."
    )
    assert last == AGAIN
    done.causes = Causes(greedy=HOT._replace(unread=0.6))
    assert [said[:11] for said in sentences(done)] == ["temperature", "in 100 % of", AGAIN[:11]]


@pytest.mark.parametrize(("temperature", "lower"), [(2.0, 1.0), (1.2, 1.0), (1.0, 0.7), (0.6, 0.42), (0.1, 0.1)])
def test_the_temperature_to_try_instead(temperature: float, lower: float) -> None:
    assert cooler(temperature) == lower


def test_a_verifier_that_reads_no_more_leniently_is_not_recommended() -> None:
    done = measured(change=unread)
    done.causes = Causes(lenient=Lenient(96, 3, 0, "task.0.verifier=x"))
    first = next(iter(sentences(done)))
    assert "verifier=x" not in first
    assert first.endswith("say in prompt.system or prompt.template how the answer must be written.")


@pytest.mark.parametrize(
    ("found", "hot"),
    [
        (HOT, True),
        (Greedy(48, 1.0, 0.0), True),
        (Greedy(48, 0.02, 0.0), False),
        (Greedy(48, 0.21, 0.07), False),  # a weak model
        (Greedy(48, 0.10, 0.08), False),
        (Greedy(4, 0.5, 0.3), False),
        (Greedy(48, 0.0, 0.0), False),
    ],
)
def test_a_temperature_is_hot_where_greedy_answers_are_right_far_more_often(found: Greedy, hot: bool) -> None:
    assert _hotter(found) is hot


CHAT_MARK = ("<|im_start|>",)
FOREIGN = Surprise(ways={"chat (the config)": 11.0, "plain": 10.9}, own=1.5, ended=0.4, calm=9.0)


@pytest.mark.parametrize(
    ("surprise", "marks", "says"),
    [
        (Surprise(ways={"chat (the config)": 4.0, "plain": 2.7}), (), "set prompt.chat=never."),
        (FOREIGN, (), "surprising after every prompt (10.90 nats a token; the model's own text 1.50)"),
        (FOREIGN, CHAT_MARK, "it is another model's"),
        (Surprise(), CHAT_MARK, "it is another model's"),
        (replace(FOREIGN, ended=0.95), (), "trained with another template"),  # surprising all along
        (replace(FOREIGN, calm=1.0), (), "trained with another template"),  # it does not know where its turn ends
        (replace(FOREIGN, ended=0.95, calm=1.0, spots=("#### 4",)), (), "surprising in one part, as at '#### 4' (10"),
        (replace(FOREIGN, own=3.7), (), None),  # no more than a few times its own text
        (Surprise(ways={"chat (the config)": 1.9, "plain": 1.8}, own=0.1), (), None),
        (Surprise(ways={"chat (the config)": 1.9, "plain": 1.8}, own=0.1), CHAT_MARK, None),
    ],
)
def test_a_template_that_is_not_the_models_comes_first(
    surprise: Surprise, marks: tuple[str, ...], says: str | None
) -> None:
    done = measured(accuracy=lambda step: 0.0)
    done.causes = Causes(surprise=surprise, unused_marks=marks)
    said = [*sentences(done)]
    if says is None:
        assert not any("template" in sentence or "prompt.chat" in sentence for sentence in said)
        assert any("sft stage" in sentence for sentence in said)
        return
    assert says in said[0]
    assert said[1:] == [AGAIN]


@pytest.mark.parametrize(("solved", "told"), [(0, True), (2, True), (6, False)])
def test_a_model_that_solves_some_problems_knows_its_prompts(solved: int, told: bool) -> None:
    done = made_of([(7, 8)] * solved + [(0, 8)] * 60)
    done.causes = Causes(surprise=FOREIGN)
    assert any("surprising" in sentence for sentence in sentences(done)) is told


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
