"""Typed values as JSON text. Runs on both sides of the sandbox: standard library only.

Plain JSON represents itself: null, booleans, strings, integers, finite floats (always with a point or exponent),
lists, and objects with string keys of which none begins with "$". Everything else is one tagged object:

    {"$int": "-ff"}            an integer of more than 15 digits, in hexadecimal
    {"$float": "nan"}          nan, inf, -inf
    {"$complex": [1.0, 2.0]}   {"$bytes": "00ff"}       {"$tuple": [...]}      {"$set": [...]}
    {"$frozenset": [...]}      {"$dict": [[key, value], ...]}                 {"$iterator": [...]}
    {"$range": [0, 10, 1]}     {"$decimal": "1.50"}     {"$fraction": [1, 3]}  {"$type": "str"}
    {"$object": ["Name", [["field", value], ...]]}      an instance of a class that both sides define
    {"$enum": ["Name", "MEMBER"]}                       a member of such a class
    {"$deque": [[1, 2], null]}, {"$date": [2020, 1, 2]}  standard types: see `standard.TYPES`
    {"$graph": [tree, [entry, ...]]}                    a deep, shared or cyclic value: {"$ref": 3} in it is the
                                                        value of an entry, and entries contain only such references
    {"$handle": [3, "object"]}                          an object that stays where it is, known to both sides
    {"$opaque": ["module.Name", true]}                  an object that cannot be transferred, and its truth value

Subclasses of built-in types are transferred as their built-in content; an object's own methods are never called.
Decoding takes time and memory in proportion to the text, whatever it contains.
"""

# pyright: basic
import enum
import itertools
import json
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from verifiers.code.guest import arrays, standard
    from verifiers.code.guest.decoding import (
        BUILTIN_TYPES,
        LARGEST_PLAIN_INT,
        MAX_CONTAINERS,
        MAX_DEPTH,
        MAX_NODES,
        CannotCross,
        decode,
        hashed,
    )
else:  # inside the sandbox every module stands by itself
    import arrays
    import standard
    from decoding import (
        BUILTIN_TYPES,
        LARGEST_PLAIN_INT,
        MAX_CONTAINERS,
        MAX_DEPTH,
        MAX_NODES,
        CannotCross,
        decode,
        hashed,
    )

__all__ = ["CannotCross", "decode", "dumps", "encode", "hashed"]
CROSSING = (str, int, float, list, tuple, dict, set, frozenset, bytes, bytearray, complex, range)


def encode(value: Any, classes: Any = None, handle: Any = None) -> Any:
    """Encode a value as a JSON tree.

    Args:
        value: any object.
        classes: class -> name, for the classes whose instances may be transferred.
        handle: function that returns the handle of an object that cannot be transferred, or None.
    Raises:
        CannotCross: there are more than MAX_NODES values, or more than MAX_CONTAINERS that contain others.
    """
    taken: dict = {}
    try:
        return _Encoder({} if classes is None else classes, handle, taken).encode(value, 0)
    except _NoTree:
        return _GraphEncoder({} if classes is None else classes, handle, taken).graph(value)


def dumps(tree):
    """Return a JSON tree as one line of ASCII."""
    return json.dumps(tree, allow_nan=False, separators=(",", ":"))


class _NoTree(Exception):
    """The value is too deep for a tree, or contains an object twice."""


class _Encoder:
    def __init__(self, classes, handle, taken):
        self.classes = classes
        self.handle = handle
        self.taken = taken  # iterators and their items, which they yield only once
        self.nodes = self.containers = 0
        self.seen = set()

    def count(self, container):
        self.nodes += 1
        self.containers += container
        if self.nodes > MAX_NODES or self.containers > MAX_CONTAINERS:
            raise CannotCross("the value is too large")

    def many(self, count):
        self.nodes += count
        if self.nodes > MAX_NODES:
            raise CannotCross("the value is too large")

    def encode(self, value, depth) -> Any:
        kind = type(value)
        if value is None or kind is bool or kind is int or kind is str or kind is float:
            return self._scalar(value, kind)
        self.count(True)
        if depth > MAX_DEPTH:
            raise _NoTree
        if kind is not tuple and not standard.is_value(kind):
            if id(value) in self.seen:
                raise _NoTree
            self.seen.add(id(value))
        return self.whole(value, kind, depth)

    def _each(self, items, depth):
        """Encode items; plain ones, of which there may be many, take a shortcut."""
        return [
            item
            if (kind := type(item)) is str or (kind is int and -LARGEST_PLAIN_INT < item < LARGEST_PLAIN_INT)
            else self.encode(item, depth)
            for item in items
        ]

    def _scalar(self, value, kind):
        self.count(False)
        if kind is int:
            return self._int(value, 0)
        return self._float(value, 0) if kind is float else value

    def whole(self, value, kind: Any, depth):
        """Encode a value that is not a plain scalar."""
        if kind in self.classes and not (issubclass(kind, CROSSING) and not standard.is_named(kind)):
            return self._instance(value, kind, depth + 1)
        tag = standard.TAGS.get(kind)
        if tag:
            return {tag: [self.encode(part, depth + 2) for part in standard.TYPES[tag].parts(value)]}
        if issubclass(kind, tuple) and kind is not tuple and standard.is_named(kind):
            fields = [self.encode(item, depth + 2) for item in tuple.__iter__(value)]
            return {"$named": [kind.__name__, standard.field_names(kind), fields]}
        for base in CROSSING:
            if issubclass(kind, base):
                return getattr(self, "_" + base.__name__)(value, depth + 1)
        return self._rest(value, kind, depth + 1)

    def _instance(self, value, kind: Any, depth):
        name = self.classes[kind]
        if issubclass(kind, enum.Enum):
            return {"$enum": [name, value.name]}
        if issubclass(kind, tuple) and standard.is_named(kind):
            return {"$named": [name, standard.field_names(kind), [self.encode(item, depth + 1) for item in value]]}
        return {"$object": [name, [[field, self.encode(item, depth + 1)] for field, item in fields(value, kind)]]}

    def _str(self, value, depth):
        return str.__str__(value)

    def _int(self, value, depth):
        plain = int.__add__(value, 0)
        if -LARGEST_PLAIN_INT < plain < LARGEST_PLAIN_INT:
            return plain
        return {"$int": format(plain, "x")}

    def _float(self, value, depth):
        plain = float.__add__(value, 0.0) if value else float.__abs__(value) * math.copysign(1.0, value)
        return plain if math.isfinite(plain) else {"$float": repr(plain)}

    def _list(self, value, depth):
        self.many(len(value))
        return self._each(list.__iter__(value), depth)

    def _tuple(self, value, depth):
        return {"$tuple": self._each(tuple.__iter__(value), depth)}

    def _set(self, value, depth):
        return {"$set": self._each(set.__iter__(value), depth)}

    def _frozenset(self, value, depth):
        return {"$frozenset": self._each(frozenset.__iter__(value), depth)}

    def _dict(self, value, depth):
        items = list(dict.items(value))
        if all(type(key) is str and not key.startswith("$") for key, _ in items):
            return {key: self.encode(item, depth) for key, item in items}
        return {"$dict": [[self.encode(key, depth), self.encode(item, depth)] for key, item in items]}

    def _bytes(self, value, depth):
        return {"$bytes": bytes.hex(value)}

    def _bytearray(self, value, depth):
        return {"$bytes": bytearray.hex(value)}

    def _complex(self, value, depth):
        return {"$complex": [self.encode(value.real, depth), self.encode(value.imag, depth)]}

    def _range(self, value, depth):
        return {"$range": [self.encode(part, depth) for part in (value.start, value.stop, value.step)]}

    def _rest(self, value: Any, kind, depth):
        if isinstance(value, type):
            if value in self.classes:
                return {"$type": self.classes[value]}
            if BUILTIN_TYPES.get(value.__name__) is value:
                return {"$type": value.__name__}
        module = kind.__module__
        if module == "decimal" and kind.__name__ == "Decimal":
            return {"$decimal": str(value)}
        if module == "fractions" and kind.__name__ == "Fraction":
            return {"$fraction": [self.encode(value.numerator, depth), self.encode(value.denominator, depth)]}
        if module == "numpy" and hasattr(value, "item") and getattr(value, "ndim", None) == 0:
            return self.encode(value.item(), depth)
        table = arrays.parts(value) if module.partition(".")[0] in ("numpy", "pandas") else None
        if table is not None:
            return {table[0]: [self.encode(part, depth) for part in table[1]]}
        held = self.handle(value) if self.handle else None
        if held is not None:
            return {"$handle": held}
        if hasattr(kind, "__next__"):
            coming: Any = value
            if id(value) not in self.taken:
                self.taken[id(value)] = (value, [*itertools.islice(coming, MAX_NODES)])
            items = self.taken[id(value)][1]
            return {"$iterator": [self.encode(item, depth) for item in items]}
        return {"$opaque": [f"{module}.{kind.__name__}", standard.truth(value)]}


def fields(value, kind):
    """Return the names and values of an instance's fields, including those in slots."""
    found = dict(getattr(value, "__dict__", {}))
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return list(found.items())


class _GraphEncoder(_Encoder):
    """Encoder without recursion: each object that is not a scalar becomes one entry, and is referred to."""

    def graph(self, value):
        self.kept = []
        self.numbers = {}
        root = self.encode(value, 0)
        entries = []
        for item in self.kept:  # grows during the loop
            entries.append(self.whole(item, type(item), 0))
        return {"$graph": [root, entries]}

    def encode(self, value, depth):
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return self._scalar(value, kind)
        if id(value) not in self.numbers:
            self.count(True)
            self.numbers[id(value)] = len(self.kept)
            self.kept.append(value)
        return {"$ref": self.numbers[id(value)]}
