"""The programs of the guides (docs/*.md) that need a sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import SandboxUnavailable, open_sandbox
from tests.unit.test_guides import IN_A_SANDBOX, ROOT, printed, programs, run

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("page", "number"), sorted(IN_A_SANDBOX))
def test_a_program_runs_and_prints_what_the_page_says(page: str, number: int, tmp_path: Path) -> None:
    try:
        open_sandbox("bubblewrap").close()
    except SandboxUnavailable as error:
        pytest.skip(str(error))
    program = programs(ROOT / "docs" / f"{page}.md")[page, number]
    done = run(program, tmp_path)
    assert done.returncode == 0, done.stderr
    assert printed(program) == done.stdout.splitlines()
