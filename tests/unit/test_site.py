"""The documentation site: settings and public names that are explained, and a build without a warning."""

from __future__ import annotations

import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from reasoner.config.stage import StageConfig

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import site_hooks  # noqa: E402


def test_every_setting_is_on_the_page_with_its_meaning() -> None:
    page = site_hooks.config_page()
    sections = site_hooks.config_sections()
    unexplained = [
        f"{name}.{setting.name}"
        for name, section in sections.items()
        for setting in section.settings
        if not setting.meaning and setting.kind not in sections
    ]
    assert unexplained == []
    for name, field in StageConfig.model_fields.items():
        keys = getattr(field.annotation, "model_fields", {})
        for key in keys:
            assert f"| `{name}.{key}` |" in page
        assert f"| `{name}` |" in page or f"## {name}\n" in page, name
    assert "\\|" not in page


def test_every_public_name_has_a_docstring() -> None:
    bare: list[str] = []
    count = 0
    for package in site_hooks.PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            count += 1
            value = getattr(module, name)
            if (inspect.isclass(value) or inspect.isfunction(value)) and not inspect.getdoc(value):
                bare.append(f"{package}.{name}")
    assert count > 60
    assert bare == []


def test_links_of_root_files_lead_to_pages() -> None:
    text = "[a](docs/data.md#x) [b](CHANGELOG.md) [c](https://d.e/docs/f.md) [g](#h) ![i](docs/pictures/j.png)"
    found = site_hooks.LINK.sub(lambda link: link[1] + site_hooks.site_link(link[2]) + link[3], text)
    assert found == "[a](data.md#x) [b](changelog.md) [c](https://d.e/docs/f.md) [g](#h) ![i](pictures/j.png)"


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    text = str(nav)
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs")
        assert f"'{name}'" in text or f"'{name.parent}/*'" in text, f"{name} is not in mkdocs.yml"


@pytest.mark.integration
def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    pages = [*(tmp_path / "site").rglob("*.html")]
    assert len(pages) > 60
    loaded = ('src="http', "src='http", 'rel="stylesheet" href="http', 'rel="preconnect"')
    assert [page.name for page in pages if any(mark in page.read_text() for mark in loaded)] == []
