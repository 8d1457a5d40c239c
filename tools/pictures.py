"""Make the pictures of README and docs from finished runs: `python tools/pictures.py RUN [OTHER ...]`. Needs chromium.

docs/pictures/live.svg shows the live view in a terminal at the last step of RUN, with the best rollout of that step.
docs/pictures/report.png shows the top of its report; view.png the runs, curves.png their curves over each other and
side_by_side.png a problem that one run solves and another does not, in `reasoner view` of the folder that holds the
runs. `--all FOLDER` takes every tab in light and dark, on a desktop and a phone, into a folder instead, to look at.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright
from rich.console import Console

from reasoner.config.load import load_config
from reasoner.observe.display.live_view import View
from reasoner.observe.explain.during_run import Watch
from reasoner.observe.report import write_report
from reasoner.observe.view.folder import Folder
from reasoner.observe.view.server import ViewServer
from reasoner.storage.history import stage_folders

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
TABS = ("runs", "overview", "curves", "rollouts", "problems", "pair")
SETTLED_MS = 1500


def live(run: Path) -> None:
    """Draw the live view of the run's last step."""
    stage = stage_folders(run)[-1]
    config = load_config(str(stage / "config.yaml")).stages[0]
    watch = Watch(config)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        watch.heard(name, [json.loads(line) for line in (stage / name).read_text().splitlines()])
    view = View(steps=config.steps, metrics=watch.metrics, rollouts=watch.last_rows, show="best")
    console = Console(record=True, file=io.StringIO(), width=100, force_terminal=True)
    console.print(view)
    drawn = console.export_svg(title="reasoner train")
    (PICTURES / "live.svg").write_text(re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL))  # no web fonts


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder of runs; yield the address."""
    server = ViewServer(Folder(folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.address
    finally:
        server.shutdown()
        server.server_close()


def picture(
    browser: Browser, address: str, file: Path, *, wide: int = 1200, high: int = 760, dark: bool = False
) -> None:
    """Take a screenshot of an address."""
    page = browser.new_page(viewport={"width": wide, "height": high}, color_scheme="dark" if dark else "light")
    page.goto(address)
    page.wait_for_selector("html[data-ready]", timeout=600_000)
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=str(file))
    page.close()


def report(browser: Browser, run: Path) -> None:
    """Take a screenshot of the report."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        write_report(run, file)
        picture(browser, file.as_uri(), PICTURES / "report.png")


def differing(runs: list[Path]) -> str:
    """Return the address of a held-out problem that the last evaluation of the first run solves, not of the second."""
    found: list[dict[str, str]] = []
    for run, right in zip(runs[:2], (True, False), strict=True):
        rows = [json.loads(line) for line in (stage_folders(run)[-1] / "eval_rollouts.jsonl").read_text().splitlines()]
        last = [row for row in rows if row["step"] == rows[-1]["step"] and (row["reward"] == 1) == right]
        found.append({row["problem"]: f"{row['step']}/{row['group']}/{row['sample']}" for row in last})
    common = next(problem for problem in found[0] if problem in found[1])
    sides = [f"{run.name}/{stage_folders(run)[-1].name}" for run in runs[:2]]
    left, right = (f"{side}|eval|{places[common]}" for side, places in zip(sides, found, strict=True))
    return f"#/{sides[0].replace('/', '%2F')}/pair?left={left}&right={right}"


def everything(browser: Browser, address: str, stage: str, folder: Path) -> None:
    """Take every tab, light and dark, on a desktop and a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    for tab in TABS:
        for dark in (False, True):
            for name, wide, high in (("desktop", 1280, 850), ("phone", 390, 800)):
                file = folder / f"{tab}-{name}-{'dark' if dark else 'light'}.png"
                picture(browser, f"{address}#/{stage}/{tab}", file, wide=wide, high=high, dark=dark)


def main(names: list[str]) -> None:
    """Make the pictures of the command line's runs."""
    every = Path(names[names.index("--all") + 1]) if "--all" in names else None
    runs = [Path(name) for name in names if name != "--all" and Path(name) != every]
    with sync_playwright() as playwright, served(runs[0].parent) as address:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if every is not None:
            everything(browser, address, f"{runs[0].name}%2F{stage_folders(runs[0])[-1].name}", every)
        else:
            live(runs[0])
            report(browser, runs[0])
            stages = "|".join(f"{run.name}/{stage_folders(run)[-1].name}" for run in runs)
            picture(browser, f"{address}#/x/runs?runs={stages}", PICTURES / "view.png", high=320)
            if len(runs) > 1:
                first = f"{runs[0].name}%2F{stage_folders(runs[0])[-1].name}"
                picture(browser, f"{address}#/{first}/curves?runs={stages}", PICTURES / "curves.png", high=680)
                picture(browser, address + differing(runs), PICTURES / "side_by_side.png", high=620)
        browser.close()


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    main(sys.argv[1:])
