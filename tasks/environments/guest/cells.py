"""Runs the cells of an episode in one process: earlier ones again without output, then the new one.

Runs inside the sandbox, which loads this module once for all calls: standard library only. The request is
`cells.json`: {"cells": [source, ...], "seed": number}. Descriptor 3 receives "1" once the new cell has ended by itself,
or "2" where it ended with an exception. The process then ends at once: threads, exit hooks and child processes that a
cell leaves behind do not run on.
"""

# pyright: basic
import ast
import contextlib
import json
import os
import random
import sys
import traceback
import types


def main():
    """Run the cells of `cells.json`."""
    with open("cells.json") as file:
        request = json.load(file)
    os.remove("cells.json")
    os.remove("main.py")
    del sys.modules["cells"]
    own_process = os.getpid()
    random.seed(request["seed"])
    shown = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    names = vars(module)
    direct(nowhere)
    for source in request["cells"][:-1]:
        run(source, names, echo=False)
        end_if_forked(own_process)
    flush()
    direct(shown)
    os.close(shown)
    os.close(nowhere)
    failed = run(request["cells"][-1], names, echo=True)
    end_if_forked(own_process)
    flush()
    os.write(3, b"2" if failed else b"1")
    os._exit(0)


def end_if_forked(own_process):
    """End a process that a cell forked and that has come to the end of its cell."""
    if os.getpid() != own_process:
        flush()
        os._exit(0)


def direct(descriptor):
    """Send standard output and standard error to one descriptor."""
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def flush():
    """Write out both streams."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()


def run(source, names, echo):
    """Execute a cell; print the value of a last expression, or the last line of an exception. True: it failed."""
    try:
        tree = ast.parse(source, "cell.py")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell.py", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell.py", "eval"), names)
            if echo and value is not None:
                print(repr(value))
    except SystemExit as stop:
        if echo and stop.code not in (None, 0):
            print(f"SystemExit: {stop.code}")
        return stop.code not in (None, 0)
    except BaseException as error:
        if echo:
            flush()
            print(message(error))
        return True
    return False


def message(error):
    """The last line of a traceback, with the line of the cell that failed."""
    line = None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == "cell.py":
            line = frame.lineno
    if isinstance(error, SyntaxError):
        line = error.lineno
    said = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
    return f"{said} (line {line})" if line else said
