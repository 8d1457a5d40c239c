"""The configs that come with the package. Imports nothing heavy: the shell's completion asks for them."""

from __future__ import annotations

from pathlib import Path


def shipped_configs() -> dict[str, Path]:
    """Name to file of every config in `configs/`."""
    folder = Path(__file__).resolve().parents[2] / "configs"  # beside `reasoner`, installed or not
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
