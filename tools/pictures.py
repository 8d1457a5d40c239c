"""Make the pictures of README and docs from finished runs: `python tools/pictures.py RUN [OTHER ...]`. Needs chromium.

docs/pictures/live.svg shows the live view in a terminal at the last step of RUN, with the best rollout of that step.
docs/pictures/report.png shows the top of its report; view.png the runs, curves.png their curves over each other and
side_by_side.png a problem that one run solves and another does not, in `reasoner view` of the folder that holds the
runs. label.png shows `reasoner label` with the made-up pairs below; `--label` makes it alone, and needs no run.

`--all FOLDER` takes every tab of the view and of the report, the labelling page and the live view, in light and dark,
on a desktop and a phone, into a folder instead, to look at.
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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright
from rich.console import Console

from reasoner.config.load import load_config
from reasoner.label.page import Page
from reasoner.label.sitting import Sitting
from reasoner.observe.display.live_view import View
from reasoner.observe.explain.during_run import Watch
from reasoner.observe.report import write_report
from reasoner.observe.view.folder import Folder
from reasoner.observe.view.server import ViewServer
from reasoner.storage.history import stage_folders
from reasoner.web.local_server import LocalServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
LABEL_KEYS = {"pair": "", "open": "f", "plain": "m", "progress": "p", "keys": "?"}
TABS = ("runs", "overview", "curves", "rollouts", "problems", "pair")
SETTLED_MS = 1500
SIZES = (("desktop", 1280, 850), ("phone", 390, 800))
FACTORED = r"""<think>Two numbers with sum 5 and product 6: 2 and 3.</think>
The left side factors:

$$x^2 - 5x + 6 = (x - 2)(x - 3),$$

and a product is zero only if a factor is, so $x = 2$ or $x = 3$.

```python
def roots(a, b, c):
    d = (b * b - 4 * a * c) ** 0.5
    return (-b - d) / (2 * a), (-b + d) / (2 * a)

assert roots(1, -5, 6) == (2.0, 3.0)
```

**Answer:** $\boxed{2, 3}$"""
BY_FORMULA = r"""By the quadratic formula,

$$x = \frac{5 \pm \sqrt{25 - 24}}{2} = \frac{5 \pm 1}{2}.$$

| sign | $x$ |
|---|---|
| $+$ | 3 |
| $-$ | 2 |

So $x \in \{2, 3\}$."""
QUESTION = "For which $x$ is $x^2 - 5x + 6 = 0$? Explain, and check the answer with a program."
PAIRS = [
    {"id": n, "prompt": QUESTION, "first": FACTORED, "second": BY_FORMULA, "category": ("algebra", "geometry")[n % 2]}
    for n in range(20)
]
"""Pairs of the labelling page's picture: texts of no model."""


def live(run: Path, folder: Path) -> None:
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
    (folder / "live.svg").write_text(re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL))  # no web fonts


@contextmanager
def running(server: LocalServer) -> Iterator[str]:
    """Run the server of a page; yield the address."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.address
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def labelling() -> Iterator[str]:
    """Serve the labelling page, with some of the pairs labelled; yield the address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.jsonl"
        file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
        sitting = Sitting(file, repeat=0.2)
        while (shown := sitting.shown()) is not None and (twice := sitting.progress().agreement.of) < 3:
            factored = "left" if shown.left == FACTORED else "right"
            sitting.give(shown.id, "tie" if shown.repeat and not twice else factored, repeat=shown.repeat)
        with running(Page(sitting)) as address:
            yield address


def picture(
    browser: Browser,
    address: str,
    file: Path,
    *,
    wide: int = 1200,
    high: int = 760,
    dark: bool = False,
    keys: str = "",
) -> None:
    """Take a screenshot of an address, after pressing keys."""
    page = browser.new_page(viewport={"width": wide, "height": high}, color_scheme="dark" if dark else "light")
    page.goto(address)
    page.wait_for_selector("html[data-ready]", timeout=600_000)
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=str(file))
    page.close()


def report(browser: Browser, run: Path) -> None:
    """Take a screenshot of the report."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        write_report(run, file)
        picture(browser, file.as_uri(), PICTURES / "report.png")


def stage_name(run: Path) -> str:
    """Return the name of a run's last stage in `reasoner view` of the folder that holds the run."""
    return stage_folders(run)[-1].relative_to(run.parent).as_posix()


def differing(runs: list[Path]) -> str:
    """Return the address of a held-out problem that the last evaluation of the first run solves, not of the second."""
    found: list[dict[str, str]] = []
    for run, right in zip(runs[:2], (True, False), strict=True):
        rows = [json.loads(line) for line in (stage_folders(run)[-1] / "eval_rollouts.jsonl").read_text().splitlines()]
        last = [row for row in rows if row["step"] == rows[-1]["step"] and (row["reward"] == 1) == right]
        found.append({row["problem"]: f"{row['step']}/{row['group']}/{row['sample']}" for row in last})
    common = next(problem for problem in found[0] if problem in found[1])
    sides = [stage_name(run) for run in runs[:2]]
    left, right = (f"{side}|eval|{places[common]}" for side, places in zip(sides, found, strict=True))
    return f"#/{sides[0].replace('/', '%2F')}/pair?left={left}&right={right}"


def everything(browser: Browser, view: str, runs: list[Path], folder: Path) -> None:
    """Take every page, light and dark, on a desktop and a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    live(runs[0], folder)
    write_report(runs, folder / "report.html")
    stage = stage_name(runs[0]).replace("/", "%2F")
    shown = [(f"view-{tab}", f"{view}#/{stage}/{tab}", "") for tab in TABS]
    shown += [(f"report-{tab}", f"{(folder / 'report.html').as_uri()}#/x/{tab}", "") for tab in TABS]
    shown += [("view-keys", view, "?")]
    with labelling() as label:
        shown += [(f"label-{name}", label, keys) for name, keys in LABEL_KEYS.items()]
        for page, address, keys in shown:
            for dark in (False, True):
                for size, wide, high in SIZES:
                    file = folder / f"{page}-{size}-{'dark' if dark else 'light'}.png"
                    picture(browser, address, file, wide=wide, high=high, dark=dark, keys=keys)


def main(names: list[str]) -> None:
    """Make the pictures of the command line's runs."""
    every = Path(names[names.index("--all") + 1]) if "--all" in names else None
    runs = [Path(name) for name in names if not name.startswith("--") and Path(name) != every]
    with sync_playwright() as playwright, ExitStack() as open_pages:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if every is None:
            label = open_pages.enter_context(labelling())
            picture(browser, label, PICTURES / "label.png", high=620, keys="f")
        if runs:
            view = open_pages.enter_context(running(ViewServer(Folder(runs[0].parent))))
            everything(browser, view, runs, every) if every is not None else of_docs(browser, view, runs)
        browser.close()


def of_docs(browser: Browser, view: str, runs: list[Path]) -> None:
    """Make the pictures of runs."""
    live(runs[0], PICTURES)
    report(browser, runs[0])
    stages = "|".join(map(stage_name, runs))
    picture(browser, f"{view}#/x/runs?runs={stages}", PICTURES / "view.png", high=320)
    if len(runs) > 1:
        first = stage_name(runs[0]).replace("/", "%2F")
        picture(browser, f"{view}#/{first}/curves?runs={stages}", PICTURES / "curves.png", high=680)
        picture(browser, view + differing(runs), PICTURES / "side_by_side.png", high=620)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    main(sys.argv[1:])
