"""A step's groups come in the order of the problems, each portion as soon as all of it is graded."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate import Accelerator
from safetensors.torch import load_file
from transformers import AutoTokenizer

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import PromptSection
from reasoner.config.stage import RunConfig
from reasoner.data.prompt import Prompt
from reasoner.data.turns import Ends
from reasoner.engine.base import Finished
from reasoner.engine.hf import HfEngine
from reasoner.model.load import byte_tokenizer
from reasoner.policy.policy import Policy
from reasoner.records import Completion, FinishReason, SamplingParams, Segment
from reasoner.rollout.round import Round, RoundSampler, merged
from reasoner.session.opening import open_session
from reasoner.stages.pipeline import run_pipeline
from tasks import Problem
from verifiers import Outcome, Verdict
from verifiers.verdict import fixed

GROUP = 2


def completion(text: str) -> Completion:
    return Completion(
        text=text,
        token_ids=(1, 2, 3),
        rollout_logprobs=(-1.0, -1.0, -1.0),
        loss_mask=(True,) * 3,
        segments=(Segment(start=0, end=3, origin="policy"),),
        finish_reason=FinishReason.STOP,
        policy_version=0,
    )


def sampled_round(problems: int) -> tuple[Round, dict[int, Future[Verdict]]]:
    futures = {index: Future[Verdict]() for index in range(problems * GROUP)}
    made = [Problem(id=f"p{n}", prompt=f"question {n}", reference="1", verifier="exact") for n in range(problems)]
    sampled = Round(
        problems_P=made,
        prompts_P={n: Prompt(f"question {n}", (7, n)) for n in range(problems)},
        group_size=GROUP,
        completions={index: completion(str(index)) for index in futures},
        verdicts=futures,
        generation_seconds=1.5,
        step=4,
    )
    return sampled, futures


def test_a_portion_waits_for_its_own_rows_alone() -> None:
    sampled, futures = sampled_round(5)
    portions = sampled.graded(2)
    for index in range(4):
        futures[index].set_result(fixed(Outcome.INCORRECT, "no"))
    first = next(portions)
    assert [group.problem.id for group in first.groups] == ["p0", "p1"]
    for index in range(4, 10):
        futures[index].set_result(fixed(Outcome.INCORRECT, "no"))
    whole = merged([first, *portions])
    assert [group.problem.id for group in whole.groups] == ["p0", "p1", "p2", "p3", "p4"]
    assert [r.completion.text for group in whole.groups for r in group.rollouts] == [str(n) for n in range(10)]
    assert [r.sample_index for group in whole.groups for r in group.rollouts] == [0, 1] * 5
    assert (whole.generation_seconds, whole.tokens) == (1.5, 30)


@pytest.mark.parametrize("portions", [1, 3, 4, 9])
def test_any_number_of_portions_holds_every_group_once(portions: int) -> None:
    sampled, futures = sampled_round(4)
    for future in futures.values():
        future.set_result(fixed(Outcome.INCORRECT, "no"))
    parts = list(sampled.graded(portions))
    assert [group.problem.id for group in merged(parts).groups] == ["p0", "p1", "p2", "p3"]
    assert len(parts) == min(portions, 4)
    assert merged(parts).groups == sampled.all().groups


@pytest.mark.parametrize("changes", [{"optim": {"inner_epochs": 2}}, {"rollout": {"dynamic_sampling_rounds": 1}}])
def test_portions_need_one_update_on_one_round(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"grading\.portions above 1 needs one update per step"):
        resolve({"task": "arithmetic", "grading": {"portions": 2}, **changes})


def test_portions_need_advantages_by_group(tmp_path) -> None:
    config = resolve(
        {
            "task": "arithmetic",
            "model": {"from_scratch": {"hidden_size": 32}},
            "grading": {"portions": 2},
            "algorithm": {"advantage": "reinforce_pp_baseline"},
        }
    ).stages[0]
    with (
        pytest.raises(
            ConfigError, match=r"grading\.portions must be 1 with algorithm\.advantage=reinforce_pp_baseline"
        ),
        open_session(config, tmp_path / "run", resume=False),
    ):
        pass


class Asked(HfEngine):
    """An engine that records its requests, and ends every completion with one token."""

    def __init__(self, end: int) -> None:
        self.end = end

    def generate(self, requests, params):
        self.params = params
        ids = (*range(3), self.end)
        yield Finished(0, replace(completion("abc<end>"), token_ids=ids, loss_mask=(True,) * 4))


def test_the_engine_is_told_what_ends_a_completion_and_the_text_holds_no_end_token() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<end>"])  # no special one: decoding keeps it
    ordinary, special = (tokenizer.convert_tokens_to_ids(text) for text in ("<end>", "<|im_end|>"))
    for end, text in ((ordinary, tokenizer.decode([0, 1, 2])), (special, "abc<end>"), (9, "abc<end>")):
        engine = Asked(end)
        sampler = RoundSampler(
            engine=engine,
            pool=None,  # pyright: ignore[reportArgumentType]  (nothing is graded)
            tokenizer=tokenizer,
            prompt=PromptSection(),
            seed=0,
            ends=Ends((ordinary, special), ("\n",), None),
        )
        (done,) = sampler.generate([], SamplingParams(max_tokens=4, stop=("\n", "<|im_end|>")))
        assert engine.params == SamplingParams(max_tokens=4, stop=("\n",), end_ids=(ordinary, special))
        assert done.completion.text == text


def ends_otherwise(folder: Path) -> Path:
    """A small model whose tokenizer ends with another token than its chat template does."""
    raw = {"task": "arithmetic", "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 1}}}
    policy = Policy(resolve(raw).stages[0], accelerator=Accelerator(cpu=True))
    policy.tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    policy.tokenizer.eos_token = "<|endoftext|>"
    model = policy.unwrapped()
    assert model.generation_config is not None
    model.generation_config.eos_token_id = model.config.eos_token_id = policy.tokenizer.eos_token_id
    policy.save(folder)
    return folder


def small_run(folder: Path, **changes: object) -> RunConfig:
    return resolve(
        {
            "output": str(folder),
            "task": "arithmetic",
            "steps": 1,
            "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 4},
            "engine": {"name": "hf"},
            "eval": {"problems": 0},
            "logging": {"tensorboard": False},
            **changes,
        }
    )


def test_the_templates_end_is_told_ends_completions_and_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ends_otherwise(tmp_path / "base")
    folder = run_pipeline(small_run(tmp_path / "run", model={"path": str(base)}), resume=False)
    assert "ends a turn with '<|im_end|>', which is neither the tokenizer's eos_token" in " ".join(
        capsys.readouterr().out.split()
    )
    saved = json.loads((folder / "final" / "generation_config.json").read_text())
    tokenizer = byte_tokenizer()
    assert saved["eos_token_id"] == sorted(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))


@pytest.mark.parametrize("resized", [False, True])
def test_a_model_of_another_shape_than_its_base_is_sampled_from_and_resumed(resized: bool, tmp_path: Path) -> None:
    base = ends_otherwise(tmp_path / "base")
    if resized:
        tokenizer = AutoTokenizer.from_pretrained(base)
        tokenizer.add_tokens(["<tool>"])
        tokenizer.save_pretrained(base)
    further = {"resize_embeddings": True} if resized else {"lora": {"rank": 2, "targets": ["lm_head"]}}
    config = small_run(tmp_path / "run", model={"path": str(base), **further})
    folder = run_pipeline(config, resume=False)
    with open_session(config.stages[0], folder, resume=True) as session:
        assert session.step == 1
        held = load_file(folder / "start" / "model.safetensors")
        assert {name: tensor.shape for name, tensor in session.policy.named_weights()} == {
            name: tensor.shape for name, tensor in held.items()
        }
        assert session.sync() < 1e-4


def test_problems_of_two_files_are_told_apart_by_task_and_id(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [{"prompt": f"{name} {n}?", "reference": "1"} for n in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [{"name": "dataset", "options": {"path": str(tmp_path / f"{n}.jsonl"), "verifier": "exact"}} for n in "ab"]
    raw = {
        "method": "pairs",
        "output": str(tmp_path / "run"),
        "task": files,
        "steps": 1,
        "model": {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 1, "max_positions": 64}},
        "rollout": {"problems_per_step": 8, "group_size": 2, "max_tokens": 4},
        "engine": {"name": "hf"},
        "logging": {"tensorboard": False},
    }
    folder = run_pipeline(resolve(raw), resume=False)
    rollouts, pairs = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("rollouts.jsonl", "pairs.jsonl")
    )
    asked = {(row["group"], row["sample"]): row["question"] or row["prompt"] for row in rollouts}
    assert {row["task"] for row in rollouts} == {"dataset", "dataset-2"}
    assert {row["prompt"] for row in pairs} == set(asked.values())
    assert all(row["prompt"] == asked[tuple(map(int, row["id"].split("/")[1:]))] for row in pairs)
