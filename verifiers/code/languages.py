"""Table of the languages that programs may be written in; a config can change its rows and add new ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from verifiers.code.fences import PYTHON
from verifiers.errors import BadOption
from verifiers.suggest import did_you_mean
from verifiers.verdict import JSON

PLACEHOLDER = re.compile(r"\{(\w+)\}")
JAVA_HEAP = "-Xmx{heap_mb}m"
JAVA = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:CompressedClassSpaceSize=64m",
    "-XX:ReservedCodeCacheSize=64m",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """Row of the table: how a program in this language is found, compiled and run.

    Example:
        >>> LANGUAGES["cpp"].command(LANGUAGES["cpp"].run, source="int main() {}", memory_mb=512)
        ('./main',)
    """

    fences: tuple[str, ...]
    """Labels of its fences, in lower case, without a version number (`c++17` is `c++`)."""
    file: str
    """Name of the program's file."""
    run: tuple[str, ...]
    """Command that runs the program for one case, in the folder of its files."""
    compile: tuple[str, ...] = ()
    """Command that compiles the program, once; empty: no compilation. `{sources}` is the program's file and the
    reference's files with the same suffix; `{heap_mb}` is three quarters of the memory limit; `{NAME}` is what the
    pattern NAME finds."""
    system: tuple[str, ...] = ()
    """Debian packages that these commands need."""
    whole: str = ""
    """Pattern of a complete program: blocks that match are preferred to blocks that do not."""
    patterns: Mapping[str, str] = field(default_factory=dict[str, str])
    """Placeholder -> pattern whose first group is its value; `Main` if the program does not match."""
    compile_seconds: float = 30.0
    """CPU seconds for compiling."""
    stack_mb: int = 64
    """Stack of a program's main thread in MiB, limited by its memory."""
    address_mb: int = 1024
    """Address space beyond twice its memory, in MiB: virtual machines reserve much more than they use."""

    def command(
        self, parts: tuple[str, ...], *, source: str, memory_mb: int, sources: tuple[str, ...] = ()
    ) -> tuple[str, ...]:
        """Return a command with its placeholders filled in.

        Args:
            parts: command of this row.
            source: of the program, searched by `patterns`.
            memory_mb: memory limit in MiB.
            sources: files to compile.
        """
        known = {"heap_mb": str(memory_mb * 3 // 4)}

        def filled(match: re.Match[str]) -> str:
            name = match[1]
            if name in self.patterns:
                found = re.search(self.patterns[name], source, re.DOTALL | re.MULTILINE)
                return found[1] if found else "Main"
            return known.get(name, match[0])

        found: list[str] = []
        for part in parts:
            found += sources if part == "{sources}" else [PLACEHOLDER.sub(filled, part)]
        return tuple(found)


LANGUAGES: Mapping[str, Language] = {
    "python": Language(fences=PYTHON, file="main.py", run=("python3", "-B", "main.py")),
    "cpp": Language(
        fences=("cpp", "c++", "cc", "cxx", "cplusplus", "gnu++"),
        file="main.cpp",
        compile=("g++", "-O2", "-std=gnu++17", "-pipe", "-w", "-DONLINE_JUDGE", "-o", "main", "{sources}"),
        run=("./main",),
        system=("g++",),
        whole=r"\bmain\s*\(",
        stack_mb=256,
    ),
    "c": Language(
        fences=("c",),
        file="main.c",
        compile=("gcc", "-O2", "-std=gnu17", "-pipe", "-w", "-DONLINE_JUDGE", "-o", "main", "{sources}", "-lm"),
        run=("./main",),
        system=("gcc", "libc6-dev"),
        whole=r"\bmain\s*\(",
        stack_mb=256,
    ),
    "java": Language(
        fences=("java",),
        file="{public}.java",
        compile=("javac", "-J-Xmx512m", *(f"-J{part}" for part in JAVA), "-nowarn", "-d", ".", "{sources}"),
        run=("java", JAVA_HEAP, "-Xss64m", *JAVA, "-Xshare:auto", "-cp", ".", "{main}"),
        system=("default-jdk-headless",),
        address_mb=4096,
        whole=r"\bvoid\s+main\s*\(",
        patterns={
            "public": r"^\s*public\s+(?:(?:final|abstract|strictfp)\s+)?(?:class|record|interface|enum)\s+(\w+)",
            "main": r"\bclass\s+(\w+)(?:(?!\bclass\s).)*?\bvoid\s+main\s*\(",
        },
    ),
    "javascript": Language(
        fences=("javascript", "js", "node", "nodejs", "mjs", "cjs"),
        file="main.js",
        run=("node", "main.js"),
        system=("nodejs",),
    ),
    "go": Language(
        fences=("go", "golang"),
        file="main.go",
        compile=(
            "env",
            "GOCACHE=/tmp/go",
            "GOFLAGS=-p=1",
            "CGO_ENABLED=0",
            "GO111MODULE=off",
            "go",
            "build",
            "-o",
            "main",
            "{sources}",
        ),
        run=("./main",),
        system=("golang-go",),
        whole=r"\bfunc\s+main\s*\(",
        compile_seconds=60.0,
    ),
    "rust": Language(
        fences=("rust", "rs"),
        file="main.rs",
        compile=("rustc", "-O", "--edition", "2021", "-A", "warnings", "-C", "linker=gcc", "-o", "main", "{program}"),
        run=("./main",),
        system=("rustc", "gcc", "libc6-dev"),
        whole=r"\bfn\s+main\s*\(",
    ),
    "bash": Language(
        fences=("bash", "sh", "shell"),
        file="main.sh",
        run=("bash", "main.sh"),
        system=("bash", "coreutils", "grep", "sed", "mawk"),
    ),
}
"""Name -> row."""


def language_named(name: str, rows: Mapping[str, JSON] | None = None) -> Language:
    """Return a language of the table, with a config's changes and additions.

    Args:
        name: of a row.
        rows: name -> changed fields of the row with that name. A new row needs `file` and `run`; without `fences` its
            name is its label.

    Raises:
        BadOption: there is no such row, or a field is unknown or has a wrong type.
    """
    given = rows or {}
    table = {**LANGUAGES, **{key: _row(key, row) for key, row in given.items()}}
    if name not in table:
        raise BadOption(f"language must be one of {', '.join(table)}; got {name!r}.{did_you_mean(name, [*table])}")
    return table[name]


_TUPLES = ("fences", "run", "compile", "system")
_KINDS: Mapping[str, tuple[type, ...]] = {
    "file": (str,),
    "whole": (str,),
    "patterns": (dict,),
    "compile_seconds": (int, float),
    "stack_mb": (int,),
    "address_mb": (int,),
}


def _row(name: str, row: JSON) -> Language:
    known = [column.name for column in fields(Language)]
    if not isinstance(row, dict):
        raise BadOption(f"languages: {name} must be an object of {', '.join(known)}; got {row!r:.80}.")
    changed: dict[str, object] = {}
    for key, value in row.items():
        if key not in known:
            raise BadOption(f"languages: {name} has no {key!r}.{did_you_mean(key, known)} It takes {', '.join(known)}.")
        if key in _TUPLES:
            if not isinstance(value, list) or not all(isinstance(part, str) and part for part in value):
                raise BadOption(f"languages: {name}: {key} must be a list of texts; got {value!r:.80}.")
            changed[key] = tuple(str(part) for part in value)
        elif not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise BadOption(f"languages: {name}: {key} must be {_KINDS[key][-1].__name__}; got {value!r:.80}.")
        else:
            changed[key] = value
    for key, pattern in [("whole", changed.get("whole", "")), *dict(changed.get("patterns", {})).items()]:  # type: ignore[call-overload]
        try:
            re.compile(str(pattern))
        except re.error as error:
            raise BadOption(f"languages: {name}: {key} is not a regular expression: {error}.") from None
    if name in LANGUAGES:
        return replace(LANGUAGES[name], **changed)  # type: ignore[arg-type]
    missing = [key for key in ("file", "run") if not changed.get(key)]
    if missing:
        raise BadOption(f"languages: {name} is a new language and needs {missing[0]}.")
    return Language(**{"fences": (name,), **changed})  # type: ignore[arg-type]
