"""Files next to the weights of a model that a run writes, and their use by later stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from reasoner.config.errors import ConfigError
from reasoner.config.kept_prompt import read_kept_prompt
from reasoner.config.load import resolve
from reasoner.model.load import byte_tokenizer, load_tokenizer
from reasoner.observe.explain.prompt_rules import _own_template  # pyright: ignore[reportPrivateUsage]
from reasoner.stages.pipeline import run_pipeline
from reasoner.storage.history import read_history

SCRATCH = {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 128}


def small_run(folder: Path, **changes: Any) -> Path:
    raw = {
        "output": str(folder),
        "task": {"name": "arithmetic", "options": {"digits": 1}},
        "model": {"from_scratch": SCRATCH},
        "steps": 1,
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 4},
        "engine": {"name": "hf"},
        "eval": {"problems": 10, "temperature": 0.0},
        "logging": {"tensorboard": False},
        **changes,
    }
    return run_pipeline(resolve(raw), resume=False) / "final"


@pytest.mark.parametrize("own", [True, False], ids=["with a template", "without one"])
def test_a_later_stage_has_the_template_of_before(own: bool, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    before = tokenizer.chat_template if own else None
    tokenizer.chat_template = before
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    scratch = {"from_scratch": SCRATCH, "tokenizer": str(tmp_path / "tokenizer")}
    first = small_run(tmp_path / "first", model=scratch, prompt={"chat": "never"})
    kept = read_kept_prompt(first)
    assert kept is not None
    assert (kept.template_replaced, kept.own_template, kept.prompt.chat) == (True, before, "never")
    assert "single prompts" in AutoTokenizer.from_pretrained(first).chat_template
    assert load_tokenizer(str(first)).chat_template == before

    second = small_run(tmp_path / "second", model=str(first))  # chat: auto
    later = read_kept_prompt(second)
    assert later is not None
    assert later.prompt.chat == ("always" if own else "never")
    rows = [json.loads(line) for line in (second.parent / "rollouts.jsonl").read_text().splitlines()]
    assert all(("<|im_start|>user" in row["prompt"]) is own for row in rows)
    assert _own_template(read_history(second.parent)) == before
    assert load_tokenizer(str(second)).chat_template == before


def test_a_template_that_fits_stays_and_a_system_message_is_put_in_front(tmp_path: Path) -> None:
    stock = byte_tokenizer().chat_template
    questions = {"options": {"digits": 1}, "name": "arithmetic"}
    plain = small_run(tmp_path / "plain", task=questions, eval={"problems": 3})  # too few to have a form
    kept = read_kept_prompt(plain)
    assert kept is not None
    assert not kept.template_replaced
    assert AutoTokenizer.from_pretrained(plain).chat_template == stock
    ruled = small_run(tmp_path / "ruled", prompt={"system": "Add them."})
    tokenizer = AutoTokenizer.from_pretrained(ruled)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "1+1"}], tokenize=False)
    assert "system\nAdd them.<|im_end|>" in text


def test_the_generation_config_is_the_evaluations_and_loads_and_is_saved_again(tmp_path: Path) -> None:
    base = small_run(tmp_path / "base", eval={"problems": 3, "temperature": 0.7, "top_p": 0.9})
    found = json.loads((base / "generation_config.json").read_text())
    assert {name: found[name] for name in ("do_sample", "temperature", "top_p", "top_k")} == {
        "do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 0,
    }  # fmt: skip
    changed = {**found, "repetition_penalty": 1.05, "max_length": 20, "top_k": 20}
    (base / "generation_config.json").write_text(json.dumps(changed))
    greedy = small_run(tmp_path / "greedy", model=str(base))
    row = json.loads((greedy / "generation_config.json").read_text())
    assert row["do_sample"] is False
    assert not {"temperature", "top_p", "top_k", "repetition_penalty", "max_length"} & row.keys()
    assert row["eos_token_id"] == found["eos_token_id"]
    loaded = AutoModelForCausalLM.from_pretrained(greedy)
    loaded.save_pretrained(tmp_path / "again")
    GenerationConfig.from_pretrained(tmp_path / "again").validate(strict=True)


def test_the_card_names_the_first_base_and_figures_and_an_example(tmp_path: Path) -> None:
    first = small_run(tmp_path / "first")
    card = ModelCard.load(first / "README.md")
    assert card.data.to_dict()["pipeline_tag"] == "text-generation"
    assert "trained from scratch" in card.content
    second = small_run(tmp_path / "second", model=str(first))
    assert "trained from scratch" in (second / "README.md").read_text()
    first.rename(tmp_path / "Base-Model")
    third = small_run(tmp_path / "third", model=str(tmp_path / "Base-Model"))
    text = (third / "README.md").read_text()
    assert "base model `Base-Model`" in text
    assert str(tmp_path) not in text
    assert "| `avg@1` |" in card.content
    assert "=?" in card.content[card.content.index("## Example") :]


def test_the_best_model_comes_with_its_own_figures(tmp_path: Path) -> None:
    final = small_run(tmp_path / "run", steps=2, eval={"problems": 4, "every": 1})
    best = final.parent / "checkpoints" / "best"
    assert (best / "prompt.json").is_file()
    assert "method grpo, 1 steps" in (best / "README.md").read_text()
    assert not (final.parent / "checkpoints" / "step-000002" / "model" / "prompt.json").exists()


def test_a_damaged_prompt_file_is_named(tmp_path: Path) -> None:
    for content in ("{", "[]", '{"prompt": {"chat": "sometimes"}}', '{"propmt": {}}'):
        (tmp_path / "prompt.json").write_text(content)
        with pytest.raises(ConfigError, match=r"prompt\.json must contain a prompt format"):
            read_kept_prompt(tmp_path)
    assert read_kept_prompt(tmp_path / "nowhere") is None
