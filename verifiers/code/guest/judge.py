"""Runs inside the sandbox with the tests: decides the result of a test, and if the program or the tests failed."""

# pyright: basic
import checks
import program
import standin

OWN_FAULTS = (ImportError, NameError, SyntaxError, OSError, EOFError)
"""Exceptions that a program's data does not make a test raise."""


def held(once, line, trees, flow):
    """Run a test and return its result; if the program changed arguments, run it again with the recorded replies.

    Args:
        once: function that runs it.
        line: connection to the program.
        trees: of the test, and of all that it may call.
        flow: of the names in them.
    """
    begin(line)
    begun = line.index
    try:
        once()
    except BaseException as error:
        return failure(error, line, begun)
    return judged(once, line, trees, flow)


def begin(line):
    """Clear the state of the previous test."""
    line.checks.begin()
    line.record, line.changes, line.failed = [], [], ""
    line.watched = []


def judged(once, line, trees, flow):
    """Return the result of a test that raised nothing."""
    compared, made = line.checks.made, line.checks.any
    if line.gone or line.failed:
        return {"ok": False, "why": line.gone or line.failed}
    if line.changes and mixed_up(once, line):
        return {"ok": False, "why": f"it passes only because the program changed its argument: {line.checks.mixed}"}
    if not any(map(checks.has_check, trees)):
        return {"ok": True, "bare": True}
    reached = compared or (made and not checks.depends_on_program(trees, flow))
    if reached:
        return {"ok": True}
    return {"ok": False, "why": "the test ends before anything is compared", "unreached": True}


def mixed_up(once, line):
    """Return True if a comparison fails with the arguments as they were before the calls."""
    line.again, line.checks.again = iter([*line.record]), True
    line.checks.mixed = ""
    line.before()
    try:
        once()
    except BaseException as error:
        if not line.checks.mixed and not isinstance(error, Exception):
            raise
    finally:
        line.again, line.checks.again = None, False
        line.after()
    return bool(line.checks.mixed)


def failure(error, line, begun):
    """Return the result of a test that raised an exception; under `fault` if the tests are at fault, not the program.

    Args:
        error: the exception.
        line: connection to the program.
        begun: number of the first call of the program that belongs to the test.
    """
    why = f"assertion failed {error}" if isinstance(error, AssertionError) else program.describe(error) or "raised"
    if line.gone:
        return {"ok": False, "why": line.gone[:300]}
    if isinstance(error, standin.TestsAtFault):
        return {"ok": False, "fault": str(error)[:300]}
    if of_the_program(error) or isinstance(error, AssertionError):
        return {"ok": False, "why": why[:300]}
    if isinstance(error, NameError) and error.name in line.lacks:
        return lacking(error.name, line)
    if isinstance(error, OSError) and str(error.filename) in line.handed:
        return {"ok": False, "why": why[:300]}  # the program should have made that file
    if (isinstance(error, OWN_FAULTS) and not line.raised_by(error)) or (line.index == begun and not line.constants):
        return {"ok": False, "fault": why[:300]}
    return {"ok": False, "why": why[:300]}


def lacking(name, line):
    """Return the result of a test that needs a name which the program does not define."""
    if name in line.called or not line.globals_found:
        return {"ok": False, "why": f"the program does not define {name}"}
    return {"ok": False, "fault": f"name {name!r} is not defined: neither by the tests nor by the program"}


def of_the_program(error):
    """Return True if an exception is the program's, or was raised because of one."""
    seen = []
    while error is not None and not any(error is one for one in seen):
        if getattr(error, "__of_the_program__", False):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
