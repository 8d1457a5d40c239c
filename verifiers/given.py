"""Conversion of callers' data (chat messages, data frame values) to verifier inputs, and grading in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from verifiers.base import Verifier
from verifiers.registry import get_verifier
from verifiers.verdict import JSON, Verdict

Messages: TypeAlias = "Sequence[Mapping[str, object]]"
"""Chat messages {role, content}, in the format of transformers, TRL and OpenAI's API."""


def grade(
    verifier: str | Verifier,
    completion: str | Messages,
    reference: object,
    *,
    prompt: str | Messages | None = None,
    info: Mapping[str, JSON] | None = None,
    **options: JSON,
) -> Verdict:
    """Grade one completion in this process. Works in a script, a notebook, a thread, a coroutine or a test.

    Args:
        verifier: name, module:attribute, file or URL, as for `get_verifier`; or a verifier.
        completion: text, or chat messages; of these the assistant's messages after the user's last one are graded.
        reference: the answer to compare with. `{"any": [...]}` lists several, any of which is right; so does a list,
            for verifiers whose references are text or numbers.
        prompt: the prompt, for verifiers that read it.
        info: further data of the problem, for verifiers that read it.
        options: of the verifier.
    Raises:
        UnknownVerifier, BadOption: the verifier cannot be created.
        TypeError: the completion is neither text nor messages, or the reference is not JSON.

    Example:
        >>> grade("math", [{"role": "assistant", "content": "so #### 1/2"}], "0.5").right
        True
    """
    made = verifier if isinstance(verifier, Verifier) else get_verifier(verifier, **options)
    return made.verify(
        completion=completion_text(completion),
        reference=as_json(reference),
        prompt=None if prompt is None else prompt_text(prompt),
        info=info,
    )


def completion_text(given: str | Messages) -> str:
    """Return text unchanged; join the assistant's chat messages after the user's last one, one per line.

    Raises:
        TypeError: `given` is neither text nor messages, or none of these messages is the assistant's.
    """
    if isinstance(given, str):
        return given
    messages = _messages(given, "completion")
    asked = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    replies = [message for message in messages[asked[-1] + 1 if asked else 0 :] if message.get("role") == "assistant"]
    if not replies:
        roles = ", ".join(str(message.get("role")) for message in messages) or "no message"
        raise TypeError(f"completion must end with a message of the assistant; got the roles: {roles}.")
    return "\n".join(map(_content, replies))


def prompt_text(given: str | Messages) -> str:
    """Return text unchanged; join the contents of chat messages, one per line."""
    return given if isinstance(given, str) else "\n".join(map(_content, _messages(given, "prompt")))


def _messages(given: object, what: str) -> Messages:
    """Return chat messages as a sequence, from several or a single one; `what` names them in the error."""
    listed = cast("Sequence[object]", given) if isinstance(given, list | tuple) else [given]
    if not all(isinstance(message, Mapping) for message in listed):
        raise TypeError(
            f"{what} must be text or chat messages {{role, content}}; got {type(cast('object', given)).__name__}."
            " Decode tokens first."
        )
    return cast("Messages", listed)


def _content(message: Mapping[str, object]) -> str:
    """Return the text of a message. Its content may be missing (tool calls) or a list of parts."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        parts = cast("Sequence[object]", content)
        texts = [cast("Mapping[str, object]", part).get("text") for part in parts if isinstance(part, Mapping)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def as_json(value: object) -> JSON:
    """Convert a value of a dataset or data frame to JSON: numpy numbers and arrays to plain ones, tuples to lists.

    Raises:
        TypeError: the value cannot be converted.

    Example:
        >>> as_json(("2", "two"))
        ['2', 'two']
    """
    if isinstance(value, str):
        return value
    plain = cast("object", value.tolist()) if hasattr(value, "tolist") else value  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    try:
        return json.loads(json.dumps(plain))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"reference must be JSON (text, a number, a list, an object); got {type(value).__name__}: {error}."
        ) from error


__all__ = ["Messages", "as_json", "completion_text", "grade", "prompt_text"]
