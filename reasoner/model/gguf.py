"""Models in a single GGUF file, as written by llama.cpp: converted once to a Hugging Face folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from reasoner.errors import USAGE, ReasonerError


class GgufError(ReasonerError, ValueError):
    """A GGUF file could not be converted; the message says why."""

    exit_code = USAGE


def local_model(path: str) -> str:
    """Return a model's path unchanged; for a `.gguf` file, convert it if necessary and return the converted folder.

    Weights are dequantized to float32. The folder is in `$XDG_CACHE_HOME/reasoner/gguf` (`~/.cache` by default), named
    after the file and a digest of its path, size and modification time.

    Raises:
        GgufError: there is no such file, the package `gguf` is missing, or transformers cannot read this file.
    """
    if not path.lower().endswith(".gguf"):
        return path
    file = Path(path).expanduser()
    if not file.is_file():
        raise GgufError(f"model {path!r} must be a GGUF file; there is no such file.")
    folder = converted_folder(file)
    if not (folder / "config.json").is_file():
        _convert(file, folder)
    return str(folder)


def converted_folder(file: Path) -> Path:
    """Return the folder for the conversion of a GGUF file, whether or not it exists already."""
    found = file.resolve()
    status = found.stat()
    key = hashlib.sha256(f"{found} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "reasoner" / "gguf" / f"{found.stem}-{key}"


def _convert(file: Path, folder: Path) -> None:
    print(f"converting {file} once to a Hugging Face folder: {folder}", file=sys.stderr)
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(file, half)
        half.chmod(0o755)
        try:
            half.rename(folder)
        except OSError:  # another process was faster; its conversion is identical
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _write(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**place, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32, trust_remote_code=False)
    except ImportError as error:
        raise GgufError(f"a GGUF model needs the package gguf (pip install gguf): {error}") from error
    except Exception as error:  # reading a broken file can raise any error
        what = str(error).strip().splitlines()
        raise GgufError(
            f"model {str(file)!r} cannot be read as GGUF: {what[0] if what else type(error).__name__}"
            " Give a Hugging Face folder or hub name of the same model."
        ) from error
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        vars(owner).pop(name, None)  # the weights are no longer quantized
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
