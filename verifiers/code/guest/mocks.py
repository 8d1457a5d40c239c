"""Runs inside the sandbox on the tests only: finds patches of the program, which cannot work across processes."""

# pyright: basic
import ast

import checks

REACHED = ("builtins.input", "sys.stdin", "sys.stdout", "sys.stderr")
"""Patches that work, because the program reads and writes these through the tests' process."""


def out_of_reach(trees):
    """Return what the tests replace in the program's process, as they write it; empty if nothing."""
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                found = patched(node)
                if found and found not in REACHED:
                    return found
            elif isinstance(node, ast.arg) and node.arg == "mocker":
                return "the fixture mocker"
    return ""


def patched(node):
    """Return what a call of `patch`, `patch.object`, `patch.dict` or `monkeypatch` replaces; else an empty text."""
    name = checks.dotted(node.func)
    parts = name.split(".")
    if parts[0] == "monkeypatch" and len(parts) == 2 and parts[1] != "undo":
        if parts[1] != "setattr":
            return name
    elif parts[-1] != "patch" and parts[-2:] not in (["patch", "object"], ["patch", "dict"]):
        return ""
    given = [argument_text(argument) for argument in node.args[:2]]
    if not given:
        return name
    dotted_text = isinstance(node.args[0], ast.Constant)
    return given[0] if dotted_text or len(given) < 2 or parts[-1] == "dict" else ".".join(given)


def argument_text(node):
    """Return the value of a text constant, or the source of any other expression."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
