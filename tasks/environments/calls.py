"""Tool calls in the policy's text: fenced code blocks, tagged text, or JSON in `<tool_call>` marks."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

from verifiers import JSON

Parse = Literal["fenced", "tagged", "tool_call"]
MOST_ARGUMENT = 1 << 16
"""Characters of one call that are looked at."""
FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]*)[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.MULTILINE | re.DOTALL)
TOOL_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


class Call(NamedTuple):
    """A tool call as written."""

    name: str
    """Name of the tool; empty where the notation has none."""
    arguments: Mapping[str, JSON]


class BadCall(NamedTuple):
    """Text that was meant as a call and is none."""

    why: str
    """One sentence for the policy."""


def fenced(text: str, languages: Sequence[str] = ("python", "py")) -> list[Call | BadCall]:
    """Return the closed code blocks of the given languages; a block without a language counts too.

    Example:
        >>> fenced("So:\\n```python\\nprint(1)\\n```\\n")[0].arguments
        {'code': 'print(1)\\n'}
    """
    found: list[Call | BadCall] = []
    for match in FENCE.finditer(text):
        if match[2].lower() in ("", *languages):
            found.append(_call("", {"code": match[3]}))
    return found


def tagged(text: str, opening: str, closing: str) -> list[Call | BadCall]:
    """Return the texts between an opening and a closing mark.

    Example:
        >>> tagged("<calc>6*7</calc>", "<calc>", "</calc>")[0].arguments
        {'text': '6*7'}
    """
    found: list[Call | BadCall] = []
    place = 0
    while (begin := text.find(opening, place)) >= 0:
        end = text.find(closing, begin + len(opening))
        if end < 0:
            break
        found.append(_call("", {"text": text[begin + len(opening) : end]}))
        place = end + len(closing)
    return found


def tool_calls(text: str) -> list[Call | BadCall]:
    """Return the calls `<tool_call>{"name": ..., "arguments": {...}}</tool_call>` (the Hermes and Qwen notation).

    Example:
        >>> tool_calls('<tool_call>{"name": "calculator", "arguments": {"text": "6*7"}}</tool_call>')[0].name
        'calculator'
    """
    return [_json_call(match[1]) for match in TOOL_CALL.finditer(text)]


def _json_call(text: str) -> Call | BadCall:
    if len(text) > MOST_ARGUMENT:
        return _too_long(text)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadCall(f"the tool call is not valid JSON: {str(error)[:80]}")
    if not isinstance(found, dict):
        return BadCall('a tool call must be an object {"name": ..., "arguments": {...}}')
    call = cast("dict[str, JSON]", found)
    name, arguments = call.get("name"), call.get("arguments", {})
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return BadCall('a tool call must be an object {"name": ..., "arguments": {...}}')
    return Call(name, arguments)


def _call(name: str, arguments: Mapping[str, str]) -> Call | BadCall:
    longest = max(arguments.values(), key=len)
    return _too_long(longest) if len(longest) > MOST_ARGUMENT else Call(name, dict(arguments))


def _too_long(text: str) -> BadCall:
    return BadCall(f"the call must have at most {MOST_ARGUMENT} characters; it has {len(text)}")
