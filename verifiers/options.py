"""Options by name and value, held against the signature of what takes them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import get_type_hints

from verifiers.suggest import did_you_mean


def option_fault(function: Callable[..., object], options: Mapping[str, object]) -> str | None:
    """Say which option has a value of another kind than its annotation says; None where none has, or none can be told.

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


def name_fault(function: Callable[..., object], options: Mapping[str, object]) -> str | None:
    """Say which option is unknown or missing; None where none is.

    Example:
        >>> def solve(*, steps: int) -> None: ...
        >>> name_fault(solve, {"step": 1})
        "unknown option 'step'. Did you mean 'steps'? It takes: steps"
        >>> name_fault(solve, {})
        "option 'steps' is missing. It takes: steps"
    """
    parameters = [] if function is object.__init__ else [*inspect.signature(function).parameters.values()]
    taken = {p.name: p.default for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    taken.pop("self", None)
    takes = f"It takes: {', '.join(taken) or 'no options'}"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in options.keys() - taken.keys():
            return f"unknown option {name!r}.{did_you_mean(name, [*taken])} {takes}"
    for name, default in taken.items():
        if default is inspect.Parameter.empty and name not in options:
            return f"option {name!r} is missing. {takes}"
    return None


__all__ = ["name_fault", "option_fault"]
