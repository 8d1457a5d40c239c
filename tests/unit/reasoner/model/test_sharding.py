"""Settings that do not work with sharding, or with several processes, are refused before a model is loaded."""

from __future__ import annotations

import pytest
from accelerate.utils import FullyShardedDataParallelPlugin

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.session.accelerator import check_sharding, open_accelerator


def stage(**model: object) -> StageConfig:
    return resolve({"task": "arithmetic", "model": {"path": "some-model", **model}}).stages[0]


@pytest.mark.parametrize(
    ("plugin", "model", "said"),
    [
        ({"fsdp_version": 1}, {}, r"fsdp_version .* must be 2; got 1"),
        ({"cpu_ram_efficient_loading": True}, {}, r"fsdp_cpu_ram_efficient_loading .* must be false"),
        ({}, {"lora": {}, "quantization": "nf4"}, r"model\.quantization cannot be used with sharding; got nf4"),
    ],
)
def test_sharding_that_would_go_wrong_is_refused(
    plugin: dict[str, object], model: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")  # the plugin overwrites it
    with pytest.raises(ConfigError, match=said):
        check_sharding(FullyShardedDataParallelPlugin(**{"fsdp_version": 2, **plugin}), stage(**model))


def test_adapters_may_be_sharded() -> None:
    check_sharding(FullyShardedDataParallelPlugin(fsdp_version=2), stage(lora={}))


def test_processes_that_accelerate_left_alone_do_not_train_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"the 2 launched processes .* ACCELERATE_USE_CPU=true"):
        open_accelerator(stage(dtype="float32"))
