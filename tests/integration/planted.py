"""Short real runs with a fault in each, on a model that knows nothing; prints what explain says first of each.

The reward is the parity of the completion's length in bytes: it has signal for any model, and no meaning.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import planted_faults as planted  # noqa: E402

from reasoner.config.load import resolve  # noqa: E402
from reasoner.config.mappings import deep_merge  # noqa: E402
from reasoner.observe.explain import explain  # noqa: E402
from reasoner.stages.pipeline import run_pipeline  # noqa: E402

BASE: dict[str, object] = {
    "method": "grpo",
    "steps": 5,
    "task": {"name": "arithmetic", "verifier": {"name": f"{planted.PARTS}:parity"}},
    "prompt": {"chat": "never"},
    "model": {"from_scratch": {"hidden_size": 32, "layers": 2, "heads": 2, "max_positions": 128}},
    "rollout": {"problems_per_step": 4, "group_size": 8, "max_tokens": 24},
    "optim": {"lr": 3e-3},
    "engine": {"name": "hf"},
    "eval": {"problems": 0},
    "logging": {"tensorboard": False},
}
STALE: dict[str, object] = {"engine": {"sync_check": False}}
FAULTS = [
    planted.Run("none"),
    planted.Run("top-p", patch=planted.sampling("hf", top_p=0.8)),
    planted.Run("temperature", patch=planted.sampling("hf", temperature=0.6)),
    planted.Run("stale", STALE, patch=planted.syncs("hf", every=None)),
    planted.Run("advantage flipped", {"algorithm": {"advantage": f"{planted.PARTS}:flipped"}}),
    planted.Run("loss flipped", {"algorithm": {"loss": f"{planted.PARTS}:ascending_loss"}}),
]


def main(output: Path) -> None:
    said: dict[str, list[str]] = {}
    for run in FAULTS:
        folder = output / run.name
        with run.patch():
            run_pipeline(resolve(deep_merge({**BASE, "output": str(folder)}, run.change)), resume=False)
        said[run.name] = [finding.code for finding in explain(folder)[0][1]]
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
