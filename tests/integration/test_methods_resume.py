"""Kill any method anywhere, lose nothing: the records and the model of a run that never was killed."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
import yaml

from tests.integration.test_resume import records, run
from tests.unit.reasoner.model.test_quantized import needs_bitsandbytes
from tests.unit.reasoner.teachers import save_teacher

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SHAPE = {"hidden_size": 32, "layers": 1, "heads": 2, "max_positions": 128}
TASK = {"name": "covering", "options": {"train_size": 200, "test_size": 40}}


def pairs_file(folder: Path) -> str:
    rows = [
        {"prompt": f"ask {n}:", "chosen": "good " * (1 + n % 4), "rejected": "bad " * (1 + n % 3), "id": str(n)}
        for n in range(60)
    ]
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def reward_model(folder: Path) -> str:
    """A small reward model, made once."""
    config = write(folder, "rm-made", method="reward_model", steps=4)
    assert run(config) == 0
    return str(folder / "rm-made" / "final")


def write(folder: Path, name: str, **changes: object) -> Path:
    config = {
        "name": name,
        "output": str(folder / name),
        "seed": 3,
        "steps": 12,
        "prompt": {"chat": "never"},
        "model": {"from_scratch": SHAPE},
        "optim": {"lr": 1.0e-3, "warmup_steps": 3},
        "engine": {"name": "hf"},
        "checkpoint": {"every": 3},
        "eval": {"every": 4, "problems": 8},
        "preferences": {"train": pairs_file(folder), "held_out_share": 0.2},
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def of_method(folder: Path, method: str) -> dict[str, object]:
    rollout = {"problems_per_step": 6, "group_size": 1, "max_tokens": 8}
    match method:
        case "sft":
            sft = {"rows_per_step": 8, "held_out": 16, "patience": 2}
            return {"method": "sft", "task": TASK, "sft": sft, "rollout": rollout}
        case "reward_model":
            return {"method": method, "reward_model": {"pairs_per_step": 8, "heads": 2, "patience": 3}}
        case "dpo":
            return {"method": method, "dpo": {"pairs_per_step": 8, "sft_coef": 0.1}}
        case "dpo without a reference":
            return {"method": "dpo", "dpo": {"pairs_per_step": 8, "loss": "simpo"}}
        case "kto":
            return {"method": method, "kto": {"rows_per_step": 8, "split_pairs": True}}
        case "distill":
            mixed = {"advantage_options": {"reward_coef": 0.5}}
            teacher = str(save_teacher(folder / "teacher"))
            sampled = rollout | {"group_size": 2}
            return {"method": method, "task": TASK, "rollout": sampled, "teacher": teacher, "algorithm": mixed}
        case "gkd":
            sft = {"rows_per_step": 8, "held_out": 16}
            teacher = str(save_teacher(folder / "teacher"))
            given = {"teacher": teacher, "sft": sft, "gkd": {"lmbda": 0.5}}
            return {"method": method, "task": TASK, "rollout": rollout, **given}
        case "pairs":
            return {"method": method, "task": TASK, "rollout": rollout | {"group_size": 2}}
        case "ppo":
            return {
                "method": method,
                "task": TASK,
                "rollout": rollout,
                "algorithm": {"kl_coef": 0.1, "kl_in": "reward", "kl_target": 0.5, "kl_horizon": 20},
                "optim": {"lr": 1e-3, "inner_epochs": 2, "updates_per_step": 2, "stop_kl": 0.05},
                "value": {"warmup_steps": 1},
                "reward": {"name": "reward-model", "options": {"model": reward_model(folder)}},
            }
        case _:
            raise AssertionError(method)


FILES = ("rollouts.jsonl", "metrics.jsonl", "evals.jsonl", "updates.jsonl", "eval_rollouts.jsonl")


@pytest.mark.parametrize(
    ("method", "moments"),
    [
        ("sft", [("update", 7), ("checkpoint", 1)]),
        ("reward_model", [("update", 7), ("metrics", 2)]),
        ("dpo", [("update", 7), ("checkpoint", 0)]),
        ("dpo without a reference", [("update", 7)]),
        ("kto", [("update", 7), ("checkpoint", 0)]),
        ("distill", [("update", 7), ("checkpoint", 1)]),
        pytest.param("gkd", [("update", 7), ("checkpoint", 1)], marks=pytest.mark.slow),
        ("pairs", [("records", 7), ("checkpoint", 1)]),
        ("ppo", [("update", 17), ("annotate", 4), ("checkpoint", 1), ("metrics", 2)]),
    ],
)
def test_a_killed_method_ends_as_one_that_never_was(
    tmp_path: Path, method: str, moments: list[tuple[str, int]]
) -> None:
    changes = of_method(tmp_path, method)
    assert run(write(tmp_path, "whole", **changes)) == 0
    killed = write(tmp_path, "killed", **changes)
    for moment, count in moments:
        assert run(killed, moment, count) == -signal.SIGKILL, (moment, count)
    assert run(killed) == 0
    ours, theirs = tmp_path / "killed", tmp_path / "whole"
    for name in FILES:
        assert records(ours, name) == records(theirs, name), name
    if method == "pairs":
        assert (ours / "pairs.jsonl").read_bytes() == (theirs / "pairs.jsonl").read_bytes()
        assert (ours / "pairs.jsonl").read_text().count("\n") > 20
    else:
        weights = [(folder / "final" / "model.safetensors").read_bytes() for folder in (ours, theirs)]
        assert weights[0] == weights[1]
    if method == "ppo":
        coefficients = [row["kl/coef"] for row in records(ours, "metrics.jsonl")]
        assert len(set(coefficients)) > 6


@needs_bitsandbytes
@pytest.mark.parametrize("name", ["adamw_8bit", "adamw_offload"])
def test_a_killed_run_with_another_optimizer_ends_as_one_that_never_was(tmp_path: Path, name: str) -> None:
    changes = of_method(tmp_path, "dpo") | {
        "steps": 6,
        "model": {"from_scratch": SHAPE | {"hidden_size": 96}},
        "optim": {"lr": 1e-3, "name": name},
    }
    assert run(write(tmp_path, "whole", **changes)) == 0
    killed = write(tmp_path, "killed", **changes)
    assert run(killed, "update", 4) == -signal.SIGKILL
    assert run(killed) == 0
    for file in ("metrics.jsonl", "evals.jsonl"):
        assert records(tmp_path / "killed", file) == records(tmp_path / "whole", file)
    ours, theirs = ((tmp_path / folder / "final" / "model.safetensors").read_bytes() for folder in ("killed", "whole"))
    assert ours == theirs
