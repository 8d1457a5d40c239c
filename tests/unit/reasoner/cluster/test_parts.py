"""The commands of a run's parts: what they are told, and that they read it as it was meant."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from reasoner.cluster.parts import (
    Start,
    check_cluster,
    engine_overrides,
    grader_command,
    sampler_command,
    trainer_command,
)
from reasoner.cluster.seat import FILES, PYTHON, Command
from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.stage import RunConfig
from reasoner.storage.cluster_file import Asked

SFT: dict[str, Any] = {"method": "sft", "steps": 1, "eval": {"problems": 0}}
GRPO: dict[str, Any] = {"method": "grpo", "steps": 1}


def made(output: Path | str = "runs/x", *, stages: list[dict[str, Any]] | None = None, **cluster: object) -> RunConfig:
    raw: dict[str, Any] = {"task": "arithmetic", "model": "m", "output": str(output), "cluster": cluster}
    return resolve(raw | ({"stages": stages} if stages else {"steps": 1}))


def trainer(config: RunConfig, *overrides: str, config_file: str = "quickstart", resume: bool = False) -> Command:
    start = Start(config=config_file, overrides=overrides, cwd="/somewhere")
    file = Path(config.output) / "cluster/cluster.json"
    return trainer_command(config, start, machine=1, address="10.0.0.1", port=77, file=file, resume=resume)


def read(command: Command, raw: dict[str, Any]) -> RunConfig:
    """Return the config that a trainer makes of its command line."""
    words = list(command.words[command.words.index("train") + 2 :])
    return resolve(raw, [word for word in words if word != "--resume"])


@pytest.mark.parametrize(
    "name", ["plain", "with blanks", "a #b", "a: b", "{x}", "'q\"", "ünï\u2028", "back\\slash", "[1]"]
)
def test_a_trainer_gets_the_run_folder_whatever_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = made(name, trainers=2)
    found = read(trainer(config), {"task": "arithmetic", "model": "m", "steps": 1, "cluster": {"trainers": 2}})
    assert found.output == str(tmp_path / name)
    assert found.stages[0].cluster.file == str(tmp_path / name / "cluster/cluster.json")
    assert not found.stages[0].cluster.starts


def test_one_trainer_starts_alone_and_several_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "5")
    alone = trainer(made(graders=1), "seed=3", resume=True)
    assert alone.words[:6] == (PYTHON, "-m", "reasoner", "train", "quickstart", "seed=3")
    assert alone.words[-1] == "--resume"
    assert (alone.cwd, alone.environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) == ("/somewhere", "5")
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    several = trainer(made(trainers=4, trainer_machines=2))
    words = "{python} -m torch.distributed.run --nnodes 2 --node-rank 1 --nproc-per-node 2 --master-addr 10.0.0.1"
    assert several.words[:11] == tuple(words.split())
    assert several.words[11:17] == ("--master-port", "77", "-m", "reasoner", "train", "quickstart")
    assert int(several.environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) > 3600, "a step may take long"


def test_accelerate_starts_them_if_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = trainer(made(trainers=2, accelerate="fsdp.yaml")).words
    assert words[:5] == (PYTHON, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "fsdp.yaml"))
    assert words[5:11] == ("--num_processes", "2", "--num_machines", "1", "--machine_rank", "1")


def test_a_config_file_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    assert str(tmp_path / "mine.yaml") in trainer(made(trainers=1), config_file="mine.yaml").words


def test_the_advice_of_a_trainer_is_the_command_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words name a cluster.json that nobody keeps after the run."""
    from reasoner.stages.going_on import resume_command

    typed = ["reasoner", "train", "quickstart", "cluster.trainers=2"]
    monkeypatch.setattr(sys, "argv", typed)
    command = trainer(made(trainers=2))
    assert [json.loads(said) for said in command.environment.values() if said.startswith("[")] == [typed]
    for name, said in command.environment.items():
        monkeypatch.setenv(name, said)
    monkeypatch.setattr(sys, "argv", ["/x/reasoner/__main__.py", "train", "quickstart", "cluster.file=runs/x/y.json"])
    advice = resume_command(made().stages[0], Path("runs/x"))
    assert advice == "reasoner train quickstart cluster.trainers=2 --resume"


def test_stages_that_sample_use_the_samplers() -> None:
    given = {"engine": {"name": "hf", "options": {"max_batch": 3}}}
    kept = {"engine": {"name": "vllm-server", "options": {"max_batch": 3}}}
    config = made(stages=[SFT, GRPO | given, GRPO | kept], samplers=1)
    assert engine_overrides(config) == [
        "stages.1.engine.name=vllm-server",
        "stages.1.engine.options={}",
        "stages.2.engine.name=vllm-server",
    ]
    raw: dict[str, Any] = {"task": "arithmetic", "model": "m", "stages": [SFT, GRPO | given, GRPO | kept]}
    found = read(trainer(config, *engine_overrides(config)), raw).stages
    assert [stage.engine.name for stage in found[1:]] == ["vllm-server", "vllm-server"]
    assert [stage.engine.options for stage in found[1:]] == [{}, {"max_batch": 3}]


def test_a_sampler_gets_what_trainers_asked_for_and_the_key_not_on_its_command_line(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json", "x.bin"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder").mkdir()
    asked = Asked(str(tmp_path), ("--seed", "1"))
    config = made(samplers=1, sampler_arguments=["--max-num-seqs", "9"])
    here = sampler_command(config, asked, host="h", port=7, key="sesame", here=True)
    assert here.words == (
        *(PYTHON, "-m", "reasoner.engine.serve", "--model", str(tmp_path), "--load-format", "dummy"),
        *("--seed", "1", "--max-num-seqs", "9", "--host", "h", "--port", "7"),
    )
    assert here.files == {}
    assert here.environment["REASONER_ENGINE_KEY"] == "sesame"
    there = sampler_command(config, asked, host="h", port=7, key="sesame", here=False)
    assert there.words[4] == FILES
    assert there.files == {"config.json": b"config.json", "tokenizer.json": b"tokenizer.json"}
    named = sampler_command(config, Asked("org/Model", ()), host="h", port=7, key="sesame", here=False)
    assert (named.words[4], named.files) == ("org/Model", {})


def test_a_grader_gets_its_workers_and_its_token() -> None:
    plain = grader_command(made(graders=1), host="h", port=7, token="sesame")
    assert plain.words == (PYTHON, "-m", "reasoner", "verifiers", "serve", "--host", "h", "--port", "7")
    assert plain.environment["REASONER_VERIFIER_TOKEN"] == "sesame"
    assert grader_command(made(graders=1, grader_workers=3), host="h", port=7, token="t").words[-2:] == (
        "--workers",
        "3",
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (made(stages=[SFT, GRPO | {"cluster": {"graders": 1}}]), "cluster must be the same in all stages"),
        (made(stages=[SFT], samplers=1), "cluster.samplers does nothing: this run is sft"),
        (
            made(stages=[GRPO | {"engine": {"name": "vllm-server", "options": {"urls": ["http://a:1"]}}}], samplers=1),
            "engine.options.urls names others",
        ),
    ],
)
def test_settings_that_say_two_things_are_told(config: RunConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_cluster(config)


def test_settings_that_say_one_thing_pass() -> None:
    check_cluster(made(stages=[SFT, GRPO], trainers=2, samplers=1, graders=1))
    check_cluster(made(stages=[SFT], trainers=2))
