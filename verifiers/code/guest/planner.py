"""Runs inside the sandbox on a problem's tests only: converts assertions to inputs and expected outputs.

`assert f(ARGS) == EXPECTED`, wherever it occurs, becomes a record of ARGS and EXPECTED, both computed here. The tested
program is never in this process. Tests that use a result in any other way are reported as not rewritable.
"""

# pyright: basic
import ast
import builtins
import importlib
import json
import os
import random
import sys
import types

import handed
import program
import setups
import wire

VIEWS = ("tuple", "list", "set", "frozenset", "sorted", "len", "int", "float", "round")
OPERATORS = {
    ast.Eq: ("eq", "eq"),
    ast.NotEq: ("ne", "ne"),
    ast.Lt: ("lt", "gt"),
    ast.LtE: ("le", "ge"),
    ast.Gt: ("gt", "lt"),
    ast.GtE: ("ge", "le"),
    ast.In: ("in", None),
    ast.NotIn: ("not_in", None),
}
MAX_CASES = 20_000


class NotRewritable(Exception):
    """The tests use a result in a way that inputs and expected outputs cannot express."""


def main():
    """Read `request.json`; write one frame with the cases, or the reason why there are none."""
    with open("request.json", "rb") as file:
        request = json.load(file)
    random.seed(0)
    try:
        answer = plan(request)
    except BaseException as error:
        answer = {"fault": program.describe(error)}
        if "file" in request and "more" not in request:  # pytest itself may know better
            answer = plan({**request, "more": answer["fault"]})
    program.answer(answer)


def plan(request):
    """Convert tests to cases, and find what the program's process needs besides the program.

    Args:
        request: prelude and setup (source), tests (list of source), entry_point, check (name of a function that is
            called with the program) or null.
    Returns:
        cases, or under "live" the reason why there are none; setup, the part of the setup that the program needs;
        late_setup, true if the setup itself needs the program; classes, those that both sides define.
    """
    if request.get("more"):
        file = ast.parse(request["file"])
        classes = setups.own_classes(file)
        kept = setups.definitions(request["file"], classes, request["tests"])
        return {"live": request["more"], "setup": kept, "late_setup": False, "classes": classes}
    names = program_names(request)
    prelude, setup = request.get("prelude", ""), request.get("setup", "")
    late_setup = bool(setup) and bool(names & setups.free_names(ast.parse(setup)))
    space = new_space([prelude, *([] if late_setup else [setup])], request)
    classes = [name for name, value in list(space.items()) if isinstance(value, type) and value.__module__ == "tests"]
    found = {
        "setup": setups.definitions(setup, classes, request["tests"]),
        "late_setup": late_setup,
        "classes": classes,
    }
    recorder = Recorder(names, request, {space[name]: name for name in classes})
    space.update(__case__=recorder.case, __args__=recorder.args)
    if late_setup:
        names = names | setups.stored_names(ast.parse(setup))
    try:
        record(request, names, space, recorder)
    except (NotRewritable, wire.CannotCross) as why:
        return {"live": str(why), **found}
    except Exception as error:  # a test that needs what the program did before it
        return {"live": program.describe(error), **found}
    if late_setup:
        needed = [call["source"] for case in recorder.cases if "source" in (call := case["call"])]
        found["setup"] = setups.late_part(ast.parse(setup), program_names(request), needed)
        if found["setup"] is None:
            return {
                "live": "the setup needs the program",
                **found,
                "setup": setups.definitions(setup, classes, request["tests"]),
            }
    return {"cases": recorder.cases, **found}


def record(request, names, space, recorder):
    """Run the tests with their assertions rewritten, which records the cases.

    Raises:
        NotRewritable: a result is used in another way.
    """
    for index, source in enumerate(request["tests"]):
        recorder.test = index
        tree = Rewriter(names, known=set(space)).visit(ast.parse(source))
        left = names & setups.loaded_names(tree)
        if left:
            raise NotRewritable(f"a result of {sorted(left)[0]} is used beyond a comparison")
        exec(compile(ast.fix_missing_locations(tree), "tests.py", "exec"), space)
        if request.get("check"):
            space[request["check"]](None)


def program_names(request):
    """Return the names that only the tested program can supply."""
    entry = {request["entry_point"]} if request.get("entry_point") else set()
    if request.get("check"):
        tree = ast.parse("\n".join(request["tests"]))
        check = next(
            (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == request["check"]),
            None,
        )
        if check is None or not check.args.args:
            raise ValueError(f"the tests define no function {request['check']} of one argument")
        return {check.args.args[0].arg} | entry
    prelude = setups.stored_names(ast.parse(request.get("prelude", "")))
    whole = ast.parse(request.get("setup", "") + "\n" + "\n".join(request["tests"]))
    names = setups.free_names(whole) - prelude - set(setups.modules_used(whole)) | entry
    if names:
        return names
    # a program may have the name of a built-in: then it is what the first assertion calls
    called = [node.func for node in ast.walk(whole) if isinstance(node, ast.Call)]
    return set([name.id for name in called if isinstance(name, ast.Name)][:1])


def new_space(sources, request, given=()):
    """Create a module namespace, import the standard modules that the tests assume, and run the sources in it."""
    module = types.ModuleType("tests")
    sys.modules["tests"] = module
    space = vars(module)
    space.update(given)
    for name in setups.modules_used(ast.parse("\n".join([*sources, *request["tests"]]))):
        space[name] = importlib.import_module(name)
    for source in sources:
        exec(compile(source, "setup.py", "exec"), space)
    return space


class Recorder:
    """Collector of cases while the rewritten tests run."""

    def __init__(self, names, request, classes):
        self.entry_point = request.get("entry_point")
        self.renamed = names - {self.entry_point} if request.get("check") else set()
        self.classes = classes
        self.cases = []
        self.test = 0

    def args(self, *args, **kwargs):
        paths = handed.paths_in([*args, *kwargs.values()])
        if any(os.path.exists(path) for path in paths if os.sep in path or "." in path):
            raise NotRewritable("an argument names a file of the tests")
        return {
            "args": [wire.encode(item, self.classes) for item in args],
            "kwargs": {key: wire.encode(item, self.classes) for key, item in kwargs.items()},
        }

    def case(self, name, given, source, views, op, expected, extra):
        """Record one comparison.

        Args:
            name: of what is called.
            given: its encoded arguments; None if only the program's process can evaluate them.
            source: the call as an expression, if it does not depend on other code; else None.
        """
        if len(self.cases) >= MAX_CASES:
            raise NotRewritable(f"more than {MAX_CASES} comparisons")
        called = self.entry_point if name in self.renamed else name
        call = {"name": called, **given} if given else None
        if call is None or "$opaque" in wire.dumps(call):
            if source is None:
                raise NotRewritable("an argument is neither plain data nor of a class of the tests")
            call = {"source": source if called == name else renamed(source, name, called)}
        against = {"expected": wire.encode(expected, self.classes), "extra": wire.encode(extra, self.classes)}
        if "$opaque" in wire.dumps(against):
            raise NotRewritable("an expected value is neither plain data nor of a class of the tests")
        self.cases.append({"test": self.test, "call": call, "views": views, "op": op, **against})


def renamed(source, old, new):
    """Return an expression with one name replaced by another."""
    tree = ast.parse(source, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == old:
            node.id = new
    return ast.unparse(tree)


class Rewriter(ast.NodeTransformer):
    """Transformer that replaces assertions on the program's results by records of inputs and expected outputs."""

    def __init__(self, names, *, known):
        self.names = names
        self.known = known
        self.guarded = 0

    def visit(self, node):
        """Visit a node, counting the enclosing blocks in which a failing assertion would not end the test."""
        guard = isinstance(node, (ast.Try, ast.With, ast.AsyncFunctionDef, ast.Lambda))
        self.guarded += guard
        result = super().visit(node)
        self.guarded -= guard
        return result

    def visit_Assert(self, node):
        """Replace an assertion by one or more records; leave it if it does not fit."""
        if self.guarded or not self.names & setups.loaded_names(node.test):
            return node
        parts = (
            node.test.values if isinstance(node.test, ast.BoolOp) and isinstance(node.test.op, ast.And) else [node.test]
        )
        records = [record for part in parts if (record := self.record(self.comparison(part)))]
        if len(records) < len(parts):
            return node
        return [ast.copy_location(ast.Expr(record), node) for record in records]

    def visit_With(self, node):
        """Replace `with pytest.raises(ERROR): f(ARGS)` by a record."""
        nothing = ast.Constant(None)
        if self.guarded == 1 and len(node.items) == 1 and len(node.body) == 1:
            manager, inside = node.items[0].context_expr, node.body[0]
            if (
                isinstance(manager, ast.Call) and called(manager) == "raises" and len(manager.args) == 1
                and not manager.keywords and not node.items[0].optional_vars
                and isinstance(inside, ast.Expr) and isinstance(manager.args[0], ast.Name)
                and hasattr(builtins, manager.args[0].id)
            ):  # fmt: skip
                peeled = self.peel(inside.value)
                found = peeled and self.record((*peeled, "raises", ast.Constant(manager.args[0].id), nothing))
                if found:
                    return ast.copy_location(ast.Expr(found), node)
        return self.generic_visit(node)

    def record(self, found):
        """Return the call that records one comparison; None if it cannot be recorded."""
        if found is None:
            return None
        call, views, op, expected, extra = found
        if self.names & (setups.loaded_names(expected) | setups.loaded_names(extra)):
            return None
        arguments = ast.Module([*call.args, *(keyword.value for keyword in call.keywords)], [])
        given = source = ast.Constant(None)
        if not self.names & setups.loaded_names(arguments):
            given = ast.Call(ast.Name("__args__", ast.Load()), call.args, call.keywords)
        if not setups.free_names(arguments) - self.names:
            source = ast.Constant(ast.unparse(call))
        elif isinstance(given, ast.Constant):
            return None
        literal_views = ast.parse(repr(views), mode="eval").body
        name = ast.Constant(call.func.id)
        return ast.Call(
            ast.Name("__case__", ast.Load()),
            [name, given, source, literal_views, ast.Constant(op), expected, extra],
            [],
        )

    def comparison(self, test):
        """Return (call, views, op, expected, extra) of an expression, or None."""
        nothing = ast.Constant(None)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            peeled = self.peel(test.operand)
            return peeled and (*peeled, "false", nothing, nothing)
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            return self.compare(test.left, test.ops[0], test.comparators[0])
        if isinstance(test, ast.Call) and ast.unparse(test.func) in ("math.isclose", "isclose") and len(test.args) == 2:
            peeled = self.peel(test.args[0])
            extra = ast.Call(ast.Name("dict", ast.Load()), [], test.keywords)
            return peeled and (*peeled, "isclose", test.args[1], extra)
        peeled = self.peel(test)
        return peeled and (*peeled, "true", nothing, nothing)

    def compare(self, left, operator, right):
        """Return the same for `left operator right`."""
        nothing = ast.Constant(None)
        if isinstance(operator, (ast.Is, ast.IsNot)):
            peeled = self.peel(left)
            constant = (
                isinstance(right, ast.Constant) and right.value in (True, False, None) and type(right.value) is not int
            )
            op = "is" if isinstance(operator, ast.Is) else "is_not"
            return (*peeled, op, right, nothing) if peeled and constant else None
        if type(operator) not in OPERATORS:
            return None
        direct, swapped = OPERATORS[type(operator)]
        difference = self.difference(left) if direct in ("lt", "le") else None
        if difference:
            call, views, expected = difference
            return call, views, "within" if direct == "le" else "closer", expected, right
        peeled = self.peel(left)
        if peeled:
            return *peeled, direct, right, nothing
        peeled = self.peel(right)
        return (*peeled, swapped, left, nothing) if peeled and swapped else None

    def difference(self, node):
        """Return (call, views, expected) of `abs(f(...) - expected)`, or None."""
        if not (isinstance(node, ast.Call) and called(node) in ("abs", "fabs") and len(node.args) == 1):
            return None
        inner = node.args[0]
        if not (isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Sub)):
            return None
        for result, expected in ((inner.left, inner.right), (inner.right, inner.left)):
            peeled = self.peel(result)
            if peeled:
                return *peeled, expected
        return None

    def peel(self, node):
        """Return a call of the program and the views around it, innermost first; None if there is no such call."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            return None
        if node.func.id in self.names:
            return node, []
        if node.func.id in VIEWS and node.func.id not in self.known and node.args and not node.keywords:
            rest = [item.value for item in node.args[1:] if isinstance(item, ast.Constant) and type(item.value) is int]
            inner = self.peel(node.args[0])
            if inner and len(rest) == len(node.args) - 1 and (not rest or node.func.id == "round"):
                return inner[0], [*inner[1], [node.func.id, *rest]]
        return None


def called(node):
    """Return the last name in what a call calls."""
    return node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
