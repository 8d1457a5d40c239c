"""Mutation score of the numerics: the share of small planted faults that a module's own unit tests find. Prints JSON.

A mutant is the module with one operator, comparison, constant, keyword or decorator changed. The module's unit tests
run against it until one fails (killed), the time limit is reached (timeout) or all pass (survived). A survivor shows
a missing test, or is equivalent to the module: those are listed with their reason in `mutation_equivalent.toml`.
Exit status 1 if a survivor is not listed, or an entry of the list matches no mutant.

Cosmic Ray generates the mutants: it changes a whole module, including tables at module level and properties, and its
operators can be chosen one by one, so that messages and annotations are left out. The tests run in a fork of a
process that has already imported torch and the other packages: half a second of CPU time per killed mutant instead
of ten.

    pip install cosmic-ray==8.7.0                                # needed only by this program
    python benchmarks/mutation.py                                # every module: some 1,270 mutants
    python benchmarks/mutation.py reasoner/algorithm/kl.py --workers 2 > kl.json
    python benchmarks/mutation.py --survivors-of kl.json         # only those that survived
    python benchmarks/mutation.py --sample 50 --seed 1           # 50 mutants of each module, drawn at random
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
EQUIVALENT = Path(__file__).with_name("mutation_equivalent.toml")
ALGORITHM = "tests/unit/reasoner/algorithm"
GOLDEN, TRUNCATED = f"{ALGORITHM}/test_golden.py", f"{ALGORITHM}/test_mask_truncated.py"
DEFAULTS = f"{ALGORITHM}/test_defaults.py"
POLICY = "tests/unit/reasoner/policy/test_policy.py"
VALUE = "tests/unit/reasoner/policy/test_value.py"
CONFIG = "tests/unit/reasoner/config"
VERIFIERS = "tests/unit/verifiers"

TESTS: Mapping[str, Sequence[str]] = {
    "reasoner/algorithm/row_sums.py": (f"{ALGORITHM}/test_row_sums.py", f"{ALGORITHM}/test_loss.py"),
    "reasoner/algorithm/token_weights.py": (f"{ALGORITHM}/test_token_weights.py", DEFAULTS),
    "reasoner/algorithm/kl.py": (f"{ALGORITHM}/test_loss.py", DEFAULTS),
    "reasoner/algorithm/importance.py": (f"{ALGORITHM}/test_loss.py", DEFAULTS),
    "reasoner/algorithm/group_baselines.py": (DEFAULTS, f"{ALGORITHM}/test_advantage.py"),
    "reasoner/algorithm/advantage.py": (
        DEFAULTS,
        f"{ALGORITHM}/test_advantage.py",
        f"{VALUE}::test_gae_equals_a_double_sum_in_numpy",
        f"{VALUE}::test_kl_in_the_reward_of_gae_is_taken_off_each_token",
    ),
    "reasoner/algorithm/pairwise.py": (DEFAULTS, f"{ALGORITHM}/test_pairwise.py"),
    "reasoner/algorithm/loss.py": (
        f"{ALGORITHM}/test_policy_loss.py",
        f"{ALGORITHM}/test_loss.py",
        f"{VALUE}::test_clipped_value_loss_equals_numpy_in_value_and_gradient",
        f"{VALUE}::test_explained_variance_of_the_values_before_the_step",
        GOLDEN,
    ),
    "reasoner/algorithm/batch.py": (
        f"{ALGORITHM}/test_batch.py",
        TRUNCATED,
        f"{POLICY}::test_select_renumbers_rows_and_keeps_tokens",
        f"{POLICY}::test_micro_batches_hold_every_row_once_within_the_budget",
        f"{POLICY}::test_portions_of_a_step_have_the_gradient_of_the_whole",
    ),
    "reasoner/algorithm/kl_control.py": (
        f"{ALGORITHM}/test_kl_control.py",
        TRUNCATED,
        f"{VALUE}::test_kl_in_the_reward_of_a_group_estimator_is_taken_off_each_completion",
        f"{VALUE}::test_kl_in_the_reward_of_gae_is_taken_off_each_token",
        f"{VALUE}::test_the_coefficient_follows_its_target_and_survives_a_checkpoint",
        f"{VALUE}::test_a_budget_knows_the_last_policy_within_it",
    ),
    "reasoner/algorithm/objective.py": (
        f"{ALGORITHM}/test_objective.py",
        f"{CONFIG}/test_stage.py::test_a_wrong_algorithm_is_refused_before_the_model_is_loaded",
        f"{CONFIG}/test_no_effect.py::test_a_loss_without_a_gradient_is_refused",
        f"{CONFIG}/test_no_effect.py::test_a_loss_with_one_passes",
        f"{CONFIG}/test_stage.py::test_every_algorithm_passes_its_check",
        GOLDEN,
    ),
    "reasoner/data/sampler.py": ("tests/unit/reasoner/data/test_sampler.py",),
    "verifiers/verdict.py": (f"{VERIFIERS}/test_verdict_limits.py", f"{VERIFIERS}/test_verdict.py"),
    "verifiers/compose.py": (
        f"{VERIFIERS}/test_compose_parts.py",
        f"{VERIFIERS}/test_compose.py",
        f"{VERIFIERS}/test_alternatives.py",
    ),
    "verifiers/registry.py": (
        f"{VERIFIERS}/test_registry_bounds.py",
        f"{VERIFIERS}/test_registry.py",
        f"{VERIFIERS}/test_plugins.py",
    ),
}
"""Unit tests of each module, the fastest first."""

OPERATORS = (
    # one replacement of the same kind; most of Cosmic Ray's eleven per operator only raise a TypeError
    *(
        f"ReplaceBinaryOperator_{one}_{other}"
        for one, other in (
            ("Add", "Sub"),
            ("Sub", "Add"),
            ("Mul", "Div"),
            ("Div", "Mul"),
            ("FloorDiv", "Mul"),
            ("Mod", "Mul"),
            ("Pow", "Mul"),
            ("BitAnd", "BitOr"),
            ("BitOr", "BitAnd"),
            ("LShift", "RShift"),
        )
    ),
    # only the boundary changes; `AddNot` gives the opposite
    *(
        f"ReplaceComparisonOperator_{one}_{other}"
        for one, other in (
            ("Lt", "LtE"),
            ("LtE", "Lt"),
            ("Gt", "GtE"),
            ("GtE", "Gt"),
            ("Eq", "NotEq"),
            ("NotEq", "Eq"),
            ("Is", "IsNot"),
            ("IsNot", "Is"),
        )
    ),
    "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Invert",
    "ReplaceUnaryOperator_Delete_Not",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "NumberReplacer",
    "RemoveDecorator",
    "ZeroIterationForLoop",
    "ExceptionReplacer",
)
"""Cosmic Ray's operators that are used; `_membership` adds one."""
OWN_PACKAGES = frozenset({"reasoner", "verifiers", "tasks", "sandbox"})
TIMES, LEAST_SECONDS = 5.0, 20.0
"""CPU time limit of a mutant: TIMES the CPU time of its tests on the unchanged module, at least LEAST_SECONDS."""
WALL = 10.0
"""Wall-clock seconds allowed per CPU second, since the machine may be busy."""


class Mutant(NamedTuple):
    """A module with one change."""

    module: str
    line: int
    function: str
    """Innermost function or class of the change; empty at module level."""
    old: str
    new: str
    """Changed lines, without indentation."""
    source: str
    """Text of the whole changed module."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Identity of the change, independent of its line number."""
        return self.module, self.function, self.old, self.new


# ------------------------------------------------------------------------------------------------------- mutants


def mutants(module: str, source: str) -> list[Mutant]:
    """Return all distinct mutants of a module, in order of lines.

    Left out are changes of annotations, of `*` and `/` in signatures and of the arguments of raised exceptions, and a
    `not` before a comparison whose opposite another operator generates.
    """
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator

    tree, silent = get_ast(source), _silent(source)
    nodes = list(ast_nodes(tree))
    found: dict[str, Mutant] = {}
    for operator in (*(get_operator(f"core/{name}")() for name in OPERATORS), _membership()):
        for node in nodes:
            for index, (start, _) in enumerate(list(operator.mutation_positions(node))):
                if any(first <= start < last for first, last in silent) or _repeated(operator, node):
                    continue
                changed = _changed(operator, node, index)
                with contextlib.suppress(SyntaxError):
                    ast.parse(changed)
                    line, old, new = _difference(source, changed)
                    found[changed] = Mutant(module, line, _function_at(source, start[0]), old, new, changed)
    assert tree.get_code() == source
    return sorted(found.values())


def _changed(operator: Any, node: Any, index: int) -> str:
    """Return the text of the module with one node changed, and restore the tree."""
    from cosmic_ray.ast import ast_nodes

    root, around = node.get_root_node(), [*node.parent.children]
    saved = [
        (each, name, [*value] if isinstance(value, list) else value)
        for each in ast_nodes(node)
        for name in ("children", "value")
        if (value := getattr(each, name, None)) is not None
    ]
    try:
        changed = operator.mutate(node, index)
        node.parent.children = [one for old in around if (one := changed if old is node else old) is not None]
        return root.get_code()
    finally:
        for each, name, value in saved:
            setattr(each, name, value)
        node.parent.children = around


def _repeated(operator: Any, node: Any) -> bool:
    """Return True for a `*` or `/` between parameters, and for a `not` before a single `is`, `in` or `==`."""
    if getattr(node.parent, "type", "") == "parameters":
        return True
    if type(operator).__name__ != "AddNot":
        return False
    condition = node.children[2 if node.type == "test" else 1]
    return (
        condition.type == "comparison"
        and len(condition.children) == 3
        and condition.children[1].get_code().strip() in ("is", "is not", "in", "not in", "==", "!=")
    )


def _silent(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the spans (line, column) of annotations and of the arguments of raised exceptions."""
    spans: list[ast.expr] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            spans.append(node.annotation)
        elif isinstance(node, ast.FunctionDef) and node.returns is not None:
            spans.append(node.returns)
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            spans += node.exc.args
    return [((one.lineno, one.col_offset), (one.end_lineno or one.lineno, one.end_col_offset or 0)) for one in spans]


def _membership() -> Any:
    """Build an operator that Cosmic Ray lacks: it replaces `in` by `not in` and vice versa."""
    import parso
    from cosmic_ray.operators.operator import Operator

    class Membership(Operator):
        def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
            for place in self._places(node):
                yield node.children[place].start_pos, node.children[place].end_pos

        def mutate(self, node: Any, index: int) -> Any:
            place = self._places(node)[index]
            negated = node.children[place].get_code().strip() != "in"
            node.children[place] = parso.parse(" in" if negated else " not in")
            return node

        @staticmethod
        def _places(node: Any) -> list[int]:
            if node.type != "comparison":
                return []
            places = range(1, len(node.children), 2)
            return [place for place in places if node.children[place].get_code().split()[-1] == "in"]

        @classmethod
        def examples(cls) -> tuple[()]:
            return ()

    return Membership()


def _difference(source: str, changed: str) -> tuple[int, str, str]:
    """Return the number of the first changed line, and the changed lines before and after."""
    old, new = source.splitlines(), changed.splitlines()
    start = next(place for place, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    old, new = old[start : len(old) - end], new[start : len(new) - end]
    return start + 1, " ".join(map(str.strip, old)).strip(), " ".join(map(str.strip, new)).strip()


def _function_at(source: str, line: int) -> str:
    """Return the dotted name of the innermost function or class that contains a line."""
    names: list[str] = []
    nodes: list[ast.AST] = list(ast.parse(source).body)
    while nodes:
        node = nodes.pop(0)
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first <= line <= (node.end_lineno or 0):
                names.append(node.name)
                nodes = list(ast.iter_child_nodes(node))
    return ".".join(names)


# --------------------------------------------------------------------------------------------------------- tests


class Baseline(NamedTuple):
    """Result of the tests on the unchanged module."""

    seconds: float
    """CPU seconds of the tests."""
    failing: tuple[str, ...]
    """Tests that fail on the unchanged module (no sandbox, no data); mutants are run without them."""


class Worker:
    """Worker process with a copy of the repository's files, which tests one mutant after the other."""

    def __init__(self, parent: str) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=parent))
        self._ready: tuple[str, Baseline] | None = None
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
        os.chdir(self.folder)
        os.environ |= {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        sys.path.insert(0, str(self.folder))
        importlib.import_module("tests.conftest")  # sets environment variables that torch reads at import
        importlib.import_module("pytest")

    def baseline(self, module: str) -> Baseline:
        """Run the tests on the unchanged module, and import the packages that they need, for the later forks.

        Raises:
            RuntimeError: the tests do not run at all.
        """
        if self._ready is None or self._ready[0] != module:
            _forget_own()
            for _ in range(2):  # the second run has the packages imported, like those of the mutants
                result = self.folder / "baseline.json"
                status, seconds = self._fork(TESTS[module], [], 3600, result)
                if status not in (0, 1):
                    raise RuntimeError(f"{module}: the tests do not run.\n{self._log().read_text()[-3000:]}")
                found = json.loads(result.read_text())
                self._preload(module, found["imported"])
            self._ready = module, Baseline(seconds, tuple(found["failing"]))
        return self._ready[1]

    def _preload(self, module: str, names: Sequence[str]) -> None:
        """Import the modules in `names`, except those that need the mutated module: their import fails."""
        _forget_own()
        blocked = module.removesuffix(".py").replace("/", ".")
        sys.modules[blocked] = None  # type: ignore[assignment]
        for name in names:
            if name != blocked:
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
        del sys.modules[blocked]
        gc.collect()
        gc.freeze()  # a collection in a fork would copy all pages

    def outcome(self, mutant: Mutant) -> str:
        """Test a mutant; return `killed`, `survived` or `timeout`."""
        before = self.baseline(mutant.module)
        file = self.folder / mutant.module
        original, stat = file.read_text(), file.stat()
        file.write_text(mutant.source)
        limit = max(LEAST_SECONDS, TIMES * before.seconds)
        deselected = [f"--deselect={test}" for test in before.failing]
        try:
            status, _ = self._fork(TESTS[mutant.module], ["-x", *deselected], limit, None)
        finally:
            file.write_text(original)
            os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        return {0: "survived", None: "timeout"}.get(status, "killed")

    def _log(self) -> Path:
        return self.folder / "pytest.log"

    def _fork(
        self, tests: Sequence[str], options: Sequence[str], limit: float, result: Path | None
    ) -> tuple[int | None, float]:
        """Run pytest in a fork; return its exit status (None: timeout) and its CPU seconds."""
        pid = os.fork()
        if not pid:
            _child(tests, options, limit, self._log(), result)
        handle = os.pidfd_open(pid)
        ended, _, _ = select.select([handle], [], [], limit * WALL)
        os.close(handle)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # including processes that the tests left behind
        _, status, usage = os.wait4(pid, 0)
        in_time = ended and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU)
        return os.waitstatus_to_exitcode(status) if in_time else None, usage.ru_utime + usage.ru_stime


def _child(tests: Sequence[str], options: Sequence[str], limit: float, log: Path, result: Path | None) -> None:
    """Run pytest on the present files and exit the process. The bytecode of mutants is never written."""
    status = 3
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 1))
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.dont_write_bytecode = result is None
        if result is None:
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        importlib.invalidate_caches()
        import pytest

        class Failures:
            def __init__(self) -> None:
                self.names: dict[str, None] = {}

            def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
                if report.failed:
                    self.names[report.nodeid] = None

        failures = Failures()
        # the plugins have been imported already, and need no rewriting
        fixed = ["-q", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        plugins = ["-p", "no:cacheprovider", "-p", "pytest_asyncio.plugin", "-p", "pytest_timeout"]
        status = int(pytest.main([*fixed, *plugins, *options, *tests], plugins=[failures]))
        if result is not None:
            others = [
                name for name in sys.modules if name.partition(".")[0] not in ("tests", "__main__", "__mp_main__")
            ]
            result.write_text(json.dumps({"failing": [*failures.names], "imported": others}))
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _forget_own() -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in OWN_PACKAGES:
            del sys.modules[name]


_worker: Worker | None = None


def _start(parent: str) -> None:
    global _worker
    _worker = Worker(parent)


def _test(mutant: Mutant) -> tuple[Mutant, str, Baseline]:
    assert _worker is not None
    return mutant, _worker.outcome(mutant), _worker.baseline(mutant.module)


# -------------------------------------------------------------------------------------------------------- report


def explained() -> dict[tuple[str, str, str, str], str]:
    """Read the reasons of `mutation_equivalent.toml`, by mutant."""
    listed = tomllib.loads(EQUIVALENT.read_text())
    return {(module, function, old, new): why for module, rows in listed.items() for function, old, new, why in rows}


def report(outcomes: Mapping[Mutant, str], reasons: Mapping[tuple[str, str, str, str], str]) -> dict[str, Any]:
    """Return the counts and scores of a module as JSON, and its survivors, the unexplained first."""
    survivors = sorted((mutant for mutant, outcome in outcomes.items() if outcome == "survived"))
    survivors.sort(key=lambda mutant: mutant.key in reasons)
    killed = sum(outcome == "killed" for outcome in outcomes.values())
    timeouts = sum(outcome == "timeout" for outcome in outcomes.values())
    equivalent = sum(mutant.key in reasons for mutant in survivors)
    return {
        "mutants": len(outcomes),
        "killed": killed,
        "timeouts": timeouts,
        "survived": len(survivors),
        "equivalent": equivalent,
        "score": _percent(killed + timeouts, len(outcomes)),
        "score_without_equivalent": _percent(killed + timeouts, len(outcomes) - equivalent),
        "survivors": [
            {"line": m.line, "function": m.function, "old": m.old, "new": m.new, "why": reasons.get(m.key)}
            for m in survivors
        ],
    }


def _percent(part: int, whole: int) -> float | None:
    return round(100 * part / whole, 2) if whole else None


def drawn(made: list[Mutant], count: int | None, seed: str) -> list[Mutant]:
    """Draw `count` of the mutants at random and return them in order; all if `count` is None."""
    return made if count is None or count >= len(made) else sorted(random.Random(seed).sample(made, count))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=f"of {', '.join(TESTS)}; default: all")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of about 1 GB each; default: 1")
    parser.add_argument("--survivors-of", type=Path, help="output of an earlier run: test only its survivors")
    parser.add_argument("--sample", type=int, help="number of mutants of each module, drawn at random; default: all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--list", action="store_true", help="print the mutants and run nothing")
    options = parser.parse_args()
    if unknown := set(options.modules) - set(TESTS):
        parser.error(f"TESTS has no entry for {', '.join(sorted(unknown))}")
    earlier = json.loads(options.survivors_of.read_text())["modules"] if options.survivors_of else None
    modules = options.modules or list(earlier if earlier is not None else TESTS)
    all_of = {module: mutants(module, (ROOT / module).read_text()) for module in modules}
    made = [one for module in modules for one in drawn(all_of[module], options.sample, f"{options.seed} {module}")]
    reasons = explained()
    keys = {mutant.key for each in all_of.values() for mutant in each}
    stale = [key for key in reasons if key[0] in modules and key not in keys]
    if earlier is not None:
        survived = {
            (module, one["function"], one["old"], one["new"])
            for module in earlier
            for one in earlier[module]["survivors"]
        }
        made = [mutant for mutant in made if mutant.key in survived]
    if options.list:
        for mutant in made:
            print(f"{mutant.module}:{mutant.line} {mutant.function}: {mutant.old} -> {mutant.new}")
        return 0
    outcomes: dict[str, dict[Mutant, str]] = {module: {} for module in modules}
    failing: dict[str, set[str]] = {module: set() for module in modules}
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="mutation-", ignore_cleanup_errors=True) as folder,
        ProcessPoolExecutor(options.workers, mp_context=context, initializer=_start, initargs=(folder,)) as pool,
    ):
        for done in as_completed([pool.submit(_test, mutant) for mutant in made]):
            mutant, outcome, baseline = done.result()
            outcomes[mutant.module][mutant] = outcome
            failing[mutant.module] |= set(baseline.failing)
            print(f"{mutant.module}:{mutant.line} {outcome}: {mutant.old} -> {mutant.new}", file=sys.stderr, flush=True)
    found = {
        module: {
            "made": len(all_of[module]),
            **report(outcomes[module], reasons),
            "left_out_tests": sorted(failing[module]),
        }
        for module in modules
    }
    total = report({mutant: one for each in outcomes.values() for mutant, one in each.items()}, reasons)
    unexplained = sum(one["why"] is None for one in total.pop("survivors"))
    summary = {
        "sample": options.sample,
        "seed": options.seed,
        "modules": found,
        "total": total,
        "unexplained": unexplained,
        "stale_entries": [" | ".join(key) for key in stale],
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(summary, indent=1))
    return int(unexplained > 0 or bool(stale))


if __name__ == "__main__":
    sys.exit(main())
