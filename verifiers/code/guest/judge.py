"""Runs inside the sandbox beside the tests: what one of them came to, and whose doing it is."""

# pyright: basic
import checks
import program
import standin

OWN_FAULTS = (ImportError, NameError, SyntaxError, OSError, EOFError)
"""What a program's data does not lead a test to raise."""


def held(once, line, trees, flow):
    """Whether a test held: run, and where the program changed arguments run again with what it answered.

    Args:
        once: runs it.
        line: to the program.
        trees: of the test, and of all that it may call.
        flow: of names in them.
    """
    begin(line)
    begun = line.index
    try:
        once()
    except BaseException as error:
        return failure(error, line, begun)
    return judged(once, line, trees, flow)


def begin(line):
    """Forget the test before."""
    line.checks.begin()
    line.record, line.changes, line.failed = [], [], ""
    line.watched = []


def judged(once, line, trees, flow):
    """The result of a test that ran through."""
    compared, made = line.checks.made, line.checks.any
    if line.gone or line.failed:
        return {"ok": False, "why": line.gone or line.failed}
    if line.changes and mixed_up(once, line):
        return {"ok": False, "why": f"only the program's own change of its argument makes it hold: {line.checks.mixed}"}
    if not any(map(checks.has_check, trees)):
        return {"ok": True, "bare": True}
    reached = compared or (made and not checks.depends_on_program(trees, flow))
    if reached:
        return {"ok": True}
    return {"ok": False, "why": "the test ends before anything is compared", "unreached": True}


def mixed_up(once, line):
    """Whether a result differs from what it is compared with, where that is made of arguments as they were before."""
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
    """What a test came to that raised: the program's doing, or, under `fault`, the tests' own.

    Args:
        begun: the number of the first call of the program that was the test's.
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
        return {"ok": False, "why": why[:300]}  # the program was to make that file
    if (isinstance(error, OWN_FAULTS) and not line.raised_by(error)) or (line.index == begun and not line.constants):
        return {"ok": False, "fault": why[:300]}
    return {"ok": False, "why": why[:300]}


def lacking(name, line):
    """What a test came to that needs a name which the program does not define."""
    if name in line.called or not line.globals_found:
        return {"ok": False, "why": f"the program does not define {name}"}
    return {"ok": False, "fault": f"name {name!r} is not defined: neither by the tests nor by the program"}


def of_the_program(error):
    """Whether an exception is the program's, or was raised because of one."""
    seen = []
    while error is not None and not any(error is one for one in seen):
        if getattr(error, "__of_the_program__", False):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
