"""TRL (here), verl and reasoning-gym (in separate environments), in both directions, with the real packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from verifiers import GradingRow, Outcome, VerifierError, get_verifier
from verifiers.integrations.trl import reward_function
from verifiers.integrations.verl import compute_score
from verifiers.pool import GradingPool

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
CHAT = [
    [{"role": "assistant", "content": text}] for text in (r"\boxed{\frac{1}{3}}", r"\boxed{\frac{1}{2}}", "no idea")
]


def test_trl_reward_functions_as_verifiers() -> None:
    """TRL's own function gives the same verdicts through the pool."""
    from trl.rewards import accuracy_reward

    golds = [r"\frac{1}{3}"] * 3
    theirs = accuracy_reward(CHAT, golds)
    with GradingPool(workers=1) as pool:
        futures = [
            pool.submit(
                "trl",
                {"function": "trl.rewards:accuracy_reward"},
                GradingRow(completion=message[0]["content"], reference=gold),
            )
            for message, gold in zip(CHAT, golds, strict=True)
        ]
        verdicts = [future.result() for future in futures]
        skipped = pool.submit(
            "trl", {"function": "trl.rewards:accuracy_reward"}, GradingRow(completion="3", reference="no gold at all")
        ).result()
        form = pool.submit(
            "trl",
            {"function": "trl.rewards:think_format_reward", "column": None},  # pyright: ignore
            GradingRow(completion="<think>\nso\n</think>\n3", reference=None),
        ).result()
    assert [verdict.reward for verdict in verdicts] == theirs == [1.0, 0.0, 0.0]
    assert (skipped.outcome, skipped.reward) == (Outcome.BAD_REFERENCE, None)
    assert form.reward == 1.0, form.reason


def test_our_verifiers_as_trl_reward_functions() -> None:
    reward = reward_function("math", reference="solution")
    assert reward.__name__ == "math"
    logged: dict[str, float] = {}
    found = reward(
        prompts=[[{"role": "user", "content": "?"}]] * 3,
        completions=CHAT,
        completion_ids=[[1]] * 3,
        solution=["1/3", "1/3", r"\frac{1}{"],
        log_metric=logged.__setitem__,
    )
    assert found == [1.0, 0.0, None]  # a bad gold is no zero: TRL leaves the row out
    assert logged == {"ungraded/math": pytest.approx(1 / 3)}
    assert reward(prompts=["?"], completions=["3"], solution=[r"\frac{1}{"]) == [None]


def test_our_verifiers_as_verl_compute_score() -> None:
    assert compute_score("gsm8k", "#### 4", "4", {"index": 1}, verifier="math") == {
        "score": 1.0,
        "acc": True,
        "outcome": "correct",
    }
    chosen = {"verifier": "choice", "verifier_options": {"choices": ["yes", "no"]}}
    assert compute_score("any", "The answer is no.", "yes", chosen, verifier="math")["score"] == 0.0  # pyright: ignore
    assert compute_score("a", "#### 1", "1", verifiers={"a": "exact"})["acc"] is True
    with pytest.raises(VerifierError, match="bad_reference by numeric"):
        compute_score("a", "#### 1", "one", verifier="numeric")
    assert compute_score("a", "#### 1", "one", verifier="numeric", ungraded=-1.0)["score"] == -1.0
    with pytest.raises(VerifierError, match="no verifier for data source 'a'"):
        compute_score("a", "#### 1", "1")


@pytest.mark.slow
def test_trl_trains_with_our_verifier(tmp_path: Path) -> None:
    """Two steps of TRL's own GRPOTrainer on a model with random weights."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from reasoner.config.sections import ModelSection
    from reasoner.model.load import load_model

    section = ModelSection.model_validate(
        {"from_scratch": {"hidden_size": 32, "layers": 1, "heads": 1, "max_positions": 96}}
    )
    made = load_model(section, seed=0)
    model, tokenizer = made.model, made.tokenizer
    tokenizer.padding_side = "left"
    data = Dataset.from_list([{"prompt": f"{n}+1=", "solution": str(n + 1)} for n in range(8)])
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=[reward_function("math", reference="solution", workers=1)],
        train_dataset=data,
        args=GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            num_generations=4,
            per_device_train_batch_size=4,
            max_completion_length=6,
            use_cpu=True,
            report_to=[],
            logging_steps=1,
            save_strategy="no",
        ),
    )
    trainer.train()
    logged = [row for row in trainer.state.log_history if "rewards/math/mean" in row]
    assert len(logged) == 2
    assert all("ungraded/math" in row for row in logged)


def environment(folder: Path, *packages: str) -> str:
    """Return the python of a new environment with packages from the index, which also sees this environment's
    packages.
    """
    venv.create(folder / "env", with_pip=True)
    python = str(folder / "env" / "bin" / "python")
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    site = next((folder / "env" / "lib").glob("python*/site-packages"))
    (site / "zz-reasoner.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    return python


def said(python: str, code: str, folder: Path) -> object:
    given = os.environ | {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=folder, timeout=600, env=given)
    assert done.returncode == 0, done.stderr[-3000:]
    last = done.stdout.strip().split("\n")[-1]
    return json.loads(last[last.index("{") :])  # some packages print dots of their own before it


GYM = """
import json, reasoning_gym
from reasoning_gym.factory import DATASETS
from tasks.registry import get_task
from tasks.validate import validate_task
from verifiers.pool import GradingPool, GradingRequest
from verifiers import GradingRow

faults, golds = [], 0
for name in sorted(set(DATASETS) - {"composite"}):
    found = validate_task(get_task("reasoning-gym", dataset=name, train_size=2, test_size=1), "train")
    faults += found.faults
    golds += found.total
theirs, ours = [], []
data = reasoning_gym.create_dataset("leg_counting", size=20, seed=3)
problems = get_task("reasoning-gym", dataset="leg_counting", seed=3, train_size=20).problems("train")
with GradingPool(workers=1) as pool:
    for turn, (entry, problem) in enumerate(zip(data, problems)):
        answer = entry["answer"] if turn % 2 else "17"
        theirs.append(data.score_answer(answer=answer, entry=entry))
        row = GradingRow(completion=f"<answer>{answer}</answer>", reference=problem.reference)
        ours.append(pool.submit("reasoning-gym", {}, row).result().reward)
print(json.dumps({"datasets": len(DATASETS) - 1, "golds": golds, "faults": faults, "theirs": theirs, "ours": ours}))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_reasoning_gym(tmp_path: Path) -> None:
    found = said(environment(tmp_path, "reasoning-gym"), GYM, tmp_path)
    assert isinstance(found, dict)
    assert found["datasets"] >= 100
    assert not found["faults"]
    assert found["theirs"] == found["ours"]
    assert 1.0 in found["ours"]


VERL = """
import importlib.util, json, sys, types
root = importlib.util.find_spec("verl").submodule_search_locations[0]
for name, path in (("verl", root), ("verl.utils", root + "/utils")):
    package = types.ModuleType(name)  # their own __init__ import Ray and omegaconf, which scoring does not need
    package.__path__ = [path]
    sys.modules[name] = package
from verl.utils.reward_score import default_compute_score
from verifiers import get_verifier
from verifiers.integrations import verl as ours

verifier = get_verifier("verl", function="verl.utils.reward_score:default_compute_score", data_source="openai/gsm8k")
theirs = [default_compute_score("openai/gsm8k", f"so #### {n}", "4") for n in (4, 5)]
wrapped = [verifier.verify(completion=f"so #### {n}", reference="4").reward for n in (4, 5)]
spec = importlib.util.spec_from_file_location("custom_module", ours.__file__)  # as verl loads a custom function
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
given = {"data_source": "x", "ground_truth": "4", "extra_info": {}, "verifier": "math"}
scores = [module.compute_score(solution_str=f"#### {n}", **given) for n in (4, 5)]
print(json.dumps({"theirs": theirs, "wrapped": wrapped, "scores": [score["score"] for score in scores]}))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_verl(tmp_path: Path) -> None:
    """verl without its dependencies (Ray, CUDA): its scoring functions, and its way of loading a custom one."""
    python = environment(tmp_path, "--no-deps", "verl")
    found = said(python, VERL, tmp_path)
    assert found == {"theirs": [1.0, 0.0], "wrapped": [1.0, 0.0], "scores": [1.0, 0.0]}


def test_neighbours_that_are_not_there_are_named() -> None:
    verdict_of = GradingRow(completion="<answer>1</answer>", reference={"dataset": "leg_counting", "entry": {}})
    import importlib.util

    if importlib.util.find_spec("reasoning_gym") is None:
        with GradingPool(workers=1) as pool:
            verdict = pool.submit("reasoning-gym", {}, verdict_of).result()
        assert "Install 'reasoning_gym'" in verdict.reason
    with pytest.raises(VerifierError, match="cannot load"):
        get_verifier("verl", function="verl_is_not_here:compute_score")
    assert sys.modules.get("verl") is None
