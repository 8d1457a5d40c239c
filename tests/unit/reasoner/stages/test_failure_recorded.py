"""failed.json has the first error of a run's processes, not one that only follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from reasoner import processes
from reasoner.config.load import resolve
from reasoner.engine.base import EngineError
from reasoner.processes import ProcessError, says_another_ended
from reasoner.stages.pipeline import failure_recorded

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:56961"
FOLLOWING = [
    ProcessError("process 0 waited"),
    RuntimeError(GLOO),
    dist.DistBackendError("NCCL communicator was aborted"),
]


def fail(folder: Path, error: Exception, *, earlier: bool = False) -> str | None:
    """Let a stage fail; return the error in failed.json. `earlier`: another process has failed meanwhile."""
    stage = resolve({"task": "arithmetic", "model": "m"}).stages[0]
    session = SimpleNamespace(run=SimpleNamespace(path=folder), config=stage, step=4)
    file = folder / "failed.json"

    def stops() -> None:
        with failure_recorded(session):  # pyright: ignore[reportArgumentType]
            if earlier:
                file.write_text('{"error": "TaskError"}')
            raise error

    with pytest.raises(type(error)):
        stops()
    return json.loads(file.read_bytes())["error"] if file.exists() else None


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make this process one of two; return its rank, which may be changed."""
    found = [0]
    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "rank", lambda: found[0])
    return found


@pytest.mark.parametrize("error", FOLLOWING, ids=lambda error: type(error).__name__)
def test_what_follows_from_another_process_is_recorded_as_that_by_the_main_one_alone(
    error: Exception, rank: list[int], tmp_path: Path
) -> None:
    assert fail(tmp_path, error) == "ProcessError"
    assert fail(tmp_path, error, earlier=True) == "TaskError"
    (tmp_path / "failed.json").unlink()
    rank[0] = 1
    assert fail(tmp_path, error) is None


@pytest.mark.parametrize("error", [EngineError("every server is lost"), RuntimeError("out of memory"), ValueError("x")])
def test_an_error_of_its_own_is_recorded_by_whoever_has_it(error: Exception, rank: list[int], tmp_path: Path) -> None:
    for rank[0] in (0, 1):
        assert fail(tmp_path, error) == type(error).__name__
        assert fail(tmp_path, error, earlier=True) == type(error).__name__


def test_one_process_alone_has_only_errors_of_its_own(tmp_path: Path) -> None:
    assert not any(map(says_another_ended, FOLLOWING))
    assert fail(tmp_path, RuntimeError(GLOO)) == "RuntimeError"
