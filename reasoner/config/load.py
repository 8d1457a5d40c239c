"""Reading a config: a YAML file, shipped or the user's own, with overrides.

A config is either one stage, or common keys and a list of `stages`, each merged into a copy of the common keys.
`{repeat: N, stages: [...]}` in the list stands for N rounds of these stages; each round has a seed of its own.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from reasoner.config.errors import ConfigError
from reasoner.config.hints import explained
from reasoner.config.mappings import are_mappings, deep_merge, is_list, is_mapping
from reasoner.config.methods import METHODS
from reasoner.config.shipped import shipped_configs
from reasoner.config.stage import RunConfig, StageConfig
from verifiers.plain_yaml import read_yaml, read_yaml_file
from verifiers.suggest import did_you_mean

ROUND_SEED = 1000
"""Added to the seed of a repeated stage in each round, so that rounds sample other problems in other ways (our
choice; runs with the seeds 0, 1, 2, ... share no seed)."""


def find_config(name: str) -> Path:
    """Return the path of a file, or of a shipped config by name (`quickstart`, `configs/quickstart.yaml`).

    Raises:
        ConfigError: there is neither; the message suggests the closest name.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_configs()
    if Path(name).stem in shipped and Path(name).parent.name in ("", "configs"):
        return shipped[Path(name).stem]
    beside = [str(path) for path in Path(name).parent.glob("*.y*ml")]
    hint = did_you_mean(name, beside) or did_you_mean(Path(name).stem, shipped)
    raise ConfigError("no-file", f"no config {name!r}.{hint} Shipped: {', '.join(shipped)}.")


def load_config(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config and apply overrides (`key.key=value`, `METHOD.key=value`, `stages.N.key=value`).

    An override replaces the file's value in every stage to which it applies.

    Raises:
        ConfigError: the file does not exist, is not YAML, or has an unknown key or a value out of range.
    """
    path = find_config(name)
    try:
        raw = read_yaml_file(path)
        json.dumps(raw, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            "bad-yaml", f"{path} contains {error.object[error.start]!a}, half of a surrogate pair. Replace it."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise ConfigError("bad-yaml", f"{path} must be YAML: {error}") from error
    if not is_mapping(raw):
        raise ConfigError("bad-yaml", f"{path} must be a mapping of keys; got {type(raw).__name__}.")
    return resolve(raw, overrides, where=str(path), default_name=path.stem)


def resolve(
    raw: Mapping[str, object],
    overrides: Sequence[str] = (),
    *,
    where: str = "config",
    default_name: str = "run",
) -> RunConfig:
    """Return the typed run config of a raw mapping; overrides and errors as in `load_config`."""
    common = {key: value for key, value in raw.items() if key != "stages"}
    common.setdefault("name", default_name)
    listed = raw.get("stages", [dict[str, object]()])
    if not listed or not are_mappings(listed):
        raise ConfigError("bad-value", f"{where}: stages must be a list of mappings, at least one.")
    stage_dicts, rounds = _expanded(listed, where)
    merged = [deep_merge(common, stage) for stage in stage_dicts]
    written = [_start(stage) for stage in merged]
    for override in overrides:
        _apply_override(merged, override)
    for stage, number in zip(merged, rounds, strict=True):
        if number and isinstance(seed := stage.get("seed", 0), int):
            stage["seed"] = seed + number * ROUND_SEED
    stages = tuple(_validated(stage, where) for stage in merged)
    fresh = tuple(
        index == 0 or _start(stage_dicts[index]) is not None or _start(merged[index]) != written[index]
        for index in range(len(stages))
    )
    first = stages[0]
    return RunConfig(name=first.name, output=first.output or f"runs/{first.name}", stages=stages, starts_fresh=fresh)


def _expanded(listed: list[dict[str, object]], where: str) -> tuple[list[dict[str, object]], list[int]]:
    """Return the stages in order, with each `{repeat: N, stages: [...]}` replaced by N copies of its stages.

    Returns:
        (stages, rounds): the round of each stage, counted from 0; 0 outside of a repeat.
    """
    found: list[dict[str, object]] = []
    rounds: list[int] = []
    for entry in listed:
        if "repeat" not in entry:
            found.append(entry)
            rounds.append(0)
            continue
        times, inner = entry["repeat"], entry.get("stages")
        if not isinstance(times, int) or times < 1 or not are_mappings(inner) or len(entry) > 2:
            raise ConfigError("bad-value", f"{where}: a repeat must be {{repeat: N, stages: [mappings]}}; got {entry}.")
        for number in range(times):
            found += copy.deepcopy(inner)
            rounds += [number] * len(inner)
    return found, rounds


def dump(config: StageConfig, *, full: bool = True) -> str:
    """Return the resolved stage as YAML that `load_config` reads back to the same config.

    Args:
        config: the stage.
        full: False writes only the method and the values that differ from the defaults.
    """
    settings = config.model_dump(mode="json", exclude_defaults=not full)
    return yaml.safe_dump({"method": config.method, **settings}, sort_keys=False, allow_unicode=True)


def _start(stage: Mapping[str, object]) -> object:
    """Return the model that a stage names; None if it names none."""
    model = stage.get("model")
    if is_mapping(model):
        return {key: model[key] for key in ("path", "from_scratch") if key in model} or None
    return model


def _apply_override(stages: list[dict[str, object]], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise ConfigError("bad-override", f"an override must be key=value; got {override!r}.")
    chosen = stages
    if parts[0] == "stages" and len(parts) > 2 and parts[1].isdigit():
        if int(parts[1]) >= len(stages):
            raise ConfigError("bad-override", f"{override!r}: there are only {len(stages)} stages.")
        chosen, parts = [stages[int(parts[1])]], parts[2:]
    elif len(parts) > 1 and (parts[1] in StageConfig.model_fields or parts[0] not in StageConfig.model_fields):
        # `sft.steps` applies to the stages with method sft, `sft.data` to the section named sft
        named = [stage for stage in stages if stage.get("method", "grpo") == parts[0]]
        if not named and parts[0] in METHODS:
            methods = ", ".join(str(stage.get("method", "grpo")) for stage in stages)
            raise ConfigError("bad-override", f"{override!r}: no stage has that method; the stages are {methods}.")
        chosen, parts = (named, parts[1:]) if named else (stages, parts)
    value = _value_of(parts, key, text)
    for index, stage in enumerate(chosen):
        if index > 0 and parts[0] == "model" and (len(parts) == 1 or parts[1] in ("path", "from_scratch")):
            continue  # later stages continue with the first one's model
        given = stage.get("model")
        if parts == ["model"] and isinstance(value, str) and is_mapping(given):
            kept = {key: held for key, held in given.items() if key != "from_scratch"}
            value = {**kept, "path": value}  # another path; the file's other model settings stay
        _set(stage, parts, value, override)


def _value_of(parts: list[str], key: str, text: str) -> object:
    """Parse the value of an override: text as given for a text setting, YAML otherwise.

    An option of a task, verifier or engine may be either: text that is not YAML stays text, and so does a template in
    braces.
    """
    try:
        value = read_yaml(text) if text else ""
    except yaml.YAMLError as error:
        if _is_text(parts) or _is_option(parts):
            return text
        raise ConfigError("bad-override", f"the value of {key} must be YAML; got {text!r}: {error}") from error
    if value is None or isinstance(value, str) or (is_list(value) and _takes_list(parts)):  # null, quoted, or [a, b]
        return value
    braces = is_mapping(value) and bool(value) and all(held is None for held in value.values())
    return text if _is_text(parts) or (braces and _is_option(parts)) else value


def _is_text(parts: list[str]) -> bool:
    """Return True if the setting with these keys is a text, a text or null, or texts, of which one may stand alone."""
    kinds = _kinds(_field(parts))
    return str in kinds and set(kinds) <= {str, type(None)}


def _takes_list(parts: list[str]) -> bool:
    """Return True if the setting with these keys may be a list."""
    field = _field(parts)
    return field is not None and list in (get_origin(field.annotation), *map(get_origin, get_args(field.annotation)))


def _field(parts: list[str]) -> FieldInfo | None:
    model: type[BaseModel] | None = StageConfig
    for part in parts[:-1]:
        field = model.model_fields.get(part) if model else None
        model = next((kind for kind in _kinds(field) if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return model.model_fields.get(parts[-1]) if model else None


def _kinds(field: FieldInfo | None) -> tuple[object, ...]:
    return () if field is None else get_args(field.annotation) or (field.annotation,)


def _is_option(parts: list[str]) -> bool:
    """Return True if the last key is an option of a task, verifier or engine."""
    return len(parts) > 1 and parts[-2].endswith("options")


def _set(stage: dict[str, object], parts: list[str], value: object, override: str) -> None:
    target: object = stage
    for position, part in enumerate(parts[:-1]):
        if is_list(target):
            if not part.isdigit() or int(part) >= len(target):
                raise ConfigError("bad-override", f"{override!r}: {part!r} is not an index of a list.")
            if isinstance(target[int(part)], str):
                target[int(part)] = {"name": target[int(part)]}
            target = target[int(part)]
            continue
        if not is_mapping(target):
            break
        current = target.get(part)
        if position == 0 and part == "task" and parts[1].isdigit() and not is_list(current):
            current = target[part] = [current]  # an index into a single task: make it a list
        if isinstance(current, str) and position == 0 and part in ("model", "task"):
            target[part] = {"path" if part == "model" else "name": current}
        elif not isinstance(current, dict | list):
            target[part] = {}
        target = target[part]
    if not is_mapping(target):
        raise ConfigError("bad-override", f"{override!r} does not lead to a key.")
    target[parts[-1]] = value


def _validated(stage: Mapping[str, object], where: str) -> StageConfig:
    try:
        return StageConfig.model_validate(stage)
    except ValidationError as error:
        lines = [explained(problem, StageConfig) for problem in error.errors()]
        unknown = any(problem["type"] == "extra_forbidden" for problem in error.errors())
        raise ConfigError("unknown-key" if unknown else "bad-value", f"{where}: " + "; ".join(lines)) from error
