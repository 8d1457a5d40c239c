"""Combinations of a teacher with methods, estimators and settings: they fit, or are refused with the reason."""

from __future__ import annotations

import pytest

from reasoner.algorithm.advantage import Estimator, reverse_kl
from reasoner.algorithm.objective import check_algorithm, loss_needs
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig

TINY = {"task": "arithmetic", "model": {"from_scratch": {}}}

own = Estimator(reverse_kl, needs=frozenset({"teacher_logprobs"}), group_relative=False)


def stage(**changes: object) -> StageConfig:
    return resolve({**TINY, **changes}).stages[0]


def test_a_teacher_may_be_a_name_alone() -> None:
    found = stage(method="distill", teacher="org/Teacher")
    assert found.teacher.path == "org/Teacher"
    assert (found.algorithm.advantage, found.rollout.group_size) == ("reverse_kl", 1)
    assert found.has_teacher_model
    check_algorithm(found)
    assert stage(method="distill", teacher={"urls": "http://there:8000"}).teacher.urls == ["http://there:8000"]
    assert stage(algorithm={"advantage": "reverse_kl"}, teacher="org/Teacher").has_teacher_model
    assert not stage(method="gkd", teacher="org/Teacher").samples_to_learn
    assert stage(method="gkd", teacher="org/Teacher", gkd={"lmbda": 0.1}).samples_to_learn


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "distill"}, "learns from a teacher, and none is named. Set teacher.path"),
        ({"teacher": "org/T"}, "algorithm.advantage grpo learns nothing from a teacher. Set it to reverse_kl"),
        ({"method": "ppo", "teacher": "org/T"}, "algorithm.advantage gae learns nothing from a teacher"),
        ({"method": "distill", "teacher": {"path": "org/T", "urls": ["http://a"]}}, "either path or urls, not both"),
        ({"method": "distill", "teacher": {"urls": ["there:8000"]}}, "urls must be given as http://HOST:PORT"),
        (
            {"method": "distill", "teacher": {"urls": ["http://a"]}, "rollout": {"temperature": 0.7}},
            "rollout.temperature must be 1 with teacher.urls",
        ),
        (
            {"method": "distill", "teacher": "org/T", "algorithm": {"advantage_options": {"reward_coef": 0.5}}},
            "group_size must be >= 2 for advantage_options.reward_coef",
        ),
        (
            {"method": "distill", "teacher": "org/T", "algorithm": {"kl_coef": 0.1, "kl_in": "reward"}},
            "algorithm.kl_in=reward acts on rewards",
        ),
        (
            {"method": "distill", "teacher": "org/T", "algorithm": {"overlong_penalty_tokens": 8}},
            "algorithm.overlong_penalty_tokens acts on rewards",
        ),
        (
            {"method": "distill", "teacher": "org/T", "rollout": {"group_size": 4, "dynamic_sampling_rounds": 1}},
            "rollout.dynamic_sampling_rounds acts on rewards",
        ),
        ({"method": "gkd"}, "teacher.path must name a model for method gkd"),
        ({"method": "gkd", "teacher": {"urls": ["http://a"]}}, "compares whole distributions"),
        ({"method": "gkd", "teacher": "org/T", "gkd": {"beta": 1.5}}, "gkd.beta"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        stage(**changes)
    assert says in str(caught.value)


def test_an_estimator_of_ones_own_is_checked_by_its_needs() -> None:
    named = {"advantage": f"{__name__}:own"}
    check_algorithm(stage(algorithm=named, teacher="org/T", rollout={"group_size": 2}))
    with pytest.raises(ConfigError, match="none is named"):
        check_algorithm(stage(algorithm=named, rollout={"group_size": 2}))
    with pytest.raises(ConfigError, match="learns nothing from a teacher"):
        check_algorithm(stage(algorithm={"advantage": "reasoner.algorithm.advantage:rloo"}, teacher="org/T"))


def test_a_reward_may_stand_beside_the_teacher() -> None:
    given = {"advantage_options": {"reward_coef": 0.5}, "overlong_penalty_tokens": 8}
    check_algorithm(stage(method="distill", teacher="org/T", algorithm=given, rollout={"group_size": 4}))
    with pytest.raises(ConfigError, match="reward_coeff"):
        check_algorithm(
            stage(method="distill", teacher="org/T", algorithm={"advantage_options": {"reward_coeff": 0.5}})
        )


def test_batches_of_older_weights_are_scored_again_for_the_gap_to_the_teacher() -> None:
    given = {"method": "distill", "teacher": "org/T"}
    assert loss_needs(stage(**given)) == frozenset()
    assert loss_needs(stage(**given, rollout={"ahead": 1})) == {"old_logprobs"}


def test_other_names_are_known() -> None:
    with pytest.raises(ConfigError, match=r"Did you mean 'teacher\.path'"):
        stage(teacher_model_name_or_path="org/T")
