"""Rows of many layouts become pairs; invalid rows are named and counted; reward models are evaluated the same way."""

from __future__ import annotations

import gzip
import json
import math
from collections import defaultdict
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PreferenceSection
from reasoner.data.check import Watch, check_preferences
from reasoner.data.preferences import load_pairs, read_pair, transcript
from reasoner.data.rows import BAD_ROWS, RowPolicy, report_bad_rows
from reasoner.evaluation.reward_report import calibration, length_bias, pair_report, pairwise_accuracy
from tasks import BadRow, UnusableRow

SECTION = PreferenceSection()
CHAT = [{"role": "user", "content": "hi"}]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("row", "prompt", "first", "second", "target"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "p", "a", "b", 1.0),
        ({"prompt": "p", "first": "a", "second": "b", "label": "second"}, "p", "b", "a", 1.0),
        ({"prompt": "p", "first": "a", "second": "b", "label": "tie"}, "p", "a", "b", 0.5),
        ({"prompt": CHAT, "chosen": [said("a")], "rejected": [said("b")]}, tuple(CHAT), "a", "b", 1.0),
        ({"prompt": CHAT, "chosen": [*CHAT, said("a")], "rejected": [*CHAT, said("b")]}, tuple(CHAT), "a", "b", 1.0),
        ({"chosen": [*CHAT, said("a")], "rejected": [*CHAT, said("b")]}, tuple(CHAT), "a", "b", 1.0),
        (
            {"chosen": "\n\nHuman: hi\n\nAssistant: a", "rejected": "\n\nHuman: hi\n\nAssistant: b"},
            tuple(CHAT),
            "a",
            "b",
            1.0,
        ),
    ],
)
def test_rows_of_many_shapes(row: dict[str, object], prompt: object, first: str, second: str, target: float) -> None:
    pair = read_pair(row, SECTION, where="f row 1")
    assert (pair.prompt, pair.first, pair.second, pair.target) == (prompt, first, second, target)
    assert pair.id == "f row 1"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "chosen": "", "rejected": "b"}, "the chosen completion is empty"),
        ({"prompt": "p", "chosen": "a", "rejected": " \n"}, "the rejected completion is empty"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "the same text"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "the prompt is empty"),
        ({"prompt": "p", "chosen": "a"}, "no value in column 'rejected'"),
        ({"prompt": "p", "first": "a", "second": "b", "label": "C"}, "label 'C' must be one of 'first', 'a'"),
        ({"chosen": "a", "rejected": "b"}, "no column 'prompt'"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "must be a list of"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "margin must be a finite number >= 0"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": math.inf}, "margin must be a finite number >= 0"),
        (
            {"chosen": "\n\nHuman: x\n\nAssistant: a", "rejected": "\n\nHuman: y\n\nAssistant: b"},
            "the same conversation up to a last assistant turn",
        ),
    ],
)
def test_a_row_that_is_no_pair_says_why(row: dict[str, object], reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        read_pair(row, SECTION, where="f row 1")


def test_columns_and_labels_are_mapped() -> None:
    section = PreferenceSection(
        columns={"first": "response 1", "second": "response 2", "category": "scenario"},
        labels={"first": ["0"], "second": ["1"], "tie": ["2"]},
    )
    row = {"prompt": "p", "response 1": "a", "response 2": "b", "label": 1, "scenario": "s", "margin": 0.5}
    pair = read_pair(row, section, where="x")
    assert (pair.first, pair.category, pair.margin) == ("b", "s", 0.5)
    with pytest.raises(ValueError, match="Did you mean 'chosen'"):
        PreferenceSection(columns={"chosn": "x"})


def test_a_rows_own_probability_is_its_target_where_that_is_asked_for() -> None:
    soft = PreferenceSection(targets="probability")
    row: dict[str, object] = {"prompt": "p", "first": "a", "second": "b", "label": "tie", "probability": 0.25}
    pair = read_pair(row, soft, where="x")
    assert (pair.first, pair.second, pair.target) == ("b", "a", 0.75)
    assert read_pair(row, SECTION, where="x").target == 0.5
    assert read_pair({**row, "probability": None, "label": "second"}, soft, where="x").target == 1.0
    assert read_pair({"prompt": "p", "chosen": "a", "rejected": "b", "probability": 0.9}, soft, where="x").target == 0.9
    with pytest.raises(UnusableRow, match="probability must be a number from 0 to 1"):
        read_pair({**row, "probability": 1.5}, soft, where="x")


def test_a_transcript_splits_at_turns_alone() -> None:
    turns = transcript("\n\nHuman: one\n\ntwo\n\nAssistant: three\n\nHuman: four\n\nAssistant:")
    assert turns is not None
    assert [t["content"] for t in turns] == ["one\n\ntwo", "three", "four", ""]
    assert transcript("Human: no") is None


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_pairs_of_one_prompt_lie_on_one_side_and_bad_rows_are_named_once(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n % 50}", "chosen": f"a{n}", "rejected": "b"} for n in range(200)]
    rows[7]["chosen"] = ""
    section = PreferenceSection(train=[write(tmp_path / "d.jsonl", rows)], held_out_share=0.3)
    train, test = load_pairs(section)
    assert len(train.pairs) + len(test.pairs) == 199
    assert not {p.prompt for p in train.pairs} & {p.prompt for p in test.pairs}
    assert 30 < len(test.pairs) < 90
    assert [bad.where.rpartition("/")[2] for bad in [*train.bad, *test.bad]] == ["d.jsonl row 8"]


def test_over_rounds_no_prompt_is_both_trained_on_and_held_out(tmp_path: Path) -> None:
    """Each round answers some prompts of earlier rounds again: with one round's pairs or all of them, sides stay."""
    files = [
        write(
            tmp_path / f"{number}-pairs.jsonl",
            [
                {"prompt": f"prompt {i}", "first": f"a {number} {again}", "second": f"b {number}", "label": "first"}
                for i in range(30 * number, 30 * number + 60)
                for again in range(2)
            ],
        )
        for number in range(3)
    ]
    trained: set[object] = set()
    tested: set[object] = set()
    for paths in ([files[0]], [files[1]], [files[2]], files[:2], files):
        train, test = load_pairs(PreferenceSection(train=paths, held_out_share=0.3))
        assert len(train.pairs) + len(test.pairs) == 120 * len(paths)
        assert len(test.pairs) > 0
        trained |= {pair.prompt for pair in train.pairs}
        tested |= {pair.prompt for pair in test.pairs}
    assert not trained & tested
    assert len(trained | tested) == 120


def test_the_bad_row_policy_drops_and_counts_or_stops(tmp_path: Path) -> None:
    bad = [BadRow(f"f row {n}", "the chosen completion is empty") for n in range(4)]
    drop, stop = (RowPolicy(value, "preferences.bad_rows") for value in ("drop", "stop"))
    for _ in range(2):  # of a resumed run: each row is named once
        said = report_bad_rows(bad, total=10, policy=drop, shape="", folder=tmp_path)
    assert said is not None
    assert said.startswith("4 of 10 rows cannot be used: f row 0: the chosen completion is empty (4 rows). They were")
    assert len((tmp_path / BAD_ROWS).read_text().splitlines()) == 4
    with pytest.raises(ConfigError, match=r"bad_rows is 'stop'.*set preferences.bad_rows: drop to go on"):
        report_bad_rows(bad, total=10, policy=stop, shape="")
    with pytest.raises(ConfigError, match=r"None is left. A row must be {a, b}\."):
        report_bad_rows(bad, total=4, policy=drop, shape="{a, b}")
    assert report_bad_rows([], total=10, policy=stop, shape="") is None


@pytest.mark.parametrize(("value", "offered"), [("stop", "drop_most"), ("drop", "drop_most"), ("drop_most", None)])
def test_a_hint_offers_what_helps_and_nothing_that_is_set(value: str, offered: str | None) -> None:
    refusal = RowPolicy(value, "task.bad_rows").refusal(6, 10)
    assert (refusal and refusal.partition("set task.bad_rows: ")[2].partition(" ")[0]) == offered


def test_pairwise_accuracy_and_its_interval() -> None:
    found = pairwise_accuracy([1.0] * 8 + [-1.0] * 2)
    assert found.value == 0.8
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert math.isnan(pairwise_accuracy([]).value)


def test_calibration_by_hand() -> None:
    # confidence s(0) = 0.5 wrong (a tie of rewards), s(ln 3) = 0.75 right twice and wrong once
    found = calibration([0.0, math.log(3), math.log(3), -math.log(3)], bins=5)
    assert [bar.pairs for bar in found.bins] == [1, 3]
    assert found.bins[1].confidence == pytest.approx(0.75)
    assert found.bins[1].accuracy == pytest.approx(2 / 3)
    assert found.error == pytest.approx((0.5 + 3 * abs(0.75 - 2 / 3)) / 4)
    assert calibration([1e9, -1e9]).bins[0].accuracy == 0.5


def test_length_bias_by_hand() -> None:
    rewards, lengths = [(2.0, 1.0), (1.0, 2.0), (3.0, 0.0), (0.0, 1.0)], [(9, 3), (2, 8), (5, 4), (4, 4)]
    found = length_bias(rewards, lengths)
    assert found.labels_prefer_longer == pytest.approx(2 / 3)
    assert found.model_prefers_longer == 1.0
    assert (found.accuracy_when_longer_is_better, found.accuracy_when_shorter_is_better) == (1.0, 0.0)
    report = pair_report(rewards, lengths, ["a", "a", "b", "b"])
    assert report["by_category"] == {"a": [2, *pairwise_accuracy([1, -1])], "b": [2, *pairwise_accuracy([3, -1])]}


def test_accuracy_that_is_length_alone_is_a_half_at_equal_length() -> None:
    rewards = [(1.0, 0.0)] * 27 + [(0.0, 1.0)] * 3 + [(1.0, 0.0)] + [(0.0, 1.0)] * 9  # 28 of 40: 9 of 10 longer ones
    by_length = length_bias(rewards, [(20, 10)] * 30 + [(10, 20)] * 10)
    assert by_length.accuracy_at_equal_length is not None
    assert by_length.accuracy_at_equal_length[0] == pytest.approx(0.5, abs=0.03)
    rewards = [(1.0, 0.0)] * 30 + [(0.0, 1.0)] * 10
    fair = length_bias(rewards, [(20, 10)] * 15 + [(10, 20)] * 15 + [(20, 10)] * 5 + [(10, 20)] * 5)
    assert fair.accuracy_at_equal_length is not None
    assert fair.accuracy_at_equal_length[0] == pytest.approx(0.75)
    none = pair_report([], [], [])["length"]
    assert isinstance(none, dict)
    assert none["accuracy_at_equal_length"] is None


def test_pairwise_accuracy_gives_the_published_judgebench_figures(data_dir: Path) -> None:
    differences: dict[str, list[float]] = defaultdict(list)
    with gzip.open(data_dir / "rubric" / "judgebench_judgments.jsonl.gz", "rt", newline="\n") as lines:
        for row in map(json.loads, lines):
            if row["scores"] and row["order"] == "AB":
                better = row["scores"][0] - row["scores"][1]
                differences[row["judge_model"]].append(better if row["label"] == "A>B" else -better)
    published = {
        "Skywork/Skywork-Reward-Llama-3.1-8B": 62.3,
        "Skywork/Skywork-Reward-Gemma-2-27B": 64.3,
        "Ray2333/GRM-Gemma-2B-rewardmodel-ft": 59.4,
        "internlm/internlm2-7b-reward": 59.4,
        "internlm/internlm2-20b-reward": 63.4,
    }
    found = {name: round(100 * pairwise_accuracy(values).value, 1) for name, values in differences.items()}
    assert found == published


def test_real_preference_files_are_read_whole(data_dir: Path) -> None:
    hh = PreferenceSection(train=[str(data_dir / "preferences" / "hh_harmless_base_test.jsonl.gz")])
    train, test = load_pairs(hh)
    assert len(train.pairs) + len(test.pairs) + len(train.bad) == 2312
    assert len(train.bad) == 9
    autoj = PreferenceSection(
        train=[str(data_dir / "preferences" / "autoj_pairwise.jsonl.gz")],
        columns={"first": "response 1", "second": "response 2", "category": "scenario"},
        labels={"first": ["0"], "second": ["1"], "tie": ["2"]},
        held_out_share=0.0,
    )
    found = load_pairs(autoj).train
    assert len(found.pairs) + len(found.bad) == 1392
    assert sum(pair.target == 0.5 for pair in found.pairs) == 365


ASKED = {"role": "user", "content": "Say 2"}


def side(*before: dict[str, str], said: str) -> list[dict[str, str]]:
    return [*before, {"role": "assistant", "content": said}]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Say 2", "chosen": side(ASKED, said="2"), "rejected": side(ASKED, said="no")}, "Say 2"),
        ({"prompt": " Say 2\n", "chosen": side(ASKED, said="2"), "rejected": side(ASKED, said="no")}, " Say 2\n"),
        (
            {
                "prompt": "Say 2",
                "chosen": side({"role": "system", "content": "S"}, ASKED, said="2"),
                "rejected": side({"role": "system", "content": "S"}, ASKED, said="no"),
            },
            ({"role": "system", "content": "S"}, ASKED),
        ),
    ],
)
def test_a_prompt_in_text_that_both_conversations_repeat_is_asked_once(row: dict[str, object], prompt: object) -> None:
    pair = read_pair(row, SECTION, where="f")
    assert (pair.prompt, pair.first, pair.second) == (prompt, "2", "no")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "Say 3", "chosen": side(ASKED, said="2"), "rejected": side(ASKED, said="no")}, "repeat the prompt"),
        ({"prompt": "Say 2", "chosen": side(ASKED, ASKED, said="2"), "rejected": side(ASKED, said="no")}, "repeat the"),
        (
            {
                "prompt": "Say 2",
                "chosen": side({"role": "system", "content": "S"}, ASKED, said="2"),
                "rejected": side(ASKED, said="no"),
            },
            "the same conversation up to",
        ),
        ({"prompt": "p", "choosen": "a", "rejected": "b"}, "no value in column 'chosen'.*Did you mean 'choosen'"),
    ],
)
def test_conversations_that_do_not_repeat_the_prompt_are_refused(row: dict[str, object], reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        read_pair(row, SECTION, where="f")


def test_files_of_a_format_are_read_by_it_and_columns_may_be_dotted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    chosen, rejected = {"from": "gpt", "value": "a"}, {"value": "b", "from": "gpt"}
    rows = [
        {"conversations": [{"from": "human", "value": f"Say {n}"}], "chosen": chosen, "rejected": rejected}
        for n in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"conversations": None}]) + "{broken\n")
    found = load_pairs(PreferenceSection(train=[str(path)], held_out_share=0.0)).train
    assert [pair.first for pair in found.pairs] == ["a"] * 9
    assert len(found.bad) == 2
    assert "sharegpt" in found.notes[0]
    columns = {"prompt": "conversations.0.value", "chosen": "chosen.value", "rejected": "rejected.value"}
    named = load_pairs(PreferenceSection(train=[str(path)], columns=columns, held_out_share=0.0)).train
    assert (named.pairs[3].prompt, len(named.pairs), named.notes) == ("Say 3", 9, [])


def test_splits_of_other_names_are_named(tmp_path: Path) -> None:
    for name, said in (("train_prefs", "c"), ("train_sft", "d"), ("test_prefs", "e")):
        row = {"prompt": "p", "chosen": said, "rejected": "z"}
        (tmp_path / f"{name}-00000-of-00001.jsonl").write_text(json.dumps(row) + "\n")
    here = [str(tmp_path)]
    names = {"train": "train_prefs", "test": "test_prefs"}
    train, test = load_pairs(PreferenceSection.model_validate({"train": here, "test": here, "split_names": names}))
    assert (train.pairs[0].first, test.pairs[0].first) == ("c", "e")
    train, test = load_pairs(PreferenceSection(train=here))
    assert (train.pairs[0].first, test.pairs[0].first) == ("c", "e")


def folder_of(path: Path, **splits: int) -> str:
    path.mkdir()
    for split, count in splits.items():
        write(
            path / f"{split}.jsonl", [{"prompt": f"{split} {n}", "chosen": "a", "rejected": "b"} for n in range(count)]
        )
    return str(path)


def test_a_test_split_of_its_own_is_held_out(tmp_path: Path) -> None:
    both, alone = folder_of(tmp_path / "a", train=40, test=3), folder_of(tmp_path / "b", train=40)
    train, test = load_pairs(PreferenceSection(train=[both]))
    assert (len(train.pairs), [pair.prompt for pair in test.pairs]) == (40, ["test 0", "test 1", "test 2"])
    assert test.notes == [f"{both} has a test split of its own, which is held out."]
    report = check_preferences(PreferenceSection(train=[both]), Watch())
    assert ([figures.rows for figures in report.splits], report.notes) == ([40, 3], test.notes)
    # near misses: nothing is to be held out, another test is named, there is none, one of two folders has none
    assert len(load_pairs(PreferenceSection(train=[both], held_out_share=0.0)).test.pairs) == 0
    named = load_pairs(PreferenceSection(train=[both], test=[write(tmp_path / "t.jsonl", [ROW])]))
    assert [pair.prompt for pair in named.test.pairs] == [ROW["prompt"]]
    for paths in ([alone], [both, alone]):
        train, test = load_pairs(PreferenceSection(train=paths))
        assert len(train.pairs) + len(test.pairs) == 40 * len(paths)
        assert all(str(pair.prompt).startswith("train") for pair in test.pairs)


ROW: dict[str, object] = {"prompt": "p", "chosen": "c", "rejected": "r"}


@pytest.mark.parametrize(
    ("chosen", "rejected", "found"),
    [
        ("The sky is blue.", "The sky is green.", ("The sky is", " blue.", " green.")),
        ("The sky is blue.", "The sky is bright.", ("The sky is", " blue.", " bright.")),
        ("Q: 2+2?\nA: 4", "Q: 2+2?\nA: 5", ("Q: 2+2?\nA:", " 4", " 5")),
        ("Q?\n\nYes", "Q?\n\nNo", ("Q?\n\n", "Yes", "No")),
        ("Blue is the sky.", "Green is the sky.", "begin with different words"),
        ("Blue.", "Blueish.", "begin with different words"),
        ("The sky", "The sky is", "one text is the beginning of the other"),
        ("The sky", "The sky", "one text is the beginning of the other"),
    ],
)
def test_what_two_texts_begin_with_is_a_prompt_only_where_the_format_is_named(
    tmp_path: Path, chosen: str, rejected: str, found: str | tuple[str, str, str]
) -> None:
    path = write(tmp_path / "rows.jsonl", [{"chosen": chosen, "rejected": rejected}])
    train, _ = load_pairs(PreferenceSection(train=[path], format="trl_implicit", held_out_share=0.0))
    if isinstance(found, str):
        assert found in train.bad[0].reason
    else:
        assert [(pair.prompt, pair.first, pair.second) for pair in train.pairs] == [found]
    unnamed, _ = load_pairs(PreferenceSection(train=[path], held_out_share=0.0))
    assert "preferences.format: trl_implicit" in unnamed.bad[0].reason
