"""Imports that the garbage collector does not walk, and packages that are hidden from others' imports."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from reasoner.cli.loading import loading_told
from reasoner.engine.environment import imported_for_good, without


class Held:
    """An object that refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_what_a_block_imports_is_left_out_of_later_collections() -> None:
    gone = weakref.ref(Held())
    with imported_for_good():
        assert gone() is None, "garbage of before would stay for ever"
        assert not gc.isenabled()
        kept = Held()
    assert gc.isenabled()
    assert kept not in gc.get_objects()
    later = weakref.ref(Held())
    gc.collect()
    assert later() is None


def test_the_interpreter_frees_it_at_its_end() -> None:
    code = (
        "import gc\nfrom reasoner.engine.environment import imported_for_good\n"
        "class Held:\n    def __del__(self): print('freed')\n"
        "with imported_for_good():\n    held = Held(); held.me = held\n"
        "del held; gc.collect(); print('ends')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ends", "freed"]


def test_a_collector_that_is_off_stays_off_and_one_that_is_on_comes_back_after_an_error() -> None:
    with pytest.raises(ImportError), imported_for_good():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with imported_for_good():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_commands_import_so() -> None:
    with loading_told("something"):
        kept = Held()
    assert kept not in gc.get_objects()


def test_a_hidden_package_is_as_if_not_installed_until_the_end_of_the_block() -> None:
    import json as imported_before

    sys.modules.pop("colorsys", None)
    with without("colorsys", "json") as hidden:
        assert hidden == ["colorsys"]
        assert sys.modules["json"] is imported_before
        with pytest.raises(ModuleNotFoundError):
            import colorsys
    import colorsys

    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
