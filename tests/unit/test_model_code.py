"""Code that comes with a model or a data set is never run, and no prompt asks for permission."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOADING = {"from_pretrained", "from_config", "load_dataset", "LLM", "pipeline"}
"""Functions that run code which comes with their data, if told to or after asking at the terminal."""
PLAIN = {"GenerationConfig.from_pretrained"}
"""Functions that only read JSON."""


def loading_calls(source: str) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call for call in calls
        if getattr(call.func, "attr", getattr(call.func, "id", "")) in LOADING and ast.unparse(call.func) not in PLAIN
    ]  # fmt: skip


def refuses_code(call: ast.Call) -> bool:
    return any(word.arg == "trust_remote_code" and ast.unparse(word.value) == "False" for word in call.keywords)


def test_every_call_that_loads_says_that_no_code_is_run() -> None:
    files = [path for room in ("reasoner", "tasks", "verifiers", "sandbox") for path in (ROOT / room).rglob("*.py")]
    found = [(path, call) for path in files for call in loading_calls(path.read_text())]
    assert len(found) >= 10
    bare = [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in found if not refuses_code(call)]
    assert bare == []


@pytest.mark.parametrize(
    ("source", "calls", "refused"),
    [
        ("AutoModel.from_pretrained(path)", 1, False),
        ("AutoModel.from_pretrained(path, trust_remote_code=True)", 1, False),
        ("transformers.AutoConfig.from_pretrained(path, **more)", 1, False),
        ("vllm.LLM(trust_remote_code=False, **more)", 1, True),
        ("load_dataset(path, trust_remote_code=False)", 1, True),
        ("GenerationConfig.from_pretrained(path)", 0, True),
        ("model.save_pretrained(path)", 0, True),
    ],
)
def test_the_check_itself(source: str, calls: int, refused: bool) -> None:
    found = loading_calls(source)
    assert len(found) == calls
    assert all(refuses_code(call) == refused for call in found)


CODE = """
from transformers import PretrainedConfig, PreTrainedModel
from transformers import PreTrainedTokenizerFast
open({mark!r}, "w").close()
class Config(PretrainedConfig):
    model_type = "own"
class Model(PreTrainedModel):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""
LOADERS = {
    "model": "load_model(ModelSection(path={path!r}), seed=0)",
    "tokenizer": "load_tokenizer({path!r})",
    "config": "load_config_and_tokenizer(ModelSection(path={path!r}))",
    "reward model": "RewardModel({path!r})",
    "engine": "open_engine('hf', model_path={path!r}, max_model_len=16)",
}


@pytest.mark.parametrize("known", [False, True])
def test_a_folder_with_code_is_loaded_without_it_or_refused(tmp_path: Path, known: bool) -> None:
    """With an answer `y` waiting at standard input; `known`: of a family that transformers has classes for."""
    mark = tmp_path / "ran"
    (tmp_path / "own.py").write_text(CODE.format(mark=str(mark)))
    classes = {"AutoConfig": "own.Config", "AutoTokenizer": ["own.Tokenizer", None]}
    classes |= {f"AutoModelFor{kind}": "own.Model" for kind in ("CausalLM", "SequenceClassification")}
    model_type = {"model_type": "qwen2"} if known else {"model_type": "own"}
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": classes, "architectures": ["Model"], **model_type}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": classes, "tokenizer_class": "Tokenizer"}))
    script = (
        "from reasoner.config.sections import ModelSection\n"
        "from reasoner.engine import open_engine\n"
        "from reasoner.graders.reward_model import RewardModel\n"
        "from reasoner.model.load import ModelError, load_config_and_tokenizer, load_model, load_tokenizer\n"
        f"for name, load in {LOADERS!r}.items():\n"
        f"    try:\n        exec(load.format(path={str(tmp_path)!r}))\n"
        "    except (ModelError, OSError, ValueError) as error:\n        print('refused', name + ':', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input="y\n" * 20, capture_output=True, text=True, timeout=240, cwd=ROOT
    )
    assert not mark.exists()
    assert "[y/N]" not in done.stdout + done.stderr
    told = {name: line for line in done.stdout.splitlines() for name in LOADERS if line.startswith(f"refused {name}:")}
    assert told.keys() == LOADERS.keys(), done.stderr
    if not known:
        assert all("its own Python code, which is never run" in told[name] for name in ("model", "config"))
