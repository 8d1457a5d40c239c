"""Resolution of references to other stages: their names are replaced by paths of what they write. No torch."""

from __future__ import annotations

from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig
from verifiers.suggest import did_you_mean


def stage_of(config: RunConfig, index: int) -> StageConfig:
    """Return a stage's config as it is run: its model and its references are paths."""
    return stage_with_model(with_references(config, index), index)


def stage_with_model(config: RunConfig, index: int) -> StageConfig:
    """Return a stage's config. If it names no model, its model is the final one of the last stage with a policy."""
    stage = config.stages[index]
    before = [place for place in range(index) if METHODS[config.stages[place].method].passes_on_its_model]
    if config.starts_fresh[index] or not before:
        return stage
    path = str(config.stage_folder(before[-1]) / "final")
    model = stage.model.model_copy(update={"path": path, "from_scratch": None, "tokenizer": None})
    return stage.model_copy(update={"model": model})


def with_references(config: RunConfig, index: int) -> RunConfig:
    """Replace every `stage:NAME` in a stage's config by the path of what that stage writes.

    NAME is a stage's label, or its method if it has no label; of several stages of that name, the last one before this
    stage. The path is that of its final model, or of the pairs file of a pairs or constitutional stage. `stages:NAME`
    in a list is replaced by the paths of all stages of that name.

    Raises:
        ConfigError: no earlier stage has that name; the message suggests the closest one.
    """
    written: dict[str, list[str]] = {}
    for place in range(index):
        stage = config.stages[place]
        for suffix, file in METHODS[stage.method].writes.items():
            name = f"{stage.label or stage.method}{suffix}"
            written.setdefault(name, []).append(str(config.stage_folder(place) / file))

    def resolved(value: object) -> object:
        if isinstance(value, dict):
            return {key: resolved(held) for key, held in value.items()}
        if isinstance(value, list):
            return [path for held in value for path in (every(held) or [resolved(held)])]
        if not isinstance(value, str) or not value.startswith("stage:"):
            return value
        return found(value)[-1]

    def every(value: object) -> list[str]:
        return found(value) if isinstance(value, str) and value.startswith("stages:") else []

    def found(value: str) -> list[str]:
        name = value.partition(":")[2]
        if name not in written:
            known = ", ".join(written) or "none"
            raise ConfigError(
                "bad-value",
                f"{value!r} in stage {index}: no earlier stage {name!r}.{did_you_mean(name, written)} Known: {known}.",
            )
        return written[name]

    stage = StageConfig.model_validate(resolved(config.stages[index].model_dump(mode="json")))
    stages = (*config.stages[:index], stage, *config.stages[index + 1 :])
    return config.model_copy(update={"stages": stages})
