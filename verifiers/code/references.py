"""References of the code verifier: their JSON schema, and the checks that sort them into kinds."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from verifiers.code.checkers import read_checker
from verifiers.code.guest import checks, wire
from verifiers.code.imports import IMPORTS
from verifiers.code.output import COMPARISONS, OutputRule, read_output_rule
from verifiers.code.values import VALUES, ValueRule, read_value_rule
from verifiers.errors import BadReference
from verifiers.jsonl import is_object
from verifiers.verdict import JSON

MAX_SOURCE = 1_000_000
MAX_SECONDS = 30.0
"""Most CPU seconds that a reference may set for a case, a call or its tests."""
PROGRAM_MODULES = ("solution", "main", "candidate")
"""Names under which a pytest file may import the tested program's module."""

_TEXT: dict[str, JSON] = {"type": "string"}
_SOURCE: dict[str, JSON] = {"type": "string", "minLength": 1, "maxLength": MAX_SOURCE}
_NAME: dict[str, JSON] = {"type": "string", "pattern": r"^(Solution\(\)\.)?[A-Za-z_][A-Za-z0-9_]*$"}
METHOD = re.compile(r"Solution\(\)\.(\w+)")
"""LeetCode's name for a method of the class that programs define; the method's bare name means the same."""
_AMOUNT: dict[str, JSON] = {"type": "number", "minimum": 0}
_SECONDS: dict[str, JSON] = {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS}
_ARGUMENTS: dict[str, JSON] = {"type": "array"}


def _object(required: list[str], properties: dict[str, JSON], **needs: list[JSON]) -> JSON:
    """Return an object's schema; each of `needs` maps a property to others that it requires."""
    return {
        "dependentRequired": {name: [*others] for name, others in needs.items()},
        "type": "object",
        "required": [*required],
        "properties": properties,
        "additionalProperties": False,
    }


_TOLERANCE: JSON = {
    "oneOf": [
        _AMOUNT,
        _object([], {"absolute": _AMOUNT, "relative": _AMOUNT, "integers": {"type": "boolean"}}),
    ]
}
_IMPORTS: JSON = {"enum": [*IMPORTS]}
_PRINTED: dict[str, JSON] = {
    "compare": {"enum": [*COMPARISONS]},
    "tolerance": _TOLERANCE,
    "any_case": {"oneOf": [{"type": "boolean"}, {"type": "array", "minItems": 1, "items": _SOURCE}]},
    "any_order": {"type": "boolean"},
    "imports": _IMPORTS,
    "prelude": _TEXT,
    "seconds_per_case": _SECONDS,
}
_FILE: dict[str, JSON] = {"type": "string", "pattern": r"^(?!\.)[\w.+-]{1,100}$"}
PLAIN_FILE = re.compile(str(_FILE["pattern"]))
_CHECKER: JSON = {
    "oneOf": [
        _SOURCE,
        _object(
            ["source"],
            {"source": _SOURCE, "language": {"type": "string"}, "protocol": {"enum": ["exit", "prints"]}},
        ),
    ]
}
_FILES: dict[str, JSON] = {
    "checker": _CHECKER,
    "files": _object([], {"input": _FILE, "output": _FILE}),
    "sources": {"type": "object", "propertyNames": _FILE, "additionalProperties": _TEXT},
    "program": _FILE,
}
_RETURNED: dict[str, JSON] = {
    "compare": {"enum": [*VALUES]},
    "tolerance": _TOLERANCE,
    "imports": _IMPORTS,
    "prelude": _TEXT,
    "seconds_per_case": _SECONDS,
}

SCHEMA: Mapping[str, JSON] = {
    "oneOf": [
        _object(
            ["cases"],
            {
                "cases": {
                    "type": "array",
                    "minItems": 1,
                    "items": _object(["input", "output"], {"input": _TEXT, "output": _TEXT}),
                },
                **_PRINTED,
                **_FILES,
            },
        ),
        _object(
            ["entry_point", "calls"],
            {
                "entry_point": _NAME,
                "calls": {
                    "type": "array",
                    "minItems": 1,
                    "items": _object(["expected"], {"args": _ARGUMENTS, "kwargs": {"type": "object"}, "expected": {}}),
                },
                **_RETURNED,
            },
        ),
        _object(
            ["entry_point", "oracle", "inputs"],
            {
                "entry_point": _NAME,
                "oracle": _SOURCE,
                "inputs": {"type": "array", "minItems": 1, "items": _ARGUMENTS},
                **_RETURNED,
            },
        ),
        _object(
            ["tests"],
            {
                "tests": {"type": "array", "minItems": 1, "items": _SOURCE},
                "setup": _TEXT,
                "imports": _IMPORTS,
                "prelude": _TEXT,
                "check": _NAME,
                "entry_point": _NAME,
                "seconds": _SECONDS,
            },
            check=["entry_point"],
        ),
        _object(["pytest"], {"pytest": _SOURCE, "setup": _TEXT, "entry_point": _NAME, "seconds": _SECONDS}),
        _object(
            ["code", "entry_point", "input", "output", "predict"],
            {
                "code": _SOURCE,
                "entry_point": _NAME,
                "input": _TEXT,
                "output": _SOURCE,
                "predict": {"enum": ["input", "output"]},
            },
        ),
    ]
}
"""JSON schema of a reference. Values in args, kwargs, inputs and expected are plain JSON, or tagged as in
`verifiers.code.guest.wire` ({"$tuple": [1, 2]})."""

KINDS: Mapping[str, frozenset[str]] = {
    "cases": frozenset({"cases", *_PRINTED, *_FILES}),
    "calls": frozenset({"calls", "entry_point", *_RETURNED}),
    "oracle": frozenset({"oracle", "entry_point", "inputs", *_RETURNED}),
    "tests": frozenset({"tests", "setup", "imports", "prelude", "check", "entry_point", "seconds"}),
    "pytest": frozenset({"pytest", "setup", "entry_point", "seconds"}),
    "predict": frozenset({"predict", "code", "entry_point", "input", "output"}),
}
TEXTS = ("program", "setup", "prelude", "check", "entry_point", "oracle", "pytest", "code", "input", "output")


def read_reference(reference: JSON, imports: str = "") -> tuple[str, Mapping[str, JSON]]:
    """Check a reference; return its kind and normal form: a pytest file becomes tests, imports join the prelude.

    Args:
        reference: in the form of SCHEMA.
        imports: name in IMPORTS for references that may name one but do not.

    Raises:
        BadReference: something is missing or wrong; the message says what.
    """
    if not isinstance(reference, dict):
        raise BadReference(f"the reference must be an object; got {reference!r:.80}. {_EXPECTED}")
    kind = next((name for name in KINDS if name in reference), None)
    if kind is None:
        raise BadReference(f"the reference has none of {', '.join(KINDS)}; it has {', '.join(reference) or 'nothing'}.")
    unknown = sorted(set(reference) - KINDS[kind])
    if unknown:
        raise BadReference(f"a reference with {kind} may not have {unknown[0]!r}; it takes {', '.join(KINDS[kind])}.")
    for name in TEXTS:
        if not isinstance(reference.get(name, ""), str):
            raise BadReference(f"{name} must be text; got {reference[name]!r:.80}.")
    if kind == "cases":
        read_output_rule(reference, OutputRule())
        _files(reference)
    elif kind in ("calls", "oracle"):
        read_value_rule(reference, ValueRule())
    seconds_of(reference)
    reference = _with_imports(kind, reference, imports)
    if method := METHOD.fullmatch(str(reference.get("entry_point", ""))):
        reference["entry_point"] = method[1]
    CHECKS[kind](reference)
    if kind == "pytest":
        return "tests", _pytest(reference)
    return kind, with_unittest(reference) if kind == "tests" else reference


def _with_imports(kind: str, reference: Mapping[str, JSON], imports: str) -> dict[str, JSON]:
    """Return the reference with the imports that it (or else the verifier) names at the start of its prelude."""
    found = dict(reference)
    name = found.pop("imports", imports)
    if not name or "imports" not in KINDS[kind]:
        return found
    if not isinstance(name, str) or name not in IMPORTS:
        raise BadReference(f"imports must be one of {', '.join(IMPORTS)}; got {name!r:.80}.")
    return {**found, "prelude": IMPORTS[name] + str(found.get("prelude") or "")}


def seconds_of(reference: Mapping[str, JSON]) -> float | None:
    """Return the CPU seconds for each case or call, or for all tests together; None if the reference sets none.

    Raises:
        BadReference: it is not a number above 0 and at most MAX_SECONDS.
    """
    name = "seconds" if "seconds" in reference else "seconds_per_case"
    seconds = reference.get(name)
    if seconds is None:
        return None
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 < seconds <= MAX_SECONDS:
        raise BadReference(f"{name} must be above 0 and at most {MAX_SECONDS:g}; got {seconds!r:.80}.")
    return float(seconds)


_EXPECTED = "It contains cases, calls, an oracle, tests, a pytest file, or what is to be predicted."


def objects(reference: Mapping[str, JSON], name: str) -> list[dict[str, JSON]]:
    """Return the objects of a list in a usable reference."""
    return [row for row in listed(reference, name) if is_object(row)]


def listed(reference: Mapping[str, JSON], name: str) -> list[JSON]:
    """Return a list in a reference.

    Raises:
        BadReference: it is missing, not a list, or empty.
    """
    found = reference.get(name)
    if not isinstance(found, list) or not found:
        raise BadReference(f"{name} must be a non-empty list; got {found!r:.80}.")
    return found


def _entry_point(reference: Mapping[str, JSON]) -> None:
    name = reference.get("entry_point")
    if not isinstance(name, str) or not name.isidentifier():
        raise BadReference(f"entry_point must be the name of the tested function; got {name!r:.80}.")


def _source(text: JSON, what: str) -> ast.Module:
    if not isinstance(text, str) or not text.strip() or len(text) > MAX_SOURCE:
        raise BadReference(f"{what} must be Python source of 1 to {MAX_SOURCE} characters; got {text!r:.80}.")
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadReference(f"{what} must be Python source: {error}"[:300]) from None


def _values(tree: JSON, what: str) -> None:
    try:
        wire.decode(tree)
    except wire.CannotCross as error:
        raise BadReference(f"{what} cannot be read: {error}.") from None


def _cases(reference: Mapping[str, JSON]) -> None:
    for case in listed(reference, "cases"):
        if not isinstance(case, dict) or set(case) != {"input", "output"}:
            raise BadReference(f"every case must have input and output; got {case!r:.80}.")
        if not all(isinstance(value, str) for value in case.values()):
            raise BadReference(f"every case must have a text input and a text output; got {case!r:.80}.")


def _files(reference: Mapping[str, JSON]) -> None:
    if "checker" in reference:
        read_checker(reference["checker"])
    for name, allowed in (("files", ("input", "output")), ("sources", ())):
        found = reference.get(name, {})
        if not is_object(found) or not all(isinstance(value, str) for value in found.values()):
            raise BadReference(f"{name} must be an object of texts; got {found!r:.80}.")
        if unknown := sorted(set(found) - set(allowed or found)):
            raise BadReference(f"{name} may not have {unknown[0]!r}; it takes {', '.join(allowed)}.")
    sources, files = reference.get("sources", {}), files_of(reference)
    for name in (*(sources if is_object(sources) else ()), *files.values(), str(reference.get("program", "program"))):
        if not PLAIN_FILE.search(name):
            raise BadReference(f"a file's name must be of letters, digits, '.', '_', '+' and '-'; got {name!r:.80}.")


def files_of(reference: Mapping[str, JSON]) -> dict[str, str]:
    """Return the names of the files that a program reads (`input`) and writes (`output`) instead of standard ones."""
    found = reference.get("files")
    return {name: str(file) for name, file in found.items()} if is_object(found) else {}


def _calls(reference: Mapping[str, JSON]) -> None:
    _entry_point(reference)
    for call in listed(reference, "calls"):
        if not isinstance(call, dict) or "expected" not in call or set(call) - {"args", "kwargs", "expected"}:
            raise BadReference(
                f"every call must have an expected value, and may have args and kwargs; got {call!r:.80}."
            )
        if not isinstance(call.get("args", []), list) or not isinstance(call.get("kwargs", {}), dict):
            raise BadReference(f"args must be a list and kwargs an object; got {call!r:.80}.")
        _values([*call.values()], "a call")


def _oracle(reference: Mapping[str, JSON]) -> None:
    _entry_point(reference)
    _source(reference.get("oracle"), "oracle")
    for given in listed(reference, "inputs"):
        if not isinstance(given, list):
            raise BadReference(f"each of inputs must be a list of arguments; got {given!r:.80}.")
        _values(given, "an input")


def _tests(reference: Mapping[str, JSON]) -> None:
    trees = [_source(test, "a test") for test in listed(reference, "tests")]
    for name in ("setup", "prelude"):
        if reference.get(name):
            _source(
                f"{reference[name]}\n    pass" if name == "prelude" and _unfinished(reference) else reference[name],
                name,
            )
    check = reference.get("check")
    if check:
        _entry_point(reference)
        defined = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        if check not in defined:
            raise BadReference(f"the tests must define {check}, the function that gets the program; they do not.")
    _compares([*trees, *([ast.parse(str(reference["setup"]))] if reference.get("setup") else [])])


def _compares(trees: list[ast.Module]) -> None:
    if not any(map(checks.has_check, trees)):
        raise BadReference("the tests contain no comparison that the program could fail.")


def _unfinished(reference: Mapping[str, JSON]) -> bool:
    """Return True if a prelude ends in a function without a body, as a prompt may."""
    try:
        ast.parse(str(reference["prelude"]))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return False


def whole_prelude(reference: Mapping[str, JSON]) -> str:
    """Return the prelude as a complete program; a function without a body gets `pass`."""
    prelude = str(reference.get("prelude") or "")
    return f"{prelude}\n    pass\n" if prelude and _unfinished(reference) else prelude


def tested_names(reference: Mapping[str, JSON]) -> frozenset[str]:
    """Return the names of which a program has to define one; without an entry point, those the tests call.

    Empty for a program that is run as a whole.
    """
    if "entry_point" in reference:
        return frozenset({str(reference["entry_point"]), "Solution"})
    tests = listed(reference, "tests") if "tests" in reference else []
    return frozenset(
        node.func.id
        for test in tests
        for node in ast.walk(ast.parse(str(test)))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    )


def has_input(reference: Mapping[str, JSON]) -> bool:
    """Return True if any case of a usable reference has input that is not blank."""
    return any(str(case["input"]).strip() for case in objects(reference, "cases"))


def _predict(reference: Mapping[str, JSON]) -> None:
    _entry_point(reference)
    _source(reference.get("code"), "code")
    if reference["predict"] not in ("input", "output"):
        raise BadReference(f"predict must be input or output; got {reference['predict']!r:.80}.")
    _source(reference.get("output"), "output")
    _source(f"f({reference.get('input')})", "input")


def _check_pytest(reference: Mapping[str, JSON]) -> None:
    _pytest(reference)


CHECKS = {
    "cases": _cases,
    "calls": _calls,
    "oracle": _oracle,
    "tests": _tests,
    "pytest": _check_pytest,
    "predict": _predict,
}


class _NotPlain(Exception):
    """The pytest file contains more than plain functions."""


def _pytest(reference: Mapping[str, JSON]) -> dict[str, JSON]:
    """Convert a pytest file to tests, which are run by pytest (`file`).

    If it contains only plain functions, each test function with each of its parameter sets also becomes a test, with
    the rest as setup, so that these can become inputs and outputs.
    """
    tree = _source(reference.get("pytest"), "the pytest file")
    before = str(reference.get("setup") or "")
    text = "\n".join(part for part in (before, str(reference["pytest"])) if part)
    if not any(is_test(node) for node in ast.walk(tree)):
        raise BadReference("the pytest file has no test function.")
    _compares([tree, *([ast.parse(before)] if before else [])])
    found: dict[str, JSON] = {"file": text, "tests": [text]}
    try:
        tests, setup = _plain_tests(tree, before)
        found |= {"tests": tests, "setup": setup}
    except _NotPlain as why:
        found["more"] = str(why)
    return found | {name: reference[name] for name in ("entry_point", "seconds") if name in reference}


def is_test(node: ast.AST) -> bool:
    """Return True if pytest collects this definition as a test."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test")


def with_unittest(reference: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Convert tests that are unittest classes and run nothing themselves to a file for pytest; others unchanged."""
    text = "\n".join(map(str, (reference.get("setup") or "", *listed(reference, "tests"))))
    tree = ast.parse(text)
    tests = [node for test in listed(reference, "tests") for node in ast.parse(str(test)).body]
    cases = [node for node in tests if isinstance(node, ast.ClassDef) and _is_unittest(node)]
    runs = any(isinstance(node, ast.Attribute) and node.attr in _RUNNERS for node in ast.walk(tree))
    defines = (ast.ClassDef, ast.FunctionDef, ast.Import, ast.ImportFrom, ast.Assign, ast.If)
    if not cases or runs or reference.get("check") or not all(isinstance(node, defines) for node in tests):
        return reference
    kept = {name: reference[name] for name in ("entry_point", "prelude", "seconds") if name in reference}
    return {**kept, "file": text, "tests": [text], "more": "unittest's classes"}


_RUNNERS = ("TextTestRunner", "defaultTestLoader", "TestLoader", "TestSuite", "TestResult", "run")


def _is_unittest(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).rpartition(".")[2] in ("TestCase", "IsolatedAsyncioTestCase") for base in node.bases)


def _plain_tests(tree: ast.Module, before: str) -> tuple[list[JSON], str]:
    """Split a pytest file into tests and setup.

    Raises:
        _NotPlain: it has fixtures, unittest classes, or the like.
    """
    _BareNames().visit(tree)
    tests: list[JSON] = []
    setup = [before]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            tests += _test_function(node)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            tests += _test_class(node)
        elif isinstance(node, ast.ClassDef) and _is_unittest(node):
            raise _NotPlain("unittest's classes")
        elif isinstance(node, ast.ImportFrom) and node.module in PROGRAM_MODULES:
            if any(alias.asname or alias.name == "*" for alias in node.names):
                raise _NotPlain("imports under another name")
        elif isinstance(node, ast.Import) and node.names[0].name in PROGRAM_MODULES:
            if node.names[0].asname:
                raise _NotPlain("imports under another name")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_special(node):
            raise _NotPlain(f"{node.name}")
        else:
            setup.append(ast.unparse(node))
    if not tests:
        raise _NotPlain("no plain test function")
    return tests, "\n".join(part for part in setup if part)


_XUNIT = frozenset(
    "setup_module teardown_module setup_function teardown_function setup_class teardown_class setup_method"
    " teardown_method setUp tearDown setup teardown".split()
)


def _is_special(node: ast.AST) -> bool:
    """Return True if pytest treats a function specially."""
    name = getattr(node, "name", "")
    return bool(getattr(node, "decorator_list", ())) or name in _XUNIT or name.startswith(("pytest_", "test"))


def _test_function(node: ast.FunctionDef) -> list[JSON]:
    calls = [f"{node.name}()"]
    for decorator in node.decorator_list:
        if not isinstance(decorator, ast.Call) or ast.unparse(decorator.func) != "pytest.mark.parametrize":
            raise _NotPlain(f"{node.name}: a decorator")
        plain = len(decorator.args) == 2 and isinstance(decorator.args[1], ast.List) and not decorator.keywords
        if len(node.decorator_list) > 1 or not plain or "pytest.param" in ast.unparse(decorator):
            raise _NotPlain(f"{node.name}: parameters")
        assert isinstance(decorator.args[1], ast.List)
        try:
            names = ast.literal_eval(decorator.args[0])
        except ValueError:
            raise _NotPlain(f"{node.name}: parameters") from None
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        values = [ast.unparse(value) for value in decorator.args[1].elts]
        single = len(names) == 1
        calls = [
            f"{node.name}({names[0]}={value})" if single else f"{node.name}(**dict(zip({names}, {value})))"
            for value in values
        ]
    if node.args.args and not node.decorator_list:
        raise _NotPlain(f"{node.name}: fixtures")
    plain_function = ast.FunctionDef(node.name, node.args, node.body, [], lineno=1, col_offset=0)
    return [f"{ast.unparse(plain_function)}\n{call}" for call in calls]


def _test_class(node: ast.ClassDef) -> list[JSON]:
    methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
    names = [item.name for item in methods if item.name.startswith("test")]
    special = any(_is_special(item) and item.name not in names for item in methods)
    special = special or any(item.decorator_list or len(item.args.args) != 1 for item in methods if item.name in names)
    if node.decorator_list or node.bases or not names or special:
        raise _NotPlain(f"{node.name}: more than test methods")
    return [f"{ast.unparse(node)}\n{node.name}().{name}()" for name in names]


class _BareNames(ast.NodeTransformer):
    """Transformer of `solution.f` to `f`, for the modules that stand for the tested program."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id in PROGRAM_MODULES:
            return ast.copy_location(ast.Name(node.attr, node.ctx), node)
        return node
