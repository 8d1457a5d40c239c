"""The documentation pages: tables that render as tables, files that exist."""

import re
from pathlib import Path

import pytest
import yaml

from reasoner.config.load import resolve

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FLOORS = "benchmarks|configs|docs|examples|reasoner|sandbox|tasks|tests|tools|verifiers"
FILE = re.compile(rf"(?<![\w./-])(?:{FLOORS})/[\w/-]+\.(?:py|md|yaml|jsonl|json|toml|sh)\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_row_has_the_cells_of_its_head_and_a_table_ends_at_an_empty_line(page: Path) -> None:
    width = 0
    for number, line in enumerate(page.read_text().split("\n"), 1):
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not width or not line or cells == width, f"{page.name}:{number}: {line}"
        width = cells


def test_files_that_pages_name_are_there() -> None:
    named = {(page, name) for page in PAGES for name in FILE.findall(page.read_text())}
    assert len(named) > 50
    assert [one for one in sorted(named) if not any((base / one[1]).is_file() for base in (ROOT, one[0].parent))] == []


def test_configs_in_pages_are_configs() -> None:
    blocks = [found for page in PAGES for found in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S)]
    configs = [read for block in blocks if "task" in (read := yaml.safe_load(block))]
    assert len(configs) >= 3
    for config in configs:
        resolve(config)
