"""Tree of files that jobs see: an interpreter, its standard library, chosen packages, and their shared libraries.

Built in seconds from this very interpreter, without a registry. bubblewrap uses the tree directly; Docker imports it.
"""

from __future__ import annotations

import compileall
import errno
import fcntl
import hashlib
import importlib.metadata
import io
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sandbox import debian
from sandbox.api import MIB, SandboxError

BUILDER_VERSION = 5
TREE_BYTES = 150 * MIB
"""Most bytes of a tree with the standard library, including space for a package or two."""
LEFT_OUT = frozenset("site-packages dist-packages test tests idlelib tkinter turtledemo ensurepip __pycache__".split())
TOOLS = ("sh", "cat", "ls", "echo", "env", "sleep", "true", "false", "rm", "mkdir", "cp", "mv", "head", "sort", "wc")
PASSWD = "root:x:0:0::/:/bin/sh\njob:x:1000:1000::/work:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
GROUP = "root:x:0:\njob:x:1000:\nnogroup:x:65534:\n"
DATA = (Path("/usr/share/zoneinfo"), Path("/usr/lib/locale"))
"""Data of this machine: time zones, and locales (at least C.UTF-8, needed with glibc older than 2.35)."""
LARGEST_DATA = 8 << 20  # leaves out an archive of all locales
HOSTS = "127.0.0.1 localhost sandbox\n::1 localhost\n"
LIBRARY = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x", re.MULTILINE)


def ensure_root(packages: Iterable[str] = (), system: Iterable[str] = ()) -> Path:
    """Return the tree for this interpreter, these packages and these commands; build it if it does not exist.

    Args:
        packages: Python packages, as installed here.
        system: names of Debian packages (`g++`), downloaded with their dependencies.

    Raises:
        SandboxError: a package is not installed here, or the tree cannot be built.
    """
    wanted, programs = sorted({canonical(name) for name in packages}), sorted(set(system))
    folder = cache_folder() / root_key(wanted, programs)
    if not folder.is_dir():
        try:
            make_root(folder, wanted, programs)
        except OSError as error:
            raise SandboxError(
                f"the sandbox's files cannot be created in {folder.parent}: {first_reason(error)}"
            ) from None
    return folder


def make_root(folder: Path, wanted: Sequence[str], programs: Sequence[str]) -> None:
    """Build a tree in a temporary folder and move it to its place, once, even if several processes want it."""
    if not folder.parent.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        for parent in (folder.parent, folder.parent.parent):
            parent.chmod(0o755)  # independent of the umask: the user that runs bubblewrap reads it
    with open(folder.parent / f"{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
            try:
                build_root(aside, wanted, programs)
                aside.rename(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)


def first_reason(error: OSError) -> str:
    """Return a sentence on what went wrong; of an error about many files (`shutil.Error`), on the first."""
    message = error.strerror or str(error)
    if isinstance(error, shutil.Error):
        message = str(error.args[0][0][2]) if error.args and error.args[0] else "files cannot be copied"
    if "No space left" in message or error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left there; free about {TREE_BYTES >> 20} MiB."
    return f"{message[:200]}."


def cache_folder() -> Path:
    """Return the folder of trees; the user as which root runs bubblewrap can read it."""
    if os.geteuid() == 0:
        return Path("/var/cache/reasoner/sandbox")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reasoner" / "sandbox"


def root_key(packages: Iterable[str], system: Iterable[str] = ()) -> str:
    """Return a key of the interpreter, the packages' versions, the Debian packages' names, and the builder version."""
    parts = [str(BUILDER_VERSION), sys.version, os.path.realpath(sys.executable), *TOOLS]
    parts += [f"{name}=={installed(name).version}" for name in with_dependencies(packages)]
    parts += [f"debian {name}" for name in system]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def build_root(root: Path, packages: Iterable[str], system: Sequence[str] = ()) -> None:
    """Build a tree in an empty folder."""
    major = f"python{sys.version_info.major}.{sys.version_info.minor}"
    home = root / "opt/python"
    libraries = root / "usr/lib"
    for name in ("opt/python/bin", "usr/lib", "usr/bin", "etc", "dev", "proc", "tmp", "work", "sys"):
        (root / name).mkdir(parents=True)
    for name, target in {"lib": "usr/lib", "lib64": "usr/lib", "bin": "usr/bin", "sbin": "usr/bin"}.items():
        (root / name).symlink_to(target)
    if system:
        libraries = debian.library_folder(root)
        for folder in (libraries, root / "usr/lib64"):
            folder.mkdir()
        debian.unpack(system, root)
    else:  # a single folder contains all libraries, under every name where a loader looks for them
        (root / "usr/lib64").symlink_to("lib")
        (libraries / f"{platform.machine()}-linux-gnu").symlink_to(".")
    binary = Path(os.path.realpath(sys.executable))
    shutil.copy2(binary, home / "bin/python3")
    for name in ("python3", "python"):
        (root / "usr/bin" / name).unlink(missing_ok=True)
        (root / "usr/bin" / name).symlink_to("/opt/python/bin/python3")
    standard = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(standard, home / "lib" / major, ignore=shutil.ignore_patterns(*LEFT_OUT, "*.a", "config-*"))
    site = home / "lib" / major / "site-packages"
    site.mkdir()
    for name in with_dependencies(packages):
        copy_package(name, site)
    tools = [Path(found) for name in TOOLS if (found := shutil.which(name, path="/bin:/usr/bin"))]
    for tool in tools:
        if os.path.lexists(root / "usr/bin" / tool.name):
            continue
        shutil.copy2(os.path.realpath(tool), root / "usr/bin" / tool.name)
    modules = [path for path in (home / "lib" / major).rglob("*.so*") if path.is_file()]
    for library in needed_libraries([binary, *tools, *modules]):
        if not library.is_relative_to(root) and not (libraries / library.name).exists():
            shutil.copy2(library.resolve(), libraries / library.name)
    for source in DATA:
        if source.is_dir():
            copy_data(source, root / source.relative_to("/"))
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "etc/hosts").write_text(HOSTS)
    compiled = compileall.compile_dir(
        home / "lib",
        stripdir=str(root),
        quiet=2,
        workers=1,
        invalidation_mode=_UNCHECKED,  # the tree is read-only
    )
    if not compiled and shutil.disk_usage(root).free < MIB:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for folder, _, names in os.walk(root):
        os.chmod(folder, 0o755)
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)


def copy_data(source: Path, target: Path) -> None:
    """Copy a folder's files, except time zones with leap seconds, files useless to programs, and very large ones."""

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [
            name
            for name in names
            if name in ("right", "posix", "tzdata.zi")
            or not os.path.exists(os.path.join(folder, name))
            or os.path.getsize(os.path.join(folder, name)) > LARGEST_DATA
        ]

    shutil.copytree(source, target, ignore=left_out, dirs_exist_ok=True)


_UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH


def needed_libraries(files: Iterable[Path]) -> set[Path]:
    """Return the shared libraries that files need, as resolved by the host's own loader."""
    found: set[Path] = set()
    batch = [str(path) for path in files]
    for start in range(0, len(batch), 100):
        done = subprocess.run(["ldd", *batch[start : start + 100]], capture_output=True, text=True, check=False)
        found.update(Path(name) for name in LIBRARY.findall(done.stdout))
    if not found and platform.libc_ver()[0] == "glibc":
        raise SandboxError("ldd names no shared library of this interpreter. Check that ldd (libc-bin) is installed.")
    return found


def canonical(name: str) -> str:
    """Return a distribution's normalized name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(name: str) -> importlib.metadata.Distribution:
    """Return a distribution of this environment; raise SandboxError if it is not installed."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise SandboxError(f"sandbox package {name!r} is not installed here: pip install {name}") from None


def with_dependencies(packages: Iterable[str]) -> list[str]:
    """Return packages and their dependencies, sorted."""
    found: set[str] = set()
    waiting = [canonical(name) for name in packages]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for line in installed(name).requires or ():
            if "extra ==" not in line:
                needed = canonical(re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0])
                try:
                    importlib.metadata.distribution(needed)
                except importlib.metadata.PackageNotFoundError:
                    continue  # needed only under another marker
                waiting.append(needed)
    return sorted(found)


def copy_package(name: str, site: Path) -> None:
    """Copy the files of an installed distribution, without its tests and scripts."""
    distribution = installed(name)
    for file in distribution.files or ():
        if ".." in file.parts or "__pycache__" in file.parts or "tests" in file.parts:
            continue
        source = Path(str(distribution.locate_file(file)))
        if source.is_file():
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def as_tar(root: Path) -> Iterator[bytes]:
    """Yield the tree as a tar stream without owners and times, so that the same tree gives the same image."""
    buffer = io.BytesIO()

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        return member

    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(root.rglob("*")):
            archive.add(path, arcname=str(path.relative_to(root)), recursive=False, filter=plain)
            if buffer.tell() > 1 << 22:
                yield buffer.getvalue()
                buffer.seek(0)
                buffer.truncate()
    yield buffer.getvalue()
