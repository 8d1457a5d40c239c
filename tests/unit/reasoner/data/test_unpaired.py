"""Single completions with a label: shapes, faults, mismatched completions, and what `data check` says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import KtoSection, PreferenceSection
from reasoner.data.check import Report, Watch, check_stage
from reasoner.data.check_text import lines
from reasoner.data.preferences import Pair
from reasoner.data.propose import stages_of
from reasoner.data.unpaired import halves, labelled_of, load_unpaired, lopsided, mismatched, one_label
from reasoner.stages.names import check_names
from tasks import UnusableRow

GOOD: dict[str, object] = {"prompt": "Say 2.", "completion": "2", "label": True}
CHAT: dict[str, object] = {
    "prompt": [{"role": "user", "content": "Say 2."}],
    "completion": [{"role": "assistant", "content": "2"}],
    "label": False,
}


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def many(count: int, *, good: int) -> list[dict[str, object]]:
    return [{"prompt": f"Say {n}.", "completion": f"{n}!", "label": n < good} for n in range(count)]


def test_rows_of_trl_are_read_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [GOOD, CHAT, {"prompt": "Say 3.", "completion": "4", "kto_tag": "false"}])
    found = load_unpaired(PreferenceSection(train=[path], held_out_share=0.0), split_pairs=False).train
    assert [(row.completion, row.desirable) for row in found.rows] == [("2", True), ("2", False), ("4", False)]
    assert found.rows[1].prompt == ({"role": "user", "content": "Say 2."},)
    assert found.bad == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"label": "good"}, "label must be true .desirable. or false; got 'good'"),
        ({"label": 0.5}, "label must be true .desirable. or false; got 0.5"),
        ({"label": None}, "has no value in column 'label'"),
        ({"completion": "  "}, "the completion is empty"),
        ({"prompt": ""}, "the prompt is empty"),
        ({"completion": None, "chosen": "a", "rejected": "b"}, "is a pair.*kto.split_pairs: true"),
        ({"completion": None, "chosen": "a"}, "has no value in column 'completion'"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(change: dict[str, object], says: str) -> None:
    with pytest.raises(UnusableRow, match=says):
        labelled_of({**GOOD, **change}, where="f")


def test_a_misspelt_column_is_told() -> None:
    with pytest.raises(UnusableRow, match=r"has no value in column 'completion'.*Did you mean 'completions'"):
        labelled_of({"prompt": "Say 2.", "completions": "2", "label": True}, where="f")


@pytest.mark.parametrize(("label", "desirable"), [(True, True), ("True", True), (0, False), ("false", False)])
def test_labels_may_be_written_as_text(label: object, desirable: bool) -> None:
    assert labelled_of({**GOOD, "label": label}, where="f").desirable is desirable


def test_a_pair_becomes_two_rows_and_a_tie_none() -> None:
    pairs = [
        Pair(id="a", prompt="p", first="x", second="y"),
        Pair(id="b", prompt="p", first="x", second="z", target=0.5),
    ]
    assert [(row.completion, row.desirable) for row in halves(pairs)] == [("x", True), ("y", False)]


def test_rows_of_one_prompt_are_held_out_together(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [{**row, "completion": text} for row in many(60, good=30) for text in "ab"])
    train, test = load_unpaired(PreferenceSection(train=[path], held_out_share=0.3), split_pairs=False)
    assert len(train.rows) + len(test.rows) == 120
    assert not {row.prompt for row in train.rows} & {row.prompt for row in test.rows}
    assert len(test.rows) > 10


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (1, 4, 3), (5, 5), (1, 1)])
def test_a_mismatched_completion_is_of_another_prompt_and_each_is_used_once(sizes: tuple[int, ...]) -> None:
    prompts = [name for name, size in enumerate(sizes) for _ in range(size)]
    for seed in range(5):
        chosen = mismatched(prompts, seed=seed)
        assert sorted(chosen) == [*range(len(prompts))]
        assert all(prompts[row] != prompts[other] for row, other in enumerate(chosen))
    assert mismatched(prompts, seed=1) == mismatched(prompts, seed=1)
    assert mismatched([0, 0, 0, 1], seed=0) != [0, 1, 2, 3]  # too many of one prompt: only some are of another
    assert mismatched([], seed=0) == []


@pytest.mark.parametrize(
    ("desirable", "weights", "says"),
    [
        (50, {}, None),
        (57, {}, None),
        (20, {}, "20 rows are desirable and 80 are not.*undesirable ones count 4.0 times.*kto.desirable_weight to 4$"),
        (80, {}, "the desirable ones count 4.0 times.*Set kto.undesirable_weight to 4$"),
        (80, {"undesirable_weight": 4.0}, None),
        (80, {"desirable_weight": 2.0, "undesirable_weight": 1.0}, "8.0 times.*kto.undesirable_weight to 8$"),
        (100, {}, None),  # one label only is another sentence
    ],
)
def test_lopsided_labels_are_told_with_the_weight_that_mends_them(
    desirable: int, weights: dict[str, float], says: str | None
) -> None:
    found = lopsided(desirable, 100, KtoSection(**weights))
    if says is None:
        assert found is None
    else:
        assert re.search(says, str(found))


def test_one_label_teaches_nothing() -> None:
    assert "all 5 rows are desirable" in str(one_label(5, 5))
    assert "undesirable (label false)" in str(one_label(0, 5))
    assert (one_label(2, 5), one_label(0, 0)) == (None, None)


def report_of(path: str, *settings: str) -> Report:
    (stage,) = stages_of(path, settings, use=None, model=None).stages
    assert stage.method == "kto"
    (report,) = check_stage(stage, Watch())
    return report


def test_data_check_knows_the_shape_and_says_what_is_wrong(tmp_path: Path) -> None:
    fine = report_of(write(tmp_path / "fine.jsonl", many(40, good=20)))
    assert (fine.use, fine.fault) == ("unpaired", None)
    assert any("20 of 40 usable rows are desirable" in note for note in fine.notes)
    lone = report_of(write(tmp_path / "lone.jsonl", many(40, good=40)))
    assert "all 40 rows are desirable" in str(lone.fault)
    few = report_of(write(tmp_path / "few.jsonl", many(40, good=4)))
    assert any("Set kto.desirable_weight to 9" in note for note in few.notes)
    mixed = [*many(40, good=20), {**GOOD, "label": "good"}, {**GOOD, "completion": ""}, {**GOOD, "label": False}, GOOD]
    text = "\n".join(lines(report_of(write(tmp_path / "mixed.jsonl", mixed), "kto.desirable_weight=1.5")))
    assert "label must be true or false; got 'good'" in text
    assert "the completion is empty" in text
    assert "contradictions (the same prompt with the same completion, labelled otherwise): 1" in text


def test_pairs_given_to_kto_are_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "pairs.jsonl", [{"prompt": f"p{n}", "chosen": "a", "rejected": "b"} for n in range(9)])
    made: dict[str, object] = {"method": "kto", "model": {"from_scratch": {}}, "preferences": {"train": path}}
    with pytest.raises(ConfigError, match=r"is a pair.*kto\.split_pairs: true"):
        check_names(resolve(made).stages[0], coming=None)
    check_names(resolve({**made, "kto": {"split_pairs": True}}).stages[0], coming=None)
    with pytest.raises(ConfigError, match=r"preferences\.targets must be label for method kto"):
        resolve({**made, "preferences": {"train": path, "targets": "probability"}})
    with pytest.raises(ConfigError, match=r"at least one file of rows \{prompt, completion, label\} for method kto"):
        resolve({**made, "preferences": {}})
