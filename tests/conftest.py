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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Third-party engines warn about themselves; only unit tests treat every warning as an error."""
    for item in items:
        if item.get_closest_marker("integration"):
            item.add_marker(pytest.mark.filterwarnings("default"))
