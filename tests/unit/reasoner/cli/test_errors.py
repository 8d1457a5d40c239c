"""A wrong argument of any command gives one line and exit status 2, never a traceback, and is never accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasoner.cli import app
from tests.unit.reasoner.runs import make_records, write_run

WRONG = {
    "compare RUN@last RUN": "the step of RUN@STEP must be a number",
    "rescore RUN --steps 77": "--steps must meet steps 1 to 2 of the run",
    "rescore RUN --steps 2-1": "--steps must meet steps 1 to 2 of the run",
    "rescore RUN --output .": "cannot be written: Is a directory",
    "report RUN --output .": "cannot be written: Is a directory",
    "report RUN --output gone/page.html": "cannot be written: No such file or directory",
    "explain RUN --held-out exat": "Did you mean 'exact'",
    "verify gone.jsonl --verifier math": "no file or folder 'gone.jsonl'",
    "verify half.jsonl.gz --verifier math": "cannot be read",
    "verify -v length -o soft=x --gold 1 --completion 1": "option 'soft': Input should be a valid integer",
    "verify -v gate -o gate=5 -o then=6 --gold 1 --completion 1": "error: ",
    "verifiers audit math gone.jsonl": "cannot be read",
    "verifiers serve --token-file gone": "does not exist",
    "sandbox run program.py --cpu -1": "Invalid value for '--cpu'",
    "label half.jsonl.gz --summary": "half.jsonl.gz cannot be read: Compressed file ended",
    "export . exported": "must contain a model; it has none",
    "train deep.yaml --dry-run": "must be YAML",
    "train surrogate.yaml --dry-run": r"contains '\ud800', half of a surrogate pair",
    "tasks show arithmetic -o digits=x": "option 'digits'",
}


@pytest.mark.parametrize("command", list(WRONG))
def test_a_wrong_argument_is_a_line_and_exit_status_two(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reasoner.engine.environment.prepare_process", lambda: None)  # this process has torch already
    monkeypatch.setenv("COLUMNS", "300")
    write_run(tmp_path / "RUN", make_records(steps=2, problems=2))
    (tmp_path / "half.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00half")
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 3000)
    (tmp_path / "surrogate.yaml").write_text('task: arithmetic\nmodel: a/b\nprompt: {system: "\\ud800"}\n')
    (tmp_path / "program.py").write_text("")
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 2, done.output
    assert isinstance(done.exception, SystemExit)
    assert WRONG[command] in done.output
