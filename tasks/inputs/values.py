"""Helpers of the readers of formats: columns under any of several names, chats in any wording, JSON in text."""

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
"""Name of a speaker in data sets -> role. `call`: an assistant's tool call, as JSON in text
(https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md).
"""
WHO, SAID = ("role", "from", "user"), ("content", "value", "text")


def is_object(value: object) -> TypeGuard[Mapping[str, object]]:
    """Return True if a value is a mapping (a JSON object)."""
    return isinstance(value, Mapping)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Return True if a value is a list."""
    return isinstance(value, list)


def is_text(value: object) -> TypeGuard[str]:
    """Return True if a value is text that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def is_answer(value: object) -> bool:
    """Return True if a value can be a reference answer: text, a number, or several of them."""
    if is_list(value):
        return bool(value) and all(is_answer(one) and not is_list(one) for one in value)
    return is_text(value) or (isinstance(value, int | float) and not isinstance(value, bool))


def is_chat(value: object) -> TypeGuard[list[object]]:
    """Return True if a value is a non-empty list of chat messages (any wording of the keys) or of {human, assistant}
    turns.
    """
    return is_list(value) and bool(value) and all(is_object(one) and _is_turn(one) for one in value)


def chat_in(row: Row, *names: str) -> list[object] | None:
    """Return the chat in the first of the named columns that has one; else None. {from: [...], value: [...]} is a chat
    too.
    """
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
    """Return the value of the first named column that has one, ignoring the case of column names; None if none has."""
    lower = {str(key).lower(): value for key, value in row.items()}
    return next((lower[name] for name in names if lower.get(name) is not None), None)


def need(row: Row, *names: str) -> object:
    """Return the value of the first named column that has one, as `find` does.

    Raises:
        UnfitRow: none has a value.
    """
    found = find(row, *names)
    if found is None:
        named = " or ".join(map(repr, names[:3]))
        raise UnfitRow(f"has no value in column {named} (columns: {', '.join(map(str, row)) or 'none'})")
    return found


def need_text(row: Row, *names: str) -> str:
    """Return the value of the first named column that has one, which must be text.

    Raises:
        UnfitRow: none has a value, or it is not text.
    """
    found = need(row, *names)
    if not is_text(found):
        raise UnfitRow(f"column {names[0]!r} must be text; got {str(found)[:60]!r}")
    return found


def chat(value: object, *, system: object = None) -> Chat:
    """Convert a chat in any wording to messages of {role, content}.

    Args:
        value: a list of messages, or of {human, assistant} turns.
        system: a system message from outside the chat; it is put first unless the chat begins with its own.

    Raises:
        UnfitRow: it is not a chat, or a speaker in it is unknown.
    """
    if not is_chat(value):
        raise UnfitRow(f"must be a list of chat messages; got {str(value)[:80]!r}")
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
        raise UnfitRow(f"message {number} must be a tool call as JSON, with a name; got {str(said)[:60]!r}")
    return [{"function": one} for one in calls]


def from_json(value: object) -> object:
    """Parse text that begins like a JSON object or list; return any other value unchanged.

    Raises:
        UnfitRow: it begins like JSON but is not.
    """
    if not isinstance(value, str) or value.strip()[:1] not in ("{", "["):
        return value
    try:
        return parse_line(value.encode(errors="surrogatepass"))
    except ValueError as error:
        raise UnfitRow(f"has text that must be JSON: {error}; got {value[:60]!r}") from error


def before_reply(messages: Chat) -> Chat:
    """Return the messages without the assistant's replies at their end: the prompt.

    Raises:
        UnfitRow: no user's message comes before the reply.
    """
    asked = list(messages)
    while asked and asked[-1]["role"] == "assistant":
        asked.pop()
    if not any(one["role"] == "user" for one in asked):
        raise UnfitRow("its chat has no prompt: no user's message comes before the reply")
    return asked


def asked(system: object, history: object, question: str) -> str | Chat:
    """Build a prompt: plain text if there is only a question, else a chat with the system message and earlier turns.

    Args:
        system: the system message; None or blank for none.
        history: earlier turns as [question, answer] pairs; None for none.
        question: the last message of the user.

    Raises:
        UnfitRow: the history is not a list of pairs.
    """
    turns: Chat = [{"role": "system", "content": system}] if is_text(system) else []
    for pair in history if is_list(history) else []:
        if not (is_list(pair) and len(pair) == 2):
            raise UnfitRow(f"history must be a list of [question, answer]; got {str(pair)[:60]!r}")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    return [*turns, {"role": "user", "content": question}] if turns else question


def joined(*parts: object) -> str:
    """Join the parts that are non-blank text with newlines."""
    return "\n".join(part for part in parts if is_text(part))


def texts(values: object) -> Sequence[str] | None:
    """Return a list of texts or numbers as texts; None if it is not such a list."""
    if not is_list(values) or not values or not all(isinstance(one, str | int | float) for one in values):
        return None
    return [str(one) for one in values]


def mark_of(row: Row) -> object:
    """Return the mark of an unpaired completion: True (good), False, or the original value if it is neither."""
    mark = find(row, "label", "kto_tag")
    return {"true": True, "false": False}.get(str(mark).lower(), mark)


def compact(value: object) -> str:
    """Return a value as JSON with sorted keys, for comparing values."""
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
