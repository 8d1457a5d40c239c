"""Reading a config: YAML in `configs/` or anywhere, with overrides.

A config is either one stage, or common keys and a list of `stages`, each merged over the common keys.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import yaml
from pydantic import ValidationError

from reasoner.config.errors import ConfigError
from reasoner.config.hints import explained
from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig, deep_merge
from verifiers.suggest import did_you_mean


def shipped_configs() -> dict[str, Path]:
    """Name to file of every config in `configs/`."""
    folder = Path(__file__).resolve().parents[2] / "configs"  # beside `reasoner`, installed or not
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(name: str) -> Path:
    """A file as given, or a shipped config by name (`quickstart`, `configs/quickstart.yaml`).

    Raises:
        ConfigError: there is neither; the message suggests the closest name.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_configs()
    if Path(name).stem in shipped and Path(name).parent.name in ("", "configs"):
        return shipped[Path(name).stem]
    hint = did_you_mean(Path(name).stem, shipped)
    raise ConfigError("no-file", f"no config {name!r}.{hint} Shipped: {', '.join(shipped)}.")


def load_config(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config and apply overrides (`key.key=value`, `METHOD.key=value`, `stages.N.key=value`).

    An override wins over the file, in every stage that it names.

    Raises:
        ConfigError: no such file, malformed YAML, unknown key or a value out of range.
    """
    path = find_config(name)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        json.dumps(raw, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            "bad-yaml", f"{path} holds {error.object[error.start]!a}, half of a surrogate pair. Replace it."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise ConfigError("bad-yaml", f"{path} must be YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError("bad-yaml", f"{path} must be a mapping of keys; got {type(raw).__name__}.")
    return resolve(cast("dict[str, object]", raw), overrides, where=str(path), default_name=path.stem)


def resolve(
    raw: Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    where: str = "config",
    default_name: str = "run",
) -> RunConfig:
    """The typed run config of a raw mapping; see `load_config`."""
    common = {key: value for key, value in raw.items() if key != "stages"}
    common.setdefault("name", default_name)
    no_stages: list[object] = [{}]
    listed = raw.get("stages", no_stages)
    if not isinstance(listed, list) or not listed or not all(isinstance(s, dict) for s in cast("list[object]", listed)):
        raise ConfigError("bad-value", f"{where}: stages must be a list of mappings, at least one.")
    stage_dicts = _expanded(cast("list[dict[str, object]]", listed), where)
    merged = [deep_merge(common, stage) for stage in stage_dicts]
    written = [_start(stage) for stage in merged]
    for override in overrides:
        _apply_override(merged, override)
    stages = tuple(_validated(stage, where) for stage in merged)
    fresh = tuple(
        index == 0 or _start(stage_dicts[index]) is not None or _start(merged[index]) != written[index]
        for index in range(len(stages))
    )
    first = stages[0]
    return RunConfig(name=first.name, output=first.output or f"runs/{first.name}", stages=stages, starts_fresh=fresh)


def _expanded(listed: list[dict[str, object]], where: str) -> list[dict[str, object]]:
    """Stages in order, `{repeat: N, stages: [...]}` written out N times (rounds)."""
    found: list[dict[str, object]] = []
    for entry in listed:
        if "repeat" not in entry:
            found.append(entry)
            continue
        times, inner = entry["repeat"], entry.get("stages")
        whole = isinstance(times, int) and times >= 1 and isinstance(inner, list) and set(entry) == {"repeat", "stages"}
        if not whole or not all(isinstance(stage, dict) for stage in cast("list[object]", inner)):
            raise ConfigError("bad-value", f"{where}: a repeat must be {{repeat: N, stages: [mappings]}}; got {entry}.")
        for _ in range(cast("int", times)):
            found += copy.deepcopy(cast("list[dict[str, object]]", inner))
    return found


def dump(config: StageConfig) -> str:
    """The resolved stage as YAML that `load_config` reads back to the same config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _start(stage: Mapping[str, object]) -> object:
    """What a stage names as its model, None where it names none."""
    model = stage.get("model")
    if isinstance(model, dict):
        section = cast("dict[str, object]", model)
        return {key: section[key] for key in ("path", "from_scratch") if key in section} or None
    return model


def _apply_override(stages: list[dict[str, object]], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise ConfigError("bad-override", f"an override must be key=value; got {override!r}.")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError("bad-override", f"the value of {key} must be YAML; got {text!r}: {error}") from error
    chosen = stages
    if parts[0] == "stages" and len(parts) > 2 and parts[1].isdigit():
        if int(parts[1]) >= len(stages):
            raise ConfigError("bad-override", f"{override!r}: there are only {len(stages)} stages.")
        chosen, parts = [stages[int(parts[1])]], parts[2:]
    elif len(parts) > 1 and (parts[1] in StageConfig.model_fields or parts[0] not in StageConfig.model_fields):
        # sft.steps is of the stages with that method, sft.data of the section that has the method's name
        named = [stage for stage in stages if stage.get("method", "grpo") == parts[0]]
        if not named and parts[0] in METHODS:
            methods = ", ".join(str(stage.get("method", "grpo")) for stage in stages)
            raise ConfigError("bad-override", f"{override!r}: no stage has that method; the stages are {methods}.")
        chosen, parts = (named, parts[1:]) if named else (stages, parts)
    for index, stage in enumerate(chosen):
        if index > 0 and parts[0] == "model" and (len(parts) == 1 or parts[1] in ("path", "from_scratch")):
            continue  # later stages go on from the first
        given = stage.get("model")
        if parts == ["model"] and isinstance(value, str) and isinstance(given, dict):
            kept = {key: held for key, held in cast("dict[str, object]", given).items() if key != "from_scratch"}
            value = {**kept, "path": value}  # another model, held as the file says
        _set(stage, parts, value, override)


def _set(stage: dict[str, object], parts: list[str], value: object, override: str) -> None:
    target: object = stage
    for position, part in enumerate(parts[:-1]):
        if isinstance(target, list):
            entries = cast("list[object]", target)
            if not part.isdigit() or int(part) >= len(entries):
                raise ConfigError("bad-override", f"{override!r}: {part!r} is not an index of a list.")
            if isinstance(entries[int(part)], str):
                entries[int(part)] = {"name": entries[int(part)]}
            target = entries[int(part)]
            continue
        section = cast("dict[str, object]", target)
        current = section.get(part)
        if isinstance(current, str) and position == 0 and part in ("model", "task"):
            section[part] = {"path" if part == "model" else "name": current}
        elif not isinstance(current, dict | list):
            section[part] = {}
        target = section[part]
    if not isinstance(target, dict):
        raise ConfigError("bad-override", f"{override!r} does not lead to a key.")
    cast("dict[str, object]", target)[parts[-1]] = value


def _validated(stage: Mapping[str, object], where: str) -> StageConfig:
    try:
        return StageConfig.model_validate(stage)
    except ValidationError as error:
        lines = [explained(dict(problem), StageConfig) for problem in error.errors()]
        unknown = any(problem["type"] == "extra_forbidden" for problem in error.errors())
        raise ConfigError("unknown-key" if unknown else "bad-value", f"{where}: " + "; ".join(lines)) from error
