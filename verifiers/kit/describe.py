"""Descriptions of verifiers and their options, read from the source without importing it, so torch stays out."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import NamedTuple


class Description(NamedTuple):
    """Description of a verifier: first line of its docstring, options, and the fault if it cannot be read."""

    about: str
    options: tuple[str, ...]
    fault: str
    """Reason why there is no description; empty if there is one."""


def describe(target: str) -> Description:
    """Describe the class or function at `package.module:attribute` or `file.py:attribute`; faults are in the result."""
    where, _, attribute = target.rpartition(":")
    try:
        source = _source(where)
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (ImportError, OSError, SyntaxError, ValueError) as error:
        return Description("", (), f"{where} cannot be read: {error}")
    named = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    found = named.get(attribute)
    if found is None:
        return Description("", (), f"{where} has no {attribute}")
    about = (ast.get_docstring(found) or "").partition("\n")[0]
    return Description(about, () if isinstance(found, ast.FunctionDef) else _options(found, named), "")


def _source(where: str) -> Path:
    if where.endswith(".py"):
        return Path(where)
    spec = importlib.util.find_spec(where)
    if spec is None or spec.origin is None:
        raise ImportError(f"no module {where}")
    return Path(spec.origin)


def _options(found: ast.ClassDef, named: dict[str, ast.ClassDef | ast.FunctionDef]) -> tuple[str, ...]:
    """Return the constructor's keyword arguments, of the class itself or of a base class in the same module."""
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return tuple(
                arg.arg
                + (f": {ast.unparse(arg.annotation)}" if arg.annotation else "")
                + (f" = {ast.unparse(default)}" if default else "")
                for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            )
    for base in found.bases:
        parent = named.get(base.id) if isinstance(base, ast.Name) else None
        if isinstance(parent, ast.ClassDef):
            return _options(parent, named)
    return ()
