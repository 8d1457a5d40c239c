"""The labelling page in headless Chromium, by keyboard: two models blind, from command to summary; what is rendered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reasoner.label.labels import read_labels
from reasoner.label.page import Page as LabelPage
from reasoner.label.sitting import Sitting
from tests.integration.test_view import opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.integration
PAIRS = 12
SHOWN = PAIRS + 1
"""One pair is shown a second time."""


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
    expect(page.locator("#count")).to_have_text(f"{count} of {SHOWN}")


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
    with labelling(file, runs) as (process, address), opened(browser, address) as (page, problems):
        expect(page.locator("#count")).to_have_text(f"0 of {SHOWN}")
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
        process.wait()
        page.keyboard.press("s")
        expect(page.locator("#notice")).to_contain_text("labels so far are on disk")
        assert len(problems) == 1  # the browser's own line about the failed request
    with labelling(file, runs) as (process, address), opened(browser, address) as (page, problems):
        expect(page.locator("#count")).to_have_text(f"6 of {SHOWN}")
        keys += prefer_long(page, start=6, end=SHOWN)
        expect(page.locator("#notice")).to_contain_text("All pairs are labelled")
        expect(page.locator("#agreement")).to_contain_text("100.0\u00a0% [20.7\u00a0%, 100.0\u00a0%]")
        assert problems == []
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 0
    assert set(keys) == {"ArrowLeft", "ArrowRight"}  # sides are shuffled
    assert f"{PAIRS} of {PAIRS} pairs labelled" in said
    assert f"all: {runs[0]} preferred 100.0% [74.1%, 100.0%]; {runs[0]} 11, {runs[1]} 0, ties 1, skipped 0" in said
    assert "agreement with oneself: 100.0% [20.7%, 100.0%], the same choice for 1 of 1 pairs shown twice" in said
    assert "\na: " in said
    assert "\nb: " in said
    assert sorted(label.label for label in read_labels(file).values()) == ["first"] * 11 + ["tie"]


# ------------------------------------------------------------------------------------------------- what is shown

RICH = r"""<think>
Half of it, then \(\sqrt{16}\).
</think>

**Four**, since $2^2 = 4$, which is in $\{2, 4\}$:

$$\int_0^2 2x\,dx = 4$$

| n | n² |
|---|---|
| 2 | 4 |

```python
def square(n):
    return n * n
```
<img src="https://example.com/a.png" onerror="alert(1)">
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelPage]:
    """A sitting with long and short texts, whose first pair shows the rich text next to a short one."""
    file = tmp_path_factory.mktemp("label") / "pairs.jsonl"
    rows = [
        {"id": n, "prompt": f"What is $2^2$? ({n})", "first": RICH * 3, "second": "Four.", "category": "ab"[n % 2]}
        for n in range(30)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = LabelPage(Sitting(file, repeat=0.2))
    thread = threading.Thread(target=page.serve_forever, daemon=True)
    thread.start()
    yield page
    page.shutdown()
    page.server_close()
    thread.join()


def test_completions_are_rendered_as_in_the_view(browser: Browser, server: LabelPage) -> None:
    with opened(browser, server.address) as (page, problems):
        rich = page.locator("article", has=page.locator(".katex")).first
        expect(page.locator("#prompt .katex")).to_have_count(1)
        expect(rich.locator(".katex-display")).to_have_count(3)
        expect(rich.locator("p .katex")).to_have_count(2 * 3 + 3)
        expect(rich.locator(".hljs-keyword")).to_have_count(6)
        expect(rich.locator("table td", has_text="4")).to_have_count(3)
        expect(rich.locator("strong").first).to_have_text("Four")
        assert page.locator("img").count() == 0  # a picture stays text
        assert rich.locator("details.think[open]").count() == 0
        page.keyboard.press("f")
        assert rich.locator("details.think[open]").count() == 3
        tops = [page.locator(f"#{side}-text").bounding_box()["y"] for side in ("left", "right")]  # type: ignore[index]
        assert tops[0] == tops[1]
        page.keyboard.press("m")
        expect(page.locator(".katex")).to_have_count(0)
        assert "$$\\int_0^2" in page.inner_text("#pair")
        page.evaluate("fetch('https://example.com/').catch(() => 0)")
        assert [one for one in problems if "Content Security Policy" not in one] == []
        assert any("Content Security Policy" in one for one in problems)


def test_a_reason_is_stored_and_a_reload_keeps_labels_and_the_draft(browser: Browser, server: LabelPage) -> None:
    with opened(browser, server.address) as (page, problems):
        before = len(server.sitting.labels)
        page.keyboard.press("r")
        page.keyboard.type("sure; t, s and u are letters here")
        assert len(server.sitting.labels) == before
        page.reload()
        page.wait_for_selector("html[data-ready]")
        assert page.input_value("#reason") == "sure; t, s and u are letters here"
        page.focus("#reason")
        page.keyboard.press("Escape")
        page.keyboard.press("t")
        expect(page.locator("#count")).to_have_text(f"{before + 1} of 36")
        assert page.input_value("#reason") == ""
        *_, label = read_labels(server.sitting.file).values()
        assert (label.label, label.reason) == ("tie", "sure; t, s and u are letters here")
        page.reload()
        expect(page.locator("#count")).to_have_text(f"{before + 1} of 36")
        page.keyboard.press("u")
        expect(page.locator("#count")).to_have_text(f"{before} of 36")
        assert page.input_value("#reason") == "sure; t, s and u are letters here"
        assert problems == []


def test_keys_are_listed_and_progress_is_by_category(browser: Browser, server: LabelPage) -> None:
    with opened(browser, server.address) as (page, problems):
        page.keyboard.press("?")
        shown = page.locator("#keys dt").all_inner_texts()
        assert {"←, 1", "→, 2", "↓, t", "s", "u", "r", "f", "m", "p", "l", "?"} <= set(shown)
        page.keyboard.press("s")  # no key counts while the list is open
        page.keyboard.press("Escape")
        expect(page.locator("#keys")).not_to_be_visible()
        assert server.sitting.labels == {}
        page.keyboard.press("p")
        assert page.locator("#so-far tr").all_inner_texts() == ["a\t0 of 15\t", "b\t0 of 15\t"]
        expect(page.locator("#agreement")).to_contain_text("no pair was decided twice so far")
        assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_in_light_and_dark_on_a_desktop_and_a_phone(
    browser: Browser, server: LabelPage, width: int, scheme: str
) -> None:
    with opened(browser, server.address, width=width, scheme=scheme) as (page, problems):
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        main = page.evaluate("(m => [m.scrollWidth, m.clientWidth])(document.querySelector('main'))")
        assert main[0] <= main[1]
        for button in page.locator("header button, footer button").all():
            box = button.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= 850
        page.keyboard.press("l")
        assert page.evaluate("document.documentElement.dataset.theme") != scheme
        assert problems == []
