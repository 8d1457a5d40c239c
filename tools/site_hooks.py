"""Hook of mkdocs.yml: pages of the documentation site that are made from other files of the repository.

README.md, CHANGELOG.md and their kin become pages; so do the settings of a config with their comments, the commands
with their help, the configs that are shipped, and the public names of each package with their docstrings.
"""

from __future__ import annotations

import ast
import html
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""File of the repository -> page of the site."""
PACKAGES = {
    "reasoner": "a run from Python",
    "verifiers": "verifiers: grade a completion, write a verifier",
    "verifiers.pool": "grading many rows in killable processes",
    "verifiers.judge": "questions to a judge",
    "tasks": "problems",
    "tasks.environments": "what replies between the turns of a policy",
    "sandbox": "running untrusted programs",
    "reasoner.engine": "what samples completions",
    "reasoner.observe.explain": "findings about a run",
}
"""Packages whose exported names (`__all__`) have a page."""
PYTHON_PAGES = "reference/python"
CONFIG_MODULES = ("reasoner/config/sections.py", "reasoner/config/stage.py")
LINK = re.compile(r"(\]\()(?!https?:|#)([^)\s#]+)([^)]*\))")
COMMAND_WIDTH = 100


class Setting(NamedTuple):
    """A key of a section."""

    name: str
    kind: str
    default: str
    bounds: str
    meaning: str


class SettingsSection(NamedTuple):
    """A section of a config: a class of reasoner/config."""

    name: str
    meaning: str
    settings: list[Setting]


def config_sections() -> dict[str, SettingsSection]:
    """Return the sections of a config by the name of their class, read from their source."""
    found: dict[str, SettingsSection] = {}
    for module in CONFIG_MODULES:
        for node in ast.parse((ROOT / module).read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith(("Section", "Config")):
                found[node.name] = SettingsSection(node.name, ast.get_docstring(node) or "", [*_settings(node)])
    return found


def _settings(section: ast.ClassDef) -> Iterator[Setting]:
    for place, node in enumerate(section.body):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        behind = section.body[place + 1] if place + 1 < len(section.body) else None
        meaning = ""
        if isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant):
            meaning = " ".join(str(behind.value.value).split())
        default, bounds = _default(node.value)
        yield Setting(node.target.id, ast.unparse(node.annotation), default, bounds, meaning)


def _default(value: ast.expr | None) -> tuple[str, str]:
    """Return a setting's default and its bounds as text."""
    if value is None:
        return "required", ""
    if not (isinstance(value, ast.Call) and ast.unparse(value.func) == "Field"):
        return ast.unparse(value), ""
    given = {word.arg: ast.unparse(word.value) for word in value.keywords}
    made = given.get("default_factory", "")
    default = given.get("default") or ("{}" if made.startswith("dict") else "[]" if made.startswith("list") else made)
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return default or "required", ", ".join(f"{signs[name]} {given[name]}" for name in signs if name in given)


def config_page() -> str:
    """Return the page of all settings, as Markdown."""
    sections = config_sections()
    lines = [
        "# Settings",
        "",
        "Every key of a config with its type, default and meaning, made from the classes that read it. `reasoner train"
        " CONFIG --dry-run --full` prints the value of each for one run. On the command line: `optim.lr=2e-6`.",
        "",
    ]
    stage = sections["StageConfig"]
    plain = [setting for setting in stage.settings if not _sections_in(setting, sections)]
    lines += ["## A stage", "", *_table("", plain)]

    def add(key: str, section: SettingsSection) -> None:
        lines.extend([f"## {key}", "", _escaped(section.meaning), "", *_table(key, section.settings)])
        for setting in section.settings:
            for name in _sections_in(setting, sections):
                if name not in shown:
                    shown.add(name)
                    add(f"{key}.{setting.name}", sections[name])

    shown: set[str] = set()
    for setting in stage.settings:
        for name in _sections_in(setting, sections):
            add(setting.name, sections[name])
    return "\n".join(lines)


def _sections_in(setting: Setting, sections: dict[str, SettingsSection]) -> list[str]:
    return [name for name in re.findall(r"\w+", setting.kind) if name in sections]


@cache
def _aliases() -> dict[str, str]:
    """Return the type aliases of the config modules that list values: name -> Literal[...]."""
    found: dict[str, str] = {}
    for module in (*CONFIG_MODULES, "reasoner/config/methods.py"):
        for node in ast.parse((ROOT / module).read_text()).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("Literal["):
                found[ast.unparse(node.targets[0])] = ast.unparse(node.value)
    return found


def _table(prefix: str, settings: list[Setting]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    aliases = _aliases()
    for one in settings:
        key = f"{prefix}.{one.name}" if prefix else one.name
        kind = re.sub(r"[A-Z][A-Za-z]+", lambda name: aliases.get(name[0], name[0]), one.kind)
        kind = re.sub(r"Literal\[([^\]]*)\]", lambda values: values[1].replace(", ", " | "), kind)
        kind = f"{kind} {one.bounds}".strip()
        yield f"| `{key}` | {_cell(kind)} | {_cell(one.default)} | {_escaped(one.meaning)} |"
    yield ""


def _cell(text: str) -> str:
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>" if text else ""


def _escaped(text: str) -> str:
    """Return a text in which nothing is HTML, and nothing ends a cell."""
    return html.escape(text, quote=False).replace("|", "&#124;")


def configs_page() -> str:
    """Return the page of the shipped configs: each with the comment at its top."""
    lines = ["# Configs", "", "Configs that are shipped, by the name that `reasoner train NAME` takes.", ""]
    for file in sorted((ROOT / "configs").glob("*.yaml")):
        text = file.read_text()
        about = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
        body = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        lines += [f"## {file.stem}", "", " ".join(about), "", "```yaml", body.strip(), "```", ""]
    return "\n".join(lines)


def commands_page() -> str:
    """Return the page of all commands with their help."""
    import click
    from typer.main import get_command

    from reasoner.cli import app

    lines = ["# Commands", "", "The help of every command, as `--help` prints it.", ""]

    def visit(command: Any, words: list[str]) -> None:
        context = click.Context(command, info_name=" ".join(words), max_content_width=COMMAND_WIDTH)
        if not hasattr(command, "list_commands"):
            usage = command.get_help(context)
            lines.extend([f"## {' '.join(words)}", "", "```text", usage, "```", ""])
            return
        for name in command.list_commands(context):
            visit(command.get_command(context, name), [*words, name])

    visit(get_command(app), ["reasoner"])
    return "\n".join(lines)


def package_page(package: str, about: str) -> str:
    """Return the page of a package's exported names, which mkdocstrings fills in."""
    import importlib

    names = sorted(importlib.import_module(package).__all__)
    options = "    options:\n      heading_level: 3\n"
    parts = [f"## {name}\n\n::: {package}.{name}\n{options}" for name in names]
    return f"# {package}\n\n{about[0].upper()}{about[1:]}.\n\n" + "\n".join(parts)


def site_link(target: str) -> str:
    """Return where a link of a file at the root of the repository, such as docs/data.md, leads on the site."""
    if target in ROOT_PAGES:
        return ROOT_PAGES[target]
    return target.removeprefix("docs/")


def on_config(config: Any) -> Any:
    """Expand the folders in the navigation (mkdocs calls this)."""

    def expanded(item: Any) -> list[Any]:
        if isinstance(item, dict):
            return [{name: [one for part in parts for one in expanded(part)]} for name, parts in item.items()]
        if not item.endswith("/*"):
            return [item]
        folder = item.removesuffix("/*")
        if folder == PYTHON_PAGES:
            return [f"{folder}/{package}.md" for package in PACKAGES]
        return [f"{folder}/{file.name}" for file in sorted((ROOT / "docs" / folder).glob("*.md"), key=_order)]

    config.nav = [one for item in config.nav for one in expanded(item)]
    return config


def _order(file: Path) -> tuple[int, str]:
    """Sort pages by the number in their first comment (`<!-- 3 -->`), if they have one, then by name."""
    number = re.match(r"<!-- (\d+) -->", file.read_text())
    return (int(number[1]) if number else 0, file.name)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here (mkdocs calls this)."""
    from mkdocs.structure.files import File

    made = {
        "reference/settings.md": config_page(),
        "reference/configs.md": configs_page(),
        "reference/commands.md": commands_page(),
    }
    for package, about in PACKAGES.items():
        made[f"{PYTHON_PAGES}/{package}.md"] = package_page(package, about)
    for name, page in ROOT_PAGES.items():
        text = (ROOT / name).read_text()
        made[page] = LINK.sub(lambda link: link[1] + site_link(link[2]) + link[3], text)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Let links from docs/ to files at the root of the repository lead to their pages (mkdocs calls this)."""
    up = "../" * (page.file.src_uri.count("/") + 1)
    for name, target in ROOT_PAGES.items():
        markdown = markdown.replace(f"]({up}{name}", f"]({up[3:]}{target}")
    return markdown
