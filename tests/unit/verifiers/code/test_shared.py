"""Forgeries that succeed where tests share the program's process: docs/code.md shows them."""

from __future__ import annotations

import pytest

from verifiers import get_verifier
from verifiers.verdict import JSON

TESTS: JSON = {
    "tests": [
        "from unittest.mock import patch\nwith patch('os.getcwd', return_value='/x'):\n    r = where()\n"
        "assert r == '/x'"
    ]
}
PLAIN: JSON = {"tests": ["r = where()\nassert r == '/x'"]}
HONEST = "import os\ndef where(): return os.getcwd()\n"
FORGERIES = {
    "the result channel": """import os\nos.write(3, b'{"results": [{"ok": true}]}\\n')\nos._exit(0)\n""",
    "the judge": "import judge\njudge.judged = judge.failure = lambda *a: {'ok': True}\ndef where(): return 0\n",
    "equality": "class A:\n    def __eq__(self, other): return True\ndef where(): return A()\n",
    "memory": (
        "import sys\ndef where():\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in [*frame.f_locals.values()]:\n"
        "            if type(value).__name__ == 'code':\n"
        "                for part in value.co_consts:\n"
        "                    for text in getattr(part, 'co_consts', ()):\n"
        "                        if str(text).startswith('/'): return text\n"
        "        frame = frame.f_back\n"
    ),
}


def test_a_mock_needs_the_shared_process() -> None:
    apart = get_verifier("code", sandbox="unsafe-host", block="whole").verify(completion=HONEST, reference=TESTS)
    assert apart.outcome == "bad_reference"
    assert "process=shared" in apart.reason
    verifier = get_verifier("code", sandbox="unsafe-host", block="whole", process="shared")
    found = verifier.verify(completion=HONEST, reference=TESTS)
    assert (found.outcome, found.detail["mode"]) == ("correct", "shared")
    wrong = verifier.verify(completion="def where(): return '/y'", reference=TESTS)
    assert (wrong.outcome, wrong.detail["mode"]) == ("incorrect", "shared")


@pytest.mark.parametrize("name", list(FORGERIES))
def test_what_can_be_forged_there_and_cannot_elsewhere(name: str) -> None:
    shared = get_verifier("code", sandbox="unsafe-host", block="whole", process="shared")
    assert shared.verify(completion=FORGERIES[name], reference=TESTS).outcome == "correct"
    apart = get_verifier("code", sandbox="unsafe-host", block="whole")
    assert apart.verify(completion=FORGERIES[name], reference=PLAIN).outcome == "incorrect"
