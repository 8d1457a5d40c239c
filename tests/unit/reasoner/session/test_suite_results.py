"""Metrics of suites by hand, published ones from recorded outputs, and the stored results of an evaluation."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from reasoner.config.load import resolve
from reasoner.config.stage import StageConfig
from reasoner.evaluation.estimates import estimate_of_parts
from reasoner.session.suite_overlap import overlap_sentence, overlaps_of
from reasoner.session.suite_results import (
    deviations,
    kept_result,
    lines,
    model_digest,
    other_results,
    problems_digest,
    settings_of,
    suite_figure,
    write_all,
    write_result,
)
from reasoner.session.suite_stage import Learned
from reasoner.storage.files import RunError
from tasks import Problem
from tasks.registry import get_task
from tasks.suites.table import suite_named
from verifiers import Verifier, get_verifier


def stage(**sections: object) -> StageConfig:
    defined = {
        "task": [{"name": "suite", "options": {"suite": "gsm8k"}}],
        "eval": {"max_tokens": 2048, "temperature": 0},
    }
    return resolve({"model": {"path": "m"}, **defined, **sections}).stages[0]


def problem(number: int, part: str = "") -> Problem:
    return Problem(id=f"s/{number}", prompt="p", reference="1", verifier="math", info={"part": part} if part else {})


def test_parts_count_the_same_whatever_their_size() -> None:
    found = estimate_of_parts({"a": [1.0] * 10, "b": [0.0] * 1000})
    assert tuple(found) == (0.5, 0.5, 0.5)
    mixed = estimate_of_parts({"a": [1.0, 0.0] * 50, "b": [1.0] * 7})
    spread = 1.96 * 0.5 / 100**0.5 / 2  # of a mean of 100, halved by the other part, which does not vary
    assert mixed.value == 0.75
    assert (mixed.low, mixed.high) == (pytest.approx(0.75 - spread, abs=0.01), pytest.approx(0.75 + spread, abs=0.01))


def test_the_figure_is_over_problems_or_over_parts_as_the_suite_says() -> None:
    asked = [problem(0, "a"), problem(1, "b"), problem(2, "b"), problem(3, "b")]
    values = [1.0, 0.0, 0.0, None]
    assert suite_figure(suite_named("bbh"), asked, values).value == 0.5
    assert suite_figure(suite_named("mmlu-stem"), asked, values).value == pytest.approx(1 / 3)
    assert suite_figure(suite_named("aime24"), asked, [0.5, 0.25, 0.0, 0.25]).value == 0.25


def test_what_the_user_changes_is_a_deviation() -> None:
    suite = suite_named("gsm8k")
    assert deviations(suite, settings_of(suite, stage(), problems=1319)) == []
    changed = stage(
        eval={"max_tokens": 100, "samples": 8, "temperature": 0.5, "top_p": 0.9}, prompt={"system": "Be brief."}
    )
    found = {
        one["setting"]: (one["definition"], one["here"])
        for one in deviations(suite, settings_of(suite, changed, problems=5))
    }
    assert found == {
        "problems": (1319, 5),
        "samples": (1, 8),
        "temperature": (0.0, 0.5),
        "top_p": (1.0, 0.9),
        "max_tokens": (2048, 100),
        "prompt_format": ({}, {"system": "Be brief."}),
    }


def result(**changed: object) -> dict:
    return {
        "metric": "accuracy", "value": 0.25, "low": 0.1, "high": 0.5, "problems": 4, "samples": 1, "truncated": 0.5,
        "ungraded": 0, "deviations": [], "identity": {"model": "a", "seed": 0, "max_tokens": 5}, **changed,
    }  # fmt: skip


def test_a_result_is_kept_for_the_same_settings_alone(tmp_path: Path) -> None:
    suite, same = suite_named("gsm8k"), {"model": "a", "seed": 0}
    assert kept_result(tmp_path, suite, same) is None
    write_result(tmp_path, suite, result())
    assert kept_result(tmp_path, suite, same) == result()
    with pytest.raises(RunError, match=r"seed was 0 and is 1\. Give --output another folder"):
        kept_result(tmp_path, suite, {**same, "seed": 1})
    assert [*other_results(tmp_path, ["bbh"], same)] == ["gsm8k"]
    assert other_results(tmp_path, ["gsm8k"], same) == other_results(tmp_path, ["bbh"], {"model": "b"}) == {}
    (tmp_path / "gsm8k" / "result.json").write_text('{"value": 1}')
    with pytest.raises(RunError, match=r"must contain the result of a suite\. Remove"):
        kept_result(tmp_path, suite, same)
    (tmp_path / "gsm8k" / "result.json").write_text("{")
    with pytest.raises(RunError, match="cannot be read"):
        kept_result(tmp_path, suite, same)


def test_the_published_json_and_the_table_say_the_same(tmp_path: Path) -> None:
    departed = result(metric="avg@8", samples=8, deviations=[{"setting": "samples", "definition": 1, "here": 8}])
    found = write_all(tmp_path, {"model": "m"}, {"gsm8k": result(), "bbh": departed})
    assert json.loads((tmp_path / "suites.json").read_text()) == found
    assert found["model"] == "m"
    assert "identity" not in json.dumps(found)
    assert lines({"gsm8k": result(), "bbh": departed}) == [
        "suite  problems  figure    value  95 % interval  truncated  ungraded  differs in",
        "gsm8k  4 x 1     accuracy  25.0   10.0 to 50.0   50 %       0         -",
        "bbh    4 x 8     avg@8     25.0   10.0 to 50.0   50 %       0         samples",
    ]


def test_a_model_is_known_by_what_is_in_its_files(tmp_path: Path) -> None:
    assert model_digest("org/Model") != model_digest("org/Other")
    (tmp_path / "config.json").write_text("{}")
    weights = bytearray(range(256)) * 8192
    (tmp_path / "model.safetensors").write_bytes(weights)
    before = model_digest(str(tmp_path))
    (tmp_path / "README.md").write_text("a card")
    assert model_digest(str(tmp_path)) == before
    weights[1_000_000] ^= 1
    (tmp_path / "model.safetensors").write_bytes(weights)
    assert model_digest(str(tmp_path)) != before


def test_problems_are_known_by_what_is_asked_and_compared() -> None:
    one = [problem(0), problem(1)]
    assert problems_digest(one) == problems_digest([*one])
    for changed in ({"prompt": "q"}, {"reference": "2"}, {"verifier": "exact"}):
        assert problems_digest([replace(one[0], **changed), one[1]]) != problems_digest(one)
    assert problems_digest(one[:1]) != problems_digest(one)


TOLD = [
    f"A farmer has {n} hens and sells {n + 3} eggs a day at the market for {n + 1} coins each; how many coins?"
    for n in range(3)
]


def test_questions_of_the_training_data_are_found_without_the_words_around_them(tmp_path: Path) -> None:
    rows = [{"question": TOLD[at], "answer": f"#### {at}"} for at in range(2)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = {"path": str(tmp_path / "train.jsonl"), "verifier": "math", "held_out_share": 0}
    trained = stage(task=[{"name": "dataset", "options": options}])
    suite = suite_named("gsm8k")
    asked = [
        replace(problem(at), prompt=suite.prompt.replace("{question}", text))
        for at, text in enumerate([TOLD[0], TOLD[1], "What is the capital of the country that lies north of Italy?"])
    ]
    found = overlaps_of([(suite, asked)], Learned([trained]))["gsm8k"]
    assert isinstance(found, dict)
    assert (found["training_problems"], found["found"], found["not_read"]) == (2, 2, [])
    assert overlap_sentence(found, problems=3).startswith("2 of 3 questions appear, completely or mostly, in the 2")
    assert overlaps_of([(suite, asked)], None) == {}
    assert overlap_sentence(None, problems=3) == ""
    refused = overlaps_of([(suite, asked)], Learned([trained], "it names code"))["gsm8k"]
    assert overlap_sentence(refused, problems=3).endswith("was not checked: it names code")
    gone = stage(task=[{"name": "dataset", "options": {**options, "path": str(tmp_path / "gone.jsonl")}}])
    assert "no file or folder" in overlap_sentence(overlaps_of([(suite, asked)], Learned([gone]))["gsm8k"], problems=3)


def test_prompts_of_demonstrations_are_training_data(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": TOLD[0]}, {"role": "assistant", "content": "3"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    trained = stage(method="sft", task=[], sft={"data": str(tmp_path / "chats.jsonl")})
    suite = suite_named("gsm8k")
    asked = [replace(problem(0), prompt=suite.prompt.replace("{question}", TOLD[0]))]
    found = overlaps_of([(suite, asked)], Learned([trained]))["gsm8k"]
    assert isinstance(found, dict)
    assert (found["training_problems"], found["found"]) == (1, 1)


@cache
def verifier(name: str, options: str) -> Verifier:
    return get_verifier(name, **json.loads(options))


def graded(problems: Sequence[Problem], completions: Sequence[str]) -> list[float | None]:
    """Recorded completions by the suite's verifiers."""
    return [
        verifier(one.verifier, json.dumps(dict(one.verifier_options)))
        .verify(completion=completion, reference=one.reference, prompt=str(one.prompt), info=one.info)
        .quality
        for one, completion in zip(problems, completions, strict=True)
    ]


def recorded(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as rows:
        return [json.loads(row) for row in rows]


def test_gsm8k_reproduces_published_figures_from_recorded_outputs(data_dir: Path) -> None:
    suite, path = suite_named("gsm8k"), str(data_dir / "math" / "gsm8k_test.jsonl.gz")
    asked = get_task("suite", suite="gsm8k", path=path).problems("test")
    assert len(asked) == suite.size
    rows = recorded(data_dir / "math_outputs" / "gsm8k_example_model_solutions.jsonl.gz")
    for model, published in (("6b_finetuning", 21.7), ("175b_verification", 56.3)):
        found = suite_figure(suite, asked, graded(asked, [row[model]["solution"] for row in rows]))
        assert round(100 * found.value, 1) == published
        assert found.low < published / 100 < found.high
    tora = recorded(data_dir / "math_outputs" / "tora-70b-v1.0_gsm8k.jsonl.gz")
    found = suite_figure(suite, asked, graded(asked, [f"\\boxed{{{row['pred'][0]}}}" for row in tora]))
    assert round(100 * found.value, 1) == 84.3


def test_bbh_reproduces_published_figures_from_recorded_outputs(data_dir: Path) -> None:
    """Suzgun et al. publish the accuracy on each subtask: `choice` and `exact` give all 27 of them."""
    suite = suite_named("bbh")
    asked = get_task("suite", suite="bbh", path=str(data_dir / "logic" / "bbh.jsonl.gz")).problems("test")
    assert len(asked) == suite.size
    values = graded(
        asked, [row["prediction"] for row in recorded(data_dir / "logic" / "bbh_codex_cot_outputs.jsonl.gz")]
    )
    parts: dict[str, list[float]] = defaultdict(list)
    for one, value in zip(asked, values, strict=True):
        parts[str(one.info["part"])].append(value or 0.0)
    published = json.loads((data_dir / "logic" / "bbh_codex_cot_accuracy.json").read_text())
    assert {name: round(100 * sum(part) / len(part), 6) for name, part in parts.items()} == {
        name: round(value, 6) for name, value in published.items()
    }
    found = suite_figure(suite, asked, values)
    assert 100 * found.value == pytest.approx(sum(published.values()) / 27)
    assert found.low < found.value < found.high < found.low + 0.025


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("math500", "math500.jsonl.gz"),
        ("aime24", "aime24.jsonl"),
        ("amc23", "amc23.jsonl"),
        ("mmlu-stem", "mmlu_stem.jsonl.gz"),
    ],
)
def test_sets_at_hand_have_all_their_problems_and_their_golds_are_right(data_dir: Path, name: str, file: str) -> None:
    suite = suite_named(name)
    asked = get_task("suite", suite=name, path=str(data_dir / "math" / file)).problems("test")
    assert len(asked) == suite.size
    golds = [f"Answer: {one.reference}" if name == "mmlu-stem" else f"\\boxed{{{one.reference}}}" for one in asked]
    assert suite_figure(suite, asked, graded(asked, golds)).value == 1.0
