"""Chats as data sets store them: parts, null content, tool calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks import TaskError
from tasks.messages import BadMessages, read_messages
from tasks.registry import get_task


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def test_content_in_parts_becomes_its_text() -> None:
    given = [{"role": "user", "content": [part("What is "), part("2+2?")]}, {"role": "assistant", "content": "4"}]
    assert read_messages(given) == ({"role": "user", "content": "What is 2+2?"}, {"role": "assistant", "content": "4"})
    assert read_messages([{"role": "user", "content": ["a", {"text": "b"}]}])[0]["content"] == "ab"


@pytest.mark.parametrize("wrapped", [True, False])
def test_calls_keep_their_names_and_arguments_become_objects(wrapped: bool) -> None:
    inner = {"name": "add", "arguments": '{"a": 1}'}
    call = {"type": "function", "id": "x", "function": inner} if wrapped else inner
    asked, result = read_messages(
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": [part("5")], "tool_call_id": "x", "name": "add", "extra": 1},
        ]
    )
    assert asked["content"] == ""
    (found,) = asked["tool_calls"]
    assert isinstance(found, dict)
    assert (found["function"] if wrapped else found) == {"name": "add", "arguments": {"a": 1}}
    assert result == {"role": "tool", "content": "5", "name": "add", "tool_call_id": "x"}


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("text", "must be a list of {role, content} messages"),
        ([], "must be a list"),
        ([{"content": "x"}], "must be a list"),
        ([{"role": "user", "content": None}], r"message 1 \(user\) has no content"),
        ([{"role": "user"}], "has no content"),
        ([{"role": "user", "content": 5}], "must be text or a list of text parts; got '5'"),
        ([{"role": "user", "content": [part("see"), {"type": "image", "image": "x.png"}]}], "of kind 'image'"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "of kind 'text'"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"arguments": "{}"}]}], "has no name"),
        ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}], "are not JSON"),
        ([{"role": "assistant", "tool_calls": "f"}], "must be a list of objects"),
    ],
)
def test_what_is_no_chat_is_named(given: object, reason: str) -> None:
    with pytest.raises(BadMessages, match=reason):
        read_messages(given)


def test_a_problems_prompt_is_read_alike_and_the_row_named(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    chats = [[{"role": "user", "content": [part("a")]}], [{"role": "user", "content": [{"type": "image_url"}]}]]

    def problems(rows: list[object]):
        file.write_text("".join(json.dumps({"prompt": row, "reference": "1"}) + "\n" for row in rows))
        task = get_task(
            "dataset", path=str(tmp_path), verifier="exact", prompt_column="prompt", reference_column="reference"
        )
        return task.problems("train")

    assert problems(chats[:1])[0].prompt == ({"role": "user", "content": "a"},)
    with pytest.raises(
        TaskError,
        match=r"line 1: .* has a part of kind 'image_url'; only text can be used",
    ):
        problems(chats[1:])
