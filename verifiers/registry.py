"""Verifiers by name: built-in, entry point, `module:attribute`, file path, or URL of a grading service."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReturn, UnknownVerifier, VerifierError
from verifiers.options import name_fault, option_fault
from verifiers.returned import all_finished, as_number, finished
from verifiers.suggest import did_you_mean
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints

ENTRY_POINT_GROUP = "reasoner.verifiers"
URL_SCHEMES = ("http://", "https://")
PLUGIN_PREFIX = "_reasoner_plugin_"
LONGEST_NAME = 200
"""Characters of a module's name for which a file of the current folder is looked for."""

BUILTIN: Mapping[str, str] = {
    "all-of": "verifiers.compose:AllOf",
    "choice": "verifiers.answers.choice:Choice",
    "code": "verifiers.code.verifier:Code",
    "countdown": "verifiers.answers.countdown:CountdownVerifier",
    "criterion": "verifiers.rubric.checks:CheckedCriterion",
    "exact": "verifiers.answers.exact:Exact",
    "format": "verifiers.answers.exact:Format",
    "gate": "verifiers.compose:Gate",
    "judge": "verifiers.judge.verifier:Judge",
    "instructions": "verifiers.instructions.verifier:Instructions",
    "json_schema": "verifiers.answers.json_schema:JsonSchema",
    "jury": "verifiers.judge.jury:Jury",
    "length": "verifiers.answers.shaping:Length",
    "logic": "verifiers.logic.verifier:Logic",
    "math": "verifiers.mathematics.verifier:Math",
    "math-verify": "verifiers.integrations.huggingface_math_verify:MathVerify",
    "sympy": "verifiers.integrations.sympy_latex:SympyLatex",
    "numeric": "verifiers.answers.numeric:Numeric",
    "outcome": "verifiers.answers.outcome:OutcomeVerifier",
    "per-row": "verifiers.compose:PerRow",
    "reasoning-gym": "verifiers.integrations.gym:ReasoningGym",
    "regex": "verifiers.answers.regex:Regex",
    "repetition": "verifiers.answers.shaping:Repetition",
    "rubric": "verifiers.rubric.verifier:Rubric",
    "sudoku": "verifiers.answers.sudoku:Sudoku",
    "trl": "verifiers.integrations.trl:TrlFunction",
    "verl": "verifiers.integrations.verl:VerlFunction",
    "weighted": "verifiers.compose:Weighted",
}
"""Name to `module:class`, imported on first use."""
CALLS_PLUGINS = frozenset({"trl", "verl"})
"""Built-in verifiers that call a function written by the user."""
SHIPPED = frozenset({"verifiers", "tasks", "reasoner"})
AWAITED_ROWS = 16
"""Rows that an asynchronous function grades concurrently."""
REMOTE = "verifiers.serve.client:Remote"
"""Class used for the URL of a grading service."""

_decorated: dict[str, type[Verifier]] = {}
_allowed: frozenset[str] | None = None
Registered = TypeVar("Registered")
GIVEN = frozenset({"completion", "reference", "prompt", "info"})
"""Keyword arguments available to a function used as a verifier."""


class Kind(NamedTuple):
    """What a file or module that is named alone must define exactly one of."""

    word: str
    base: type
    mark: str
    """Attribute that a decorator sets on a function; "": a class is needed."""


VERIFIER = Kind("verifier", Verifier, "__verifier__")


class VerifierSource(NamedTuple):
    """Name of a verifier, the `module:attribute` it refers to, and the package or process that registered it."""

    name: str
    target: str
    origin: str


def verifier(name: str, *, examples: Sequence[Example] = ()) -> Callable[[Registered], Registered]:
    """Return a decorator that registers a `Verifier` subclass, or a function for `from_function`, under a name.

    The name is known in this process only. Other processes find the verifier by its module, file or entry point.

    Args:
        name: name of the verifier.
        examples: its labelled rows; empty: those of the class.

    Example:
        >>> @verifier("shout")
        ... def shout(*, completion, reference):
        ...     return completion.isupper()
        >>> get_verifier("shout").verify(completion="HI", reference=None).reward
        1.0
    """
    if not isinstance(cast("object", name), str):
        raise UnknownVerifier('@verifier needs a name in parentheses, such as @verifier("shout").')

    def register(given: Registered) -> Registered:
        if isinstance(given, type):
            cls = cast("type[Verifier]", given)
            cls.name = name
        else:
            cls = from_function(cast("Callable[..., bool | float | Verdict]", given), name)
            given.__verifier__ = cls  # pyright: ignore[reportAttributeAccessIssue]
        cls.examples = tuple(examples) or cls.examples
        _decorated[name] = cls
        return given

    return register


def from_function(function: Callable[..., bool | float | Verdict], name: str) -> type[Verifier]:
    """Wrap `function(*, completion, reference[, prompt, info])` as a Verifier class.

    The function returns a bool, a reward in [0, 1] or a Verdict. An asynchronous function grades up to AWAITED_ROWS
    rows concurrently.

    Args:
        function: takes `completion` and any of `reference`, `prompt` and `info`, by keyword.
        name: name of the verifier.
    Raises:
        UnknownVerifier: the function has other required parameters, or does not take `completion`.
    """
    parameters = inspect.signature(function).parameters.values()
    takes_all = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    wanted = {parameter.name for parameter in parameters}
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY, p.POSITIONAL_ONLY)]
    unknown = {p.name for p in named if p.default is p.empty} - GIVEN
    if unknown or not (takes_all or "completion" in wanted):
        trl = " For TRL reward functions of `completions`, use the verifier `trl`." if "completions" in wanted else ""
        raise UnknownVerifier(
            f"{name} must be a function of completion and, optionally, reference, prompt and info; it takes"
            f" {', '.join(sorted(wanted)) or 'nothing'}.{trl}"
        )

    class FunctionVerifier(Verifier):
        """Verifier that calls a plain function."""

        batch_rows = AWAITED_ROWS if inspect.iscoroutinefunction(function) else 0

        @property
        def grades(self) -> bool:
            """True if the function takes more than the completion, which alone cannot be called right."""
            return takes_all or wanted != {"completion"}

        def grade(self, row: GradingRow) -> Verdict:
            return returned_verdict(finished(self._call(row)), name)

        def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
            if not self.batch_rows:
                return super().grade_batch(rows)
            return [returned_verdict(result, name) for result in all_finished(self._call(row) for row in rows)]

        @staticmethod
        def _call(row: GradingRow) -> object:
            given: dict[str, object] = {key: getattr(row, key) for key in GIVEN}
            return function(**{key: value for key, value in given.items() if takes_all or key in wanted})

    FunctionVerifier.name = name
    FunctionVerifier.__doc__ = function.__doc__
    FunctionVerifier.__module__ = function.__module__
    FunctionVerifier.__qualname__ = getattr(function, "__qualname__", name)
    return FunctionVerifier


def returned_verdict(result: object, name: str) -> Verdict:
    """Convert what a function returned into a verdict.

    Raises:
        BadReturn: it is not a bool, a reward in [0, 1] or a Verdict; the message says what to return.
    """
    if isinstance(result, Verdict):
        return result
    wants = "a bool, a reward in [0, 1] or a Verdict"
    number = as_number(result, who=name, wants=wants)
    if isinstance(result, bool):
        return fixed(Outcome.CORRECT if result else Outcome.INCORRECT, f"{name} returned {result}")
    if not 0 <= number <= 1:
        raise BadReturn(
            f"{name} must return {wants}; got {number:g}. Scale it into [0, 1], or return"
            " Verdict(outcome=Outcome.SCORED, reward=...) for rewards of any size"
        )
    return graded(number, f"{name} returned {result}")


def is_plugin(name: str) -> bool:
    """Return True if a verifier is third-party code that the grading workers import.

    False for services behind a URL and for verifiers graded in the caller's process (models, judges).

    Raises:
        UnknownVerifier: there is no such verifier.
    """
    if name in BUILTIN:
        return name in CALLS_PLUGINS
    if name.startswith(URL_SCHEMES) or name.partition(".")[0] in SHIPPED:
        return False
    cls = verifier_class(name)
    return not cls.in_process and cls.__module__.partition(".")[0] not in SHIPPED


def installed() -> list[VerifierSource]:
    """Return every verifier that `get_verifier` finds by name on this machine, sorted by name."""
    found = {name: VerifierSource(name, target, "built in") for name, target in BUILTIN.items()}
    for point in entry_points_of(ENTRY_POINT_GROUP):
        origin = point.dist.name if point.dist else "unknown package"
        found.setdefault(point.name, VerifierSource(point.name, point.value, origin))
    for name, cls in _decorated.items():
        found.setdefault(name, VerifierSource(name, f"{cls.__module__}:{cls.__qualname__}", "this process"))
    return sorted(found.values())


def leads_elsewhere(name: str) -> bool:
    """Return True if a name is a file, a module attribute or a URL, and is not registered."""
    if ":" not in name and not name.endswith(".py"):
        return False
    registered = name in BUILTIN or name in _decorated
    return not registered and all(point.name != name for point in entry_points_of(ENTRY_POINT_GROUP))


def entry_points_of(group: str) -> EntryPoints:
    """Return the entry points of a group. The import is late because it is as slow as all other imports together."""
    from importlib.metadata import entry_points

    return entry_points(group=group)


def restrict(names: Iterable[str]) -> None:
    """Allow only these verifier names in this process from now on; used by a grading service.

    Also applies to parts of composed verifiers, and in the worker processes of this process's pools.
    """
    global _allowed
    _allowed = frozenset(names)


def allowed() -> frozenset[str] | None:
    """Return the names that `restrict` allows; None if it was never called."""
    return _allowed


def get_verifier(name: str, **options: JSON) -> Verifier:
    """Create the verifier with this name: `package.module:attribute`, `path/to/file.py[:attribute]`, a service's URL.

    Args:
        name: registered name, or one of these forms.
        options: keyword arguments of the verifier's class.
    Raises:
        UnknownVerifier: there is no such name (the message suggests the closest one), or it cannot be imported.
        BadOption: an option is unknown or missing, or its value is not accepted.
    """
    if _allowed is not None and name not in _allowed:
        raise UnknownVerifier(f"verifier {name!r} is not served here. Served: {', '.join(sorted(_allowed))}.")
    cls = verifier_class(name)
    refused = cls.machine_options & options.keys() if _allowed is not None else frozenset[str]()
    if refused:
        raise BadOption(f"verifier {name!r}: option {min(refused)!r} can only be set by the operator of the service.")
    given: dict[str, JSON] = {**({"url": name} if name.startswith(URL_SCHEMES) else {}), **options}
    fault = name_fault(cls.__init__, given) or option_fault(cls.__init__, given)
    if fault:
        raise BadOption(f"verifier {name!r}: {fault}.")
    try:
        return cls(**given)
    except VerifierError:
        raise
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise BadOption(f"verifier {name!r}: {error}. It takes: {', '.join(option_names(cls))}.") from error


def option_names(cls: type) -> list[str]:
    """Return the options of a verifier or task class as written in its signature; ["none"] if it has none."""
    parameters = inspect.signature(cls).parameters.values()
    written = [str(p) for p in parameters if p.kind is not p.VAR_KEYWORD]
    return [re.sub(r"^(\w+): '([^']*)'", r"\1: \2", each) for each in written] or ["none"]  # unquote annotations


def importable_target(name: str, decorated: Mapping[str, type] | None = None) -> str:
    """Return a name under which another process finds the same verifier.

    A class that was registered by decorator in this process only is named by its module, or by its file if the module
    is `__main__` or was loaded from a path.
    """
    known: Mapping[str, type] = _decorated if decorated is None else decorated
    if name not in known:
        return name
    cls = known[name]
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    where = file if file and (cls.__module__ == "__main__" or cls.__module__.startswith(PLUGIN_PREFIX)) else None
    return f"{where or cls.__module__}:{cls.__qualname__}"


def verifier_class(name: str) -> type[Verifier]:
    """Return the class of the verifier with this name. A function is wrapped by `from_function`.

    Raises:
        UnknownVerifier: there is no such verifier, or it cannot be imported.
    """
    if name in _decorated:
        return _decorated[name]
    target = REMOTE if name.startswith(URL_SCHEMES) else BUILTIN.get(name)
    target = target or next((point.value for point in entry_points_of(ENTRY_POINT_GROUP) if point.name == name), None)
    if target is None and not leads_elsewhere(name):
        names = [source.name for source in installed()]
        hint = did_you_mean(name, names) + file_hint(name)
        raise UnknownVerifier(f"no verifier named {name!r}.{hint} Installed: {', '.join(names)}.")
    loaded = load_attribute(target or name)
    found: object = getattr(loaded, "__verifier__", loaded)
    if isinstance(found, type) and issubclass(found, Verifier):
        found.name = found.name or name
        return found
    if not callable(loaded):
        raise UnknownVerifier(f"{target or name} must be a Verifier class or a function; got {type(loaded).__name__}")
    return from_function(cast("Callable[..., bool | float | Verdict]", loaded), name)


def file_hint(name: str) -> str:
    """Return a sentence, with a leading space, if a module's name is that of a file of the current folder; else ""."""
    where, sign, attribute = name.partition(":")
    parts = where.split(".")
    if len(name) > LONGEST_NAME or not all(part.isidentifier() for part in parts):
        return ""
    path = Path(*parts).with_suffix(".py")
    return f" The file {path} is named {str(path) + sign + attribute!r}." if path.is_file() else ""


def load_attribute(target: str, kind: Kind = VERIFIER) -> object:
    """Import the object at `package.module:attribute` or `path/to/file.py:attribute`.

    For a file or module without an attribute, the only object of the kind that it defines is returned.

    Raises:
        UnknownVerifier: the module, file or attribute does not exist, a package it imports is not installed, or a file
            or module named alone does not define exactly one object of the kind.
    """
    where, _, attribute = ("", "", "") if target.endswith(".py") else target.rpartition(":")
    where = where or target
    try:
        module = _load_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        if not attribute:
            return _only(module, where, kind)
        found: object = module
        for part in attribute.split("."):
            found = getattr(found, part)
        return found
    except ModuleNotFoundError as error:
        missing = error.name or "?"
        if where == missing or where.startswith(f"{missing}."):
            hint = file_hint(target)
            raise UnknownVerifier(f"cannot load {target!r}: {error}{'.' if hint else ''}{hint}") from error
        raise UnknownVerifier(
            f"cannot load {target!r}: it needs {missing.partition('.')[0]!r}, which is not installed (pip install it)."
        ) from error
    except (ImportError, FileNotFoundError, AttributeError, SyntaxError) as error:
        raise UnknownVerifier(f"cannot load {target!r}: {error}") from error


def _only(module: ModuleType, where: str, kind: Kind) -> object:
    own = [
        found
        for found in vars(module).values()
        if getattr(found, "__module__", None) == module.__name__
        and (hasattr(found, kind.mark) or (isinstance(found, type) and issubclass(found, kind.base)))
    ]
    if len(own) != 1:
        names = ", ".join(str(getattr(found, "__name__", "?")) for found in own) or "none"
        raise UnknownVerifier(f"{where} must define exactly one {kind.word}; found {names}. Name one: {where}:NAME.")
    return own[0]


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    import hashlib

    stamp = f"{path.resolve()} {path.stat().st_mtime_ns}"
    name = f"{PLUGIN_PREFIX}{path.stem}_{hashlib.blake2b(stamp.encode(), digest_size=6).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
