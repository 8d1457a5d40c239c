"""What batches sampled ahead do to learning: runs that differ in `rollout.ahead` alone, on two vLLM servers.

The arms of a seed start from the same model. With `ahead` above 0 completions go on over weight updates
(`rollout.during_update: go_on`). A JSON line for each arm: its mean reward in the first and the last fifth of the
steps, the accuracy before and after with its 95 % interval, lag and effective sample size of the trained tokens, the
seconds of a step and who waited, what `--dry-run` predicts from it, and the findings of `reasoner explain`.

    python benchmarks/ahead_learning.py --seeds 0 1 2 --output /tmp/ahead                  # the quickstart
    python benchmarks/ahead_learning.py --tiny --seeds 0 1 2 --output /tmp/ahead           # minutes on two busy cores

--tiny trains a model of 100,000 parameters from scratch on the share of even characters in what it writes. On one CPU
sampler and trainer share the cores, so that the seconds show no gain there.
"""

from __future__ import annotations

from reasoner.engine.environment import prepare_process

prepare_process()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
from pathlib import Path  # noqa: E402

from quickstart_controls import figures, lines, train  # noqa: E402

from reasoner.config.load import load_config  # noqa: E402
from reasoner.config.stage import RunConfig  # noqa: E402
from reasoner.engine import open_engine  # noqa: E402
from reasoner.engine.gate import KEY_VARIABLE  # noqa: E402
from reasoner.engine.serve import engine_key  # noqa: E402
from reasoner.engine.server import ServerEngine  # noqa: E402
from reasoner.model.load import load_model  # noqa: E402
from reasoner.observe.explain import findings  # noqa: E402
from reasoner.preflight.ahead_gain import ahead_line  # noqa: E402
from reasoner.storage.history import read_history  # noqa: E402

EVENS = Path(__file__).resolve().parents[1] / "tests" / "integration" / "evens.py"
TINY = {
    "method": "grpo",
    "steps": 30,
    "task": {"name": "arithmetic", "options": {"family": "addition", "digits": 1}},
    "prompt": {"chat": "never"},
    "model": {"from_scratch": {"hidden_size": 64, "layers": 2, "heads": 2, "max_positions": 512}},
    "rollout": {"problems_per_step": 4, "group_size": 8, "max_tokens": 24},
    "reward": {"name": str(EVENS)},
    "optim": {"lr": 3.0e-3, "schedule": "constant"},
    "eval": {"problems": 0},
    "checkpoint": {"every": 100},
}


def start_servers(config: RunConfig, folder: Path) -> ServerEngine:
    """Start two servers with the config's model; the runs send them their weights."""
    shape = config.stages[0].model
    assert shape.from_scratch is not None
    model, tokenizer = load_model(shape, seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    context = shape.from_scratch.max_positions
    engine = open_engine("vllm-server", model_path=str(folder), max_model_len=context, servers=2, spans=True)
    assert isinstance(engine, ServerEngine)
    return engine


def arm(config: RunConfig, source: str, base: Path, seed: int, ahead: int, given: list[str]) -> Path:
    """Run one arm unless it was run before; return the folder of its last stage."""
    folder, last = base / f"ahead-{ahead}", len(config.stages) - 1
    names = [Path(config.stage_folder(index)).name for index in range(last + 1)]
    own = "" if last == 0 else f"stages.{last}."
    overrides = [f"seed={seed}", *given, f"{own}rollout.ahead={ahead}", f"{own}rollout.during_update=go_on"]
    if ahead and last:  # the first stages are not run again: they are marked as done
        for name in names[:-1]:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file in ("done.json", "config.yaml"):
                (folder / name / file).write_text((base / "ahead-0" / name / file).read_text())
        overrides += ["--resume", f"{own}model.path={base / 'ahead-0' / names[-2] / 'final'}"]
    train(folder, *overrides, config=source)
    return folder if last == 0 else folder / names[-1]


def of_arm(stage: Path) -> dict[str, object]:
    """Return the figures of an arm; means over its steps."""
    metrics = lines(stage / "metrics.jsonl")

    def mean(name: str, rows: list[dict]) -> float | None:
        found = [row[name] for row in rows if row.get(name) is not None]
        return round(statistics.fmean(found), 4) if found else None

    fifth = max(1, len(metrics) // 5)
    names = ("lag/mean", "lag/max", "lag/mixed", "time/step", "time/rollout", "time/sync", "time/sampler_idle")
    return {
        "steps": len(metrics),
        "reward": [mean("reward/mean", metrics[:fifth]), mean("reward/mean", metrics[-fifth:])],
        **(figures(stage) if lines(stage / "evals.jsonl") else {}),
        **{name: mean(name, metrics) for name in names},
        "lag/effective_sample of the last third": mean("lag/effective_sample", metrics[-max(1, len(metrics) // 3) :]),
        "median time/step": round(statistics.median(row["time/step"] for row in metrics), 3),
        "dry-run": ahead_line(stage),
        "explain": [f"{one.code}: {one.title}" for one in findings(read_history(stage))],
    }


def main() -> None:
    """Run all arms and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ahead", type=int, nargs="+", default=[0, 1, 4, 16])
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; finished ones are reused")
    parser.add_argument("--urls", nargs=2, help="running servers of a model of this shape; default: two are started")
    parser.add_argument("--override", nargs="*", default=[], help="overrides of the config, e.g. optim.lr=3e-3")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    source = "quickstart"
    if arguments.tiny:
        source = str(output / "tiny.yaml")
        Path(source).write_text(json.dumps(TINY))
    config = load_config(source)
    os.environ[KEY_VARIABLE] = engine_key()
    engine = None if arguments.urls else start_servers(config, output / "model")
    urls = arguments.urls or [server.url for server in engine.servers]
    given = ["engine.name=vllm-server", f"engine.options={json.dumps({'urls': urls})}", *arguments.override]
    try:
        for seed in arguments.seeds:
            for ahead in dict.fromkeys([0, *arguments.ahead]):
                stage = arm(config, source, output / f"seed-{seed}", seed, ahead, given)
                print(json.dumps({"seed": seed, "ahead": ahead, **of_arm(stage)}), flush=True)
    finally:
        if engine is not None:
            engine.close()


if __name__ == "__main__":
    main()
