"""vLLM servers killed under a run that samples ahead: it ends with every rollout once, each of the right version."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import PreTrainedModel

from reasoner.config.load import resolve
from reasoner.config.sections import LoraConfig, ModelSection, ScratchConfig
from reasoner.engine.remote import OwnServer, Server
from reasoner.engine.server import ServerEngine
from reasoner.model.load import load_model
from reasoner.model.lora import add_adapter, load_adapter
from reasoner.stages.pipeline import run_pipeline, run_replay
from reasoner.storage.run_folder import RunFolder
from tests.integration.test_engine_contract import logprobs
from tests.integration.test_resume import records

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(2400)]
CONTEXT = 256
SHAPE = ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=CONTEXT)
LORA = LoraConfig(rank=4, alpha=8.0)
SEED, STEPS, AHEAD, ROWS = 3, 12, 2, 16


def config_of(folder: Path, **changes: object) -> dict[str, object]:
    return {
        "output": str(folder),
        "steps": STEPS,
        "seed": SEED,
        "task": {"name": "arithmetic", "options": {"family": "addition", "digits": 1}},
        "prompt": {"chat": "never"},
        "model": {"from_scratch": SHAPE.model_dump(mode="json")},
        "rollout": {"problems_per_step": 4, "group_size": 4, "max_tokens": 96},
        "reward": {"name": str(Path(__file__).parent / "evens.py")},
        "optim": {"lr": 1.0e-2, "warmup_steps": 0},
        "eval": {"problems": 4, "every": 6},
        "checkpoint": {"every": 100},
        **changes,
    }


def processes_of(server: Server, name: str) -> list[int]:
    assert isinstance(server, OwnServer)
    of_server = psutil.Process(server.process.pid).children(recursive=True)
    return [one.pid for one in of_server if name in " ".join([one.name(), *one.cmdline()])]


def kill_all(server: Server) -> None:
    assert isinstance(server, OwnServer)
    os.killpg(server.process.pid, signal.SIGKILL)


def kill_core(server: Server) -> None:
    """Kill the process that samples; the one that answers remains, for a while."""
    (core,) = processes_of(server, "EngineCore")
    os.kill(core, signal.SIGKILL)


class Killer:
    """Kills servers of the run in this process at given completions; all answer again before the next one."""

    def __init__(self, kills: dict[int, tuple[int, Callable[[Server], None]]], patch: pytest.MonkeyPatch) -> None:
        """`kills`: server and how, by the number of the completion."""
        self.kills, self.begun = kills, 0
        self.servers: list[Server] = []
        self.answers: list[tuple[str, int]] = []
        """URL of the server that answered each request of a completion, and the number of kills before it."""
        self.done: list[int] = []
        self.pending: list[int] = []
        """Requests that each one had under way when it was killed."""
        complete, log, post = ServerEngine._complete, RunFolder.log, Server.post

        def counted(engine: ServerEngine, *given: Any) -> Any:
            self.begun += 1
            self.servers = engine.servers
            if self.begun in kills:
                which, how = kills[self.begun]
                self.pending.append(engine.servers[which].pending)
                how(engine.servers[which])
                self.done.append(which)
            return complete(engine, *given)

        def posted(server: Server, path: str, body: Any = None) -> Any:
            answer = post(server, path, body)
            if "seed" in str(body):
                self.answers.append((server.url, len(self.done)))
            return answer

        def logged(run: RunFolder, *given: Any) -> None:
            log(run, *given)
            for server in self.servers if len(self.done) < len(kills) else []:
                assert isinstance(server, OwnServer)
                until = time.monotonic() + 900
                while not server.alive and server.process.poll() is None and not server.healthy(1.0):
                    assert time.monotonic() < until
                    time.sleep(0.2)

        patch.setattr(ServerEngine, "_complete", counted)
        patch.setattr(Server, "post", posted)
        patch.setattr(RunFolder, "log", logged)


def model_after(step: int, replayed: Path, *, lora: bool) -> PreTrainedModel:
    folder = replayed / "checkpoints" / f"step-{step:06d}"
    if not lora:
        return load_model(ModelSection(path=str(folder / "model")), seed=SEED).model
    model = load_model(ModelSection(from_scratch=SHAPE), seed=SEED).model
    load_adapter(add_adapter(model, LORA, seed=0), folder / "adapter")
    return model


def worst_gap(rows: list[dict[str, Any]], replayed: Path, *, lora: bool) -> float:
    """Largest |difference| between a token's log-probability and that of the policy of its version, in nats."""
    models = {step: model_after(step, replayed, lora=lora) for step in range(STEPS)}
    gaps: list[float] = []
    for row in rows:
        spans = row.get("versions") or [[row["policy_version"], 0, len(row["token_ids"])]]
        for version, start, end in spans:
            oldest = max(0, row["step"] - 1 - AHEAD)
            assert version == oldest if lora else oldest <= version < row["step"]
            ours = logprobs(models[version], tuple(row["prompt_ids"]), tuple(row["token_ids"]), 1.0)
            gaps.append(float((ours - torch.tensor(row["rollout_logprobs"]))[start:end].abs().max()))
    return max(gaps)


@pytest.mark.parametrize("during_update", ["go_on", "pin"])
def test_every_rollout_is_there_once_after_two_servers_were_killed(
    during_update: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = during_update == "pin"
    model = {"from_scratch": SHAPE.model_dump(mode="json")} | ({"lora": LORA.model_dump(mode="json")} if lora else {})
    rollout = {
        "problems_per_step": 4,
        "group_size": 4,
        "max_tokens": 96,
        "ahead": AHEAD,
        "during_update": during_update,
    }
    options = {"servers": 2, "kv_cache_gigabytes": 0.1, "max_batch": 6, "health_seconds": 2.0}
    changes = {"model": model, "rollout": rollout}
    run_pipeline(resolve(config_of(tmp_path / "whole", model=model, engine={"name": "hf"})), resume=False)
    capsys.readouterr()
    killer = Killer({40: (1, kill_all), 130: (0, kill_core)}, monkeypatch)
    engine = {"name": "vllm-server", "options": options}
    run_pipeline(resolve(config_of(tmp_path / "killed", **changes, engine=engine)), resume=False)
    said = " ".join(capsys.readouterr().out.split())
    monkeypatch.undo()
    assert killer.done == [1, 0]
    assert min(killer.pending) > 0
    assert said.count("left out until the next weight sync") == 2, said
    first, second = (Counter(url for url, kills in killer.answers if kills == number) for number in (1, 2))
    assert len(first) == 2, "the first one that was killed samples again"
    assert second[killer.servers[1].url] > 0
    rows = records(tmp_path / "killed", "rollouts.jsonl")
    keys = ("step", "group", "sample", "problem", "prompt")
    found, undisturbed = (
        [tuple(row[key] for key in keys) for row in records(tmp_path / name, "rollouts.jsonl")]
        for name in ("killed", "whole")
    )
    assert found == undisturbed, "nothing is missing, doubled or in another order"
    assert len({*found}) == STEPS * ROWS
    further = {"checkpoint": {"every": 1, "keep": STEPS + 1}, "engine": engine}
    again = resolve(config_of(tmp_path / "again", **changes, **further))
    assert "every update and metric is equal bit for bit" in run_replay(again, tmp_path / "killed", resume=False)
    assert any("versions" in row for row in rows) is (during_update == "go_on")
    assert worst_gap(rows, tmp_path / "again", lora=lora) < 1e-4
