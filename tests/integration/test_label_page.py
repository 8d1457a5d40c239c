"""The labelling page in headless Chromium, by keyboard: two models blind, from the command to its summary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reasoner.label.labels import read_labels

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.integration
PAIRS = 12


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Completions of two models for the same problems; the first model's is always the longer text."""
    folders = tmp_path / "careful-run", tmp_path / "hasty-run"
    for folder, word in zip(folders, ("a long and careful answer", "short"), strict=True):
        folder.mkdir()
        rows = [
            {
                "problem": f"p{n}",
                "sample": 0,
                "prompt": f"Question {n}?",
                "completion": f"{word} {n}",
                "task": "ab"[n % 2],
            }
            for n in range(PAIRS)
        ]
        (folder / "eval_rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folders


@contextmanager
def labelling(file: Path, runs: tuple[Path, Path]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start `reasoner label`, without opening a browser, and return the address that it prints."""
    command = [sys.executable, "-m", "reasoner", "label", str(file), "--blind", *map(str, runs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"BROWSER": "true"}) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()[0]
        finally:
            process.kill()


def shown(page: Page) -> tuple[str, str]:
    return page.inner_text("#left-text"), page.inner_text("#right-text")


def press(page: Page, key: str, *, count: int) -> None:
    """Press a key and wait until the page shows how many pairs are labelled."""
    page.keyboard.press(key)
    expect(page.locator("#count")).to_have_text(f"{count} of {PAIRS}")


def prefer_long(page: Page, *, start: int, end: int) -> list[str]:
    """Press arrow keys for the longer text; return the keys."""
    pressed: list[str] = []
    for count in range(start + 1, end + 1):
        left, right = shown(page)
        pressed.append("ArrowLeft" if len(left) > len(right) else "ArrowRight")
        press(page, pressed[-1], count=count)
    return pressed


def test_two_models_are_compared_blind_by_keyboard(browser: Browser, runs: tuple[Path, Path], tmp_path: Path) -> None:
    file = tmp_path / "blind.jsonl"
    problems: list[str] = []
    page = browser.new_page()
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    with labelling(file, runs) as (process, address):
        page.goto(address)
        expect(page.locator("#count")).to_have_text(f"0 of {PAIRS}")
        assert not any(run.name in page.content() for run in runs)
        first = shown(page)
        press(page, "ArrowDown", count=1)  # a tie
        press(page, "s", count=2)
        assert shown(page) != first
        press(page, "u", count=1)
        press(page, "u", count=0)
        assert shown(page) == first  # undone, and asked again
        press(page, "t", count=1)
        keys = prefer_long(page, start=1, end=6)
        process.kill()  # a sitting that is cut off
    with labelling(file, runs) as (process, address):
        page.goto(address)
        expect(page.locator("#count")).to_have_text(f"6 of {PAIRS}")
        keys += prefer_long(page, start=6, end=PAIRS)
        expect(page.locator("#said")).to_contain_text("All pairs are labelled")
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    assert set(keys) == {"ArrowLeft", "ArrowRight"}  # sides are shuffled
    assert problems == []
    assert f"{PAIRS} of {PAIRS} pairs labelled" in said
    assert f"all: {runs[0]} preferred 100.0% [74.1%, 100.0%]; {runs[0]} 11, {runs[1]} 0, ties 1, skipped 0" in said
    assert "\na: " in said
    assert "\nb: " in said
    assert sorted(label.label for label in read_labels(file).values()) == ["first"] * 11 + ["tie"]
    page.close()
