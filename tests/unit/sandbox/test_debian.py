"""Programs of Debian packages: unavailable ones are reported in a sentence; nothing is downloaded here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox import SandboxError, debian
from sandbox.image import root_key


@pytest.mark.parametrize("name", ["g++; rm -rf /", "-o", "G++", "", "a b"])
def test_names_that_are_no_packages(name: str, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="must be names of Debian packages"):
        debian.unpack([name], tmp_path)


def test_elsewhere_an_image_is_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match="there is no apt-get here, so g\\+\\+ cannot come from Debian packages"):
        debian.unpack(["g++"], tmp_path)


def test_what_apt_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 100, "", "N: note\nE: Unable to locate package g+++\n")
    monkeypatch.setattr(subprocess, "run", lambda *given, **options: done)
    with pytest.raises(SandboxError, match=r"cannot download g\+\+\+: E: Unable to locate package g\+\+\+ As root"):
        debian.download(["g+++"], tmp_path)


def test_a_package_is_laid_through_links(tmp_path: Path) -> None:
    for tool in ("dpkg-deb", "tar"):
        if subprocess.run(["which", tool], capture_output=True, check=False).returncode:
            pytest.skip(f"needs {tool}")
    package, root = tmp_path / "package", tmp_path / "root"
    (package / "DEBIAN").mkdir(parents=True)
    (package / "DEBIAN/control").write_text(
        "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    for name in ("lib/one", "usr/lib/two", "usr/share/doc/tool/readme"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    subprocess.run(["dpkg-deb", "--build", "-Znone", str(package), str(tmp_path / "tool.deb")], check=True)
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")
    debian.lay(tmp_path / "tool.deb", root)
    assert (root / "lib").is_symlink()
    assert (root / "usr/lib/one").read_text() == "lib/one"
    assert (root / "usr/lib/two").read_text() == "usr/lib/two"
    assert not (root / "usr/share/doc").exists()


def test_a_tree_with_programs_is_another_one() -> None:
    assert len({root_key([]), root_key([], ["g++"]), root_key([], ["gcc"])}) == 3
