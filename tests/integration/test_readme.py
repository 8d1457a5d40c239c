"""The README from top to bottom in a fresh clone and one fresh shell: every command and code block does what it says.

What is not run as it stands: `make` (the environment of these tests is there already; `make quickstart` becomes the
command that it runs, with a few steps), models of the hub (a tiny folder takes their place), and rows of the GPU table
(`--dry-run`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.model.load import byte_tokenizer, scratch_config

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"(?:Save this as `(?P<file>[\w.]+)`[^\n]*\n\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL)
FEW = "sft.steps=2 sft.sft.until_accuracy=null grpo.steps=2 eval.problems=8 engine.name=hf"
FEW += " rollout.problems_per_step=2 rollout.group_size=2 logging.tensorboard=false"
TINY = "model.path=tiny steps=1 engine.name=hf rollout.problems_per_step=2 rollout.group_size=2 rollout.max_tokens=4"
TINY += " eval.problems=2 prompt.chat=never"


def blocks() -> list[tuple[str, str, str]]:
    """(file to save, kind, text) of each block that is a command, a program or a file."""
    found = [(m["file"] or "", m["kind"], m["text"]) for m in BLOCK.finditer(README.read_text())]
    return [(file, kind, text) for file, kind, text in found if kind or file]


def as_run(line: str) -> str:
    """A command of the README as it runs here."""
    command = line.partition("  #")[0].strip()
    if command.startswith(("git clone", "source ", "make setup")):
        return ""
    if command.startswith("make quickstart"):
        return f"reasoner train quickstart output={command.partition('RUN=')[2]} {FEW}"
    if command.startswith("reasoner view"):  # it serves until Ctrl-C
        return f"timeout --preserve-status --signal=INT 30 {command} --no-browser"
    if "mine.yaml" in command:
        asked = f"{command} {TINY}"
        return f"{asked} --problems 2 --seconds 5" if command.startswith("reasoner preflight") else asked
    return command


def gpu_commands() -> list[str]:
    table = README.read_text().partition("## Your GPU")[2].partition("\n## ")[0]
    return [f"{command} --dry-run output=gpu" for command in re.findall(r"`(reasoner train [^`]+)`", table)]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone with a tiny model beside the README."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    (tmp_path / "clone" / "README.md").write_text(README.read_text())
    section = {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 512}}
    shape = resolve({"task": "arithmetic", "model": section}).stages[0].model.from_scratch
    assert shape is not None
    from transformers import AutoModelForCausalLM

    tokenizer = byte_tokenizer()
    model = AutoModelForCausalLM.from_config(scratch_config(shape, tokenizer))
    model.save_pretrained(tmp_path / "clone" / "tiny")
    tokenizer.save_pretrained(tmp_path / "clone" / "tiny")
    return tmp_path / "clone"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_and_block_of_the_readme_works(clone: Path) -> None:
    script = ["set -euo pipefail", f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={clone}"]
    kinds: list[str] = []
    for file, kind, text in blocks():
        kinds.append(kind)
        if file:
            (clone / file).write_text(text)
        elif kind == "bash":
            script += [command for line in text.splitlines() if (command := as_run(line))]
        elif kind == "python":
            (clone / f"block{len(script)}.py").write_text(text)
            script.append(f"python block{len(script)}.py")
    script += gpu_commands()
    assert kinds.count("bash") >= 5
    assert len(gpu_commands()) >= 5
    for command in script[2:]:
        done = subprocess.run(
            ["bash", "-c", "\n".join([*script[:2], command])],
            cwd=clone,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr, command


def test_every_page_and_picture_that_the_readme_links_is_there() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert len(targets) > 12
    assert not [target for target in targets if not (ROOT / target).is_file()]
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")}
    assert pages <= set(targets)
