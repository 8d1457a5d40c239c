"""Verifiers by name: built in, by entry point, by `module:attribute`, by file path."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, TypeVar, cast

from verifiers.base import GradingRow, Verifier
from verifiers.errors import BadOption, UnknownVerifier
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

ENTRY_POINT_GROUP = "reasoner.verifiers"

BUILTIN: Mapping[str, str] = {
    "code": "verifiers.code.verifier:Code",
    "countdown": "verifiers.countdown:CountdownVerifier",
    "exact": "verifiers.simple:Exact",
    "format": "verifiers.simple:Format",
    "math": "verifiers.math_verifier:Math",
    "math-verify": "verifiers.math_verify:MathVerify",
}
"""Name to `module:class`, imported on first use."""

_decorated: dict[str, type[Verifier]] = {}
VerifierClass = TypeVar("VerifierClass", bound=type[Verifier])


class VerifierSource(NamedTuple):
    """Where a name leads."""

    name: str
    target: str
    origin: str


def verifier(name: str) -> Callable[[VerifierClass], VerifierClass]:
    """Register a `Verifier` subclass under a name (in this process; use an entry point for every process)."""

    def register(cls: VerifierClass) -> VerifierClass:
        cls.name = name
        _decorated[name] = cls
        return cls

    return register


def from_function(function: Callable[..., bool | float | Verdict], name: str) -> type[Verifier]:
    """Wrap `function(*, completion, reference[, prompt, info])` -> bool, reward in [0, 1] or Verdict."""
    wanted = set(inspect.signature(function).parameters)

    class FunctionVerifier(Verifier):
        """A plain function as a verifier."""

        def grade(self, row: GradingRow) -> Verdict:
            given: dict[str, object] = {
                "completion": row.completion,
                "reference": row.reference,
                "prompt": row.prompt,
                "info": row.info,
            }
            result = function(**{key: value for key, value in given.items() if key in wanted})
            if isinstance(result, Verdict):
                return result
            if isinstance(result, bool):
                return fixed(Outcome.CORRECT if result else Outcome.INCORRECT, f"{name} returned {result}")
            return graded(float(result), f"{name} returned {result}")

    FunctionVerifier.name = name
    FunctionVerifier.__doc__ = function.__doc__
    return FunctionVerifier


def installed() -> list[VerifierSource]:
    """Every name that `get_verifier` takes on this machine, sorted."""
    found = {name: VerifierSource(name, target, "built in") for name, target in BUILTIN.items()}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        origin = point.dist.name if point.dist else "unknown package"
        found.setdefault(point.name, VerifierSource(point.name, point.value, origin))
    for name, cls in _decorated.items():
        found.setdefault(name, VerifierSource(name, f"{cls.__module__}:{cls.__qualname__}", "this process"))
    return sorted(found.values())


def get_verifier(name: str, **options: JSON) -> Verifier:
    """The verifier under a name, `package.module:attribute` or `path/to/file.py:attribute`.

    Raises:
        UnknownVerifier: no such name; the message suggests the closest.
        BadOption: the verifier does not take one of the options.
    """
    cls = _resolve(name)
    try:
        return cls(**options)
    except TypeError as error:
        parameters = [p for p in inspect.signature(cls).parameters if p != "self"]
        raise BadOption(f"verifier {name!r}: {error}. It takes: {', '.join(parameters) or 'no options'}.") from error


def importable_target(name: str) -> str:
    """A name that another process resolves to the same verifier.

    A verifier that was only decorated in this process is named by its module, or by its file where that is `__main__`.
    """
    if name not in _decorated:
        return name
    cls = _decorated[name]
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    where = file if file and (cls.__module__ == "__main__" or cls.__module__.startswith("_reasoner_plugin_")) else None
    return f"{where or cls.__module__}:{cls.__qualname__}"


def _resolve(name: str) -> type[Verifier]:
    if name in _decorated:
        return _decorated[name]
    target = BUILTIN.get(name) or next(
        (point.value for point in entry_points(group=ENTRY_POINT_GROUP) if point.name == name), None
    )
    if target is None and ":" not in name:
        names = [source.name for source in installed()]
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownVerifier(f"no verifier named {name!r}.{hint} Installed: {', '.join(names)}.")
    found = load_attribute(target or name)
    if isinstance(found, type) and issubclass(found, Verifier):
        found.name = found.name or name
        return found
    if callable(found):
        return from_function(cast("Callable[..., bool | float | Verdict]", found), name)
    raise UnknownVerifier(f"{target or name} must be a Verifier class or a function; got {type(found).__name__}")


def load_attribute(target: str) -> object:
    """The object at `package.module:attribute` or `path/to/file.py:attribute`.

    Raises:
        UnknownVerifier: the module, file or attribute is not there.
    """
    where, _, attribute = target.rpartition(":")
    try:
        module = _load_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        return cast("object", getattr(module, attribute))
    except (ModuleNotFoundError, FileNotFoundError, AttributeError) as error:
        raise UnknownVerifier(f"cannot load {target!r}: {error}") from error


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    name = f"_reasoner_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
