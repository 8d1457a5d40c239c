"""The attacks of sandbox/attacks.toml as calls of the Python tool, between an episode's honest calls.

Whatever a policy writes is answered, so that it can be graded; the episode goes on, nothing is left behind, and the
next episode sees nothing of it.
"""

from __future__ import annotations

import time

import pytest

from sandbox.api import JobOutcome
from sandbox.attacks import ATTACK_LIMITS, BROKEN, Attack, attacks, job_of
from tasks import Turn
from tasks.environments import Environment, Episode, Reply, ToolEnvironment, get_environment
from tasks.environments.python import DISCARDED, LIMITS, PythonTool
from tests.attacks.test_attacks import is_core
from tests.backends import ISOLATED, opened, state_of_things
from verifiers.code.sandboxes import Place, shared_sandbox

pytestmark = pytest.mark.integration
CPU_SECONDS, MEMORY_MB = 1.0, 256
LEFT = """\
import os
print([os.listdir(folder) for folder in (".", "/tmp", "/dev/shm")], "of_this_episode" in globals(), 6 * 7)
"""
NOTHING_LEFT = "[[], [], []] False 42"
ENDS_BEFORE_ITS_LIMIT = {"cpu-threads-outside-the-interpreter-lock", "exit-hook-that-never-ends"}
"""Attacks by what goes on behind the end of a program: a call has ended by then, and its process with it."""
CORE = {"fork-bomb", "memory-balloon", "result-flood", "exit-hook-that-never-ends"}
"""Always run, next to every eighth of the quick ones."""


def some(chosen: list[Attack]) -> list[object]:
    quick = {attack.name for attack in [attack for attack in chosen if is_core(attack)][::8]} | CORE
    return [pytest.param(one, id=one.name, marks=() if one.name in quick else pytest.mark.slow) for one in chosen]


@pytest.fixture(scope="module", params=ISOLATED)
def backend(request: pytest.FixtureRequest) -> str:
    opened(request.param, workers=1).close()
    return request.param


@pytest.fixture(scope="module")
def python(backend: str) -> Environment:
    made = get_environment("python", cpu_seconds=CPU_SECONDS, memory_mb=MEMORY_MB, sandbox=backend)
    assert play(made, "6 * 7")[0].text == "42"
    return made


def place_of(environment: Environment) -> Place:
    """Return the configuration of the sandbox in which the calls run."""
    assert isinstance(environment, ToolEnvironment)
    tool = environment.tools["python"]
    assert isinstance(tool, PythonTool)
    return tool.place


def play(environment: Environment, *cells: str) -> list[Reply]:
    """Return the replies to cells of one episode; a reply that cannot be made raises."""
    turns: list[Turn] = []
    found: list[Reply] = []
    for cell in cells:
        turns.append(Turn("policy", f"```python\n{cell}\n```\n"))
        reply = environment.reply(Episode(turns=tuple(turns), seed=5))
        assert reply is not None
        found.append(reply)
        turns.append(Turn("environment", reply.text, reply.data))
    return found


def kept(reply: Reply) -> bool:
    """Return True if a call ended by itself, so that it is run again before later ones."""
    (data,) = reply.data
    return data["kept"]


@pytest.mark.parametrize("attack", some([*attacks()]))
def test_an_attack_is_answered_and_leaves_nothing(python: Environment, backend: str, attack: Attack) -> None:
    before = state_of_things(backend)
    started = time.monotonic()
    first, attacked, after = play(python, "of_this_episode = 41", attack.code, "of_this_episode + 1")
    seconds = time.monotonic() - started
    assert (first.text, first.errors) == ("(no output)", 0)
    assert "BREACH" not in attacked.text + after.text
    assert not BROKEN.search(attacked.text.encode())
    if attack.outcome in LIMITS and attack.name not in ENDS_BEFORE_ITS_LIMIT:
        assert attacked.text.startswith(LIMITS[attack.outcome].partition(":")[0])
    if attack.name in ENDS_BEFORE_ITS_LIMIT:
        assert kept(attacked)
        assert seconds < 2 * CPU_SECONDS
    assert kept(attacked) or (attacked.errors == 1 and DISCARDED in attacked.text)
    # one that takes `print` away from its own process gets no more output
    said = "(no output)" if attack.name == "leave-module" else "42"
    assert after.text.endswith(said), after
    if attack.probe:  # a program of its own, which expects to be alone in its folder
        traces = shared_sandbox(place_of(python)).run(job_of(attack.probe, ATTACK_LIMITS))
        assert traces.outcome is JobOutcome.OK
        assert b"BREACH" not in traces.stdout
    assert play(python, LEFT)[0].text == NOTHING_LEFT
    assert_nothing_more(backend, before)


def assert_nothing_more(backend: str, before: dict[str, int]) -> None:
    """Wait until this process and its sandboxes hold what they held before: a worker may be under replacement."""
    deadline = time.monotonic() + 20
    while True:
        now = state_of_things(backend)
        # the mounts are those of the whole machine, with the containers of others
        own = now.keys() - {"resident", "mounts"}
        more = {key: (before[key], now[key]) for key in own if now[key] > before[key]}
        if not more and now["resident"] <= before["resident"] + 64:
            return
        assert time.monotonic() < deadline, (more, now)
        time.sleep(0.1)


FORGERIES = {
    "says that it ended, and loops": "import os\nos.write(3, b'1')\nwhile True: pass",
    "says that it ended, and floods": "import os\nos.write(3, b'1')\nwhile True: print('x' * 4096)",
    "says that it ended, and grows": "import os\nos.write(3, b'1')\nx = []\nwhile True: x.append(bytearray(1 << 20))",
    "says that it ended, and sleeps": "import os, time\nos.write(3, b'1')\ntime.sleep(1e6)",
}
"""Programs that write on the runner's own channel."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "sleeps" in name else ()) for name in FORGERIES]
)
def test_a_cell_that_a_limit_stopped_is_not_run_again_whatever_it_says(python: Environment, name: str) -> None:
    _, attacked, after = play(python, "x = 41", FORGERIES[name], "x + 1")
    assert DISCARDED in attacked.text
    assert attacked.errors == 1
    assert not kept(attacked)
    assert after.text == "42"


@pytest.mark.slow
def test_calls_of_one_turn_that_all_reach_their_limits_are_answered(backend: str) -> None:
    """Four calls in one turn that sleep to the wall limit: together longer than any one reply of another kind."""
    from tasks.environments.asked import ASKED, asked_row, reply_in
    from verifiers.pool import GradingPool

    options = {"environment": "python", "options": {"cpu_seconds": 1.5, "sandbox": backend}}
    text = "```python\nimport time; time.sleep(1e6)\n```\n" * 4
    with GradingPool(workers=1) as pool:
        row = asked_row(Episode(turns=(Turn("policy", text),)), uses_seed=True)
        verdict = pool.submit(ASKED, options, row).result()
    assert verdict.graded, verdict.reason
    reply = reply_in(verdict)
    assert reply is not None
    assert (reply.calls, reply.errors) == (4, 4)
