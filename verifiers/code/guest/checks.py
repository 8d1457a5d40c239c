"""Runs inside the sandbox on tests alone: what they compare, and what of it depends on the tested program.

`Flow` follows names through the source: which of them hold what the program gave (results), which what it was given
(arguments). `instrumented` rewrites the tests so that each comparison reports to a `Checks` when it is made.
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
"""Methods of plain data that give nothing back which a test could go by."""


def dotted(node):
    """`a.b` of a name or of attributes of one, else an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    inner = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{inner}.{node.attr}" if inner else ""


def names_in(node):
    """Names, and attributes of names, that an expression reads."""
    return {found for part in ast.walk(node) if (found := dotted(part))}


def last_name(call):
    """The last name of what a call calls."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def is_check(call):
    """Whether a call fails by itself where something is not as expected, as far as its name tells."""
    name = last_name(call).lstrip("_")
    return name.startswith(("assert", "fail", "check", "verify", "expect"))


def targets_of(node):
    """(target, value) of whatever binds names in a statement or expression."""
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
    """Which names of the tests hold results of the program, and which its arguments.

    Args:
        trees: of the tests and of what belongs to them.
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
        """Carry what one node reads over to what it binds."""
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
        """Whether an expression's value may be the program's doing."""
        return bool(names_in(node) & self.results)

    def depends(self, node):
        """Whether a comparison may turn on the program."""
        return bool(names_in(node) & (self.results | self.arguments | self.unknown))

    def mixes(self, node):
        """Whether somewhere in a check a result stands on one side, and on another an argument without one."""
        return any(self.apart(sides) for part in ast.walk(node) if len(sides := sides_of(part)) > 1)

    def apart(self, sides):
        results = [side for side in sides if self.gives_result(side)]
        others = [side for side in sides if side not in results and names_in(side) & (self.arguments - self.results)]
        return bool(results and others)


def sides_of(node):
    """The expressions that a node compares with each other."""
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.Call) and (is_check(node) or last_name(node) in SIDED):
        return node.args
    return []


def depends_on_program(trees, flow):
    """Whether any check in the trees may turn on the program, as far as names tell."""
    return any(
        (isinstance(node, ast.Assert) and flow.depends(node.test))
        or (isinstance(node, ast.Call) and is_check(node) and flow.depends(node))
        for tree in trees
        for node in ast.walk(tree)
    )


def has_check(tree: ast.AST) -> bool:
    """Whether anything in a tree can fail a test by comparing."""
    return any(
        isinstance(node, (ast.Assert, ast.Raise))
        or (isinstance(node, ast.Call) and (is_check(node) or last_name(node) in (*CATCHERS, *ENDS)))
        for node in ast.walk(tree)
    )


def reachable(tree, functions):
    """A test's tree, and those of the functions and classes that it may come to call."""
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
    """What the comparisons of a test reported.

    `again` is set while a test is gone through a second time, with what the program answered the first time, and
    with its arguments as they were before the calls. Then only comparisons of a result with an argument count.
    """

    def __init__(self):
        self.made = self.any = 0
        self.again = False
        self.mixed = ""

    def begin(self):
        """Forget the test before."""
        self.made = self.any = 0
        self.mixed = ""

    def ran(self, counts=True):
        """A comparison was made; it counts where it may turn on the program."""
        self.any += 1
        self.made += counts

    def held(self, check, counts, mixes, text):
        """Whether an asserted expression is true."""
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
        """The result of a call that raises where something is not as expected."""
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
    """Puts calls of a `Checks` where a test compares."""

    def __init__(self, flow):
        self.flow = flow

    def visit_Assert(self, node):
        """`assert A and B` as two, each of which reports."""
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
        """A call that fails by itself."""
        self.generic_visit(node)
        if isinstance(node.value, ast.Call) and is_check(node.value) and can_wait(node.value):
            return ast.copy_location(ast.Expr(call("called", waiting(node.value), *self.about(node.value))), node)
        return node

    def visit_If(self, node):
        """`if r != 10: raise AssertionError`, `if r != 10: pytest.fail()`."""
        checks = any(gives_up(part) for part in (*node.body, *node.orelse))
        depends = self.flow.depends(node.test)
        self.generic_visit(node)
        return [ast.Expr(call("ran", ast.Constant(depends))), node] if checks else node

    def visit_With(self, node):
        """`with raises(...)`, which has compared when it is through."""
        catches = any(has_check(item.context_expr) for item in node.items)
        self.generic_visit(node)
        return [node, ast.Expr(call("ran", ast.Constant(True)))] if catches else node

    def visit_ClassDef(self, node):
        """What a class of the tests that is made from the program's needs: see `derived`."""
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
        """`assertRaises(StopIteration, next, it)`; code that the program returned, which runs where the program is."""
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
        """`except StopIteration`."""
        self.generic_visit(node)
        if node.type is not None:
            node.type = stopping(node.type)
        return node

    def visit_Try(self, node):
        """`try: f(-1); fail()`, and its like."""
        checks = any(gives_up(part) for part in (*node.body, *node.orelse))
        self.generic_visit(node)
        return [node, ast.Expr(call("ran", ast.Constant(True)))] if checks else node


def gives_up(statement):
    """Whether a statement ends a test as failed."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return is_check(statement.value) or last_name(statement.value) in ENDS
    return isinstance(statement, ast.Raise)


def stopping(node):
    """StopIteration in the place of an exception to be caught: what the program raised comes under another class."""
    if isinstance(node, ast.Name) and node.id in STOPPERS:
        return ast.Tuple([node, ast.Name("__stopped__", ast.Load())], ast.Load())
    if isinstance(node, ast.Tuple):
        return ast.Tuple([*map(stopping, node.elts)], ast.Load())
    return node


def can_wait(node):
    """Whether an expression may be evaluated in a function of its own."""
    kinds = (ast.NamedExpr, ast.Await, ast.Yield, ast.YieldFrom)
    reads = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    whole = not any(isinstance(part, kinds) or getattr(part, "is_async", 0) for part in ast.walk(node))
    return whole and not reads & {"super", "__class__", "locals"}


def waiting(node):
    """An expression as a function of no arguments."""
    nothing = ast.arguments(posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    return ast.Lambda(nothing, node)


def call(method, *args):
    """A call of a method of `__checks__`."""
    return ast.Call(ast.Attribute(ast.Name("__checks__", ast.Load()), method, ast.Load()), [*args], [])


def derive(function, *args):
    """A call of a function of `derived`."""
    return ast.Call(ast.Attribute(ast.Name("__derive__", ast.Load()), function, ast.Load()), [*args], [])


def text_of(node):
    """An expression as a text of it."""
    return ast.Constant(ast.unparse(node)[:200])


def instrumented(tree, flow):
    """The tests with their comparisons reporting to the global `__checks__`."""
    return ast.fix_missing_locations(Instrumenter(flow).visit(tree))
