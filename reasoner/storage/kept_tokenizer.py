"""Tokenizer that a run keeps beside its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reasoner.storage.history import History


def kept_tokenizer(history: History) -> Any:
    """Return the run's tokenizer.json, loaded without torch; None if there is none."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    if history.folder is None:
        return None
    folders = [
        history.folder / "final",
        *sorted(history.folder.glob("checkpoints/step-*/model")),
        history.folder / "start",
    ]
    if history.config.model.path:
        folders.append(Path(history.config.model.path))
    for folder in folders:
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
    return None
