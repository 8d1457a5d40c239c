"""A reward model's folder scores as the trained model did; as an adapter it lives on the policy's base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.data.pairs import encode_pairs, pair_batch
from reasoner.data.preferences import Pair
from reasoner.graders.reward_model import RewardModel, RewardModelVerifier, spread
from reasoner.model.lora import ADAPTER
from reasoner.model.paths import ModelError
from reasoner.model.reward_head import RewardCard
from reasoner.model.shared_base import SharedBase
from reasoner.policy.policy import Policy
from reasoner.policy.reward import RewardPolicy
from reasoner.stages.reward_model import bradley_terry_objective, evaluate_pairs
from reasoner.stages.reward_probes import probe_pairs
from tests.unit.reasoner.algorithm.test_pairwise import SHAPE
from verifiers import JSON, GradingRow, Outcome
from verifiers.kit.probes import OPENINGS
from verifiers.pool.pool import GradingPool, GradingRequest

LORA = {"rank": 4, "alpha": 8.0}
PAIRS = [Pair(id=str(n), prompt=f"ask {n}", first="good " * (n + 1), second="bad") for n in range(6)]


def stage(base: Path, *, lora: bool = False, **extra: object) -> StageConfig:
    return resolve(
        {
            "method": "reward_model",
            "model": {"path": str(base), "dtype": "float32", **({"lora": LORA} if lora else {})},
            "preferences": {"train": ["x.jsonl"]},
            "optim": {"lr": 1e-2},
            **extra,
        }
    ).stages[0]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    config = resolve({"task": "gsm8k", "model": {"from_scratch": SHAPE, "dtype": "float32"}}).stages[0]
    Policy(config, accelerator=Accelerator(cpu=True)).save(tmp_path / "base")
    return tmp_path / "base"


def trained(config: StageConfig, folder: Path, *, steps: int = 3) -> RewardPolicy:
    policy = RewardPolicy(config, accelerator=Accelerator(cpu=True))
    encoded, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    heads = config.reward_model.heads
    objective = bradley_terry_objective(pairs=6, weights_CK=torch.ones(6, heads), centre_coef=0.01)
    for _ in range(steps):
        policy.update(pair_batch(encoded), objective)
    policy.card = RewardCard(prompt=config.prompt, mean=0.3, std=2.0)
    policy.save(folder)
    return policy


def expected_rewards(policy: RewardPolicy) -> list[float]:
    encoded, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    raw = policy.rewards(pair_batch(encoded))
    return [(value - 0.3) / 2.0 for value in raw.mean(1).tolist()]


def graded(path: Path, **options: object) -> list[float]:
    rows = [
        GradingRow(completion=text, reference=None, prompt=pair.prompt)  # pyright: ignore[reportArgumentType]
        for pair in PAIRS
        for text in (pair.first, pair.second)
    ]
    verdicts = RewardModelVerifier(model=str(path), **options).verify_batch(rows)  # pyright: ignore[reportArgumentType]
    assert all(verdict.outcome is Outcome.SCORED for verdict in verdicts)
    return [verdict.reward or 0.0 for verdict in verdicts]


def test_training_separates_the_pairs_and_the_folder_scores_alike(base: Path, tmp_path: Path) -> None:
    policy = trained(stage(base, reward_model={"heads": 2}), tmp_path / "rm", steps=12)
    encoded, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    found = evaluate_pairs(policy, encoded)
    assert found.estimates["accuracy"].value == 1.0
    assert found.details["disagreement"] > 0
    assert graded(tmp_path / "rm") == pytest.approx(expected_rewards(policy), abs=1e-5)
    config = json.loads((tmp_path / "rm" / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForSequenceClassification"]


def shifts(report: JSON) -> dict[str, float]:
    assert isinstance(report, dict)
    found: Any = report["shifts"]
    return {shift["probe"]: shift["shift"][0] for shift in found if shift["shift"]}


@pytest.mark.parametrize("flattered", [True, False])
def test_a_reward_model_made_to_flatter_is_found_by_its_probe_and_its_twin_is_not(
    base: Path, tmp_path: Path, flattered: bool
) -> None:
    """Both learn that good is better than bad; one also that an opening is better than none."""
    policy = RewardPolicy(stage(base), accelerator=Accelerator(cpu=True))
    words = ["good " * (n % 3 + 1) for n in range(6)]
    pairs = [Pair(id=f"{n}", prompt=f"ask {n}", first=word, second=f"bad {n}") for n, word in enumerate(words)]
    if flattered:
        pairs += [
            Pair(id=f"o{n}", prompt=f"ask {n}", first=f"{OPENINGS[n % 4]} {word}", second=word)
            for n, word in enumerate([*words, "bad 0", "bad 1"])
        ]
    encoded, _ = encode_pairs(pairs, policy.tokenizer, policy.config.prompt, limit=128)
    objective = bradley_terry_objective(pairs=len(pairs), weights_CK=torch.ones(len(pairs), 1), centre_coef=0.01)
    for _ in range(20):
        policy.update(pair_batch(encoded), objective)
    plain, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    report = probe_pairs(policy, plain, count=64, kept=None)
    assert (shifts(report)["flattery"] > 1) == flattered
    policy.save(tmp_path / "kept")
    kept = probe_pairs(
        RewardPolicy(stage(base), accelerator=Accelerator(cpu=True)), plain, count=64, kept=tmp_path / "kept"
    )
    assert shifts(kept) == pytest.approx(shifts(report), abs=1e-3)


def test_the_folder_is_a_plain_transformers_classifier(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    policy = trained(stage(base), tmp_path / "rm")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    encoded, _ = encode_pairs(PAIRS[:1], policy.tokenizer, policy.config.prompt, limit=128)
    row = encoded[0].first
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*row.prompt_ids, *row.completion_ids]])).logits
    assert logits.shape == (1, 1)
    assert logits.item() == pytest.approx(policy.rewards(pair_batch(encoded))[0, 0].item(), abs=1e-5)


def test_disagreement_is_taken_off(base: Path, tmp_path: Path) -> None:
    trained(stage(base, reward_model={"heads": 3}), tmp_path / "rm")
    plain, careful = graded(tmp_path / "rm"), graded(tmp_path / "rm", disagreement=2.0)
    rewards = RewardModelVerifier(model=str(tmp_path / "rm"))
    policy = RewardPolicy(stage(base), accelerator=Accelerator(cpu=True))
    encoded, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    heads = rewards.models[0].score([side for pair in encoded for side in (pair.first, pair.second)])
    for mean, less, values in zip(plain, careful, heads, strict=True):
        assert mean - less == pytest.approx(2 * spread(values).std, abs=1e-6)
        assert mean > less


def test_an_adapter_lives_on_the_policys_base_and_changes_nothing_there(base: Path, tmp_path: Path) -> None:
    reward = trained(stage(base, lora=True), tmp_path / "rm")
    merged = graded(tmp_path / "rm")
    assert merged == pytest.approx(expected_rewards(reward), abs=1e-4)
    config = resolve(
        {"task": "gsm8k", "model": {"path": str(base), "dtype": "float32", "lora": LORA}, "algorithm": {"kl_coef": 0.1}}
    ).stages[0]
    policy = Policy(config, accelerator=Accelerator(cpu=True))
    assert policy.adapter is not None
    encoded, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    before = policy.annotate(pair_batch(encoded), frozenset({"old_logprobs", "ref_logprobs"}))
    weights = {name: tensor.clone() for name, tensor in policy.named_weights()}
    base_of_policy = SharedBase.of(policy.adapter, policy.unwrapped(), policy.device)
    shared = RewardModel(str(tmp_path / "rm"), shared=base_of_policy)
    assert shared.model is policy.unwrapped()
    with GradingPool(context=base_of_policy) as pool:
        rows = [
            GradingRow(completion=text, reference=None, prompt=p.prompt) for p in PAIRS for text in (p.first, p.second)
        ]
        options = {"model": str(tmp_path / "rm")}
        verdicts = list(pool.grade(GradingRequest("reward-model", row, options) for row in rows))
        (kind,) = pool._kinds.values()
        assert [model.model for model in kind.in_process.models] == [policy.unwrapped()]  # pyright: ignore
    assert [verdict.reward for verdict in verdicts] == pytest.approx(merged, abs=1e-4)
    after = policy.annotate(pair_batch(encoded), frozenset({"old_logprobs", "ref_logprobs"}))
    assert torch.equal(before.old_logprobs_N, after.old_logprobs_N)
    assert torch.equal(before.ref_logprobs_N, after.ref_logprobs_N)
    assert all(torch.equal(weights[name], tensor) for name, tensor in policy.named_weights())
    active = {p for name, p in policy.model.named_parameters() if p.requires_grad}
    assert active == {p for name, p in policy.model.named_parameters() if f".{ADAPTER}." in name}


def test_another_base_is_not_lent(base: Path, tmp_path: Path) -> None:
    trained(stage(base, lora=True), tmp_path / "rm")
    other = resolve({"task": "gsm8k", "seed": 9, "model": {"from_scratch": SHAPE, "dtype": "float32", "lora": LORA}})
    policy = Policy(other.stages[0], accelerator=Accelerator(cpu=True))
    assert policy.adapter is not None
    shared = SharedBase.of(policy.adapter, policy.unwrapped(), policy.device)
    assert RewardModel(str(tmp_path / "rm"), shared=shared).model is not policy.unwrapped()


def test_a_row_over_the_context_is_not_graded_and_no_model_is_said_plainly(base: Path, tmp_path: Path) -> None:
    trained(stage(base), tmp_path / "rm", steps=0)
    verifier = RewardModelVerifier(model=str(tmp_path / "rm"))
    long, short = verifier.verify_batch(
        [GradingRow(completion="x" * 500, reference=None, prompt="p"), GradingRow(completion="x", reference=None)]
    )
    assert (long.outcome, long.reward) == (Outcome.VERIFIER_ERROR, None)
    assert "exceed the context of 128" in long.reason
    assert short.outcome is Outcome.SCORED
    with pytest.raises(ModelError, match="must be a Hugging Face sequence-classification model"):
        RewardModel(str(tmp_path / "nothing"))


def test_rewards_do_not_depend_on_the_rows_beside(base: Path, tmp_path: Path) -> None:
    trained(stage(base), tmp_path / "rm")
    verifier = RewardModelVerifier(model=str(tmp_path / "rm"))
    rows = [GradingRow(completion="y" * n, reference=None, prompt="p") for n in range(1, 20)]
    together = [verdict.reward for verdict in verifier.verify_batch(rows)]
    alone = [verifier.verify_batch([row])[0].reward for row in rows]
    assert together == alone


def test_the_reward_of_a_chat_is_that_of_its_turns(base: Path, tmp_path: Path) -> None:
    trained(stage(base), tmp_path / "rm")
    verifier = RewardModelVerifier(model=str(tmp_path / "rm"))
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    chat = GradingRow(completion="x", reference=None, prompt="a\nb\nc", info={"messages": [dict(t) for t in turns]})
    flat = GradingRow(completion="x", reference=None, prompt="a\nb\nc")
    one, other = verifier.verify_batch([chat, flat])
    assert one.reward != other.reward
