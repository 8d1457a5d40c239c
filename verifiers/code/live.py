"""Running tests unchanged, in a process and namespaces apart from the tested program's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from sandbox.api import Job, JobOutcome, JobResult, Limits
from verifiers.code.bounds import Frame, first_frame
from verifiers.code.guests import (
    OVER_LIMIT,
    PROGRAM_MODULES,
    TESTER_MODULES,
    TRUSTED_LIMITS,
    Results,
    SandboxFault,
    how_it_ended,
    job_of,
)
from verifiers.code.references import listed, whole_prelude
from verifiers.errors import BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.verdict import JSON

AGREE = "agree"
USELESS = ("return None", "raise", "return the argument", AGREE)
"""Names of programs that do nothing useful: `verifiers.code.guest.useless.PROGRAMS`."""


def run_live(
    run: Callable[[Job], JobResult],
    limits: Limits,
    request: Frame,
    reference: Mapping[str, JSON],
    plan: Mapping[str, object],
    *,
    shared: bool = False,
    strict: bool = False,
) -> Results:
    """Run tests against a program.

    Args:
        run: function that runs a job in a sandbox, and raises if the sandbox fails.
        limits: of the program.
        request: request for the program's process.
        reference: the tests.
        plan: why the tests cannot become cases, and what they need.
        strict: True: the program's objects do not answer for what the tests' own classes define.
        shared: True: the tests run in the program's own process, as mocks need it.
    Raises:
        BadReference: the tests fail by themselves, or compare nothing.
        SandboxFault: the program's sandbox failed.
    """
    late = plan.get("late_setup") is True
    classes: list[JSON] = [] if late else [str(name) for name in listed_names(plan)]
    given: Frame = {
        **reference,
        "prelude": whole_prelude(reference),
        "late_setup": late,
        "classes": classes,
        "strict": strict,
    }
    result = _run_shared(run, limits, request, given) if shared else _run_apart(run, limits, request, given)
    helper = result.helper
    over = result.outcome in OVER_LIMIT or (helper is not None and helper.outcome in OVER_LIMIT)
    mode = "shared" if shared else "tester"
    answer = first_frame(result.result)
    if "fault" in answer:
        raise BadReference(f"the tests do not run by themselves: {answer['fault']}")
    results = answer.get("results")
    rows = [row for row in results if is_object(row)] if is_list(results) else []
    total = len(rows) or (1 if reference.get("check") else len(listed(reference, "tests")))
    if not rows:
        why = str(answer.get("load") or (how_it_ended(helper) if helper and over else how_it_ended(result)))
        return Results(0, total, why, over, mode)
    return _summed(rows, over, mode)


def _run_apart(run: Callable[[Job], JobResult], limits: Limits, request: Frame, given: Frame) -> JobResult:
    allowed = replace(TRUSTED_LIMITS, wall_seconds=limits.wall_seconds + TRUSTED_LIMITS.wall_seconds)
    serve = job_of("program", {**request, "serve": True}, PROGRAM_MODULES, limits)
    result = run(replace(job_of("tester", given, TESTER_MODULES, allowed), helper=serve))
    if result.helper is not None and result.helper.outcome is JobOutcome.INFRASTRUCTURE_FAULT:
        raise SandboxFault(result.helper.detail)
    return result


def _run_shared(run: Callable[[Job], JobResult], limits: Limits, request: Frame, given: Frame) -> JobResult:
    return run(job_of("tester", {**given, "shared": request}, TESTER_MODULES, limits))


def listed_names(plan: Mapping[str, object]) -> list[object]:
    """Return the names of a plan's classes."""
    found = plan.get("classes")
    return [*found] if isinstance(found, list) else []  # pyright: ignore[reportUnknownVariableType]


def _summed(rows: list[Frame], over: bool, mode: str) -> Results:
    """Sum up the rows of tests; each says if it passed, compared nothing ("bare"), or is itself at fault ("fault")."""
    faults = [str(row["fault"]) for row in rows if "fault" in row]
    if faults:
        raise BadReference(f"the tests fail by themselves: {faults[0]}")
    failed = [row for row in rows if row.get("ok") is not True]
    counted = [row for row in rows if row.get("bare") is not True]
    if not counted:
        raise BadReference(NOTHING_COMPARED)
    reason = str(failed[0].get("why", "")) if failed else ""
    unreached = sum(row.get("unreached") is True for row in failed)
    return Results(len(counted) - len(failed), len(counted), reason, over and bool(failed), mode, unreached)


NOTHING_COMPARED = "the tests contain no comparison that the program could fail."


STRICT = "strict"


def vacuous(run_useless: Callable[[str, bool], Results], *, classes: bool, shared: bool) -> str:
    """Find a useless program that passes all of the tests; return its name, STRICT, or an empty text.

    A program whose objects compare equal to everything may pass because they stand in for instances of the tests' own
    classes. If no useless program passes in strict mode, the result is STRICT: programs are then tested strictly too.

    Args:
        run_useless: returns the results of a useless program, from its name and the strict flag.
        classes: True if the tests have classes of their own.
        shared: True if the tests run in the program's process, where its objects may compare equal to anything.
    """
    passing = _passing(run_useless, strict=False, shared=shared)
    if passing != AGREE or not classes:
        return passing
    return _passing(run_useless, strict=True, shared=shared) or STRICT


def _passing(run_useless: Callable[[str, bool], Results], *, strict: bool, shared: bool) -> str:
    for name in USELESS[:-1] if shared else USELESS:
        try:
            results = run_useless(name, strict)
        except BadReference:
            continue  # it makes the tests themselves fail, so they do require something of a program
        free = results.passed + (results.unreached if name != AGREE else 0)
        if free == results.total:
            return name
    return ""


def refuse_vacuous(passing: str) -> None:
    """Reject tests that a useless program passes.

    Args:
        passing: name of the useless program that passes; empty for none.
    Raises:
        BadReference: a useless program passes.
    """
    if passing and passing != STRICT:
        raise BadReference(f"the tests are passed by a program that does nothing useful ({passing}).")
