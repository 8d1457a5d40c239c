"""The statement whether a stage fits is about this machine, and includes settings that make it fit."""

from __future__ import annotations

import shlex

import pytest

from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.preflight.fits import fits_line
from reasoner.preflight.memory import GIB, estimate


def stage(size: str, *settings: str) -> StageConfig:
    return resolve({"task": "gsm8k", "model": f"org/Model-{size}"}, settings).stages[0]


def test_what_fits_says_so_and_what_hardly_fits_too() -> None:
    needed = estimate(stage("0.5B"))
    assert needed is not None
    assert fits_line(stage("0.5B"), available=80 * GIB) == f"memory: fits in 80 GiB: {needed.total / GIB:.0f} of 80"
    hardly = fits_line(stage("0.5B"), available=needed.total * 1.01)
    assert hardly is not None
    assert hardly.startswith("memory: fits in")
    assert "barely" in hardly
    less = fits_line(stage("0.5B"), available=needed.total * 0.99)
    assert less is not None
    assert less.startswith("memory: does not fit")


@pytest.mark.parametrize("size", ["1.5B", "3B", "7B"])
@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("before", [[], ["model.lora.rank=64"]])
def test_the_settings_that_it_names_make_it_fit(size: str, on_gpu: bool, before: list[str]) -> None:
    said = fits_line(stage(size, *before), available=24 * GIB, on_gpu=on_gpu)
    assert said is not None
    if "; try " not in said:
        assert "use a smaller model" in said or said.startswith("memory: fits")
        return
    settings = shlex.split(said.partition("; try ")[2].partition(" (")[0])
    found = estimate(stage(size, *before, *settings), on_gpu=on_gpu)
    assert found is not None
    assert found.total <= 0.9 * 24 * GIB
    assert not before or "model.lora.rank=16" not in settings


def test_what_no_setting_makes_fit_and_what_is_unknown() -> None:
    said = fits_line(stage("70B"), available=24 * GIB)
    assert said is not None
    assert said.endswith("use a smaller model")
    assert fits_line(stage("nobody-knows"), available=24 * GIB) is None
