"""Runs inside the sandbox: runs the tested program in the tests' own process, as mocks need it.

Here a program can manipulate its tests and their results.
"""

# pyright: basic
import sys
import traceback
import types

import channel
import checks
import useless


class Here(channel.Line):
    """Replacement of the connection to another process.

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
        """A new number at each access, because calls are not counted here."""
        self.calls += 1
        return self.calls

    def know(self, classes):
        """Do nothing: there is only one side."""

    def run_there(self, what, *args):
        """Run code here: there is no other process."""
        return (exec if what == "exec" else eval)(*args)

    def keep_methods(self):
        """Do nothing: there are no stand-ins."""

    def raised_by(self, error):
        """Return True if the innermost frame of an exception is the program's."""
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
        """Return the object of a name of the program."""
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self.space[name]
        except KeyError:
            self.lacks.append(name)
            raise AttributeError(f"the program does not define {name}") from None
