"""Predict what sampling ahead gains: a discrete-event model of samplers and a trainer. Prints JSON.

    python benchmarks/async_model.py --run runs/mine --replicas 4 --update 39 --sync 5
    python benchmarks/async_model.py --published

A replica decodes its rows together; a token of each takes `base + row * rows` seconds. Lengths are those of a run's
rollouts.jsonl, or log-normal. The designs:

sync        sample, update, send the weights, one after the other; all devices sample, then all learn
wait        rollout.ahead: 1; the next batch is sampled during the update, and is finished before the weights are sent
in-order    batches stay as drawn; up to `ahead` more are under way, and go on through an update
ready-first the same bound, but a step trains on the completions that are finished first

`--published` compares with the table of verl's fully asynchronous trainer (docs/advance/fully_async.md:
Qwen2.5-Math-7B, H20, 512 x 16 completions of at most 28k tokens, 128 GPUs): 356.3 s a step in sync (177.9 sampling),
150.6 s with 64 samplers, staleness_threshold 0.5, finished first, in-flight updates, 113.2 s updates. The median length
is fitted to the sampling time of sync; the rest is predicted.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from reasoner.preflight.ahead_model import Setting, drawn_from, fence_seconds, log_normal, sampling_seconds, simulate


def published(seed: int) -> dict[str, object]:
    """Fit the median length to verl's sampling time in sync, and predict the asynchronous step."""
    rows, cap, sampling, other = 512 * 16, 28_000, 177.85, 356.30 - 177.85
    # H20: 7B weights of 15 GB at 4 TB/s, and the keys and values of each row
    times = {"base": 0.0045, "row": 0.00009}
    low, high = 200.0, 8_000.0
    for _ in range(14):
        median = math.sqrt(low * high)
        found = sampling_seconds(Setting(rows, 128, 0.0, **times), log_normal(median, 0.9, cap, seed), 2)
        low, high = (median, high) if found < sampling else (low, median)
    lengths = log_normal(median, 0.9, cap, seed)
    apart = {
        f"finished first, ahead {ahead}": simulate(
            Setting(rows, 64, 113.16, ahead=ahead, first_finished=True, **times), lengths
        )["step_seconds"]
        for ahead in (0.5, 1.0, 1.5)
    }
    ordered = {
        f"in-order, ahead {ahead}": simulate(Setting(rows, 64, 113.16, ahead=ahead, **times), lengths)["step_seconds"]
        for ahead in (1, 2, 3)
    }
    return {
        "median_length_fitted": round(median),
        "sync": {"measured": 356.30, "sampling": round(found, 1), "model": round(found + other, 1)},
        "half a batch stale, finished first": {"measured": 150.63},
        **{name: round(seconds, 1) for name, seconds in (apart | ordered).items()},
    }


def designs(setting: Setting, lengths: Callable[[int], Callable[[], int]]) -> dict[str, object]:
    """Predict every design for one setting."""
    sync = sampling_seconds(setting, lengths(0)) + setting.update + setting.sync
    found: dict[str, object] = {"sync": {"step_seconds": round(sync, 2)}}
    fence = fence_seconds(setting, sampling_seconds(setting, lengths(1)))
    found["wait, ahead 1"] = {"step_seconds": round(fence, 2), "times_faster": round(sync / fence, 2)}
    for first_finished in (False, True):
        for ahead in (1, 2, 4):
            changed = replace(setting, ahead=ahead, first_finished=first_finished)
            row = simulate(changed, lengths(2))
            name = f"{'ready-first' if first_finished else 'in-order'}, ahead {ahead}"
            found[name] = {key: round(value, 3) for key, value in row.items()}
            found[name]["times_faster"] = round(sync / row["step_seconds"], 2)  # pyright: ignore[reportIndexIssue]
    return found


def main() -> None:
    """Print the predictions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", action="store_true")
    parser.add_argument("--run", type=Path, help="stage folder: lengths of its rollouts, rows and times of its steps")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--update", type=float, help="seconds of an update; default: those of the run")
    parser.add_argument("--sync", type=float, help="seconds in which sampling is paused for new weights")
    parser.add_argument("--base", type=float, default=0.006, help="seconds a token takes with no other row")
    parser.add_argument("--row", type=float, default=0.00008, help="further seconds for each row beside it")
    parser.add_argument("--median", type=float, default=3_000)
    parser.add_argument("--cap", type=int, default=16_384)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.published:
        print(json.dumps(published(given.seed), indent=1))
        return
    rows, update, sync = given.rows, given.update, given.sync
    if given.run is not None:
        rollouts = [json.loads(line) for line in (given.run / "rollouts.jsonl").read_text().splitlines()]
        metrics = [json.loads(line) for line in (given.run / "metrics.jsonl").read_text().splitlines()]
        tokens = [row["tokens"] for row in rollouts]
        rows = round(len(rollouts) / len(metrics))
        parts = ("time/logprobs", "time/update", "time/sync")
        taken = {name: statistics.median(row.get(name) or 0.0 for row in metrics) for name in parts}
        update = taken["time/logprobs"] + taken["time/update"] if update is None else update
        sync = taken["time/sync"] if sync is None else sync

        def lengths(seed: int) -> Callable[[], int]:
            return drawn_from(tokens, given.seed + seed)
    else:

        def lengths(seed: int) -> Callable[[], int]:
            return log_normal(given.median, 0.9, given.cap, given.seed + seed)

    setting = Setting(rows, given.replicas, update or 0.0, sync or 0.0, given.base, given.row)
    print(json.dumps({"rows": rows, "update": update, "sync": sync, **designs(setting, lengths)}, indent=1))


if __name__ == "__main__":
    main()
