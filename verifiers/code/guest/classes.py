"""Runs inside the sandbox on the tests only: finds the program's names that they treat as classes."""

# pyright: basic
import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from verifiers.code.guest import checks, setups
else:  # inside the sandbox every module stands by itself
    import checks
    import setups

PLAIN = frozenset(
    name
    for kind in (str, bytes, int, float, complex, list, tuple, dict, set, frozenset, range)
    for name in dir(kind)
    if not name.startswith("_")
) | frozenset(
    # of Decimal, Path, numpy arrays and pandas tables: methods with an operand
    "compare compare_total dot eq equals ge gt isin is_relative_to le lt match ne relative_to samefile same_quantum"
    " searchsorted sub".split()
)
ASKED = PLAIN - checks.MUTATORS
"""Attributes that a test reads when it expects plain data."""
OF_FUNCTIONS = frozenset(["cache_clear", "cache_info", "cache_parameters", "calls", "call_count"])


def classes(flow):
    """Return the program's names that the tests treat as classes, to whose instances they pass operands."""
    found, plain, made = set(), set(), {}

    def origin(node):
        if isinstance(node, ast.Call):
            name = checks.dotted(node.func)
            return {name} if name in flow.names else made.get(name + "()", set())
        if isinstance(node, ast.BinOp):
            return origin(node.left) | origin(node.right)
        return made.get(checks.dotted(node), set())

    for _ in range(3):
        for node in flow.nodes:
            for target, value in checks.targets_of(node):
                if checks.dotted(target):
                    made.setdefault(checks.dotted(target), set()).update(origin(value))
            if isinstance(node, (ast.Return, ast.Yield)) and node.value is not None:
                for name, function in flow.functions.items():
                    if node in ast.walk(function):
                        made.setdefault(name, set()).update(origin(node.value))
                        made.setdefault(name + "()", set()).update(origin(node.value))
    ours = {
        part.attr if isinstance(part, ast.Attribute) else getattr(part, "name", "")
        for node in flow.nodes
        if isinstance(node, ast.ClassDef) and not setups.is_test_class(node)
        for part in ast.walk(node)
        if isinstance(part, (ast.FunctionDef, ast.Attribute))
    }  # attributes of instances of the tests' own classes, and those that their methods read
    for node in flow.nodes:
        if isinstance(node, ast.Attribute) and node.attr in ours:
            continue
        used, evidence = class_use(node, origin, flow.names)
        plain |= used
        found |= evidence
    return found | {name for name in flow.names if name[:1].isupper() and name not in plain}


def class_use(node, origin, names):
    """Return the names whose results a node treats as plain data, and the names that it treats as classes."""
    if isinstance(node, ast.Attribute):
        of, itself = origin(node.value), checks.dotted(node.value)
        if node.attr in ASKED:
            return of, set()
        owner = {itself} if itself in names and itself[:1].isupper() and node.attr not in OF_FUNCTIONS else set()
        return set(), of | owner
    if isinstance(node, ast.BinOp):
        left, right = origin(node.left), origin(node.right)
        return (set() if left and right else left | right), set()
    if isinstance(node, ast.Compare):
        texts = [part.value for part in node.comparators if isinstance(part, ast.Constant)]
        shown = {name for name in names for text in texts if str(text).lstrip("<").startswith((f"{name}(", f"{name} "))}
        if shown:  # repr(Stack([1])) == "Stack([1])"
            return set(), shown
        held = [origin(side) for side in (node.left, *node.comparators)]
        inside = any(isinstance(op, (ast.In, ast.NotIn)) for op in node.ops)
        return (set().union(*held) if inside and not all(held) else set()), set()
    if isinstance(node, ast.Call) and checks.last_name(node) in (
        "isinstance",
        "issubclass",
        "assertIsInstance",
        *checks.CATCHERS,
    ):
        return set(), {
            name for part in node.args for name in checks.names_in(part) if name in names and name[:1].isupper()
        }
    if isinstance(node, ast.Call) and checks.last_name(node) in (
        "abs",
        "round",
        "float",
        "int",
        "sum",
        "sorted",
        "divmod",
    ):
        return {name for part in node.args for name in origin(part)}, set()
    if isinstance(node, ast.ClassDef):
        return set(), {name for part in node.bases for name in checks.names_in(part) if name in names}
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return set(), {name for item in node.items for name in origin(item.context_expr)}
    return set(), set()
