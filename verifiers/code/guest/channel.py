"""Runs inside the sandbox with the tests: the connection to the tested program's process."""

# pyright: basic
import builtins
import json
import os
import re
import sys
import threading
from typing import Any

import checks
import handed
import standin
import wire

ASK, REPLY = 4, 5
MOST_MIRRORED = 16
MOST_CODE = 10_000
"""Most characters of a returned text that are searched for names of the tests."""


class Line:
    """Connection to the tested program.

    Args:
        makers: names of the program that the tests treat as classes.
    """

    def __init__(self, makers=()):
        self.replies = os.fdopen(REPLY, "rb")
        self.by_name = {}
        self.by_class = {}
        self.files = {}
        self.handed = set()
        """Paths that occurred in arguments."""
        self.lock = threading.RLock()
        self.depth = 0
        """Depth of calls of the program that are now calling a function of the tests."""
        self.watched = []
        """Lists, dicts and sets read from attributes by methods of test classes derived from the program's."""
        self.read_there = frozenset()
        """Attributes that the tests read."""
        self.kept = frozenset()
        """Names that are only read from instances of the tests' own classes."""
        self.makers = frozenset(makers)
        self.index = 0
        self.gone = ""
        self.errors = {}
        self.globals = {}
        self.callbacks = []
        self.thrown = []
        """Exceptions of the tests' own functions that the program called."""
        self.made = {}
        """Objects that the tests made by calling a class of the program: handle -> (name, stand-in, arguments)."""
        self.mirrored = []
        """Lists, dicts and sets of the tests that were passed to calls, and that the program may still refer to."""
        self.record = []
        self.changes = []
        """Arguments that calls changed: the object, and its encodings before and after."""
        self.again = None  # the recorded replies, while a test runs a second time
        self.checks = checks.Checks()
        self.failed = ""
        self.called = set()
        """Names that the tests call."""
        self.globals_found = []
        self.constants = []
        """Names of the program that are plain data."""
        self.lacks = []
        """Names that were requested and that the program does not define."""

    def know(self, classes):
        """Allow the transfer of instances of these classes of the tests (by name), which both sides define."""
        self.by_name.update(classes)
        self.by_class.update((found, name) for name, found in classes.items())

    def before(self):
        """Restore the first content of the arguments that calls changed."""
        for given, tree, _ in reversed(self.changes):
            standin.assign(given, wire.decode(tree, self.by_name, self.held), {})

    def after(self):
        """Restore the last content of these arguments."""
        for given, _, tree in self.changes:
            standin.assign(given, wire.decode(tree, self.by_name, self.held), {})

    def keep_methods(self):
        """Read from now on nothing from the program's objects that the tests' own classes define."""
        self.kept = frozenset(name for kind in self.by_class for base in kind.__mro__[:-1] for name in vars(base))
        self.makers = frozenset(name for name in self.makers if name[:1].isupper())

    def raised_by(self, error):
        """Return True if an exception came from the program's own code in this process."""
        return False

    def fail(self, why):
        """Give up on the program: the test fails, whatever it does with the exception."""
        self.gone = self.gone or why[:300]
        raise standin.ProgramGone(self.gone)

    def ready(self):
        """Wait until the program is loaded."""
        first = self.read()
        if "ready" not in first:
            self.fail(f"the program does not load: {first.get('load')}")

    def read(self):
        """Read the next message."""
        text = self.replies.readline()
        if not text.endswith(b"\n"):
            self.fail("the program's process has ended")
        try:
            reply = json.loads(text)
        except (ValueError, RecursionError):
            reply = None
        if not isinstance(reply, dict):
            self.fail("the program's process sent something other than a reply")
        return reply

    def send(self, message):
        """Send a message as one line."""
        data = wire.dumps(message).encode("ascii") + b"\n"
        try:
            while data:
                data = data[os.write(ASK, data) :]
        except BrokenPipeError:
            self.fail("the program's process has ended")

    def ask(self, request, args, kwargs=None):
        """Make one call; return its value or raise its exception. Arguments that it changed are changed here too."""
        if self.gone:
            self.fail(self.gone)
        given = [[*args], kwargs or {}]
        try:
            tree = wire.encode(given, self.by_class, self.handle)
        except wire.CannotCross as why:
            raise standin.TestsAtFault(f"an argument cannot be passed to the program: {why}") from None
        mirrors = [self.mirror_number(item) for item in given[0]]
        return self.exchange({**request, "given": tree, "mirrors": mirrors, **self.hand_files(given)}, given)

    def watch(self, of, name, found):
        """Remember the value of an attribute, which a method may change in place."""
        if type(found) in (list, dict, set):
            self.watched = [*self.watched[1 - MOST_MIRRORED :], (of, name, found, self.text_of(found))]

    def settle(self):
        """Copy what test methods did to lists, dicts and sets of the program to the program's own objects."""
        for place, (of, name, found, text) in enumerate(self.watched):
            if (now := self.text_of(found)) == text:
                continue
            self.watched[place] = (of, name, found, now)
            target = {"handle": self.handle(of)[0], "name": name}
            if self.text_of(self.value(self.answered(target, None))) != text:
                raise standin.TestsAtFault(f"{name} is changed by the program and by a method of the tests at once")
            tree = wire.encode([[(of, name, found)], {}], self.by_class, self.handle)
            self.value(self.answered({"do": "refill", "given": tree}, None))

    def text_of(self, value):
        """Return a value's encoding as text, for comparisons."""
        return wire.dumps(wire.encode(value, self.by_class, self.handle))

    def note(self, name, made, args, kwargs):
        """Remember an object that the tests made by calling a class of the program."""
        number = self.handle(made)[0]
        found = self.made.setdefault(number, {"name": name, "standin": made, "arguments": set()})
        found["arguments"].add(wire.dumps(wire.encode([[*args], kwargs], self.by_class, self.handle)))

    def content(self, made):
        """Return the content of an object of the program as text; empty if it cannot be had."""
        try:
            return str(self.ask({"do": "content"}, [made]))
        except Exception:
            return ""

    def mirror_number(self, item):
        """Return the number by which the program knows a list, dict or set of the tests; None for anything else."""
        if type(item) not in (list, dict, set):
            return None
        number = next((n for n, known in enumerate(self.mirrored) if known is item), None)
        if number is None and len(self.mirrored) < MOST_MIRRORED:
            self.mirrored.append(item)
            number = len(self.mirrored) - 1
        return number

    def run_there(self, what, text, names=None, *more):
        """Run `eval` or `exec` of a text that the program returned in the program's process."""
        frame = sys._getframe(1)
        known = {}
        for name in set(re.findall(r"\w+", str(text)[:MOST_CODE])) if names is None else ():
            value = frame.f_locals.get(name, frame.f_globals.get(name))
            if type(value) in (int, float, str, bool, list, tuple, dict):
                known[name] = value
        found = self.ask({"do": what}, [text, known if names is None else {**names, **(more[0] if more else {})}])
        if what == "exec":
            into = names if isinstance(names, dict) else frame.f_globals
            into.update(found)
            return None
        return found

    def hand_files(self, given):
        """Return the part of a request with the files that arguments name and that the program does not have yet."""
        paths = handed.paths_in([*given[0], *given[1].values()]) if self.again is None else []
        if not paths:
            return {}
        self.handed.update(paths)
        found = handed.contents(paths) | {os.path.dirname(path) or ".": None for path in paths}
        fresh = {path: content for path, content in found.items() if self.files.get(path, self) != content}
        self.files.update(fresh)
        return {"watch": paths, "files": wire.encode(fresh)}

    def take_files(self, request, reply):
        """Write the files that the program changed to this side's disk."""
        if "watch" not in request or "files" not in reply:
            return
        changed = wire.decode(reply["files"])
        if isinstance(changed, dict):
            handed.put(changed, request["watch"])
            self.files.update(changed)

    def exchange(self, request, given=None):
        """Send a request and read its reply; meanwhile the program may call functions of the tests."""
        if self.again is not None:
            reply = next(self.again, None)
            if reply is None:
                raise standin.RaisedByProgram("the tests ask for more than the first time")
            return self.value(reply)
        with self.lock:
            self.settle()
            return self.value(self.answered(request, given))

    def answered(self, request, given):
        """Send a request and return the reply; calls of the tests' functions are answered meanwhile."""
        index = self.index
        self.index += 1
        self.send({**request, "held": True, "i": index})
        reply = self.read()
        while "back" in reply or "read" in reply:
            self.depth += 1
            self.called_back(reply)
            self.depth -= 1
            reply = self.read()
        if reply.get("i") != index:
            self.fail("the program's process answered in the wrong order")
        if not self.depth:
            self.record.append(reply)
        self.take_files(request, reply)
        for number, tree in reply.get("held_changed", ()):
            ours = self.mirrored[number]
            self.changes.append((ours, wire.encode(ours, self.by_class, self.handle), tree))
            standin.assign(ours, wire.decode(tree, self.by_name, self.held), {})
        if given is not None and "after" in reply:
            self.changes.append((given, request["given"], reply["after"]))
            standin.assign(given, wire.decode(reply["after"], self.by_name, self.held), {})
        return reply

    def value(self, reply):
        """Return a reply's value or raise its exception; print here what was printed there."""
        for name in ("out", "err"):
            if isinstance(reply.get(name), str):
                getattr(sys, "std" + name).write(reply[name])
        if "raised" in reply:
            raise self.error(reply)
        return wire.decode(reply.get("value"), self.by_name, self.held)

    def called_back(self, message):
        """Answer the program's call of a function of the tests, or its read of the input that they provide."""
        try:
            if "read" in message:
                args, kwargs = wire.decode(message["given"], self.by_name, self.held)
                readers = {"input": input, "readline": sys.stdin.readline, "read": sys.stdin.read}
                result = readers[str(message["read"])](*args)
            else:
                function = self.callbacks[message["back"]]
                args, kwargs = wire.decode(message["given"], self.by_name, self.held)
                result = function(*args, **kwargs)
            self.send({"answer": wire.encode(result, self.by_class, self.handle)})
        except Exception as error:
            if isinstance(error, AssertionError):
                self.failed = self.failed or f"assertion failed {error}"[:300]
            kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")
            self.thrown.append(error)
            self.send({"answer": None, "raised": kind, "text": str(error)[:300], "number": len(self.thrown) - 1})

    def error(self, reply):
        """Return the exception that a reply describes, as the tests see it."""
        number = reply.get("of_tests")
        if type(number) is int and 0 <= number < len(self.thrown):
            return standin.marked(self.thrown[number])
        name = str(reply["raised"])
        kind = getattr(builtins, name, None)
        text = self.text(reply.get("text")) or str(reply.get("message", ""))[:300]
        if name in checks.STOPPERS:
            return standin.marked(standin.StoppedByProgram(f"{name}: {text}"))
        if not isinstance(kind, type) or not issubclass(kind, (Exception, SystemExit)):
            return standin.marked(standin.RaisedByProgram(str(reply.get("message", ""))[:300]))
        own = reply.get("own")
        if isinstance(own, list) and own:
            kind = self.error_class([str(part) for part in own], name)
        try:
            args = wire.decode(reply.get("args", []), self.by_name, self.held)
            error = kind.__new__(kind, *args)
            error.__init__(*args)
        except Exception:
            error = kind.__new__(kind)
            error.args = (text,)
        if own:
            vars(error)["__text__"] = text
        self.dress(error, reply.get("fields"))
        return standin.marked(error)

    def text(self, tree):
        try:
            found = wire.decode(tree)
        except wire.CannotCross:
            return ""
        return found if isinstance(found, str) else ""

    def dress(self, error, fields):
        """Give an exception the attributes of the program's, except those that its class defines."""
        try:
            found = wire.decode(fields, self.by_name, self.held) if fields else {}
        except wire.CannotCross:
            return
        for name, value in found.items() if isinstance(found, dict) else ():
            if isinstance(name, str) and not name.startswith("__") and not hasattr(type(error), name):
                setattr(error, name, value)

    def error_class(self, names, base):
        """Return the class for an exception class of the program; `names` are those of it and its own bases."""
        key = (*names, base)
        if key not in self.errors:
            parent = self.error_class(names[1:], base) if names[1:] else getattr(builtins, base)
            text = {"__str__": lambda error: vars(error).get("__text__", parent.__str__(error))}
            self.errors[key] = type(names[0], (parent,), text)
        return self.errors[key]

    def handle(self, value) -> Any:
        """Return the handle of a value that cannot be transferred: of an object of the program, or a function here."""
        if isinstance(value, standin.StandIn):
            target = object.__getattribute__(value, "_target")
            if "handle" not in target:
                value = self.exchange(target)  # the program's own function, passed back to it
                target = object.__getattribute__(value, "_target") if isinstance(value, standin.StandIn) else target
            return object.__getattribute__(value, "_body") if "handle" in target and "name" not in target else None
        if value in self.globals.values() if isinstance(value, type) else False:
            return next(json.loads(key) for key, found in self.globals.items() if found is value)
        if callable(value):
            if not any(value is found for found in self.callbacks):
                self.callbacks.append(value)
            number = next(n for n, found in enumerate(self.callbacks) if found is value)
            return ["callback", number, str(getattr(value, "__name__", "function"))]
        if hasattr(type(value), "__next__"):
            return None  # its items are transferred
        raise standin.TestsAtFault(f"a value of type {type(value).__name__} cannot be passed to the program")

    def held(self, body):
        """Return the stand-in for a handle."""
        if body[0] == "callback":
            return self.callbacks[body[1]]
        number, kind, *more = body if len(body) > 1 else (body[0], "object")
        if kind == "exception":
            found = self.error_class([str(name) for name in more[0]], str(more[1]))
            self.globals[json.dumps(body)] = found
            return found
        made = standin.StandIn(self, {"handle": int(number)}, body=body)
        if kind == "coroutine":
            return awaiting(self, int(number))
        return coming(self, made) if kind == "iterator" else made

    def named(self, name):
        """Return a name of the tested program as the tests see it: data, an exception class, or a stand-in.

        Raises:
            AttributeError: the program does not define it.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            found = self.exchange({"name": name})
        except KeyError:
            self.lacks.append(name)
            raise AttributeError(f"the program does not define {name}") from None
        if isinstance(found, standin.StandIn):
            return standin.StandIn(self, {"name": name}, own=True)
        if name in self.called and not callable(found):
            self.fail(f"{name} of the program is not callable")
        self.constants.append(name)
        return found


async def awaiting(line, number):
    """Await a coroutine of the program."""
    return line.exchange({"await": number})


def coming(line, made):
    """Yield the items of an iterator of the program."""
    sent = None
    while True:
        try:
            found = line.ask({"do": "next"}, [made]) if sent is None else line.ask({"do": "send"}, [made, sent])
        except standin.StoppedByProgram:
            return
        sent = yield found
