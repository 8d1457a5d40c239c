"""Rendering of problems into the tokens that the model sees."""

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
"""Prompts that are rendered together (our choice)."""


class Prompt(NamedTuple):
    """A rendered prompt."""

    text: str
    ids: tuple[int, ...]


def messages_of(prompt: str | Sequence[Message], section: PromptSection) -> list[Message]:
    """Return a prompt as chat messages, beginning with the config's system message unless it has one of its own."""
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
    """Return True if prompts are rendered with the tokenizer's chat template.

    Raises:
        ConfigError: prompt.chat is "always" and the tokenizer has no chat template.
    """
    if section.chat == "always" and not tokenizer.chat_template:
        raise ConfigError("bad-value", "prompt.chat is 'always', but the tokenizer has no chat template. Use 'never'.")
    return section.chat != "never" and bool(tokenizer.chat_template)


def render(problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, section: PromptSection) -> list[Prompt]:
    """Render prompts as text and token ids, in order.

    With a chat template the text already contains every special token, and the tokenizer adds none. Without one the
    tokenizer adds its beginning-of-sequence token, unless the text begins with it.

    Raises:
        ConfigError: the chat template rejects a problem's messages; the message names the problem.
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
    """Render prompts as `render` does, but return an UnusableRow for each prompt that cannot be rendered."""
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
    """Encode texts with at most one beginning-of-sequence token and no end-of-sequence token added by the tokenizer."""
    if not texts:
        return []
    rows = cast("list[list[int]]", tokenizer(list(texts), add_special_tokens=not chat)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    found: list[tuple[int, ...]] = []
    for text, row in zip(texts, rows, strict=True):
        if bos is not None and row[:2] == [bos, bos]:
            row = row[1:]
        if not chat and len(row) > 1 and row[-1] == eos and not text.endswith(str(tokenizer.eos_token)):
            row = row[:-1]  # some tokenizers end every text; the completion would then follow an end token
        found.append(tuple(row))
    return found


def template_options(section: PromptSection) -> dict[str, Any]:
    """Return the variables for the chat template."""
    options: dict[str, Any] = dict(section.template_options)
    if section.thinking is not None:
        options["enable_thinking"] = section.thinking
    return options


def chat_text(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, reply_follows: bool
) -> str:
    """Render messages with the chat template.

    Args:
        messages: as `messages_of` returns them.
        tokenizer: has a chat template.
        section: the template's options.
        reply_follows: True ends the text where the assistant begins to write.
    Raises:
        UnusableRow: the template rejects the messages, or omits the config's system message.
    """
    try:
        text = _apply(messages, tokenizer, section, reply_follows=reply_follows)
    except TEMPLATE_FAULTS as error:
        raise UnusableRow(_refusal(error, messages, tokenizer, section)) from error
    if section.system and messages[0]["role"] == "system" and messages[0]["content"].strip() not in text:
        raise UnusableRow(f"the chat template omits the system message. {SYSTEM_ADVICE}")
    return text


TEMPLATE_FAULTS = (TemplateError, TypeError, ValueError, KeyError, AttributeError)
"""Exceptions that a chat template raises over messages that it does not accept."""
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
    """Return a message with the arguments of its tool calls as a JSON string, as some templates expect them."""

    def call(given: Any) -> dict[str, Any]:
        inner = given.get("function", given)
        inner_call = {**inner, "arguments": json.dumps(inner.get("arguments"), ensure_ascii=False)}
        return {**given, "function": inner_call} if "function" in given else inner_call

    return {**message, "tool_calls": [call(one) for one in message.get("tool_calls", [])]}


def _refusal(
    error: Exception, messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, section: PromptSection
) -> str:
    """Describe why a chat template rejects messages, and what to do."""
    lines = str(error).strip().splitlines()
    reason = (lines[0] if lines else type(error).__name__).rstrip(".")
    if messages[0]["role"] == "system" and len(messages) > 1:
        try:
            _apply(messages[1:], tokenizer, section, reply_follows=True)
        except TEMPLATE_FAULTS:
            pass
        else:
            return f"the chat template accepts no system message ({reason}). {SYSTEM_ADVICE}"
    roles = ", ".join(message["role"] for message in messages[:6]) + (", ..." if len(messages) > 6 else "")
    return f"the chat template rejects its messages, whose roles are {roles} ({reason}). Fix or leave out the row."


class Fitting(NamedTuple):
    """Problems that can be rendered and leave room for a completion, and the rows of the others."""

    problems: Sequence[Problem]
    refused: list[BadRow]
    """Problems rejected by the chat template, or with an empty prompt."""
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
    """Select the problems whose prompts can be rendered and leave room for `max_tokens` in a context of `limit` tokens.

    Args:
        problems: of one task.
        tokenizer: the policy's.
        section: how prompts are rendered.
        max_tokens: tokens of a completion.
        limit: maximum tokens of prompt and completion together.
        setting: config key of max_tokens, for messages.
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
    """Yield (problem, its prompt or the reason why it has none), rendering AT_ONCE problems at a time."""
    for begin in range(0, len(problems), AT_ONCE):
        some = [*problems[begin : begin + AT_ONCE]]
        yield from zip(some, render_each(some, tokenizer, section), strict=True)
