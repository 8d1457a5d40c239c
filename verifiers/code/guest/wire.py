"""Typed values as JSON text. Runs on both sides of the wall and inside the sandbox: standard library only.

Plain JSON stands for itself: null, booleans, strings, integers, finite floats (always with a point or exponent),
lists, and objects with string keys of which none begins with "$". Everything else is one tagged object:

    {"$int": "-ff"}            an integer of more than 15 digits, in hexadecimal
    {"$float": "nan"}          nan, inf, -inf
    {"$complex": [1.0, 2.0]}   {"$bytes": "00ff"}       {"$tuple": [...]}      {"$set": [...]}
    {"$frozenset": [...]}      {"$dict": [[key, value], ...]}                 {"$iterator": [...]}
    {"$range": [0, 10, 1]}     {"$decimal": "1.50"}     {"$fraction": [1, 3]}  {"$type": "str"}
    {"$object": ["Name", [["field", value], ...]]}      an instance of a class that both sides hold
    {"$handle": 3}                                      something that stays where it is, known to both sides
    {"$opaque": ["module.Name", true]}                  a value that cannot cross, and its truth

Subclasses of built-in types cross as their built-in content; an object's own methods are never asked. Reading costs
time and memory in proportion to the text, whatever the text says.
"""

# pyright: basic
import builtins
import json
import math
from typing import Any

MAX_DEPTH = 100
MAX_NODES = 500_000
LARGEST_PLAIN_INT = 10**15
INT_DIGITS = 100_000
"""Hexadecimal digits of an integer that is read."""
EXACT_DIGITS = 2_000
"""Of numerators, denominators and decimals, whose comparison costs more than reading them."""
MAX_RANGE = 1_000_000
MAX_COLLISIONS = 64
"""Different members of a set or dict with the same hash: more are an attack on whoever reads them."""
BUILTIN_TYPES = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and not issubclass(value, BaseException)
}


CROSSING = (str, int, float, list, tuple, dict, set, frozenset, bytes, bytearray, complex, range)


class CannotCross(ValueError):
    """A value, or the text of one, that the encoding has no place for."""


def encode(value: Any, classes: Any = None, handle: Any = None) -> Any:
    """The JSON tree of a value.

    Args:
        value: anything.
        classes: class to name, of the classes whose instances may cross.
        handle: a function that gives the handle of what cannot cross, or None where it has none.
    Raises:
        CannotCross: nested over MAX_DEPTH deep, or more than MAX_NODES values.
    """
    return _Encoder(classes or {}, handle).encode(value, 0)


def dumps(tree):
    """A JSON tree as one line of ASCII."""
    return json.dumps(tree, allow_nan=False, separators=(",", ":"))


class _Encoder:
    def __init__(self, classes, handle):
        self.classes = classes
        self.handle = handle
        self.nodes = 0

    def encode(self, value, depth) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise CannotCross("the value is too large or too deep")
        kind = type(value)
        if value is None or kind is bool:
            return value
        for base in CROSSING:
            if issubclass(kind, base):
                return getattr(self, "_" + base.__name__)(value, depth + 1)
        return self._rest(value, kind, depth + 1)

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
        return [self.encode(item, depth) for item in list.__iter__(value)]

    def _tuple(self, value, depth):
        return {"$tuple": [self.encode(item, depth) for item in tuple.__iter__(value)]}

    def _set(self, value, depth):
        return {"$set": [self.encode(item, depth) for item in set.__iter__(value)]}

    def _frozenset(self, value, depth):
        return {"$frozenset": [self.encode(item, depth) for item in frozenset.__iter__(value)]}

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

    def _rest(self, value, kind, depth):
        if kind in self.classes:
            fields = list(getattr(value, "__dict__", {}).items())
            return {"$object": [self.classes[kind], [[name, self.encode(item, depth)] for name, item in fields]]}
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
        if hasattr(kind, "__next__") or kind.__name__ in ("dict_keys", "dict_values", "dict_items", "deque"):
            items: Any = value
            return {"$iterator": [self.encode(item, depth) for item in items]}
        held = self.handle(value) if self.handle else None
        return {"$opaque": [f"{module}.{kind.__name__}", bool(value)]} if held is None else {"$handle": held}


def decode(tree: Any, classes: Any = None, handle: Any = None) -> Any:
    """The value of a JSON tree, in fresh built-in objects.

    Args:
        tree: what `json.loads` gave.
        classes: name to class, of the classes whose instances may cross.
        handle: a function that gives what a handle stands for.
    Raises:
        CannotCross: not of this encoding, opaque, of an unknown class, or made to be costly to read.
    """
    return _Decoder(classes or {}, handle).decode(tree, 0)


def hashed(items: Any, kind: Any) -> Any:
    """A set or dict of items whose hashes do not collide more than chance has them do.

    Raises:
        CannotCross: they do.
    """
    keys: Any = [pair[0] for pair in items] if kind is dict else items
    by_hash = {}
    for key in keys:
        group = by_hash.setdefault(hash(key), [])
        if key not in group:
            group.append(key)
        if len(group) > MAX_COLLISIONS:
            raise CannotCross("too many members with the same hash")
    return kind(items)


class _Decoder:
    def __init__(self, classes, handle):
        self.classes = classes
        self.handle = handle
        self.nodes = 0

    def decode(self, tree, depth) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise CannotCross("the value is too large or too deep")
        if isinstance(tree, list):
            return self._items(tree, depth)
        if not isinstance(tree, dict):
            return tree
        if not any(key.startswith("$") for key in tree):
            return {key: self.decode(item, depth + 1) for key, item in tree.items()}
        (tag, body), *others = tree.items()
        read = None if others or tag not in _TAGS else getattr(self, "_" + tag[1:])
        if read is None:
            raise CannotCross(f"unknown tag {tag[:40]}")
        try:
            return read(body, depth)
        except CannotCross:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise CannotCross(f"{tag} holds {error}"[:200]) from None

    def _items(self, body, depth) -> Any:
        if not isinstance(body, list):
            raise CannotCross("not a list")
        return [self.decode(item, depth + 1) for item in body]

    def _int(self, body, depth):
        if len(body) > INT_DIGITS:
            raise CannotCross("an integer of too many digits")
        return int(body, 16)

    def _float(self, body, depth):
        return float({"nan": "nan", "inf": "inf", "-inf": "-inf"}[body])

    def _complex(self, body, depth):
        real, imaginary = self._items(body, depth)
        return complex(float(real), float(imaginary))

    def _bytes(self, body, depth):
        return bytes.fromhex(body)

    def _tuple(self, body, depth):
        return tuple(self._items(body, depth))

    def _set(self, body, depth):
        return hashed(self._items(body, depth), set)

    def _frozenset(self, body, depth):
        return hashed(self._items(body, depth), frozenset)

    def _dict(self, body, depth):
        return hashed([(self.decode(key, depth + 1), self.decode(item, depth + 1)) for key, item in body], dict)

    def _iterator(self, body, depth):
        return iter(self._items(body, depth))

    def _range(self, body, depth):
        start, stop, step = self._items(body, depth)
        found = range(start, stop, step)
        if max(abs(start), abs(stop), abs(step)) > 1 << 62 or len(found) > MAX_RANGE:
            raise CannotCross("a range of too many numbers")
        return found

    def _decimal(self, body, depth):
        from decimal import Decimal

        found = Decimal(body)
        if len(body) > EXACT_DIGITS or (found.is_finite() and abs(found.adjusted()) > EXACT_DIGITS):
            raise CannotCross("a decimal of too many digits")
        return found

    def _fraction(self, body, depth):
        from fractions import Fraction

        above, below = self._items(body, depth)
        if max(abs(above), abs(below)).bit_length() > 4 * EXACT_DIGITS:
            raise CannotCross("a fraction of too many digits")
        return Fraction(above, below)

    def _type(self, body, depth):
        found = self.classes.get(body) or BUILTIN_TYPES.get(body)
        if found is None:
            raise CannotCross(f"no class {body!r:.40} on this side")
        return found

    def _object(self, body, depth):
        name, fields = body
        if name not in self.classes:
            raise CannotCross(f"no class {name!r:.40} on this side")
        made = object.__new__(self.classes[name])
        for field, item in fields:
            object.__setattr__(made, field, self.decode(item, depth + 1))
        return made

    def _handle(self, body, depth):
        if self.handle is None:
            raise CannotCross("nothing is held on this side")
        return self.handle(body)

    def _opaque(self, body, depth):
        raise CannotCross(f"a value of type {body[0]} cannot cross")


_TAGS = frozenset(
    "$int $float $complex $bytes $tuple $set $frozenset $dict $iterator $range $decimal $fraction $type $object $handle"
    " $opaque".split()
)
