"""docs/verifiers: a page for each verifier that is shipped, whose examples say what they print."""

import contextlib
import importlib.util
import io
import re
import tomllib
from pathlib import Path

import pytest

from verifiers.registry import BUILTIN

ROOT = Path(__file__).parents[2]
PAGES = {page.stem: page for page in (ROOT / "docs" / "verifiers").glob("*.md")}
TRAINER = {"judge-model", "reward-model"}
"""They load a model, so their pages have a config in place of an example."""
NEEDS = {
    "instructions": "langdetect",
    "logic": "z3",
    "math-verify": "math_verify",
    "reasoning-gym": "reasoning_gym",
    "sympy": "latex2sympy2_extended",
}
"""The package of an extra, by verifier."""
SAID = re.compile(r"^print\(.*\)  # (.*)$")


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


def test_every_shipped_verifier_has_a_page_and_every_page_a_verifier() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["entry-points"]["reasoner.verifiers"]) == TRAINER
    assert set(PAGES) == {*BUILTIN} | TRAINER


def test_the_index_has_a_row_for_each_page() -> None:
    index = (ROOT / "docs" / "verifiers.md").read_text()
    linked = re.findall(r"\[([\w-]+)\]\(verifiers/([\w-]+)\.md\)", index)
    assert {name for name, _ in linked} == set(PAGES)
    assert [name for name, target in linked if name != target] == []


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_says_what_is_accepted_refused_what_it_costs_and_how_it_is_fooled(name: str) -> None:
    text = PAGES[name].read_text()
    assert text.startswith(f"# `{name}`\n")
    assert re.findall(r"^- \*\*(.*?)\*\*", text, re.M)[:4] == ["Accepts", "Refuses", "Costs", "Can be fooled"]


@pytest.mark.parametrize("name", sorted(set(PAGES) - TRAINER))
def test_the_examples_print_what_the_page_says(name: str) -> None:
    if name in NEEDS and importlib.util.find_spec(NEEDS[name]) is None:
        pytest.skip(f"{NEEDS[name]} is not installed")
    for block in blocks(PAGES[name]):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, f"docs/verifiers/{name}.md", "exec"), {})
        wanted = [found.group(1) for line in block.split("\n") if (found := SAID.match(line))]
        assert len(wanted) >= 2
        assert printed.getvalue().splitlines() == wanted


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_of_a_page_lead_somewhere(name: str) -> None:
    for target, anchor in re.findall(r"\]\(([\w./-]*)(?:#([\w-]+))?\)", PAGES[name].read_text()):
        page = (PAGES[name].parent / target).resolve() if target else PAGES[name]
        assert page.is_file(), target
        if anchor:
            heads = [
                re.sub(r"[^\w -]", "", head).lower().replace(" ", "-")
                for head in re.findall(r"^#+ (.*)$", page.read_text(), re.M)
            ]
            assert anchor in heads, (target, anchor)
