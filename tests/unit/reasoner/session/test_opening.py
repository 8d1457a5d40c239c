"""Messages of a resumed run about its learning rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoner.config.load import dump, resolve
from reasoner.config.sections import RolloutSection
from reasoner.session.environment import resume_exactness
from reasoner.session.opening import open_session


def opened(folder: Path, capsys: pytest.CaptureFixture[str], *, lr: float, step: int | None = None) -> str:
    """Open a stage; with a step, write its checkpoint. Return the messages."""
    raw = {
        "method": "sft",
        "steps": 6,
        "task": {"name": "arithmetic", "options": {"digits": 1}},
        "model": {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 64}},
        "optim": {"lr": lr, "schedule": "constant", "warmup_steps": 0},
        "eval": {"problems": 0},
        "logging": {"tensorboard": False},
    }
    config = resolve(raw).stages[0]
    with open_session(config, folder, resume=step is None) as session:
        if step is not None:
            (folder / "config.yaml").write_text(dump(config))
            session.step = step
            session.checkpoint()
    return capsys.readouterr().out


@pytest.mark.parametrize(("step", "said"), [(0, False), (3, True)])
def test_another_rate_is_said_where_steps_were_trained_by_the_first(
    step: int, said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(tmp_path, capsys, lr=1e-3, step=step)
    out = opened(tmp_path, capsys, lr=1e-4)
    assert f"after step {step}" in out
    assert ("the learning rate jumps: from 0.001 at step 3" in " ".join(out.split())) is said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf", "bit for bit"),
        ("vllm", "bit for bit"),
        ("vllm-server", "rounding"),
        ("own.py:Mine", "as far as the engine"),
    ],
)
def test_a_run_records_how_exactly_it_resumes(name: str, said: str) -> None:
    config = resolve({"task": "arithmetic", "model": "somewhere", "engine": {"name": name}}).stages[0]
    assert said in resume_exactness(config)
    going = config.model_copy(update={"rollout": RolloutSection(ahead=2, during_update="go_on")})
    assert ("unfinished ones are sampled again" in resume_exactness(going)) is (name == "vllm-server")
    pinned = config.model_copy(update={"rollout": RolloutSection(ahead=2, during_update="pin")})
    assert ("versions of the adapter" in resume_exactness(pinned)) is (name == "vllm-server")
