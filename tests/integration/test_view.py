"""The live page and the report in headless Chromium: why did the accuracy fall at step 40? What the page never does."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reasoner.observe.report import write_report
from reasoner.observe.view.folder import Folder
from reasoner.observe.view.server import ViewServer
from tests.integration.test_report import open_page
from tests.unit.reasoner.observe.view.demo import BROKEN, append, rollout, train, write_demo, write_evaluation

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.integration


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as `reasoner view` does; yield the address of the page."""
    server = ViewServer(Folder(folder))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def opened(
    browser: Browser, address: str, *, width: int = 1280, scheme: str = "light"
) -> Iterator[tuple[Page, list[str]]]:
    """Open a page; its list gets console errors, page errors and requests to anything but the page's own address."""
    page = browser.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)  # type: ignore[arg-type]
    problems: list[str] = []
    own = address.partition("#")[0]
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((own, "data:", "blob:")) else problems.append(asked.url[:80]),
    )
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    yield page, problems
    page.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "runs"
    write_demo(folder / "first")
    write_demo(folder / "second", shift=0.2)
    return folder


@pytest.fixture(scope="module")
def frozen(runs: Path) -> Path:
    write_report([runs / "first", runs / "second"], runs.parent / "report.html", audit=0)
    return runs.parent / "report.html"


@pytest.fixture(params=["live", "report"])
def shown(request: pytest.FixtureRequest, browser: Browser, runs: Path, frozen: Path) -> Iterator[tuple[Page, str]]:
    """The page of both runs, live and as a file; afterwards nothing was asked of anybody else, and no error shown."""
    if request.param == "report":
        with opened(browser, f"file://{frozen}") as (page, problems):
            yield page, "0"
            assert problems == []
    else:
        with served(runs) as address, opened(browser, address) as (page, problems):
            yield page, "first"
            assert problems == []


def pick_evaluation(page: Page, step: int, last: int) -> None:
    """Click the curve of the evaluations at a step."""
    chart = page.locator(".chart", has=page.locator("h3", has_text=re.compile("Held-out avg@1")))
    over = chart.locator(".u-over")
    box = over.bounding_box()
    assert box is not None
    over.click(position={"x": box["width"] * step / last - (1 if step == last else 0), "y": box["height"] / 2})


def test_why_did_the_accuracy_fall_at_step_40(shown: tuple[Page, str]) -> None:
    page, stage = shown
    # the list of runs, the curves of one
    page.click("nav button[data-tab=runs]")
    line = page.locator(f"#runs tr[data-id='{stage}']")
    expect(line).to_contain_text("ended")
    expect(line).to_contain_text("60 of 60")
    expect(line).to_contain_text("83.3")
    line.locator("a", has_text="curves").click()
    # from the fall to its samples
    pick_evaluation(page, 40, 60)
    expect(page.locator("#count")).to_have_text("12 of 48")
    assert page.input_value("#kind") == "eval"
    assert page.input_value("#step") == "40"
    page.select_option("#outcome", "incorrect")
    expect(page.locator("#count")).to_have_text("8 of 48")
    page.locator(".row", has_text="held/4").click()
    # question, reference, answer and verdict are above the completion, and rendered
    sheet = page.locator("#detail .sheet")
    assert sheet.bounding_box()["y"] < page.locator("#completion").bounding_box()["y"]  # type: ignore[index]
    expect(sheet).to_contain_text("98")
    expect(sheet).to_contain_text("incorrect")
    expect(sheet).to_contain_text("21 is not 98")
    assert page.locator("#completion .katex").count() == 2
    assert page.locator("#completion .hljs-keyword").count() >= 2
    assert page.locator("#completion details.think").get_attribute("open") is None
    # the curve of this problem, and step 20 beside step 40
    assert page.locator(".fate circle").count() == 4
    page.keyboard.press("d")
    left, right = page.locator(".side[data-side=left]"), page.locator(".side[data-side=right]")
    expect(left).to_contain_text("correct")
    assert left.locator("del").all_inner_texts() == ["\\times", "\\times", "98", "*", "98"]
    assert right.locator("ins").all_inner_texts() == ["+", "+", "21", "+", "21"]
    expect(page.locator("#pair .summary")).to_contain_text("75.0")
    # the others that were lost
    page.click("[data-changed=lost] summary")
    assert page.locator("[data-changed=lost] button").all_inner_texts() == [f"held/{n}" for n in BROKEN]
    page.click("[data-changed=lost] button:has-text('held/7')")
    expect(page.locator("#pair .filters strong")).to_have_text("held/7")
    expect(right).to_contain_text("22")


def test_two_evaluations_by_hand_side_by_side(browser: Browser, tmp_path: Path) -> None:
    for step in (20, 40):
        write_evaluation(tmp_path / "evaluated" / f"step-{step}", step)
    with served(tmp_path) as address, opened(browser, address) as (page, problems):
        line = page.locator("#runs tr[data-id='evaluated/step-40']")
        expect(line).to_contain_text("33.3")
        expect(line.locator(".links a")).to_have_text(["held-out"])
        for step in (20, 40):
            page.check(f"#runs tr[data-id='evaluated/step-{step}'] input")
        page.click("#beside")
        expect(page.locator("#pair .summary")).to_contain_text("75.0")
        expect(page.locator(".side[data-side=left]")).to_contain_text("correct")
        page.click("[data-changed=lost] summary")
        assert page.locator("[data-changed=lost] button").all_inner_texts() == [f"held/{n}" for n in BROKEN]
        page.click("nav button[data-tab=rollouts]")
        expect(page.locator("#count")).to_have_text("12 of 12")
        page.click("nav button[data-tab=overview]")
        expect(page.locator("#overview .cards")).to_contain_text("held-out samples")
        assert page.locator("#findings").count() == 0
        bar = page.locator("#overview .bar").first.bounding_box()
        assert bar is not None
        assert bar["height"] < 20
        assert problems == []


def test_the_address_keeps_filters_and_the_open_rollout(shown: tuple[Page, str]) -> None:
    page, _ = shown
    page.click("nav button[data-tab=rollouts]")
    page.fill("#step", "5-9")
    page.select_option("#outcome", "incorrect")
    page.select_option("#sort", "newest")
    page.fill("#search", "product of 1[01]")
    page.check("#regex")
    expect(page).to_have_url(re.compile("regex=1"))
    expect(page.locator("#count")).to_contain_text(re.compile(r"^\d+ of 480$"))
    before = page.inner_text("#count")
    assert 0 < int(before.split()[0]) < 40
    page.locator(".row").nth(1).click()
    expect(page.locator("#completion mark").first).to_be_attached()
    name = page.inner_text("#detail .meta strong")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#detail .meta strong")).to_have_text(name)
    assert (page.input_value("#step"), page.input_value("#outcome"), page.input_value("#sort")) == (
        "5-9",
        "incorrect",
        "newest",
    )
    assert page.input_value("#search") == "product of 1[01]"
    expect(page.locator("#count")).to_have_text(before)
    assert page.locator(".row[aria-selected=true]").count() == 1
    page.fill("#search", "([")
    expect(page.locator("#notice")).to_contain_text(re.compile("regular expression", re.IGNORECASE))


def test_a_rollout_chosen_while_the_list_changes_stays_open(browser: Browser, runs: Path) -> None:
    with served(runs) as address, opened(browser, address) as (page, _):
        page.click("nav button[data-tab=rollouts]")
        expect(page.locator("#count")).to_contain_text("480")
        # a filter takes effect between the click and its event; the list is drawn anew between press and release
        page.evaluate("() => { document.querySelectorAll('.row')[1].click(); filtersChanged(); }")
        expect(page).to_have_url(re.compile("/rollout/"))
        expect(page.locator("#detail .meta strong")).to_be_visible()
        chosen = page.url
        page.locator(".row").nth(7).hover()
        page.mouse.down()
        page.evaluate("filter()")
        page.mouse.up()
        expect(page).not_to_have_url(chosen)


def test_curves_of_two_runs_over_each_other(shown: tuple[Page, str]) -> None:
    page, _ = shown
    page.click("nav button[data-tab=runs]")
    for box in page.locator("#runs input[type=checkbox]").all():
        box.check()
    page.click("#overlay")
    page.fill("#metric", "reward/mean")
    chart = page.locator(".chart")
    expect(chart).to_have_count(1)
    assert [text.rstrip(":") for text in chart.locator(".u-legend .u-label").all_inner_texts()][1:] in (
        ["first", "second"],
        ["second", "first"],
    )
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(page.locator(".chart")).to_have_count(1)
    assert page.locator("#chosen .chip").count() == 2


def test_problems_and_histograms_lead_to_their_rollouts(shown: tuple[Page, str]) -> None:
    page, _ = shown
    page.click("nav button[data-tab=problems]")
    page.click("button[data-status='never solved']")
    assert page.locator("#problems td.name").all_inner_texts() == ["held/10", "held/11"]
    page.click("#problems td.name a >> nth=0")
    expect(page.locator("#count")).to_have_text("4 of 48")
    page.click("#clear")
    page.click("#histogram-button")
    page.click(".histogram[data-column=reward] button >> nth=1")
    expect(page.locator("#count")).to_have_text("26 of 48")
    assert page.input_value("#reward") == "1"
    page.click(".histogram[data-column=reward] button >> nth=1")
    expect(page.locator("#count")).to_have_text("48 of 48")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_is_filtered_can_be_exported(shown: tuple[Page, str], kind: str, tmp_path: Path) -> None:
    page, stage = shown
    page.goto(page.url.partition("#")[0] + f"#/{stage}/rollouts?kind=eval&step=40&outcome=correct")
    expect(page.locator("#count")).to_have_text("4 of 48")
    with page.expect_download() as loaded:
        page.select_option("#export", kind)
    loaded.value.save_as(tmp_path / "rows")
    text = (tmp_path / "rows").read_text()
    if kind == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["problem"] for row in rows] == ["held/0", "held/1", "held/2", "held/8"]
        assert "\\boxed" in rows[0]["completion"]
    else:
        import csv

        rows = [*csv.DictReader(text.splitlines(keepends=True))]
        assert [row["answer"] for row in rows] == ["30", "44", "60", "108"]
        assert "\n" in rows[0]["completion"]


def test_keys(shown: tuple[Page, str]) -> None:
    page, stage = shown
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("side by side with another step")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.goto(page.url.partition("#")[0] + f"#/{stage}/rollouts")
    page.locator(".row").first.click()
    expect(page.locator("#detail .meta a")).to_have_text("1/0/0")
    page.keyboard.press("j")
    expect(page.locator("#detail .meta a")).to_have_text("1/0/1")
    page.keyboard.press("f")
    expect(page.locator("#completion details.think")).to_have_attribute("open", "")
    page.keyboard.press("m")
    assert page.input_value("#mode") == "plain"
    page.keyboard.press("/")
    page.keyboard.type("zzz")
    expect(page.locator("#count")).to_have_text("0 of 480")


def test_the_page_follows_a_run_that_trains(browser: Browser, tmp_path: Path) -> None:
    run = write_demo(tmp_path / "runs" / "now", steps=2, done=False)
    (run / "run.lock").write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
    with served(tmp_path / "runs") as address, opened(browser, address + "#/now/runs") as (page, problems):
        line = page.locator("#runs tr[data-id=now]")
        expect(line).to_contain_text("running")
        expect(line).to_contain_text("2 of 60")
        page.goto(address + "#/now/rollouts")
        page.locator(".row").first.click()
        expect(page.locator("#count")).to_have_text("16 of 16")
        train(run, 3)
        expect(page.locator("#count")).to_have_text("24 of 24")
        expect(page.locator("#detail .meta a")).to_have_text("1/0/0")  # what is read stays open
        page.click("nav button[data-tab=runs]")
        train(run, 4)
        expect(line).to_contain_text("4 of 60")
        write_demo(tmp_path / "runs" / "later", steps=1, done=False)
        expect(page.locator("#runs tr[data-id=later]")).to_contain_text("stopped", timeout=15_000)
        (run / "run.lock").unlink()
        (run / "done.json").write_text("{}")
        expect(line).to_contain_text("ended")
        assert problems == []


def test_curves_and_numbers_follow_a_run_and_what_is_open_stays(browser: Browser, tmp_path: Path) -> None:
    run = write_demo(tmp_path / "runs" / "now", steps=2, done=False)
    with served(tmp_path / "runs") as address, opened(browser, address + "#/now/curves") as (page, problems):
        legend = page.locator(".chart", has=page.locator("h3", has_text="Loss")).locator(".u-legend")
        expect(legend).to_contain_text("0.5")
        page.click(".chart details.help summary >> nth=0")
        train(run, 3)
        expect(legend).to_contain_text("0.3333")
        expect(page.locator(".chart details.help").first).to_have_attribute("open", "")
        page.click("nav button[data-tab=overview]")
        page.click("#overview summary:has-text('Config')")
        train(run, 4)
        expect(page.locator("#overview .cards")).to_contain_text("4 of 60")
        expect(page.locator("#overview .cards")).to_contain_text("32")
        expect(page.locator("#overview details[open] pre")).to_contain_text("method: grpo")
        assert problems == []


def test_turns_are_blocks_and_tokens_are_coloured(browser: Browser, tmp_path: Path) -> None:
    from reasoner.model.load import byte_tokenizer

    run = write_demo(tmp_path / "runs" / "run", steps=1, done=False)
    byte_tokenizer().save_pretrained(run / "final")
    row = {**rollout(2, 0, 0, "calculate"), "completion": "12 CALL 12\nis right", "loss_mask": [1, 1, 0, 1]}
    row["turns"] = [
        {"start": 0, "end": 2, "origin": "policy", "text": "12 CALL"},
        {"start": 2, "end": 3, "origin": "environment", "text": " 12\n", "errors": 1},
        {"start": 3, "end": 4, "origin": "policy", "text": "is right"},
    ]
    append(run / "rollouts.jsonl", [row])
    append(
        run / "updates.jsonl", [{"step": 2, "group": 0, "sample": 0, "advantage": 1.0, "trainer_logprobs": [-1.5] * 4}]
    )
    write_report(run, tmp_path / "report.html", audit=0)
    with served(tmp_path / "runs") as address:
        for place in (f"{address}#/run/rollout/2/0/0", f"file://{tmp_path}/report.html#/0/rollout/2/0/0"):
            with opened(browser, place) as (page, problems):
                turns = page.locator("#completion .turn")
                assert turns.locator(".whose").all_inner_texts() == ["POLICY", "REPLY, AN ERROR", "POLICY"]
                expect(turns.nth(1)).to_have_class(re.compile("reply failed"))
                page.select_option("#mode", "advantage")
                spans = page.locator("#completion span")
                expect(spans).to_have_count(4)
                expect(spans.nth(0)).to_have_attribute("style", re.compile("--good-rgb"))
                expect(spans.nth(2)).to_have_class("reply")
                page.select_option("#mode", "gap")
                expect(spans.nth(0)).to_have_attribute("style", re.compile("--bad-rgb"))
                assert problems == []


HOSTILE = """<img src="http://evil.test/a.png"><script>fetch("http://evil.test/b")</script>
![picture](http://evil.test/c.png) [link](javascript:alert(1)) <iframe src="http://evil.test/d"></iframe>
$\\href{javascript:alert(2)}{x}$ $\\includegraphics{http://evil.test/e.png}$ \\(\\htmlData{a=b}{y}\\) $\\url{http://evil.test/f}$
$\\def\\a{\\a\\a}\\a$

```html
<img src=x onerror=alert(3)>
```
</think> <details open ontoggle=alert(4)> | a |
| - |
"""


def test_hostile_text_asks_for_nothing_and_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    run = write_demo(tmp_path / "runs" / "run", steps=1, done=False)
    row = rollout(2, 0, 0, '"><script>alert(5)</script>')
    row |= {"completion": HOSTILE, "question": HOSTILE, "prompt": HOSTILE, "reference": HOSTILE, "tokens": 999}
    row["verdict"] |= {"answer": "\\href{javascript:alert(6)}{z}", "detail": {"reason": HOSTILE}}
    append(run / "rollouts.jsonl", [row])
    write_report(run, tmp_path / "report.html", audit=0)
    with served(tmp_path / "runs") as address:
        for page_address in (f"{address}#/run/rollout/2/0/0", f"file://{tmp_path}/report.html#/0/rollout/2/0/0"):
            with opened(browser, page_address) as (page, problems):
                page.on("dialog", lambda dialog: problems.append(dialog.message))
                expect(page.locator("#completion")).to_contain_text("evil.test/a.png")
                assert (
                    page.locator("#detail img, #detail iframe, #detail script, #detail [href^=javascript]").count() == 0
                )
                page.select_option("#mode", "plain")
                expect(page.locator("#completion")).to_have_text(HOSTILE)
                page.click("nav button[data-tab=problems]")
                page.select_option("#problems-kind", "train")
                expect(page.locator("#problems")).to_contain_text("<script>alert(5)")
                assert problems == []


def test_a_report_with_a_cap_says_what_it_leaves_out(browser: Browser, runs: Path, tmp_path: Path) -> None:
    done = write_report(runs / "first", tmp_path / "report.html", audit=0, most=40)
    assert (done.kept, done.rollouts) == (80, 528)
    page, problems, _ = open_page(browser, tmp_path / "report.html", place="#/0/rollouts")
    expect(page.locator("#count")).to_have_text("40 of 40 with text (480 in the run)")
    page.goto(f"file://{tmp_path}/report.html#/0/rollout/60/0/1")
    expect(page.locator("#completion")).to_contain_text("The product")
    left_out = next(
        f"{step}/1/3" for step in range(2, 30) if page.evaluate(f"index.slot(index.find('{step}/1/3'))") < 0
    )
    page.goto(f"file://{tmp_path}/report.html#/0/rollout/{left_out}")
    expect(page.locator("#detail")).to_contain_text("left out of the file")
    page.click("nav button[data-tab=problems]")
    page.select_option("#problems-kind", "train")
    expect(page.locator("#problems")).to_contain_text("60")  # attempts of all 480 rollouts, not of those kept
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_fits_a_phone(browser: Browser, runs: Path, scheme: str) -> None:
    with served(runs) as address, opened(browser, address, width=390, scheme=scheme) as (page, problems):
        for tab in ("runs", "overview", "curves", "rollouts", "problems", "pair"):
            page.click(f"nav button[data-tab={tab}]")
            page.wait_for_selector(f"#{tab}:not([hidden])")
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
        assert problems == []


def heed_ctrl_c() -> None:
    """Undo what a background job of a shell inherits: that SIGINT is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_the_command_serves_until_ctrl_c(runs: Path) -> None:
    command = [sys.executable, "-m", "reasoner", "view", str(runs), "--no-browser"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_ctrl_c) as process:
        assert process.stdout is not None
        address, said = process.stdout.readline().split(maxsplit=1)
        assert "2 stages below" in said
        with urllib.request.urlopen(address + "api/runs", timeout=30) as answer:
            assert {line["id"] for line in json.loads(answer.read())["stages"]} == {"first", "second"}
        with urllib.request.urlopen(address + "events", timeout=30) as events:
            events.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
