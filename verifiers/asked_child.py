"""Child process that answers questions until its owner closes the pipe; it is killed at a limit of CPU seconds."""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import signal
import struct
import sys
from typing import BinaryIO

from verifiers.child_process import limit

HEADER = struct.Struct("<I")
ADDRESS_SPACE = 3 << 30
"""Limit of the child's address space, in bytes."""
LONGEST = 4_000
"""Most characters of an answer; longer ones are cut."""


def main(answerer: str, cpu_seconds: float) -> None:
    """Answer pickled questions from standard input on standard output, one line per answer.

    The line "ready" is printed once the answerer is imported, and again after each answer.

    Args:
        answerer: `module:function`, which takes the parts of a question and returns text.
        cpu_seconds: limit for one question; the process is killed when it is exceeded.
    """
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_AS, ADDRESS_SPACE)
    sys.setrecursionlimit(10_000)
    module, _, function = answerer.partition(":")
    decide = getattr(importlib.import_module(module), function)
    while True:
        print("ready", file=answers, flush=True)
        question = _question(questions)
        if question is None:
            os._exit(0)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # CPU time; SIGPROF ends the process, whatever it is doing
        try:
            answer = decide(*pickle.loads(question))
        except (MemoryError, RecursionError) as error:
            answer = f"limit: {type(error).__name__}"
        except Exception as error:  # SymPy and z3 raise many classes for what they cannot do
            answer = f"unknown: {type(error).__name__}: {error}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(" ".join(answer.split())[:LONGEST], file=answers, flush=True)


def _question(stream: BinaryIO) -> bytes | None:
    """Read one pickled question; return None if the owner is gone."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    (length,) = HEADER.unpack(header)
    body = stream.read(length)
    return body if len(body) == length else None
