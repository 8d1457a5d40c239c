"""The effect on a run of a disk that refuses a record, or refuses a tracker's numbers."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.monitoring.trackers import open_trackers
from reasoner.records import Completion, FinishReason, Rollout, RolloutGroup
from reasoner.storage.files import DiskError
from reasoner.storage.run_folder import RunFolder
from tasks import Problem
from tests.hostile import FINE, HOSTILE, obeyed
from tests.unit.reasoner.storage.test_files import small_files
from verifiers import Outcome, Verdict, fixed
from verifiers.errors import FileError
from verifiers.jsonl import read_jsonl
from verifiers.text import whole


def opened(folder: Path, offsets: dict[str, int]) -> RunFolder:
    config = resolve({"task": "arithmetic", "model": "org/model", "output": str(folder)}).stages[0]
    run = RunFolder(folder, config)
    run.begin(offsets=offsets, environment={})
    return run


def test_a_record_that_does_not_fit_is_one_line_and_what_was_there_is_kept(tmp_path: Path) -> None:
    run = opened(tmp_path, {})
    run.append("rollouts.jsonl", [{"text": "x" * 1000}])
    kept = run.offsets()
    told = rf"^{tmp_path}/rollouts.jsonl could not be written \(File too large; \d+ MiB free\). Free .* --resume\.$"
    with small_files(), pytest.raises(DiskError, match=told):
        run.append("rollouts.jsonl", [{"text": "x" * (1 << 17)}])
    run.close()  # says nothing more
    assert (tmp_path / "rollouts.jsonl").stat().st_size == 1 << 16, "half a line"
    run = opened(tmp_path, kept)
    run.append("rollouts.jsonl", [{"text": "y"}])
    run.close()
    assert (tmp_path / "rollouts.jsonl").read_text() == '{"text": "' + "x" * 1000 + '"}\n{"text": "y"}\n'


def test_a_finished_run_that_begins_again_is_not_finished(tmp_path: Path) -> None:
    run = opened(tmp_path, {})
    run.finish({"steps": 1})
    run.close()
    assert (tmp_path / "done.json").is_file()
    opened(tmp_path, {}).close()
    assert not (tmp_path / "done.json").exists()


def test_numbers_of_tensorboard_that_do_not_fit_are_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run, hook = opened(tmp_path, {}), threading.excepthook
    run.trackers = open_trackers(run.config, tmp_path, purge_step=None, note=print)
    told = r"^metrics for tensorboard could not be written \(File too large; \d+ MiB free\). Free .* --resume\.$"

    def log() -> None:
        for step in range(1, 80):
            run.log(step, {f"m{number}": 1.0 for number in range(50)})

    with small_files():
        with pytest.raises(DiskError, match=told):
            log()
        run.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert (tmp_path / "metrics.jsonl").stat().st_size < events.stat().st_size == 1 << 16
    assert threading.excepthook is hook
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_s_folder_may_be_reached_through_a_link_but_not_its_records(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "real" / "config.yaml").symlink_to(tmp_path / "precious")
    run = opened(tmp_path / "run", {})
    run.append("metrics.jsonl", [{"step": 1}])
    run.close()
    assert (tmp_path / "real" / "metrics.jsonl").read_text() == '{"step": 1}\n'
    (tmp_path / "real" / "rollouts.jsonl").unlink()
    (tmp_path / "real" / "rollouts.jsonl").symlink_to(tmp_path / "precious")
    again = RunFolder(tmp_path / "run", run.config)
    with pytest.raises(FileError, match=r"rollouts.jsonl must be a file of its own; it is a link to"):
        again.begin(offsets={}, environment={})
    again.close()
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("text", [*HOSTILE.values(), *FINE])
def test_any_text_of_a_rollout_is_written_and_read_back(text: str, tmp_path: Path) -> None:
    completion = Completion(
        text=text,
        token_ids=(1,),
        rollout_logprobs=(-0.5,),
        loss_mask=(True,),
        segments=(),
        finish_reason=FinishReason.STOP,
        policy_version=0,
    )
    rollout = Rollout(
        problem=Problem(id=text, task=text, prompt=text, reference=text, verifier="exact", info={text: [text]}),
        prompt_text=text,
        prompt_ids=(1,),
        completion=completion,
        verdict=fixed(Outcome.INCORRECT, f"Exception: {text}", answer=text, **{text: text}),
        sample_index=0,
        step=1,
    )
    run = opened(tmp_path, {})
    run.write_rollouts([RolloutGroup(problem=rollout.problem, rollouts=(rollout,))])
    run.append("transcripts.jsonl", [{"tool": text}])
    run.close()
    ((_, row),) = read_jsonl(tmp_path / "rollouts.jsonl")
    kept = whole(text)
    assert row["completion"] == row["prompt"] == row["reference"] == row["problem"] == kept
    assert Verdict.from_json(row["verdict"]).answer == kept  # type: ignore[arg-type]
    assert row["info"] == {kept: [kept]}
    assert not obeyed((tmp_path / "rollouts.jsonl").read_text(encoding="utf-8"))
    assert [row for _, row in read_jsonl(tmp_path / "transcripts.jsonl")] == [{"tool": kept}]
