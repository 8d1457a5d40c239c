"""Folders of data files: which files belong to a split, by a card's front matter, by `save_to_disk`, or by file
names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TypeGuard, cast

from tasks.base import TaskError
from tasks.inputs.names import is_data_file, kind_of, meant, split_of, stem_of
from verifiers.suggest import did_you_mean

NOT_DATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "croissant.json")
"""Files that accompany the data and contain no rows."""
MAX_FILES = 100_000
Splits = Mapping[str, Sequence[Path]]
"""Split -> its files, in order. The one key "" means that the files belong to no split."""


def splits_in(folder: Path, config: str | None) -> Splits:
    """Return the splits of a folder.

    Args:
        folder: as `datasets.save_to_disk` wrote it, as downloaded from the hub, or any folder of data files.
        config: name of a configuration; None: the only one, or the default of the folder's card.
    Raises:
        TaskError: there is no data, several configurations and none is named, or a script would have to be run.
    """
    folder = _snapshot(folder)
    saved = _saved(folder)
    if saved is not None:
        return saved
    carded = _carded(folder, config)
    if carded is not None:
        return carded
    files = sorted(
        path
        for path in _walk(folder)
        if is_data_file(path) and path.name not in NOT_DATA and not path.name.endswith(".labels.jsonl")
    )
    if not files:
        raise TaskError(_no_data(folder))
    if config is not None:
        files = _of_config(files, folder, config)
    return by_name(files, folder)


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob("*"):
        if any(part.startswith((".", "__")) for part in path.relative_to(folder).parts):
            continue
        if path.is_file():
            found.append(path)
        if len(found) > MAX_FILES:
            raise TaskError(f"{folder} has more than {MAX_FILES} files. Name the folder inside it that has the data.")
    return found


def _no_data(folder: Path) -> str:
    script = next(iter(sorted(folder.glob("*.py"))), None)
    if script is not None:
        return (
            f"{folder} has no data file, only a loading script ({script.name}), which is never run. Download the"
            " data as parquet (the hub's branch refs/convert/parquet), or write it as JSON lines."
        )
    seen = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
    return f"{folder} has no data file (.jsonl, .json, .csv, .tsv, .parquet, .arrow); it has: {seen}."


def _snapshot(folder: Path) -> Path:
    """Return the newest main revision's folder inside a hub cache folder `datasets--OWNER--NAME`; any other folder
    unchanged.
    """
    ref = folder / "refs" / "main"
    if (folder / "snapshots").is_dir() and ref.is_file():
        inner = folder / "snapshots" / ref.read_text(encoding="utf-8").strip()[:80]
        return inner if inner.is_dir() else folder
    return folder


def _saved(folder: Path) -> Splits | None:
    """Return the files that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote; None if the folder is not
    theirs.
    """
    if (folder / "dataset_dict.json").is_file():
        names = _json(folder / "dataset_dict.json").get("splits")
        if not _is_list(names) or not names:
            raise TaskError(f"{folder / 'dataset_dict.json'} names no splits. Save the data set again.")
        return {str(name): _listed(folder / str(name)) for name in names}
    return {"": _listed(folder)} if (folder / "state.json").is_file() and _is_saved(folder) else None


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_info.json").is_file() and any(folder.glob("*.arrow"))


def _listed(folder: Path) -> list[Path]:
    state = folder / "state.json"
    files = _json(state).get("_data_files") if state.is_file() else None
    named = [str(_mapping(one).get("filename")) for one in files] if _is_list(files) else []
    found = [folder / Path(name).name for name in named]
    missing = [path.name for path in found if not path.is_file()]
    if not found or missing:
        raise TaskError(f"{folder} must have the files that its state.json names; it lacks {missing or 'state.json'}.")
    return found


def _json(path: Path) -> Mapping[str, object]:
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError, OSError) as error:
        raise TaskError(f"{path} must be a JSON object: {error}. Save the data set again.") from error


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _carded(folder: Path, config: str | None) -> Splits | None:
    """Return the splits that the front matter of the folder's README names; None if it names none.

    Source: https://huggingface.co/docs/hub/datasets-manual-configuration
    """
    configs = _configs(folder / "README.md")
    if not configs:
        return None
    names = [str(one.get("config_name", "default")) for one in configs]
    if config is not None and config not in names:
        raise TaskError(
            f"{folder} has no configuration {config!r}; its README.md names {', '.join(names)}."
            f"{did_you_mean(config, names)}"
        )
    chosen = config or _default(configs, names)
    if chosen is None:
        raise TaskError(f"{folder} has the configurations {', '.join(names)}. Name one: config: {names[0]}.")
    said = configs[names.index(chosen)]
    root = folder / _inside(str(said.get("data_dir") or "."), folder)
    data = said.get("data_files")
    if data is None:
        return splits_in(root, None) if root != folder else None
    if _is_list(data) and data and all(isinstance(one, dict) and "path" in one for one in data):
        given = [(str(_mapping(one).get("split", "train")), _mapping(one)["path"]) for one in data]
        return {split: _matching(root, paths, folder) for split, paths in given}
    if _mapping(data):
        return {str(split): _matching(root, paths, folder) for split, paths in _mapping(data).items()}
    return by_name(_matching(root, data, folder), root)


def _configs(card: Path) -> list[Mapping[str, object]]:
    import yaml

    if not card.is_file():
        return []
    text = card.read_text(encoding="utf-8", errors="replace")[: 1 << 20]
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if front is None:
        return []
    try:
        said: object = yaml.safe_load(front[1])
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise TaskError(f"the front matter of {card} must be YAML: {reason}. Fix it, or name the files.") from error
    configs = _mapping(said).get("configs")
    return [one for one in map(_mapping, configs) if one] if _is_list(configs) else []


def _default(configs: Sequence[Mapping[str, object]], names: Sequence[str]) -> str | None:
    marked = [name for name, one in zip(names, configs, strict=True) if one.get("default") is True]
    if len(names) == 1 or marked:
        return (marked or [*names])[0]
    return "default" if "default" in names else None


def _inside(pattern: str, folder: Path) -> str:
    parts = PurePosixPath(pattern)
    if parts.is_absolute() or ".." in parts.parts:
        raise TaskError(f"{folder / 'README.md'} may only name files inside its folder; got {pattern[:80]!r}.")
    return pattern


def _matching(root: Path, patterns: object, folder: Path) -> list[Path]:
    listed = patterns if _is_list(patterns) else [patterns]
    found: list[Path] = []
    for pattern in (_inside(str(one), folder) for one in listed):
        try:
            matches = sorted(path for path in root.glob(pattern) if path.is_file())
        except (ValueError, NotImplementedError, IndexError) as error:
            raise TaskError(f"{folder / 'README.md'} has an invalid file pattern: {pattern[:80]!r}.") from error
        if not matches:
            raise TaskError(f"{folder / 'README.md'} names {pattern!r}, which does not exist. Download it too.")
        found += matches
    return [*dict.fromkeys(found)]


def _of_config(files: Sequence[Path], folder: Path, config: str) -> list[Path]:
    """Return the files of a configuration, which has its own folder or is a part of their names."""
    parts = {path: path.relative_to(folder).parts for path in files}
    found = [path for path in files if config in parts[path][:-1]]
    found = found or [path for path in files if config in (stem_of(path), *re.split(r"[-_.]+", path.name))]
    if not found and any(len(part) > 1 for part in parts.values()):
        known = sorted({one for part in parts.values() for one in part[:-1]})
        raise TaskError(f"{folder} has no configuration {config!r}; it has the folders {', '.join(known)}.")
    return found or [*files]  # a folder without subfolders is one configuration, whatever its name


def by_name(files: Sequence[Path], root: Path) -> Splits:
    """Group files by the splits that their names or folders mean; all under "" if no name means a split.

    Raises:
        TaskError: one split would consist of several data sets, or of files of several kinds.
    """
    found: dict[str, dict[tuple[str, ...], list[Path]]] = {}
    for path in files:
        split, group = _split_and_group(path, root)
        found.setdefault(split, {}).setdefault(group, []).append(path)
    named = {split: groups for split, groups in found.items() if split}
    return {split: _one_set(split, groups, root) for split, groups in (named or found).items()}


def _split_and_group(path: Path, root: Path) -> tuple[str, tuple[str, ...]]:
    """Return the split of a file ("" for none), and the key that all files of its set share."""
    try:
        folders = path.relative_to(root).parts[:-1]
    except ValueError:
        folders = ()
    plain = tuple(re.sub(r"\d+", "#", one) for one in folders)
    split = split_of(stem_of(path))
    if split is not None:
        return split, (*plain, stem_of(path), kind_of(path))
    for depth in range(len(folders), 0, -1):
        split = split_of(folders[depth - 1])
        if split is not None:
            return split, (*plain[:depth], kind_of(path))
    return "", (kind_of(path),)


def _one_set(split: str, groups: Mapping[tuple[str, ...], Sequence[Path]], root: Path) -> list[Path]:
    if len(groups) > 1:
        firsts = [
            str(paths[0].relative_to(root) if paths[0].is_relative_to(root) else paths[0]) for paths in groups.values()
        ]
        what = f"the split {split!r} of {root}" if split else str(root)
        raise TaskError(
            f"{what} is ambiguous between several sets of files: {', '.join(firsts[:4])}. Name one by its path or a"
            " pattern (data/train-*.parquet), or its folder as the configuration."
        )
    return sorted(path for paths in groups.values() for path in paths)


__all__ = ["Splits", "by_name", "meant", "splits_in"]
