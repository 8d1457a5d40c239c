"""Decoding of a typed value from its JSON tree: the counterpart of `wire`, which describes the trees.

Runs on both sides of the sandbox: standard library only. Decoding takes time and memory in proportion to the text.
"""

# pyright: basic
import builtins
import enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from verifiers.code.guest import arrays, standard
else:  # inside the sandbox every module stands by itself
    import arrays
    import standard

MAX_DEPTH = 100
"""Most levels of lists and objects in a tree; a deeper value is transferred as a graph."""
MAX_NODES = 2_000_000
MAX_CONTAINERS = 500_000
LARGEST_PLAIN_INT = 10**15
INT_DIGITS = 500_000
"""Most hexadecimal digits of an integer."""
EXACT_DIGITS = 2_000
"""Most digits of numerators, denominators and decimals, whose comparison costs more than decoding."""
MAX_RANGE = 1_000_000
MAX_NAMED = 64
"""Most kinds of named tuples in one value."""
MAX_ENTRY_DEPTH = 6
MAX_COLLISIONS = 64
"""Most different members of a set or dict with the same hash: more are an attack on the reader."""
BUILTIN_TYPES = {
    name: value
    for name, value in vars(builtins).items()
    if isinstance(value, type) and not issubclass(value, BaseException)
}


class CannotCross(ValueError):
    """The value, or its text, cannot be represented in this encoding."""


def decode(tree: Any, classes: Any = None, handle: Any = None) -> Any:
    """Decode a JSON tree into new built-in objects.

    Args:
        tree: result of `json.loads`.
        classes: name -> class, for the classes whose instances may be transferred.
        handle: function that returns the object of a handle.
    Raises:
        CannotCross: the tree is invalid, opaque, of an unknown class, or made to be costly to decode.
    """
    return _Decoder({} if classes is None else classes, handle).decode(tree, 0)


def hashed(items: Any, kind: Any) -> Any:
    """Build a set or dict of items, unless too many hashes collide.

    Raises:
        CannotCross: more than MAX_COLLISIONS different members have the same hash.
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
        self.named = {}
        self.made: Any = None  # values of the graph's entries

    def decode(self, tree, depth) -> Any:
        self.nodes += 1
        if depth > MAX_DEPTH + 10 or self.nodes > 4 * MAX_NODES:
            raise CannotCross("the value is too large or too deep")
        if isinstance(tree, list):
            return self._items(tree, depth)
        if not isinstance(tree, dict):
            return tree
        if not any(key.startswith("$") for key in tree):
            return {key: self.decode(item, depth + 1) for key, item in tree.items()}
        (tag, body), *others = tree.items()
        if tag in standard.TYPES and not others:
            return standard.made(tag, self._items(body, depth), CannotCross, hashed)
        read = None if others or tag not in _TAGS else getattr(self, "_" + tag[1:])
        if read is None:
            raise CannotCross(f"unknown tag {tag[:40]}")
        try:
            return read(body, depth)
        except CannotCross:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
            raise CannotCross(f"{tag}: {error}"[:200]) from None

    def _items(self, body, depth) -> Any:
        if not isinstance(body, list):
            raise CannotCross("not a list")
        self.nodes += len(body)
        plain = (int, str, float, bool)
        return [item if type(item) in plain else self.decode(item, depth + 1) for item in body]

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
        self.fill(made, fields, depth)
        return made

    def fill(self, made, fields, depth):
        """Set an instance's fields; none may replace something that its class defines."""
        for field, item in fields:
            own = standard.defined(type(made), field)
            if field.startswith("__") or (own and not standard.is_slot(own) and hasattr(type(own), "__get__")):
                raise CannotCross(f"a field may not be called {field!r:.40}")
            if callable(own) and not standard.is_slot(own):
                raise CannotCross(f"a field may not be called {field!r:.40}")
            object.__setattr__(made, field, self.decode(item, depth + 1))

    def _enum(self, body, depth):
        name, member = body
        kind = self.classes.get(name)
        if kind is None:
            raise CannotCross(f"no class {name!r:.40} on this side")
        return kind[member] if isinstance(kind, enum.EnumMeta) else standard.Member(str(name), str(member))

    def _named(self, body, depth):
        name, names, items = body
        values = self._items(items, depth + 1)
        kind = self.classes.get(name)
        if not (isinstance(kind, type) and issubclass(kind, tuple)):
            if (name, *names) not in self.named and len(self.named) >= MAX_NAMED:
                raise CannotCross("too many kinds of named tuples")
            kind = self.named.setdefault((name, *names), None) or standard.named(name, names)
            self.named[(name, *names)] = kind
        return tuple.__new__(kind, values)

    def _array(self, body, depth):
        return arrays.made("$array", self._items(body, depth))

    def _series(self, body, depth):
        return arrays.made("$series", self._items(body, depth))

    def _frame(self, body, depth):
        return arrays.made("$frame", self._items(body, depth))

    def _ref(self, body, depth):
        if self.made is None or body not in self.made:
            raise CannotCross("a reference to nothing")
        return self.made[body]

    def _graph(self, body, depth):
        root, entries = body
        if self.made is not None or len(entries) > MAX_CONTAINERS:
            raise CannotCross("a graph within a graph, or a large one")
        self.made = {}
        shells = {number: shell for number, entry in enumerate(entries) if (shell := self.shell(entry)) is not None}
        self.made.update(shells)
        for number in range(len(entries)):
            self.make(number, entries)
        order = sorted(
            shells, key=lambda number: isinstance(shells[number], (dict, set))
        )  # sets and dicts last: they hash
        for number in order:
            self.fill_shell(shells[number], entries[number])
        return self.decode(root, 0)

    def shell(self, entry):
        """Return an empty object for an entry that may contain itself; None for any other."""
        if isinstance(entry, list):
            return []
        if not isinstance(entry, dict):
            return None
        tag = next((key for key in entry if key.startswith("$")), "$dict")
        if tag == "$object":
            name = entry[tag][0]
            if name not in self.classes:
                raise CannotCross(f"no class {name!r:.40} on this side")
            return object.__new__(self.classes[name])
        return {} if tag == "$dict" else set() if tag == "$set" else None

    def fill_shell(self, shell, entry):
        if isinstance(entry, dict) and "$object" in entry:
            self.fill(shell, entry["$object"][1], 0)
        elif isinstance(shell, list):
            shell.extend(self.decode(entry, 0))
        else:
            shell.update(self.decode(entry, 0))

    def make(self, number, entries):
        """Decode an entry that has no shell, after those that it refers to."""
        waiting, begun = [number], set()
        while waiting:
            at = waiting[-1]
            if at in self.made:
                waiting.pop()
                continue
            needed = [ref for ref in references(entries[at]) if ref not in self.made]
            if needed and at in begun:
                raise CannotCross("a value contains itself, which its type cannot")
            begun.add(at)
            if any(type(ref) is not int or not 0 <= ref < len(entries) for ref in needed):
                raise CannotCross("a reference to nothing")
            waiting += needed
            if not needed:
                self.made[at] = self.decode(entries[at], 0)

    def _handle(self, body, depth):
        if self.handle is None:
            raise CannotCross("this side keeps no objects")
        return self.handle(body)

    def _opaque(self, body, depth):
        raise CannotCross(f"a value of type {body[0]} cannot be transferred")


def references(entry):
    """Return the numbers of the entries that an entry refers to."""
    found, waiting = [], [(entry, 0)]
    while waiting:
        tree, depth = waiting.pop()
        if isinstance(tree, dict) and "$ref" in tree:
            found.append(tree["$ref"])
        elif isinstance(tree, (dict, list)) and depth < MAX_ENTRY_DEPTH:
            waiting += [(item, depth + 1) for item in (tree.values() if isinstance(tree, dict) else tree)]
    return found


_TAGS = frozenset(
    "$int $float $complex $bytes $tuple $set $frozenset $dict $iterator $range $decimal $fraction $type $object $handle"
    " $opaque $enum $named $array $series $frame $ref $graph".split()
)
