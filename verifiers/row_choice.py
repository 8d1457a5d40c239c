"""Limits on the verifier and options that a data row may choose, for files, suites, datasets and other trainers' rows.

A row is untrusted data. Its own verifier must be a registered name, not a path, a module or a URL. Its own options
neither choose what runs on this machine nor loosen a limit. What the user names on the command line or in a config is
trusted, and bounds what a row may ask for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from verifiers.base import Verifier
from verifiers.errors import UnknownVerifier, VerifierError
from verifiers.jsonl import is_object
from verifiers.registry import leads_elsewhere, verifier_class
from verifiers.verdict import JSON

ALLOW = "--allow-row-code"
"""Flag of every command that reads rows; it lifts these limits."""
BOUNDS = ("cpu_seconds", "memory_mb", "workers", "packages")
"""Options that a file next to the rows may set, within the verifiers' own maximums."""
MAX_DEPTH = 8
"""Most levels of verifiers inside verifiers."""

Options = Mapping[str, JSON]
Named = Mapping[str, Options]
"""Verifiers that the user named, each with its options."""


class RowRefused(VerifierError, ValueError):
    """A row's own verifier or options exceed what a row may choose; the message says how the user can allow it."""

    exit_code = 2


class Choice(NamedTuple):
    """Verifier name and options."""

    verifier: str
    options: Options


class RowGraders:
    """Choice of the verifier for each row: the user's, or the row's own if a row may make that choice.

    Example:
        >>> graders = RowGraders("exact", {"ignore_case": True})
        >>> graders.choice(None, None)
        Choice(verifier='exact', options={'ignore_case': True})
        >>> graders.choice("numeric", None).verifier
        'numeric'
    """

    def __init__(
        self,
        verifier: str | None = None,
        options: Options | None = None,
        *,
        named: Named | None = None,
        any_row: bool = False,
    ) -> None:
        """Store the user's choices.

        Args:
            verifier: default verifier, for rows that name none.
            options: of that verifier.
            named: further verifiers that the user named, with their options.
            any_row: True lifts the limits on rows.
        """
        self._verifier, self._options, self._any = verifier, dict(options or {}), any_row
        self._further = named or {}

    @cached_property
    def _named(self) -> Named:
        return {**named_by_user(self._verifier, self._options), **self._further}

    def choice(self, verifier: str | None, options: Options | None) -> Choice | None:
        """Return the verifier and options for a row with these choices; None if neither row nor user names a verifier.

        Args:
            verifier: the row's own verifier; None: the user's.
            options: the row's own options; None: the user's if it is the user's verifier, otherwise none.
        Raises:
            RowRefused: the row asks for more than a row may choose.
        """
        name = verifier or self._verifier
        if name is None:
            return None
        given = self._options if name == self._verifier else {}
        if options is None and name == self._verifier:
            return Choice(name, given)
        chosen = Choice(name, given if options is None else options)
        return chosen if self._any else row_choice(*chosen, named=self._named)


def named_by_user(verifier: str | None, options: Options) -> dict[str, Options]:
    """Return the user's verifier and all verifiers inside it, each with its options; empty for None."""
    if verifier is None:
        return {}
    found: dict[str, Options] = {}
    waiting: list[Choice] = [Choice(verifier, options)]
    while waiting:
        name, given = waiting.pop()
        found.setdefault(name, given)
        waiting += _parts(name, given)
    return found


def bounds_in(verifier: str, options: Options) -> dict[str, Options]:
    """Return the limits that a file next to the rows sets, by verifier.

    For suites and configs of finished runs, which may come from a stranger like the rows themselves. Only the options
    in BOUNDS count; anything else in the file is judged like a row's own choice. Names of code (paths, URLs) are left
    out.
    """
    found: dict[str, Options] = {}
    waiting: list[Choice] = [Choice(verifier, options)]
    while waiting:
        name, given = waiting.pop()
        if leads_elsewhere(name):
            continue
        found.setdefault(name, {key: value for key, value in given.items() if key in BOUNDS})
        waiting += _parts(name, given)
    return found


def row_choice(verifier: str, options: Options, *, named: Named) -> Choice:
    """Check a row's own choice, and return it with the options that the user set for this machine.

    Args:
        verifier: the row's own.
        options: the row's own.
        named: verifiers that the user named (`named_by_user`).
    Raises:
        RowRefused: the row asks for more than a row may choose.

    Example:
        >>> row_choice("code", {"reward": "fraction"}, named={"code": {"cpu_seconds": 2}}).options
        {'cpu_seconds': 2, 'reward': 'fraction'}
    """
    _require_name(verifier, named)
    by_user = named.get(verifier, {})
    kept = {name: by_user[name] for name in by_user.keys() & _known_class(verifier).machine_options}
    chosen = Choice(verifier, {**kept, **options})
    _judge(chosen, named, depth=0)
    return chosen


def _judge(chosen: Choice, named: Named, *, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise RowRefused(f"a row's verifiers must be at most {MAX_DEPTH} inside each other.")
    _require_name(chosen.verifier, named)
    cls, by_user = _known_class(chosen.verifier), named.get(chosen.verifier, {})
    if not cls.for_rows and chosen.verifier not in named:
        raise RowRefused(f"a row must not choose {chosen.verifier!r}, which may run what it grades. {_advice()}")
    parameters = inspect.signature(cls).parameters
    for option in sorted(cls.machine_options & (chosen.options.keys() | by_user.keys())):
        default: JSON = parameters[option].default if option in parameters else None
        default = None if default is inspect.Parameter.empty else default
        value, bound = chosen.options.get(option, default), by_user.get(option, default)
        if not cls.no_looser(option, value, bound):
            raise RowRefused(
                f"a row's own option {option!r} of {chosen.verifier!r} must ask for no more than the user set"
                f" ({bound!r}); got {str(value)[:80]!r}. {_advice()}"
            )
    for part in _parts(chosen.verifier, chosen.options):
        _judge(part, named, depth=depth + 1)


def _require_name(verifier: str, named: Named) -> None:
    if verifier not in named and leads_elsewhere(verifier):
        raise RowRefused(
            f"a row's own verifier must be a name that `reasoner verifiers list` shows; got {verifier[:200]!r}."
            f" {_advice()}"
        )


def _advice() -> str:
    return (
        f"Name it yourself, for all rows (--verifier, --option), or pass {ALLOW} if you trust the author of the rows."
    )


def _known_class(verifier: str) -> type[Verifier]:
    """Return the class of a verifier; for an unknown name the base class, since creating it reports the error."""
    try:
        return verifier_class(verifier)
    except UnknownVerifier:
        return Verifier


def _parts(verifier: str, options: Options) -> list[Choice]:
    """Return the verifiers inside a composed one. Malformed parts are skipped: the verifier reports them itself."""
    found: list[Choice] = []
    for written in _known_class(verifier).parts_in(options):
        spec: JSON = {"verifier": written} if isinstance(written, str) else written
        if is_object(spec) and isinstance(name := spec.get("verifier"), str):
            inner = spec.get("options")
            found.append(Choice(name, inner if is_object(inner) else {}))
    return found


__all__ = ["ALLOW", "Choice", "Named", "RowGraders", "RowRefused", "bounds_in", "named_by_user", "row_choice"]
