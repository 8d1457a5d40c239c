"""From a problem to the tokens that the model sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection
from tasks import Problem


class Prompt(NamedTuple):
    """A rendered prompt."""

    text: str
    ids: tuple[int, ...]


def messages_of(problem: Problem, section: PromptSection) -> list[dict[str, str]]:
    """The problem as chat messages, the config's system message first."""
    if isinstance(problem.prompt, str):
        messages = [{"role": "user", "content": section.template.replace("{prompt}", problem.prompt)}]
    else:
        messages = [{"role": m["role"], "content": m["content"]} for m in problem.prompt]
    if section.system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": section.system})
    return messages


def uses_chat(tokenizer: PreTrainedTokenizerBase, section: PromptSection) -> bool:
    """Whether prompts go through the tokenizer's chat template.

    Raises:
        ConfigError: the config wants a chat template and the tokenizer has none.
    """
    if section.chat == "always" and not tokenizer.chat_template:
        raise ConfigError("bad-value", "prompt.chat is 'always', but the tokenizer has no chat template. Use 'never'.")
    return section.chat != "never" and bool(tokenizer.chat_template)


def render(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, section: PromptSection) -> list[Prompt]:
    """Prompts as text and token ids, in order.

    With a chat template the text holds every special token already, and none is added by the tokenizer;
    without one the tokenizer adds its own (a beginning-of-sequence token, where it has one).
    """
    if not problems:
        return []
    chat = uses_chat(tokenizer, section)
    texts = [_text(problem, tokenizer, section, chat=chat) for problem in problems]
    ids = tokenizer(texts, add_special_tokens=not chat)["input_ids"]
    return [Prompt(text, tuple(row)) for text, row in zip(texts, ids, strict=True)]


def _text(problem: Problem, tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, chat: bool) -> str:
    if not chat:
        if not isinstance(problem.prompt, str):
            raise ConfigError(
                "bad-value",
                f"problem {problem.id} is a chat, but prompts are plain text here (prompt.chat or the tokenizer has"
                " no chat template). Use a tokenizer with a chat template.",
            )
        text = section.template.replace("{prompt}", problem.prompt)
        return f"{section.system}\n{text}" if section.system else text
    options = dict(section.template_options)
    if section.thinking is not None:
        options["enable_thinking"] = section.thinking
    return str(
        tokenizer.apply_chat_template(
            messages_of(problem, section),
            tokenize=False,
            add_generation_prompt=True,
            **options,  # pyright: ignore[reportArgumentType]  (passed on to the template)
        )
    )


def check_lengths(
    problems: Sequence[Problem],
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    limit: int,
    setting: str = "rollout.max_tokens",
) -> None:
    """Raise where a prompt leaves no room for its completion; `setting` is where max_tokens comes from.

    Raises:
        ConfigError: names the problem, its tokens and what to change.
    """
    for problem, prompt in zip(problems, prompts, strict=True):
        if not prompt.ids:
            raise ConfigError("bad-value", f"problem {problem.id}: its prompt must not be empty.")
        if len(prompt.ids) + max_tokens > limit:
            raise ConfigError(
                "bad-value",
                f"problem {problem.id}: prompt of {len(prompt.ids)} tokens plus {setting}={max_tokens}"
                f" must fit the context of {limit}. Lower {setting}, drop the problem, or use another model.",
            )
