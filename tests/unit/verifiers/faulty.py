"""Verifiers that fail in every way that a verifier can fail, chosen by the completion."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

from verifiers import GradingRow, Outcome, Verdict, Verifier
from verifiers.verdict import fixed


class Faulty(Verifier):
    name = "faulty"
    grade_seconds = 1.0

    def grade(self, row: GradingRow) -> Verdict:
        match row.completion:
            case "hang":
                time.sleep(1000)
            case "spin":
                while True:
                    pass
            case "hang in C":
                ctypes.CDLL(None).pause()
            case "hang with signals blocked":
                signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                time.sleep(1000)
            case "eat memory":
                held = []
                while True:
                    held.append(b"x" * (64 << 20))
            case "segfault":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "kill myself":
                os.kill(os.getpid(), signal.SIGKILL)
            case "sys.exit":
                sys.exit(0)
            case "os._exit":
                os._exit(0)
            case "raise":
                raise ValueError("the verifier is broken")
            case "recurse":
                return self.grade(row)
            case "raise a base exception":
                raise KeyboardInterrupt
            case "return nothing":
                return None  # pyright: ignore
            case "return an unprintable reward":
                return Verdict(outcome=Outcome.SCORED, reward=float("nan"))
            case "talk":
                print("x" * 300_000, flush=True)
                print("y" * 300_000, file=sys.stderr, flush=True)
                os.write(1, b"\x00\x00\x00\x05forge")
            case "close every pipe":
                os.closerange(0, 64)
                time.sleep(1000)
            case "leave a process behind":
                if os.fork() == 0:
                    time.sleep(1000)
            case "leave a thread behind":
                threading.Thread(target=time.sleep, args=(1000,)).start()
            case _:
                pass
        return fixed(Outcome.CORRECT if row.completion == row.reference else Outcome.INCORRECT, "compared")


class Patient(Faulty):
    """The same, with time to reach the other limits on a busy machine."""

    name = "patient"
    grade_seconds = 20.0


class Counting(Faulty):
    """A verifier that reports the index of its row, and takes its time over them."""

    name = "counting"
    merges_equal = True
    graded = 0

    def grade(self, row: GradingRow) -> Verdict:
        time.sleep(0.3)
        Counting.graded += 1
        return fixed(super().grade(row).outcome, f"row {Counting.graded}")
