"""The output of a program is measured before it is parsed: any output costs little memory and little time."""

from __future__ import annotations

import subprocess
import sys

import pytest

from verifiers.code.bounds import MOST_BOXES, MOST_PARTS, Replies, first_frame, last_line, lines_of, may_be, parsed
from verifiers.verdict import JSON

HOSTILE = {
    "lists": """b'{"i":0,"value":[' + b'[],' * (M // 3) + b'[]]}\\n'""",
    "objects": """b'{"i":0,"value":[' + b'{},' * (M // 3) + b'{}]}\\n'""",
    "texts": """b'{"i":0,"value":[' + b'"ab",' * (M // 5) + b'1]}\\n'""",
    "keys": """b'{"i":0,"value":{' + b','.join(b'"%x":1' % n for n in range(M // 12)) + b'}}\\n'""",
    "depth": """b'{"i":0,"value":' + b'[' * M + b'}\\n'""",
    "quotes": """b'"' * M + b'\\n'""",
    "backslashes": """b'{"i":0,"value":"' + b'\\\\\\\\' * M + b'\\n'""",
    "numbers": """b'{"i":0,"value":[' + b'1,' * (M // 2) + b'1]}\\n'""",
    "digits": """b'{"i":0,"value":' + b'9' * M + b'}\\n'""",
    "small replies": """(b'{"i":0,"value":[' + b'[],' * 45 + b'[]]}\\n') * 99_000""",
    "loads": """(b'{"load":[' + b'[],' * 45 + b'[]]}\\n') * 99_000""",
    "line breaks": """b'\\n' * M""",
    "short lines": """b'a\\n' * (M // 2)""",
}
READ = """
import resource, sys, time
from verifiers.code.bounds import Replies, last_line, may_be
M = 1 << 24
data = {made}
before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
replies = Replies(data, 1)
list(replies)
last_line(data)
may_be(data, "42")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10, time.process_time() - started)
"""


@pytest.mark.parametrize("made", HOSTILE.values(), ids=list(HOSTILE))
def test_sixteen_megabytes_of_anything_cost_little(made: str) -> None:
    done = subprocess.run([sys.executable, "-c", READ.format(made=made)], capture_output=True, text=True, check=True)
    megabytes, seconds = map(float, done.stdout.split())
    assert megabytes < 64
    assert seconds < 10  # a fiftieth of that, on a machine that does nothing else


@pytest.mark.parametrize(
    "value",
    [
        list(range(600_000)),
        [[1, 2]] * 200_000,
        "[,{" * 1_000_000,  # brackets and commas of a text are no parts
        ['say "[,]", and \\'] * 100_000,
        {str(number): None for number in range(200_000)},
    ],
    ids=["numbers", "pairs", "one text", "texts", "object"],
)
def test_large_honest_values_are_read(value: JSON) -> None:
    import json

    assert parsed(json.dumps({"value": value}).encode()) == {"value": value}


def test_the_bounds_themselves() -> None:
    assert parsed(b'{"v":[' + b"1," * (MOST_PARTS - 1) + b"1]}") is not None
    assert parsed(b'{"v":[' + b"1," * (MOST_PARTS + 1) + b"1]}") is None
    assert parsed(b'{"v":[' + b"[]," * (MOST_BOXES - 9) + b"1]}") is not None
    assert parsed(b'{"v":[' + b"[]," * MOST_BOXES + b"1]}") is None
    assert parsed(b"[1]") is None
    assert parsed(b"{") is None


def test_replies_in_the_order_of_the_calls_the_first_word_counts() -> None:
    data = b'noise\n{"i":1,"value":2}\n{"i":1,"value":3}\n{"i":9,"value":4}\n{"i":0,"raised":"E"}\n{"i":2,"value":'
    replies = Replies(data, 3)
    assert list(replies) == [{"i": 0, "raised": "E"}, {"i": 1, "value": 2}, None]
    assert not replies.whole
    assert Replies(b'{"i":0,"value":1}\n', 1).whole
    assert Replies(b'{"load": "SyntaxError"}\n', 1).load == "SyntaxError"


def test_a_reply_far_longer_than_what_is_expected_is_another_value_and_not_read() -> None:
    line = b'{"i":0,"value":[' + b"7," * 100_000 + b"7]}\n"
    (short,) = Replies(line, 1, [7])
    assert short == {"value": {"$opaque": ["a value of another size", True]}}
    (whole,) = Replies(line, 1, [[7] * 100_001])
    assert whole is not None
    assert len(whole["value"]) == 100_001  # type: ignore[arg-type]


def test_lines_and_the_last_of_them() -> None:
    assert list(lines_of(b"\n\na\n\nb\nc", 9)) == [b"a", b"b"]
    assert list(lines_of(b"a\nb\n", 1)) == [b"a"]
    assert first_frame(b'\nnoise\n{"a": 1}\n') == {"a": 1}
    assert first_frame(b"") == {}
    assert last_line(b"Traceback\n  File x\nValueError: caf\xc3\xa9\n\n") == "ValueError: caf\xe9"
    assert last_line(b"") == ""
    assert last_line(b"x" * 5000) == "x" * 200


def test_an_output_of_another_size_is_another_one() -> None:
    assert may_be(b"42" + b"\n" * 5_000_000, "42")  # white space at the end is none of it
    assert not may_be(b"4 " * 4_000_000, "42")
    assert may_be(b"0.50000000 " * 400_000, "0.5 " * 400_000)
