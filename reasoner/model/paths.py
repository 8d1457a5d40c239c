"""What can be said of a model's path without opening it. No torch."""

from __future__ import annotations

from pathlib import Path

from reasoner.errors import USAGE, ReasonerError

DTYPE_NAMES = ("float32", "bfloat16", "float16")
"""What a model folder may hold, as config.json names it."""
DTYPE_FILE = "dtype.txt"
"""In a checkpoint's model folder: the dtype of the base, in which the trained model is saved in the end."""


class ModelError(ReasonerError, ValueError):
    """A model or tokenizer cannot be loaded; the message says what to change."""

    exit_code = USAGE

    def __init__(self, message: str, *, path: str | Path | None = None) -> None:
        super().__init__(message)
        self.path = path
        """Folder or hub name of what cannot be loaded, where there is one."""


def check_model(path: str, setting: str) -> None:
    """Raise where a path means a folder here that holds no model; hub names, which have one slash at most, pass.

    Raises:
        ModelError: says which setting names it.
    """
    folder = Path(path)
    if (folder / "config.json").is_file():
        return
    if (folder / "adapter_config.json").is_file():
        if setting == "value.init":
            return
        raise ModelError(f"{setting}: {path!r} holds an adapter alone. {_merged(path)}")
    if path.lower().endswith(".gguf"):
        if not folder.expanduser().is_file():
            raise ModelError(f"{setting} must be a GGUF file; there is no {path!r} (looked from {Path.cwd()}).")
        return
    if folder.exists() or path.startswith((".", "/", "~")) or path.count("/") > 1:
        what = "holds no config.json" if folder.exists() else "does not exist"
        raise ModelError(f"{setting} must be a model's folder or hub name; {path!r} {what}. {_instead_of(folder)}")


def _merged(path: str | Path) -> str:
    return f"Merge it into its base first: `reasoner export {path} FOLDER`, then give FOLDER."


def _instead_of(folder: Path) -> str:
    """What to give in place of a folder that holds no model itself."""
    if (folder / "model" / "config.json").is_file():  # a checkpoint
        return f"Give {folder / 'model'}."
    if (folder / "adapter" / "adapter_config.json").is_file():
        return _merged(folder)
    if folder.is_dir() and (files := sorted(folder.glob("*.gguf"))):
        return f"Give the file {files[0]}."
    return "Of a run, give its `final` folder."
