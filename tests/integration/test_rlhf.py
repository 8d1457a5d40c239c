"""One interface: every stage of a pipeline, and every source of reward through the same loop, on tiny models."""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name

import pytest

from reasoner.cli.closing import print_closing
from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config, resolve
from reasoner.config.stage import RunConfig
from reasoner.data.preferences import load_pairs
from reasoner.label.sitting import Sitting
from reasoner.observe.analysis.rounds import rounds
from reasoner.stages.pipeline import run_pipeline
from reasoner.stages.references import stage_of
from reasoner.storage.history import read_history
from reasoner.train import train
from tests.unit.reasoner.model.test_quantized import needs_bitsandbytes

pytestmark = pytest.mark.integration
TASK = {"name": "covering", "options": {"train_size": 200, "test_size": 40}}
SHAPE = {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 64}
SFT = {
    "method": "sft",
    "steps": 4,
    "model": {"from_scratch": SHAPE},
    "sft": {"rows_per_step": 16, "held_out": 8},
    "eval": {"problems": 0, "every": 2},
}
PAIRS = {"method": "pairs", "steps": 2, "rollout": {"group_size": 2}, "eval": {"problems": 0}}
REWARD = {
    "method": "reward_model",
    "steps": 3,
    "preferences": {"train": "stage:pairs", "held_out_share": 0.3},
    "reward_model": {"pairs_per_step": 4},
    "eval": {"problems": 8},  # of no effect: it writes nothing
}
BY_MODEL = {"name": "reward-model", "options": {"model": "stage:reward_model"}}
WEIGHTED = {
    "name": "weighted",
    "options": {
        "parts": [
            {"verifier": "reward-model", "weight": 0.5, "options": {"model": "stage:reward_model"}},
            {"verifier": "tasks.covering:true_score", "name": "rule"},
        ]
    },
}
PPO = {
    "method": "ppo",
    "steps": 3,
    "reward": BY_MODEL,
    "algorithm": {"kl_coef": 0.1, "kl_in": "reward", "kl_target": 0.1},
    "optim": {"lr": 1e-3, "inner_epochs": 2, "updates_per_step": 2},
    "value": {"init": "stage:reward_model", "warmup_steps": 1},
}


def run_of(folder: Path, *stages: dict[str, object], **extra: object) -> RunConfig:
    common: dict[str, object] = {
        "name": "r",
        "output": str(folder / "run"),
        "task": TASK,
        "prompt": {"chat": "never"},
        "rollout": {"problems_per_step": 8, "group_size": 1, "max_tokens": 8},
        "engine": {"name": "hf"},
        "optim": {"lr": 1e-3},
        "eval": {"problems": 8},
        "watch": {"scorer": {"name": "own"}},
        "logging": {"tensorboard": False},
        **extra,
    }
    return resolve({**common, "stages": list(stages)})


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().split("\n") if line]


def test_a_pipeline_in_rounds_with_every_source_of_reward(tmp_path: Path) -> None:
    grpo = {
        "method": "grpo",
        "steps": 2,
        "reward": BY_MODEL,
        "value": {"warmup_steps": 1},  # of no effect without a value model
        "rollout": {"problems_per_step": 4, "group_size": 4},
        "algorithm": {"advantage": "rloo", "kl_coef": 0.1, "kl_in": "reward"},
    }
    by_verifier = {"method": "ppo", "steps": 2, "value": {"trunk": "shared", "warmup_steps": 1}}
    rounds = {"repeat": 2, "stages": [PAIRS, REWARD, PPO]}
    config = run_of(tmp_path, SFT, rounds, grpo, {**PPO, "reward": WEIGHTED, "steps": 2}, by_verifier)
    last = run_pipeline(config, resume=False)
    root = tmp_path / "run"
    assert last == root / "9-ppo"
    ppo = lines(root / "3-ppo" / "metrics.jsonl")
    for name in ("value/explained_variance", "kl/ref", "kl/coef", "watch/held_out", "watch/proxy"):
        assert name in ppo[-1], name
    assert "policy/clip_fraction" not in ppo[0]  # the warm-up trains the value alone
    assert ppo[-1]["policy/clip_fraction"] is not None
    scored = lines(root / "3-ppo" / "rollouts.jsonl")[0]
    assert scored["verifier"] == "reward-model"
    assert scored["verdict"]["outcome"] == "scored"  # pyright: ignore
    summed = lines(root / "8-ppo" / "rollouts.jsonl")[0]
    parts = summed["components"]
    assert summed["reward"] == pytest.approx(0.5 * parts["reward-model"] + parts["rule"], abs=1e-6)  # pyright: ignore
    assert lines(root / "9-ppo" / "rollouts.jsonl")[0]["verifier"] == "tasks.covering:true_score"
    assert lines(root / "5-reward_model" / "evals.jsonl")[-1]["pairs"]
    assert {row["verifier"] for row in lines(root / "7-grpo" / "eval_rollouts.jsonl")} == {"tasks.covering:true_score"}
    assert run_pipeline(config, resume=True) == last  # nothing is left to do


@pytest.mark.slow
def test_online_dpo_in_rounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped config, small: each round has other prompts, and one held-out set judges all of them."""
    small = [
        "sft.steps=2",
        "rollout.problems_per_step=32",
        "pairs.steps=1",
        "dpo.steps=2",
        "dpo.eval.problems=16",
        "dpo.preferences.ties=half",
    ]
    config = load_config("online_dpo", [f"output={tmp_path / 'run'}", *small])
    run_pipeline(config, resume=False)
    folders = [config.stage_folder(index) for index in range(7)]
    sampled = [{str(row["prompt"]) for row in lines(folders[index] / "pairs.jsonl")} for index in (1, 3, 5)]
    assert sampled[0] != sampled[1] != sampled[2]
    learned = [load_pairs(read_history(folders[index]).config.preferences) for index in (2, 4, 6)]
    trained = [{str(pair.prompt) for pair in splits.train.pairs} for splits in learned]
    tested = [{str(pair.prompt) for pair in splits.test.pairs} for splits in learned]
    for one, other, prompts in zip(trained, tested, sampled, strict=True):
        assert one | other <= prompts  # an empty answer of an untrained model is no usable pair
    assert not set.union(*trained) & set.union(*tested)
    found = rounds(tmp_path / "run")
    assert [(one.stage, one.step) for one in found] == [("2-dpo", 0), ("2-dpo", 2), ("4-dpo", 2), ("6-dpo", 2)]
    print_closing(config)
    assert "rounds, each on the same 16 held-out problems:" in capsys.readouterr().out
    every = load_config("online_dpo", ['dpo.preferences.train=["stages:pairs"]', "output=r"])
    assert stage_of(every, 6).preferences.train == [f"r/{n}-pairs/pairs.jsonl" for n in (1, 3, 5)]


@pytest.mark.parametrize(
    "bits", [{}, pytest.param({"quantization": "nf4"}, marks=[needs_bitsandbytes, pytest.mark.slow])]
)
def test_policy_reference_value_and_reward_share_one_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: dict[str, str]
) -> None:
    import reasoner.graders.reward_model as scorer

    made: list[scorer.RewardModel] = []
    original = scorer.RewardModel.__init__

    def noted(self: scorer.RewardModel, *args: object, **kwargs: object) -> None:
        original(self, *args, **kwargs)  # pyright: ignore
        made.append(self)

    monkeypatch.setattr(scorer.RewardModel, "__init__", noted)
    lora = {"model": {"lora": {"rank": 4}, **bits}}
    run_pipeline(run_of(tmp_path, SFT, PAIRS, {**REWARD, **lora}, {**PPO, **lora}), resume=False)
    assert [model.shared is not None for model in made] == [True]
    metrics = lines(tmp_path / "run" / "3-ppo" / "metrics.jsonl")
    assert metrics[0]["kl/ref"] == pytest.approx(0.0, abs=1e-5)
    assert metrics[-1]["kl/ref"] != 0
    assert (tmp_path / "run" / "3-ppo" / "final" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("action", "coef"), [("stop", 1e-6), pytest.param("rollback", 1e-6, marks=pytest.mark.slow), ("rollback", 0.0)]
)
def test_a_spent_kl_budget_ends_the_run(tmp_path: Path, action: str, coef: float) -> None:
    from safetensors.torch import load_file

    algorithm = {"kl_coef": coef, "kl_in": "reward", "kl_budget": 0.3, "kl_over_budget": action}
    ppo = {
        "method": "ppo",
        "steps": 40,
        "algorithm": algorithm,
        "optim": {"lr": 2e-2},
        "eval": {"problems": 0},
        "checkpoint": {"every": 1, "keep": 40},
    }
    run_pipeline(run_of(tmp_path, SFT, ppo), resume=False)
    folder = tmp_path / "run" / "1-ppo"
    metrics = lines(folder / "metrics.jsonl")
    assert len(metrics) < 40
    assert metrics[-1]["kl/ref"] > 0.3  # pyright: ignore
    assert all(row["kl/ref"] <= 0.3 for row in metrics[:-1])  # pyright: ignore
    final = load_file(folder / "final" / "model.safetensors")
    within = max(row["step"] for row in metrics[:-1]) - 1  # pyright: ignore
    kept = load_file(folder / "checkpoints" / f"step-{within:06d}" / "model" / "model.safetensors")
    same = all(bool((final[name] == kept[name]).all()) for name in kept)
    assert same == (action == "rollback")


def test_a_person_labels_between_two_stages(tmp_path: Path) -> None:
    config = run_of(tmp_path, SFT, {**PAIRS, "pairs": {"label": "person"}}, REWARD)
    with pytest.raises(ConfigError, match=r"pairs must still be labelled. Run `reasoner label .*to_label.jsonl`"):
        run_pipeline(config, resume=False)
    sitting = Sitting(tmp_path / "run" / "1-pairs" / "to_label.jsonl")
    while (shown := sitting.shown()) is not None:
        sitting.give(shown.id, "left" if len(shown.left) >= len(shown.right) else "right")
    run_pipeline(config, resume=True)
    labelled = lines(tmp_path / "run" / "1-pairs" / "pairs.jsonl")
    assert {row["label"] for row in labelled} <= {"first", "second"}
    assert lines(tmp_path / "run" / "2-reward_model" / "metrics.jsonl")


def test_grpo_and_ppo_are_one_function() -> None:
    from reasoner.config.methods import METHODS

    assert METHODS["grpo"].run == METHODS["ppo"].run
    assert resolve_name(METHODS["grpo"].run) is train


def test_bad_rows_stop_a_run_that_wants_to_be_stopped(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "a" if n else "", "rejected": "b"} for n in range(20)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stage = {**REWARD, "model": {"from_scratch": SHAPE}}
    stopping = {**stage, "preferences": {"train": str(file), "bad_rows": "stop"}}
    with pytest.raises(ConfigError, match=r"1 of 20 rows cannot be used: .*row 1: the chosen completion is empty"):
        run_pipeline(run_of(tmp_path, stopping), resume=False)
    dropping = {**stage, "preferences": {"train": str(file), "held_out_share": 0.2}}
    run_pipeline(run_of(tmp_path, dropping, output=str(tmp_path / "dropping")), resume=False)
    assert "row 1\tthe chosen completion is empty" in (tmp_path / "dropping" / "bad_rows.tsv").read_text()
