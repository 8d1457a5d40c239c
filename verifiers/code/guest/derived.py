"""Runs inside the sandbox with the tests: classes that the tests derive from classes of the program.

Such a class is created in the program's process, with stand-ins for its methods. The methods themselves run here, and
their source never reaches the program. Attributes that the tests' own class defines are also read here.
source never reaches the program. What the tests ask of an instance that their own class defines is answered here too.
"""

# pyright: basic
import builtins
import inspect
import types
from typing import Any

import standin

LEFT_OUT = frozenset(
    "__module__ __qualname__ __doc__ __annotations__ __classcell__ __orig_bases__ __slots__ __match_args__"
    " __static_attributes__ __firstlineno__".split()
)
"""Names of a class statement that the other side does not need."""
HERE = (types.FunctionType, property, staticmethod, classmethod)


class Derived(standin.StandIn):
    """Class of the tests whose instances are objects of the program.

    Args:
        line: connection to the program.
        name: of the class.
        own: names defined here by it and by those of its bases that are classes of the tests.
    """

    _line: Any
    _defined: Any

    def __init__(self, line, name, own):
        super().__init__(line, {}, own=True)
        for key, value in (("_name", name), ("_defined", own)):
            object.__setattr__(self, key, value)

    def __call__(self, *args, **kwargs):
        """Create an instance."""
        made = super().__call__(*args, **kwargs)
        if isinstance(made, standin.StandIn):
            self.adopt(made)
            self._line.note(self._name, made, args, kwargs)
        return made

    def __getattr__(self, name):
        found, defined = self.attribute(None, name)
        return found if defined else super().__getattr__(name)

    def adopt(self, made):
        """Give an object of the program what this class defines."""
        object.__setattr__(made, "_own", True)
        object.__setattr__(made, "_kind", self)

    def attribute(self, made, name):
        """Return an attribute that this class defines for an instance (None: the class), and True if it does."""
        found: Any = self._defined.get(name)
        if type(found) not in HERE:
            return None, False
        if isinstance(found, classmethod):
            return types.MethodType(found.__func__, self), True
        return found.__get__(made, self), True


class Maker(type):
    """Metaclass that makes a class statement create a `Derived`."""

    def __new__(cls, name, bases, space, **more):
        """Create the class of a class statement, with the original bases in `__orig_bases__`."""
        if "__orig_bases__" not in space:
            return type.__new__(cls, name, bases, space)
        return derive(name, space["__orig_bases__"], space, more)


class Base(metaclass=Maker):
    """Placeholder for a class of the program among the bases of a class statement."""


def derive(name, bases, space, more):
    """Create a class of the tests that is derived from classes of the program."""
    bases = tuple(base for base in bases if base is not object)
    if more or not all(isinstance(base, standin.StandIn) for base in bases):
        raise standin.TestsAtFault(f"the class {name} is derived from a class of the program and from another class")
    if any(key.startswith("test") for key in space):
        raise standin.TestsAtFault(f"the class {name} contains tests, and is derived from a class of the program")
    line = bases[0]._line
    inherited = [base._defined for base in reversed(bases) if isinstance(base, Derived)]
    made = Derived(line, name, {key: value for part in (*inherited, space) for key, value in part.items()})
    parts = {key: there(key, value, made) for key, value in space.items() if key not in LEFT_OUT}
    found = line.ask({"do": "subclass"}, [(name, bases, parts)])
    if not isinstance(found, standin.StandIn):
        raise standin.marked(standin.RaisedByProgram(f"no class {name} can be derived from the program's"))
    for key in ("_target", "_body"):
        object.__setattr__(made, key, object.__getattribute__(found, key))
    if "__classcell__" in space:
        space["__classcell__"].cell_contents = made
    return made


def there(key, value, made):
    """Return the kind and parts of what the program's process gets for a name of a class."""
    if inspect.iscoroutinefunction(value):
        raise standin.TestsAtFault(f"{key} is a coroutine of a class that is derived from the program's")
    if isinstance(value, types.FunctionType):
        return "function", called_back(value, made)
    if isinstance(value, staticmethod):
        return "static", value.__func__
    if isinstance(value, classmethod):
        return "class", called_back(value.__func__, made, of_class=True)
    if isinstance(value, property):
        return "property", *(part and called_back(part, made) for part in (value.fget, value.fset))
    if isinstance(value, standin.StandIn) or (is_plain(value) and key not in made._line.read_there):
        return "value", value
    raise standin.TestsAtFault(f"{key} of a class that is derived from the program's may be an expected value")


def is_plain(value):
    """Return True if a value is a plain scalar: not a table of values, and not callable."""
    return value is None or type(value) in (bool, int, float, str)


def called_back(function, made, of_class=False):
    """Return a method in the form in which the program calls it."""

    def method(first, *args, **kwargs):
        if isinstance(first, standin.StandIn) and not of_class:
            made.adopt(first)
        result = function(made if of_class else first, *args, **kwargs)
        made._line.settle()
        return result

    method.__name__ = function.__name__
    return method


class Parent:
    """Value of `super()` in a method of a class that is derived from the program's."""

    def __init__(self, kind, held):
        object.__setattr__(self, "_given", (kind, held))

    def __getattribute__(self, name):
        kind, held = object.__getattribute__(self, "_given")
        return kind._line.ask({"do": "super"}, [(kind, held, name)])


def parent(kind, held):
    """Return the value of `super()` in a method of `kind`."""
    return Parent(kind, held) if isinstance(kind, standin.StandIn) else builtins.super(kind, held)


def decorated(decorator):
    """Wrap a class decorator, so that it is refused on a class derived from the program's."""

    def decorate(kind):
        if isinstance(kind, standin.StandIn):
            raise standin.TestsAtFault("a class that is derived from the program's has a decorator")
        return decorator(kind)

    return decorate


def made(name, bases, space):
    """Create a class as `type(name, bases, space)` does."""
    if not any(isinstance(base, standin.StandIn) for base in bases):
        return type(name, bases, space)
    return derive(name, bases, dict(space), {})
