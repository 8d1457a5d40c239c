"""The chat template stored with a model renders the prompts of its run, or no template is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.kept_prompt import KeptPrompt
from reasoner.config.sections import PromptSection
from reasoner.data.kept_template import common_form, fitting_template, gives_prompts, kept_prompt, text_prompts
from reasoner.data.prompt import render
from reasoner.model.load import byte_tokenizer
from tasks import Problem
from tests.unit.reasoner.runs import stage

SUMS = [f"{n}+{n * n}=?\n" for n in range(20)]
HARD = "S 'x' {{ y }} \"q\" \\n \n😀é{% if %}{# c #} -%}"


def tokenizer_with(template: str | None) -> PreTrainedTokenizerBase:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def rendered(template: str, tokenizer: PreTrainedTokenizerBase, *contents: str, **further: Any) -> str:
    roles = ["user", "assistant"] * len(contents)
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return str(
        tokenizer.apply_chat_template(
            further.pop("messages", messages),
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
            **further,
        )
    )


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"template": "Q: {prompt}\nA:"},
        {"template": "{prompt}\n", "system": HARD},
        {"template": HARD + "{prompt}" + HARD},
        {"chat": "always", "system": HARD, "template": "Q: {prompt}\nA:"},
        {"chat": "always", "system": "Short.", "system_in": "user"},
        {
            "chat": "always",
            "thinking": False,
            "template_options": {"a": [1, {"b": None}, "x'", 0, True]},
            "system": "s",
        },
    ],
    ids=["plain", "template", "system", "hostile text", "chat", "system in user", "variables"],
)
@pytest.mark.parametrize("questions", [SUMS, ["Tom has 3 apples.", "A\n\nB ", *"abcdefgh"]], ids=["a form", "none"])
def test_what_is_kept_gives_the_tokens_of_training(section: dict[str, Any], questions: list[str]) -> None:
    tokenizer = byte_tokenizer()
    config = stage(prompt={"chat": "never", **section})
    kept = kept_prompt(config, tokenizer, questions)
    template = fitting_template(kept, tokenizer, questions)
    assert template is not None
    assert gives_prompts(template, kept, tokenizer, questions)
    problems = [Problem(id="p", prompt=question, reference=None, verifier="exact") for question in questions]
    wanted = [prompt.text for prompt in render(problems, tokenizer, config.prompt)]
    assert [rendered(template, tokenizer, question) for question in questions] == wanted
    if questions is SUMS:
        assert rendered(template, tokenizer, "3+9") == wanted[3]
        assert rendered(template, tokenizer, "3+9=?") == wanted[3]


def test_a_template_of_its_own_that_fits_stays() -> None:
    tokenizer = byte_tokenizer()
    assert fitting_template(kept_prompt(stage(), tokenizer, ["a", "b"]), tokenizer, ["a", "b"]) is None


def test_nothing_is_kept_that_was_not_seen_to_fit() -> None:
    tokenizer = byte_tokenizer()
    twice = kept_prompt(stage(prompt={"chat": "never", "template": "{prompt} again: {prompt}"}), tokenizer, [])
    assert fitting_template(twice, tokenizer, []) is None
    assert twice.completed("x") == "x again: x"
    other = KeptPrompt(prompt=PromptSection(chat="never"), ending="!\n")  # which these prompts did not have
    assert fitting_template(other, tokenizer, ["a"]) is None


def test_the_beginning_of_sequence_token_is_there_where_training_had_it() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tokenizer_with(None)
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    backend: Any = tokenizer
    backend.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    kept = kept_prompt(stage(), tokenizer, SUMS)
    assert kept.prompt.chat == "never"
    template = fitting_template(kept, tokenizer, SUMS)
    assert template is not None
    assert rendered(template, tokenizer, "1+1") == "<s>1+1=?\n"


def test_a_plain_template_takes_one_message_and_another_system_text() -> None:
    tokenizer = byte_tokenizer()
    kept = kept_prompt(stage(prompt={"chat": "never", "system": "Own."}), tokenizer, SUMS)
    template = fitting_template(kept, tokenizer, SUMS)
    assert template is not None
    given = [{"role": "system", "content": "Given."}, {"role": "user", "content": "1+1"}]
    assert rendered(template, tokenizer, messages=given) == "Given.\n1+1=?\n"
    with pytest.raises(TemplateError, match="single prompts"):
        rendered(template, tokenizer, "1+1", "2", "3+3")


def test_a_chat_template_keeps_turns_and_another_system_text() -> None:
    tokenizer = byte_tokenizer()
    kept = kept_prompt(stage(prompt={"system": "Own.", "template": "Q: {prompt}"}), tokenizer, [])
    template = fitting_template(kept, tokenizer, [])
    assert template is not None
    said = [("system", "Own."), ("user", "Q: a"), ("assistant", "b"), ("user", "Q: c")]
    wanted = rendered(
        str(tokenizer.chat_template), tokenizer, messages=[{"role": role, "content": text} for role, text in said]
    )
    assert rendered(template, tokenizer, "a", "b", "c") == wanted
    given = [{"role": "system", "content": "Given."}, {"role": "user", "content": "a"}]
    assert "Own." not in rendered(template, tokenizer, messages=given)


@pytest.mark.parametrize(
    ("questions", "form"),
    [
        (SUMS, ("", "=?\n")),
        ([f"Solve:\n{text}\nBe short." for text in SUMS], ("Solve:\n", "=?\n\nBe short.")),
        ([f"{n} apples are left?" for n in range(20)], ("", "")),
        ([f"{n} is seven\n" for n in range(20)], ("", " is seven\n")),
        ([f"{n}s\n" for n in range(20)], ("", "\n")),
        (SUMS[:5] * 10, ("", "")),
        ([], ("", "")),
        (["one\n"] * 20, ("", "")),
    ],
    ids=["ending", "both", "one line", "words", "a letter at the edge", "too few", "none", "all the same"],
)
def test_the_form_of_prompts_has_a_line_break(questions: Sequence[str], form: tuple[str, str]) -> None:
    assert common_form(questions) == form


@pytest.mark.parametrize(
    ("text", "completed"),
    [
        ("1+1", "Solve:\n1+1=?\n"),
        ("1+1=", "Solve:\n1+1=?\n"),
        ("1+1=?", "Solve:\n1+1=?\n"),
        ("Solve:\n1+1=?\n", "Solve:\n1+1=?\n"),
        ("", "Solve:\n=?\n"),
    ],
)
def test_a_message_is_completed_once(text: str, completed: str) -> None:
    kept = KeptPrompt(opening="Solve:\n", ending="=?\n")
    assert kept.completed(text) == completed
    assert kept.completed(completed) == completed


def test_rows_that_were_chats_are_told_from_text() -> None:
    tokenizer, section = byte_tokenizer(), PromptSection()
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "b"}]
    problems = [
        Problem(id="1", prompt="a", reference=None, verifier="exact"),
        Problem(id="2", prompt=tuple(chat), reference=None, verifier="exact"),  # pyright: ignore[reportArgumentType]
    ]
    rows = [("a", render(problems, tokenizer, section)[0].ids), ("s\nb", render(problems, tokenizer, section)[1].ids)]
    assert text_prompts(rows, tokenizer, section) == ["a"]
