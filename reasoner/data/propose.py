"""A config proposed for a path to data: the use of its rows, their format, the verifier. Imports no torch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast, get_args

import yaml

from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config, resolve, shipped_configs
from reasoner.config.sections import Section
from reasoner.config.stage import StageConfig
from tasks import Problem
from tasks.base import TaskError
from tasks.inputs import Rows, is_local, read
from tasks.inputs.formats import Recognised, Use, as_it_is, recognise
from tasks.leak import final_answer
from tasks.registry import get_task
from tasks.survey import NUMBER
from verifiers.plain_yaml import read_yaml
from verifiers.suggest import did_you_mean

LOOKED_AT = 200
"""Number of first problems from which a verifier is guessed."""
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
"""Model of a proposed config, if the user named none."""
ORDER: tuple[Use, ...] = ("unpaired", "preferences", "problems", "demonstrations")
"""Order in which uses are tried; the first that the rows fit is taken. The most specific comes first."""
OF_PROBLEMS = {"verifier", "prompt_column", "reference_column", "template", "verifier_column", "demonstration_column"}
SECTION: Mapping[Use, str] = {
    "problems": "task.options",
    "demonstrations": "sft",
    "preferences": "preferences",
    "unpaired": "preferences",
}
METHOD: Mapping[Use, str] = {"problems": "grpo", "demonstrations": "sft", "preferences": "dpo", "unpaired": "kto"}


class Proposal(NamedTuple):
    """Stages whose data is to be checked."""

    stages: tuple[StageConfig, ...]
    yaml: str | None
    """The config, if it was made here."""
    columns: tuple[str, ...] = ()
    """Columns of the first row."""
    told: str = ""
    """Description of what the rows were recognised as."""


def stages_of(path: str, settings: Sequence[str], *, use: str | None, model: str | None) -> Proposal:
    """Return the stages of a config, or of a config made for a path to data.

    Args:
        path: a config, or any path that the dataset task accepts.
        settings: key=value, of the section that reads the data (`verifier=math`) or of a config (`sft.bad_rows=stop`).
        use: problems, demonstrations, preferences or unpaired; None: inferred from the rows.
        model: model named in the config that is made.
    Raises:
        ConfigError: a setting or `use` is unknown.
        TaskError: there is no such file.
    """
    if Path(path).suffix in (".yaml", ".yml") or (path in shipped_configs() and not Path(path).exists()):
        return Proposal(load_config(path, settings).stages, None)
    if use is not None and use not in get_args(Use):
        known = get_args(Use)
        raise ConfigError("bad-value", f"--for must be {', '.join(known)}; got {use!r}.{did_you_mean(use, known)}")
    given = _given(settings)
    names = given.get("split_names")
    train = names.get("train", "train") if isinstance(names, dict) else "train"
    config = given.get("config")
    rows = _read(path, str(train), None if config is None else str(config), cast("Use | None", use))
    entries = [entry.row for _, entry in itertools.islice(rows.entries(), LOOKED_AT) if entry.row is not None]
    chosen, recognised = _recognised(entries, cast("Use | None", use), given)
    raw = _raw(path, chosen, recognised, given, model)
    overrides = [one if _is_full(one) else f"{SECTION[chosen]}.{one}" for one in settings]
    if chosen == "problems" and "verifier" not in given:
        format_verifier = recognised.format.verifier if recognised else None
        raw["task"]["options"]["verifier"] = "exact"
        raw["task"]["options"]["verifier"] = format_verifier or _guessed(resolve(raw, overrides).stages[0])
        if recognised and recognised.format.verifier_options and not _sets_options(given):
            raw["task"]["options"]["verifier_options"] = dict(recognised.format.verifier_options)
    run = resolve(raw, overrides)
    format_name = recognised.format.name if recognised else "none that is known"
    told_by = f" ({recognised.format.told_by})" if recognised else ""
    grader = run.stages[0].task[0].options.get("verifier") if chosen == "problems" else None
    description = f"{chosen}; format {format_name}{told_by}" + (f"; verifier {grader}" if grader else "")
    columns = tuple(map(str, entries[0])) if entries else ()
    return Proposal(run.stages, _yaml(raw, run.stages[0], chosen, overrides), columns, description)


def _sets_options(given: Mapping[str, object]) -> bool:
    return any(key.partition(".")[0] == "verifier_options" for key in given)


def _read(path: str, split: str, config: str | None, use: Use | None) -> Rows:
    """Read the rows of a split. If the name fits several splits, take the first use in ORDER that can read one.

    Raises:
        TaskError: there is no such split.
    """
    try:
        return read(path, split=split, config=config, use=use)
    except TaskError:
        for one in ORDER if use is None else ():
            with contextlib.suppress(TaskError):
                return read(path, split=split, config=config, use=one)
        raise


def _given(settings: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in settings:
        key, sign, value = pair.partition("=")
        if not sign:
            raise ConfigError("bad-override", f"a setting must be key=value; got {pair!r}.")
        try:
            found[key] = read_yaml(value)
        except yaml.YAMLError:
            found[key] = value
    return found


def _is_full(setting: str) -> bool:
    """Return True if a setting's key begins with the name of its section."""
    head = setting.partition("=")[0].partition(".")[0]
    sections = [name for name, field in StageConfig.model_fields.items() if _is_section(field.annotation)]
    return "." in setting.partition("=")[0] and head in {*sections, "task"}


def _is_section(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _recognised(
    rows: Sequence[Mapping[str, object]], use: Use | None, given: Mapping[str, object]
) -> tuple[Use, Recognised | None]:
    if use is None and OF_PROBLEMS & {key.partition(".")[0] for key in given}:
        use = "problems"
    for one in ORDER if use is None else (use,):
        recognised = recognise(rows, use=one)
        if recognised is not None:
            return one, recognised
    return use or "problems", None


def _raw(
    path: str, use: Use, recognised: Recognised | None, given: Mapping[str, object], model: str | None
) -> dict[str, dict[str, dict[str, object]]]:
    named = not any(key.partition(".")[0] in ("format", "columns") or key.endswith("_column") for key in given)
    shaped = recognised is not None and named and recognised.format.read is not as_it_is
    layout: dict[str, object] = {"format": recognised.format.name} if recognised and shaped else {}
    place = str(Path(path).expanduser()) if is_local(path) else path
    body: dict[str, object]
    if use == "problems":
        body = {"task": {"name": "dataset", "options": {"path": place, **layout}}}
    elif use == "demonstrations":
        body = {"sft": {"data": place, **layout}}
    else:
        body = {"preferences": {"train": place, **layout}}
    return cast("dict[str, dict[str, dict[str, object]]]", {"method": METHOD[use], "model": model or MODEL, **body})


def _guessed(stage: StageConfig) -> str:
    """Guess the verifier from the reference answers of the first problems."""
    section = stage.task[0]
    each = get_task(section.name, **section.options).each(section.train_split)
    problems = itertools.islice((one for one in each if isinstance(one, Problem)), LOOKED_AT)
    references = [problem.reference for problem in problems]
    if not references:
        return "exact"
    if all(isinstance(one, dict) for one in references):
        keys = set[str]().union(*(one for one in references if isinstance(one, dict)))
        return "choice" if "choices" in keys else "code" if keys & {"cases", "tests", "entry_point"} else "exact"
    texts = [final_answer(str(one)) for one in references]
    if all(len(text) == 1 and text in "abcdefghij" for text in texts):
        return "choice"
    latex = ["\\" in str(one) for one in references]
    numbers = sum(NUMBER.fullmatch(text) is not None or tex for text, tex in zip(texts, latex, strict=True))
    return "math" if 2 * numbers >= len(texts) else "exact"


def _yaml(raw: Mapping[str, object], stage: StageConfig, use: Use, overrides: Sequence[str]) -> str:
    """Return the config as YAML: the proposal with the user's own settings merged in."""
    written = dict(raw)
    full = stage.model_dump(mode="json", exclude_defaults=True)
    for key in ("task", "sft", "preferences"):
        if key in full and (key in raw or any(one.startswith(f"{key}.") for one in overrides)):
            written[key] = full[key][0] if key == "task" and len(full[key]) == 1 else full[key]
    for key, value in full.items():
        if key not in written and any(one.startswith(f"{key}.") for one in overrides):
            written[key] = value
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True).rstrip()


__all__ = ["Proposal", "stages_of"]
