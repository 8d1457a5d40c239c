"""Runs inside the sandbox on the tests only: names in their source, and the part of their setup for the program."""

# pyright: basic
import ast
import builtins
import sys

MODULES = ("solution", "main", "candidate", "your_module", "solution_module")
"""Names under which a test file may import the program."""


def modules_used(tree):
    """Return standard modules used as `module.attribute` without an import (MBPP's tests rely on the program's)."""
    free = free_names(tree)
    bases = {
        node.value.id for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return sorted(name for name in bases & free if name in sys.stdlib_module_names)


def stored_names(tree):
    """Return every name that the code binds in any way."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found


def loaded_names(tree):
    """Return every name that the code reads."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def free_names(tree):
    """Return the names that are read but neither bound here nor built in."""
    return loaded_names(tree) - stored_names(tree) - set(vars(builtins)) - {"__name__", "__file__"}


def definitions(source, classes, tests=()):
    """Return only the imports and classes of a source (constants may be expected values)."""
    kept = []
    trees = [node for text in tests for node in ast.walk(ast.parse(text))]
    read = {node.attr for node in trees if isinstance(node, ast.Attribute)}
    for node in ast.parse(source).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
        imports = isinstance(node, (ast.Import, ast.ImportFrom)) and not {"pytest", "unittest", *MODULES} & set(names)
        if isinstance(node, ast.ClassDef) and node.name in classes and not is_test_class(node):
            node.body = [part for part in node.body if not holds_data(part, read)] or [ast.Pass()]
            kept.append(ast.unparse(node))
        elif imports:
            kept.append(ast.unparse(node))
    return "\n".join(kept)


def own_classes(tree):
    """Return the classes of a test file, except its tests and those derived from a class of the program."""
    of_program = free_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module in MODULES):
            names = [alias for alias in node.names if isinstance(node, ast.ImportFrom) or alias.name in MODULES]
            of_program |= {alias.asname or alias.name for alias in names}
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(root_name(base) in of_program for base in node.bases):
            of_program.add(node.name)
        elif isinstance(node, ast.ClassDef) and not is_test_class(node):
            found.append(node.name)
    return found


def is_test_class(node):
    """Return True if a class contains tests."""
    methods = any(getattr(part, "name", "").startswith("test") for part in node.body)
    return methods or node.name.startswith("Test") or any("TestCase" in ast.unparse(base) for base in node.bases)


def holds_data(part, read):
    """Return True if a statement of a class assigns values that may be expected ones.

    Args:
        part: the statement.
        read: attributes that the tests read.
    """
    names = {ast.unparse(target) for target in getattr(part, "targets", ())}
    tables = (ast.List, ast.Dict, ast.Tuple, ast.Set)
    table = isinstance(getattr(part, "value", None), tables) and not names & {"__slots__", "__match_args__"}
    return table or bool(names and names <= {name for name in read if name.isupper()})


def late_part(tree, names, sources):
    """Return the part of a setup that the arguments need, if the setup needs the program; None if it may contain
    expected values.

    It consists of what is made by calling the program, and of changes to that. The arguments name it as a whole.
    """
    names = set(names)
    wanted = set()
    for source in sources:
        call = ast.parse(source, mode="eval").body
        for part in [*call.args, *(keyword.value for keyword in call.keywords)]:
            if isinstance(part, ast.Name):
                wanted.add(part.id)
            elif (loaded_names(part) & stored_names(tree)) - names:
                return None
    kept = []
    for node in reversed(tree.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            kept.append(node)
            continue
        touched = {root_name(part) for part in changed_by(node)} & wanted
        if not touched and not isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr)):
            touched = (stored_names(node) | loaded_names(node)) & wanted
        if not touched:
            continue
        if not made_by_program(node, names):
            return None
        wanted |= loaded_names(node) - names
        kept.append(node)
    return "\n".join(map(ast.unparse, reversed(kept)))


def changed_by(node):
    """Return the expressions that a simple statement binds or changes."""
    if isinstance(node, ast.Assign):
        return node.targets
    if isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        return [node.target]
    return [node.value.func] if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else []


def root_name(node):
    """Return the name with which an expression of attributes and items begins; empty if there is none."""
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def made_by_program(node, names):
    """Return True if a simple statement makes something by calling the program, or changes such a thing."""
    if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
        return isinstance(node.value, ast.Call) and root_name(node.value.func) in names
    return isinstance(node, (ast.Assign, ast.AugAssign, ast.Expr))
