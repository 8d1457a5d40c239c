"""Runs inside the sandbox: runs a test file with the real pytest, which also runs unittest classes.

The program is in another process: what the file imports from it are stand-ins. pytest's report on each test decides.
"""

# pyright: basic
import ast
import asyncio
import builtins
import copy
import importlib.util
import inspect
import os
import sys
import types

import checks
import derived
import judge
import setups
import standin

if importlib.util.find_spec("pytest"):  # loaded here, before any job: each would need half a second for it
    import _pytest.config

    for _name in _pytest.config.default_plugins:
        importlib.import_module(f"_pytest.{_name}")

FILE = "test_solution"
UNUSED = ("cacheprovider", "doctest", "unraisableexception", "threadexception", "faulthandler", "pastebin", "junitxml")
OPTIONS = ("-q", "--assert=plain", "--capture=sys", "--color=no", *(f"-pno:{name}" for name in UNUSED))


def run_file(request, line_for):
    """Run `request["file"]`.

    Args:
        request: the file, entry_point or null, names of the classes that both sides define.
        line_for: function that opens the connection to the program, from a `checks.Flow`.
    Returns:
        The frame to answer with.
    """
    tree = ast.parse(request["file"])
    names, body, implied = with_names(tree, request.get("entry_point"))
    flow = checks.Flow([body], names)
    if not checks.has_check(body):
        return {"fault": "they contain no comparison that the program could fail"}
    line = line_for(flow, [body])
    line.ready()
    module = types.ModuleType("solution")
    module.__getattr__ = line.named
    for name in setups.MODULES:
        sys.modules[name] = module
    given = {"checks": line.checks, "stopped": standin.StoppedByProgram, "run_there": line.run_there, "derive": derived}
    for name, value in given.items():
        setattr(builtins, f"__{name}__", value)
    for name in implied:
        try:
            setattr(builtins, name, line.named(name))
            line.globals_found.append(name)
        except AttributeError:
            continue
    source = ast.unparse(checks.instrumented(copy.deepcopy(body), flow))
    with open(f"{FILE}.py", "w") as file:
        file.write(source)
    return {"results": collected(line, body, flow, request)}


def collected(line, tree, flow, request):
    """Run pytest; return the result of each test of the file."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    import pytest

    hooks()
    plugin = Plugin(line, tree, flow, request)
    pytest.main([*OPTIONS, f"{FILE}.py"], plugins=[plugin])
    return plugin.rows


def with_names(tree, entry_point):
    """Find the names of the program that a file uses.

    Returns:
        All these names; the file with `solution.f` as `f` and with these names imported; the names that it uses without
        an import, as a file that does not import the program does.
    """
    modules = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in setups.MODULES
    }
    explicit = bool(modules) or any(
        isinstance(node, ast.ImportFrom) and node.module in setups.MODULES for node in tree.body
    )
    everything = any(
        isinstance(node, ast.ImportFrom) and node.module in setups.MODULES and node.names[0].name == "*"
        for node in tree.body
    )
    free = setups.free_names(tree) - set(setups.modules_used(tree)) | ({entry_point} if entry_point else set())
    bare = BareNames(modules)
    found, body = set(), []
    for node in bare.visit(tree).body:
        if isinstance(node, ast.ImportFrom) and node.module in setups.MODULES:
            for alias in node.names:
                found |= {alias.name} - {"*"}
                if alias.asname:
                    body.append(ast.Assign([ast.Name(alias.asname, ast.Store())], ast.Name(alias.name, ast.Load())))
        else:
            body.append(node)
    found |= bare.found
    implied = free - found if everything or not explicit else set()
    imports = [ast.ImportFrom("solution", [ast.alias(name)], 0) for name in sorted(found)]
    standard = [ast.Import([ast.alias(name)]) for name in setups.modules_used(tree)]
    at = 0
    while at < len(body) and (is_text(body[at]) or getattr(body[at], "module", "") == "__future__"):
        at += 1
    whole = ast.Module([*body[:at], *imports, *standard, *body[at:]], [])
    return found | implied, ast.fix_missing_locations(whole), implied


def is_text(node):
    """Return True if a statement is only a constant, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


class BareNames(ast.NodeTransformer):
    """Transformer of `solution.f` to `f`; `found` are these names."""

    def __init__(self, modules):
        self.modules = modules
        self.found = set()

    def visit_Attribute(self, node):
        """Replace an attribute of the program's module by its bare name."""
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id in self.modules:
            self.found.add(node.attr)
            return ast.copy_location(ast.Name(node.attr, node.ctx), node)
        return node


class Plugin:
    """pytest plugin that records the result of each test."""

    def __init__(self, line, tree, flow, request):
        self.line, self.tree, self.flow = line, tree, flow
        self.classes, self.strict = request.get("classes") or (), request.get("strict")
        self.rows = []
        self.begun = 0
        self.functions = {
            node.name: node
            for node in ast.walk(tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        }

    def pytest_collection_finish(self, session):
        """Register the file's classes whose instances are transferred."""
        space = vars(sys.modules.get(FILE, builtins))
        self.line.know({name: space[name] for name in self.classes if isinstance(space.get(name), type)})
        if self.strict:
            self.line.keep_methods()

    def pytest_exception_interact(self, node, call, report):
        """Record a file that cannot be collected."""
        if report.when not in ("setup", "call", "teardown"):
            error = call.excinfo.value
            self.rows.append(self.failed(error.__cause__ or error, 0))

    def failed(self, error, begun):
        """Return the result of a test that raised an exception."""
        if isinstance(error, ImportError) and error.name in setups.MODULES and self.line.lacks:
            return {"ok": False, "why": f"the program does not define {self.line.lacks[0]}"}
        if (type(error).__module__, type(error).__name__) in FAILED:
            error = AssertionError(str(error))
        return judge.failure(error, self.line, begun)

    def pytest_runtest_logstart(self, nodeid, location):
        """Start a test, including its fixtures."""
        judge.begin(self.line)
        self.begun = self.line.index

    def pytest_pyfunc_call(self, pyfuncitem):
        """Run a plain test function, and store how to run it again if the program changed its arguments."""
        names = pyfuncitem._fixtureinfo.argnames
        given = {name: pyfuncitem.funcargs[name] for name in names}
        self.line.record, self.line.changes = [], []
        self.call(pyfuncitem.obj, given)
        pyfuncitem.again = lambda: self.call(pyfuncitem.obj, given)
        return True

    def call(self, function, given):
        """Call a test function; a coroutine is run to its end."""
        found = function(**given)
        if inspect.iscoroutine(found):
            asyncio.run(found)

    def phase_result(self, item, call):
        """Return the result of one phase of a test, or None."""
        error = call.excinfo.value if call.excinfo else None
        if error is not None and left_out(error):
            return {"ok": True, "bare": True}
        if error is not None:
            return self.failed(error, self.begun)
        if call.when != "call":
            return None
        name = getattr(item, "originalname", None) or item.name
        trees = checks.reachable(self.functions.get(name, self.tree), self.functions)
        return judge.judged(getattr(item, "again", None) or self.once_more(item), self.line, trees, self.flow)

    def once_more(self, item):
        """Return a function that runs a method of a unittest class again."""

        def once():
            case = item.parent.obj(item.name)
            case.setUp()
            getattr(case, item.name)()
            case.tearDown()

        return once


FAILED = (("_pytest.outcomes", "Failed"), ("builtins", "Failed"))
"""Classes that `pytest.fail` raises; pytest reports their module as builtins."""


def left_out(error):
    """Return True if an exception means that a test is skipped; exceptions of the program do not count."""
    kind = type(error)
    return (kind.__module__, kind.__name__) in (
        ("_pytest.outcomes", "Skipped"),
        ("builtins", "Skipped"),  # the module that pytest reports
        ("_pytest.outcomes", "XFailed"),
        ("unittest.case", "SkipTest"),
    ) and not judge.of_the_program(error)


def hooks():
    """Add the hook that needs pytest itself to the plugin."""
    import pytest

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        if getattr(report, "wasxfail", None) is not None:
            row = {"ok": True, "bare": True} if call.when == "call" and not report.failed else None
        else:
            row = self.phase_result(item, call)
        if row is not None and not (self.rows and self.rows[-1].get("of") == item.nodeid):
            self.rows.append({**row, "of": item.nodeid})
        elif row is not None and not row["ok"]:
            self.rows[-1] = {**row, "of": item.nodeid}
        return report

    setattr(Plugin, "pytest_runtest_makereport", pytest_runtest_makereport)  # noqa: B010  # it is not there before
