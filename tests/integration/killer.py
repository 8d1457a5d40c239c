"""Runs a config and kills its own process with SIGKILL, at the n-th arrival at a named moment.

killer.py CONFIG MOMENT COUNT     one process, which goes on from the newest checkpoint and dies
killer.py serve                   the same for every line `CONFIG MOMENT COUNT` of standard input, in a fork of this
                                  process, which imports what the first one did; answers with the exit status and what
                                  was counted

Moments are the functions in `places`, and
  file      the n-th time that a file or folder of the run is opened, made, renamed or removed, once the run is open
  closing   the same, from the end of the last step to the closing mark
  time      n milliseconds after the run is open, killed from outside; at the latest where it closes
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from reasoner.engine.environment import prepare_process

prepare_process()

import reasoner.session.session as session  # noqa: E402
import reasoner.storage.files as files  # noqa: E402
from reasoner.config.load import load_config  # noqa: E402
from reasoner.engine.hf import HfEngine  # noqa: E402
from reasoner.engine.remote import Server  # noqa: E402
from reasoner.engine.server import ServerEngine  # noqa: E402
from reasoner.policy.policy import Policy  # noqa: E402
from reasoner.stages.pipeline import run_pipeline  # noqa: E402
from reasoner.storage.run_folder import RunFolder  # noqa: E402
from verifiers.pool import GradingPool  # noqa: E402

places: dict[str, tuple[object, str]] = {
    "generation": (HfEngine, "generate"),
    "grading": (GradingPool, "submit"),
    "records": (RunFolder, "write_rollouts"),
    "annotate": (Policy, "annotate"),
    "update": (Policy, "step"),
    "sync": (session.Session, "sync"),
    "checkpoint": (files, "_sync_tree"),
    "metrics": (RunFolder, "log"),
    "evaluation": (session.Session, "evaluate"),
    "completion": (ServerEngine, "_complete"),
    "load": (Server, "load"),
}
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: object, name: str, action: Callable[[], None]) -> None:
    """Wrap a function so that an action runs before it."""
    original: Callable[..., object] = getattr(owner, name)

    def preceded(*args: object, **kwargs: object) -> object:
        action()
        return original(*args, **kwargs)

    setattr(owner, name, preceded)


class Counter:
    """A counter of operations on the files of a run, by phase, which kills the process at a given one."""

    def __init__(self, folder: str, phase: str, count: int) -> None:
        self.folder, self.phase, self.left = folder, phase, count
        self.now = "opening"
        self.seen = {"opening": 0, "file": 0, "closing": 0, "done": 0}
        self.began, self.milliseconds = 0.0, 0
        self.saved = 0
        """Count of operations during closing, before the final model was written."""

    def begin(self, phase: str) -> None:
        if phase == "closing" and self.phase == "time":
            die()
        self.began = self.began or time.monotonic()
        self.milliseconds = int(1000 * (time.monotonic() - self.began))
        self.now = phase

    def audit(self, event: str, args: tuple[object, ...]) -> None:
        if event not in FILE_EVENTS or not args or not str(args[0]).startswith(self.folder):
            return
        self.seen[self.now] += 1
        if self.phase == self.now or (self.phase == "file" and self.now == "closing"):
            self.left -= 1
            if self.left < 0:
                die()
        if event == "os.rename" and str(args[1]).endswith("done.json"):
            self.now = "done"

    def at_save(self) -> None:
        self.saved = self.seen["closing"]


def main(config: str, moment: str, count: int, opened: Callable[[], None] = lambda: None) -> Counter:
    stage = load_config(config)
    counter = Counter(stage.output, moment, count)
    if moment in places:
        left = [count]

        def arrive() -> None:
            left[0] -= 1
            if left[0] < 0:
                die()

        before(*places[moment], arrive)
    elif moment != "never":
        before(RunFolder, "begin", lambda: counter.begin("file"))
        before(RunFolder, "begin", opened)
        before(session.Session, "finish", lambda: counter.begin("closing"))
        before(session, "save_model", counter.at_save)
        sys.addaudithook(counter.audit)
    run_pipeline(stage, resume=True)
    return counter


def attempt(config: str, moment: str, count: int) -> dict[str, object]:
    """Run one process with the config; return its exit status, and its counts if it reached the end."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        status = 1
        try:
            counter = main(config, moment, count, opened=lambda: print("opened", file=os.fdopen(os.dup(theirs), "w")))
            said = {
                "counted": {**counter.seen, "saved": counter.saved, "milliseconds": counter.milliseconds},
                "modules": [*sys.modules],
            }
            os.write(theirs, json.dumps(said).encode())
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(theirs)
    with os.fdopen(ours) as told:
        if moment == "time" and told.readline():
            time.sleep(count / 1000)
            os.kill(child, signal.SIGKILL)
        text = told.read().removeprefix("opened\n")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not text:
        return {"status": status}
    found = json.loads(text)
    for name in found["modules"]:
        with suppress(Exception):  # a module that another one made up
            importlib.import_module(name)
    return {"status": status, **found["counted"]}


def serve() -> None:
    for line in sys.stdin:
        config, moment, count = line.split()
        print(json.dumps(attempt(config, moment, int(count))), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
