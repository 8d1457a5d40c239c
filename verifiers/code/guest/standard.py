"""Types of the standard library as parts that `wire` can encode, and back. Standard library only.

Only exact types are transferred; an instance of a subclass is transferred as its content.
"""

# pyright: basic
import collections
import datetime
import pathlib
import types
import uuid
from typing import Any, NamedTuple

MAX_FIELDS = 64


class Member(NamedTuple):
    """Member of an enumeration that only the other side defines; equal only to itself, and to no plain tuple."""

    kind: str
    name: str

    def __eq__(self, other):
        return type(other) is Member and tuple(self) == tuple(other)

    def __ne__(self, other):
        return not self == other

    __hash__ = tuple.__hash__


class Type(NamedTuple):
    """Rule for the transfer of values of one type."""

    kind: Any
    parts: Any
    """Function from a value to a list of values."""
    make: Any
    """Function from these values, and a function that builds a set or dict at bounded cost, to the value."""


def _zone(value):
    offset = value.utcoffset()
    return None if offset is None else datetime.timezone(offset)


def _named_zone(value):
    offset = value.utcoffset(None)
    return [offset]


def _moment(value):
    return [value.hour, value.minute, value.second, value.microsecond, _zone(value), value.fold]


def _path(kind):
    return Type(kind, lambda value: [str(value)], lambda parts, _: kind(parts[0]))


_A_DICT: dict = {}
TYPES = {
    "$deque": Type(
        collections.deque,
        lambda value: [list(value), value.maxlen],
        lambda parts, _: collections.deque(parts[0], parts[1]),
    ),
    "$dict_keys": Type(type(_A_DICT.keys()), list, lambda parts, make: make([(key, 0) for key in parts], dict).keys()),
    "$dict_values": Type(type(_A_DICT.values()), list, lambda parts, _: dict(enumerate(parts)).values()),
    "$dict_items": Type(type(_A_DICT.items()), list, lambda parts, make: make(parts, dict).items()),
    "$counter": Type(
        collections.Counter,
        lambda value: list(dict.items(value)),
        lambda parts, make: collections.Counter(make(parts, dict)),
    ),
    "$ordered_dict": Type(
        collections.OrderedDict,
        lambda value: list(value.items()),
        lambda parts, make: collections.OrderedDict(make(parts, dict)),
    ),
    "$default_dict": Type(
        collections.defaultdict,
        lambda value: [value.default_factory if is_factory(value.default_factory) else None, *dict.items(value)],
        lambda parts, make: collections.defaultdict(parts[0] if is_factory(parts[0]) else None, make(parts[1:], dict)),
    ),
    "$date": Type(
        datetime.date, lambda value: [value.year, value.month, value.day], lambda parts, _: datetime.date(*parts)
    ),
    "$datetime": Type(
        datetime.datetime,
        lambda value: [value.year, value.month, value.day, *_moment(value)],
        lambda parts, _: datetime.datetime(*parts[:8], fold=parts[8]),
    ),
    "$time": Type(datetime.time, _moment, lambda parts, _: datetime.time(*parts[:5], fold=parts[5])),
    "$timedelta": Type(
        datetime.timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts, _: datetime.timedelta(*parts),
    ),
    "$timezone": Type(datetime.timezone, _named_zone, lambda parts, _: datetime.timezone(*parts)),
    "$posix_path": _path(pathlib.PosixPath),
    "$pure_posix_path": _path(pathlib.PurePosixPath),
    "$uuid": Type(uuid.UUID, lambda value: [value.hex], lambda parts, _: uuid.UUID(parts[0])),
    "$slice": Type(slice, lambda value: [value.start, value.stop, value.step], lambda parts, _: slice(*parts)),
    "$namespace": Type(
        types.SimpleNamespace, lambda value: [vars(value)], lambda parts, _: types.SimpleNamespace(**parts[0])
    ),
}
TAGS = {found.kind: tag for tag, found in TYPES.items()}
VALUES = frozenset(
    {bytes, complex, range, frozenset, type, slice, uuid.UUID, pathlib.PosixPath, pathlib.PurePosixPath}
    | {datetime.date, datetime.datetime, datetime.time, datetime.timedelta, datetime.timezone}
)


def is_factory(value):
    """Return True if a default dict's factory exists on both sides."""
    return value in (int, float, str, list, dict, set, tuple, bool)


def is_value(kind):
    """Return True for types whose equal objects cannot be told apart."""
    return kind in VALUES


def made(tag, parts, error, make):
    """Build a value from its tag and parts.

    Raises:
        error: they are invalid.
    """
    try:
        return TYPES[tag].make(parts, make)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as why:
        raise error(f"{tag}: {why}"[:200]) from None


def is_named(kind):
    """Return True if a subclass of tuple has named fields."""
    names = getattr(kind, "_fields", None)
    return type(names) is tuple and len(names) <= MAX_FIELDS and all(type(name) is str for name in names)


def field_names(kind):
    """Return the field names of a named tuple."""
    return list(kind._fields)


def named(name, names):
    """Create a class of tuples with named fields; raise ValueError if names are too many or too long."""
    if len(names) > MAX_FIELDS or len(name) > 100 or any(len(part) > 100 for part in names):
        raise ValueError("a named tuple of too many or too long names")
    return collections.namedtuple(name, names)


def defined(kind, name):
    """Return what a class or one of its bases other than object defines under a name, or None."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def is_slot(found):
    """Return True if a class attribute is the slot of a field of its instances."""
    return isinstance(found, (types.MemberDescriptorType, types.GetSetDescriptorType))


def truth(value):
    """Return the truth value of an object; False if it raises an exception."""
    try:
        return bool(value)
    except Exception:
        return False
