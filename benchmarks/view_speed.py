"""Speed of the live page and of the report on a large run: `python benchmarks/view_speed.py [--rollouts 100000]`.

It writes a run folder of made-up rollouts (the text is words drawn at random, the numbers are random) whose lines have
the size of real ones, opens it as `reasoner view` does, and prints JSON: seconds until the page's first answers, until
every rollout is indexed, of searches, of opening a rollout, each by the clock (`_s`) and of the processor (`_cpu_s`,
server and client together); memory of the server; and seconds and size of the report with a cap (`--report 0`: none).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from reasoner.config.load import dump, resolve
from reasoner.observe.report import write_report
from reasoner.observe.view.folder import Folder
from reasoner.observe.view.server import ViewServer

WORDS = "let the sum of two numbers be so we take half and add what is left then check again because it holds".split()
GROUP, PROBLEMS = 8, 32


def write_large_run(folder: Path, *, rollouts: int, tokens: int, seed: int = 0) -> int:
    """Write a run of one stage; return the bytes of its rollouts and updates."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    steps = -(-rollouts // (GROUP * PROBLEMS))
    raw: dict[str, object] = {"method": "grpo", "steps": steps, "task": "arithmetic", "model": "somewhere"}
    (folder / "config.yaml").write_text(dump(resolve(raw).stages[0]))
    (folder / "environment.json").write_text('{"device": "none"}')
    bytes_written = 0
    ids = [json.dumps([rng.randrange(150_000) for _ in range(tokens)]) for _ in range(50)]
    logprobs = [json.dumps([-rng.random() for _ in range(tokens)]) for _ in range(50)]
    with (folder / "rollouts.jsonl").open("w") as lines, (folder / "updates.jsonl").open("w") as updates:
        for number in range(rollouts):
            step, rest = divmod(number, GROUP * PROBLEMS)
            group, sample = divmod(rest, GROUP)
            right = rng.random() < 0.3 + 0.5 * step / steps
            row = json.dumps(_row(rng, (step + 1, group, sample), right=right, tokens=tokens))
            row = row.replace('"IDS"', rng.choice(ids)).replace('"LOGPROBS"', rng.choice(logprobs))
            update = {"step": step + 1, "group": group, "sample": sample, "advantage": right - 0.5}
            scored = json.dumps({**update, "trainer_logprobs": "LOGPROBS"}).replace('"LOGPROBS"', rng.choice(logprobs))
            bytes_written += lines.write(row + "\n") + updates.write(scored + "\n")
    with (folder / "metrics.jsonl").open("w") as metrics:
        for step in range(1, steps + 1):
            metrics.write(json.dumps({"step": step, "reward/mean": step / steps, "reward/std": 0.4}) + "\n")
    (folder / "done.json").write_text("{}")
    return bytes_written


def _row(rng: random.Random, place: tuple[int, int, int], *, right: bool, tokens: int) -> dict[str, Any]:
    step, group, sample = place
    text = " ".join(rng.choices(WORDS, k=tokens)) + f"\n#### {rng.randrange(1000)}"
    return {
        "step": step, "group": group, "sample": sample, "problem": f"p/{(step * 7 + group) % 2000}", "task": "sums",
        "difficulty": None, "prompt": "What is the sum? " * 10, "question": None, "completion": text,
        "tokens": tokens, "finish_reason": "stop", "policy_version": step - 1,
        "token_ids": "IDS", "rollout_logprobs": "LOGPROBS",
        "turns": None, "loss_mask": None, "reference": "7", "info": {}, "verifier": "exact", "verifier_options": {},
        "verdict": {"outcome": "correct" if right else "incorrect", "reward": float(right), "answer": "7",
                    "detail": {"reason": "compared"}, "seconds": 0.001, "verifier": "exact", "version": "1"},
        "shaping": 0.0, "components": {}, "reward": float(right), "prompt_ids": [1] * 60,
    }  # fmt: skip


def memory_mb() -> float:
    """Return the resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class Clock:
    """Seconds since a moment: by the clock, and of this process's and its children's processors."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.monotonic(), _processor_seconds()

    def since(self, name: str) -> dict[str, float]:
        """Return both, named."""
        return {f"{name}_s": time.monotonic() - self.wall, f"{name}_cpu_s": _processor_seconds() - self.cpu}


def _processor_seconds() -> float:
    return sum(os.times()[:4])


def measure(folder: Path) -> dict[str, Any]:
    """Open the folder's only stage as a page does, and return seconds and memory."""
    before = memory_mb()
    clock = Clock()
    server = ViewServer(Folder(folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def ask(path: str, **query: object) -> Any:
        with urllib.request.urlopen(f"{server.address}{path}?{urllib.parse.urlencode(query)}", timeout=600) as answer:
            return json.loads(answer.read() or "null") if path.startswith("api/") else answer.read()

    ask("")
    stage = ask("api/runs")["stages"][0]["id"]
    ask("api/stage", stage=stage)
    first = ask("api/columns", stage=stage)
    ask("api/heads", stage=stage, rows=",".join(map(str, range(min(30, first["count"])))))
    found: dict[str, Any] = {**clock.since("open"), "rollouts_at_open": first["count"]}
    last = first
    while last["read"] < last["size"]:
        last = ask("api/columns", stage=stage, **{"from": last["settled"], "generation": last["generation"]})
    found |= {**clock.since("all_indexed"), "rollouts": last["count"]}
    for name, query in {
        "search_text": {"text": "half and add what"},
        "search_nothing": {"text": "no such words"},
        "search_regex": {"text": r"#### 7\d\d", "regex": 1},
        "columns": {},
        "open_rollout": {"rows": last["count"] // 2},
    }.items():
        path = "api/" + {"columns": "columns", "open_rollout": "samples"}.get(name, "search")
        clock = Clock()
        answer = ask(path, stage=stage, **query)
        found |= clock.since(name)
        if path == "api/search":
            found[f"{name}_found"] = len(answer)
    found["memory_mb"] = memory_mb() - before
    server.shutdown()
    server.server_close()
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=100_000)
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--report", type=int, default=10_000, help="rollouts in the report file; 0: no report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "runs" / "large"
        size = write_large_run(run, rollouts=options.rollouts, tokens=options.tokens)
        row = {
            "rollouts": options.rollouts,
            "tokens": options.tokens,
            "file_mb": round(size / 1e6),
            **measure(run.parent),
        }
        if options.report:
            clock = Clock()
            done = write_report(run, Path(place) / "report.html", audit=0, most=options.report)
            row |= {
                "report_rollouts": done.kept,
                "report_mb": round(done.bytes / 1e6, 1),
                **{name: round(value, 1) for name, value in clock.since("report").items()},
                "report_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
            }
        json.dump(row, sys.stdout, indent=1)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
