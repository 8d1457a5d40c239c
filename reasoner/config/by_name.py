"""Lookup of functions by config name, and checks of their options before anything is computed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar, cast

from reasoner.config.errors import ConfigError
from verifiers.registry import load_attribute
from verifiers.suggest import did_you_mean

Named = TypeVar("Named")


def named(known: Mapping[str, Named], name: str, kind: str) -> Named:
    """Return the entry of `known` with this name, or the object at `module:attribute`.

    Raises:
        ConfigError: there is none; the message suggests the closest name.
    """
    if name in known:
        return known[name]
    if ":" in name:
        return cast("Named", load_attribute(name))
    raise ConfigError("bad-value", f"no {kind} {name!r}.{_suggestion(name, list(known))}")


def check_options(
    function: Callable[..., object], options: Mapping[str, object], kind: str, *, besides: Collection[str] = ()
) -> None:
    """Check that every option is a keyword-only parameter of the function and not in `besides`.

    A function with `**kwargs` accepts every option.

    Raises:
        ConfigError: an option is not; the message suggests the closest name.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in besides]
    for option in options:
        if option not in names:
            raise ConfigError("bad-value", f"{kind} has no option {option!r}.{_suggestion(option, names)}")


def _suggestion(name: str, known: list[str]) -> str:
    return f"{did_you_mean(name, known)} Known: {', '.join(known) or 'none'}."
