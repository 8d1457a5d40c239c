"""Runs inside the sandbox: the tested program in the tests' own process, as mocks need it.

A program can do here whatever it likes with its tests, and with what is said of them.
"""

# pyright: basic
import sys
import traceback
import types

import channel
import checks
import useless


class Here(channel.Line):
    """What stands in the place of a way to another process.

    Args:
        request: with `shared`: prelude, code and setup of the program, or the name of a useless one.
    """

    def __init__(self, request):
        self.request = request["shared"]
        self.checks = checks.Checks()
        self.gone = self.failed = ""
        self.lacks, self.globals_found, self.called, self.record, self.constants = [], [], set(), [], []
        self.changes = ()
        self.handed = ()
        self.again = None
        self.calls = 0

    @property
    def index(self):
        """Another number whenever it is asked for: nobody counts the calls."""
        self.calls += 1
        return self.calls

    def know(self, classes):
        """There is one side only."""

    def run_there(self, what, *args):
        """There is no other process to run code in."""
        return (exec if what == "exec" else eval)(*args)

    def keep_methods(self):
        """There are no stand-ins."""

    def raised_by(self, error):
        """Whether the innermost frame of an exception is the program's."""
        frames = traceback.extract_tb(error.__traceback__)
        return bool(frames) and frames[-1].filename == "code.py"

    def ready(self):
        """Load the program."""
        module = sys.modules["solution"] = types.ModuleType("solution")
        self.space = vars(module)
        for name in ("prelude", "code", "setup"):
            if self.request.get(name):
                source = self.request[name].encode("utf-8", "backslashreplace")
                try:
                    exec(compile(source, f"{name}.py", "exec"), self.space)
                except BaseException as error:
                    self.fail(f"the program does not load: {type(error).__name__}: {error}")
        if self.request.get("useless"):
            self.space = useless.space(self.request["useless"])

    def named(self, name):
        """A name of the program, as it is."""
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self.space[name]
        except KeyError:
            self.lacks.append(name)
            raise AttributeError(f"the program does not define {name}") from None
