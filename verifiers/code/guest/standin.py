"""Runs inside the sandbox with the tests: stand-ins for the tested program's names, which send calls and await data.

The program is in another process. Objects that it made itself stay there and equal nothing that the tests have. An
operand may be the expected value (`abs(r - 41) < 1e-6`, `41 in r`, `r.count(41) == 1`), so operands are not passed to
what a call returned if a test could ask the same of plain data. Operands are only passed to an object that the tests
made by calling what they themselves treat as a class.
"""

# pyright: basic
from typing import Any

import checks
import classes

MOST_ASKED = 3
"""Most other objects with which equality is tried."""


class ProgramGone(BaseException):
    """The tested program's process has ended."""


class TestsAtFault(BaseException):
    """The tests need something that is not available here, whatever the program does."""


class RaisedByProgram(Exception):
    """The tested program raised something that must not reach the tests unchanged."""


class StoppedByProgram(RuntimeError):
    """The tested program raised StopIteration or the like, which would end a loop of the tests."""


def marked(error):
    """Mark an exception as the program's, to distinguish it from those of the tests."""
    error.__of_the_program__ = True
    return error


class StandIn:
    """Stand-in for an object of the tested program.

    Args:
        line: connection to the program.
        target: a global name, or a handle.
        own: True if it belongs to the program itself or was made by the tests, not returned by a call.
        takes: arguments that it accepts: "anything"; "nothing"; or "changes": anything, if it returns no data.
        body: the handle, as the program wrote it.
    """

    def __init__(self, line, target, own=False, takes="anything", body=None):
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_own", own)
        object.__setattr__(self, "_takes", takes)
        object.__setattr__(self, "_body", body)
        object.__setattr__(self, "_kind", None)  # the class of the tests that made it, or to whose method it was passed

    def __call__(self, *args, **kwargs):
        """Call the object in the program's process."""
        given = bool(args or kwargs)
        if given and self._takes == "nothing":
            raise TypeError("what a call returned is not plain data, and accepts no argument from the tests here")
        result = self._line.ask(self._target, args, kwargs)
        if given and self._takes == "changes" and not (result is None or isinstance(result, StandIn)):
            raise TypeError("what a call returned is not plain data, and accepts no argument from the tests here")
        if isinstance(result, StandIn) and "handle" not in self._target and self._target["name"] in self._line.makers:
            object.__setattr__(result, "_own", True)
            self._line.note(self._target["name"], result, args, kwargs)
        return result

    def __getattr__(self, name):
        """Return an attribute's value, or a stand-in for it."""
        if name in ("__name__", "__doc__", "__qualname__"):
            return self._line.ask({"do": "doc" if name == "__doc__" else "name"}, [self])
        if name.startswith("__"):
            raise AttributeError(name)
        if self._kind is not None:
            found, defined = self._kind.attribute(self, name)
            if defined:
                return found
        if not self._own and name in self._line.kept:
            raise TypeError(f"what a call returned is not an instance of the tests' class that has {name!r:.40}")
        found = self._line.exchange({"handle": self._line.handle(self)[0], "name": name})
        if isinstance(found, StandIn):
            object.__setattr__(found, "_own", False)
            object.__setattr__(found, "_takes", "anything" if self._own else takes_what(name, self._line))
        elif self._kind is not None:
            self._line.watch(self, name, found)
        return found

    def __setattr__(self, name, value):
        self._line.ask({"do": "setattr"}, [self, name, value])

    def __delattr__(self, name):
        self._line.ask({"do": "delattr"}, [self, name])

    def __iter__(self):
        found: Any = self._line.ask({"do": "iter"}, [self])
        same = isinstance(found, StandIn) and self._line.handle(found) == self._line.handle(self)
        return self if same else iter(found)

    def __next__(self):
        try:
            return self._line.ask({"do": "next"}, [self])
        except StoppedByProgram:
            raise StopIteration from None

    def __enter__(self):
        found = self._line.ask({"do": "enter"}, [self])
        same = isinstance(found, StandIn) and self._line.handle(found) == self._line.handle(self)
        return self if same else found

    def __exit__(self, kind, error, trace):
        return self._swallows(self._line.ask({"do": "exit"}, [self, *_told(kind, error)]), error)

    def _swallows(self, answer, error):
        """Return the result of `__exit__`; the program cannot suppress a failed comparison of the tests."""
        if answer and isinstance(error, AssertionError):
            self._line.failed = self._line.failed or f"assertion failed {error}"[:300]
        return answer

    def __aiter__(self):
        return self._line.ask({"do": "aiter"}, [self])

    async def __anext__(self):
        try:
            return self._line.ask({"do": "anext"}, [self])
        except StoppedByProgram:
            raise StopAsyncIteration from None

    async def __aenter__(self):
        return self._line.ask({"do": "aenter"}, [self])

    async def __aexit__(self, kind, error, trace):
        return self._swallows(self._line.ask({"do": "aexit"}, [self, *_told(kind, error)]), error)

    def __instancecheck__(self, other):
        return isinstance(other, StandIn) and self._line.ask({"do": "isinstance"}, [other, self]) is True

    def __subclasscheck__(self, other):
        return isinstance(other, StandIn) and self._line.ask({"do": "issubclass"}, [other, self]) is True

    def __mro_entries__(self, bases):
        import derived

        return (derived.Base,)

    def __str__(self):
        return str(self._line.ask({"do": "str"}, [self]))

    def __repr__(self):
        return str(self._line.ask({"do": "repr"}, [self]))

    def __bool__(self):
        return self._line.ask({"do": "bool"}, [self]) is True

    def __ne__(self, other):
        return not self == other

    def __contains__(self, item):
        return _operation("contains", self, item) is True

    def __getitem__(self, key):
        return self._line.ask({"do": "getitem"}, [self, key])

    def __eq__(self, other):
        if not isinstance(other, StandIn):
            return False
        return _same_object(self, other) if not (self._own or other._own) else _equal(self, other)

    def __hash__(self):
        return hash(self._line.ask({"do": "hash"}, [self]))


def _told(kind, error):
    """Return the class name and the message of an exception of the tests, for the program."""
    return (None, None) if error is None else (kind.__name__, str(error))


def _same_object(one, other):
    return one._line.handle(one) == one._line.handle(other)


def _equal(one, other):
    """Return True if the program calls two of its objects equal and demonstrably distinguishes unequal ones.

    It is first asked about other objects that the tests made of the same class with different content; an object that
    also equals those is equal to nothing.
    """
    line = one._line
    made = [line.made.get(line.handle(item)[0]) for item in (one, other)]
    known = next((item for item in made if item), None)
    if known is None or _same_object(one, other):
        return _same_object(one, other) and not (known and len(known["arguments"]) > 1)
    fixed, moving = (other, one) if made[1] else (one, other)
    content = line.content(fixed)
    numbers = [line.handle(item)[0] for item in (one, other)]
    others = [
        found["standin"] for number, found in line.made.items()
        if number not in numbers and found["name"] == known["name"] and line.content(found["standin"]) != content
    ]  # fmt: skip
    if not others and content.endswith(",[]]}") and line.content(moving) == content:
        return False  # nothing in them that could be equal
    for item in others[:MOST_ASKED]:
        pair = [moving, item] if fixed is other else [item, moving]
        try:
            if line.ask({"do": "eq"}, pair) is True:
                return False
        except Exception:
            continue
    return line.ask({"do": "eq"}, [one, other]) is True


def takes_what(name, line):
    """Return which arguments a method of something that a call returned accepts."""
    if any(callable(getattr(kind, name, None)) for kind in line.by_class):
        return "nothing"  # an instance of the tests' own class is expected here
    return "nothing" if name in classes.ASKED else "changes" if name in checks.MUTATORS else "anything"


def _operation(name, one, *others):
    """Apply an operation; operands of the tests are only passed to objects that the tests made."""
    if not one._own and any(not isinstance(other, StandIn) for other in others):
        raise TypeError("what a call returned is not plain data, and accepts no operand from the tests")
    return one._line.ask({"do": name}, [one, *others])


def _compared(name):
    """Return a comparison method that compares only two objects of the program."""

    def method(self, other):
        if not isinstance(other, StandIn) or not (self._own or other._own):
            return NotImplemented
        return self._line.ask({"do": name}, [self, other]) is True

    return method


for _name in ("add", "sub", "mul", "truediv", "mod", "floordiv", "pow", "matmul", "and", "or", "xor", "lshift",
              "rshift", "neg", "pos", "invert", "abs", "setitem", "delitem", "len", "int", "float", "reversed",
              "round", "radd", "rsub", "rmul", "rtruediv", "rmod", "rfloordiv", "rpow"):  # fmt: skip
    setattr(StandIn, f"__{_name}__", lambda self, *others, _name=_name: _operation(_name, self, *others))
for _name in ("lt", "le", "gt", "ge"):
    setattr(StandIn, f"__{_name}__", _compared(_name))


def assign(ours, theirs, paired):
    """Set changed arguments to their new content, in the same objects as far as these can be matched."""
    if type(ours) is not type(theirs) or paired.get(id(ours), theirs) is not theirs:
        return theirs
    paired[id(ours)] = theirs
    if isinstance(ours, bytearray):
        ours[:] = theirs
    elif isinstance(ours, list):
        old = [*ours]
        ours[:] = [assign(old[n], item, paired) if n < len(old) else item for n, item in enumerate(theirs)]
    elif isinstance(ours, dict):
        old = dict(ours)
        ours.clear()
        ours.update({key: assign(old[key], item, paired) if key in old else item for key, item in theirs.items()})
    elif isinstance(ours, set):
        ours.clear()
        ours.update(theirs)
    elif hasattr(ours, "__dict__") and not isinstance(ours, (type, StandIn)) and not callable(ours):
        vars(ours).clear()
        vars(ours).update(vars(theirs))
    elif hasattr(ours, "extend") and hasattr(ours, "clear"):
        ours.clear()
        ours.extend(theirs)
    else:
        return theirs
    return ours
