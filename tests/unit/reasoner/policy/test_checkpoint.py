"""A checkpoint that cannot be read: told by what is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoner.model.paths import ModelError
from reasoner.policy.checkpoint import CheckpointError, damage_told, load_progress


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
    with pytest.raises(told), damage_told(folder, (ModelError,)):
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
