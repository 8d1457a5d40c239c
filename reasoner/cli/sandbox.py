"""`reasoner sandbox`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli.errors import plain_errors, plain_typer
from verifiers.terminal.streams import write_bytes

if TYPE_CHECKING:
    from sandbox import Sandbox

FAULT = 3
app = plain_typer(no_args_is_help=True, help="Run untrusted code; check and measure the sandboxes of this machine.")
Backend = Annotated[str, typer.Option("--backend", "-b", help="docker, bubblewrap, or unsafe-host.")]
Packages = Annotated[
    str,
    typer.Option("--packages", "-p", help="Installed packages that programs may import, comma-separated: numpy,sympy."),
]


@app.command()
def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Only inspect; start no program.")] = False,
) -> None:
    """Show which sandboxes work on this machine, and how to get the others; exit with 1 if none works."""
    with plain_errors():
        from sandbox.doctor import examine

        working: set[str] = set()
        for found in examine(start=not quick):
            typer.echo(f"{'ok' if found.works else 'NO':3} {found.name:17} {found.says}")
            if found.remedy:
                typer.echo(f"{'':21} -> {found.remedy}")
            if found.works and (found.name.endswith("trial") or quick):
                working.add(found.name.split()[0])
        usable = sorted(working & {"docker", "bubblewrap"})
        typer.echo(f"usable here: {', '.join(usable) or 'none; code is never run without a sandbox by default'}")
        raise typer.Exit(0 if usable else 1)


@app.command()
def build(
    packages: Packages = "",
    language: Annotated[
        str,
        typer.Option(
            "--language", "-l", help="Languages whose compilers or interpreters to add, comma-separated: cpp,java."
        ),
    ] = "",
    system: Annotated[
        str, typer.Option("--system", help="Other Debian packages that programs may run, comma-separated.")
    ] = "",
    base: Annotated[
        str | None,
        typer.Option("--base", help="Base image, such as python:3.12-slim. Default: made from this interpreter."),
    ] = None,
) -> None:
    """Build the file system of jobs: a tree for bubblewrap, and a Docker image from it (or from a base image)."""
    with plain_errors():
        from sandbox import SandboxUnavailable
        from sandbox.engine import build_image, connect, ensure_image
        from sandbox.image import ensure_root
        from verifiers.code.languages import language_named

        wanted = _names(packages)
        programs = {*_names(system), *(name for one in _names(language) for name in language_named(one).system)}
        started = time.monotonic()
        if base is not None:
            name = build_image(base, wanted)
            typer.echo(f"image {name} in {time.monotonic() - started:.0f} s: open_sandbox('docker', image='{name}')")
            return
        root = ensure_root(wanted, programs)
        size = sum(path.lstat().st_size for path in root.rglob("*")) >> 20
        typer.echo(f"tree  {root} ({size} MiB) in {time.monotonic() - started:.0f} s")
        try:
            connect().close()
        except SandboxUnavailable as error:
            typer.echo(f"image not made: {error}")
            return
        typer.echo(f"image {ensure_image(wanted, sorted(programs))} in {time.monotonic() - started:.0f} s")


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A Python program.", exists=True, dir_okay=False)],
    backend: Backend = "docker",
    packages: Packages = "",
    cpu: Annotated[float, typer.Option("--cpu", min=0.1, help="CPU seconds.")] = 5.0,
    wall: Annotated[
        float | None,
        typer.Option("--wall", min=0.1, help="Wall seconds; default: four times --cpu, at least 10."),
    ] = None,
    memory: Annotated[int, typer.Option("--memory", min=16, help="MiB.")] = 512,
) -> None:
    """Run a program on standard input, as a grader would; exit with 0 if it ends normally, 3 if the sandbox fails."""
    with plain_errors():
        from sandbox import Job, JobOutcome, Limits, open_sandbox

        limits = Limits(cpu_seconds=cpu, wall_seconds=wall or max(10.0, 4 * cpu), memory_bytes=memory << 20)
        given = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
        job = Job(argv=("python", file.name), files={file.name: file.read_bytes()}, stdin=given, limits=limits)
        with open_sandbox(backend, workers=1, packages=_names(packages), limits=limits) as sandbox:
            result = sandbox.run(job)
        write_bytes(sys.stdout, result.stdout)
        write_bytes(sys.stderr, result.stderr)
        used = f"{result.cpu_seconds:.2f} s CPU, {result.wall_seconds:.2f} s, {result.peak_memory_bytes >> 20} MiB"
        typer.echo(f"{result.outcome}{result.detail and ': ' + result.detail} ({used})", err=True)
        code = FAULT if result.outcome is JobOutcome.INFRASTRUCTURE_FAULT else int(result.outcome is not JobOutcome.OK)
        raise typer.Exit(code)


@app.command()
def check(
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="docker or bubblewrap; repeatable. Default: both.")
    ] = None,
    packages: Packages = "",
    verbose: Annotated[bool, typer.Option("--verbose", help="A line for every program.")] = False,
) -> None:
    """Run ordinary programs, attacks and forged verdicts in the sandboxes here; exit with 1 if an attack succeeds."""
    with plain_errors():
        from sandbox import SandboxUnavailable, open_sandbox
        from sandbox.docker import require_engine

        failed = ran = 0
        for name in backend or ["docker", "bubblewrap"]:
            try:
                if name == "docker":
                    require_engine()
                opened = open_sandbox(name, workers=1, packages=_names(packages))
            except SandboxUnavailable as error:
                typer.echo(f"{name}: not checked: {error}")
                failed += backend is not None  # requested by name
                continue
            with opened as sandbox:
                ran += 1
                failed += _check(name, sandbox, _names(packages), verbose=verbose)
            failed += _check_forgeries(name, verbose=verbose)
        raise typer.Exit(1 if failed or not ran else 0)


@app.command()
def bench(
    seconds: Annotated[float, typer.Option("--seconds", min=0.5, help="Seconds for each measurement.")] = 3.0,
    at_once: Annotated[int, typer.Option("--at-once", min=1, help="Calling threads, and workers of a pool.")] = 8,
) -> None:
    """Measure programs per second: each backend, compared with a plain process without any sandbox."""
    with plain_errors():
        from sandbox import SandboxUnavailable, open_sandbox
        from sandbox.bench import PLAIN, measure, pooled, process

        plain = measure(process(PLAIN), seconds=seconds, at_once=at_once)
        typer.echo(f"{'no sandbox (python3 -I -c)':27} {plain['per_second']:7.1f}/s")
        for name in ("docker", "bubblewrap"):
            try:
                opened = open_sandbox(name, workers=at_once)
            except SandboxUnavailable as error:
                typer.echo(f"{name:27} {error}")
                continue
            with opened as sandbox:
                measure(pooled(sandbox), seconds=1.0, at_once=at_once)
                rate = measure(pooled(sandbox), seconds=seconds, at_once=at_once)
            times = rate["per_second"] / plain["per_second"]
            typer.echo(
                f"{name:27} {rate['per_second']:7.1f}/s  {times:.1f} times the plain process;"
                f" p50 {rate['p50_ms']:.0f} ms, p99 {rate['p99_ms']:.0f} ms"
            )


def _check(name: str, sandbox: Sandbox, packages: tuple[str, ...], *, verbose: bool) -> int:
    """Check one backend, print failures (all results if verbose), and return the number of failures."""
    from sandbox.attacks import check as findings

    started = time.monotonic()
    counts = {"attacks": [0, 0], "ordinary programs": [0, 0]}
    for found in findings(sandbox, packages=packages):
        count = counts["ordinary programs" if found.kind == "honest" else "attacks"]
        count[0] += found.passed
        count[1] += 1
        if verbose or not found.passed:
            typer.echo(f"  {'ok' if found.passed else 'FAIL':4} {found.kind:12} {found.name:40} {found.detail}")
    summary = ", ".join(f"{passed} of {total} {what}" for what, (passed, total) in counts.items())
    typer.echo(f"{name}: as expected: {summary} ({time.monotonic() - started:.0f} s)")
    return sum(total - passed for passed, total in counts.values())


def _check_forgeries(name: str, *, verbose: bool) -> int:
    """Grade programs that pretend to have passed, with the code verifier; return the number of wrong verdicts."""
    from reasoner.cli.forgery import ASKED, HONEST, forged, forgeries
    from verifiers import get_verifier

    started = time.monotonic()
    verifier = get_verifier("code", sandbox=name, cpu_seconds=2.0)
    failed = 0
    for kind, reference in ASKED.items():
        verdict = verifier.verify(completion=HONEST, reference=reference)
        if verdict.outcome != "correct":
            failed += 1
            typer.echo(f"  FAIL honest       {kind:40} {verdict.outcome}: {verdict.detail}")
    for forgery in forgeries():
        trouble = "; ".join(filter(None, (forged(verifier, forgery, kind) for kind in ASKED)))
        failed += bool(trouble)
        if trouble or verbose:
            typer.echo(f"  {'FAIL' if trouble else 'ok':4} {'forgery':12} {forgery.name:40} {trouble}")
    typer.echo(
        f"{name}: {len(forgeries())} forged verdicts, each in {len(ASKED)} kinds of tests: {failed} wrongly judged"
        f" ({time.monotonic() - started:.0f} s)"
    )
    return failed


def _names(packages: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in packages.split(",") if name.strip())
