"""Runs inside the sandbox on tests alone: which of them reach into the program's process, where they cannot."""

# pyright: basic
import ast

import checks

REACHED = ("builtins.input", "sys.stdin", "sys.stdout", "sys.stderr")
"""What the program reads and writes through the tests' process, so that a patch of it there has its effect."""


def out_of_reach(trees):
    """What the tests replace in the program's process, as they write it; empty for nothing."""
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
    """What a call replaces, where it is one of `patch`, `patch.object`, `patch.dict` or `monkeypatch`; or empty."""
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
    """A text, or the source of anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)
