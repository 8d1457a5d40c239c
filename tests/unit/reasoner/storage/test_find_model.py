"""The model that a run folder means, while others write and remove files there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from reasoner.storage.files import RunError
from reasoner.storage.find_model import find_model, foreign_folders, list_checkpoints, read_model


def made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "foreign", ["step-000004-backup", "step-000004.bak", "step-x", "step-4", "step-", "copy of step-000004"]
)
def test_a_folder_beside_the_checkpoints_is_none_of_them(tmp_path: Path, foreign: str) -> None:
    for name in ("step-000002", "step-000004", "step-1000000", "step-999999", "best", foreign):
        (tmp_path / name).mkdir()
    names = ["step-000002", "step-000004", "step-999999", "step-1000000"]
    assert [path.name for path in list_checkpoints(tmp_path)] == names
    assert foreign_folders(tmp_path) == [foreign]


def test_a_run_without_a_folder_of_checkpoints_has_none(tmp_path: Path) -> None:
    assert list_checkpoints(tmp_path / "none") == foreign_folders(tmp_path / "none") == []


def test_a_finished_run_is_its_final_model_and_one_that_goes_on_its_newest_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{}")
    checkpoint = made(tmp_path / "checkpoints" / "step-000002" / "model")
    final = made(tmp_path / "final")
    assert find_model(tmp_path) == checkpoint, "it was given more steps"
    (tmp_path / "done.json").write_text("{}")
    assert find_model(tmp_path) == final
    shutil.rmtree(checkpoint)
    (tmp_path / "done.json").unlink()
    assert find_model(tmp_path) == final


def test_the_last_of_many_stages_counts(tmp_path: Path) -> None:
    made(tmp_path / "2-sft" / "final")
    made(tmp_path / "10-grpo" / "final")
    made(tmp_path / "3-" / "final").parent.rename(tmp_path / "3d-models")
    assert find_model(tmp_path) == tmp_path / "10-grpo" / "final"


def test_a_checkpoint_that_goes_while_it_is_read_is_read_again_as_the_next(tmp_path: Path) -> None:
    first = made(tmp_path / "checkpoints" / "step-000002" / "model")
    reads: list[Path] = []

    def read(source: Path) -> str:
        reads.append(source)
        if source == first:
            made(tmp_path / "checkpoints" / "step-000004" / "model")
            shutil.rmtree(first.parent)
        return (source / "config.json").read_text()

    found, text = read_model(tmp_path, read)
    assert (found, text) == (tmp_path / "checkpoints" / "step-000004" / "model", "{}")
    assert reads == [first, found]


@pytest.mark.parametrize("unchanged", [True, False])
def test_a_copy_of_a_model_that_was_replaced_meanwhile_is_made_again(tmp_path: Path, unchanged: bool) -> None:
    best = made(tmp_path / "checkpoints" / "best")
    reads: list[Path] = []

    def read(source: Path) -> None:
        reads.append(source)
        if len(reads) == 1:
            best.rename(tmp_path / "before")
            made(best)

    read_model(tmp_path, read, best=True, unchanged=unchanged)
    assert len(reads) == (2 if unchanged else 1)


def test_an_error_of_a_model_that_stands_is_the_readers_own(tmp_path: Path) -> None:
    made(tmp_path / "final")

    def read(source: Path) -> None:
        raise FileNotFoundError(source / "model.safetensors")

    with pytest.raises(FileNotFoundError):
        read_model(tmp_path, read)
    with pytest.raises(RunError, match="must contain a model; it has none"):
        read_model(tmp_path / "none", read)
