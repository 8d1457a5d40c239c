"""Runs inside the sandbox on the tests only: finds their comparisons, and which depend on the tested program.

`Flow` follows names through the source and finds those with values from the program (results) and those passed to it
(arguments). `instrumented` rewrites the tests so that each comparison is reported to a `Checks` when it is made.
"""

# pyright: basic
import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    pass
else:  # inside the sandbox every module stands by itself
    pass

CATCHERS = ("raises", "assertRaises", "assertRaisesRegex", "suppress", "failUnlessRaises")
ENDS = ("exit", "_exit", "quit", "abort")
STOPPERS = ("StopIteration", "StopAsyncIteration", "GeneratorExit")
SIDED = ("zip", "isclose", "allclose", "array_equal", "is_close", "approx", "almost_equal")
"""Functions whose arguments are compared with each other."""
MUTATORS = frozenset(
    "add append clear discard extend insert remove reverse sort update setdefault difference_update"
    " intersection_update symmetric_difference_update".split()
)
"""Methods of plain data that return nothing useful to a test."""


def dotted(node):
    """Return a name with its attributes as text (`a.b`); empty for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner else ""


def names_in(node):
    """Return the names, and attributes of names, that an expression reads."""
    return {found for part in ast.walk(node) if (found := dotted(part))}


def last_name(call):
    """Return the last name in what a call calls."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def is_check(call):
    """Return True if a call's name suggests that it raises when something is not as expected."""
    name = last_name(call).lstrip("_")
    return name.startswith(("assert", "fail", "check", "verify", "expect"))


def targets_of(node):
    """Return (target, value) pairs for everything that binds names in a statement or expression."""
    if isinstance(node, ast.Assign):
        return [(target, node.value) for target in node.targets]
    if isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
        return [(node.target, node.value)]
    if isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
        return [(node.target, node.iter)]
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return [(item.optional_vars, item.context_expr) for item in node.items if item.optional_vars]
    return []


class Flow:
    """Names of the tests whose values are results of the program, and those whose values are its arguments.

    Args:
        trees: of the tests and their helpers.
        names: of the tested program.
    """

    def __init__(self, trees, names):
        self.nodes = [node for tree in trees for node in ast.walk(tree)]
        self.names = set(names)
        self.functions = {
            node.name: node for node in self.nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        }
        self.parameters = {
            arg.arg for node in self.nodes if isinstance(node, ast.arguments) for arg in ast.walk(node)
            if isinstance(arg, ast.arg)
        }  # fmt: skip
        self.unknown = set(self.parameters)
        self.results = set(self.names)
        self.arguments = set()
        before = -1
        while before != (before := len(self.results) + len(self.arguments) + len(self.unknown)):
            for node in self.nodes:
                self.follow(node)

    def follow(self, node):
        """Propagate the kinds of the names that one node reads to the names that it binds."""
        for target, value in targets_of(node):
            bound = names_in(target)
            if self.gives_result(value):
                self.results |= bound
            elif names_in(value) & self.arguments:
                self.arguments |= bound
            elif names_in(value) & self.unknown:
                self.unknown |= bound
        if isinstance(node, ast.ClassDef) and any(map(self.gives_result, node.bases)):
            methods = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.args.args]
            self.results |= {node.name, *(part.args.args[0].arg for part in methods)}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and names_in(node) & self.results:
            self.unknown.add(node.name)
        if isinstance(node, (ast.With, ast.AsyncWith)) and names_in(node) & self.results:
            self.unknown |= {name for item in node.items for name in names_in(item.context_expr)}
        if not isinstance(node, ast.Call):
            return
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if names_in(node.func) & self.results:
            self.arguments |= {name for item in given for name in names_in(item)} - self.results
        function = self.functions.get(last_name(node))
        if function is not None:
            for parameter, item in zip(function.args.args, node.args, strict=False):
                kind = self.results if self.gives_result(item) else self.arguments
                if kind is self.results or names_in(item) & self.arguments:
                    kind.add(parameter.arg)
        elif isinstance(node.func, ast.Attribute) and any(self.gives_result(item) for item in given):
            self.results |= names_in(node.func.value) if last_name(node) in MUTATORS else set()

    def gives_result(self, node):
        """Return True if an expression's value may come from the program."""
        return bool(names_in(node) & self.results)

    def depends(self, node):
        """Return True if a comparison may depend on the program."""
        return bool(names_in(node) & (self.results | self.arguments | self.unknown))

    def mixes(self, node):
        """Return True if a check compares a result with something that depends on an argument but on no result."""
        return any(self.apart(sides) for part in ast.walk(node) if len(sides := sides_of(part)) > 1)

    def apart(self, sides):
        results = [side for side in sides if self.gives_result(side)]
        others = [side for side in sides if side not in results and names_in(side) & (self.arguments - self.results)]
        return bool(results and others)


def sides_of(node):
    """Return the expressions that a node compares with each other."""
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.Call) and (is_check(node) or last_name(node) in SIDED):
        return node.args
    return []


def depends_on_program(trees, flow):
    """Return True if any check in the trees may depend on the program, judged by names."""
    return any(
        (isinstance(node, ast.Assert) and flow.depends(node.test))
        or (isinstance(node, ast.Call) and is_check(node) and flow.depends(node))
        for tree in trees
        for node in ast.walk(tree)
    )


def has_check(tree: ast.AST) -> bool:
    """Return True if anything in a tree can fail a test by comparing."""
    return any(
        isinstance(node, (ast.Assert, ast.Raise))
        or (isinstance(node, ast.Call) and (is_check(node) or last_name(node) in (*CATCHERS, *ENDS)))
        for node in ast.walk(tree)
    )


def reachable(tree, functions):
    """Return a test's tree, and those of the functions and classes that it may call."""
    found, waiting = [tree], [tree]
    seen = set()
    while waiting:
        for node in ast.walk(waiting.pop()):
            name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
            if name in functions and name not in seen:
                seen.add(name)
                found.append(functions[name])
                waiting.append(functions[name])
    return found


class Checks:
    """Reports of a test's comparisons.

    `again` is set while a test runs a second time, with the program's answers from the first time and with the
    arguments as they were before the calls. Then only comparisons of a result with an argument count.
    """

    def __init__(self):
        self.made = self.any = 0
        self.again = False
        self.mixed = ""

    def begin(self):
        """Clear the reports of the previous test."""
        self.made = self.any = 0
        self.mixed = ""

    def ran(self, counts=True):
        """Report a comparison; it counts if it may depend on the program."""
        self.any += 1
        self.made += counts

    def held(self, check, counts, mixes, text):
        """Evaluate an asserted expression, report it, and return if it is true."""
        if not self.again:
            found = check()
            self.ran(counts)
            return found
        try:
            if check():
                return True
        except Exception:
            return True
        if mixes:
            self.mixed = text
        return not mixes

    def called(self, check, counts, mixes, text):
        """Make a call that raises if something is not as expected; report it and return its result."""
        if not self.again:
            found = check()
            self.ran(counts)
            return found
        try:
            return check()
        except Exception:
            self.mixed = self.mixed or (text if mixes else "")
            return None


class Instrumenter(ast.NodeTransformer):
    """Transformer that adds calls of a `Checks` to the comparisons of a test."""

    def __init__(self, flow):
        self.flow = flow

    def visit_Assert(self, node):
        """Split `assert A and B` into two assertions, each of which is reported."""
        self.generic_visit(node)
        test = node.test
        parts = test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]
        return [self.asserted(part, node) for part in parts]

    def asserted(self, test, node):
        counts = self.flow.depends(test)
        if not can_wait(test):
            report = ast.Expr(call("ran", ast.Constant(counts)))
            return ast.If(ast.Constant(True), [ast.Assert(test, node.msg), report], [])
        found = call("held", waiting(test), *self.about(test))
        return ast.copy_location(ast.Assert(found, node.msg), node)

    def about(self, test):
        return [ast.Constant(self.flow.depends(test)), ast.Constant(self.flow.mixes(test)), text_of(test)]

    def visit_Expr(self, node):
        """Instrument a call that raises when something is not as expected."""
        self.generic_visit(node)
        if isinstance(node.value, ast.Call) and is_check(node.value) and can_wait(node.value):
            return ast.copy_location(ast.Expr(call("called", waiting(node.value), *self.about(node.value))), node)
        return node

    def visit_If(self, node):
        """Instrument `if r != 10: raise AssertionError` and `if r != 10: pytest.fail()`."""
        checks = any(gives_up(part) for part in (*node.body, *node.orelse))
        depends = self.flow.depends(node.test)
        self.generic_visit(node)
        return [ast.Expr(call("ran", ast.Constant(depends))), node] if checks else node

    def visit_With(self, node):
        """Instrument `with raises(...)`, which has made a comparison when it ends."""
        catches = any(has_check(item.context_expr) for item in node.items)
        self.generic_visit(node)
        return [node, ast.Expr(call("ran", ast.Constant(True)))] if catches else node

    def visit_ClassDef(self, node):
        """Adapt a class of the tests that is derived from a class of the program: see `derived`."""
        self.generic_visit(node)
        if node.bases:
            node.decorator_list = [derive("decorated", found) for found in node.decorator_list]
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.args.args:
                    first = method.args.args[0].arg
                    for part in ast.walk(method):
                        if isinstance(part, ast.Call) and ast.unparse(part) == "super()":
                            names = (ast.Name("__class__", ast.Load()), ast.Name(first, ast.Load()))
                            vars(part).update(vars(derive("parent", *names)))
        return node

    def visit_Call(self, node):
        """Adapt calls such as `assertRaises(StopIteration, next, it)`; run code from the program in its process."""
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "type" and len(node.args) == 3:
            return ast.copy_location(derive("made", *node.args), node)
        name = node.func.id if isinstance(node.func, ast.Name) and node.args else ""
        if name in ("eval", "exec") and names_in(node.args[0]) & (self.flow.results | self.flow.unknown):
            node.args.insert(0, ast.Constant(name))
            node.func = ast.Name("__run_there__", ast.Load())
        if last_name(node) in CATCHERS:
            node.args = [stopping(arg) for arg in node.args]
        return node

    def visit_ExceptHandler(self, node):
        """Adapt `except StopIteration`."""
        self.generic_visit(node)
        if node.type is not None:
            node.type = stopping(node.type)
        return node

    def visit_Try(self, node):
        """Instrument `try: f(-1); fail()` and the like."""
        checks = any(gives_up(part) for part in (*node.body, *node.orelse))
        self.generic_visit(node)
        return [node, ast.Expr(call("ran", ast.Constant(True)))] if checks else node


def gives_up(statement):
    """Return True if a statement makes a test fail."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return is_check(statement.value) or last_name(statement.value) in ENDS
    return isinstance(statement, ast.Raise)


def stopping(node):
    """Add the class under which the program's StopIteration arrives to an exception that is caught."""
    if isinstance(node, ast.Name) and node.id in STOPPERS:
        return ast.Tuple([node, ast.Name("__stopped__", ast.Load())], ast.Load())
    if isinstance(node, ast.Tuple):
        return ast.Tuple([*map(stopping, node.elts)], ast.Load())
    return node


def can_wait(node):
    """Return True if an expression can be moved into a lambda."""
    kinds = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
    reads = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    whole = not any(isinstance(part, kinds) or getattr(part, "is_async", 0) for part in ast.walk(node))
    return whole and not reads & {"super", "__class__", "locals"}


def waiting(node):
    """Return an expression as a lambda without arguments."""
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(nothing, node)


def call(method, *args):
    """Return a call of a method of `__checks__`."""
    return ast.Call(ast.Attribute(ast.Name("__checks__", ast.Load()), method, ast.Load()), [*args], [])


def derive(function, *args):
    """Return a call of a function of `derived`."""
    return ast.Call(ast.Attribute(ast.Name("__derive__", ast.Load()), function, ast.Load()), [*args], [])


def text_of(node):
    """Return an expression's source as a constant."""
    return ast.Constant(ast.unparse(node)[:200])


def instrumented(tree, flow):
    """Return the tests with their comparisons reported to the global `__checks__`."""
    return ast.fix_missing_locations(Instrumenter(flow).visit(tree))
