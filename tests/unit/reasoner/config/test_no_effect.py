"""Settings without any effect are refused before a model is loaded, and those with little effect are reported."""

from __future__ import annotations

import pytest

from reasoner.algorithm.objective import check_algorithm
from reasoner.config.errors import ConfigError
from reasoner.config.load import dump, resolve
from reasoner.config.no_effect import little_effect, refuse_no_effect, unread_settings
from reasoner.config.stage import StageConfig
from reasoner.stages.checks import check_stage
from reasoner.stages.dpo import check_loss
from reasoner.stages.references import with_references

TINY: dict[str, object] = {"task": "arithmetic", "model": {"from_scratch": {}}, "engine": {"name": "hf"}}
ONE = {"problems_per_step": 1, "group_size": 1}


def stage(**changes: object) -> StageConfig:
    return resolve({**TINY, **changes}).stages[0]


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"algorithm": {"kl": "k1", "kl_coef": 0.1}}, "gradient there is 0.*algorithm.kl to k3.*kl_in to reward"),
    ({"algorithm": {"kl": "k1", "kl_coef": 0.1, "kl_target": 6.0}}, "gradient there is 0"),
    ({"eval": {"temperature": 0, "samples": 4}}, "copies of each other.*Set eval.samples to 1"),
    ({"method": "ppo", "rollout": {"sampling": "difficulty"}}, "rollout.sampling=difficulty; got 1"),
    ({"method": "ppo", "rollout": {"dynamic_sampling_rounds": 2}}, "dynamic_sampling_rounds; got 1"),
    ({"algorithm": {"advantage": "reinforce_pp"}, "rollout": ONE}, "there is one: every advantage is 0"),
    ({"optim": {"updates_per_step": 17}, "rollout": {"problems_per_step": 2}}, "at most the 16 rows"),
]


@pytest.mark.parametrize(("change", "says"), REFUSED)
def test_a_setting_that_takes_the_learning_away_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        check_stage(stage(**change), coming=None)
    assert caught.value.code == "no-effect"


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": {"kl": "k1", "kl_coef": 0.1, "kl_in": "reward"}},
        {"algorithm": {"kl": "k1"}},
        {"algorithm": {"kl": "k2", "kl_coef": 0.1}},
        {"eval": {"temperature": 0}},
        {"eval": {"temperature": 0.01, "samples": 4}},
        {"eval": {"temperature": 0, "samples": 4, "problems": 0}},
        {"method": "ppo", "rollout": {"sampling": "difficulty", "group_size": 2}},
        {"method": "sft", "rollout": {"group_size": 1, "sampling": "difficulty"}},
        {"algorithm": {"advantage": "rejection"}, "rollout": ONE},
        {"method": "ppo", "rollout": ONE},
        {"algorithm": {"advantage": "reinforce_pp"}, "rollout": {"problems_per_step": 2, "group_size": 1}},
        {"optim": {"updates_per_step": 16}, "rollout": {"problems_per_step": 2}},
    ],
)
def test_its_neighbours_are_not(change: dict[str, object]) -> None:
    refuse_no_effect(stage(**change))


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "reinforce_pp_baseline"])
@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_an_estimator_that_needs_a_group_is_refused_one_rollout(name: str, method: str) -> None:
    with pytest.raises(ConfigError, match="group_size must be >= 2"):
        stage(method=method, algorithm={"advantage": name}, rollout={"group_size": 1})


SAID: list[tuple[dict[str, object], str]] = [
    ({"steps": 5, "optim": {"warmup_steps": 5}}, "never reaches optim.lr"),
    ({"method": "sft", "steps": 5, "optim": {"warmup_steps": 9}}, "never reaches optim.lr"),
    ({"method": "ppo", "steps": 5, "value": {"warmup_steps": 5}}, "the policy stays unchanged"),
    ({"optim": {"stop_kl": 0.1}}, "optim.stop_kl=0.1 never acts"),
    ({"optim": {"inner_epochs": 2}, "algorithm": {"loss_options": {"clip_high": 0}}}, "clip_high=0: after the first"),
    ({"algorithm": {"kl": "k2", "kl_in": "reward", "kl_coef": 0.1}}, "algorithm.kl=k2 has no effect"),
    ({"algorithm": {"reference": "some/model"}}, "is never used"),
    ({"grading": {"portions": 9}, "rollout": {"problems_per_step": 8}}, "more than the 8 groups"),
    ({"rollout": {"temperature": 0.001}}, "nearly greedy"),
    ({"eval": {"metric": "avg@1", "problems": 0}}, "decides nothing"),
    ({"method": "sft", "sft": {"patience": 2, "held_out": 8}}, "sft.patience=2 never ends.*only before and after"),
    ({"method": "sft", "steps": 30, "sft": {"patience": 2, "held_out": 8}, "eval": {"every": 20}}, "20 steps apart"),
    ({"method": "sft", "steps": 10, "sft": {"until_accuracy": 0.5}}, "sft.check_every=20"),
    (
        {"reward": {"name": "reward-model", "options": {"model": "x"}}, "rollout": {"sampling": "difficulty"}},
        "no pass mark",
    ),
]


@pytest.mark.parametrize(("change", "says"), SAID)
def test_a_setting_that_does_less_than_its_name_is_said(change: dict[str, object], says: str) -> None:
    import re

    (sentence,) = little_effect(stage(**change))
    assert re.search(says, sentence)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"steps": 5, "optim": {"warmup_steps": 4}},
        {"steps": 5, "value": {"warmup_steps": 5}},
        {"optim": {"stop_kl": 0.1, "inner_epochs": 2}},
        {"algorithm": {"loss_options": {"clip_high": 0}}},
        {"algorithm": {"kl_in": "reward", "kl_coef": 0.1}},
        {"algorithm": {"reference": "some/model", "kl_budget": 5.0}},
        {"method": "sft", "steps": 40, "sft": {"patience": 2, "held_out": 8}, "eval": {"every": 20}},
    ],
)
def test_what_works_is_not(change: dict[str, object]) -> None:
    assert not little_effect(stage(**change))


def test_a_config_that_was_written_out_says_no_more() -> None:
    run = resolve({**TINY, "algorithm": {"kl_in": "reward", "kl_coef": 0.1}})
    assert not little_effect(with_references(run, 0).stages[0])
    assert dump(run.stages[0]) == dump(with_references(run, 0).stages[0])


@pytest.mark.parametrize(
    "algorithm",
    [
        {"importance": "masked", "importance_options": {"low": 2.0, "high": 3.0}},
        {"importance": "masked", "importance_options": {"low": 0.1, "high": 0.9}},
        {"importance": "masked_sequence", "importance_options": {"cap": 0.9}},
        {"loss": f"{__name__}:detached"},
    ],
)
def test_a_loss_without_a_gradient_is_refused(algorithm: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="must have a gradient where advantages are not 0"):
        check_algorithm(stage(algorithm=algorithm))


def detached(logprobs_N, old_logprobs_N, advantages_N, row_N, loss_mask_N):  # type: ignore[no-untyped-def]
    from reasoner.algorithm.loss import reinforce

    return reinforce(logprobs_N.detach(), old_logprobs_N, advantages_N, row_N, loss_mask_N)


@pytest.mark.parametrize(
    "algorithm",
    [
        {"importance": "masked", "importance_options": {"low": 1.0, "high": 3.0}},
        {"importance": "masked_sequence", "importance_options": {"cap": 1.0}},
        {"importance": "truncated", "importance_options": {"cap": 0.5}},
        {"advantage": "rejection", "advantage_options": {"threshold": 5.0}},  # a reward model's scores may reach it
        {"loss_options": {"clip_low": 0, "clip_high": 0}},
    ],
)
def test_a_loss_with_one_passes(algorithm: dict[str, object]) -> None:
    check_algorithm(stage(algorithm=algorithm))


@pytest.mark.parametrize(
    ("loss", "options", "says"),
    [
        ("sigmoid", {"label_smoothing": 0.5}, "nothing"),
        ("sigmoid", {"label_smoothing": 0.9}, "the opposite"),
        ("sigmoid", {"label_smoothing": 0.4}, None),
        ("ipo", {}, None),
        ("hinge", {}, None),
        ("robust", {"label_smoothing": 0.4}, None),
    ],
)
def test_a_dpo_loss_must_follow_the_labels(loss: str, options: dict[str, object], says: str | None) -> None:
    config = stage(method="dpo", preferences={"train": "x.jsonl"}, dpo={"loss": loss, "loss_options": options})
    if says is None:
        check_loss(config)
    else:
        with pytest.raises(ConfigError, match=f"would teach {says}"):
            check_loss(config)


@pytest.mark.parametrize(
    ("section", "ok"),
    [
        ({"metric": "accuracy"}, False),
        ({"metric": "pass@4", "samples": 2}, False),
        ({"metric": "avg@1", "samples": 4}, False),
        ({"metric": "maj@1"}, False),
        ({"metric": "pass@2", "samples": 3}, True),
        ({"metric": "maj@4", "samples": 4}, True),
        ({"metric": "component/exact"}, True),
        ({"metric": "reward"}, True),
        ({"metric": "arithmetic/avg@1"}, False),  # of one set
        ({"metric": "accuracy", "problems": 0}, True),
    ],
)
def test_a_metric_that_no_evaluation_has_is_refused_at_once(section: dict[str, object], ok: bool) -> None:
    config = stage(eval=section)
    if ok:
        check_stage(config, coming=None)
    else:
        with pytest.raises(ConfigError, match=r"eval.metric must be one of avg@"):
            check_stage(config, coming=None)


def test_pairs_need_two_samples_of_a_problem() -> None:
    with pytest.raises(ConfigError, match="group_size must be >= 2 to make pairs"):
        check_stage(stage(method="pairs", rollout={"group_size": 1}), coming=None)
    check_stage(stage(method="pairs", rollout={"group_size": 2}), coming=None)


def test_an_adapter_that_is_scaled_to_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.lora\.alpha"):
        stage(model={"from_scratch": {}, "lora": {"alpha": 0}})


def test_of_several_sets_one_may_decide() -> None:
    two: list[object] = ["arithmetic", {"name": "arithmetic", "options": {"digits": 3}}]
    for name in ("avg@1", "arithmetic-2/avg@1", "pooled/avg@1", "arithmetic/component/exact"):
        check_stage(stage(task=two, eval={"metric": name}), coming=None)
    with pytest.raises(ConfigError, match="must be one of avg@1"):
        check_stage(stage(task=two, eval={"metric": "arithmetic/pass@8"}), coming=None)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            {"method": "dpo", "preferences": {"train": "x"}, "algorithm": {"kl_coef": 0.5}},
            ["algorithm.kl_coef does nothing: grpo or ppo or distill reads it"],
        ),
        ({"method": "sft", "dpo": {"beta": 3}}, ["dpo.beta does nothing: dpo reads it, and this run is sft"]),
        ({"method": "grpo", "sft": {"max_tokens": 16}}, ["sft.max_tokens does nothing"]),
        ({"method": "ppo"}, []),
        ({"method": "grpo", "algorithm": {"kl_coef": 0.5}}, []),
        ({"dpo": {"beta": 0.1}}, []),
        ({"stages": [{"method": "sft"}, {"method": "grpo"}], "sft": {"max_tokens": 16}, "value": {"coef": 0.4}}, []),
    ],
)
def test_sections_that_no_stage_reads_are_said(raw: dict[str, object], said: list[str]) -> None:
    found = unread_settings(resolve({**TINY, **raw}))
    assert len(found) == len(said)
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True))
