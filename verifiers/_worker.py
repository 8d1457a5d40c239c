"""A grading worker: reads rows from its standard input, writes one framed verdict a row. Started by the pool alone."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import traceback
from typing import BinaryIO, cast

from verifiers.base import GradingRow, Verifier
from verifiers.registry import get_verifier
from verifiers.verdict import JSON, Outcome, fixed

HEADER = struct.Struct(">I")
PR_SET_PDEATHSIG = 1
MAX_FRAME = 256 << 20


def write_frame(stream: BinaryIO, value: JSON) -> None:
    """Write one length-prefixed JSON value."""
    body = json.dumps(value).encode()
    stream.write(HEADER.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: BinaryIO) -> JSON:
    """Read one value.

    Raises:
        EOFError: the other side is gone.
    """
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    (length,) = HEADER.unpack(header)
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    return cast("JSON", json.loads(body))


def main(address_space_bytes: int) -> None:
    """Grade rows until the owner closes the pipe or dies."""
    _die_with_owner()
    _limit(resource.RLIMIT_AS, address_space_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    rows, verdicts = _private_pipes()
    verifiers: dict[str, Verifier] = {}
    write_frame(verdicts, {"kind": "ready"})
    while True:
        try:
            chunk = cast("list[dict[str, JSON]]", read_frame(rows))
        except EOFError:
            os._exit(0)
        for row in chunk:
            write_frame(verdicts, {"kind": "verdict", "verdict": _grade(row, verifiers, verdicts)})


def _grade(row: dict[str, JSON], verifiers: dict[str, Verifier], verdicts: BinaryIO) -> JSON:
    key = json.dumps([row["verifier"], row["options"]], sort_keys=True)
    try:
        if key not in verifiers:
            write_frame(verdicts, {"kind": "loading"})
            verifiers[key] = get_verifier(str(row["verifier"]), **cast("dict[str, JSON]", row["options"]))
            verifiers[key].name = str(row["name"])  # pyright: ignore[reportAttributeAccessIssue]
            write_frame(verdicts, {"kind": "loaded"})
        grading = GradingRow(
            completion=str(row["completion"]),
            reference=row["reference"],
            prompt=cast("str | None", row["prompt"]),
            info=cast("dict[str, JSON]", row["info"]),
        )
        verdict = verifiers[key].verify_batch([grading])[0].to_json()
        json.dumps(verdict)
        return verdict
    except BaseException as error:  # the boundary: whatever a verifier raises is its own fault, named as such
        return fault_verdict(error, str(row["name"]))


def fault_verdict(error: BaseException, name: str) -> JSON:
    """verifier_error with the exception's type, message and place."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    verdict = fixed(Outcome.VERIFIER_ERROR, f"{type(error).__name__}: {error}{place}"[:2000])
    return {**verdict.to_json(), "verifier": name}


def _die_with_owner() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the pipes out of the way of whatever a verifier prints or reads."""
    rows = os.fdopen(os.dup(0), "rb")
    verdicts = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return rows, verdicts
