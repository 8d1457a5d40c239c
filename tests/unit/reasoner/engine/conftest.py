"""An engine over stand-ins of vLLM's servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reasoner.engine import open_engine
from reasoner.engine.server import ServerEngine
from tests.unit.reasoner.engine.standin import StandIn


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., tuple[ServerEngine, list[StandIn]]]]:
    """Open an engine over stand-ins."""
    standins: list[StandIn] = []
    engines: list[ServerEngine] = []

    def start(count: int = 2, *, blind: bool = True, **options: object) -> tuple[ServerEngine, list[StandIn]]:
        standins.extend(StandIn() for _ in range(count))
        for one in standins:
            one.blind = blind
        engine = open_engine(
            "vllm-server",
            **{"model_path": "", "max_model_len": 64, "dtype": "bfloat16", "weights_folder": str(tmp_path)}
            | {"urls": [one.url for one in standins]}
            | options,  # pyright: ignore[reportArgumentType]
        )
        assert isinstance(engine, ServerEngine)
        engines.append(engine)
        return engine, standins

    yield start
    for engine in engines:
        engine.close()
    for one in standins:
        one.close()
