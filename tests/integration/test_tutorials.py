"""The blocks of docs/tutorials and docs/howto do what they say: all commands of a page, in order, in one shell.

What is not run as it stands: installations, downloads, and servers without an end. Models of the hub become a tiny
folder, and runs get a few steps; a how-to page finds a config `mine.yaml` and its finished run. A line with
`# exit status N` must end with N. Blocks of text are outputs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from reasoner.config.load import resolve
from reasoner.model.load import byte_tokenizer, scratch_config
from tests.unit.reasoner.test_advice import command_fault

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TUTORIALS = sorted(path.stem for path in (DOCS / "tutorials").glob("*.md") if path.stem != "index")
HOWTOS = sorted(path.stem for path in (DOCS / "howto").glob("*.md") if path.stem != "index")
QUICK = ("grading-service",)
"""Pages that need seconds; the others are slow."""
BLOCK = re.compile(
    r"(?:[Ss]ave\s+this\s+as\s+`(?P<file>[\w.]+)`[^\n]*\n\n)?```(?P<kind>\w*)\n(?P<text>.*?)```", re.DOTALL
)
EXIT = re.compile(r"# exit status (\d+)")
LEFT_OUT = ("git clone", "make setup", "source ", "pip install", "hf download", "tensorboard ", "reasoner doctor")
"""Beginnings of commands that need a network or have no end; `doctor` lists what is on a machine."""
BATCH = "rollout.problems_per_step=2 rollout.group_size=2"
HF = "model.path=tiny engine.name=hf engine.options={}"
TINY = f"{HF} {BATCH} rollout.max_tokens=4 prompt.chat=never eval.problems=2 grading.workers=1"
FEW = {
    "first-run": "sft.steps=2 sft.sft.until_accuracy=null grpo.steps=2 grpo.eval.problems=8 rollout.max_tokens=8",
    "own-data": f"{TINY} steps=1",
    "own-verifier": f"{TINY} steps=1",
    "own-environment": "sft.steps=2 grpo.steps=1 grpo.eval.problems=4 rollout.problems_per_step=2 rollout.group_size=2",
    "pairs-to-policy": "sft.steps=2 reward_model.steps=2 ppo.steps=1 eval.problems=8 rollout.problems_per_step=4",
}
"""Settings that a page's `reasoner train` gets in addition, before it is run here."""
MINE = """
model: tiny
task: {name: arithmetic, options: {family: addition, digits: 1}}
prompt: {chat: never}
rollout: {problems_per_step: 2, group_size: 2, max_tokens: 4}
engine: {name: hf}
grading: {workers: 1}
eval: {problems: 2}
steps: 1
output: runs/mine
"""


class Block(NamedTuple):
    """A block of a page: the file to save it as, its kind, and its text."""

    file: str
    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(m["file"] or "", m["kind"], m["text"]) for m in BLOCK.finditer(page.read_text())]


def commands(text: str) -> list[str]:
    """Return the commands of a block; a line that ends with a backslash goes on."""
    return [line for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines() if line.strip()]


def as_run(line: str, page: str) -> str:
    """Return a command of a page as it runs here; empty: it does not."""
    command = line.partition("  #")[0].strip()
    if command.startswith(LEFT_OUT):
        return ""
    trains = re.search(r"(^|-m )reasoner train ", command)
    if trains and page in FEW and "--dry-run" not in command:
        command += f" {FEW[page]}" + (" steps=2" if "--resume" in command else "")
    elif trains and page in FEW and "model" in FEW[page]:
        command += f" {HF}"
    elif trains and page == "several-gpus" and "--dry-run" not in command:
        command += " engine.name=hf output=runs/two"
    elif trains and page == "resume":
        command += "" if "steps=" in command else " steps=2"
    elif trains and "gpu_memory_utilization" in command:
        command += " engine.name=vllm"  # whose option it is
    if command.startswith("reasoner preflight "):
        command += f" {FEW.get(page, '')} --problems 2 --seconds 5"
    if "models/qwen" in command:
        command = command.replace("models/qwen", "tiny")
    if "data/gsm8k" in command:
        command = command.replace("data/gsm8k", "gsm8k.jsonl")
    expected = EXIT.search(line)
    if page == "trackers" and expected and importlib.util.find_spec("wandb"):
        expected = None  # it is installed here, and would ask for an account
        command += " --dry-run"
    if expected:
        return f"{{ {command}; }} && exit 99 || test $? = {expected[1]}"
    return command


def script(page: Path, folder: Path) -> str:
    """Save the files of a page, and return its commands and programs as one script."""
    lines = ["set -euo pipefail", f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT}"]
    for number, (file, kind, text) in enumerate(blocks(page)):
        if file:
            (folder / file).write_text(text)
        elif kind == "bash":
            for command in commands(text):
                if ran := as_run(command, page.stem):
                    lines += [f"echo '+' {number}: >&2", ran]
        elif kind == "python":
            (folder / f"block{number}.py").write_text(text)
            lines.append(f"python block{number}.py")
    return "\n".join(lines)


def run(text: str, folder: Path) -> None:
    """Run a script in a shell of its own; end what it has left behind."""
    out, errors = folder / "stdout.txt", folder / "stderr.txt"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with out.open("w") as to, errors.open("w") as faults:
        shell = subprocess.Popen(
            ["bash", "-xc", text], cwd=folder, env=environment, stdout=to, stderr=faults, start_new_session=True
        )
        try:
            shell.wait(timeout=1500)
        finally:
            with suppress(ProcessLookupError):  # servers that the page started
                os.killpg(shell.pid, signal.SIGTERM)
    said = errors.read_text()
    assert shell.returncode == 0, f"{out.read_text()[-3000:]}\n{said[-4000:]}"
    assert "Traceback" not in said, said[-4000:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a tiny model of bytes, and the parts of the clone that pages name."""
    for name in ("configs", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    from transformers import AutoModelForCausalLM

    section = {"from_scratch": {"hidden_size": 16, "layers": 1, "heads": 2, "max_positions": 512}}
    shape = resolve({"task": "arithmetic", "model": section}).stages[0].model.from_scratch
    assert shape is not None
    tokenizer = byte_tokenizer()
    AutoModelForCausalLM.from_config(scratch_config(shape, tokenizer)).save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    (tmp_path / "gsm8k.jsonl").write_text(
        "".join(f'{{"question": "{n} times 6?", "answer": "#### {6 * n}"}}\n' for n in range(40))
    )
    return tmp_path


@pytest.mark.integration
@pytest.mark.parametrize("name", QUICK)
def test_every_command_of_a_quick_tutorial_works(name: str, tmp_path: Path) -> None:
    run(script(DOCS / "tutorials" / f"{name}.md", tmp_path), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", [name for name in TUTORIALS if name not in QUICK])
def test_every_command_of_a_tutorial_works(name: str, folder: Path) -> None:
    run(script(DOCS / "tutorials" / f"{name}.md", folder), folder)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", HOWTOS)
def test_every_command_of_a_how_to_works(name: str, folder: Path) -> None:
    (folder / "mine.yaml").write_text(MINE)
    before = "" if name == "offline" else "reasoner train mine.yaml"
    page = script(DOCS / "howto" / f"{name}.md", folder).split("\n")
    run("\n".join([*page[:2], before, *page[2:]]), folder)


@pytest.mark.parametrize("page", [*DOCS.glob("tutorials/*.md"), *DOCS.glob("howto/*.md")], ids=lambda page: page.stem)
def test_every_command_of_a_page_parses(page: Path) -> None:
    lines = [line for block in blocks(page) if block.kind == "bash" for line in commands(block.text)]
    found = [line.partition("  #")[0] for line in lines if line.startswith("reasoner ")]
    assert found or page.stem == "index"
    assert [f"{line}: {fault}" for line in found if (fault := command_fault(line.removesuffix(" &")))] == []
    for block in blocks(page):
        assert block.kind in {"bash", "python", "yaml", "text"}, f"{page.name} has a block of no known kind"
