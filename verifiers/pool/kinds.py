"""Pairs of verifier and options known to a pool: created here or, for untrusted options, in the workers only."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from typing import TypeVar

from verifiers.base import Verifier
from verifiers.compose import Composite, written_parts
from verifiers.errors import BadOption, UnknownVerifier
from verifiers.pool.work_queue import ANY, Kind, PoolLimits
from verifiers.registry import allowed, get_verifier, importable_target, verifier_class
from verifiers.verdict import JSON

Number = TypeVar("Number", int, float, int | None)
KINDS = 1000
KINDS_CHARACTERS = 16 << 20
"""Most kinds that a pool keeps, and most characters of all their options; each row may bring its own options."""
KINDS_HERE = 64
"""Most kinds graded in this process by an isolated pool: each has its own threads, and is never dropped."""
OPTIONS_HERE = 64 << 10
"""Most characters of untrusted options for a verifier that grades in this process."""


class Kinds:
    """Kinds of a pool's rows, created on first use and cached.

    Args:
        limits: of the pool.
        context: object for verifiers that grade in this process.
        isolated: True: a verifier that a worker can create is never created here.
    """

    def __init__(self, limits: PoolLimits, *, context: object, isolated: bool) -> None:
        self._limits, self._context, self._isolated = limits, context, isolated
        self._kept: dict[str, Kind] = {}
        self._characters = 0
        self._making = threading.Lock()
        self._here: dict[str, bool] = {}
        """Verifier name -> True if it, or one of its parts, has to be created in this process."""
        self._plain: set[str] = set()

    def find(self, name: str, options: Mapping[str, JSON], *, check: bool = False) -> Kind:
        """Return the kind for a verifier with its options, from the cache or newly created.

        Args:
            name: name of the verifier.
            options: of the verifier.
            check: True: its rows are references to be checked instead of completions to be graded.
        Raises:
            UnknownVerifier, BadOption: it cannot be created. In an isolated pool, bad options are found by the workers.
        """
        key, size = (f"{check} {name}", 0) if not options else _digest(name, options, check)
        found = self._kept.get(key)
        if found is not None:
            return found
        with self._making:
            if key not in self._kept:
                made = self._make(name, dict(options), size=size, check=check)
                self._make_room(size)
                self._kept[key] = made
                self._characters += size
            return self._kept[key]

    def is_plain(self, name: str) -> bool:
        """Return True if the verifier is known to be created in workers and to have no parts."""
        return name in self._plain

    def values(self) -> list[Kind]:
        """Return all cached kinds."""
        return list(self._kept.values())

    def _make_room(self, size: int) -> None:
        """Drop the oldest kinds until one with options of `size` characters fits. Lock held.

        Kinds that grade in this process are kept.
        """
        for key, kind in list(self._kept.items()):
            if len(self._kept) < KINDS and self._characters + size <= KINDS_CHARACTERS:
                return
            if kind.in_process is None:
                self._characters -= self._kept.pop(key).size

    def _make(self, name: str, options: dict[str, JSON], *, size: int, check: bool) -> Kind:
        if check or (self._isolated and not self._created_here(name, options)):
            return self._uncreated(name, options, size=size, check=check)
        if self._isolated and size > OPTIONS_HERE:
            raise BadOption(f"options of {name!r} may have at most {OPTIONS_HERE} characters here; got {size}.")
        made = get_verifier(name, **options)
        if made.in_process:
            if self._isolated and sum(kind.in_process is not None for kind in self._kept.values()) >= KINDS_HERE:
                raise BadOption(
                    f"{name!r} is already in use with {KINDS_HERE} different options; no more are accepted."
                )
            made.context = self._context
        wall = self._limits.wall_seconds or made.grade_seconds
        return Kind(
            name=name,
            options=options,
            target=importable_target(name),
            wall_seconds=wall,
            cpu_seconds=self._limits.cpu_seconds or wall,
            memory_bytes=made.memory_bytes or self._limits.memory_bytes,
            batch_rows=made.batch_rows,
            concurrency=made.concurrency or (1 if made.in_process else ANY),
            merges_equal=made.merges_equal,
            in_process=made if made.in_process else None,
            near=made.stays_here,
            composed=_composed(made),
            size=size,
            version=made.version,
        )

    def _uncreated(self, name: str, options: dict[str, JSON], *, size: int, check: bool) -> Kind:
        """Return a kind with the limits of the verifier's class; a worker reports the actual ones later."""
        cls = verifier_class(name)
        wall = self._limits.wall_seconds or _number(cls.grade_seconds) or Verifier.grade_seconds
        return Kind(
            name=name,
            options=options,
            target=importable_target(name),
            wall_seconds=wall,
            cpu_seconds=self._limits.cpu_seconds or wall,
            memory_bytes=_number(cls.memory_bytes) or self._limits.memory_bytes,
            batch_rows=_number(cls.batch_rows) or 0,
            concurrency=ANY,
            check=check,
            near=True,
            isolated=True,
            size=size,
            limits=self._limits,
        )

    def _created_here(self, name: str, options: Mapping[str, JSON]) -> bool:
        """Return True if a verifier or a part of it is graded in this process, judged by classes and names only."""
        if self._class_created_here(name):
            return True
        return any(
            isinstance(part["verifier"], str)
            and self._created_here(part["verifier"], inner if isinstance(inner := part.get("options"), dict) else {})
            for part in written_parts(options).values()
        )

    def _class_created_here(self, name: str) -> bool:
        names = allowed()
        if names is not None and name not in names:
            return False
        if name not in self._here:
            try:
                cls = verifier_class(name)
            except UnknownVerifier:
                return False
            judged = issubclass(cls, Composite) and cls.any_in_process is not Composite.any_in_process
            self._here[name] = cls.in_process is True or judged or name == "jury"
            if not self._here[name] and not issubclass(cls, Composite):
                self._plain.add(name)
        return self._here[name]


def _number(value: Number) -> Number | None:
    """Return a class attribute that is a number; None if it is a property, which only instances have."""
    return value if isinstance(value, int | float) else None


def _digest(name: str, options: Mapping[str, JSON], check: bool) -> tuple[str, int]:
    text = json.dumps([check, name, dict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest(), len(text)


def _composed(made: Verifier) -> Composite | None:
    """Return the verifier if its parts have to be graded separately because one is graded in this process."""
    return made if isinstance(made, Composite) and made.any_in_process() else None


__all__ = ["Kinds"]
