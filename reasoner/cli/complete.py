"""Shell completion of arguments. Imports nothing heavy, because a person waits for it at each Tab.

If a function returns nothing, the shell completes file names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from reasoner.config.shipped import shipped_configs

MOST_FOLDERS = 1000
"""Maximum number of folder entries that are read, because a Tab must not scan a disk."""


def configs(incomplete: str) -> list[str]:
    """Return the shipped configs and the YAML files that begin with `incomplete`."""
    return _beginning([*shipped_configs(), *_files(incomplete, (".yaml", ".yml"))], incomplete)


def runs(incomplete: str) -> list[str]:
    """Return the run folders that begin with `incomplete`: in `runs/`, and next to and below the typed path."""
    within = Path(incomplete or ".") if incomplete.endswith("/") else Path(incomplete).parent
    near = [*_folders(within), *(_folders(Path("runs")) if incomplete in "runs/" else ())]
    found = [folder for folder in near if _holds_run(folder)]
    others = [folder for folder in near if folder not in found and str(folder).startswith(incomplete)]
    found += [run for folder in others for run in _folders(folder) if _holds_run(run)]
    return _beginning(map(str, found), incomplete)


def tasks(incomplete: str) -> list[str]:
    """Return the installed tasks that begin with `incomplete`."""
    from tasks.registry import installed_tasks

    return _beginning((source.name for source in installed_tasks()), incomplete)


def suites(incomplete: str) -> list[str]:
    """Return the suites that begin with `incomplete`; in a list `a,b` the last name is completed."""
    from tasks.suites.table import SUITES

    before, comma, _ = incomplete.rpartition(",")
    return _beginning((f"{before}{comma}{suite.name}" for suite in SUITES), incomplete)


def verifiers(incomplete: str) -> list[str]:
    """Return the installed verifiers and the Python files that begin with `incomplete`."""
    from verifiers import installed

    return _beginning([*(source.name for source in installed()), *_files(incomplete, (".py",))], incomplete)


def engines(incomplete: str) -> list[str]:
    """Return the engines for an evaluation that begin with `incomplete`."""
    return _beginning(("hf", "vllm"), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _files(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    within = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    return (str(path) for path in _entries(within) if path.suffix in suffixes)


def _folders(within: Path) -> list[Path]:
    return [path for path in _entries(within) if path.is_dir()]


def _entries(within: Path) -> list[Path]:
    """Return the entries of a folder, with paths as a person would type them; none if it cannot be read."""
    try:
        found = [path for path, _ in zip(within.iterdir(), range(MOST_FOLDERS), strict=False)]
    except OSError:
        return []
    return [path for path in found if not path.name.startswith(".")]


def _holds_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()
