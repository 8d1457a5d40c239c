"""Runs inside the sandbox: tests that cannot be written as inputs and outputs, with the tested program out of reach.

The program lives in another process, in namespaces of its own. Here its names are stand-ins that send a call and wait
for a reply of plain data. What this process says decides; the tested program never gets a word in.
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

    def ready(self):
        """Wait until the program is loaded; raises with what stopped it."""
        first = self.read()
        if "ready" not in first:
            raise ProgramGone(str(first.get("load", "the program did not load"))[:300])

    def read(self):
        """The next reply."""
        text = self.replies.readline()
        if not text.endswith(b"\n"):
            raise ProgramGone("the program's process has ended")
        try:
            reply = json.loads(text)
        except ValueError:
            raise ProgramGone("the program's process sent something else than a reply") from None
        if not isinstance(reply, dict):
            raise ProgramGone("the program's process sent something else than a reply")
        return reply

    def ask(self, request):
        """The value of one call, or what it raised."""
        data = wire.dumps({**request, "handles": True}).encode("ascii") + b"\n"
        while data:
            try:
                data = data[os.write(ASK, data) :]
            except BrokenPipeError:
                raise ProgramGone("the program's process has ended") from None
        reply = self.read()
        if reply.get("i") != self.index:
            raise ProgramGone("the program's process answered out of turn")
        self.index += 1
        if "raised" in reply:
            kind = getattr(builtins, str(reply["raised"]), None)
            message = str(reply.get("message", ""))[:300]
            if isinstance(kind, type) and issubclass(kind, Exception):
                raise kind(message)
            raise RaisedByProgram(message)
        value = reply.get("value")
        if isinstance(value, dict) and "$handle" in value:
            return StandIn(self, {"handle": int(value["$handle"][0])})
        return wire.decode(value, self.classes)


class StandIn:
    """Something of the tested program's: can be called and asked for attributes."""

    def __init__(self, line, target):
        self.__dict__.update(_line=line, _target=target)

    def __call__(self, *args, **kwargs):
        """Call it there, with plain arguments."""
        given = {
            "args": wire.encode(list(args), self._line.by_class),
            "kwargs": {key: wire.encode(item, self._line.by_class) for key, item in kwargs.items()},
        }
        return self._line.ask({**self._target, **given})

    def __getattr__(self, name):
        """An attribute's value, or a stand-in for it."""
        if name.startswith("__") or "handle" not in self._target:
            raise AttributeError(name)
        return self._line.ask({**self._target, "name": name})


def main():
    """Read `request.json`, run its tests, write one frame: for each test whether it held, and why not."""
    with open("request.json", encoding="ascii") as file:
        request = json.load(file)
    random.seed(0)
    try:
        names = planner.program_names(request)
        space = planner.new_space([request.get("prelude", ""), request.get("setup", "")], request)
    except BaseException as error:
        program.answer({"fault": program.describe(error)})
        return
    classes = {name: space[name] for name in request["classes"]}
    line = Line(classes)
    try:
        line.ready()
    except ProgramGone as gone:
        program.answer({"load": str(gone)})
        return
    for name in names:
        space[name] = StandIn(line, {"name": name})
    results = []
    for source in request["tests"]:
        results.append(run(source, space, request))
    program.answer({"results": results})


def run(source, space, request):
    """Whether one test held."""
    try:
        exec(compile(source, "tests.py", "exec"), space)
        if request.get("check"):
            space[request["check"]](space[request["entry_point"]])
    except AssertionError as error:
        return {"ok": False, "why": f"assertion failed {error}"[:300]}
    except BaseException as error:
        return {"ok": False, "why": program.describe(error)}
    return {"ok": True}


if __name__ == "__main__":  # the sandbox runs it as a script
    main()
