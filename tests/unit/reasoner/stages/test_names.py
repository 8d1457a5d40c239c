"""Messages about a run folder before a run begins there."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoner.stages.names import nothing_to_resume


@pytest.mark.parametrize(
    ("files", "given", "says"),
    [
        (["runs/mine/config.yaml"], "runs/mine", None),
        (["runs/mine/0-sft/config.yaml"], "runs/mine", None),
        (["runs/mine/config.yaml"], "runs/mnie", "runs/mnie: a new run starts there. Did you mean 'mine'?"),
        (["runs/mine/1-grpo/config.yaml"], "runs/mime", "Did you mean 'mine'?"),
        (["runs/mine/config.yaml"], "runs/other", "nothing to resume in runs/other: a new run starts there."),
        (["runs/mine/log.txt"], "runs/mine", "nothing to resume in runs/mine"),
        (["runs/mine/notes/config.yaml"], "runs/mine", "nothing to resume in runs/mine"),
        ([], "nowhere/at/all", "nothing to resume in nowhere/at/all"),
    ],
)
def test_resuming_where_there_is_no_run_is_told(
    files: list[str], given: str, says: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    said = nothing_to_resume(Path(given))
    assert said is None if says is None else said is not None and says in said
    if says and "mean" not in says:
        assert "mean" not in str(said)
