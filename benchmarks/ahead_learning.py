"""The quickstart's second stage with batches sampled ahead, on two vLLM servers. Prints JSON.

Every arm starts from the same warm-started model of its seed and is evaluated on the same 512 held-out problems. With
`ahead` above 0 completions go on over weight updates (`rollout.during_update: go_on`). Of each arm: accuracy before and
after with its 95 % interval, lag and effective sample size of the trained tokens, what a step took and who waited, and
the findings of `reasoner explain`. On one CPU sampler and trainer share the cores: the seconds show no gain there.

    python benchmarks/ahead_learning.py --seeds 0 1 2 --output /tmp/ahead
    python benchmarks/ahead_learning.py --seeds 0 --ahead 0 16 --output /tmp/ahead optim.lr=1e-3
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
from reasoner.engine import open_engine  # noqa: E402
from reasoner.engine.gate import KEY_VARIABLE  # noqa: E402
from reasoner.engine.serve import engine_key  # noqa: E402
from reasoner.engine.server import ServerEngine  # noqa: E402
from reasoner.model.load import load_model  # noqa: E402
from reasoner.observe.explain import findings  # noqa: E402
from reasoner.storage.history import read_history  # noqa: E402

CONTEXT = 256


def start_servers(folder: Path) -> ServerEngine:
    """Start two servers with the quickstart's model; the runs send them their weights."""
    model, tokenizer = load_model(load_config("quickstart").stages[0].model, seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    engine = open_engine(
        "vllm-server", model_path=str(folder), max_model_len=CONTEXT, servers=2, kv_cache_gigabytes=0.5, spans=True
    )
    assert isinstance(engine, ServerEngine)
    return engine


def arm(base: Path, seed: int, ahead: int, urls: list[str], further: list[str]) -> Path:
    """Run one arm unless it was run before; return the folder of its second stage."""
    folder, warm = base / f"ahead-{ahead}", base / "ahead-0" / "0-sft"
    options = json.dumps({"urls": urls})
    given = [f"seed={seed}", "engine.name=vllm-server", f"engine.options={options}"]
    given += [f"stages.1.rollout.ahead={ahead}", "stages.1.rollout.during_update=go_on"]
    given += [f"stages.1.{one}" for one in further]
    if ahead:  # the first stage is not run again: it is marked as done, and the second one starts from its model
        (folder / "0-sft").mkdir(parents=True, exist_ok=True)
        for file in ("done.json", "config.yaml"):
            (folder / "0-sft" / file).write_text((warm / file).read_text())
        given += ["--resume", f"stages.1.model.path={warm / 'final'}"]
    train(folder, *given)
    return folder / "1-grpo"


def of_arm(stage: Path) -> dict[str, object]:
    """Return the figures of an arm; means over its steps."""
    metrics = lines(stage / "metrics.jsonl")

    def mean(name: str, rows: list[dict]) -> float | None:
        found = [row[name] for row in rows if row.get(name) is not None]
        return round(statistics.fmean(found), 4) if found else None

    late = metrics[-max(1, len(metrics) // 3) :]
    names = ("lag/mean", "lag/max", "lag/mixed", "time/step", "time/rollout", "time/sync", "time/sampler_idle")
    said = [f"{one.code}: {one.title}" for one in findings(read_history(stage))]
    return {
        **figures(stage),
        "steps": len(metrics),
        **{name: mean(name, metrics) for name in names},
        "lag/effective_sample of the last third": mean("lag/effective_sample", late),
        "explain": said,
    }


def main() -> None:
    """Run all arms and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ahead", type=int, nargs="+", default=[0, 1, 4, 16])
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; finished ones are reused")
    parser.add_argument("--urls", nargs=2, help="running servers of a model of this shape; default: two are started")
    parser.add_argument("further", nargs="*", help="overrides of the second stage, e.g. steps=30")
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    os.environ[KEY_VARIABLE] = engine_key()
    engine = None if arguments.urls else start_servers(output / "model")
    urls = arguments.urls or [server.url for server in engine.servers]
    try:
        for seed in arguments.seeds:
            for ahead in dict.fromkeys([0, *arguments.ahead]):
                stage = arm(output / f"seed-{seed}", seed, ahead, urls, arguments.further)
                print(json.dumps({"seed": seed, "ahead": ahead, **of_arm(stage)}), flush=True)
    finally:
        if engine is not None:
            engine.close()


if __name__ == "__main__":
    main()
