"""Calls, the calculator, the Python tool and games: replies as a policy gets them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal, getcontext

import pytest

from tasks import TaskError, Turn
from tasks.environments import Episode, Reply, ToolEnvironment, get_environment
from tasks.environments.calculator import CalculationError, calculate
from tasks.environments.calls import BadCall, Call, fenced, tagged, tool_calls
from tasks.environments.guess import guess


def play(environment: ToolEnvironment, *said: str) -> list[Reply | None]:
    """Replies to the turns of one episode."""
    turns: list[Turn] = []
    found: list[Reply | None] = []
    for text in said:
        turns.append(Turn("policy", text))
        reply = environment.reply(Episode(turns=tuple(turns), seed=5))
        found.append(reply)
        if reply is not None:
            turns.append(Turn("environment", reply.text, reply.data))
    return found


def texts(replies: Sequence[Reply | None]) -> list[str | None]:
    return [None if reply is None else reply.text for reply in replies]


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("```python\nprint(1)\n```\n", ["print(1)\n"]),
        ("a\n```py\n1\n```\nb\n```\n2\n```", ["1\n", "2\n"]),
        ("```python\nprint(1)", []),
        ("```output\n1\n```", []),
        ("```python print(1)```", []),
        ("~~~python\ns = '```'\n~~~\n", ["s = '```'\n"]),
        ("````python\n'''\n```\n'''\n````", ["'''\n```\n'''\n"]),
        ("  ```python\n  x\n  ```", ["  x\n"]),
        ("inline ```python\n1\n``` here", []),
    ],
)
def test_fenced_blocks(text: str, codes: list[str]) -> None:
    assert [call.arguments["code"] for call in fenced(text) if isinstance(call, Call)] == codes


def test_tags_and_json_calls() -> None:
    assert [c.arguments["text"] for c in tagged("<a>1</a> <a></a> <a>2", "<a>", "</a>") if isinstance(c, Call)] == [
        "1",
        "",
    ]
    good = '<tool_call>\n{"name": "f", "arguments": {"x": [1, {"y": null}]}}\n</tool_call>'
    assert tool_calls(good) == [Call("f", {"x": [1, {"y": None}]})]
    for bad in ("{", "[1]", '{"name": 7}', '{"name": "f", "arguments": "x"}', "nan", "[" * 100_000):
        (found,) = tool_calls(f"<tool_call>{bad}</tool_call>")
        assert isinstance(found, BadCall), bad
    assert tool_calls("<tool_call>{}") == []
    (long,) = tagged(f"<a>{'1' * 100_000}</a>", "<a>", "</a>")
    assert isinstance(long, BadCall)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("4812*9307", "44785284"),
        ("2**3**2", "512"),
        ("-2**2", "-4"),
        ("2^10", "1024"),
        ("7//-2", "-4"),
        ("-7%3", "2"),
        ("1/8", "0.125"),
        ("1/3", "0.333333333333"),
        ("2/3", "0.666666666667"),
        ("0.1+0.2", "0.3"),
        ("1,234,567+1", "1234568"),
        ("6×7÷2−1", "20"),
        ("(1+2)*(3+4)=", "21"),
        ("--3", "3"),
        ("1.50", "1.5"),
        ("10**-3", "0.001"),
        (".5*4", "2"),
        ("(-1)**10**50", "1"),
    ],
)
def test_the_calculator_is_exact(text: str, result: str) -> None:
    assert calculate(text) == result


@pytest.mark.parametrize(
    "text",
    [
        *("", "1+", "(1", "1)", "1 2", "a", "1/0", "0/0", "1%0", "0**-1", "9**9**9", "4**0.5", "1e5", "1,23+1", "1..2"),
        *("__import__('os')", "9" * 1001, "(" * 51 + "1" + ")" * 51, "9**990*9**990"),
    ],
)
def test_the_calculator_refuses_with_a_sentence(text: str) -> None:
    with pytest.raises(CalculationError, match=r"."):
        calculate(text)


def test_the_calculator_agrees_with_python_on_random_expressions() -> None:
    source = random.Random(7)
    getcontext().prec = 60
    for _ in range(2_000):
        parts = [str(source.randrange(1, 10_000))]
        for _ in range(source.randrange(1, 6)):
            parts += [source.choice(["+", "-", "*", "//", "%"]), str(source.randrange(1, 1_000))]
            if source.random() < 0.2:
                parts = ["(", *parts, ")"]
        text = "".join(parts)
        assert calculate(text) == str(eval(text)), text  # numbers and operators of this test alone
    for _ in range(500):
        left, right = source.randrange(1, 10**6), source.randrange(1, 10**4)
        found, expected = Decimal(calculate(f"{left}/{right}")), Decimal(left) / Decimal(right)
        assert abs(found - expected) <= abs(expected) * Decimal("5.01e-12"), (left, right)


def test_a_call_is_answered_and_a_turn_without_one_is_the_answer() -> None:
    calculator = get_environment("calculator")
    assert isinstance(calculator, ToolEnvironment)
    assert texts(play(calculator, "<calc>6*7</calc>", "so 42")) == ["42", None]
    (several,) = play(calculator, "".join(f"<calc>{n}+1</calc>" for n in range(6)))
    assert several is not None
    assert several.text.splitlines()[:4] == ["1", "2", "3", "4"]
    assert "2 more calls were not run" in several.text
    assert (several.calls, several.errors) == (6, 2)
    (wrong,) = play(calculator, "<calc>1/0</calc>")
    assert wrong is not None
    assert (wrong.text, wrong.errors) == ("Error: division by zero", 1)


def test_the_controls_of_the_calculator() -> None:
    failing, wrong = get_environment("calculator", fails=True), get_environment("calculator", add=1)
    assert isinstance(failing, ToolEnvironment)
    assert isinstance(wrong, ToolEnvironment)
    assert texts(play(failing, "<calc>6*7</calc>")) == ["error"]
    assert texts(play(wrong, "<calc>6*7</calc>")) == ["43"]


def test_tools_by_name_and_unknown_tools() -> None:
    tools = get_environment("tools", use={"calculator": {}})
    assert isinstance(tools, ToolEnvironment)
    call = '<tool_call>{{"name": "{}", "arguments": {}}}</tool_call>'
    found = play(
        tools,
        call.format("calculator", '{"text": "6*7"}'),
        call.format("calculater", '{"text": "6*7"}'),
        call.format("calculator", '{"expression": "6*7"}'),
        call.format("calculator", '{"text": 42}'),
    )
    assert found[0] is not None
    assert found[0].text == "42"
    assert "no tool 'calculater'" in str(found[1]) and "calculator" in str(found[1])  # noqa: PT018
    assert all("takes the argument 'text', a string" in str(reply) for reply in found[2:])
    with pytest.raises(TaskError, match=r"no tool named 'calculater'.*calculator"):
        get_environment("tools", use={"calculater": {}})
    with pytest.raises(TaskError, match="at least one tool"):
        get_environment("tools", use={})


@pytest.mark.parametrize(
    ("said", "reply"),
    [("32\n", "higher\n"), ("50\n", "lower\n"), ("40\n", "right\n"), ("x\n", "a number, please\n")]
    + [(text, "a number, please\n") for text in ("", "-1", "4" * 5_000, "\u0664\u0660", "4 0", "40.0", "\u00b2")],
)
def test_guess(said: str, reply: str) -> None:
    found = guess(turns=[Turn("policy", said)], reference="40")
    assert found is not None
    assert found.text == reply
    assert found.done == (reply == "right\n")
    assert found.score == float(found.done)
