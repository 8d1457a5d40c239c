"""The values of options, held against the annotations of what takes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import get_type_hints


def option_fault(function: Callable[..., object], options: Mapping[str, object]) -> str | None:
    """Which option has a value of another kind than its annotation says; None where none has, or none can be told.

    Values are those of JSON: a list for a tuple, but no text for a number.

    Example:
        >>> def solve(*, steps: int) -> None: ...
        >>> option_fault(solve, {"steps": "many"})
        "option 'steps': Input should be a valid integer; got 'many'"
    """
    if not options:
        return None
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    try:
        hints = get_type_hints(function)
    except NameError:  # annotations of a plug-in that only a type checker imports
        return None
    for name in options.keys() & hints.keys():
        try:
            TypeAdapter(hints[name]).validate_json(json.dumps(options[name]), strict=True)
        except ValidationError as error:
            return f"option {name!r}: {error.errors()[0]['msg']}; got {str(options[name])[:80]!r}"
        except (PydanticUserError, TypeError, ValueError):  # an annotation or a value that is no JSON
            continue
    return None


__all__ = ["option_fault"]
