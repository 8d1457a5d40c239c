"""Where datasets keeps what it downloaded."""

from pathlib import Path

HF_DATASETS_CACHE: Path
