"""Checks on a model's path without opening the model. No torch."""

from __future__ import annotations

from pathlib import Path

from reasoner.errors import USAGE, ReasonerError

DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""Dtypes of a model folder, as named in config.json."""
DTYPE_FILE = "dtype.txt"
"""File in a checkpoint's model folder: dtype of the base, in which the final model is saved."""


class ModelError(ReasonerError, ValueError):
    """A model or tokenizer could not be loaded; the message says what to change."""

    exit_code = USAGE

    def __init__(self, message: str, *, path: str | Path | None = None) -> None:
        super().__init__(message)
        self.path = path
        """Folder or hub name that could not be loaded; None if there is none."""


def check_model(path: str, setting: str) -> None:
    """Check that a path, unless it can be a hub name (at most one slash), leads to a model.

    Raises:
        ModelError: it does not; the message names the setting.
    """
    folder = Path(path)
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        if setting == "value.init":
            return
        raise ModelError(f"{setting}: {path!r} contains only an adapter. {_merged(path)}")
    if path.lower().endswith(".gguf"):
        if not folder.expanduser().is_file():
            raise ModelError(f"{setting} must be a GGUF file; there is no {path!r} (looked from {Path.cwd()}).")
        return
    if folder.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1:
        what = "contains no config.json" if folder.exists() else "does not exist"
        raise ModelError(f"{setting} must be a model's folder or hub name; {path!r} {what}. {_instead_of(folder)}")


def _merged(path: str | Path) -> str:
    return f"Merge it into its base first: `reasoner export {path} FOLDER`, then give FOLDER."


def _instead_of(folder: Path) -> str:
    """Return advice on what to give instead of a folder that is not itself a model."""
    if (folder / "model" / "config.json").is_file():  # a checkpoint
        return f"Give {folder / 'model'}."
    if (folder / "adapter" / "adapter_config.json").is_file():
        return _merged(folder)
    if folder.is_dir() and (files := sorted(folder.glob("*.gguf"))):
        return f"Give the file {files[0]}."
    return "For a run, give its `final` folder."
