from __future__ import annotations

import os
from pathlib import Path

import pytest

from reasoner.engine.environment import prepare_process

prepare_process()  # before any test module imports torch


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of the real data sets, which are not part of the repository."""
    folder = os.environ.get("REASONER_DATA_DIR")
    if not folder:
        pytest.skip("REASONER_DATA_DIR is unset: tests on real datasets need the folder that holds them")
    return Path(folder)


LONG = ("device", "processes", "turns_resume", "resume", "view", "tutorials", "cluster", "servers")
"""Files of tests that take longest: begun first, so that no worker is left alone with one at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort long files to the front. Engines warn about themselves, which only unit tests treat as an error."""
    first = {f"test_{name}.py": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: first.get(item.path.name, len(LONG)))
    for item in items:
        if item.get_closest_marker("integration"):
            item.add_marker(pytest.mark.filterwarnings("default"))
