"""Make the README's pictures from a finished run: `python tools/pictures.py RUN`. Needs chromium.

docs/pictures/live.svg shows the live view in a terminal at the last step, with the best rollout of that step.
docs/pictures/report.png shows the top of the report.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from rich.console import Console

from reasoner.config.load import load_config
from reasoner.observe.display.live_view import View
from reasoner.observe.explain.during_run import Watch
from reasoner.observe.report import write_report

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"


def live(run: Path) -> None:
    """Draw the live view of the run's last step."""
    config = load_config(str(run / "config.yaml")).stages[0]
    watch = Watch(config)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        watch.heard(name, [json.loads(line) for line in (run / name).read_text().splitlines()])
    view = View(steps=config.steps, metrics=watch.metrics, rollouts=watch.last_rows, show="best")
    console = Console(record=True, file=io.StringIO(), width=100, force_terminal=True)
    console.print(view)
    drawn = console.export_svg(title="reasoner train")
    (PICTURES / "live.svg").write_text(re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL))  # no web fonts


def report(run: Path) -> None:
    """Take a screenshot of the report."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "report.html"
        write_report(run, output=page_file)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        page.goto(page_file.as_uri())
        page.wait_for_timeout(500)
        page.screenshot(path=str(PICTURES / "report.png"))
        browser.close()


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    live(Path(sys.argv[1]))
    report(Path(sys.argv[1]))
