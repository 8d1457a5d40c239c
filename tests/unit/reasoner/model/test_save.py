"""Saved models equal the trained ones: reloaded by plain transformers and peft, in the base's dtype."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from reasoner.algorithm.objective import make_objective
from reasoner.cli import app
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.data.pairs import encode_pairs, pair_batch
from reasoner.engine import open_engine
from reasoner.model.load import load_config_and_tokenizer
from reasoner.model.paths import ModelError
from reasoner.model.save import stored_dtype
from reasoner.policy.checkpoint import save_checkpoint, save_model
from reasoner.policy.policy import Policy
from reasoner.policy.progress import Progress, StageState
from reasoner.policy.reward import RewardPolicy
from reasoner.stages.reward_model import bradley_terry_objective
from tests.unit.reasoner.policy.test_policy import SHAPE, make_batch
from tests.unit.reasoner.stages.test_reward_model import PAIRS

IDS = torch.randint(0, 256, (3, 40), generator=torch.Generator().manual_seed(0))
TARGETS = {
    "full": None,
    "all-linear": "all-linear",
    "attention": ["q_proj", "v_proj"],
    "head": ["q_proj", "lm_head"],
    "embedding": ["embed_tokens"],
    "both": ["embed_tokens", "lm_head", "down_proj"],
}


def stage(base: Path, **model: object) -> StageConfig:
    return resolve(
        {
            "task": "arithmetic",
            "model": {"path": str(base), "dtype": "float32", **model},
            "rollout": {"max_tokens": 40},
            "optim": {"lr": 1e-2},
        }
    ).stages[0]


def base_folder(folder: Path, *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    shape = SHAPE | {"tie_embeddings": tied}
    config = resolve({"task": "arithmetic", "model": {"from_scratch": shape, "dtype": "float32"}}).stages[0]
    policy = Policy(config, accelerator=Accelerator(cpu=True))
    policy.saved_dtype = dtype
    policy.save(folder)
    return folder


def trained(config: StageConfig, kind: type[Policy] = Policy, *, updates: int = 2) -> Policy:
    policy = kind(config, accelerator=Accelerator(cpu=True))
    batch = make_batch(config)
    for name in ("weights_N", "advantages_N", "rollout_logprobs_N"):
        object.__setattr__(batch, name, getattr(batch, name).float())
    object.__setattr__(batch, "old_logprobs_N", None)
    for _ in range(updates):
        policy.update(batch, make_objective(config))
    return policy


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()


def dtypes(folder: Path) -> set[str]:
    found: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            found |= {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118
    return found


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # peft, of the base itself
@pytest.mark.parametrize(
    ("targets", "tied"), [*((name, True) for name in TARGETS), ("full", False), ("all-linear", False), ("both", False)]
)
def test_the_saved_model_is_the_trained_one(targets: str, tied: bool, tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", tied=tied)
    lora = {} if TARGETS[targets] is None else {"lora": {"rank": 4, "targets": TARGETS[targets]}}
    policy = trained(stage(base, **lora))
    live = logits(policy.model)
    untrained = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    assert (logits(untrained) - live).abs().max() > 1e-3, "training did nothing"
    policy.save(tmp_path / "final")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "final", dtype=torch.float32).eval()
    assert (logits(again) - live).abs().max() < 1e-5
    engine = open_engine("hf", model_path=str(tmp_path / "final"), max_model_len=64)
    assert engine.score(IDS[0].tolist()) == pytest.approx(policy.score_tokens(IDS[0].tolist()), abs=1e-5)
    arrived = engine.load_weights(policy.named_weights(), 1)  # the names of the policy are those of its folder
    assert arrived
    if not lora:
        return
    import peft

    policy.save_trained(tmp_path / "checkpoint")
    adapted = peft.PeftModel.from_pretrained(untrained, tmp_path / "checkpoint" / "adapter").eval()
    assert (logits(adapted) - live).abs().max() < 1e-5
    restored = Policy(stage(base, **lora), accelerator=Accelerator(cpu=True), checkpoint=tmp_path / "checkpoint")
    assert torch.equal(logits(restored.model), live)
    assert policy.reshaped == (tied and targets in ("head", "embedding", "both"))


@pytest.mark.parametrize("lora", [None, {"rank": 4}, {"rank": 4, "targets": ["lm_head"]}])
def test_a_model_is_saved_in_the_dtype_of_its_base(lora: dict | None, tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", dtype=torch.bfloat16)
    policy = trained(stage(base, **({"lora": lora} if lora else {})))
    save_model(tmp_path / "run" / "final", policy)
    held = dict(policy.named_weights())
    saved = load_file(tmp_path / "run" / "final" / "model.safetensors")
    assert dtypes(tmp_path / "run" / "final") == dtypes(base) == {"BF16"}
    assert all(torch.equal(saved[name], tensor.bfloat16()) for name, tensor in held.items())
    assert AutoConfig.from_pretrained(tmp_path / "run" / "final").dtype == torch.bfloat16
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "final", dtype="auto").eval()
    assert again.dtype == torch.bfloat16
    assert (logits(again) - logits(policy.model)).abs().max() < 0.05


def test_a_checkpoint_keeps_what_is_trained_and_notes_the_dtype_of_the_base(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", dtype=torch.bfloat16)
    policy = trained(stage(base))
    progress = Progress(step=3, sampler={}, offsets={}, difficulty=None, state=StageState())
    checkpoint = save_checkpoint(tmp_path / "run" / "checkpoints", policy, progress, keep=1)
    assert dtypes(checkpoint / "model") == {"F32"}
    restored = Policy(stage(base), accelerator=Accelerator(cpu=True), checkpoint=checkpoint)
    assert torch.equal(logits(restored.model), logits(policy.model))
    restored.save(tmp_path / "later")
    assert dtypes(tmp_path / "later") == {"BF16"}
    told = {
        "default": ([], "BF16"),
        "float32": (["--dtype", "float32"], "F32"),
        "half": (["--dtype", "float16"], "F16"),
    }
    for name, (options, expected) in told.items():
        done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), str(tmp_path / name), *options])
        assert done.exit_code == 0, done.output
        assert dtypes(tmp_path / name) == {expected}
        assert not (tmp_path / name / "dtype.txt").exists()
        assert (
            stored_dtype(str(tmp_path / name), AutoConfig.from_pretrained(tmp_path / name))
            == {
                "F32": torch.float32,
                "BF16": torch.bfloat16,
                "F16": torch.float16,
            }[expected]
        )
    exact = AutoModelForCausalLM.from_pretrained(tmp_path / "float32", dtype="auto").eval()
    assert torch.equal(logits(exact), logits(policy.model))
    assert (tmp_path / "default" / "model.safetensors").stat().st_size < 0.6 * (
        tmp_path / "float32" / "model.safetensors"
    ).stat().st_size
    done = CliRunner().invoke(app, ["export", str(tmp_path / "run"), str(tmp_path / "x"), "--dtype", "bf16"])
    assert done.exit_code == 2
    assert "bfloat16" in done.output


def test_files_have_the_modes_of_files_made_here(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        policy = trained(stage(base_folder(tmp_path / "base"), lora={"rank": 2}), updates=0)
        save_model(tmp_path / "run" / "final", policy)
        progress = Progress(step=1, sampler={}, offsets={}, difficulty=None, state=StageState())
        save_checkpoint(tmp_path / "run" / "checkpoints", policy, progress, keep=1)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 6
    assert {path.stat().st_mode & 0o777 for path in files} == {0o640}


# ------------------------------------------------------------------------------------------------- reward models


def special(folder: Path, *, pad: str, others: bool) -> None:
    """Give a base's tokenizer another padding token, and remove its other special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = pad
    if not others:
        config = json.loads((folder / "tokenizer_config.json").read_text())
        for key in ("additional_special_tokens", "extra_special_tokens"):
            config.pop(key, None)
        config["pad_token"] = pad
        tokenizer.save_pretrained(folder)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        whole = json.loads((folder / "tokenizer.json").read_text())
        for token in whole["added_tokens"]:
            token["special"] = token["content"] == pad
        (folder / "tokenizer.json").write_text(json.dumps(whole))
        return
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(("pad", "others"), [("<|endoftext|>", True), ("<|im_end|>", True), ("<|im_end|>", False)])
@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_a_reward_model_scores_alike_in_transformers_whatever_the_padding(
    pad: str, others: bool, lora: dict | None, tmp_path: Path
) -> None:
    base = base_folder(tmp_path / "base")
    special(base, pad=pad, others=others)
    raw = {"method": "reward_model", "preferences": {"train": ["x.jsonl"]}, "optim": {"lr": 1e-2}}
    model = {"path": str(base), "dtype": "float32", **({"lora": lora} if lora else {})}
    policy = RewardPolicy(resolve(raw | {"model": model}).stages[0], accelerator=Accelerator(cpu=True))
    encoded, _ = encode_pairs(PAIRS, policy.tokenizer, policy.config.prompt, limit=128)
    objective = bradley_terry_objective(pairs=6, weights_CK=torch.ones(6, 1), centre_coef=0.01)
    policy.update(pair_batch(encoded), objective)
    policy.save(tmp_path / "rm")
    ours = policy.rewards(pair_batch(encoded))[:, 0]
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "rm")
    assert again.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id
    rows = [[*side.prompt_ids, *side.completion_ids] for pair in encoded for side in (pair.first, pair.second)]
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        with torch.no_grad():
            theirs = again(**batch).logits[:, 0].double()
        assert theirs.tolist() == pytest.approx(ours.tolist(), abs=1e-4), side


# -------------------------------------------------------------------------------- tokenizers with too many tokens


def grown(folder: Path) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<tool>", "</tool>"])
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_larger_than_the_embedding_is_named_or_the_embedding_grows(tmp_path: Path) -> None:
    base = grown(base_folder(tmp_path / "base"))
    with pytest.raises(ModelError, match=r"has 261 tokens, the embedding of .* 259 rows.*resize_embeddings: true"):
        Policy(stage(base), accelerator=Accelerator(cpu=True))
    with pytest.raises(ModelError, match="259 rows"):
        load_config_and_tokenizer(stage(base).model)
    policy = trained(stage(base, resize_embeddings=True))
    assert policy.reshaped
    policy.save(tmp_path / "final")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "final").eval()
    assert again.get_input_embeddings().weight.shape[0] == 261
    assert (logits(again) - logits(policy.model)).abs().max() < 1e-5
    other = Policy(stage(base, resize_embeddings=True), accelerator=Accelerator(cpu=True))
    fresh = Policy(stage(base, resize_embeddings=True), accelerator=Accelerator(cpu=True))
    assert torch.equal(logits(other.model), logits(fresh.model)), "new rows come from the seed"
    load_config_and_tokenizer(stage(tmp_path / "final").model)
    shutil.rmtree(tmp_path / "final")
