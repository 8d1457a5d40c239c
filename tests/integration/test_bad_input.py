"""Each mistake that people make gets one line that names the cause and the fix, exit code 2, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config
from reasoner.model.paths import ModelError
from reasoner.policy.checkpoint import CheckpointError
from reasoner.stages.pipeline import run_pipeline
from reasoner.storage.find_model import list_checkpoints

pytestmark = pytest.mark.integration
SMALL = {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 1, "max_positions": 96}}


def config_file(folder: Path, **changes: object) -> Path:
    rows = folder / "rows.jsonl"
    if not rows.exists():
        rows.write_text("".join(json.dumps({"prompt": f"{n}+1?", "reference": str(n + 1)}) + "\n" for n in range(40)))
    config = {
        "name": "bad",
        "output": str(folder / "run"),
        "steps": 2,
        "task": {"name": "dataset", "options": {"path": str(rows), "verifier": "math"}},
        "prompt": {"chat": "never"},
        "model": SMALL,
        "rollout": {"problems_per_step": 2, "group_size": 2, "max_tokens": 8},
        "engine": {"name": "hf"},
        "eval": {"problems": 2},
        "checkpoint": {"every": 1},
        **changes,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def reasoner(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", *arguments]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment)


def dataset(folder: Path, rows: list[object], **options: object) -> dict[str, object]:
    path = folder / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"name": "dataset", "options": {"path": str(path), "verifier": "math", **options}}


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("missing column", ["has no column 'question'", "It has: prompt, reference", "Set task.options.prompt_column"]),
        ("empty prompt", ["train/3: its prompt is empty", "set task.bad_rows: drop"]),
        ("bad gold", ["train/3:", "1 of 17 rows cannot be used", "set task.bad_rows: drop"]),
        ("no such model", ["no/such-model"]),
        ("typo", ["unknown key 'rollout.group_sise'", "Did you mean 'group_size'?"]),
        ("too long", ["train/3", "must fit", "96", "set task.long_prompts: drop"]),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(tmp_path: Path, case: str, says: list[str]) -> None:
    rows: list[object] = [{"prompt": f"{n}+1?", "reference": str(n + 1)} for n in range(20)]
    match case:
        case "missing column":
            changes: dict[str, object] = {"task": dataset(tmp_path, rows, prompt_column="question")}
        case "empty prompt":
            rows[3] = {"prompt": "  ", "reference": "4"}
            changes = {"task": {**dataset(tmp_path, rows), "bad_rows": "stop"}}
        case "bad gold":
            rows[3] = {"prompt": "2+2?", "reference": r"\frac{1}{"}
            changes = {"task": {**dataset(tmp_path, rows), "bad_rows": "stop"}}
        case "no such model":
            changes = {"model": "no/such-model"}
        case "typo":
            changes = {"rollout": {"group_sise": 2}}
        case _:
            rows[3] = {"prompt": "2+2?" * 31, "reference": "4"}
            changes = {"task": dataset(tmp_path, rows)}
    done = reasoner("train", str(config_file(tmp_path, **changes)))
    error = [line for line in done.stderr.split("\n") if line.startswith("error: ")]
    assert done.returncode == 2, done.stderr[-2000:]
    assert len(error) == 1
    assert "Traceback" not in done.stderr
    for words in says:
        assert words in error[0]


def test_nan_loss_stops_with_the_last_checkpoint_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from reasoner.policy.policy import Policy, TrainingError

    config = config_file(tmp_path, steps=3, algorithm={"advantage": "reinforce_pp", "advantage_options": {}})
    run = load_config(str(config))
    annotate = Policy.annotate

    def broken(self: Policy, batch, needs):
        found = annotate(self, batch, needs)
        if self.version == 1:
            return replace(found, reward_B=found.reward_B + float("nan"))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Policy, "annotate", broken)
        with pytest.raises(TrainingError, match=r"must be finite.*--resume"):
            run_pipeline(run, resume=False)
    folder = run.stage_folder(0)
    assert [path.name for path in list_checkpoints(folder / "checkpoints")][-1] == "step-000001"
    run_pipeline(run, resume=True)
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().split("\n") if line]
    assert steps == [1, 2, 3]


def test_a_damaged_checkpoint_says_which_and_the_one_before_it_goes_on(tmp_path: Path) -> None:
    config = str(config_file(tmp_path, steps=3))
    folder = run_pipeline(load_config(config), resume=False)
    before, last = list_checkpoints(folder / "checkpoints")
    (folder / "done.json").unlink()
    for name in ("progress.json", "training.pt"):
        whole = (last / name).read_bytes()
        (last / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match=rf"{last} cannot be read .* Remove that folder, then continue"):
            run_pipeline(load_config(config), resume=True)
        (last / name).write_bytes(whole)
    model = last / "model" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:1000])
    done = reasoner("train", config, "--resume")
    assert done.returncode == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert f"checkpoint {last} cannot be read" in done.stderr
    shutil.rmtree(last)
    assert run_pipeline(load_config(config), resume=True) == folder
    assert before.parent.joinpath(last.name).is_dir()


@pytest.mark.parametrize("method", ["grpo", "sft", "dpo", "reward_model"])
def test_other_data_than_the_run_began_with_is_refused_on_resume(method: str, tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    rows = [
        {"prompt": f"{n}+1?", "reference": str(n + 1), "completion": str(n + 1), "chosen": str(n + 1), "rejected": "no"}
        for n in range(20)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    learned = {
        "grpo": {"task": {"name": "dataset", "options": {"path": str(file), "verifier": "math"}}},
        "sft": {"sft": {"data": str(file), "rows_per_step": 2}},
    }
    pairs = {"preferences": {"train": str(file), "test": str(file)}}
    config = str(config_file(tmp_path, method=method, eval={"problems": 0}, **learned.get(method, pairs)))
    folder = run_pipeline(load_config(config, ["steps=2"]), resume=False)
    before = (folder / "metrics.jsonl").read_bytes()
    (folder / "done.json").unlink()
    file.write_text(file.read_text().replace('"7+1?', '"7 + 1 =?'))
    with pytest.raises(ConfigError, match=r"must be the same as at the start of the run: \d+ rows, .* now\. Restore"):
        run_pipeline(load_config(config, ["steps=3"]), resume=True)
    assert (folder / "metrics.jsonl").read_bytes() == before
    file.write_text(file.read_text().replace('"7 + 1 =?', '"7+1?'))
    run_pipeline(load_config(config, ["steps=3"]), resume=True)


def test_a_base_model_that_is_gone_is_no_damaged_checkpoint(tmp_path: Path) -> None:
    """Faults outside the checkpoint are named as such: no message tells anyone to remove a good checkpoint."""
    base = run_pipeline(load_config(str(config_file(tmp_path, output=str(tmp_path / "base")))), resume=False) / "final"
    config = str(config_file(tmp_path, model={"path": str(base), "lora": {"rank": 2}}))
    folder = run_pipeline(load_config(config), resume=False)
    (folder / "done.json").unlink()
    last = list_checkpoints(folder / "checkpoints")[-1]
    for weights, error in (
        (base / "model.safetensors", rf"^model '{base}' must be a Hugging Face causal model"),
        (last / "adapter" / "adapter_model.safetensors", rf"^checkpoint {last} cannot be read .* Remove that folder"),
    ):
        kept = weights.rename(tmp_path / "kept")
        for content in (None, kept.read_bytes()[:200]):
            if content:
                weights.write_bytes(content)
            with pytest.raises((ModelError, CheckpointError), match=error):
                run_pipeline(load_config(config), resume=True)
        kept.rename(weights)
    run_pipeline(load_config(config), resume=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_disk_without_room_for_the_checkpoints_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mount is not allowed here: {mounted.stderr.strip()}")
    try:
        config = config_file(tmp_path, output=str(disk / "run"), steps=4, checkpoint={"every": 2, "keep": 1})
        assert reasoner("train", str(config), "steps=2").returncode == 0
        (disk / "run" / "done.json").unlink()
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(b"0" * (free.f_bavail * free.f_frsize - (100 << 10)))
        full = reasoner("train", str(config), "--resume")
        assert full.returncode == 1, full.stderr[-2000:]
        assert full.stderr.count("\n") == 1
        assert "lower checkpoint.keep, or set output to a folder on a larger disk" in full.stderr
        (disk / "filler").unlink()
        assert reasoner("train", str(config), "--resume").returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert not disk.joinpath("run").exists()


def test_a_run_without_signal_says_so_and_what_to_do(tmp_path: Path) -> None:
    done = reasoner("train", str(config_file(tmp_path, eval={"problems": 0})))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "no group has signal: 100% of the groups are all wrong" in done.stdout
    assert "Try: " in done.stdout
