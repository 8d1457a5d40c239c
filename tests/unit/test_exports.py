"""Exported names of modules and packages exist, and the names that the pages import are exported."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.unit.test_docs import PAGES, ROOT

PUBLIC = ("verifiers", "sandbox", "tasks")
IMPORT = re.compile(r"^from ((?:verifiers|sandbox|tasks|reasoner)[\w.]*) import ([\w, ]+)$", re.M)


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = [file for top in (*PUBLIC, "reasoner") for file in ROOT.glob(f"{top}/**/*.py")]
EXPORTING = sorted(name_of(file) for file in FILES if re.search(r"^__all__ = ", file.read_text(), re.M))


def test_every_name_in_all_is_there_once() -> None:
    assert set(PUBLIC) <= set(EXPORTING)
    for name in EXPORTING:
        module = importlib.import_module(name)
        assert [one for one in module.__all__ if not hasattr(module, one)] == [], name
        assert len(module.__all__) == len(set(module.__all__)), name


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_package_exports_all_that_it_holds(name: str) -> None:
    package = importlib.import_module(name)
    held = {
        one for one, value in vars(package).items() if not one.startswith("_") and not isinstance(value, ModuleType)
    }
    assert held == set(package.__all__)


def test_what_pages_import_is_exported() -> None:
    imports = [(page.name, *found) for page in PAGES for found in IMPORT.findall(page.read_text())]
    assert {module for _, module, _ in imports} >= {"verifiers", "sandbox"}
    for page, module, names in imports:
        found = importlib.import_module(module)
        missing = [one for one in names.split(", ") if one not in getattr(found, "__all__", vars(found))]
        assert missing == [], f"{page}: from {module} import {', '.join(missing)}"
