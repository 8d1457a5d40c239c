"""Replies of the Python tool through the grading pool, with hostile calls among honest ones. Prints one JSON object.

    python benchmarks/environment_replies.py                                  # 10,000 replies, 5 % hostile, bubblewrap
    python benchmarks/environment_replies.py --backend docker --replies 2000
    python benchmarks/environment_replies.py --hostile 0                      # what honest calls alone cost
    python benchmarks/environment_replies.py --hostile 0 --backend unsafe-host --replies 40     # must find marks

Replies are asked for as training asks for them: episodes in rounds, every row of a round submitted at once, the pool of
a config's `grading` section. The right reply to each honest call is known. Each episode, honest or hostile, leaves its
mark wherever it can write, and each honest call looks for the marks of others. The exit status is 1 after a wrong
reply, a foreign mark, an ungraded reply, or if anything is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from reasoner.config.load import resolve
from reasoner.rollout.grading import grading_pool
from sandbox.api import JobOutcome
from sandbox.attacks import Attack, attacks
from sandbox.docker import OWNER_LABEL
from sandbox.engine import engine
from tasks import Turn
from tasks.environments import Episode, Reply
from tasks.environments.asked import ASKED, Choice, asked_options, asked_row, reply_in
from verifiers.pool import GradingPool

MARK = "mark-of-episode-"
ROUND = 256
"""Episodes of a round, as in a step of training."""
SETTLE_SECONDS = 15.0
FOLDERS = (".", "/tmp", "/dev/shm", "/var/tmp", "/dev", "/work", os.path.expanduser("~"))
"""Where marks are left; looked at on this machine too."""

LEAVE = """\
import builtins, os, sys
def leave(mark):
    setattr(builtins, "mark", mark)
    os.environ["MARK"] = mark
    for folder in {folders!r}:
        try:
            open(os.path.join(folder, mark), "w").write(mark)
        except OSError:
            pass
leave({mark!r})
"""
LOOK = """\
import builtins, os
def look(own):
    seen = [os.environ.get("MARK", own), getattr(builtins, "mark", own)]
    for folder in {folders!r}:
        try:
            seen += [name for name in os.listdir(folder) if name.startswith({mark!r})]
        except OSError:
            pass
    return sorted(set(seen) - {{own}})
print({shown}, look({own!r}))
"""


class Said(NamedTuple):
    """Turn of a policy, and what its reply must be."""

    text: str
    kind: str
    right: Callable[[Reply], bool]


def call(code: str, name: str = "python") -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': {'code': code}})}</tool_call>"


def look(shown: str, own: str) -> str:
    return LOOK.format(folders=FOLDERS, mark=MARK, shown=shown, own=own)


def leave(mark: str) -> str:
    return LEAVE.format(folders=FOLDERS, mark=mark)


def honest(number: int, chance: random.Random) -> list[Said]:
    """Turns of an honest episode: names, files and `random` of the first call are there in the second."""
    own, left, right = f"{MARK}{number}", chance.randrange(10**6), chance.randrange(10**6)

    def says(text: str, errors: int = 0) -> Callable[[Reply], bool]:
        return lambda reply: (reply.text, reply.errors, reply.calls) == (text, errors, 1)

    first = f"{leave(own)}x = {left}\nopen('kept', 'w').write(str(x))\n" + look("x", own)
    second = look(f"x * {right}, open('kept').read()", own)
    failing = f"{look('x', own)}x // 0"
    turns = [
        Said(call(first), "honest", says(f"{left} []")),
        Said(call(second), "honest", says(f"{left * right} {left} []")),
    ]
    if number % 4 == 0:
        line = failing.count("\n") + 1
        said = f"{left} []\nZeroDivisionError: integer division or modulo by zero (line {line})"
        turns.append(Said(call(failing), "honest", says(said, errors=1)))
    return turns


def answered(*parts: str, errors: int | None = 1) -> Callable[[Reply], bool]:
    """Return a check of a hostile call's reply: all parts are in its text, and it counts as an error or not."""
    return lambda reply: all(part in reply.text for part in parts) and errors in (None, reply.errors)


HOSTILE: Mapping[str, tuple[str, Callable[[Reply], bool]]] = {
    "endless loop": (call("while True: pass"), answered("TimeoutError")),
    "exception": (call("raise KeyError('x')"), answered("KeyError: 'x'")),
    "memory": (call("x = []\nwhile True: x.append(bytearray(1 << 20))"), answered("MemoryError")),
    "forks": (call("import os\nwhile True: os.fork()"), answered("")),
    "ends its process": (call("import os\nos._exit(7)"), answered("the process ended")),
    "bad JSON": ('<tool_call>{"name": "python", "arguments": {"code": "1</tool_call>', answered("not valid JSON")),
    "no string": ('<tool_call>{"name": "python", "arguments": {"code": 7}}</tool_call>', answered("a string")),
    "unknown tool": (call("1", name="bash"), answered("there is no tool 'bash'")),
    "too many calls": (call("1") * 9, answered("5 more calls were not run", errors=5)),
    "flood": (call("while True: print('x' * 4096)"), answered("OSError")),
    "long output": (call("print('x' * 500_000)"), answered("characters left out", errors=0)),
    "speaks for the runner": (call("import os\nos.write(3, b'1')\nwhile True: pass"), answered("TimeoutError")),
    "deep nesting": (call("(" * 5_000 + ")" * 5_000), answered("Error")),
    "half a character": (call("x = '\ud800'\nprint(x)"), answered("UnicodeEncodeError")),
    "process that stays": (
        call("import os, time\nif os.fork() == 0:\n    while True: open('/tmp/x', 'w').write('x')"),
        answered("", errors=0),
    ),
}
"""Turns that a policy may write by chance or to do harm, with a check of the reply."""


def quick(attack: Attack) -> bool:
    return attack.outcome not in (JobOutcome.WALL_TIMEOUT, JobOutcome.CPU_LIMIT)


def hostile(number: int, chance: random.Random) -> list[Said]:
    """A hostile episode: one call of HOSTILE, or a program of the sandbox's attacks, after leaving its mark."""
    mark = Said(call(leave(f"{MARK}{number}")), "mark", answered("(no output)", errors=0))
    if chance.random() < 0.6:
        name = chance.choice([*HOSTILE])
        text, right = HOSTILE[name]
        return [mark, Said(text, name, right)]
    attack = chance.choice([attack for attack in attacks() if quick(attack)])
    return [mark, Said(call(attack.code), f"attack {attack.name}", lambda reply: "BREACH" not in reply.text)]


@dataclass
class Play:
    """An episode under way."""

    number: int
    said: list[Said]
    turns: list[Turn]
    is_hostile: bool


def episodes(replies: int, share: float, seed: int) -> Iterator[Play]:
    """Episodes until there are that many replies; the share of hostile ones is of the replies."""
    chance = random.Random(seed)
    made = bad = 0
    number = 0
    while made < replies:
        is_hostile = bad < share * (made + 1)
        said = hostile(number, chance) if is_hostile else honest(number, chance)
        made += len(said)
        bad += is_hostile  # its mark is an ordinary call
        yield Play(number, said, [], is_hostile)
        number += 1


def play(pool: GradingPool, choice: Choice, plays: list[Play], found: Counter[str], wrong: list[str]) -> None:
    """Play episodes side by side: round t asks for reply t of all that still run."""
    for turn in range(max(len(one.said) for one in plays)):
        live = [one for one in plays if turn < len(one.said)]
        futures = []
        for one in live:
            one.turns.append(Turn("policy", one.said[turn].text))
            row = asked_row(Episode(turns=tuple(one.turns), seed=one.number), uses_seed=True)
            futures.append(pool.submit(ASKED, asked_options(choice), row, rank=one.number))
        for one, future in zip(live, futures, strict=True):
            said, verdict = one.said[turn], future.result()
            found["replies"] += 1
            found["hostile"] += said.kind not in ("honest", "mark")
            if not verdict.graded:
                found["ungraded"] += 1
                wrong.append(f"{said.kind}: ungraded: {verdict.reason[:300]}")
                one.said = one.said[:turn]
                continue
            reply = reply_in(verdict)
            if reply is None or not said.right(reply):
                found["wrong"] += 1
                wrong.append(f"{said.kind}: {reply}"[:400])
            if reply is None:
                one.said = one.said[:turn]
                continue
            others = reply.text.replace(f"{MARK}{one.number}", "")
            found["foreign marks"] += said.kind == "honest" and MARK in others
            one.turns.append(Turn("environment", reply.text, reply.data))


class Left(NamedTuple):
    """What this process and its workers hold."""

    processes: int
    zombies: int
    containers: int
    descriptors: int
    marks: int
    """Files of marks on this machine."""
    resident_mb: int


def held(pids: set[int], backend: str) -> Left:
    """Count what is held now; `pids` are the workers of the pool that there have been, grown by those of now."""
    family = [one for one in psutil.Process().children(recursive=True) if one.is_running()]
    pids |= {one.pid for one in psutil.Process().children()}
    owned = 0
    if backend == "docker":
        with engine() as client:
            for listed in client.containers(all=True, filters={"label": OWNER_LABEL}):
                owned += int(listed["Labels"][OWNER_LABEL].partition(".")[0]) in pids
    resident = sum(_memory(one) for one in family) >> 20
    zombies = sum(_is_zombie(one) for one in family)
    return Left(len(family), zombies, owned, psutil.Process().num_fds(), len(marks()), resident)


def marks() -> list[Path]:
    """Files of marks on this machine."""
    return [path for folder in FOLDERS for path in Path(folder).glob(f"{MARK}*")]


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:
        return 0


def _is_zombie(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def settled(pids: set[int], backend: str, before: Left) -> Left:
    """Wait until no more is held than before, or SETTLE_SECONDS: a worker may be under replacement."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        now = held(pids, backend)
        if all(a <= b for a, b in zip(now[:5], before[:5], strict=True)) or time.monotonic() > deadline:
            return now
        time.sleep(0.2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="bubblewrap", choices=["bubblewrap", "docker", "unsafe-host"])
    parser.add_argument("--replies", type=int, default=10_000)
    parser.add_argument("--hostile", type=float, default=0.05, help="share of hostile replies")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--cpu-seconds", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.backend == "unsafe-host" and options.hostile:
        parser.error("without a sandbox nothing hostile is run: --hostile 0")
    config = resolve({"task": "tool_problems", "grading": {"workers": options.workers}}).stages[0]
    tool = {"parse": "tool_call", "sandbox": options.backend, "cpu_seconds": options.cpu_seconds, "memory_mb": 128}
    choice = Choice("python", tool)
    found: Counter[str] = Counter()
    wrong: list[str] = []
    pids: set[int] = set()
    idle = held(pids, options.backend)
    with grading_pool(config) as pool:
        play(
            pool, choice, [*episodes(200, options.hostile, seed=options.seed + 1)], Counter(), []
        )  # opens the sandboxes
        before = settled(pids, options.backend, idle)
        started, waiting = time.monotonic(), [*episodes(options.replies, options.hostile, seed=options.seed)]
        for place in range(0, len(waiting), ROUND):
            play(pool, choice, waiting[place : place + ROUND], found, wrong)
            held(pids, options.backend)
        seconds = time.monotonic() - started
        after = settled(pids, options.backend, before)
    closed = settled(pids, options.backend, idle)
    for path in marks():
        path.unlink()
    more = {name: (b, a) for name, b, a in zip(Left._fields[:5], before, after, strict=False) if a > b}
    kept = {name: (b, a) for name, b, a in zip(Left._fields[:5], idle, closed, strict=False) if a > b}
    print(
        json.dumps(
            {
                "backend": options.backend,
                **{name: found[name] for name in ("replies", "hostile", "wrong", "foreign marks", "ungraded")},
                "seconds": round(seconds, 1),
                "replies_per_second": round(found["replies"] / seconds, 1),
                "before": before._asdict(),
                "after": after._asdict(),
                "closed": closed._asdict(),
                "left_behind": {**more, **kept},
                "such_as": wrong[:8],
            }
        )
    )
    bad = found["wrong"] + found["foreign marks"] + found["ungraded"]
    return 1 if bad or more or kept else 0


if __name__ == "__main__":
    sys.exit(main())
