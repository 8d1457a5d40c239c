"""The report in headless Chromium: a small run, and one of 20,000 rollouts."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from reasoner.observe.report import write_report
from tests.unit.reasoner.runs import make_records, write_run

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.integration


class Opened(NamedTuple):
    page: Page
    problems: list[str]
    """Console errors, page errors, and requests other than the page itself."""
    seconds: float


def open_page(browser: Browser, path: Path, *, place: str = "", width: int = 1280, scheme: str = "light") -> Opened:
    page = browser.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)  # type: ignore[arg-type]
    problems: list[str] = []
    page.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith("file:") else problems.append(request.url[:80]))
    started = time.monotonic()
    page.goto(f"file://{path}{place}")
    page.wait_for_selector("html[data-ready]")
    return Opened(page, problems, time.monotonic() - started)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_report(write_run(folder / "run", make_records(flip=True)), folder / "report.html", audit=20)
    return folder / "report.html"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    made = make_records(steps=50, problems=50, group_size=8, length=30)
    made.rollouts[12_345]["completion"] = "here lies the needle #### 7"
    write_report(write_run(folder / "run", made), folder / "report.html", audit=0)
    return folder / "report.html"


def test_overview_says_what_explain_says_and_leads_to_its_rollouts(browser: Browser, small: Path) -> None:
    page, problems, _ = open_page(browser, small)
    assert "The advantage has the wrong sign" in page.inner_text("#overview .finding.fault")
    assert "70.0 % [58.0 %, 80.0 %]" in page.inner_text("#overview").replace("\xa0", " ")
    page.click("#overview .finding.fault a")
    page.wait_for_selector("#completion")
    assert "advantage" in page.inner_text("#detail dl")
    assert problems == []


def test_curves_show_values_under_the_pointer(browser: Browser, small: Path) -> None:
    page, problems, _ = open_page(browser, small, place="#/0/curves")
    chart = page.locator(".chart", has=page.locator("h3", has_text=re.compile("^Reward"))).first
    chart.locator(".u-over").hover(position={"x": 100, "y": 60})
    expect(chart.locator(".u-legend")).to_contain_text(re.compile(r"mean\s*0\.\d"))
    titles = page.locator(".chart h3").all_inner_texts()
    for wanted in ("Reward", "Pass rate by difficulty", "Engine-trainer gap", "Time of a step"):
        assert any(title.startswith(wanted) for title in titles), titles
    assert problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_can_read_it(browser: Browser, small: Path, scheme: str) -> None:
    page, problems, _ = open_page(browser, small, width=390, scheme=scheme)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    for tab in ("overview", "curves", "rollouts"):
        page.click(f"nav button[data-tab={tab}]")
        page.wait_for_selector(f"#{tab}:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator(".row").first.click()
    page.wait_for_selector("#completion")
    assert page.locator("#detail").bounding_box()["width"] == 390  # type: ignore[index]
    page.click("#back")
    page.wait_for_selector("#list .row")
    assert page.locator("#detail").is_hidden()
    assert problems == []


def test_tokens_are_coloured(browser: Browser, small: Path) -> None:
    page, problems, _ = open_page(browser, small, place="#/0/rollouts")
    page.select_option("#sort", "advantage")
    page.locator(".row").first.click()
    page.wait_for_selector("#completion")
    # these records name no tokenizer: the text is plain, and no mode is offered that could not be shown
    assert page.locator("#mode option").all_inner_texts() in (
        ["rendered", "plain text"],
        ["rendered", "plain text", "coloured by advantage", "coloured by gap", "coloured by surprisal"],
    )
    assert problems == []


def test_twenty_thousand_rollouts(browser: Browser, large: Path) -> None:
    page, problems, seconds = open_page(browser, large, place="#/0/rollouts")
    assert seconds < 2
    assert page.inner_text("#count") == "20,000 of 20,000"
    assert page.locator(".row").count() < 60  # only what is in sight is in the page

    page.select_option("#outcome", "incorrect")
    page.fill("#step", "3-4")
    wanted = page.evaluate("[...document.querySelectorAll('.row .where')].every(e => /step [34] /.test(e.textContent))")
    assert wanted
    page.click("#clear")
    assert page.inner_text("#count") == "20,000 of 20,000"

    started = time.monotonic()
    page.fill("#search", "the needle")
    expect(page.locator("#count")).to_have_text("1 of 20,000")
    assert time.monotonic() - started < 5
    page.locator(".row").first.click()
    expect(page.locator("#completion")).to_contain_text("here lies the needle")
    assert page.inner_text("#completion mark") == "the needle"
    link = page.evaluate("location.hash")
    page.click("#clear")
    page.locator("#list").evaluate("e => e.scrollTop = e.scrollHeight")
    expect(page.locator(".row .where", has_text="step 50").first).to_be_visible()
    assert problems == []

    again, problems, _ = open_page(browser, large, place=link)
    expect(again.locator("#completion")).to_contain_text("here lies the needle")
    assert problems == []


def test_transcripts_can_be_read_and_searched(browser: Browser, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_records(steps=2))
    told: list[dict[str, object]] = [
        {
            **{"step": 1, "group": at, "sample": 0, "prompt": [{"role": "user", "content": f"Ask {at}"}]},
            **{"answer": "Do as <b>you</b> like.", "revision": "Better not." if at else "Do as <b>you</b> like."},
            "rounds": [{"principle": f"p{at % 2}", "critique": f"critique {at}", "revision": "Better not."}],
        }
        for at in range(40)
    ]
    sides = {"prompt": "Ask", "first": "one", "second": "two", "principle": "p1", "label": "second"}
    told.append({"step": 1, "group": 0, **sides, "chances": [0.25, 0.15], "probability": 0.2})
    (run / "transcripts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    write_report(run, tmp_path / "report.html", audit=0)
    page, problems, _ = open_page(browser, tmp_path / "report.html")
    page.click("nav button[data-tab=transcripts]")
    expect(page.locator("#told-count")).to_have_text("41 of 41")
    assert page.locator(".told").count() == 30
    assert "Do as <b>you</b> like." in page.locator(".told").first.inner_text()
    page.click("#told > button")
    expect(page.locator(".told")).to_have_count(41)
    page.fill("#told-search", "Critique 7")
    expect(page.locator("#told-count")).to_have_text("1 of 41")
    assert page.inner_text(".told mark") == "critique 7"
    page.fill("#told-search", "")
    page.select_option("#told-kind", "kept")
    expect(page.locator("#told-count")).to_have_text("1 of 41")
    again, more, _ = open_page(browser, tmp_path / "report.html", place="#/0/transcripts?kind=compared&principle=p1")
    assert again.inner_text(".told .chosen") == "two"
    for wanted in ("25.0 %", "15.0 %", "20.0 %", "second is better"):
        assert wanted in again.inner_text(".told").replace("\xa0", " ")
    assert problems == more == []


def test_a_stage_without_transcripts_has_no_such_tab(browser: Browser, small: Path) -> None:
    page, problems, _ = open_page(browser, small, place="#/0/transcripts")
    expect(page.locator("nav button[data-tab=transcripts]")).to_be_hidden()
    expect(page.locator("#overview")).to_be_visible()
    assert problems == []
