"""Runs inside the sandbox: tests that cannot be written as inputs and outputs, with the tested program out of reach.

The program lives in another process, in namespaces of its own. Here its names are stand-ins that send a call and wait
for a reply of plain data. What this process says decides; the tested program never gets a word in: what it made
itself stays with it and equals nothing that the tests hold.

An operand may be the expected value (`abs(r - 41) < 1e-6`, `41 in r`, `r.count(41) == 1`), so what a function returned
is asked for its attributes, items, length and iteration alone. Only an object made by calling a capitalised name, a
class under test, is given operands and arguments.
"""

# pyright: basic
import builtins
import json
import os
import random

import planner
import program
import wire

ASK, REPLY = 4, 5


class ProgramGone(BaseException):
    """The tested program's process has ended."""


class RaisedByProgram(Exception):
    """The tested program raised something that is not built in."""


class Line:
    """The way to the tested program and back."""

    def __init__(self, classes):
        self.replies = os.fdopen(REPLY, "rb")
        self.classes = classes
        self.by_class = {found: name for name, found in classes.items()}
        self.index = 0
        self.gone = ""
        self.own = set()  # handles of objects of the classes under test, and of their methods

    def fail(self, why):
        """Give the program up: whatever a test does with the exception, it does not hold."""
        self.gone = self.gone or why[:300]
        raise ProgramGone(self.gone)

    def ready(self):
        """Wait until the program is loaded."""
        first = self.read()
        if "ready" not in first:
            self.fail(f"the program does not load: {first.get('load')}")

    def read(self):
        """The next reply."""
        text = self.replies.readline()
        if not text.endswith(b"\n"):
            self.fail("the program's process has ended")
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            self.fail("the program's process sent something else than a reply")
        return reply

    def ask(self, request, *args, **kwargs):
        """The value of one call, or what it raised; arguments that it changed are changed here too."""
        if self.gone:
            self.fail(self.gone)
        given = [self.encode(item) for item in args]
        full = {**request, "args": given, "kwargs": {key: self.encode(item) for key, item in kwargs.items()}}
        return self.exchange(full, args)

    def exchange(self, request, args=()):
        """Send a request and read its reply."""
        data = wire.dumps({**request, "held": True}).encode("ascii") + b"\n"
        try:
            while data:
                data = data[os.write(ASK, data) :]
        except BrokenPipeError:
            self.fail("the program's process has ended")
        reply = self.read()
        if reply.get("i") != self.index:
            self.fail("the program's process answered out of turn")
        self.index += 1
        if "raised" in reply:
            kind = getattr(builtins, str(reply["raised"]), None)
            message = str(reply.get("message", ""))[:300]
            if isinstance(kind, type) and issubclass(kind, Exception):
                raise kind(message)
            raise RaisedByProgram(message)
        after = reply.get("after")
        if isinstance(after, list):
            for ours, theirs in zip(args, after, strict=False):
                assign(ours, wire.decode(theirs, self.classes, self.held))
        return wire.decode(reply.get("value"), self.classes, self.held)

    def encode(self, value):
        """An argument's encoding; stand-ins cross as the handles that they are."""
        return wire.encode(value, self.by_class, handle_of)

    def held(self, number):
        """The stand-in for a handle."""
        return StandIn(self, {"handle": int(number)})


def assign(ours, theirs):
    """Give a changed argument its new content."""
    if type(ours) is not type(theirs):
        return
    if isinstance(ours, (list, bytearray)):
        ours[:] = theirs
    elif isinstance(ours, (dict, set)):
        ours.clear()
        ours.update(theirs)
    elif hasattr(ours, "__dict__") and not isinstance(ours, (type, StandIn)):
        vars(ours).clear()
        vars(ours).update(vars(theirs))


def handle_of(value):
    """The handle of a stand-in, None for anything else."""
    if type(value) is StandIn:
        target = object.__getattribute__(value, "_target")
        if "handle" not in target:
            line = object.__getattribute__(value, "_line")
            named = line.exchange(target)  # the program's own function, handed back to it
            return handle_of(named)
        return target["handle"]
    return None


class StandIn:
    """Something of the tested program's."""

    def __init__(self, line, target, own=False, takes_arguments=True):
        object.__setattr__(self, "_line", line)
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "_own", own)
        object.__setattr__(self, "_takes_arguments", takes_arguments)

    def __call__(self, *args, **kwargs):
        """Call it there."""
        if (args or kwargs) and not self._takes_arguments:
            raise TypeError("a method of what a function returned takes no arguments from the tests")
        result = self._line.ask(self._target, *args, **kwargs)
        if type(result) is StandIn:
            name, number = self._target.get("name", ""), handle_of(result)
            if name[:1].isupper() and "handle" not in self._target:
                self._line.own.add(number)
            made = "name" not in self._target or name[:1].isupper()
            object.__setattr__(result, "_own", made and number in self._line.own)
        return result

    def __getattr__(self, name):
        """An attribute's value, or a stand-in for it."""
        if name.startswith("__"):
            raise AttributeError(name)
        found = self._line.exchange({"handle": handle_of(self), "name": name})
        if type(found) is StandIn:
            object.__setattr__(found, "_own", self._own)
            object.__setattr__(found, "_takes_arguments", self._own)
        return found

    def __setattr__(self, name, value):
        self._line.ask({"do": "setattr"}, self, name, value)

    def __iter__(self):
        return iter(self._line.ask({"do": "list"}, self))

    def __str__(self):
        return str(self._line.ask({"do": "str"}, self))

    def __repr__(self):
        return str(self._line.ask({"do": "repr"}, self))

    def __len__(self):
        return self._line.ask({"do": "len"}, self)

    def __bool__(self):
        return self._line.ask({"do": "bool"}, self) is True

    def __getitem__(self, key):
        return self._line.ask({"do": "getitem"}, self, key)

    def __contains__(self, item):
        return _operation("contains", self, item) is True

    def __ne__(self, other):
        return not self == other

    __hash__ = None  # type: ignore[assignment]


def _operation(name, one, *others):
    """An operation, where the tests' own operands are none of the program's business or its very subject."""
    if not one._own and any(type(other) is not StandIn for other in others):
        raise TypeError("what a function returned is no plain data, and takes no operand from the tests")
    return one._line.ask({"do": name}, one, *others)


def _compared(name):
    """Only two things of the program's are compared by it; with anything of ours it has no say."""

    def method(self, other):
        if type(other) is not StandIn:
            return False if name == "eq" else NotImplemented
        return self._line.ask({"do": name}, self, other) is True

    return method


for _name in ("add", "sub", "mul", "truediv", "mod", "floordiv", "pow", "neg", "abs", "setitem", "delitem"):
    setattr(StandIn, f"__{_name}__", lambda self, *others, _name=_name: _operation(_name, self, *others))
for _name in ("eq", "lt", "le", "gt", "ge"):
    setattr(StandIn, f"__{_name}__", _compared(_name))


def main():
    """Read `request.json`, run its tests, write one frame: for each test whether it held, and why not."""
    with open("request.json", "rb") as file:
        request = json.load(file)
    random.seed(0)
    try:
        names = planner.program_names(request)
        sources = [request.get("prelude", ""), *([] if request["late_setup"] else [request.get("setup", "")])]
        space = planner.new_space(sources, request)
    except BaseException as error:
        program.answer({"fault": program.describe(error)})
        return
    line = Line({name: space[name] for name in request["classes"]})
    try:
        line.ready()
        for name in names:
            space[name] = StandIn(line, {"name": name})
        if request["late_setup"]:
            exec(compile(request["setup"], "setup.py", "exec"), space)
    except BaseException as error:
        program.answer({"load": line.gone or program.describe(error)})
        return
    program.answer({"results": [run(source, space, request, line) for source in request["tests"]]})


def run(source, space, request, line):
    """Whether one test held."""
    why = ""
    try:
        exec(compile(source, "tests.py", "exec"), space)
        if request.get("check"):
            space[request["check"]](space[request["entry_point"]])
    except AssertionError as error:
        why = f"assertion failed {error}"
    except BaseException as error:
        why = program.describe(error) or "raised"
    why = line.gone or why
    return {"ok": False, "why": why[:300]} if why else {"ok": True}
