"""From a problem to the tokens that the model sees."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jinja2 import TemplateError

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection
from tasks import BadRow, Message, Problem, UnusableRow
from tasks.inputs.spool import Picked

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


AT_ONCE = 256
"""Prompts that are rendered together (ours)."""


class Prompt(NamedTuple):
    """A rendered prompt."""

    text: str
    ids: tuple[int, ...]


def messages_of(prompt: str | Sequence[Message], section: PromptSection) -> list[Message]:
    """A prompt as chat messages, the config's system message first, where it has none of its own."""
    if isinstance(prompt, str):
        messages = [Message(role="user", content=section.template.replace("{prompt}", prompt))]
    else:
        messages = list(prompt)
    if section.system and messages[0]["role"] != "system":
        messages.insert(0, Message(role="system", content=section.system))
    if section.system_in == "user" and len(messages) > 1 and messages[0]["role"] == "system":
        system, first, *others = messages
        if first["role"] == "user":
            messages = [Message(role="user", content=f"{system['content']}\n\n{first['content']}"), *others]
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
    without one the tokenizer adds its own beginning-of-sequence token, unless the text begins with it.

    Raises:
        ConfigError: the chat template refuses a problem's messages; names the problem.
    """
    found = render_each(problems, tokenizer, section)
    refused = [(problem.id, one) for problem, one in zip(problems, found, strict=True) if not isinstance(one, Prompt)]
    if refused:
        name, reason = refused[0]
        others = f" {len(refused) - 1} other problems likewise." if len(refused) > 1 else ""
        raise ConfigError("bad-value", f"problem {name}: {reason}{others}")
    return [one for one in found if isinstance(one, Prompt)]


def render_each(
    problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, section: PromptSection
) -> list[Prompt | UnusableRow]:
    """The same, with the reason in the place of each prompt that cannot be rendered."""
    if not problems:
        return []
    chat = uses_chat(tokenizer, section)
    found: list[str | UnusableRow] = []
    for problem in problems:
        try:
            found.append(_text(problem, tokenizer, section, chat=chat))
        except UnusableRow as error:
            found.append(error)
    ids = iter(_prompt_ids([text for text in found if isinstance(text, str)], tokenizer, chat=chat))
    return [Prompt(one, next(ids)) if isinstance(one, str) else one for one in found]


def _text(problem: Problem, tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, chat: bool) -> str:
    if chat:
        return chat_text(messages_of(problem.prompt, section), tokenizer, section, reply_follows=True)
    if not isinstance(problem.prompt, str):
        raise UnusableRow(
            "it is a chat, but prompts are plain text here (prompt.chat or the tokenizer has no chat template). Use a"
            " tokenizer with a chat template."
        )
    text = section.template.replace("{prompt}", problem.prompt)
    return f"{section.system}\n{text}" if section.system else text


def _prompt_ids(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, chat: bool) -> list[tuple[int, ...]]:
    """Token ids with at most one beginning-of-sequence token, and no end-of-sequence token that the text lacks."""
    if not texts:
        return []
    rows = cast("list[list[int]]", tokenizer(list(texts), add_special_tokens=not chat)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    found: list[tuple[int, ...]] = []
    for text, row in zip(texts, rows, strict=True):
        if bos is not None and row[:2] == [bos, bos]:
            row = row[1:]
        if not chat and len(row) > 1 and row[-1] == eos and not text.endswith(str(tokenizer.eos_token)):
            row = row[:-1]  # of a tokenizer that ends every text: a completion would begin behind the end
        found.append(tuple(row))
    return found


def template_options(section: PromptSection) -> dict[str, Any]:
    """Variables for the chat template."""
    options: dict[str, Any] = dict(section.template_options)
    if section.thinking is not None:
        options["enable_thinking"] = section.thinking
    return options


def chat_text(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, reply_follows: bool
) -> str:
    """Messages as the chat template writes them.

    Args:
        messages: as `messages_of` gives them.
        tokenizer: has a chat template.
        section: its options.
        reply_follows: whether the text ends where the assistant begins to write.
    Raises:
        UnusableRow: the template refuses them, or leaves the config's system message out.
    """
    try:
        text = _apply(messages, tokenizer, section, reply_follows=reply_follows)
    except TEMPLATE_FAULTS as error:
        raise UnusableRow(_refusal(error, messages, tokenizer, section)) from error
    if section.system and messages[0]["role"] == "system" and messages[0]["content"].strip() not in text:
        raise UnusableRow(f"the chat template leaves the system message out. {SYSTEM_ADVICE}")
    return text


TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)
"""What a chat template raises over messages that it does not take."""
SYSTEM_ADVICE = "Leave it out (prompt.system), or set prompt.system_in: user to put it in front of the user's message."


def _apply(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, reply_follows: bool
) -> str:
    options: Mapping[str, Any] = template_options(section)

    def applied(given: Sequence[Mapping[str, Any]]) -> str:
        rows = [dict(message) for message in given]
        return str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=reply_follows, **options))

    try:
        return applied(messages)
    except TypeError:
        if not any("tool_calls" in message for message in messages):
            raise
        return applied([_arguments_as_text(message) for message in messages])


def _arguments_as_text(message: Message) -> Mapping[str, Any]:
    """A message with the arguments of its calls as JSON in a string, as some templates want them."""

    def call(given: Any) -> dict[str, Any]:
        inner = given.get("function", given)
        told = {**inner, "arguments": json.dumps(inner.get("arguments"), ensure_ascii=False)}
        return {**given, "function": told} if "function" in given else told

    return {**message, "tool_calls": [call(one) for one in message.get("tool_calls", [])]}


def _refusal(
    error: Exception, messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, section: PromptSection
) -> str:
    """Why a chat template refuses messages, and what to do."""
    lines = str(error).strip().splitlines()
    said = (lines[0] if lines else type(error).__name__).rstrip(".")
    if messages[0]["role"] == "system" and len(messages) > 1:
        try:
            _apply(messages[1:], tokenizer, section, reply_follows=True)
        except TEMPLATE_FAULTS:
            pass
        else:
            return f"the chat template takes no system message ({said}). {SYSTEM_ADVICE}"
    roles = ", ".join(message["role"] for message in messages[:6]) + (", ..." if len(messages) > 6 else "")
    return f"the chat template refuses its messages, whose roles are {roles} ({said}). Mend or leave out the row."


class Fitting(NamedTuple):
    """Problems whose prompts can be rendered and leave room for their completions, and the others."""

    problems: Sequence[Problem]
    refused: list[BadRow]
    """The chat template refuses them."""
    long: list[BadRow]


def fitting(
    problems: Sequence[Problem],
    tokenizer: PreTrainedTokenizerBase,
    section: PromptSection,
    *,
    max_tokens: int,
    limit: int,
    setting: str = "rollout.max_tokens",
) -> Fitting:
    """Tell problems whose prompts fit the context of `limit` tokens beside `max_tokens` from the others.

    Args:
        problems: of one task.
        tokenizer: the policy's.
        section: how prompts are rendered.
        max_tokens: of a completion.
        limit: tokens of prompt and completion together.
        setting: where max_tokens comes from.
    """
    places = array("Q")
    refused: list[BadRow] = []
    long: list[BadRow] = []
    for place, (problem, prompt) in enumerate(rendered(problems, tokenizer, section)):
        where = f"problem {problem.id}"
        if not isinstance(prompt, Prompt):
            refused.append(BadRow(where, str(prompt)))
        elif not prompt.ids:
            refused.append(BadRow(where, "its prompt is empty"))
        elif len(prompt.ids) + max_tokens > limit:
            fault = f"prompt of {len(prompt.ids)} tokens plus {setting}={max_tokens} must fit the context of {limit}"
            long.append(BadRow(where, fault))
        else:
            places.append(place)
    return Fitting(Picked(problems, places), refused, long)


def rendered(
    problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, section: PromptSection
) -> Iterator[tuple[Problem, Prompt | UnusableRow]]:
    """(problem, its prompt or why it has none) of many problems, AT_ONCE of them in memory."""
    for begin in range(0, len(problems), AT_ONCE):
        some = [*problems[begin : begin + AT_ONCE]]
        yield from zip(some, render_each(some, tokenizer, section), strict=True)
