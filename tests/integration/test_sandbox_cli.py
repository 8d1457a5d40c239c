"""`reasoner sandbox` as a user types it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.backends import ISOLATED, opened

pytestmark = pytest.mark.integration


def reasoner(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", "sandbox", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120)


@pytest.mark.parametrize("backend", ISOLATED)
def test_run_tells_the_outcome_and_keeps_the_streams_apart(backend: str, tmp_path: Path) -> None:
    opened(backend, workers=1).close()
    program = tmp_path / "double.py"
    program.write_text("import sys\nprint(2 * int(input()))\nprint('note', file=sys.stderr)\n")
    done = reasoner("run", str(program), "-b", backend, stdin=b"21\n")
    assert (done.returncode, done.stdout) == (0, b"42\n"), done.stderr
    assert done.stderr.startswith(b"note\nok (")
    program.write_text("while True: pass")
    done = reasoner("run", str(program), "-b", backend, "--cpu", "0.3")
    assert done.returncode == 1
    assert b"cpu_limit: more than 0.3 s of CPU time" in done.stderr


def test_doctor_says_what_works_and_what_would_help() -> None:
    opened("bubblewrap", workers=1).close()
    done = reasoner("doctor")
    assert done.returncode == 0
    said = done.stdout.decode()
    assert "bubblewrap trial  ready in" in said
    assert "usable here: " in said


def test_build_names_the_tree_that_jobs_see() -> None:
    done = reasoner("build")
    assert done.returncode == 0, done.stderr
    root = Path(done.stdout.split()[1].decode())
    assert (root / "usr/bin/python3").is_symlink()
    assert not list(root.rglob("site-packages/torch"))


def test_a_package_that_is_not_here_is_named() -> None:
    done = reasoner("build", "--packages", "no-such-package-at-all")
    assert done.returncode == 1
    assert b"'no-such-package-at-all' is not installed here: pip install no-such-package-at-all" in done.stderr


def test_an_image_from_a_base_image_keeps_the_same_contract() -> None:
    opened("docker", workers=1).close()
    from sandbox.engine import build_image, ensure_image
    from tests.backends import python, said

    name = build_image(ensure_image())
    with opened("docker", workers=1, image=name) as sandbox:
        assert said(sandbox.run(python("import os\nprint(os.listdir('.'), os.getuid() > 0)"))) == "['main.py'] True\n"
        assert sandbox.run(python("while True: pass", cpu_seconds=0.3)).outcome == "cpu_limit"


@pytest.mark.parametrize("mode", ["uid", "one-shot"])
def test_the_weaker_modes_keep_the_contract(mode: str) -> None:
    from sandbox import Job
    from tests.backends import python, said

    with opened("docker", workers=1, mode=mode) as sandbox:
        assert said(sandbox.run(python("import os\nprint(os.listdir('.'), os.getuid() > 0)"))) == "['main.py'] True\n"
        assert sandbox.run(python("while True: pass", cpu_seconds=0.3)).outcome == "cpu_limit"
        helper = Job(argv=("python", "h.py"), files={"h.py": b"import os\nos.write(3, b'hello')"}, result_channel=True)
        code = b"import os\nprint(os.read(5, 9), os.listdir('.'))"
        job = Job(argv=("python", "m.py"), files={"m.py": code}, helper=helper)
        assert said(sandbox.run(job)) == "b'hello' ['m.py']\n"
        assert sandbox.mode == mode
