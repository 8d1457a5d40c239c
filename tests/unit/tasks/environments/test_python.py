"""The Python tool: state by replay, limits that are told to the policy, nothing that leaks."""

from __future__ import annotations

import pytest

from tasks import TaskError, Turn
from tasks.environments import Episode, ToolEnvironment, get_environment
from tasks.environments.python import shortened
from tests.unit.tasks.environments.test_tools import play, texts


def block(code: str) -> str:
    return f"```python\n{code}\n```\n"


@pytest.fixture(scope="module")
def tool() -> ToolEnvironment:
    made = get_environment("python", cpu_seconds=1.0, memory_mb=128, sandbox="unsafe-host")
    assert isinstance(made, ToolEnvironment)
    return made


def test_names_and_files_of_earlier_cells_are_there(tool: ToolEnvironment) -> None:
    found = play(
        tool,
        block("x = 6\nprint('once')"),
        block("print(x * 7)"),
        block("x += 1\nopen('f', 'w').write('kept')"),
        block("x, open('f').read()"),
        block("import random\nrandom.random()"),
    )
    assert texts(found)[:2] == ["once", "42"]
    assert texts(found)[3] == "(7, 'kept')"
    assert texts(found)[4] == texts(play(tool, block("import random\nrandom.random()")))[0]


def test_without_state_every_cell_is_a_program_of_its_own() -> None:
    tool = get_environment("python", state="none", sandbox="unsafe-host")
    assert isinstance(tool, ToolEnvironment)
    found = play(tool, block("x = 6"), block("x"))
    assert texts(found) == ["(no output)", "NameError: name 'x' is not defined (line 1)"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1/0", "ZeroDivisionError: division by zero (line 1)"),
        ("a = 1\nb = = 2", "SyntaxError: invalid syntax (line 2)"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded (line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("print('a'); 1/0", "a\nZeroDivisionError: division by zero (line 1)"),
        ("import sys; print('e', file=sys.stderr)", "e"),
        ("object", "<class 'object'>"),
        ("None", "(no output)"),
        ("x = 1; x", "1"),
    ],
)
def test_errors_are_one_line(tool: ToolEnvironment, code: str, said: str) -> None:
    assert texts(play(tool, block(code))) == [said]


def test_limits_are_told_and_the_stopped_cell_is_not_run_again(tool: ToolEnvironment) -> None:
    found = play(tool, block("x = 1"), block("x = 2\nwhile True: pass"), block("x"), block("import os; os._exit(0)"))
    assert "TimeoutError: more than 1 s of CPU time" in str(texts(found)[1])
    assert texts(found)[2] == "1"
    assert "the process ended" in str(texts(found)[3])
    errors = [reply.errors for reply in found if reply is not None]
    assert errors == [0, 1, 0, 1]


def test_the_process_ends_with_its_cell(tool: ToolEnvironment) -> None:
    found = play(
        tool,
        block("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"),
        block("import atexit\natexit.register(print, 'later')\nx = 41"),
        block("import os\nif os.fork() == 0: time.sleep(0.01)"),
        block("x + 1"),
    )
    assert texts(found)[1::2] == ["(no output)", "42"]
    assert [reply.errors for reply in found if reply is not None] == [0, 0, 0, 0]


def test_a_cell_that_a_limit_stopped_cannot_claim_to_have_ended(tool: ToolEnvironment) -> None:
    found = play(tool, block("x = 41"), block("import os\nos.write(3, b'1')\nwhile True: pass"), block("x + 1"))
    assert [reply.data for reply in found if reply is not None] == [[{"kept": kept}] for kept in (True, False, True)]
    assert texts(found)[2] == "42"


def test_more_cells_than_a_job_may_have_are_an_answer(tool: ToolEnvironment) -> None:
    long = block(f"x = '{chr(0x1F600) * 65_000}'")
    turns = [Turn("policy", long), Turn("environment", "(no output)", [{"kept": True}])] * 22
    reply = tool.reply(Episode(turns=(*turns, Turn("policy", block("x")))))
    assert reply is not None
    assert (reply.text, reply.errors) == ("Error: the cells of an episode may have at most 16 MB together", 1)


def test_a_reply_has_time_for_all_its_calls() -> None:
    tool = get_environment("python", cpu_seconds=2.0, max_calls=3)
    # a starved program runs once more, with four times its wall-clock limit
    assert tool.reply_seconds >= 3 * (8 + 4 * 8)
    assert get_environment("calculator").reply_seconds < 30


def test_addresses_are_not_shown(tool: ToolEnvironment) -> None:
    first, again = texts(play(tool, block("object()"))), texts(play(tool, block("object()")))
    assert first == again == ["<object object at 0x...>"]


def test_long_output_loses_its_middle(tool: ToolEnvironment) -> None:
    (said,) = texts(play(tool, block("print('a' * 5000 + 'b' * 5000)")))
    assert said is not None
    assert "8000 characters left out" in said
    assert said.startswith("aaaa")
    assert said.endswith("bbbb")
    assert shortened("x" * 100, 100) == "x" * 100


def test_episodes_do_not_see_each_other(tool: ToolEnvironment) -> None:
    play(tool, block("secret = 'canary'\nimport builtins; builtins.secret = 'canary'\nopen('f', 'w').write('canary')"))
    (said,) = texts(play(tool, block("import os\nprint('secret' in globals(), hasattr(__builtins__, 'secret'))")))
    assert said == "False False"
    (files,) = texts(play(tool, block("import os; os.listdir('.')")))
    assert files == "[]"


def test_wrong_options_are_refused() -> None:
    for options in ({"state": "live"}, {"cpu_seconds": 0}, {"memory_mb": 1}, {"sandbox": "none"}, {"parse": "tagged"}):
        with pytest.raises(TaskError):
            get_environment("python", **options)  # pyright: ignore[reportArgumentType]
