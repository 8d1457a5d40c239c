"""The model card: valid front matter, and foreign text that stays text."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import yaml

from reasoner.config.kept_prompt import KeptPrompt, KeptSampling
from reasoner.config.sections import PromptSection
from reasoner.records import Estimate
from reasoner.session.model_card import Card, Example, block, card_text, in_line
from tests.unit.reasoner.runs import stage

HOSTILE = "---\nlicense: mit\n```\n# x\n<script>alert(1)</script>\n````\n| a | b |\x1b[2J\u202e[x](javascript:y) `c`"


def card(**changes: Any) -> Card:
    return Card(
        **{
            "stage": stage(),
            "step": 20,
            "config_name": "mine.yaml",
            "base": "org/Base-1B",
            "before": {"avg@1": Estimate(0.25, 0.125, 0.5)},
            "after": {"avg@1": Estimate(0.75, 0.5, 0.875)},
            "kept": KeptPrompt(ending="=?\n", sampling=KeptSampling(max_tokens=80)),
            "template_fits": True,
            "example": Example(question="1+2=?\n", completion="#### 3", outcome="correct", text_prompt=True),
            "dtype": "bfloat16",
            **changes,
        }
    )


def test_a_model_that_an_environment_answered_is_not_offered_to_chat_with() -> None:
    kept = KeptPrompt(environment="hi_lo.py:play")
    text = card_text(card(kept=kept))
    assert "the environment `hi_lo.py:play` replied to each turn" in text
    assert "reasoner chat" not in text


def front_matter(text: str) -> dict[str, Any]:
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert found
    return yaml.safe_load(found[1])


def test_the_front_matter_is_what_the_hub_reads() -> None:
    from huggingface_hub import ModelCard

    data = ModelCard(card_text(card())).data.to_dict()
    assert data == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "org/Base-1B",
        "tags": ["reasoner", "grpo", "reinforcement-learning"],
    }


@pytest.mark.parametrize("base", [None, "model.Q4_1.gguf", "a folder"])
def test_a_base_that_the_hub_does_not_know_is_not_in_the_front_matter(base: str | None) -> None:
    text = card_text(card(base=base))
    assert "base_model" not in front_matter(text)
    assert ("trained from scratch" in text) is (base is None)
    assert ("Licence of the weights: as the base model" in text) is (base is not None)


def test_figures_stand_with_their_intervals() -> None:
    text = card_text(card())
    assert "| `avg@1` | 25.0% [12.5%, 50.0%] | 75.0% [50.0%, 87.5%] |" in text
    assert "Held-out" not in card_text(card(before={}, after={}))
    assert "| `avg@1` |  | 75.0% [50.0%, 87.5%] |" in card_text(card(before={}))


def test_commands_are_whole_and_complete() -> None:
    kept = KeptPrompt(prompt=PromptSection(stop=["it's", "\n"]), ending="=?\n")
    text = card_text(card(kept=kept, dtype="float32"))
    assert "reasoner chat MODEL --temperature 0 --prompt 1+2=?\n" in text.replace("'", "")
    assert '"content": "1+2=?"' in text
    assert r"""do_sample=False, stop_strings=["it's", "\n"], tokenizer=pipe.tokenizer""" in text
    curl = text[text.index("curl ") :]
    body = json.loads(shlex.split(curl[: curl.index("```")].replace("\\\n", ""))[-1])
    assert body["stop"] == ["it's", "\n"]
    assert body["temperature"] == 0
    assert "--dtype float32" in text


def test_nothing_of_foreign_text_is_markdown() -> None:
    hostile = Example(question=HOSTILE, completion=HOSTILE, outcome="correct", text_prompt=True)
    text = card_text(
        card(
            example=hostile, base=HOSTILE, config_name=HOSTILE, stage=stage(name=HOSTILE),
            after={HOSTILE: Estimate(0.5, 0.4, 0.6)},
        )
    )  # fmt: skip
    assert front_matter(text) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["reasoner", "grpo", "reinforcement-learning"],
    }
    assert "\x1b" not in text
    assert "\u202e" not in text
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    outside = re.sub(r"(`+) ?(?!`).*?(?<!`) ?\1(?!`)", "", outside)
    for harmful in ("script", "javascript", "license", "# x"):
        assert harmful not in outside
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (3, 4) for row in rows if "key" not in row)


@pytest.mark.parametrize("text", ["", "`", "``", "a`b``c", "|", " ", "\n"])
def test_code_in_a_line_and_in_a_block_holds_any_text(text: str) -> None:
    assert "\n" not in in_line(text)
    fence = block(text).splitlines()[0].removesuffix("text")
    assert block(text).splitlines()[-1] == fence
    assert fence not in text


def test_absolute_paths_of_a_machine_are_not_published() -> None:
    text = card_text(
        card(stage=stage(task={"name": "dataset", "options": {"path": "/home/me/rows.jsonl", "verifier": "math"}}))
    )
    assert "/home/me" not in text
    assert "rows.jsonl" in text


def test_a_model_that_scores_has_a_card_without_a_chat() -> None:
    text = card_text(card(kept=None, example=None))
    assert front_matter(text)["pipeline_tag"] == "text-classification"
    assert "chat" not in text
