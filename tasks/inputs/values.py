"""What the readers of formats share: columns by any of their names, chats of any wording, JSON in text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from tasks.inputs.formats import UnfitRow
from verifiers.jsonl import parse_line

Row = Mapping[str, object]
Chat = list[dict[str, object]]
ROLES: Mapping[str, str] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bot", "model", "bard", "bing"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("tool", "observation", "function", "ipython", "tool_response"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "call"),
}
"""What data sets call whoever speaks. `call`: an assistant's call of a tool, as JSON in text
(https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md)."""
WHO, SAID = ("role", "from", "user"), ("content", "value", "text")


def is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether a value is an object with names."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Whether a value is a list."""
    return isinstance(value, list)


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is text with something in it."""
    return isinstance(value, str) and bool(value.strip())


def is_answer(value: object) -> bool:
    """Whether a value can be a reference answer: text, a number, or several of them."""
    if is_list(value):
        return bool(value) and all(is_answer(one) and not is_list(one) for one in value)
    return is_text(value) or (isinstance(value, int | float) and not isinstance(value, bool))


def is_chat(value: object) -> TypeGuard[list[object]]:
    """Whether a value is a list of chat messages, in any wording, or of {human, assistant} turns."""
    return is_list(value) and bool(value) and all(is_object(one) and _is_turn(one) for one in value)


def chat_in(row: Row, *names: str) -> list[object] | None:
    """The chat in the first of some columns that holds one; columns of lists, {from: [...], value: [...]}, are one."""
    for name in names:
        value = row.get(name)
        if is_object(value) and any(is_list(value.get(key)) for key in WHO):
            columns = {key: one for key, one in value.items() if is_list(one)}
            if len({len(one) for one in columns.values()}) == 1:
                value = [dict(zip(columns, turn, strict=True)) for turn in zip(*columns.values(), strict=True)]
        if is_chat(value):
            return value
    return None


def _is_turn(one: Row) -> bool:
    return any(key in one for key in ("role", "from")) or {"human", "assistant"} <= one.keys()


def find(row: Row, *names: str) -> object:
    """The first of some columns that has a value, whatever its case; None for none."""
    lower = {str(key).lower(): value for key, value in row.items()}
    return next((lower[name] for name in names if lower.get(name) is not None), None)


def need(row: Row, *names: str) -> object:
    """Like `find`.

    Raises:
        UnfitRow: none has a value.
    """
    found = find(row, *names)
    if found is None:
        named = " or ".join(map(repr, names[:3]))
        raise UnfitRow(f"has no value in column {named} (columns: {', '.join(map(str, row)) or 'none'})")
    return found


def need_text(row: Row, *names: str) -> str:
    """Text of the first of some columns.

    Raises:
        UnfitRow: none has a value, or it is no text.
    """
    found = need(row, *names)
    if not is_text(found):
        raise UnfitRow(f"column {names[0]!r} must be text; got {str(found)[:60]!r}")
    return found


def chat(value: object, *, system: object = None) -> Chat:
    """Messages of {role, content}, whatever they were called.

    Args:
        value: a list of messages, or of {human, assistant} turns.
        system: what the row says apart; it becomes the first message unless the chat brings its own.

    Raises:
        UnfitRow: it is no chat, or somebody speaks in it whom we do not know.
    """
    if not is_chat(value):
        raise UnfitRow(f"must hold a list of chat messages; got {str(value)[:80]!r}")
    turns: Chat = []
    for number, one in enumerate(value, 1):
        assert is_object(one), one
        turns += _turns(one, number)
    if is_text(system) and turns[0].get("role") != "system":
        turns.insert(0, {"role": "system", "content": system})
    return turns


def _turns(one: Row, number: int) -> Chat:
    if {"human", "assistant"} <= one.keys():
        return [{"role": "user", "content": one["human"]}, {"role": "assistant", "content": one["assistant"]}]
    who = next((one[key] for key in WHO if key in one), None)
    role = ROLES.get(str(who).lower())
    if role is None:
        raise UnfitRow(f"message {number} is by {str(who)[:40]!r}; known are {', '.join(ROLES)}")
    said = next((one[key] for key in SAID if key in one), None)
    if role == "call":
        return [{"role": "assistant", "content": "", "tool_calls": _calls(said, number)}]
    kept = {key: one[key] for key in ("tool_calls", "name", "tool_call_id") if one.get(key)}
    return [{"role": role, "content": said, **kept}]


def _calls(said: object, number: int) -> list[object]:
    found = from_json(said)
    calls = found if is_list(found) else [found]
    if not calls or not all(is_object(one) and "name" in one for one in calls):
        raise UnfitRow(f"message {number} must hold a call as JSON, with a name; got {str(said)[:60]!r}")
    return [{"function": one} for one in calls]


def from_json(value: object) -> object:
    """What text holds that is JSON; anything else as it is.

    Raises:
        UnfitRow: it begins as JSON, and is none.
    """
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
        return value
    try:
        return parse_line(value.encode(errors="surrogatepass"))
    except ValueError as error:
        raise UnfitRow(f"holds text that must be JSON: {error}; got {value[:60]!r}") from error


def before_reply(messages: Chat) -> Chat:
    """The messages without the assistant's reply at their end: what a model is asked.

    Raises:
        UnfitRow: nothing stands before the reply.
    """
    asked = list(messages)
    while asked and asked[-1]["role"] == "assistant":
        asked.pop()
    if not any(one["role"] == "user" for one in asked):
        raise UnfitRow("its chat asks nothing: no user's message stands before the reply")
    return asked


def asked(system: object, history: object, question: str) -> str | Chat:
    """A prompt: text where that is all, else a chat with the system's message and earlier turns.

    Args:
        system: the system's message, if there is one.
        history: earlier turns as [question, answer] pairs, if there are any.
        question: the user's last.

    Raises:
        UnfitRow: the history is no list of pairs.
    """
    turns: Chat = [{"role": "system", "content": system}] if is_text(system) else []
    for pair in history if is_list(history) else []:
        if not (is_list(pair) and len(pair) == 2):
            raise UnfitRow(f"history must be a list of [question, answer]; got {str(pair)[:60]!r}")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return [*turns, {"role": "user", "content": question}] if turns else question


def joined(*parts: object) -> str:
    """Texts one below the other, without those that are empty."""
    return "\n".join(part for part in parts if is_text(part))


def texts(values: object) -> Sequence[str] | None:
    """A list of texts or numbers as texts; None where it is none."""
    if not is_list(values) or not values or not all(isinstance(one, str | int | float) for one in values):
        return None
    return [str(one) for one in values]


def mark_of(row: Row) -> object:
    """Whether an unpaired completion is good: true, false, or what stands there instead."""
    mark = find(row, "label", "kto_tag")
    return {"true": True, "false": False}.get(str(mark).lower(), mark)


def compact(value: object) -> str:
    """A value as JSON, to compare values by."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


__all__ = [
    "asked",
    "before_reply",
    "chat",
    "chat_in",
    "compact",
    "find",
    "from_json",
    "is_answer",
    "is_chat",
    "is_list",
    "is_object",
    "is_text",
    "joined",
    "mark_of",
    "need",
    "need_text",
    "texts",
]
