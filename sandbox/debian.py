"""Commands of Debian packages (a compiler, a shell) unpacked into a tree, without a registry and without installation.

apt-get resolves and downloads them with all dependencies, as for a machine without any package; dpkg-deb unpacks them.
No package script is run; the few links that such scripts would create are created here.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sandbox.api import SandboxError

PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
LEFT_OUT = ("doc", "man", "info", "locale", "lintian", "bug", "doc-base", "gdb", "applications", "icons")
LINKS = {
    "usr/bin/cc": "gcc",
    "usr/bin/c++": "g++",
    "usr/bin/java": "../lib/jvm/default-java/bin/java",
    "usr/bin/javac": "../lib/jvm/default-java/bin/javac",
    "usr/bin/awk": "mawk",
}
"""Links that update-alternatives would create, if their targets exist."""
SECONDS = 1800


def unpack(packages: Sequence[str], root: Path) -> None:
    """Unpack packages and their dependencies into a folder whose `lib`, `bin` and so on are links into `usr`.

    Raises:
        SandboxError: there is no apt-get here, a package is unknown, or it cannot be downloaded.
    """
    for name in packages:
        if not PACKAGE.fullmatch(name):
            raise SandboxError(f"system packages must be names of Debian packages; got {name!r}.")
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise SandboxError(
            f"there is no apt-get here, so {', '.join(packages)} cannot come from Debian packages. Use an image that"
            " has them and python3: docker build, then image=NAME."
        )
    with tempfile.TemporaryDirectory(prefix="reasoner-packages-") as folder:
        for archive in download(packages, Path(folder)):
            lay(archive, root)
    for name, target in LINKS.items():
        link = root / name
        if not os.path.lexists(link) and (link.parent / target).exists():
            link.symlink_to(target)


def download(packages: Sequence[str], folder: Path) -> list[Path]:
    """Download packages and all their dependencies into a folder; return the archives."""
    (folder / "partial").mkdir()
    status = folder / "status"
    status.touch()
    options = {
        "Dir::State::status": str(status),  # nothing is installed
        "Dir::Cache::archives": str(folder),
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Debug::NoLocking": "true",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "3",
    }
    command = ["apt-get", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    try:
        done = subprocess.run(
            [*command, "-y", "-qq", "--download-only", "install", *packages],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        raise SandboxError(f"apt-get did not download {', '.join(packages)} within {SECONDS} s.") from None
    if done.returncode:
        reason = " ".join(line for line in done.stderr.splitlines() if line.startswith("E:")) or done.stderr.strip()
        raise SandboxError(
            f"apt-get cannot download {', '.join(packages)}: {reason[:500]} As root, run apt-get update and try again."
        )
    return sorted(folder.glob("*.deb"))


def lay(archive: Path, root: Path) -> None:
    """Unpack one package into a tree, following the tree's links, without documentation."""
    excluded = [f"--exclude=./usr/share/{name}" for name in LEFT_OUT]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=subprocess.PIPE) as packed:
        done = subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", *excluded, "-C", str(root)],
            stdin=packed.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode or packed.returncode:
        raise SandboxError(f"{archive.name} cannot be unpacked: {done.stderr.strip()[:300]}")


def library_folder(root: Path) -> Path:
    """Return the folder in which Debian's loader looks for libraries first."""
    return root / f"usr/lib/{platform.machine()}-linux-gnu"
