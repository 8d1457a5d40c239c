"""Chat messages as data sets store them: content as text or in parts, tool calls, tool results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from tasks.base import Message
from verifiers import JSON
from verifiers.jsonl import is_list, is_object

KEPT = ("name", "tool_call_id")
"""Further keys of a message that chat templates read."""


class BadMessages(ValueError):
    """An error for a value that is not a usable chat; the message says which of its messages, and why."""


def read_messages(value: object) -> tuple[Message, ...]:
    """Read a chat: a list of {role, content}, with the optional keys tool_calls, name and tool_call_id.

    Content in parts ([{"type": "text", "text": ...}, ...]) becomes its text. Content may be null next to tool_calls.
    Arguments of a call that are JSON in a string become an object, which is what chat templates expect.

    Raises:
        BadMessages: the value is not such a list, or a message has content other than text.
    """
    if not (is_list(value) and value and all(is_object(one) and "role" in one for one in value)):
        raise BadMessages(f"must be a list of {{role, content}} messages; got {str(value)[:80]!r}")
    return tuple(_message(number, one) for number, one in enumerate(value, 1) if is_object(one))


def _message(number: int, given: Mapping[str, object]) -> Message:
    role = str(given["role"])
    where = f"message {number} ({role})"
    calls = given.get("tool_calls")
    content = given.get("content")
    if content is None and not calls:
        raise BadMessages(f"{where} has no content")
    found = Message(role=role, content=_text(content, where))
    if calls:
        found["tool_calls"] = _calls(calls, where)
    for key in KEPT:
        if isinstance(kept := given.get(key), str):
            found[key] = kept
    return found


def _text(content: object, where: str) -> str:
    """Return content as text; text parts are joined without a separator."""
    if content is None or isinstance(content, str):
        return content or ""
    if not is_list(content):
        raise BadMessages(f"content of {where} must be text or a list of text parts; got {str(content)[:60]!r}")
    texts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif is_object(part) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
            texts.append(str(part["text"]))
        else:
            kind = part.get("type", "without a type") if is_object(part) else type(part).__name__
            raise BadMessages(f"{where} has a part of kind {kind!r}; only text can be used")
    return "".join(texts)


def _calls(calls: object, where: str) -> list[JSON]:
    if not (is_list(calls) and all(map(is_object, calls))):
        raise BadMessages(f"tool_calls of {where} must be a list of objects; got {str(calls)[:60]!r}")
    return [_call(call, where) for call in calls if is_object(call)]


def _call(call: Mapping[str, object], where: str) -> JSON:
    """Return one tool call with its arguments as an object."""
    inner = call.get("function", call)
    if not (is_object(inner) and isinstance(inner.get("name"), str)):
        raise BadMessages(f"a tool call of {where} has no name")
    arguments = inner.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except ValueError as error:
            raise BadMessages(f"arguments of a tool call of {where} are not JSON: {arguments[:60]!r}") from error
    named = {**inner, "arguments": arguments}
    return cast("JSON", {**call, "function": named} if "function" in call else named)
