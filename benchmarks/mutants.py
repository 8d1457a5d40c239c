"""How many small faults in the numeric core the unit tests find. Prints JSON.

A mutant is a module with one operator, constant, `not` or returned value changed. Each runs the unit tests of its room
alone, in a copy of the repository, until the first test fails or the time is up: the mutant is killed. One that passes
them all survives, and is named with its line: a test is missing, or the change makes no difference.

    python benchmarks/mutants.py                                    # every module; hours
    python benchmarks/mutants.py reasoner/algorithm/kl.py --sample 20 --seed 1 --workers 2
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ALGORITHM = tuple(
    f"tests/unit/reasoner/algorithm/test_{name}.py"
    for name in ("loss", "advantage", "token_weights", "pairwise", "golden")
)
TESTS: dict[str, tuple[str, ...]] = {
    **{
        f"reasoner/algorithm/{name}.py": ALGORITHM
        for name in ("loss", "kl", "importance", "advantage", "group_baselines", "token_weights")
    },
    "reasoner/data/sampler.py": ("tests/unit/reasoner/data/test_sampler.py", "tests/unit/reasoner/data"),
    "verifiers/registry.py": ("tests/unit/verifiers/test_registry.py", "tests/unit/verifiers/test_compose.py"),
    "verifiers/verdict.py": ("tests/unit/verifiers/test_verdict.py", "tests/unit/verifiers/test_compose.py"),
}
"""Module and the tests of its room, each in a process of its own until one fails: the quickest first."""
LEAST_SECONDS = 30.0
TIMES = 4.0
"""A mutant has this many times as long as all tests took without a fault, and at least LEAST_SECONDS."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


class Mutant(NamedTuple):
    """One changed expression of a file."""

    line: int
    start: int
    end: int
    """Bytes of the source that the new text replaces."""
    old: str
    new: str

    @property
    def change(self) -> str:
        """In one line."""
        return f"{' '.join(self.old.split())} -> {self.new}"

    def of(self, source: str) -> str:
        """The source with the change."""
        data = source.encode()
        return (data[: self.start] + self.new.encode() + data[self.end :]).decode()


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines.

    Annotations, strings and errors are left as they are.
    """
    offsets = [0]
    for line in source.encode().splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    found: list[Mutant] = []
    for node, changed in _changes(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start, end = offsets[node.lineno - 1] + node.col_offset, offsets[node.end_lineno - 1] + node.end_col_offset
        old, new = source.encode()[start:end].decode(), ast.unparse(changed)
        found.append(Mutant(node.lineno, start, end, old, f"({new})" if isinstance(node, ast.expr) else new))
    return sorted(found)


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, ast.AST]]:
    """Nodes of a tree, each with what takes its place."""
    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                operators = [*node.ops]
                operators[place] = COMPARISONS[type(operator)]()
                yield node, ast.Compare(node.left, operators, node.comparators)
        case ast.BinOp() if type(node.op) in OPERATORS:
            yield node, ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        case ast.BoolOp():
            yield node, ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node, node.operand
        case ast.Constant(value=bool()):
            yield node, ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield node, ast.Constant(node.value + 1)
        case ast.Return(value=ast.expr()) if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            yield node, ast.Return(ast.Constant(None))
        case _:
            pass
    for part in _parts(node):
        yield from _changes(part)


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """The children of a node that decide what the program does."""
    if isinstance(node, ast.Raise | ast.JoinedStr):  # what is only said
        return
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns"):
            yield from (part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST))


class Tree:
    """A copy of the repository's files, where mutants run one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def run(self, module: str, source: str, tests: Sequence[str], seconds: float) -> int | None:
        """Exit status of the first tests that fail on a source of the module, 0 where none do; None: time was up."""
        file = self.folder / module
        original = file.read_text()
        file.write_text(source)
        deadline = time.monotonic() + seconds
        try:
            for test in tests:
                status = self._pytest(test, deadline - time.monotonic())
                if status != 0:
                    return status
            return 0
        finally:
            file.write_text(original)

    def _pytest(self, test: str, seconds: float) -> int | None:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
        # without bytecode: a mutant may have the size and the second of the one before it
        settings = {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        with (self.folder / "mutant.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=self.folder, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
            )
            try:
                return process.wait(max(0.0, seconds))
            except subprocess.TimeoutExpired:
                return None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def measure(module: str, chosen: Sequence[Mutant], trees: Sequence[Tree]) -> dict[str, object]:
    """What became of some mutants of a module.

    Raises:
        SystemExit: its tests fail without a fault.
    """
    source, tests = (ROOT / module).read_text(), TESTS[module]
    started = time.monotonic()
    if trees[0].run(module, source, tests, 1800) != 0:
        said = (trees[0].folder / "mutant.log").read_text()[-3000:]
        raise SystemExit(f"{module}: {' '.join(tests)} must pass without a fault.\n{said}")
    seconds = time.monotonic() - started
    free: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    for tree in trees:
        free.put(tree)

    def status(mutant: Mutant) -> int | None:
        tree = free.get()
        try:
            found = tree.run(module, mutant.of(source), tests, max(LEAST_SECONDS, TIMES * seconds))
        finally:
            free.put(tree)
        said = {None: "time is up", 0: "survived"}.get(found, "killed")
        print(f"{module}:{mutant.line} {said}: {mutant.change}", file=sys.stderr, flush=True)
        return found

    with ThreadPoolExecutor(len(trees)) as pool:
        outcomes = list(zip(chosen, pool.map(status, chosen), strict=True))
    return {
        "tried": len(outcomes),
        "killed": sum(found != 0 for _, found in outcomes),
        "timed_out": sum(found is None for _, found in outcomes),
        "survived": [
            {"where": f"{module}:{mutant.line}", "change": mutant.change} for mutant, found in outcomes if found == 0
        ],
        "seconds_of_tests": round(seconds, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TESTS)}; default: all")
    parser.add_argument("--sample", type=int, help="mutants of each module, drawn at random; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    unknown = set(options.modules) - set(TESTS)
    if unknown:
        parser.error(f"no tests are named for {', '.join(sorted(unknown))}")
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [Tree(Path(folder) / str(number)) for number in range(options.workers)]
        for module in options.modules or TESTS:
            made = mutants((ROOT / module).read_text())
            chosen = made
            if options.sample is not None and options.sample < len(made):
                chosen = sorted(random.Random(f"{options.seed} {module}").sample(made, options.sample))
            found[module] = {"made": len(made), **measure(module, chosen, trees)}
    print(json.dumps({"sample": options.sample, "seed": options.seed, "modules": found}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
