"""Choice of a completion's program among its fenced blocks: one block, plus imports and helpers of others."""

from __future__ import annotations

import ast
import builtins
import re
import symtable
from collections.abc import Collection, Sequence
from dataclasses import dataclass

READS = re.compile(
    r"\binput\s*\(|\bsys\.(?:__)?stdin(?:__)?(?!\w|\s*=(?!=))|(?<![\w.])stdin\b(?!\s*=)|\bopen\(\s*(?:0\b|['\"]/dev/stdin)"
    r"|\bfileinput\b|\bos\.read\(\s*0\b|\bopen\(\s*['\"]input"
)
FED = re.compile(
    r"\bstdin\s*=\s*(?:io\.)?(?:StringIO|TextIOWrapper)\(\s*[a-z]{0,2}['\"]|\bpatch\w*\(.{0,80}(?:stdin|input)"
)
PRINTS = re.compile(
    r"\bprint\b|\bstdout\b|\bos\.write\b|\bopen\(\s*(?:1\b|['\"]output|['\"]/dev/stdout)|\bwritelines\b"
)
TESTS = re.compile(r"\bsubprocess\b|\bos\.(?:system|popen)\b|\bpytest\b|\bunittest\b|\bdoctest\b|\btimeit\b")
SETTINGS = (
    "setrecursionlimit",
    "setrlimit",
    "stack_size",
    "set_int_max_str_digits",
    "seed",
    "filterwarnings",
    "setcontext",
)
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.AugAssign)
MOST_BLOCKS = 32
"""Most blocks of one completion that are examined, counted from the end if the last one is wanted."""
BUILT_IN = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}


@dataclass(frozen=True)
class Piece:
    """Analysis of a Python block: what it defines and uses at its top level, found without running it."""

    code: str
    parses: bool = False
    defines: frozenset[str] = frozenset()
    functions: frozenset[str] = frozenset()
    """Its functions and classes, a part of `defines`."""
    uses: frozenset[str] = frozenset()
    """Global names that it uses but does not define."""
    star: bool = False
    """True if it has a star import."""
    runs: bool = False
    """True if it does something besides defining names."""
    reads: bool = False
    """True if its text reads standard input (or `input.txt`)."""
    prints: bool = False
    tests: bool = False
    """True if it tests a program instead of being one."""

    @property
    def speaks(self) -> bool:
        """True if running it would print."""
        return self.runs and self.prints


def chosen_program(blocks: Sequence[str], *, last: bool, wanted: Collection[str] = (), reads: bool = False) -> str:
    """Return the program among Python blocks, preceded by the helpers that it needs from other blocks.

    - With `wanted` names, it is the last (or first) block that defines one of them. Otherwise it is the last one that
      runs and prints (and reads, if there is something to read) and does not merely test the program of another block.
    - A block that supplies a missing global name is added, unless it is a program of its own: it defines a wanted name,
      prints when it runs, or has functions that nobody uses.

    Args:
        blocks: at least one, in order.
        last: True: the last suitable block; False: the first.
        wanted: names of which the program has to define one; empty for a program that is run as it is.
        reads: True if such a program has something to read.
    """
    pieces = [look(block) for block in (blocks[-MOST_BLOCKS:] if last else blocks[:MOST_BLOCKS])]
    order = [*reversed(range(len(pieces)))] if last else [*range(len(pieces))]
    if wanted:
        able = [at for at in order if defines(pieces[at].code, wanted)]
        return _joined(pieces, able[0], wanted)[0] if able else pieces[order[0]].code
    for strict in (True, False):
        for at in order:
            program, complete = _joined(pieces, at, wanted)
            whole = look(program)
            if complete and whole.speaks and (whole.reads or not reads) and not (strict and whole.tests):
                return program
    return _joined(pieces, order[0], wanted)[0]


DEFINED = re.compile(r"^(?:(?:async[ \t]+)?def|class)[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]*)?=(?!=)", re.MULTILINE)


def defines(code: str, names: Collection[str]) -> bool:
    """Return True if a program itself defines one of the names at its top level.

    Example:
        >>> defines("def f(x): return x", ["f", "g"]), defines("print(f(1))", ["f"])
        (True, False)
    """
    found = DEFINED.finditer(code)
    return any((match.group(1) or match.group(2)) in names for match in found)


def look(code: str) -> Piece:
    """Analyse a block without running it. If it does not parse, only its text is searched for reads, prints and tests.

    Example:
        >>> piece = look("import math\\ndef f(x): return g(math.pi)")
        >>> sorted(piece.defines), sorted(piece.uses), piece.runs
        (['f', 'math'], ['g'], False)
    """
    reads = READS.search(code) is not None and FED.search(code) is None
    prints, tests = PRINTS.search(code) is not None, TESTS.search(code) is not None
    try:
        tree = ast.parse(code)
        top = symtable.symtable(code, "block.py", "exec")
        tables = [top]
        for table in tables:
            tables += table.get_children()
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Piece(code, runs=True, reads=reads, prints=prints, tests=tests)
    defined = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
    used: set[str] = set()
    for table in tables:
        for symbol in table.get_symbols():
            if table is top or symbol.is_global():
                used |= {symbol.get_name()} if symbol.is_referenced() else set()
                defined |= {symbol.get_name()} if table is not top and symbol.is_assigned() else set()
    return Piece(
        code,
        parses=True,
        defines=frozenset(defined),
        functions=frozenset(node.name for node in tree.body if isinstance(node, DEFINITIONS[2:])),
        uses=frozenset(used - defined - BUILT_IN),
        star=any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in tree.body),
        runs=not all(map(_only_defines, tree.body)),
        reads=reads,
        prints=prints,
        tests=tests or any(isinstance(node, ast.Assert) for node in tree.body),
    )


def _only_defines(node: ast.stmt) -> bool:
    """Return True if a top-level statement only defines names or changes settings such as the recursion limit."""
    if isinstance(node, (*DEFINITIONS, *ASSIGNMENTS, ast.Pass)):
        return True
    if not isinstance(node, ast.Expr):
        return False
    if isinstance(node.value, ast.Call):
        called = node.value.func
        return (called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")) in SETTINGS
    return isinstance(node.value, ast.Constant)


def _joined(pieces: Sequence[Piece], at: int, wanted: Collection[str]) -> tuple[str, bool]:
    """Return a block preceded by its helpers, and True if no other block defines a name that is still missing."""
    program = pieces[at]
    if not program.parses:
        return program.code, True
    needed = set(program.uses)
    helpers: set[int] = set()
    nearest = [*reversed(range(at)), *range(at + 1, len(pieces))]
    while True:
        helper = next(
            (j for j in nearest if j not in helpers and _helps(pieces[j], needed, wanted, before=j < at)), None
        )
        if helper is None:
            break
        helpers.add(helper)
        needed = (needed - pieces[helper].defines) | (pieces[helper].uses - program.defines)
        needed -= {name for j in helpers for name in pieces[j].defines}
    if needed:
        stars = {j for j in range(at) if pieces[j].star and not (pieces[j].functions or pieces[j].runs)}
        helpers |= stars
        needed = {name for name in needed if not stars}
    elsewhere = {name for j, piece in enumerate(pieces) if j != at and j not in helpers for name in piece.defines}
    code = "\n".join([*(pieces[j].code.rstrip("\n") for j in sorted(helpers)), program.code])
    return code, not needed & elsewhere


def _helps(piece: Piece, needed: Collection[str], wanted: Collection[str], *, before: bool) -> bool:
    """Return True if a block supplies a needed name and is not a program of its own."""
    if not piece.parses or piece.defines.isdisjoint(needed) or not piece.defines.isdisjoint(wanted):
        return False
    if piece.functions and piece.functions.isdisjoint(needed):
        return False
    return not piece.runs or (before and not piece.prints and not piece.tests)
