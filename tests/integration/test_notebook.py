"""examples/notebook.ipynb: its cells run in order, from an empty folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
pytestmark = pytest.mark.integration


def test_the_cells_run_in_order(tmp_path: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 6
    assert not any(cell.get("outputs") for cell in cells)  # outputs of one machine are not committed
    (tmp_path / "cells.py").write_text("\n\n".join(code))
    done = subprocess.run(
        [sys.executable, "cells.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "correct    1.0  equal to the reference" in done.stdout
    assert "bad_reference None False" in done.stdout
    assert "groups have signal" in done.stdout
    assert (tmp_path / "notebook-run" / "final").is_dir()
