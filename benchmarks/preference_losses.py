"""Learning test of every loss of `method: dpo`, and of `method: kto`: does each lower its own held-out loss?

All begin from the same small model, which has read the chosen completions of the training pairs for some steps, and see
the same pairs. kto gets each pair as two rows. Prints one JSON object per loss: held-out loss and accuracy before and
after (with the 95 % interval), seconds, and if a reference was written. Exit status 1 if a held-out loss did not fall.

The data are those of harmless-base (Bai et al., arXiv:2204.05862), which are not part of this repository.

    REASONER_DATA_DIR=... python benchmarks/preference_losses.py --output /tmp/losses
    REASONER_DATA_DIR=... python benchmarks/preference_losses.py --output /tmp/losses --only simpo kto
"""

from __future__ import annotations

from reasoner.engine.environment import prepare_process

prepare_process()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from planted_faults import train  # noqa: E402
from quickstart_controls import lines  # noqa: E402

from reasoner.algorithm.pairwise import DPO_LOSSES  # noqa: E402
from reasoner.config.sections import PreferenceSection  # noqa: E402
from reasoner.data.preferences import load_pairs  # noqa: E402
from tasks.held_out import prompt_text  # noqa: E402

SCRATCH = {"from_scratch": {"hidden_size": 64, "layers": 2, "heads": 2, "max_positions": 512}}


def common(given: argparse.Namespace, folder: str, steps: int) -> dict[str, object]:
    """Return the settings that all stages share."""
    return {
        "name": folder,
        "seed": given.seed,
        "steps": steps,
        "eval": {"every": steps, "problems": 0},
        "checkpoint": {"every": steps},
        "logging": {"tensorboard": False},
    }


def warmed(preferences: dict[str, object], given: argparse.Namespace) -> str:
    """Train a model on the chosen completions, or reuse a finished one; return its folder."""
    train_pairs = load_pairs(PreferenceSection.model_validate(preferences)).train.pairs
    file = given.output / "chosen.jsonl"
    given.output.mkdir(parents=True, exist_ok=True)
    rows = ({"prompt": prompt_text(pair.prompt), "completion": pair.first} for pair in train_pairs)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        **common(given, "warm", given.warm),
        "method": "sft",
        "model": SCRATCH,
        "sft": {"data": str(file), "rows_per_step": 16, "max_tokens": given.tokens, "bad_rows": "drop_most"},
        "optim": {"lr": 3e-3},
    }
    train(config, given.output / "warm")
    return str(given.output / "warm" / "final")


def figures(loss: str, model: str, preferences: dict[str, object], given: argparse.Namespace) -> dict[str, object]:
    """Train with one loss from the warm model; return what was measured on the held-out pairs."""
    method = (
        {"method": "kto", "kto": {"rows_per_step": 2 * given.pairs, "split_pairs": True}}
        if loss == "kto"
        else {"method": "dpo", "dpo": {"loss": loss, "pairs_per_step": given.pairs}}
    )
    config = {
        **common(given, loss, given.steps),
        **method,
        "model": model,
        "preferences": preferences,
        "optim": {"lr": given.lr, "warmup_steps": 5},
    }
    folder = given.output / loss
    started = time.process_time()
    train(config, folder)
    first, *_, last = lines(folder / "evals.jsonl")
    return {
        "loss": loss,
        "before": [round(first["loss"], 4), first["metrics"].get("accuracy")],
        "after": [round(last["loss"], 4), last["metrics"].get("accuracy")],
        "held_out": last.get("pairs") or last.get("rows"),
        "cpu_seconds": round(time.process_time() - started, 1),
        "reference": (folder / "ref_logprobs.safetensors").exists(),
    }


def main() -> int:
    """Train with each loss and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs; finished ones are reused")
    parser.add_argument("--only", nargs="+", help="some losses; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm", type=int, default=60, help="steps of the warm start")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=8, help="pairs per step")
    parser.add_argument("--tokens", type=int, default=256, help="longest rows, in bytes")
    parser.add_argument("--lr", type=float, default=3e-4)
    given = parser.parse_args()
    if (data := os.environ.get("REASONER_DATA_DIR")) is None:
        parser.error("set REASONER_DATA_DIR to the folder that holds preferences/hh_harmless_base_test.jsonl.gz")
    preferences: dict[str, object] = {
        "train": f"{data}/preferences/hh_harmless_base_test.jsonl.gz",
        "held_out_share": 0.25,
        "max_tokens": given.tokens,
        "bad_rows": "drop_most",
    }
    model = warmed(preferences, given)
    rose: list[str] = []
    for loss in given.only or [*DPO_LOSSES, "kto"]:
        found = figures(loss, model, preferences, given)
        print(json.dumps(found), flush=True)
        rose += [loss] if found["after"][0] >= found["before"][0] else []
    return 1 if rose else 0


if __name__ == "__main__":
    sys.exit(main())
