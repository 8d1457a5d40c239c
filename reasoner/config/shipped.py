"""The configs that come with the package. Imports nothing heavy, because shell completion uses it."""

from __future__ import annotations

from pathlib import Path


def shipped_configs() -> dict[str, Path]:
    """Return the file of every config in `configs/`, by name."""
    folder = Path(__file__).resolve().parents[2] / "configs"  # next to `reasoner`, installed or not
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
