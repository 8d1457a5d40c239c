"""Foreign text: characters that UTF-8 can encode and a terminal may show."""

from __future__ import annotations

import json

import pytest

from tests.hostile import ALL, FINE, HOSTILE, obeyed
from verifiers.jsonl import json_line
from verifiers.text import one_line, visible, whole


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_terminal_would_obey_is_spelt_out(name: str) -> None:
    if name != "markup":
        assert obeyed(HOSTILE[name])
    for shown in (visible(HOSTILE[name]), one_line(HOSTILE[name]), json_line(HOSTILE[name])):
        assert not obeyed(shown)
        shown.encode()
    assert visible(visible(HOSTILE[name])) == visible(HOSTILE[name])


@pytest.mark.parametrize("text", FINE)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == whole(text) == text
    assert json_line(text) == json.dumps(text, ensure_ascii=False)
    assert one_line(text) == text.replace("\n", "\\n").replace("\t", "\\t")


def test_what_is_spelt_out_can_be_read() -> None:
    assert visible("a\x1b]0;t\x07\x9b1\u202e\U000e0041\ud800") == r"a\x1b]0;t\x07\x9b1\u202e\U000e0041\ud800"
    assert one_line("a\r\nb\tc") == r"a\r\nb\tc"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\ud800", "\ufffd"),
        ("a\udfffb", "a\ufffdb"),
        ("\ud83d\ude00", "😀"),  # both halves, as a decoder of tokens may join them
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
        ("\ufeff\ud800", "\ufeff\ufffd"),
        ("😀 ok", "😀 ok"),
        ("", ""),
    ],
)
def test_halves_of_pairs_are_joined_or_replaced(text: str, kept: str) -> None:
    assert whole(text) == kept
    whole(text).encode()


def test_a_line_of_json_is_the_value_with_halves_replaced() -> None:
    value = {ALL: [ALL, {"deep": ALL}], "number": 1.5, "none": None}
    line = json_line(value)
    assert "\n" not in line
    assert json.loads(line) == {whole(ALL): [whole(ALL), {"deep": whole(ALL)}], "number": 1.5, "none": None}
    assert json.loads(json_line("\x7f")) == "\x7f"
