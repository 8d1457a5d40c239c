"""Unreadable checkpoints: the message names the damaged part."""

from __future__ import annotations

import os
import pickle
import random
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from reasoner.model.paths import ModelError
from reasoner.model.random_state import random_state, set_random_state
from reasoner.policy.checkpoint import (
    CheckpointError,
    as_checkpoint_error,
    load_progress,
    read_state,
    restore_training_state,
)

WHOLE = SimpleNamespace(scorer=torch.nn.Linear(1, 1))
"""A policy that is not sharded, as far as a damaged state is read."""


@pytest.mark.parametrize(
    ("path", "cause", "told"),
    [
        ("step-000001/model", None, CheckpointError),
        ("step-000001/model", ImportError("no flash"), ModelError),
        ("step-0000011/model", None, ModelError),
        ("Qwen/Qwen3-0.6B", None, ModelError),
        (None, None, ModelError),
    ],
)
def test_only_a_model_inside_the_checkpoint_is_its_damage(
    path: str | None, cause: Exception | None, told: type[Exception], tmp_path: Path
) -> None:
    inside = path if path is None or path.startswith("Qwen") else tmp_path / path
    folder = tmp_path / "step-000001"
    with pytest.raises(told), as_checkpoint_error(folder, (ModelError,)):
        raise ModelError(f"{folder} is named in the text all the same.", path=inside) from cause


def test_progress_that_is_no_progress_is_damage(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    file.write_text(
        '{"step": 3, "sampler": {"a": [1, null]}, "offsets": {"x": 2}, "state": {"best": NaN, "ended": true}}'
    )
    found = load_progress(tmp_path)
    assert (found.step, found.sampler, found.offsets, found.state.ended) == (3, {"a": [1, None]}, {"x": 2}, True)
    for text in ("", "[]", '{"step": 3}', '{"step": "x", "sampler": {}, "offsets": {}}'):
        file.write_text(text)
        with pytest.raises(CheckpointError, match=r"cannot be read .* Remove that folder"):
            load_progress(tmp_path)


class Hostile:
    """An object that runs a command when its pickle is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("how", ["torch", "old torch", "pickle", "inside", "number of attributes"])
def test_a_pickle_is_damage_and_never_run(tmp_path: Path, how: str) -> None:
    file, mark = tmp_path / "training.pt", tmp_path / "ran"
    held: dict[str, object] = {"optimizer": {}, "version": 1, "random": {}}
    if how == "pickle":
        file.write_bytes(pickle.dumps(Hostile(mark)))
    elif how == "number of attributes":
        torch.save(held | {"optimizer": types.SimpleNamespace(a=1)}, file)
    else:
        value = Hostile(mark) if how == "torch" else held | {"random": {"numpy": Hostile(mark)}}
        torch.save(value, file, _use_new_zipfile_serialization=how != "old torch")
    with pytest.raises(CheckpointError, match=r"cannot be read .*Remove that folder") as caught:
        restore_training_state(WHOLE, tmp_path)  # pyright: ignore[reportArgumentType]
    assert "weights_only" not in str(caught.value)
    assert not mark.exists()


@pytest.mark.parametrize("held", [[], 3, {}, {"optimizer": {}}, {"optimizer": {}, "version": "x", "random": {}}])
def test_a_state_of_other_things_is_damage(tmp_path: Path, held: object) -> None:
    torch.save(held, tmp_path / "training.pt")
    with pytest.raises(CheckpointError):
        restore_training_state(WHOLE, tmp_path)  # pyright: ignore[reportArgumentType]


def test_random_states_are_read_back_to_the_bit(tmp_path: Path) -> None:
    """Random states as they are written now, and as a numpy array, the form in earlier checkpoints."""
    for older in (False, True):
        before = random_state() | ({"numpy": np.random.get_state()} if older else {})
        torch.save({"random": before}, tmp_path / "training.pt")
        drawn = random.random(), np.random.rand(), torch.rand(3).tolist()
        set_random_state(read_state(tmp_path / "training.pt")["random"])
        assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == drawn
