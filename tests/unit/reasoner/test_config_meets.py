"""Settings that are each well formed and do not go together, or name what is not there: refused before any sampling."""

from __future__ import annotations

import pytest

from reasoner.config import ConfigError, resolve
from reasoner.train import check_algorithm

TINY = {"task": "arithmetic", "model": {"from_scratch": {}}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"prompt": {"stop": [""]}}, "stop string"),
        ({"eval": {"max_tokens": 0}}, "eval.max_tokens"),
        ({"algorithm": {"overlong_penalty_tokens": 9}, "rollout": {"max_tokens": 8}}, "overlong_penalty_tokens"),
        ({"optim": {"betas": [2.0, 3.0]}}, "betas"),
        ({"optim": {"lr": float("inf")}}, "optim.lr"),
        ({"seed": 10**30}, "seed"),
        ({"model": {"from_scratch": {"heads": 4, "kv_heads": 3}}}, "kv_heads must divide heads"),
        ({"model": {"from_scratch": {"hidden_size": 12, "heads": 4}}}, "must be even"),
        ({"stages": []}, "at least one"),
    ],
)
def test_a_value_that_leads_nowhere_is_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve({**TINY, **change})


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        ({"advantage": "grpoo"}, "Did you mean 'grpo'"),
        ({"loss": "clp"}, "Did you mean 'clip'"),
        ({"importance": "tru"}, "no importance correction"),
        ({"loss_options": {"x": 1}}, "no option 'x'"),
        ({"loss_options": {"clip_low": "a"}}, "algorithm: "),
        ({"advantage_options": {"x": 1}}, "'x'"),
        ({"importance_options": {"cap": "a"}}, "algorithm: "),
        ({"importance_options": {"cap": -1.0}}, "cap must be above 0"),
        ({"importance": "truncated_sequence", "importance_options": {"cap": 0}}, "cap must be above 0"),
        ({"importance": "masked_sequence", "importance_options": {"cap": -1}}, "cap must be above 0"),
        ({"importance": "masked", "importance_options": {"low": 2.0, "high": 1.0}}, "0 <= low < high"),
        ({"loss": "cispo", "loss_options": {"ratio_max": -2}}, "ratio_max must be above 0"),
    ],
)
def test_a_wrong_algorithm_is_refused_before_the_model_is_loaded(algorithm: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_algorithm(resolve({**TINY, "algorithm": algorithm}).stages[0])


@pytest.mark.parametrize("advantage", ["grpo", "dr_grpo", "rloo", "rejection", "reinforce_pp", "gae"])
@pytest.mark.parametrize("loss", ["clip", "gspo", "cispo", "reinforce"])
def test_every_algorithm_passes_its_check(advantage: str, loss: str) -> None:
    algorithm = {"advantage": advantage, "loss": loss, "kl_coef": 0.1, "entropy_coef": 0.1}
    for kl_in in ("loss", "reward"):
        check_algorithm(resolve({**TINY, "algorithm": {**algorithm, "kl_in": kl_in}}).stages[0])
