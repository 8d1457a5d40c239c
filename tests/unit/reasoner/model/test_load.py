"""Folders without a model are refused, with the folder to give instead, or the command that makes a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoner.model.paths import ModelError, check_model


def write(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_models_and_hub_names_pass(tmp_path: Path) -> None:
    write(tmp_path / "config.json", tmp_path / "adapter" / "adapter_config.json")
    for path in (str(tmp_path), "org/model", "gpt2"):
        check_model(path, "model.path")
    check_model(str(tmp_path / "adapter"), "value.init")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["model/config.json", "progress.json"], r"Give .*/here/model\.$"),
        (["adapter/adapter_config.json"], r"`reasoner export .*/here FOLDER`, then give FOLDER"),
        (["adapter_config.json"], r"contains only an adapter\. Merge it .*`reasoner export .*/here FOLDER`"),
        (["b.gguf", "a.gguf"], r"Give the file .*/here/a\.gguf"),
        (["metrics.jsonl"], r"contains no config\.json\. For a run, give its `final` folder"),
        ([], "does not exist"),
    ],
)
def test_what_holds_no_model_leads_to_one(files: list[str], says: str, tmp_path: Path) -> None:
    write(*(tmp_path / "here" / name for name in files))
    with pytest.raises(ModelError, match=says):
        check_model(str(tmp_path / "here"), "model.path")
