"""Imports at the start of a run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
from reasoner.engine.environment import prepare_process, skip_unused_packages
prepare_process()
skip_unused_packages()
import reasoner.stages.pipeline
loaded = sorted({name.partition(".")[0] for name in sys.modules})
import scipy, sklearn  # others find them as ever
print(json.dumps(loaded))
"""


@pytest.mark.slow
def test_a_run_starts_without_what_it_does_not_use() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert not {"sklearn", "scipy", "pandas", "datasets", "pyarrow", "vllm"} & set(loaded)
    assert "transformers" in loaded
