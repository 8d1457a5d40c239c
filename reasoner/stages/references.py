"""A stage's config as it runs: what names another stage becomes the path of what that stage wrote. No torch."""

from __future__ import annotations

from reasoner.config.errors import ConfigError
from reasoner.config.methods import METHODS
from reasoner.config.stage import RunConfig, StageConfig
from verifiers.suggest import did_you_mean


def stage_of(config: RunConfig, index: int) -> StageConfig:
    """The stage as it runs: its model and its references are paths."""
    return stage_with_model(with_references(config, index), index)


def stage_with_model(config: RunConfig, index: int) -> StageConfig:
    """The stage's config, with the final policy of the stage before where it names no model of its own."""
    stage = config.stages[index]
    before = [place for place in range(index) if METHODS[config.stages[place].method].passes_on_its_model]
    if config.starts_fresh[index] or not before:
        return stage
    path = str(config.stage_folder(before[-1]) / "final")
    model = stage.model.model_copy(update={"path": path, "from_scratch": None, "tokenizer": None})
    return stage.model_copy(update={"model": model})


def with_references(config: RunConfig, index: int) -> RunConfig:
    """The run, with every `stage:NAME` in the stage's config replaced by what that stage wrote.

    NAME is a stage's label, or its method where it has none; of several, the last one before this stage. It stands for
    the stage's final model, and for the pairs file of a pairs or constitutional stage. `stages:NAME` in a list stands
    for all of them.

    Raises:
        ConfigError: no earlier stage has that name; suggests the closest.
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
