"""Grading worker process: reads rows from standard input, writes framed verdicts. Started only by the pool."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import resource
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import BinaryIO, NotRequired, TypedDict

from verifiers.base import GradingRow, Verifier
from verifiers.child_process import limit
from verifiers.errors import BadOption, BadReference, UnknownVerifier
from verifiers.registry import get_verifier, restrict, verifier_class
from verifiers.verdict import JSON, Outcome, fixed

HEADER = struct.Struct(">I")
PR_SET_PDEATHSIG = 1
MAX_FRAME = 256 << 20
MADE = 64
MADE_CHARACTERS = 16 << 20
"""Most verifiers that a worker caches, and most characters of all their options; the least recently used is dropped."""


Row = tuple[str, JSON, str | None, dict[str, JSON]]
"""Completion, reference, prompt and info of a row."""


class Chunk(TypedDict):
    """Frame to the worker: rows of one verifier, in batches of the size it asks for."""

    name: str
    verifier: str
    options: dict[str, JSON]
    check: bool
    """True: the rows' references are checked; nothing is graded."""
    batches: list[list[Row]]


class Needs(TypedDict):
    """Limits and settings of a created verifier: its attributes of the same names."""

    grade_seconds: float
    memory_bytes: int | None
    batch_rows: int
    concurrency: int | None
    merges_equal: bool


class Answer(TypedDict):
    """Frame from the worker."""

    kind: str
    """ready, loading (importing), making (creating with the options), loaded, refused or verdicts."""
    verdicts: NotRequired[list[dict[str, JSON]]]
    """Verdicts of one batch."""
    needs: NotRequired[Needs]
    """Needs of the verifier that was loaded."""
    refused: NotRequired[tuple[str, str]]
    """Name of the exception (`BadOption` or `UnknownVerifier`) and its message."""


def frame(value: Chunk | Answer) -> bytes:
    """Return a JSON value with its length as a prefix."""
    body = json.dumps(value).encode()
    return HEADER.pack(len(body)) + body


def read_chunk(stream: BinaryIO) -> Chunk:
    """Read one frame.

    Raises:
        EOFError: the pipe was closed.
    """
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise EOFError
    (length,) = HEADER.unpack(header)
    body = stream.read(length)
    if len(body) < length:
        raise EOFError
    chunk: Chunk = json.loads(body)
    return chunk


def main(address_space_bytes: int, allowed: Sequence[str] | None) -> None:
    """Grade rows until the owner closes the pipe or dies."""
    _die_with_owner()
    limit(resource.RLIMIT_AS, address_space_bytes)
    limit(resource.RLIMIT_CORE, 0)
    if allowed is not None:
        restrict(allowed)
    rows, verdicts = _private_pipes()

    def write(answer: Answer) -> None:
        verdicts.write(frame(answer))
        verdicts.flush()

    cache = _VerifierCache(write)
    write({"kind": "ready"})
    while True:
        try:
            chunk = read_chunk(rows)
        except EOFError:
            os._exit(0)
        for batch in chunk["batches"]:
            try:
                verifier = cache.get(chunk)
            except (BadOption, UnknownVerifier) as error:
                write({"kind": "refused", "refused": (type(error).__name__, str(error)[:2000])})
            except BaseException as error:  # boundary: whatever a verifier raises becomes its verifier_error
                write({"kind": "verdicts", "verdicts": [fault_verdict(error, chunk["name"])] * len(batch)})
            else:
                grade = _check if chunk["check"] else _grade
                write({"kind": "verdicts", "verdicts": grade(batch, verifier, chunk["name"])})


class _VerifierCache:
    """Cache of the verifiers that this worker has created."""

    def __init__(self, write: Callable[[Answer], None]) -> None:
        self._write = write
        self._kept: dict[bytes, tuple[int, Verifier]] = {}
        """Digest of name and options -> (number of their characters, the verifier)."""

    def get(self, chunk: Chunk) -> Verifier:
        """Return the verifier of a chunk, created if it is not cached."""
        text = json.dumps([chunk["verifier"], chunk["options"]], sort_keys=True)
        key = hashlib.sha256(text.encode()).digest()
        found = self._kept.pop(key, None)
        if found is None:
            found = len(text), self._make(chunk)
        self._kept[key] = found
        while len(self._kept) > MADE or (
            len(self._kept) > 1 and sum(size for size, _ in self._kept.values()) > MADE_CHARACTERS
        ):
            del self._kept[next(iter(self._kept))]
        return found[1]

    def _make(self, chunk: Chunk) -> Verifier:
        self._write({"kind": "loading"})
        verifier_class(chunk["verifier"])
        self._write({"kind": "making"})
        made = get_verifier(chunk["verifier"], **chunk["options"])
        made.name = chunk["name"]
        needs: Needs = {
            "grade_seconds": made.grade_seconds,
            "memory_bytes": made.memory_bytes,
            "batch_rows": made.batch_rows,
            "concurrency": made.concurrency,
            "merges_equal": made.merges_equal,
        }
        self._write({"kind": "loaded", "needs": needs})
        return made


def _check(batch: list[Row], verifier: Verifier, name: str) -> list[dict[str, JSON]]:
    """Check the references of a batch; return verdicts, `correct` for usable references."""
    return [_check_one(reference, verifier, name) for _, reference, _, _ in batch]


def _check_one(reference: JSON, verifier: Verifier, name: str) -> dict[str, JSON]:
    try:
        verifier.check_references(reference)
    except BadReference as error:
        return {**fixed(Outcome.BAD_REFERENCE, str(error)).to_json(), "verifier": name}
    except BaseException as error:  # boundary, as above
        return fault_verdict(error, name)
    return {**fixed(Outcome.CORRECT, "the reference is usable").to_json(), "verifier": name}


def _grade(batch: list[Row], verifier: Verifier, name: str) -> list[dict[str, JSON]]:
    try:
        rows = [
            GradingRow(completion=completion, reference=reference, prompt=prompt, info=info)
            for completion, reference, prompt, info in batch
        ]
        verdicts = [verdict.to_json() for verdict in verifier.verify_batch(rows)]
        json.dumps(verdicts)
        return verdicts
    except BaseException as error:  # boundary, as above; a failed batch is graded row by row
        if len(batch) == 1:
            return [fault_verdict(error, name)]
        return [_grade([row], verifier, name)[0] for row in batch]


def fault_verdict(error: BaseException, name: str) -> dict[str, JSON]:
    """Return a `verifier_error` verdict, as JSON, with the exception's type, message, file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    told = getattr(error, "says_where", False)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames and not told else ""
    hint = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        hint = f". Install {error.name.partition('.')[0]!r} where the verifier runs"
    verdict = fixed(Outcome.VERIFIER_ERROR, f"{type(error).__name__}: {error}{place}{hint}"[:2000])
    return {**verdict.to_json(), "verifier": name}


def _die_with_owner() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the pipes to other descriptors, so that a verifier's prints and reads cannot disturb them."""
    rows = os.fdopen(os.dup(0), "rb")
    verdicts = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return rows, verdicts
