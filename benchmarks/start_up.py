"""CPU seconds from Enter to the first sampled token, by part, and of the commands without torch: one JSON object.

    python benchmarks/start_up.py [--engine hf] [--engine vllm]

Each part is a fresh process. The model is a small one with random weights; the first completion has one token. Imports
are the seconds of each package's own code (`-X importtime`, wall clock). CPU seconds are valid on a machine with other
work, wall-clock seconds are not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
QUICK: Mapping[str, tuple[str, ...]] = {
    "--help": ("--help",),
    "train --help": ("train", "--help"),
    "verify": ("verify", "--verifier", "math", "--gold", "1/2", "--completion", r"\boxed{0.5}"),
    "import verifiers": (),
}
LIMITS = {"hf": 4.0, "vllm": 8.0}
"""Target CPU seconds to the first token."""
MODEL = "{hidden_size: 128, layers: 2, heads: 4, max_positions: 128}"
OVERRIDES = (
    *("task.options.family=addition", "task.options.digits=2", f"model.from_scratch={MODEL}", "prompt.chat=never"),
    *("rollout.problems_per_step=2", "rollout.group_size=2", "rollout.max_tokens=1", "eval.problems=0", "steps=1"),
)


class FirstToken(BaseException):
    """Signal that ends the child process."""


def child(engine: str, folder: Path) -> None:
    """Train until the first completion; print the CPU seconds of each part."""
    seconds: dict[str, float] = {}
    last = 0.0

    def mark(part: str) -> None:
        nonlocal last
        now = time.process_time()
        seconds[part] = seconds.get(part, 0.0) + now - last
        last = now

    def timed(module: Any, name: str, part: str) -> None:
        inner: Callable[..., Any] = getattr(module, name)

        def outer(*args: Any, **named: Any) -> Any:
            mark("between")
            try:
                return inner(*args, **named)
            finally:
                mark(part)

        setattr(module, name, outer)

    mark("interpreter")
    import reasoner.cli  # noqa: F401

    mark("command line")
    from reasoner.config.load import resolve
    from reasoner.engine.environment import imported_for_good, prepare_process, skip_unused_packages

    raw = {"task": "arithmetic", "output": str(folder / "run"), "engine": {"name": engine}}
    run = resolve(raw, OVERRIDES)
    mark("config")
    from reasoner.stages.names import check_run_names

    prepare_process()
    check_run_names(run, resume=False)
    mark("names, files and columns")
    with imported_for_good():
        import torch  # noqa: F401

        mark("import torch")
        skip_unused_packages()
        mark("import transformers")
        from reasoner.session import opening
        from reasoner.stages.pipeline import run_pipeline

        mark("import the trainer")
    timed(opening, "load_problems", "problems")
    timed(opening, "_load_policy", "model")
    timed(opening, "_open_engine", "engine")
    timed(opening.Session, "sync", "weight sync")
    opened = opening.open_engine

    def watched(*args: Any, **named: Any) -> Any:
        made = opened(*args, **named)
        generate = made.generate

        def first(*given: Any, **how: Any) -> Any:
            mark("between")
            for finished in generate(*given, **how):
                mark("first token")
                raise FirstToken
                yield finished

        made.generate = first
        return made

    opening.open_engine = watched
    with contextlib.suppress(FirstToken):
        run_pipeline(run, resume=False, names_checked=True)
    print(json.dumps({part: round(value, 2) for part, value in seconds.items() if value >= 0.005}))
    sys.stdout.flush()
    os._exit(0)


def started(engine: str) -> dict[str, Any]:
    """Run a child; return its CPU seconds by part, and the packages whose imports cost most."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-X", "importtime", __file__, "--child", engine, "--folder", folder]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment())
    if done.returncode != 0:
        sys.exit(done.stderr[-3000:])
    parts = json.loads(done.stdout.strip().splitlines()[-1])
    total = round(sum(parts.values()), 2)
    return {"cpu_seconds": total, "wanted": LIMITS[engine], "parts": parts, "imports": imports(done.stderr)}


def imports(said: str, most: int = 12) -> dict[str, float]:
    """Return seconds by top-level package, the slowest first, from the output of `-X importtime`."""
    found: dict[str, float] = defaultdict(float)
    for line in said.splitlines():
        own, _, rest = line.removeprefix("import time:").partition("|")
        if line.startswith("import time:") and own.strip().isdigit():
            found[rest.partition("|")[2].strip().partition(".")[0]] += int(own) / 1e6
    slowest = sorted(found.items(), key=lambda pair: -pair[1])[:most]
    return {name: round(seconds, 2) for name, seconds in slowest}


def quick(words: tuple[str, ...]) -> float:
    """Return the CPU seconds of a command."""
    program = "from reasoner.__main__ import main; main()" if words else "import verifiers"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program, *words], capture_output=True, env=environment(), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)


def environment() -> dict[str, str]:
    """Return a user's environment; the trainer sets its own variables."""
    return {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | {"PYTHONPATH": str(ROOT)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", action="append", choices=sorted(LIMITS))
    parser.add_argument("--child", choices=sorted(LIMITS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked.folder)
    commands = {name: quick(words) for name, words in QUICK.items()}
    engines = {engine: started(engine) for engine in asked.engine or LIMITS}
    print(json.dumps({"commands_cpu_seconds": commands, "first_token": engines}, indent=1))


if __name__ == "__main__":
    main()
