"""Checks of options by name and value against a callable's signature."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import get_type_hints

from verifiers.suggest import did_you_mean


def option_fault(function: Callable[..., object], options: Mapping[str, object]) -> str | None:
    """Return an error text for the first option whose value does not match its annotation, or None.

    Values are JSON values: a list is accepted for a tuple, but text is not accepted for a number. Annotations that
    cannot be resolved are not checked.

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
    except NameError:  # the plug-in imports its annotations for type checkers only
        return None
    for name in options.keys() & hints.keys():
        try:
            TypeAdapter(hints[name]).validate_json(json.dumps(options[name]), strict=True)
        except ValidationError as error:
            return f"option {name!r}: {error.errors()[0]['msg']}; got {str(options[name])[:80]!r}"
        except (PydanticUserError, TypeError, ValueError):  # an annotation or a value that is not JSON
            continue
    return None


def name_fault(function: Callable[..., object], options: Mapping[str, object]) -> str | None:
    """Return an error text for an unknown option or else a missing one, or None.

    Example:
        >>> def solve(*, steps: int) -> None: ...
        >>> name_fault(solve, {"step": 1})
        "unknown option 'step'. Did you mean 'steps'? It takes: steps"
        >>> name_fault(solve, {})
        "option 'steps' is missing. It takes: steps"
    """
    parameters = [] if function is object.__init__ else [*inspect.signature(function).parameters.values()]
    accepted = {p.name: p.default for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    accepted.pop("self", None)
    takes = f"It takes: {', '.join(accepted) or 'no options'}"
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in options.keys() - accepted.keys():
            return f"unknown option {name!r}.{did_you_mean(name, [*accepted])} {takes}"
    for name, default in accepted.items():
        if default is inspect.Parameter.empty and name not in options:
            return f"option {name!r} is missing. {takes}"
    return None


__all__ = ["name_fault", "option_fault"]
