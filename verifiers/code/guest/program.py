"""Runs inside the sandbox beside the tested program: calls it with inputs and writes down what it returned.

Nothing here is secret and nothing here decides: no expected value and no verdict enters this process. What it writes
to descriptor 3 is taken as the program's own claim, whoever wrote it.
"""

# pyright: basic
import json
import os
import sys
import types

import wire

CHANNEL = 3
ANSWERS_BUFFER = 1 << 16


def main():
    """Load the program, then answer calls from `request.json` or, when serving, from standard input."""
    with open("request.json", encoding="ascii") as file:
        request = json.load(file)
    module = types.ModuleType("solution")
    module.__file__ = "solution.py"
    sys.modules["solution"] = module
    space = vars(module)
    try:
        for name in ("code", "setup"):
            if request.get(name):
                exec(compile(request[name], f"{name}.py", "exec"), space)
    except BaseException as error:  # the program's own, whatever it is
        answer({"load": describe(error)})
        os._exit(0)
    classes = [space[name] for name in request.get("classes", ()) if isinstance(space.get(name), type)]
    world = World(space, classes)
    if request.get("serve"):
        serve(world)
    else:
        for index, call in enumerate(request["calls"]):
            answer({"i": index, **world.reply(call)})
    answer({"done": True})
    os._exit(0)


def serve(world):
    """Answer one call a line until the other side closes standard input."""
    answer({"ready": True})
    for index, line in enumerate(sys.stdin.buffer):
        answer({"i": index, **world.reply(json.loads(line))})


class World:
    """The program's namespace, and the objects of it that the other side holds handles to."""

    def __init__(self, space, classes):
        self.space = space
        self.by_class = {found: found.__name__ for found in classes}
        self.by_name = {name: found for found, name in self.by_class.items()}
        self.handles = []

    def reply(self, call):
        """What one call gives: a value, a handle, or what it raised."""
        try:
            result = self.perform(call)
        except BaseException as error:
            return {"raised": type(error).__name__, "message": describe(error)}
        try:
            return {"value": self.encode(result, call)}
        except BaseException as error:
            return {"raised": "CannotCross", "message": describe(error)}

    def perform(self, call):
        """Do what a request says: evaluate source, look something up, or call."""
        if "source" in call:
            if call.get("capture"):
                return self.captured(call)
            return eval(compile(call["source"].strip(), "<input>", "eval"), self.space)
        if "handle" in call:
            target = self.handles[call["handle"]]
            if "name" in call:
                target = getattr(target, call["name"])
        else:
            target = self.space[call["name"]]
        if "args" not in call:
            return target
        args = wire.decode(call["args"], self.by_name)
        kwargs = {key: wire.decode(item, self.by_name) for key, item in call.get("kwargs", {}).items()}
        return target(*args, **kwargs)

    def captured(self, call):
        """The arguments of the outermost call of a function in an expression."""
        name = call["capture"]
        original = self.space.get(name)
        seen = []

        def recorder(*args, **kwargs):
            result = original(*args, **kwargs) if callable(original) else None
            seen.append((list(args), kwargs))
            return result

        space = {**self.space, name: recorder}
        eval(compile(call["source"].strip(), "<input>", "eval"), space)
        if not seen:
            raise ValueError(f"the expression does not call {name}")
        return seen[-1]

    def encode(self, result, call):
        """The value's encoding, or a handle where the other side can use one."""
        if not call.get("handles"):
            return wire.encode(result, self.by_class)
        plain = wire.encode(result, self.by_class)
        if isinstance(plain, dict) and "$opaque" in plain:
            self.handles.append(result)
            kind = "class" if isinstance(result, type) else "function" if callable(result) else "object"
            return {"$handle": [len(self.handles) - 1, kind, type(result).__name__]}
        return plain


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


if __name__ == "__main__":
    main()
