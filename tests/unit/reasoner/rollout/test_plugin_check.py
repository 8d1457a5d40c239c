"""A user's reward function is tested before anything is sampled, and the message says what it must return."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.rollout.plugin_check import check_plugins, plugin_rows
from reasoner.session.opening import open_session
from reasoner.stages.checks import check_stage
from tasks import Problem
from verifiers import GradingRow
from verifiers.errors import BadReturn
from verifiers.verdict import JSON

FUNCTIONS = """
import asyncio
def good(completion, reference): return completion == reference
async def awaited(completion, reference):
    await asyncio.sleep(0)
    return 0.5
def forgets(completion, reference):
    if completion == reference: return 1.0
def text(completion, reference): return "1.0"
def of_any_size(completion, reference): return 5
def empty_fails(completion, reference): return completion.split()[0] == reference
def fails(completion, reference): return {}[completion]
def trl(prompts, completions, **columns): return [1.0, 2.0, 3.0, 4.0]
"""
TINY: dict[str, object] = {"model": {"from_scratch": {}}, "engine": {"name": "hf"}, "eval": {"problems": 0}}


@pytest.fixture
def plugins(tmp_path: Path) -> str:
    (tmp_path / "plug.py").write_text(FUNCTIONS)
    return str(tmp_path / "plug.py")


def problem(verifier: str, reference: JSON = "4", **options: JSON) -> Problem:
    return Problem(id="p", prompt="2+2=", reference=reference, verifier=verifier, verifier_options=options)


def config_of(**changes: object) -> StageConfig:
    return resolve({**TINY, "task": "arithmetic", **changes}).stages[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "forgets",
            r"got None\. Some path through the function has no `return`"
            r".*completion 'I do not know\.' with the reference",
        ),
        ("text", r"got str '1\.0'\. Return float"),
        ("of_any_size", r"got 5\. Scale it into \[0, 1\]"),
    ],
)
def test_what_is_no_reward_is_named_before_sampling(plugins: str, name: str, says: str) -> None:
    with pytest.raises(BadReturn, match=says) as caught:
        check_plugins(config_of(), [problem(f"{plugins}:{name}")])
    assert f"`reasoner verifiers check {plugins}:{name}` tries more" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_function_of_trls_shape_is_tried_too(plugins: str) -> None:
    with pytest.raises(BadReturn, match=r"must return a list of 3 rewards, one per completion; got 4|of 1 rewards"):
        check_plugins(config_of(), [problem("trl", function=f"{plugins}:trl", column=None, chat=False)])


def test_functions_that_work_say_nothing_and_one_that_never_does_is_said(plugins: str) -> None:
    fine = [problem(f"{plugins}:{name}") for name in ("good", "awaited", "empty_fails")]
    assert check_plugins(config_of(), [*fine, problem("exact")]) == []
    (said,) = check_plugins(config_of(), [problem(f"{plugins}:fails")])
    assert said.startswith(f"{plugins}:fails could not grade any of 3 completions tried: KeyError")


def test_parts_of_a_composed_reward_get_their_own_reference(plugins: str) -> None:
    parts: JSON = [
        {"verifier": "exact", "reference": "gold"},
        {"verifier": f"{plugins}:good", "reference": "mine"},
        {"verifier": "all-of", "options": {"parts": [f"{plugins}:awaited"]}},
        {"verifier": f"{plugins}:text", "reference": "absent"},
    ]
    row = GradingRow(completion="c", reference={"gold": "1", "mine": "2"})
    found = [(trial.name, trial.row.reference) for trial in plugin_rows("weighted", {"parts": parts}, row)]
    assert found == [(f"{plugins}:good", "2"), (f"{plugins}:awaited", row.reference)]


@pytest.mark.parametrize(
    "name",
    ["math", "exact", "http://localhost:9/math", "tasks.covering:true_score", "reward-model", "judge-model", "judge"],
)
def test_verifiers_of_our_own_and_services_are_not_tried(name: str) -> None:
    assert list(plugin_rows(name, {}, GradingRow(completion="c", reference="4"))) == []


def test_the_held_out_scorer_is_tried(plugins: str) -> None:
    with pytest.raises(BadReturn, match="got None"):
        check_plugins(config_of(watch={"scorer": {"name": f"{plugins}:forgets"}}), [problem("exact")])
    assert check_plugins(config_of(watch={"scorer": {"name": "own"}}), [problem("exact")]) == []


def test_a_run_and_its_dry_run_stop_before_the_model_is_loaded(plugins: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n}+1?", "reference": str(n + 1)}) + "\n" for n in range(20)))
    task = {"name": "dataset", "options": {"path": str(rows), "verifier": "math"}}
    own = {**task, "verifier": {"name": f"{plugins}:forgets"}}
    with pytest.raises(BadReturn, match="got None"):
        check_stage(config_of(task=own), coming=None)
    by_reward = config_of(task=task, reward={"name": f"{plugins}:forgets"}, model="./nowhere")
    with pytest.raises(BadReturn, match="got None"), open_session(by_reward, tmp_path / "run", resume=False):
        pass
    check_stage(config_of(task={**task, "verifier": {"name": f"{plugins}:awaited"}}), coming=None)
