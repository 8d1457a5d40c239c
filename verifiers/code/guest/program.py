"""Runs inside the sandbox with the tested program: calls it with inputs and reports what it returned.

Nothing here is secret and nothing here decides: no expected value and no verdict enters this process. What is written
to descriptor 3 is treated as the program's own claim, whoever wrote it.
"""

# pyright: basic
import builtins
import io
import json
import operator
import os
import sys
import types

import handed
import useless
import wire

CHANNEL = 3
ANSWERS_BUFFER = 1 << 16
PRINTED = 100_000
"""Most characters printed by one call that the tests see."""
OPERATIONS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv, "mod": operator.mod,
    "floordiv": operator.floordiv, "pow": operator.pow, "matmul": operator.matmul, "and": operator.and_,
    "or": operator.or_, "xor": operator.xor, "lshift": operator.lshift, "rshift": operator.rshift,
    "neg": operator.neg, "pos": operator.pos, "invert": operator.invert, "abs": abs,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "len": len, "str": str, "repr": repr, "bool": bool, "int": int, "float": float, "hash": hash, "list": list,
    "getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem,
    "contains": operator.contains, "setattr": setattr, "delattr": delattr, "next": next, "iter": iter,
    "isinstance": isinstance, "issubclass": issubclass, "doc": lambda held: held.__doc__,
    "name": lambda held: held.__name__, "kind": type, "reversed": lambda held: list(reversed(held)),
    "enter": lambda held: type(held).__enter__(held), "round": round,
}  # fmt: skip
"""Operations, besides calls, that the other side may apply to an object that stays here."""
for _name in ("add", "sub", "mul", "truediv", "mod", "floordiv", "pow"):
    OPERATIONS["r" + _name] = lambda held, other, _do=OPERATIONS[_name]: _do(other, held)


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
                source = request[name].encode("utf-8", "backslashreplace")  # a lone surrogate as its escape
                exec(compile(source, f"{name}.py", "exec"), space)
    except BaseException as error:  # of the program, whatever it is
        answer({"load": describe(error)})
        os._exit(0)
    classes = [space[name] for name in request.get("classes", ()) if isinstance(space.get(name), type)]
    if request.get("useless"):
        space = useless.space(request["useless"])
    world = World(space, classes, calls, own=request.get("own"))
    if calls is not None:
        world.borrow_input()
        answer({"ready": True})
        for line in calls:
            world.serve(json.loads(line))
    else:
        for index, call in enumerate(request["calls"]):
            answer({"i": index, **world.reply(call)})
    os._exit(0)


class Own(dict):
    """Mapping of every class that the program defines to its name."""

    def __contains__(self, kind):
        return getattr(kind, "__module__", "") == "solution"

    def __missing__(self, kind):
        return kind.__qualname__


class World:
    """The program's namespace, and its objects to which the other side has handles.

    Args:
        space: the namespace.
        classes: classes of the tests that both sides define.
        lines: requests of the other side, while serving.
        own: True: instances of the program's own classes are transferred as their fields.
    """

    def __init__(self, space, classes, lines=None, own=False):
        self.space = space
        self.by_class = Own() if own else {found: found.__name__ for found in classes}
        self.by_name = {found.__name__: found for found in classes}
        self.lines = lines
        self.served, self.most = 0, useless.MOST_ANSWERS if type(space) is useless.Everything else sys.maxsize
        self.thrown = {}
        self.mirrored = {}  # objects of the tests that the program may refer to: number -> value, its encoding then
        self.files = {}
        self.handed_over = {}  # functions of the tests, and their handles there
        self.held = []
        self.numbers = {}
        self.solution = None
        """Single instance of a LeetCode program's class, whose methods are called by their bare names."""

    def serve(self, call):
        """Answer one request of the other side; a useless program answers only a limited number."""
        self.served += 1
        if self.served > self.most:
            os._exit(0)
        answer({"i": call.get("i"), **self.reply(call)})

    def reply(self, call):
        """Make one call; return its value, a handle or what it raised, and the arguments if it changed them."""
        given = before = None
        if "files" in call:
            handed.put(wire.decode(call["files"]))
            self.files.update(handed.contents(call["watch"]))
        printed = self.catch_output() if call.get("held") else None
        try:
            if "source" in call:
                result = eval(compile(call["source"].strip(), "<input>", "eval"), self.space)
            elif "await" in call:
                result = run_coroutine(self.held[call["await"]])
            else:
                target = self.target(call)
                given = self.arguments(call)
                before = self.encode(given[0], call) if given and call.get("after") else None
                result = target(*given[0], **given[1]) if given else target
        except BaseException as error:
            return self.raised(error, call) | self.changes(call, given) | shown(printed) | self.changed_files(call)
        try:
            reply = {"value": self.encode(result, call), **self.changes(call, given)}
            if given and before is not None and (after := self.encode(given[0], call)) != before:
                reply["after"] = after
            return reply | shown(printed) | self.changed_files(call)
        except BaseException as error:
            return {"raised": "CannotCross", "message": describe(error)} | shown(printed)

    def changed_files(self, call):
        """Return, as part of a reply, the tests' files that have changed."""
        if "watch" not in call:
            return {}
        found = handed.contents(call["watch"])
        changed = {path: content for path, content in found.items() if self.files.get(path, self) != content}
        self.files.update(changed)
        return {"files": wire.encode(changed)} if changed else {}

    def arguments(self, call):
        """Return the arguments as a list of values and a dict; None if nothing is called."""
        if "given" in call:
            given = self.decode(call["given"])
            for place, number in enumerate(call.get("mirrors", ())):
                if number is not None:
                    given[0][place] = self.borrowed(number, given[0][place])
            return given
        if "args" not in call:
            return None
        kwargs = {key: self.decode(item) for key, item in call.get("kwargs", {}).items()}
        return [[self.decode(item) for item in call["args"]], kwargs]

    def borrowed(self, number, fresh):
        """Return the object that represents a list, dict or set of the tests, with its present content."""
        if number not in self.mirrored:
            self.mirrored[number] = [fresh, None]
        known = self.mirrored[number][0]
        if known is not fresh:
            known.clear()
            known.extend(fresh) if isinstance(known, list) else known.update(fresh)
        return known

    def changes(self, call, given):
        """Return, as part of a reply, how the call changed its arguments and those of earlier calls."""
        reply = {}
        if given and "given" in call:
            after = self.encode(given, call)
            if after != call["given"]:
                reply["after"] = after
        if "held" not in call:
            return reply
        now = [number for number in call.get("mirrors", ()) if number is not None]
        changed = []
        for number, known in self.mirrored.items():
            tree = self.encode(known[0], call)
            if number not in now and known[1] is not None and tree != known[1]:
                changed.append([number, tree])
            known[1] = tree
        return {**reply, "held_changed": changed} if changed else reply

    def raised(self, error, call):
        """Return the description of an exception for the other side."""
        found: dict = {"raised": kind_of(error), "message": describe(error)}
        if id(error) in self.thrown:
            found["of_tests"] = self.thrown[id(error)][1]
        if call.get("held"):
            found["text"] = text_of(error)
            found["own"] = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ != "builtins"]
            for name, part in (("args", lambda: list(error.args)), ("fields", lambda: dict(vars(error)))):
                try:
                    found[name] = self.encode(part(), call)
                except BaseException:
                    continue
        return found

    def target(self, call):
        """Return what a call refers to: a global of the program, an attribute of an object held here, an operation."""
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
        if call.get("held") and name not in self.space and hasattr(builtins, name):
            return getattr(builtins, name)
        return self.space[name]

    def encode(self, value, call):
        """Encode a value, with handles if the other side can use them."""
        return wire.encode(value, self.by_class, self.keep if call.get("held") else None)

    def keep(self, value):
        """Return the handle of an object that cannot be transferred: number, kind, and further names."""
        if id(value) in self.handed_over:
            return self.handed_over[id(value)][1]
        number = self.numbers.get(id(value))
        if number is None:
            number = self.numbers[id(value)] = len(self.held)
            self.held.append(value)
        return [number, *kind_of_held(value)]

    def decode(self, tree):
        """Decode an argument."""
        return wire.decode(tree, self.by_name, self.handed)

    def handed(self, body):
        """Return the object of a handle: an object kept here, or a function that calls one of the tests."""
        if body[0] != "callback":
            return self.held[body[0]]

        def of_the_tests(*args, **kwargs):
            return self.ask({"back": body[1]}, args, kwargs)

        of_the_tests.__name__ = body[2]
        self.handed_over[id(of_the_tests)] = (of_the_tests, body)
        return of_the_tests

    def ask(self, request, args=(), kwargs=None):
        """Call one of the tests' own functions on the other side; return its value."""
        answer({**request, "given": wire.encode([[*args], kwargs or {}], self.by_class, self.keep)})
        for line in self.lines or ():
            message = json.loads(line)
            if "answer" in message:
                if "raised" in message:
                    raise self.error_of_tests(message)
                return self.decode(message["answer"])
            self.serve(message)
        os._exit(0)

    def error_of_tests(self, message):
        """Return an exception that represents one raised by the tests' own function."""
        error = getattr(builtins, message["raised"], Exception)(message["text"])
        self.thrown[id(error)] = (error, message["number"])
        return error

    def borrow_input(self):
        """Let the program read the tests' replacement of standard input."""
        world = self

        class Input(io.TextIOBase):
            def readline(self, size=-1):
                return world.ask({"read": "readline"})

            def read(self, size=-1):
                return world.ask({"read": "read"})

            def __iter__(self):
                return iter(self.readline, "")

        builtins.input = lambda prompt="": self.ask({"read": "input"}, [str(prompt)])
        sys.stdin = Input()

    def catch_output(self):
        """Replace the standard streams by buffers; return the original ones."""
        kept = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
        return kept


def shown(kept):
    """Restore the standard streams; return, as part of a reply, what was printed meanwhile."""
    if kept is None:
        return {}
    found = {}
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        text = stream.getvalue()[:PRINTED] if type(stream) is io.StringIO else ""
        if text:
            found[name] = wire.encode(text)
    sys.stdout, sys.stderr = kept
    return found


loops = []
"""Event loop of the program, once it has one."""


def run_coroutine(found):
    """Run an awaitable; return its result."""
    import asyncio

    async def wait():
        return await found

    if not loops:
        loops.append(asyncio.new_event_loop())
    return loops[0].run_until_complete(wait())


def as_exception(name, text):
    """Return the arguments of `__exit__` for an exception of the tests, or for None."""
    kind = getattr(builtins, name, Exception) if name else None
    return kind, None if kind is None else kind(text), None


def run_code(text, names):
    """Run a text that the program returned; return the names that it defines."""
    space = dict(names)
    exec(text, space)
    return {name: value for name, value in space.items() if name != "__builtins__"}


def subclass(made):
    """Create a class that the tests derive from classes of the program; its methods are theirs."""
    name, bases, parts = made
    kinds = {"static": staticmethod, "class": classmethod, "property": property}
    space = {key: kinds[how](*found) if how in kinds else found[0] for key, (how, *found) in parts.items()}
    return types.new_class(name, bases, {}, lambda into: into.update(space, __module__="solution"))


def refill(made):
    """Replace the content of a list, dict or set that is an attribute of an object."""
    held, name, content = made
    found = getattr(held, name)
    found.clear()
    found.extend(content) if isinstance(found, list) else found.update(content)


OPERATIONS |= {
    "subclass": subclass,
    "refill": refill,
    "super": lambda made: getattr(super(*made[:2]), made[2]),
    "anext": lambda held: run_coroutine(held.__anext__()),
    "aiter": lambda held: held.__aiter__(),
    "aenter": lambda held: run_coroutine(held.__aenter__()),
    "exit": lambda held, *told: type(held).__exit__(held, *as_exception(*told)),
    "aexit": lambda held, *told: run_coroutine(held.__aexit__(*as_exception(*told))),
    "send": lambda held, value: held.send(value),
    "exec": run_code,
    "eval": lambda text, names: eval(text, dict(names)),
    "content": lambda held: wire.dumps(wire.encode(held, Own())),
}


def kind_of_held(value):
    """Return the kind of an object kept here, which tells what the other side can do with it, and further names."""
    kind = type(value)
    if isinstance(value, type) and issubclass(value, BaseException):
        return ["exception", [found.__name__ for found in value.__mro__ if found.__module__ != "builtins"], base(value)]
    if isinstance(value, type):
        return ["class", value.__name__]
    if hasattr(kind, "__await__"):
        return ["coroutine"]
    if hasattr(kind, "__next__") and kind.__module__ != "solution":
        return ["iterator"]
    return ["function" if isinstance(value, FUNCTIONS) else "object"]


FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType)


def base(kind):
    """Return the name of the built-in class that a class is or is derived from."""
    return next(found.__name__ for found in kind.__mro__ if found.__module__ == "builtins")


def kind_of(error):
    """Return the name of the built-in exception class that an exception belongs to."""
    return base(type(error))


def text_of(error):
    """Return the encoded message of an exception; empty if there is none."""
    try:
        return wire.encode(str(error)[:PRINTED])
    except BaseException:
        return ""


def describe(error):
    """Return the type and message of an exception, at most 300 characters."""
    try:
        return f"{type(error).__name__}: {error}"[:300]
    except BaseException:
        return "an exception that cannot be shown"


def answer(frame):
    """Write one frame as a line of ASCII."""
    left = wire.dumps(frame).encode("ascii") + b"\n"
    while left:
        left = left[os.write(CHANNEL, left[:ANSWERS_BUFFER]) :]
