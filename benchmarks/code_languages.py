"""C++ programs compiled and run in the sandbox, compared with g++ and a run without it, as JSON.

    python benchmarks/code_languages.py --programs 200 --backend bubblewrap

All programs differ; each is compiled once and run for five cases. `cases` measures one program that only echoes its
input: milliseconds per case, compared with a plain spawn of the same program with files for its input and output.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from verifiers import Verifier, get_verifier
from verifiers.code.languages import LANGUAGES
from verifiers.verdict import JSON

PROGRAM = """#include <{header}>
using namespace std;
int main() {{
    int n;
    cin >> n;
    vector<long long> v(n);
    for (int i = 0; i < n; i++) v[i] = (i * {factor}LL + 7) % 1009;
    sort(v.begin(), v.end());
    cout << v[n / 2] + {factor} << endl;
}}
"""
HEADERS = {"all": "bits/stdc++.h", "few": "iostream>\n#include <vector>\n#include <algorithm"}
SIZES = (10, 100, 1000, 5000, 20000)
ECHO = '#include <cstdio>\nint main() { int a; scanf("%d", &a); printf("%d\\n", a); }\n'


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which all contenders take turns")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--headers", choices=[*HEADERS], default="few")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--backend", action="append", choices=["docker", "bubblewrap"])
    options = parser.parse_args()
    texts = [PROGRAM.format(header=HEADERS[options.headers], factor=index + 3) for index in range(options.programs)]
    jobs = [Program(index + 3, text) for index, text in enumerate(texts)]
    verifiers = {backend: opened(backend, options.at_once) for backend in options.backend or ["bubblewrap", "docker"]}
    seconds = dict.fromkeys(["host", *verifiers], 0.0)
    right = dict.fromkeys(seconds, 0)
    for turn in range(options.rounds):
        for name in seconds:
            started = time.monotonic()
            part = jobs[turn :: options.rounds]
            right[name] += (
                in_sandbox(verifiers[name], part, options.at_once)
                if name in verifiers
                else on_host(part, options.at_once)
            )
            seconds[name] += time.monotonic() - started
    found: dict[str, object] = {"programs": len(jobs), "headers": options.headers, "at_once": options.at_once}
    for name in seconds:
        found[name] = {
            "programs_per_second": round(len(jobs) / seconds[name], 2),
            "right": right[name],
            "ms_per_case": sandbox_case(verifiers[name], options.cases)
            if name in verifiers
            else host_case(options.cases),
        }
    print(json.dumps(found, indent=1))


class Program(NamedTuple):
    """Program and the number that distinguishes it from the others."""

    factor: int
    source: str


def opened(backend: str, at_once: int) -> Verifier:
    """Return a verifier with a warm sandbox."""
    verifier = get_verifier(
        "code", sandbox=backend, language="cpp", cpu_seconds=10.0, workers=at_once, reward="fraction"
    )
    verifier.verify(completion=f"```cpp\n{ECHO}```", reference={"cases": [{"input": "1", "output": "1"}]})
    return verifier


def answer(factor: int, n: int) -> str:
    """Return what a program should print."""
    return f"{sorted((i * factor + 7) % 1009 for i in range(n))[n // 2] + factor}\n"


def in_sandbox(verifier: Verifier, programs: list[Program], at_once: int) -> int:
    """Return how many programs are graded correct."""

    def graded(program: Program) -> bool:
        cases: JSON = [{"input": f"{n}\n", "output": answer(program.factor, n)} for n in SIZES]
        verdict = verifier.verify(completion=f"```cpp\n{program.source}```", reference={"cases": cases})
        return verdict.outcome == "correct"

    with ThreadPoolExecutor(at_once) as threads:
        return sum(threads.map(graded, programs))


def on_host(programs: list[Program], at_once: int) -> int:
    """Return the same with g++ and a plain process for each case, without limits."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as threads:
        return sum(threads.map(lambda program: host_program(Path(folder) / str(program.factor), program), programs))


def host_program(folder: Path, program: Program) -> bool:
    """Return True if one program gives its answers."""
    binary = compiled(folder, program.source)
    for n in SIZES:
        done = subprocess.run([binary], input=f"{n}\n", capture_output=True, text=True, check=True)
        if done.stdout != answer(program.factor, n):
            return False
    return True


def compiled(folder: Path, source: str) -> str:
    """Compile a program; return its file."""
    folder.mkdir()
    (folder / "main.cpp").write_text(source)
    row = LANGUAGES["cpp"]
    command = row.command(row.compile, source=source, memory_mb=512, sources=("main.cpp",))
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "main")


def host_case(cases: int) -> dict[str, float]:
    """Return the milliseconds of a spawn, and of the program itself within it."""
    with tempfile.TemporaryDirectory() as folder:
        binary = compiled(Path(folder) / "echo", ECHO)
        given, printed = f"{folder}/in", f"{folder}/out"
        Path(given).write_text("7\n")
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, given, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        ]
        cpu, started = 0.0, time.monotonic()
        for _ in range(cases):
            pid = os.posix_spawn(binary, [binary], os.environ, file_actions=actions)
            usage = os.wait4(pid, 0)[2]
            cpu += usage.ru_utime + usage.ru_stime
            assert Path(printed).read_text() == "7\n"
        seconds = time.monotonic() - started
    return {"wall": round(1000 * seconds / cases, 2), "own_cpu": round(1000 * cpu / cases, 2)}


def sandbox_case(verifier: Verifier, cases: int) -> dict[str, float]:
    """Return the milliseconds per further case: the difference between many and few, compiled both times."""

    def seconds(count: int, mark: str) -> float:
        reference: JSON = {"cases": [{"input": f"{n}\n", "output": f"{n}\n"} for n in range(count)]}
        started = time.monotonic()
        verdict = verifier.verify(completion=f"```cpp\n{ECHO}// {mark}\n```", reference=reference)
        assert verdict.outcome == "correct", verdict
        return time.monotonic() - started

    few = min(seconds(1, f"few{turn}") for turn in range(3))
    many = min(seconds(cases + 1, f"many{turn}") for turn in range(3))
    return {"wall": round(1000 * (many - few) / cases, 2)}


if __name__ == "__main__":
    main()
