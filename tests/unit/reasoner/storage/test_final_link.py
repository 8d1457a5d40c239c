"""The link RUN/final of a run with several stages."""

from __future__ import annotations

from pathlib import Path

from reasoner.storage.final_link import behind_link, link_final, stage_of_model
from reasoner.storage.find_model import find_model


def stage(folder: Path) -> Path:
    (folder / "final").mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl", "done.json", "final/config.json"):
        (folder / name).write_text("{}")
    return folder / "final"


def test_the_link_is_relative_replaces_an_older_one_and_leads_to_the_model(tmp_path: Path) -> None:
    run = tmp_path / "run"
    first, second = stage(run / "0-sft"), stage(run / "1-grpo")
    (run / ".writing-final").symlink_to("nowhere")  # of a process that was killed
    assert link_final(run, first) == run / "final"
    assert link_final(run, second) == run / "final"
    assert str((run / "final").readlink()) == "1-grpo/final"
    run.rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "final" / "config.json").is_file()
    assert sorted(path.name for path in (tmp_path / "moved").iterdir()) == ["0-sft", "1-grpo", "final"]
    assert find_model(tmp_path / "moved") == tmp_path / "moved" / "1-grpo" / "final"


def test_a_folder_of_the_users_in_its_place_is_left_alone(tmp_path: Path) -> None:
    model = stage(tmp_path / "0-sft")
    (tmp_path / "final").mkdir()
    assert link_final(tmp_path, model) == model
    assert not (tmp_path / "final").is_symlink()


def test_the_stage_of_a_model_is_found_through_our_link_alone(tmp_path: Path) -> None:
    run, model = tmp_path / "run", stage(tmp_path / "run" / "0-sft")
    link_final(run, model)
    assert behind_link(run / "final") == model
    assert stage_of_model(run / "final") == run / "0-sft"
    assert stage_of_model(model) == run / "0-sft"
    assert stage_of_model(run / "0-sft" / "checkpoints" / "step-000001" / "model") == run / "0-sft"
    (tmp_path / "mine").symlink_to(model)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "final").symlink_to(model)
    for other in (tmp_path / "mine", tmp_path / "elsewhere" / "final"):
        assert behind_link(other) == other
        assert stage_of_model(other) is None


def test_a_last_stage_that_trains_nothing_has_no_model_and_one_that_goes_on_has(tmp_path: Path) -> None:
    model = stage(tmp_path / "0-sft")
    stage(tmp_path / "1-pairs").rename(tmp_path / "nothing")
    newest = tmp_path / "1-pairs" / "checkpoints" / "step-000003" / "model"
    newest.mkdir(parents=True)
    (newest / "config.json").write_text("{}")
    link_final(tmp_path, model)
    assert find_model(tmp_path) == model
    (tmp_path / "1-pairs" / "done.json").unlink()
    assert find_model(tmp_path) == newest
