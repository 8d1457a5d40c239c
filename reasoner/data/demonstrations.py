"""Demonstrations as token rows; only the assistant's tokens are trained on. Letters: N completion tokens of a row.

A row is {prompt, completion} (text or chat messages) or {messages}, or is converted to one of them
(`tasks.inputs.formats`); a task's problems bring their own demonstrations. A chat with several replies is one row: each
reply follows exactly the tokens that the policy would see before it (`data/turns.py`), and ends with the same tokens as
the reply of a single-turn row.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from reasoner.config.sections import PromptSection, SftSection
from reasoner.data.prompt import Prompt, messages_of, render_each, rendered
from reasoner.data.replies import ReplyWriter
from reasoner.data.rows import Encoded, Source, chat_of, length_fault, source_in, usable_rows
from reasoner.data.turns import template_mask, turns_of
from tasks import BadRow, Message, Problem, UnusableRow
from tasks.environments.registry import get_environment
from tasks.inputs.spool import Spool
from tasks.validate import demonstration_fault

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

DEMONSTRATION_SHAPE = (
    "{messages} or {prompt, completion}, with chat messages or text, or of a format of docs/data.md (sft.format); other"
    " columns are named by sft.columns"
)
"""Description of a demonstration row, for error messages."""


class Rows(NamedTuple):
    """Usable rows and bad rows."""

    rows: Sequence[Encoded]
    bad: list[BadRow]
    notes: Sequence[str] = ()
    """Notes for the user on how the rows were found."""


def encode_problems(
    problems: Sequence[Problem],
    tokenizer: PreTrainedTokenizerBase,
    section: PromptSection,
    *,
    limit: int,
    reply_tokens: int = 256,
) -> Rows:
    """Encode a task's demonstrations: prompt, demonstration, end token.

    Args:
        problems: problems with demonstrations.
        tokenizer: the policy's tokenizer.
        section: how prompts are rendered.
        limit: most tokens of prompt and demonstration together; longer rows are bad rows.
        reply_tokens: most tokens of an environment's reply; see `rollout.reply_tokens`.
    """
    rows, bad = Spool[Encoded](), list[BadRow]()
    for problem, prompt in rendered(problems, tokenizer, section):
        where = f"problem {problem.id}"
        if not isinstance(prompt, Prompt):
            bad.append(BadRow(where, str(prompt)))
        elif fault := demonstration_fault(problem):
            bad.append(BadRow(where, fault))
        elif not (problem.demonstration or "").strip():
            bad.append(BadRow(where, "its demonstration is empty"))
        else:
            try:
                ids, mask = _demonstrated(problem, tokenizer, section, reply_tokens)
            except UnusableRow as error:
                bad.append(BadRow(where, str(error)))
                continue
            row = Encoded(id=problem.id, prompt_ids=prompt.ids, completion_ids=ids, loss_mask=mask)
            if fault := length_fault(row, limit):
                bad.append(BadRow(where, fault))
            else:
                rows.append(row)
    return Rows(rows, bad)


def _demonstrated(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, section: PromptSection, reply_tokens: int
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Token ids and loss mask of a problem's demonstration, with the turns in front of it as a rollout has them.

    Raises:
        UnusableRow: a turn ends with the end token where that ends the episode.
    """
    turns = turns_of(tokenizer, section)
    said = turns.demonstrated(Message(role="assistant", content=problem.demonstration or ""))
    last = turns.completion_ids(said)
    if not problem.demonstration_turns:
        return last, (True,) * len(last)
    assert problem.environment is not None, f"problem {problem.id} has turns and no environment"
    environment = get_environment(problem.environment, **problem.environment_options)
    writer = ReplyWriter.of(environment, tokenizer, section, most_tokens=reply_tokens)
    ids: list[int] = []
    mask: list[bool] = []
    end: int | None = None
    stop = (*environment.stop, *section.stop)
    for number, turn in enumerate(problem.demonstration_turns, 1):
        if turn.origin == "policy":
            end = None if turn.text.endswith(stop) else turns.end
            if not writer.goes_on(ended=end is not None):
                raise UnusableRow(
                    f"turn {number} of its demonstration does not end with a stop string of its environment"
                    f" ({' or '.join(map(repr, stop)) or 'it has none'}): the end token behind it ends the episode"
                    " where replies are plain text (prompt.reply: inline)"
                )
            added = turns.plain_ids(turn.text) if end is None else turns.completion_ids(turn.text)
        else:
            added = writer.write(turn.text, end=end).ids
        ids += added
        mask += [turn.origin == "policy"] * len(added)
    return (*ids, *last), (*mask, *(True,) * len(last))


def demonstrations_in(section: SftSection, split: Literal["train", "test"], paths: Sequence[str]) -> Source:
    """Return the demonstrations of a config section, read from `paths`."""
    return source_in(section, paths, use="demonstrations", split=split)


def load_rows(source: Source, tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, limit: int) -> Rows:
    """Read and encode rows from files, folders or hub data sets; rows over `limit` tokens are bad rows."""
    notes: list[str] = []

    def encoded(row: Mapping[str, object], where: str) -> Encoded:
        found = encode_row(row, tokenizer, section, where=where)
        if fault := length_fault(found, limit):
            raise UnusableRow(fault)
        return found

    rows, bad = usable_rows(source, read=encoded, notes=notes)
    return Rows(rows, bad, notes)


class Demonstration(NamedTuple):
    """A demonstration row: the prompt, and the text that is trained on."""

    prompt: str | tuple[Message, ...]
    """Prompt text, or a whole chat."""
    completion: str | None
    """The trained reply to the prompt; None if `prompt` is a chat whose own replies are trained on."""
    context: int = 0
    """Number of leading messages that are the prompt; assistant messages among them are not trained on."""


def read_row(row: Mapping[str, object]) -> Demonstration:
    """Read one row of a file.

    Raises:
        UnusableRow: a column is missing or empty, or the prompt ends with an assistant message.
    """
    if "messages" in row:
        return Demonstration(chat_of(row["messages"], "messages"), None)
    for key in ("prompt", "completion"):
        if row.get(key) is None:
            raise UnusableRow(f"has no value in column {key!r} (columns: {', '.join(map(str, row)) or 'none'})")
    prompt, completion = row["prompt"], row["completion"]
    if not isinstance(prompt, str):
        prompt = chat_of(prompt, "prompt")
    if isinstance(prompt, str) and not prompt.strip():
        raise UnusableRow("the prompt is empty")
    if not isinstance(prompt, str) and prompt[-1]["role"] == "assistant":
        raise UnusableRow("its prompt ends with an assistant turn: leave it out, or give the whole chat as messages")
    if isinstance(completion, str):
        if not completion.strip():
            raise UnusableRow("the completion is empty")
        return Demonstration(prompt, completion)
    reply = chat_of(completion, "completion")
    if isinstance(prompt, str) and len(reply) == 1 and "tool_calls" not in reply[0]:  # needs no chat template
        return read_row({"prompt": prompt, "completion": reply[0]["content"]})
    messages = (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt
    return Demonstration((*messages, *reply), None, context=len(messages))


def encode_row(
    row: Mapping[str, object], tokenizer: PreTrainedTokenizerBase, section: PromptSection, *, where: str
) -> Encoded:
    """Encode one row of a file as token ids.

    Raises:
        UnusableRow: a column is missing or empty, there is no assistant turn, or the chat template rejects the row.
    """
    prompt, completion, context = read_row(row)
    if completion is None:
        assert not isinstance(prompt, str)
        return encode_chat(prompt, tokenizer, section, where=where, context=context)
    text = turns_of(tokenizer, section).demonstrated(Message(role="assistant", content=completion))
    return _encode(prompt, [text], [], tokenizer, section, where)


def replies(messages: Sequence[Message], *, context: int = 0) -> list[int]:
    """Return the indices of the assistant's messages after the first `context` messages.

    Raises:
        UnusableRow: there is none, one is empty, or the chat begins with one, so that there is no prompt.
    """
    places = [at for at, message in enumerate(messages) if message["role"] == "assistant" and at >= context]
    if not places:
        raise UnusableRow("has no assistant message")
    if any(not messages[at]["content"].strip() and "tool_calls" not in messages[at] for at in places):
        raise UnusableRow("an assistant message is empty")
    if places[0] == 0:
        raise UnusableRow("its first message is the assistant's: there is no prompt")
    return places


def encode_chat(
    messages: tuple[Message, ...],
    tokenizer: PreTrainedTokenizerBase,
    section: PromptSection,
    *,
    where: str,
    context: int = 0,
) -> Encoded:
    """Encode a chat; every assistant turn after the first `context` messages is trained on.

    If the template's own mask (its `generation` marks) differs from the reply and its end token, a chat with several
    turns is trained by that mask, and a chat with one turn is rejected.

    Raises:
        UnusableRow: there is no assistant turn, one is empty, or the chat template rejects the messages.
    """
    places = replies(messages, context=context)
    turns = turns_of(tokenizer, section)
    if turns.mask_fault and len(places) == 1:
        raise UnusableRow(turns.mask_fault)
    if turns.mask_fault:  # the template's marks decide which tokens are the assistant's
        return _by_template(messages[: places[-1] + 1], tokenizer, section, where)
    texts = [turns.demonstrated(messages[at]) for at in places]
    between = [messages[at + 1 : following] for at, following in itertools.pairwise(places)]
    return _encode(messages[: places[0]], texts, between, tokenizer, section, where)


def _by_template(
    messages: tuple[Message, ...], tokenizer: PreTrainedTokenizerBase, section: PromptSection, where: str
) -> Encoded:
    """Encode a chat as the template renders it, with the template's own mask; tokens after the last trained one go."""
    ids, mask = template_mask(messages_of(messages, section), tokenizer, section)
    if not any(mask) or mask[0]:
        raise UnusableRow("the chat template's generation mask marks no token, or the very first one")
    first, last = mask.index(True), len(mask) - 1 - mask[::-1].index(True)
    return Encoded(
        id=where,
        prompt_ids=tuple(ids[:first]),
        completion_ids=tuple(ids[first : last + 1]),
        loss_mask=tuple(mask[first : last + 1]),
    )


def _encode(
    prompt: str | tuple[Message, ...],
    replies: Sequence[str],
    between: Sequence[Sequence[Message]],
    tokenizer: PreTrainedTokenizerBase,
    section: PromptSection,
    where: str,
) -> Encoded:
    """Encode the prompt, then each reply and the template's tokens between it and the next reply."""
    problem = Problem(id=where, prompt=prompt, reference=None, verifier="")
    (rendered,) = render_each([problem], tokenizer, section)
    if not isinstance(rendered, Prompt):
        raise rendered
    turns = turns_of(tokenizer, section)
    ids: list[int] = []
    mask: list[bool] = []
    for reply, following in zip(replies, [*between, None], strict=True):
        reply_ids = turns.completion_ids(reply)
        frame = () if following is None else turns.frame_ids(following)
        ids += [*reply_ids, *frame]
        mask += [True] * len(reply_ids) + [False] * len(frame)
    return Encoded(id=where, prompt_ids=rendered.ids, completion_ids=tuple(ids), loss_mask=tuple(mask))
