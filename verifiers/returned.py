"""Results of users' functions: await asynchronous ones, and convert one number or say what to return instead.

A 0-d tensor or array counts as a number; text, None, lists and dicts do not.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Awaitable, Iterable
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, cast

from verifiers.errors import BadReturn

if TYPE_CHECKING:  # importing asyncio takes as long as the rest of the verifiers' interface
    import asyncio

_loops: list[asyncio.AbstractEventLoop] = []
_starting = threading.Lock()


def finished(result: object) -> object:
    """Return the result of a call, awaited if the function is asynchronous."""
    return all_finished([result])[0] if inspect.isawaitable(result) else result


def all_finished(results: Iterable[object]) -> list[object]:
    """Return the results of several calls, in order; awaitable ones run concurrently.

    All run on one event loop of this process, in its own thread. Objects that a function keeps between calls (a
    session, a semaphore) therefore stay usable, and the caller may itself run in an event loop.
    """
    given = list(results)
    waiting = [place for place, result in enumerate(given) if inspect.isawaitable(result)]
    if waiting:
        import asyncio

        found = asyncio.run_coroutine_threadsafe(_together([given[place] for place in waiting]), _loop()).result()
        for place, result in zip(waiting, found, strict=True):
            given[place] = result
    return given


async def _together(waiting: list[object]) -> list[object]:
    import asyncio

    return list(await asyncio.gather(*cast("list[Awaitable[object]]", waiting)))


def _loop() -> asyncio.AbstractEventLoop:
    import asyncio

    with _starting:
        if not _loops:
            _loops.append(asyncio.new_event_loop())
            threading.Thread(target=_loops[0].run_forever, name="awaiting-rewards", daemon=True).start()
        return _loops[0]


def as_number(result: object, *, who: str, wants: str) -> float:
    """Convert a function's result to a finite float.

    Args:
        result: a bool, a number, or a tensor or array without dimensions.
        who: name of the function, for the error.
        wants: what it must return, for the error.
    Raises:
        BadReturn: the result is anything else, or not finite; the message says what to return instead.

    Example:
        >>> as_number(0.5, who="mine", wants="a number")
        0.5
    """
    number = result
    shape = getattr(result, "shape", None)
    if shape is not None and callable(getattr(result, "item", None)):
        if tuple(shape) != ():
            raise BadReturn(f"{who} must return {wants}; got {_kind(result)} of shape {tuple(shape)}. {_ONE_NUMBER}")
        number = cast("float", result.item())  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    if not isinstance(number, Real | Decimal):
        raise BadReturn(f"{who} must return {wants}; got {_shown(result)}. {_advice(result)}")
    value = float(number)
    if not math.isfinite(value):
        raise BadReturn(
            f"{who} must return {wants}; got {value}. Return 0.0 for a wrong answer, and raise BadReference for a row"
            " that has no reward"
        )
    return value


_ONE_NUMBER = "Return the number of this completion alone, such as float(x.mean())"


def _kind(result: object) -> str:
    module = type(result).__module__.partition(".")[0]
    return type(result).__name__ if module == "builtins" else f"{module}.{type(result).__name__}"


def _shown(result: object) -> str:
    text = repr(result)
    return "None" if result is None else f"{_kind(result)} {text if len(text) <= 60 else text[:57] + '...'}"


def _advice(result: object) -> str:
    if result is None:
        return "Some path through the function has no `return`: return 0.0 for a wrong answer"
    if isinstance(result, str):
        return "Return float(...) of the text"
    if isinstance(result, list | tuple | dict | set):
        return "Return the number itself, without the rest; a reason goes into a Verdict"
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        return "Use `return`, not `yield`"
    return "Return a plain number"
