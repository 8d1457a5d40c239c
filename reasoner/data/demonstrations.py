"""Demonstrations as rows of tokens with the loss on the assistant's own. Letters: N completion tokens of a row.

A row is {prompt, completion} (prompt: text or chat messages) or {messages}; a task's problems bring their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.sections import PromptSection
from reasoner.data.encode import BadRow, Encoded, UnusableRow, chat_of, completion_ids, length_fault, usable_rows
from reasoner.data.prompt import render, uses_chat
from tasks import Message, Problem

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""The mark in a chat template around what the assistant wrote."""


class Rows(NamedTuple):
    """Usable rows, and those that are none."""

    rows: list[Encoded]
    bad: list[BadRow]


def encode_problems(
    problems: Sequence[Problem], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, limit: int
) -> Rows:
    """A task's demonstrations: prompt, demonstration, end-of-sequence token."""
    found = Rows([], [])
    for problem, prompt in zip(problems, render(problems, tokenizer, section), strict=True):
        if not (problem.demonstration or "").strip():
            found.bad.append(BadRow(f"problem {problem.id}", "its demonstration is empty"))
            continue
        ids = completion_ids(problem.demonstration or "", tokenizer)
        row = Encoded(id=problem.id, prompt_ids=prompt.ids, completion_ids=ids, loss_mask=(True,) * len(ids))
        _keep(found, row, f"problem {problem.id}", limit)
    return found


def load_rows(
    paths: Sequence[str], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, split: str, limit: int
) -> Rows:
    """The rows of files, folders or hub data sets."""
    rows, bad = usable_rows(
        paths, split=split, read=lambda row, where: encode_row(row, tokenizer, section, where=where)
    )
    found = Rows([], bad)
    for row in rows:
        _keep(found, row, row.id, limit)
    return found


def _keep(found: Rows, row: Encoded, where: str, limit: int) -> None:
    fault = length_fault(row, limit)
    if fault:
        found.bad.append(BadRow(where, fault))
    else:
        found.rows.append(row)


class Demonstration(NamedTuple):
    """A row of a file: a prompt and what is to be said to it, or a whole conversation, whose completion is None."""

    prompt: str | tuple[Message, ...]
    completion: str | None


def read_row(row: Mapping[str, object]) -> Demonstration:
    """One row of a file.

    Raises:
        UnusableRow: a column is missing or empty.
    """
    if "messages" in row:
        return Demonstration(chat_of(row["messages"], "messages"), None)
    for key in ("prompt", "completion"):
        if row.get(key) is None:
            raise UnusableRow(f"has no value in column {key!r} (columns: {', '.join(map(str, row)) or 'none'})")
    prompt, completion = row["prompt"], row["completion"]
    if not isinstance(prompt, str):
        prompt = chat_of(prompt, "prompt")
    if not isinstance(completion, str):
        completion = chat_of(completion, "completion")[-1]["content"]
    if not completion.strip():
        raise UnusableRow("the completion is empty")
    if isinstance(prompt, str) and not prompt.strip():
        raise UnusableRow("the prompt is empty")
    return Demonstration(prompt, completion)


def encode_row(
    row: Mapping[str, object], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, where: str
) -> Encoded:
    """One row of a file as token ids.

    Raises:
        UnusableRow: a column is missing or empty, there is no assistant turn, or the chat template does not say which
            tokens are the assistant's.
    """
    prompt, completion = read_row(row)
    if completion is None:
        assert not isinstance(prompt, str)
        return encode_chat(prompt, tokenizer, section, where=where)
    problem = Problem(id=where, prompt=prompt, reference=None, verifier="", demonstration=completion)
    found = encode_problems([problem], tokenizer, section, limit=1 << 40)
    return found.rows[0]


def encode_chat(
    messages: tuple[Message, ...], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, where: str
) -> Encoded:
    """A conversation, every assistant turn of which is trained on.

    One assistant turn at the end: prompt and completion, as in sampling, checked against the template's own mask.
    Several: the template's mask (its `generation` marks) decides.
    """
    turns = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise UnusableRow("has no assistant message")
    if any(not messages[place]["content"].strip() for place in turns):
        raise UnusableRow("an assistant message is empty")
    if turns[0] == 0:
        raise UnusableRow("its first message is the assistant's: there is no prompt")
    messages = messages[: turns[-1] + 1]  # nothing after the last assistant turn is trained on
    marked = uses_chat(tokenizer, section) and bool(GENERATION.search(str(tokenizer.chat_template)))
    if len(turns) > 1:
        if not marked:
            raise UnusableRow(
                f"has {len(turns)} assistant turns, and the chat template has no generation mask"
                " ({% generation %} ... {% endgeneration %}) that would say which tokens are the assistant's"
            )
        return _by_template(messages, tokenizer, section, where)
    problem = Problem(
        id=where, prompt=messages[:-1], reference=None, verifier="", demonstration=messages[-1]["content"]
    )
    encoded = encode_problems([problem], tokenizer, section, limit=1 << 40).rows[0]
    if marked:
        _same_mask(encoded, _by_template(messages, tokenizer, section, where))
    return encoded


def _by_template(
    messages: tuple[Message, ...], tokenizer: PreTrainedTokenizerBase, section: PromptSection, where: str
) -> Encoded:
    """The conversation as the template renders it, with the template's own mask; cut behind its last trained token."""
    listed = [{"role": message["role"], "content": message["content"]} for message in messages]
    if section.system and listed[0]["role"] != "system":
        listed.insert(0, {"role": "system", "content": section.system})
    options: dict[str, Any] = {**section.template_options, "return_dict": True, "return_assistant_tokens_mask": True}
    rendered = cast("Mapping[str, list[int]]", tokenizer.apply_chat_template(listed, tokenize=True, **options))
    ids, mask = rendered["input_ids"], [bool(kept) for kept in rendered["assistant_masks"]]
    if not any(mask) or mask[0]:
        raise UnusableRow("the chat template's generation mask marks no token, or the very first one")
    first, last = mask.index(True), len(mask) - 1 - mask[::-1].index(True)
    return Encoded(
        id=where,
        prompt_ids=tuple(ids[:first]),
        completion_ids=tuple(ids[first : last + 1]),
        loss_mask=tuple(mask[first : last + 1]),
    )


def _same_mask(ours: Encoded, template: Encoded) -> None:
    """Raise where prompt and completion as sampled are not what the template marks.

    Raises:
        UnusableRow: names the first difference.
    """
    ids = (*ours.prompt_ids, *ours.completion_ids)
    theirs = (*template.prompt_ids, *template.completion_ids)
    if len(ours.prompt_ids) != len(template.prompt_ids) or ids[: len(theirs)] != theirs or not all(template.loss_mask):
        at = next((n for n, (a, b) in enumerate(zip(ids, theirs, strict=False)) if a != b), min(len(ids), len(theirs)))
        raise UnusableRow(
            f"the chat template's own mask is not the completion: it starts at token {len(template.prompt_ids)}, the"
            f" completion at {len(ours.prompt_ids)}; the texts differ from token {at} on"
        )
