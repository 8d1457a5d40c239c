"""Runs inside the sandbox beside the tested program: calls it with inputs and writes down what it returned.

Nothing here is secret and nothing here decides: no expected value and no verdict enters this process. What it writes
to descriptor 3 is taken as the program's own claim, whoever wrote it.
"""

# pyright: basic
import json
import operator
import os
import sys
import types

import wire

CHANNEL = 3
ANSWERS_BUFFER = 1 << 16
OPERATIONS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv, "mod": operator.mod,
    "floordiv": operator.floordiv, "pow": operator.pow, "neg": operator.neg, "abs": abs, "eq": operator.eq,
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "len": len, "str": str, "repr": repr,
    "bool": bool, "list": list, "getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem,
    "contains": operator.contains, "setattr": setattr,
}  # fmt: skip
"""What the other side may do with something that stays here, beside calling it."""


def main():
    """Load the program, then answer calls from `request.json` or, when serving, from standard input."""
    with open("request.json", "rb") as file:
        request = json.load(file)
    calls = None
    if request.get("serve"):
        calls = os.fdopen(os.dup(0), "rb")  # standard input is for the program, and empty
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
    module = types.ModuleType("solution")
    module.__file__ = "solution.py"
    sys.modules["solution"] = module
    space = vars(module)
    try:
        for name in ("prelude", "code", "setup"):
            if request.get(name):
                exec(compile(request[name], f"{name}.py", "exec"), space)
    except BaseException as error:  # the program's own, whatever it is
        answer({"load": describe(error)})
        os._exit(0)
    classes = [space[name] for name in request.get("classes", ()) if isinstance(space.get(name), type)]
    world = World(space, classes)
    if calls is not None:
        answer({"ready": True})
        for index, line in enumerate(calls):
            answer({"i": index, **world.reply(json.loads(line))})
    else:
        for index, call in enumerate(request["calls"]):
            answer({"i": index, **world.reply(call)})
    os._exit(0)


class World:
    """The program's namespace, and the objects of it that the other side holds handles to."""

    def __init__(self, space, classes):
        self.space = space
        self.by_class = {found: found.__name__ for found in classes}
        self.by_name = {name: found for found, name in self.by_class.items()}
        self.held = []
        self.solution = None
        """The one instance of a LeetCode program's class, whose methods are called by their bare names."""

    def reply(self, call):
        """What one call gives: a value, a handle, or what it raised; and its arguments where it changed them."""
        given = None
        try:
            if "source" in call:
                result = eval(compile(call["source"].strip(), "<input>", "eval"), self.space)
            else:
                target = self.target(call)
                given = {
                    "args": [self.decode(item) for item in call.get("args", ())],
                    "kwargs": {key: self.decode(item) for key, item in call.get("kwargs", {}).items()},
                }
                result = target(*given["args"], **given["kwargs"]) if "args" in call else target
        except BaseException as error:
            return {"raised": kind_of(error), "message": describe(error)}
        try:
            reply = {"value": self.encode(result, call)}
            if given and "args" in call and call.get("held"):
                after = [self.encode(item, call) for item in given["args"]]
                if after != call["args"]:
                    reply["after"] = after
            return reply
        except BaseException as error:
            return {"raised": "CannotCross", "message": describe(error)}

    def target(self, call):
        """What a call names: a global of the program's, an attribute of something held, an operation."""
        if "do" in call:
            return OPERATIONS[call["do"]]
        if "handle" in call:
            found = self.held[call["handle"]]
            return getattr(found, call["name"]) if "name" in call else found
        name = call["name"]
        solution = self.space.get("Solution")
        if isinstance(solution, type) and hasattr(solution, name):
            self.solution = self.solution or solution()
            return getattr(self.solution, name)
        return self.space[name]

    def encode(self, value, call):
        """The value's encoding; a handle in it where the other side can use one."""
        return wire.encode(value, self.by_class, self.keep if call.get("held") else None)

    def keep(self, value):
        """A handle for what cannot cross."""
        for number, kept in enumerate(self.held):
            if kept is value:
                return number
        self.held.append(value)
        return len(self.held) - 1

    def decode(self, tree):
        """The value of an argument."""
        return wire.decode(tree, self.by_name, self.held.__getitem__)


def kind_of(error):
    """The name of the built-in exception that it is, or is made from."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")


def describe(error):
    """Type and message of an exception, short."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return "an exception that cannot be shown"


def answer(frame):
    """Write one frame, a line of ASCII."""
    left = wire.dumps(frame).encode("ascii") + b"\n"
    while left:
        left = left[os.write(CHANNEL, left[:ANSWERS_BUFFER]) :]
