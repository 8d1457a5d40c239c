"""What callers have, as verifiers take it: text or chat messages, values of data frames; and grading in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from verifiers.base import Verifier
from verifiers.registry import get_verifier
from verifiers.verdict import JSON, Verdict

Messages: TypeAlias = "Sequence[Mapping[str, object]]"
"""Chat messages {role, content}, as transformers, TRL and OpenAI's API have them."""


def grade(
    verifier: str | Verifier,
    completion: str | Messages,
    reference: object,
    *,
    prompt: str | Messages | None = None,
    info: Mapping[str, JSON] | None = None,
    **options: JSON,
) -> Verdict:
    """Grade one completion, in this process: in a script, a notebook, a thread, a coroutine or a test.

    Args:
        verifier: name, module:attribute, file or URL, as for `get_verifier`; or a verifier.
        completion: text, or chat messages: what the assistant said after the last message of the user.
        reference: the answer to compare with. `{"any": [...]}` lists several, any of which is right; so does a list,
            for verifiers whose references are text or numbers.
        prompt: what the model was asked, where the verifier wants it.
        info: what else the verifier reads of a problem.
        options: of the verifier.
    Raises:
        UnknownVerifier, BadOption: it cannot be made.
        TypeError: the completion is neither text nor messages, or the reference is no JSON.

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
    """Text as it is; of chat messages what the assistant said after the last message of the user, a line each.

    Raises:
        TypeError: it is neither, or no message is the assistant's.
    """
    if isinstance(given, str):
        return given
    messages = _messages(given, "completion")
    asked = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    said = [message for message in messages[asked[-1] + 1 if asked else 0 :] if message.get("role") == "assistant"]
    if not said:
        roles = ", ".join(str(message.get("role")) for message in messages) or "no message"
        raise TypeError(f"completion must end with a message of the assistant; got the roles: {roles}.")
    return "\n".join(map(_content, said))


def prompt_text(given: str | Messages) -> str:
    """Text as it is; of chat messages their contents, a line each."""
    return given if isinstance(given, str) else "\n".join(map(_content, _messages(given, "prompt")))


def _messages(given: object, what: str) -> Messages:
    """Chat messages, of a list of them or of one alone."""
    listed = cast("Sequence[object]", given) if isinstance(given, list | tuple) else [given]
    if not all(isinstance(message, Mapping) for message in listed):
        raise TypeError(
            f"{what} must be text or chat messages {{role, content}}; got {type(cast('object', given)).__name__}."
            " Decode tokens first."
        )
    return cast("Messages", listed)


def _content(message: Mapping[str, object]) -> str:
    """The text of a message, whose content may also be missing (calls of tools) or a list of parts."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        parts = cast("Sequence[object]", content)
        texts = [cast("Mapping[str, object]", part).get("text") for part in parts if isinstance(part, Mapping)]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def as_json(value: object) -> JSON:
    """A value of a data set or data frame as JSON: numpy's numbers and arrays as plain ones, tuples as lists.

    Raises:
        TypeError: it cannot be; says what it is.

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
