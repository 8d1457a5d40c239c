"""`python -m reasoner.observe.report.explained STAGE`: the findings of a stage as JSON, in a process of its own.

The rules read up to 256 MB of rollouts, which takes a minute; the page stays quick meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from reasoner.observe.analysis.audit import explain_and_audit
from reasoner.observe.analysis.rounds import rounds
from reasoner.observe.report.data import audit_table
from reasoner.observe.report.listing import root_of
from reasoner.storage.files import RunError
from verifiers.jsonl import is_object, json_line, parse_line

AUDITED = 200
"""Rewarded rollouts that a held-out verifier grades."""


def explained(folder: Path) -> dict[str, Any]:
    """Return the findings of a stage, the rounds of its run, and the verdicts of the held-out verifier by place.

    Raises:
        RunError: there is no run in that folder, or a record is damaged.
    """
    (stage,) = explain_and_audit(folder, sample=AUDITED)
    verdicts = {item.row.place: str(item.verdict.outcome) for item in stage.graded if item.verdict.graded}
    return {
        "findings": [finding.to_json() for finding in stage.findings],
        "rounds": [one.to_json() for one in rounds(root_of(folder))],
        "held_out": [[*place, outcome] for place, outcome in verdicts.items()],
        "audit": audit_table(stage.history.steps, verdicts),
        "steps": len(stage.history.metrics),
        "left_out": stage.history.steps_left_out,
    }


def start(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that prints `explained(folder)`."""
    command = [sys.executable, "-m", "reasoner.observe.report.explained", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Wait for a process of `start` and return what it found; `{"error": ...}` if it failed."""
    out, said = process.communicate()
    if process.returncode == 0:
        found = parse_line(out.splitlines()[-1])
        assert is_object(found), found
        return found
    last = said.decode(errors="replace").strip().splitlines()[-1:]
    return {"error": last[0] if last else f"the process that reads the run ended with status {process.returncode}"}


def main(folder: str) -> int:
    """Print the findings of a stage; return the exit status."""
    try:
        sys.stdout.write(json_line(explained(Path(folder))) + "\n")
    except RunError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
