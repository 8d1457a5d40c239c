"""What a row may say of its own grading: one judgement for files, suites, data sets, records and other trainers' rows.

A row is data, whoever wrote it. Its own verifier is a name of the registry, never a path, a module or a URL; its own
options never choose what runs on this machine and never loosen a limit. What the user named (on the command line, in a
config) is not the row's own, and bounds it.
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
"""The flag of every command that reads rows: they may then say anything."""
BOUNDS = ("cpu_seconds", "memory_mb", "workers", "packages")
"""Options that a file beside the rows may set, within what the verifiers take at most."""
MAX_DEPTH = 8
"""Verifiers inside verifiers."""

Options = Mapping[str, JSON]
Named = Mapping[str, Options]
"""Verifiers that the user named, with their options."""


class RowRefused(VerifierError, ValueError):
    """A row's own verifier or options ask for more than a row may; the message says who may ask for it."""

    exit_code = 2


class Choice(NamedTuple):
    """A verifier with its options."""

    verifier: str
    options: Options


class RowGraders:
    """By what each row is graded: what the user named, or the row's own choice where a row may make it.

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
        """Name what the user named.

        Args:
            verifier: of rows that name none.
            options: of that verifier.
            named: further verifiers with their options.
            any_row: rows may ask for anything.
        """
        self._verifier, self._options, self._any = verifier, dict(options or {}), any_row
        self._further = named or {}

    @cached_property
    def _named(self) -> Named:
        return {**named_by_user(self._verifier, self._options), **self._further}

    def choice(self, verifier: str | None, options: Options | None) -> Choice | None:
        """Return what a row is graded by that says this of itself; None where neither it nor the user names a verifier.

        Raises:
            RowRefused: it asks for more than a row may.
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
    """Return the verifier that the user named and those inside it, each with its options."""
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
    """Return the limits that a file beside the rows sets, by verifier: they bound its rows, and name no code.

    For suites and the configs of finished runs, which may be a stranger's as the rows may: what else they ask for is
    judged as if a row had asked.
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
    """Return what a row is graded by: its own choice, with the options that the user set for this machine.

    Args:
        verifier: the row's own.
        options: the row's own.
        named: what the user named (`named_by_user`).
    Raises:
        RowRefused: the row asks for more than a row may.

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
    return f"Name it yourself, for all rows (--verifier, --option), or pass {ALLOW} where you trust who wrote the rows."


def _known_class(verifier: str) -> type[Verifier]:
    """The class behind a name; of one that leads nowhere, which whoever makes it will say, one that takes nothing."""
    try:
        return verifier_class(verifier)
    except UnknownVerifier:
        return Verifier


def _parts(verifier: str, options: Options) -> list[Choice]:
    """The verifiers inside a composed one, as its options have them; what is no part is left to the verifier."""
    found: list[Choice] = []
    for written in _known_class(verifier).parts_in(options):
        spec: JSON = {"verifier": written} if isinstance(written, str) else written
        if is_object(spec) and isinstance(name := spec.get("verifier"), str):
            inner = spec.get("options")
            found.append(Choice(name, inner if is_object(inner) else {}))
    return found


__all__ = ["ALLOW", "Choice", "Named", "RowGraders", "RowRefused", "bounds_in", "named_by_user", "row_choice"]
