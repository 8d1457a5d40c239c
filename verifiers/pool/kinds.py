"""The verifiers with their options that a pool knows: made here, or, for strangers' options, in workers alone."""

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
"""Verifiers with their options that a pool keeps, and characters of all these options; each row may bring its own."""
KINDS_HERE = 64
"""The same for verifiers of this process in an isolated pool: each has threads of its own, and stays."""
OPTIONS_HERE = 64 << 10
"""Characters of a stranger's options for a verifier of this process."""


class Kinds:
    """Finds and makes the kinds of a pool's rows.

    Args:
        limits: of the pool.
        context: for verifiers of this process.
        isolated: make nothing here that a worker can make.
    """

    def __init__(self, limits: PoolLimits, *, context: object, isolated: bool) -> None:
        self._limits, self._context, self._isolated = limits, context, isolated
        self._kept: dict[str, Kind] = {}
        self._characters = 0
        self._making = threading.Lock()
        self._here: dict[str, bool] = {}
        """Whether the verifier of a name has to be made here, by itself or for its parts."""
        self._plain: set[str] = set()

    def find(self, name: str, options: Mapping[str, JSON], *, check: bool = False) -> Kind:
        """The kind of rows of a verifier with its options; of golds that are to be checked, where `check`.

        Raises:
            UnknownVerifier, BadOption: it cannot be made. In an isolated pool workers find out what is bad of options.
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
        """Whether it is known to be made in workers, and to have no parts."""
        return name in self._plain

    def values(self) -> list[Kind]:
        """All that are kept."""
        return list(self._kept.values())

    def _make_room(self, size: int) -> None:
        """Forget the oldest, but for those of this process. Lock held."""
        for key, kind in list(self._kept.items()):
            if len(self._kept) < KINDS and self._characters + size <= KINDS_CHARACTERS:
                return
            if kind.in_process is None:
                self._characters -= self._kept.pop(key).size

    def _make(self, name: str, options: dict[str, JSON], *, size: int, check: bool) -> Kind:
        if check or (self._isolated and not self._made_here(name, options)):
            return self._unmade(name, options, size=size, check=check)
        if self._isolated and size > OPTIONS_HERE:
            raise BadOption(f"options of {name!r} may have {OPTIONS_HERE} characters here; got {size}.")
        made = get_verifier(name, **options)
        if made.in_process:
            if self._isolated and sum(kind.in_process is not None for kind in self._kept.values()) >= KINDS_HERE:
                raise BadOption(f"{name!r} is in use here with {KINDS_HERE} different options; no more are taken.")
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
            composed=_composed(made),
            size=size,
        )

    def _unmade(self, name: str, options: dict[str, JSON], *, size: int, check: bool) -> Kind:
        """A kind that has its class's needs until a worker has made the verifier."""
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
            isolated=True,
            size=size,
            limits=self._limits,
        )

    def _made_here(self, name: str, options: Mapping[str, JSON]) -> bool:
        """Whether a verifier or a part of it is graded in this process, told by classes and names alone."""
        if self._class_made_here(name):
            return True
        return any(
            isinstance(part["verifier"], str)
            and self._made_here(part["verifier"], inner if isinstance(inner := part.get("options"), dict) else {})
            for part in written_parts(options).values()
        )

    def _class_made_here(self, name: str) -> bool:
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
    """A class's attribute; None where it is one of its instances alone, a property."""
    return value if isinstance(value, int | float) else None


def _digest(name: str, options: Mapping[str, JSON], check: bool) -> tuple[str, int]:
    text = json.dumps([check, name, dict(options)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest(), len(text)


def _composed(made: Verifier) -> Composite | None:
    """Return the verifier if its parts have to be graded apart: one of them is graded in this process."""
    return made if isinstance(made, Composite) and made.any_in_process() else None


__all__ = ["Kinds"]
