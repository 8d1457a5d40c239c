"""Programs in C++: compiled and run in the sandbox beside g++ and a run on this machine, as JSON.

    python benchmarks/code_languages.py --programs 200 --backend bubblewrap

Every program is another one, is compiled once and run for five cases. `cases` measures one program that does nothing
but answer: milliseconds a case, beside a plain spawn of the same program here with files for its input and output.
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
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--headers", choices=[*HEADERS], default="few")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--backend", action="append", choices=["docker", "bubblewrap"])
    options = parser.parse_args()
    sources = [PROGRAM.format(header=HEADERS[options.headers], factor=index + 3) for index in range(options.programs)]
    found: dict[str, object] = {"programs": options.programs, "headers": options.headers, "at_once": options.at_once}
    found["host"] = on_host(sources, options.at_once) | {"ms_per_case": host_case(options.cases)}
    for backend in options.backend or ["bubblewrap", "docker"]:
        verifier = get_verifier(
            "code", sandbox=backend, language="cpp", cpu_seconds=10.0, workers=options.at_once, reward="fraction"
        )
        found[backend] = in_sandbox(verifier, sources, options.at_once) | {
            "ms_per_case": sandbox_case(verifier, options.cases)
        }
    print(json.dumps(found, indent=1))


def answer(factor: int, n: int) -> str:
    """What a program of ours prints."""
    return f"{sorted((i * factor + 7) % 1009 for i in range(n))[n // 2] + factor}\n"


def in_sandbox(verifier: Verifier, sources: list[str], at_once: int) -> dict[str, object]:
    """Programs a second, each graded on its cases."""
    rows = [
        (f"```cpp\n{source}```", [{"input": f"{n}\n", "output": answer(index + 3, n)} for n in SIZES])
        for index, source in enumerate(sources)
    ]
    verifier.verify(completion=rows[0][0] + "\n", reference={"cases": [{"input": "10\n", "output": answer(3, 10)}]})
    started = time.monotonic()
    with ThreadPoolExecutor(at_once) as threads:
        verdicts = list(
            threads.map(lambda row: verifier.verify(completion=row[0], reference={"cases": [*row[1]]}), rows)
        )
    seconds = time.monotonic() - started
    outcomes = [str(verdict.outcome) for verdict in verdicts]
    counts = {name: outcomes.count(name) for name in sorted(set(outcomes))}
    return {"programs_per_second": round(len(rows) / seconds, 2), "seconds": round(seconds, 1), "outcomes": counts}


def on_host(sources: list[str], at_once: int) -> dict[str, object]:
    """The same by g++ and a plain process for each case, without any limit."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(at_once) as threads:
        started = time.monotonic()
        right = sum(threads.map(lambda index: host_program(Path(folder), index, sources[index]), range(len(sources))))
        seconds = time.monotonic() - started
    return {"programs_per_second": round(len(sources) / seconds, 2), "seconds": round(seconds, 1), "right": right}


def host_program(folder: Path, index: int, source: str) -> bool:
    """Whether one program gives its answers."""
    binary = compiled(folder / str(index), source)
    for n in SIZES:
        done = subprocess.run([binary], input=f"{n}\n", capture_output=True, text=True, check=True)
        if done.stdout != answer(index + 3, n):
            return False
    return True


def compiled(folder: Path, source: str) -> str:
    """The program's file."""
    folder.mkdir()
    (folder / "main.cpp").write_text(source)
    row = LANGUAGES["cpp"]
    command = row.command(row.compile, source=source, memory_mb=512, sources=("main.cpp",))
    subprocess.run(command, cwd=folder, check=True)
    return str(folder / "main")


def host_case(cases: int) -> dict[str, float]:
    """Milliseconds of a spawn, and of the program itself within it."""
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
    """Milliseconds that a further case costs: the difference of many and few, compiled both times."""

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
