"""tools/start-docker.sh on other machines: no second engine, no stale file, one line where it cannot help."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
SCRIPT = Path(__file__).parents[2] / "tools" / "start-docker.sh"
ENGINE = """
import os, socket, sys
engine = socket.socket(socket.AF_UNIX)
engine.bind("/run/docker.sock")
os.chmod("/run/docker.sock", 0o666)
engine.listen()
while True:
    asker = engine.accept()[0]
    asker.recv(4096)
    asker.sendall(b"HTTP/1.1 " + sys.argv[1].encode() + b"\\r\\nContent-Length: 2\\r\\n\\r\\nOK")
"""
# stand-ins: an engine that notes each start and answers at its socket from then on, a package manager; no client
STUBS = {
    "dockerd": 'echo start >>"$STATE/starts"; echo $$ >/var/run/docker.pid; python3 "$STATE/engine.py" "200 OK"',
    "bwrap": "true",
    "apt-get": 'echo "$*" >>"$STATE/apt"; if [ "$1" = install ]; then cp "$STATE"/packages/* "$STATE/bin/"; fi',
}


@pytest.fixture
def world() -> Iterator[Path]:
    """A folder that other users may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="start-docker-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def run_on(world: Path, *, installed: set[str], prepare: str = "true", times: int = 1, user: str = "0") -> str:
    """Run the script in an environment with only these programs installed; return its standard error."""
    for name in ("bin", "packages"):
        (world / name).mkdir()
    for name, body in STUBS.items():
        place = "bin" if name in installed or name == "apt-get" else "packages"
        stub = world / place / name
        stub.write_text(f"#!/bin/bash\n{body}\n")
        stub.chmod(0o755)
    (world / "engine.py").write_text(ENGINE)
    (world / "bin" / "python3").symlink_to(sys.executable)
    tools = "bash sh cat id timeout setsid flock sleep tail cut rm sed dirname touch cp test env pidof hostname".split()
    for tool in tools:
        found = shutil.which(tool)
        if found and not (world / "bin" / tool).exists():
            (world / "bin" / tool).symlink_to(found)
    inside = f"mount -t tmpfs none /run && mkdir -p /run/lock && {prepare} && " + " && ".join(
        [f"setpriv --reuid {user} --clear-groups env PATH={world}/bin {SCRIPT} </dev/null"] * times
    )
    environment = {**os.environ, "STATE": str(world), "REASONER_DOCKERD_LOG": str(world / "log")}
    environment["PATH"] = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", inside],
        env=environment, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def starts(world: Path) -> int:
    log = world / "starts"
    return len(log.read_text().splitlines()) if log.exists() else 0


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts of its own need root: run as root to test this")


@needs_root
def test_an_engine_is_started_once_however_often_it_is_asked_for(world: Path) -> None:
    assert run_on(world, installed={"dockerd", "bwrap"}, times=3) == ""
    assert starts(world) == 1


@needs_root
def test_a_stale_pid_file_is_no_obstacle(world: Path) -> None:
    # the number in it is another living program's
    assert run_on(world, installed={"dockerd", "bwrap"}, prepare="echo 1 >/run/docker.pid") == ""
    assert starts(world) == 1


@needs_root
def test_what_is_missing_is_installed_without_a_question(world: Path) -> None:
    said = run_on(world, installed=set())
    assert "installing docker.io bubblewrap" in said
    assert starts(world) == 1
    assert "-y" in (world / "apt").read_text()
    assert "docker-cli" not in (world / "apt").read_text()


@needs_root
def test_elsewhere_it_says_in_one_line_what_is_not_run(world: Path) -> None:
    said = run_on(world, installed={"bwrap"}, user="65534")
    assert len(said.splitlines()) == 1
    assert "not run on this machine: the Docker tests" in said
    assert starts(world) == 0


@needs_root
@pytest.mark.parametrize(("status", "lines"), [("200 OK", 0), ("503 Service Unavailable", 1)])
def test_an_engine_is_asked_over_its_socket(world: Path, status: str, lines: int) -> None:
    prepare = f"rm {world}/bin/apt-get && (python3 {world}/engine.py '{status}' &)"
    prepare += " && until [ -S /run/docker.sock ]; do sleep 0.1; done"
    said = run_on(world, installed={"bwrap"}, prepare=prepare)
    assert len(said.splitlines()) == lines
    assert starts(world) == 0
