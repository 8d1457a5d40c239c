"""Who may import whom. `python tests/unit/test_floors.py [TREE]` prints rooms, levels, arrows and loops of a tree.

A room is a package, or a file that stands alone. Every import counts, those inside functions and under TYPE_CHECKING
too.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS: Mapping[str, set[str]] = {
    "sandbox": set(),
    "verifiers": {"sandbox"},
    "tasks": {"verifiers", "sandbox"},
    "reasoner": {"tasks", "verifiers", "sandbox"},
}
BASE = {"config", "records", "seeds", "errors"}
SESSION = {"evaluation", "rollout", "engine", "policy", "data", "model", "algorithm", "storage", "processes"} | BASE
SESSION |= {"observe/display", "monitoring"}
ALL = {"*"}
ROOMS: Mapping[str, set[str]] = {
    "errors": set(),
    "records": set(),
    "seeds": set(),
    "processes": set(),
    "config": {"errors"},
    "web": set(),
    "label": {"errors", "web"},
    "algorithm": {"config", "records"},
    "model": {"config", "errors"},
    "storage": {"config", "records", "errors"},
    "cluster": {"config", "storage", "errors"},
    "engine": {"records", "model", "config", "processes", "errors"},
    "policy": {"algorithm", "model", "storage", "processes", *BASE},
    "data": {"algorithm", *BASE},
    "observe/explain": {"algorithm", "storage", "config"},
    "graders": {"engine", "policy", "model", "data", "config"},
    "rollout": {"engine", "data", "algorithm", "storage", "processes", *BASE},
    "observe/analysis": {"observe/explain", "storage", "algorithm", "config"},
    "evaluation": {"rollout", "engine", "records", "config"},
    "monitoring": {"rollout", "policy", "algorithm", "data", "storage", *BASE},
    "observe/report": {"observe/analysis", "observe/explain", "storage", "monitoring", "web"},
    "observe/view": {"observe/report", "storage", "web"},
    "observe/display": {"evaluation", "observe/explain", "storage", "config"},
    "session": SESSION,
    "train": {"session", "rollout", "policy", "algorithm", "monitoring", "storage", *BASE},
    "stages": {"train", "session", "graders", "label", *SESSION},
    "preflight": {"train", "session", "observe/explain", *SESSION} - {"errors"},
    "cli": ALL,
    "shadowed": set(),
    "__main__": {"cli", "shadowed"},
    "api": {"config", "engine", "errors", "stages", "storage"},
    "__init__": {"api", "shadowed"},
}
"""Room of `reasoner/` -> rooms that it may import."""
ONLY = {
    ("data", "algorithm"): {"reasoner.algorithm.batch"},
    ("observe/explain", "algorithm"): {"reasoner.algorithm.group_baselines"},
    ("observe/analysis", "algorithm"): {"reasoner.algorithm.group_baselines"},
    ("observe/report", "monitoring"): {"reasoner.monitoring.glossary"},
}
"""Arrows that lead to only one file of a room."""
INTERFACE = {"errors", "verdict", "options", "returned", "stats", "suggest", "base", "jsonl", "registry", "text"}
INTERFACE |= {"row_choice", "own_files", "plain_yaml", "columns", "alternatives", "given", "child_process"}
INTERFACE |= {"asked_process", "asked_child"}
MATHEMATICS = {"mathematics", "mathematics/reading", "mathematics/equality", "mathematics/opinion"}
VERIFIER_ROOMS: Mapping[str, set[str]] = {
    "errors": set(),
    "text": set(),
    "one_writer": set(),
    "verdict": {"text"},
    "options": {"suggest"},
    "stats": set(),
    "suggest": set(),
    "returned": {"errors"},
    "child_process": set(),
    "asked_child": {"child_process"},
    "asked_process": {"asked_child", "child_process"},
    "alternatives": {"errors", "verdict"},
    "base": {"alternatives", "errors", "verdict", "returned"},
    "columns": {"errors", "suggest"},
    "jsonl": {"errors", "text", "verdict"},
    "own_files": {"errors"},
    "plain_yaml": set(),
    "registry": INTERFACE - {"registry", "row_choice", "given"},
    "row_choice": INTERFACE - {"row_choice", "given"},
    "given": INTERFACE - {"given", "row_choice"},
    "__init__": INTERFACE,
    "composed_examples": {"base", "verdict"},
    "compose": INTERFACE | {"composed_examples"},
    "answers": INTERFACE,
    "mathematics": set(),
    "mathematics/reading": {"mathematics"},
    "mathematics/equality": {"mathematics"},
    "mathematics/opinion": {"mathematics", "asked_process"},
    "mathematics/wordings": {"mathematics", "mathematics/reading"},
    "mathematics/references": MATHEMATICS | INTERFACE | {"answers", "mathematics/wordings"},
    "mathematics/verifier": MATHEMATICS | INTERFACE | {"answers", "mathematics/references", "mathematics/wordings"},
    "instructions": INTERFACE | {"answers"},
    "logic": INTERFACE | {"answers"},
    "code": INTERFACE | {"answers"},
    "judge": INTERFACE | {"answers", "compose"},
    "rubric": INTERFACE | {"answers", "compose", "judge"},
    "pool": INTERFACE | {"compose"},
    "kit": INTERFACE | {"pool", "judge"},
    "terminal": INTERFACE,
    "serve": INTERFACE | {"pool", "kit"},
    "integrations": INTERFACE | {"answers", "compose", "pool"},
}
"""Room of `verifiers/` -> rooms that it may import; the interface at the root imports no room."""
TASK_ROOMS: Mapping[str, set[str]] = {"inputs": {"base"}}
"""Room of `tasks/` -> parts of it that it may import: the reader knows only the error of problems."""
NO_TORCH = (
    *(
        "records",
        "seeds",
        "config",
        "label",
        "cluster",
        "storage",
        "observe/explain",
        "observe/analysis",
        "observe/report",
        "observe/view",
        "web",
    ),
    *("algorithm/group_baselines.py", "monitoring/glossary.py", "monitoring/reward_hacking.py", "data/overlap.py"),
    *(
        "evaluation/reward_report.py",
        "evaluation/reward_bench.py",
        "evaluation/choices_report.py",
        "data/choices.py",
        "preflight/dry_run.py",
        "preflight/memory.py",
        "preflight/fits.py",
        "shadowed",
        "model/paths.py",
        "data/rows.py",
        "data/preferences.py",
        "data/demonstrations.py",
        "data/problems.py",
        "data/check.py",
        "data/check_text.py",
        "data/propose.py",
        "evaluation/estimates.py",
        "stages/names.py",
        "stages/references.py",
        "stages/principles.py",
        "api",
    ),
)
"""Rooms and files of `reasoner/` that import without torch."""
BLOCKED = (
    *("torch", "transformers", "vllm", "accelerate", "peft", "tokenizers", "huggingface_hub", "gguf"),
    *("datasets", "pyarrow", "pandas"),
)
"""Packages that a plain `pip install` does not install, in addition to `SERVE`."""
SERVE = ("httpx", "uvicorn", "prometheus_client")


class Arrow(NamedTuple):
    """An import from one room to another."""

    room: str
    target: str
    module: str
    where: str


def room_of(module: str, package: str, rooms: set[str]) -> str:
    """The room of a module of a package: the longest name in the table; a file or folder of its own otherwise."""
    parts = module.removeprefix(package).strip(".").split(".")
    names = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return next((name for name in names if name in rooms), parts[0] or "__init__")


@cache
def imported(path: Path) -> list[tuple[int, str]]:
    """Return line and full name of every import of a file, wherever it is."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            found += ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
    return found


def modules(tree: Path, package: str) -> dict[str, Path]:
    """Return name -> file of every module of a package."""
    found = {}
    for path in sorted((tree / package).rglob("*.py")):
        found[".".join(path.relative_to(tree).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def arrows(tree: Path, package: str, rooms: set[str]) -> list[Arrow]:
    """Every import of a package from one of its rooms to another."""
    known, found = modules(tree, package), []
    for name, path in known.items():
        room = room_of(name, package, rooms)
        for line, target in imported(path):
            module = target if target in known else target.rpartition(".")[0]
            if module == package or module not in known:
                continue
            other = room_of(module, package, rooms)
            if other != room:
                found.append(Arrow(room, other, module, f"{path.relative_to(tree)}:{line}"))
    return found


def loops(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Rooms that reach each other, each set of them once."""

    def reach(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for other in graph[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reached = {room: reach(room) for room in graph}
    sets = {frozenset(o for o in reached[room] if room in reached[o]) for room in graph if room in reached[room]}
    return sorted(sorted(one) for one in sets)


def levels(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Return 1 for a room that imports no other, else one more than its highest import; a loop counts as one room."""
    height = dict.fromkeys(graph, 1)
    together = {room: set(loop) for loop in loops(graph) for room in loop}
    for _ in graph:
        for room, targets in graph.items():
            below = [height[target] + 1 for target in targets - together.get(room, set())]
            height[room] = max([height[room], *below, *(height[other] for other in together.get(room, ()))])
    return height


def graph_of(tree: Path, package: str, rooms: set[str]) -> dict[str, set[str]]:
    """Return room -> the rooms that it imports."""
    graph = {room_of(name, package, rooms): set() for name in modules(tree, package)}
    for arrow in arrows(tree, package, rooms):
        graph[arrow.room].add(arrow.target)
    return graph


def test_every_import_is_one_that_its_room_may_make() -> None:
    wrong = []
    for arrow in arrows(ROOT, "reasoner", set(ROOMS)):
        assert arrow.room in ROOMS, f"{arrow.where}: {arrow.room} is no room of the table"
        allowed = ROOMS[arrow.room]
        narrow = ONLY.get((arrow.room, arrow.target))
        if (allowed != ALL and arrow.target not in allowed) or (narrow and arrow.module not in narrow):
            wrong.append(f"{arrow.where}: {arrow.room} may not import {arrow.module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", list(FLOORS))
def test_no_files_import_each_other_in_a_loop(package: str) -> None:
    known = modules(ROOT, package)
    graph = {name: set[str]() for name in known}
    for name, path in known.items():
        for _, target in imported(path):
            module = target if target in known else target.rpartition(".")[0]
            graph[name] |= {module} & known.keys() - {name}
    assert not loops(graph)


def test_rooms_have_no_loop_and_few_levels() -> None:
    graph = graph_of(ROOT, "reasoner", set(ROOMS))
    assert not loops(graph)
    assert max(levels(graph).values()) <= 12
    assert sum(map(len, graph.values())) <= 147


def test_the_design_page_shows_these_rooms() -> None:
    rows = re.findall(r"^\| `([\w/]+)` \| (.*?) \|", (ROOT / "docs" / "DESIGN.md").read_text(), re.MULTILINE)
    assert {room for room, _ in rows} == set(ROOMS) - {"__init__", "__main__"}
    without_torch = {room for room, holds in rows if "no torch" in holds}
    assert without_torch == {room for room in NO_TORCH if not room.endswith(".py")} | {"errors"}


def test_every_import_in_verifiers_is_one_that_its_room_may_make() -> None:
    found = arrows(ROOT, "verifiers", set(VERIFIER_ROOMS))
    assert {arrow.room for arrow in found} <= set(VERIFIER_ROOMS)
    assert not [arrow for arrow in found if arrow.target not in VERIFIER_ROOMS[arrow.room]]
    assert not loops(graph_of(ROOT, "verifiers", set(VERIFIER_ROOMS)))
    assert not INTERFACE & {arrow.room for arrow in found if arrow.target not in INTERFACE}


def test_the_reader_of_data_knows_no_task() -> None:
    found = [arrow for arrow in arrows(ROOT, "tasks", {"inputs"}) if arrow.room == "inputs"]
    assert found
    assert not [arrow for arrow in found if arrow.target not in TASK_ROOMS["inputs"]]


def test_a_loop_is_found_and_counts_as_one_level() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}
    assert loops(graph) == [["b", "c"]]
    assert levels(graph) == {"a": 3, "b": 2, "c": 2, "d": 1}


def test_every_module_imports_with_torch_blocked() -> None:
    files = []
    for room in ["sandbox", "verifiers", "tasks", *(f"reasoner/{room}" for room in NO_TORCH)]:
        place = ROOT / room
        found = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        assert found
        # what is in `guest` runs inside a sandbox, by other names
        files += [path for path in found if path.name != "__main__.py" and path.parent.name != "guest"]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]
    code = f"import importlib\nfor name in {modules!r}: print(importlib.import_module(name).__file__)"
    done = run_blocked(code, Path("/"))
    assert done.returncode == 0, done.stderr
    assert [Path(line) for line in done.stdout.splitlines()] == files  # ours, not a distribution of the same name


def run_blocked(
    code: str, folder: Path, entered: str = "", further: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program in which the packages of BLOCKED, and further ones, cannot be imported."""
    blocked = f"import sys\nfor name in {(*BLOCKED, *further)!r}: sys.modules[name] = None\n"
    command = [sys.executable, "-c", blocked + code]
    return subprocess.run(command, input=entered, capture_output=True, text=True, cwd=folder, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("compare run other --on train", "no difference"),
        ("rescore run", "0 of 64 rewards change"),
        ("explain run --audit 8", "grpo"),
        ("report run --audit 8", "report.html"),
        ("label pairs.jsonl --terminal", "2 of 2 pairs labelled"),
        ("label blind.jsonl --blind run other --summary", "pairs labelled"),
        ("verifiers probe exact run", "groups of rollouts with a right and a wrong one"),
        ("verify --verifier math --gold 1/2 --completion 0.5", "correct"),
    ],
)
def test_commands_over_finished_runs_need_no_torch(arguments: str, says: str, tmp_path: Path) -> None:
    from tests.unit.reasoner.runs import make_records, write_run  # not where this file runs over another tree

    write_run(tmp_path / "run", make_records(steps=2, problems=4, seed=1))
    write_run(tmp_path / "other", make_records(steps=2, problems=4, seed=2))
    rows = [{"id": str(n), "prompt": "p", "first": "a", "second": "b"} for n in range(2)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = f"sys.argv = {['reasoner', *arguments.split()]!r}\nfrom reasoner.cli import main; main()"
    done = run_blocked(code, tmp_path, entered="1\n2\n", further=SERVE)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


@pytest.mark.parametrize("floor", list(FLOORS))
def test_no_import_runs_up(floor: str) -> None:
    for path in modules(ROOT, floor).values():
        for line, name in imported(path):
            top = name.split(".")[0]
            assert top not in FLOORS or top == floor or top in FLOORS[floor], f"{path}:{line}: {name}"


def test_grading_one_answer_needs_neither_torch_nor_long() -> None:
    code = (
        "import sys\nfor name in ('torch', 'sympy', 'datasets'): sys.modules[name] = None\n"
        "sys.argv = ['reasoner', 'verify', '--verifier', 'math', '--gold', '1/2', '--completion', r'so \\boxed{0.5}']\n"
        "from reasoner.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "correct" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    ["train quickstart", "eval x --task arithmetic", "preflight quickstart"],
)
def test_a_command_that_needs_torch_says_what_brings_it(arguments: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name in {BLOCKED!r}: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.argv = {['reasoner', *arguments.split()]!r}\n"
        "from reasoner.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: this needs \w+, which is not installed: pip install 'reasoner-rl\[train\]'\.\n", done.stderr
    )


def test_tasks_are_listed_with_what_they_are_and_what_they_take() -> None:
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", "tasks", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Questions such as `47+85=?`" in done.stdout
    assert "options: family: str = 'addition', digits: int = 2, " in done.stdout


def test_the_package_ships_its_configs() -> None:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "configs*" in settings["packages"]["find"]["include"]
    assert "*.yaml" in settings["package-data"]["*"]


def summary(tree: Path) -> Iterator[str]:
    """Return the output of this program for a tree."""
    for package, table, folder in (("reasoner", ROOMS, "config"), ("verifiers", VERIFIER_ROOMS, "pool")):
        graph = graph_of(tree, package, set(table) if (tree / package / folder).is_dir() else set())
        found, height = loops(graph), levels(graph)
        yield f"{package}: {len(graph)} rooms, {max(height.values())} levels, {sum(map(len, graph.values()))} arrows,"
        yield f"  {len(found)} loops{': ' if found else ''}{'; '.join(' '.join(loop) for loop in found)}"
        for level in range(max(height.values()), 0, -1):
            yield f"  {level:2}  {' '.join(sorted(room for room in graph if height[room] == level))}"


if __name__ == "__main__":
    print("\n".join(summary(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)))
