"""Formats: each example is recognised and read; rows that only look alike are not; explicit columns win."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tasks import TaskError
from tasks.inputs.formats import Format, Reading, UnfitRow, Use, format_named, formats, reading, recognise, table
from tasks.messages import read_messages
from tasks.registry import get_task
from tasks.validate import Verifiers, unusable

OURS: Mapping[str, Sequence[set[str]]] = {
    "problems": [{"prompt", "reference"}],
    "demonstrations": [{"messages"}, {"prompt", "completion"}],
    "preferences": [{"prompt", "chosen", "rejected"}, {"prompt", "first", "second", "label"}],
    "unpaired": [{"prompt", "completion", "label"}],
}
SAME_AS_TRL = {"openrlhf"}
"""Preferences of these are TRL's."""
CHAT = [{"role": "user", "content": "7*6?"}, {"role": "assistant", "content": "42"}]
FROM = [{"from": "human", "value": "7*6?"}, {"from": "gpt", "value": "42"}]


def name(one: Format) -> str:
    return f"{one.use}-{one.name}"


@pytest.mark.parametrize("one", formats(), ids=name)
def test_an_example_is_recognised_and_becomes_our_own_columns(one: Format) -> None:
    found = recognise([one.example], use=one.use)
    if one.by_itself and one.name not in SAME_AS_TRL:
        assert found is not None
        assert found.format.name == one.name
    assert one.source.startswith(("https://", "docs/"))
    how = Reading(one, {})
    rows = [("a", one.example), ("b", {**one.example, "label": False, "completion": "It is 43."})][
        : 2 if one.gather else 1
    ]
    for _, row in how.read_all(rows):
        if isinstance(row, UnfitRow):
            assert "refused" in one.told_by
        else:
            assert any(ours <= row.keys() for ours in OURS[one.use])


@pytest.mark.parametrize("one", [one for one in formats("problems") if one.verifier], ids=name)
def test_the_dataset_task_reads_a_format_and_its_verifier_takes_the_reference(one: Format, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text((json.dumps(one.example) + "\n") * 10)
    options: dict[str, object] = {} if one.by_itself else {"format": one.name}
    if one.verifier_options:
        options["verifier_options"] = dict(one.verifier_options)
    task = get_task("dataset", path=str(path), verifier=one.verifier, **options)  # type: ignore[arg-type]
    problems = task.problems("train")
    assert unusable(problems[:1], Verifiers()) == {}
    assert [one.name in note for note in task.notes] == [True] * bool(one.by_itself)
    assert "42" not in str(problems[0].prompt) or one.name == "mcq"
    if problems[0].demonstration:
        verdict = (
            Verifiers().get(problems[0]).verify(completion=problems[0].demonstration, reference=problems[0].reference)
        )
        assert verdict.right


@pytest.mark.parametrize(
    ("use", "row", "expected"),
    [
        ("problems", {"prompt": "a", "chosen": "b", "rejected": "c"}, None),
        ("problems", {"prompt": "a", "completion": "b", "label": True}, None),
        ("problems", {"prompt": CHAT, "answer": "42"}, None),
        ("problems", {"messages": CHAT}, None),
        ("problems", {"question": "7*6?"}, None),
        ("problems", {"question": "7*6?", "answer": None}, None),
        ("problems", {"question": "7*6?", "answer": {"a": 1}}, None),
        ("problems", {"question": "q", "answer": ["2", "two"]}, "qa"),
        ("problems", {"question": "q", "answer": [["2"]]}, None),
        ("problems", {"question": "q", "golden_answers": ["2", "two"]}, "qa"),
        ("problems", {"question": "q", "context": "c", "answers": {"text": ["2"], "answer_start": [0]}}, "qa"),
        ("problems", {"question": "q", "answers": {"text": [], "answer_start": []}}, None),
        ("problems", {"prompt": "p", "verification_info": {"ground_truth": 25}}, "verification_info"),
        ("problems", {"prompt": "p", "verification_info": {"test_cases": []}}, None),
        ("problems", {"problem": "p", "solution": "no box"}, None),
        ("problems", {"Problem": "p", "Answer": 42, "Solution": "it is"}, "math"),
        ("problems", {"question": "q", "choices": ["a", "b"], "answer": 1}, "mcq"),
        ("problems", {"question": "q", "choices": ["a", "b"], "answer": 2}, None),
        ("problems", {"question": "q", "choices": ["a"], "answer": 0}, None),
        ("problems", {"question": "q", "choices": ["a", "b"]}, None),
        ("problems", {"prompt": CHAT[:1], "reward_model": {"ground_truth": '{"inputs": ["1"]}'}}, None),
        ("problems", {"prompt": CHAT[:1], "reward_model": {"style": "rule"}}, None),
        ("problems", {"instruction": "a", "output": "b"}, None),
        ("problems", {"prompt": "p", "rubrics": [{"criterion": "c", "points": 1}]}, "healthbench"),
        ("problems", {"prompt": "p", "rubrics": '[{"criterion": "c", "points": -2}]'}, "healthbench"),
        ("problems", {"prompt": CHAT[:1], "rubrics": [{"criterion": "c", "weight": 2}]}, "healthbench"),
        ("problems", {"prompt": "p", "rubrics": [{"criterion": "c"}]}, None),
        ("problems", {"prompt": "p", "rubrics": [{"criterion": "c", "points": True}]}, None),
        ("problems", {"prompt": "p", "rubrics": [{"criterion": " ", "points": 1}]}, None),
        ("problems", {"prompt": "p", "rubrics": ["c"]}, None),
        ("problems", {"prompt": "p", "rubrics": []}, None),
        ("problems", {"prompt": "p", "rubrics": "[{"}, None),
        ("problems", {"prompt": "p", "reference": "1", "rubrics": [{"criterion": "c", "points": 1}]}, "reasoner"),
        (
            "problems",
            {"question": "q", "rubric": [{"title": "t", "description": "d", "weight": 5}]},
            "reference_rubric",
        ),
        (
            "problems",
            {"question": "q", "reference_answer": "a", "rubric": [{"description": "d", "weight": -1}]},
            "reference_rubric",
        ),
        ("problems", {"question": "q", "reference_answer": "a", "rubric": "be kind"}, "qa"),
        ("problems", {"question": "q", "reference_answer": "a", "rubric": [{"description": "d"}]}, "qa"),
        ("demonstrations", {"messages": FROM}, "sharegpt"),
        ("demonstrations", {"prompt": "a", "completion": "b", "label": False}, "kto"),
        ("demonstrations", {"prompt": "a", "chosen": "b", "rejected": "c"}, None),
        ("demonstrations", {"text": "a", "prompt": "b", "completion": "c"}, "trl"),
        ("demonstrations", {"conversations": {"from": ["human", "gpt"], "value": ["a", "b"]}}, "sharegpt"),
        ("demonstrations", {"conversations": {"from": ["human"], "value": ["a", "b"]}}, None),
        ("preferences", {"prompt": "a", "chosen": "b"}, None),
        ("preferences", {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}, "trl"),
        ("preferences", {"chosen": "b", "rejected": "c"}, None),
        ("preferences", {"prompt": "a", "completion": "b", "label": 1}, None),
        ("unpaired", {"prompt": "a", "completion": "b", "label": "False"}, "kto"),
        ("unpaired", {"prompt": "a", "completion": "b", "label": "good"}, None),
        ("preferences", {"instruction": "a", "output": ["b", "c"]}, "alpaca"),
        ("preferences", {"instruction": "a", "output": ["b", "c", "d"]}, None),
    ],
)
def test_rows_that_look_alike_are_told_apart(use: Use, row: dict[str, object], expected: str | None) -> None:
    found = recognise([row], use=use)
    assert (found.format.name if found else None) == expected


@pytest.mark.parametrize(
    ("use", "format", "row", "says"),
    [
        ("problems", "sharegpt", {"conversations": FROM[1:], "answer": "42"}, "has no prompt"),
        ("problems", "messages", {"messages": CHAT}, "no value in column 'reference'"),
        ("problems", "verl", {"prompt": CHAT[:1], "reward_model": {}}, "reward_model.ground_truth"),
        ("problems", "healthbench", {"prompt": "p", "rubrics": {}}, "must be a list of criteria"),
        ("problems", "healthbench", {"prompt": "p", "rubrics": ["c"]}, "must be a list of objects"),
        ("problems", "healthbench", {"prompt": "p", "rubrics": [{"points": 1}]}, "criterion 1 has no text"),
        (
            "problems",
            "healthbench",
            {"prompt": "p", "rubrics": [{"criterion": "c", "points": "5"}]},
            "must have a number",
        ),
        (
            "problems",
            "healthbench",
            {"prompt": "p", "rubrics": [{"criterion": "c", "points": 5, "tags": [[]]}]},
            "tags must be a list of texts",
        ),
        (
            "problems",
            "healthbench",
            {"prompt": CHAT[1:], "rubrics": [{"criterion": "c", "points": 5}]},
            "has no prompt",
        ),
        ("problems", "reference_rubric", {"question": "q", "rubric": [{"weight": 1}]}, "criterion 1 has no text"),
        ("problems", "reference_rubric", {"rubric": [{"description": "d", "weight": 1}]}, "column 'question'"),
        ("problems", "gsm8k", {"question": "q", "answer": "no mark"}, "must end in ####"),
        ("problems", "mcq", {"question": "q", "choices": ["a", "b"], "answer": 5}, "which of its 2 choices is right"),
        ("problems", "mcq", {"question": "q", "answer": "B"}, "has no choices"),
        ("demonstrations", "sharegpt", {"conversations": [{"from": "narrator", "value": "a"}]}, "is by 'narrator'"),
        ("demonstrations", "sharegpt", {"conversations": "hi"}, "must be a list of chat messages"),
        ("demonstrations", "alpaca", {"instruction": "a", "output": " "}, "column 'output' must be text"),
        ("demonstrations", "swift", {"query": "a", "response": "b", "history": ["c"]}, "history must be a list of"),
        ("demonstrations", "swift", {"query": "a", "response": "b", "history": "[["}, "must be JSON"),
        ("preferences", "shp", {"history": "a", "human_ref_A": "b", "human_ref_B": "c", "labels": 2}, "must be 1"),
        ("preferences", "swift", {"messages": CHAT[:1], "rejected_response": "c"}, "must end in the assistant's"),
        ("preferences", "sharegpt", {"conversations": FROM[:1], "chosen": "b"}, "no value in column 'rejected'"),
    ],
)
def test_a_row_that_does_not_fit_says_why(use: Use, format: str, row: dict[str, object], says: str) -> None:
    with pytest.raises(UnfitRow, match=says):
        Reading(format_named(format, use), {}).read(row)


def test_an_unknown_format_suggests_one_and_says_what_one_is_for() -> None:
    with pytest.raises(TaskError, match=r"no format named 'shargpt'. Did you mean 'sharegpt'\?"):
        format_named("shargpt", "demonstrations")
    with pytest.raises(TaskError, match="format 'ultrafeedback' is one of preferences, not of problems"):
        format_named("ultrafeedback", "problems")


@pytest.mark.parametrize(
    ("truth", "reference"),
    [
        ("42", "42"),
        ('["42"]', ["42"]),
        ("[1, 2]", "[1, 2]"),
        (["42", "42.0"], ["42", "42.0"]),
        ({"target": ["Paris", "paris"]}, {"any": ["Paris", "paris"]}),
        ({"target": 24, "numbers": [1, 2]}, {"target": 24, "numbers": [1, 2]}),
    ],
)
def test_verl_says_several_answers_in_several_ways(truth: object, reference: object) -> None:
    row = {"data_source": "x", "prompt": CHAT[:1], "reward_model": {"ground_truth": truth}}
    assert format_named("verl", "problems").read(row)["reference"] == reference


@pytest.mark.parametrize(
    ("row", "answer", "first"),
    [
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, "y", "A. x"),
        (
            {"question": "q", "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}], "answer": "B"},
            "y",
            "A. x",
        ),
        ({"question": "q", "options": {"A": "x", "B": "y"}, "answer_idx": "B", "answer": "y"}, "y", "A. x"),
        ({"question": "q", "options": ["A) 21", "B) 22"], "correct": "B"}, "22", "A. 21"),
        ({"question": "q", "options": ["x", "y"], "answer": "B", "answer_index": 1}, "y", "A. x"),
        ({"question": "q", "opa": "x", "opb": "y", "opc": "z", "opd": "w", "cop": 1}, "y", "A. x"),
        ({"question": "q", "A": "x", "B": "y", "C": "z", "D": "w", "answer": "B"}, "y", "A. x"),
        ({"question_stem": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}, "y", "A. x"),
        ({"article": "long", "question": "q", "options": ["x", "y"], "answer": "B"}, "y", "A. x"),
        ({"question": "q", "choices": ["x", "x"], "answer": 1}, "B", "A. x"),
        ({"question": "q", "choices": [3, 4], "answer": "4"}, "4", "A. 3"),
    ],
)
def test_choices_of_many_wordings(row: dict[str, object], answer: str, first: str) -> None:
    found = format_named("mcq", "problems").read(row)
    reference = found["reference"]
    assert isinstance(reference, dict)
    assert reference["answer"] == answer
    assert first in str(found["prompt"]).split("\n")
    assert recognise([row], use="problems") is not None


def test_a_correct_answer_among_incorrect_ones_does_not_always_stand_first() -> None:
    rows = [
        {
            "Question": f"q{n}",
            "Correct Answer": f"right {n}",
            "Incorrect Answer 1": "w1",
            "Incorrect Answer 2": f"w2 {n}",
        }
        for n in range(30)
    ]
    found = [format_named("mcq", "problems").read(row) for row in rows]
    places = {
        str(row["prompt"])
        .split("\n\n")[1]
        .split("\n")
        .index(next(line for line in str(row["prompt"]).split("\n") if "right" in line))
        for row in found
    }
    assert places == {0, 1, 2}


def test_calls_of_tools_in_text_become_calls() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "7*6?"},
            {"from": "function_call", "value": '{"name": "multiply", "arguments": {"a": 7, "b": 6}}'},
            {"from": "observation", "value": "42"},
            {"from": "gpt", "value": "It is 42."},
        ]
    }
    messages = read_messages(format_named("sharegpt", "demonstrations").read(row)["messages"])
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1].get("tool_calls") == [{"function": {"name": "multiply", "arguments": {"a": 7, "b": 6}}}]


def test_unpaired_rows_become_pairs_within_a_prompt() -> None:
    def row(prompt: str, said: str, label: object) -> dict[str, object]:
        return {"prompt": prompt, "completion": said, "label": label}

    given = [
        row("a", "a1", True),
        row("b", "b1", False),
        row("a", "a2", False),
        row("a", "a3", True),
        row("b", "b2", True),
    ]
    given += [row("c", "c1", True), row("a", "a4", "maybe")]
    how, said = reading(given, use="preferences", format=None, columns={})
    assert "kto" in said
    found = list(how.read_all((f"row {n}", one) for n, one in enumerate(given, 1)))
    pairs = [(row["prompt"], row["chosen"], row["rejected"]) for _, row in found if not isinstance(row, UnfitRow)]
    assert pairs == [("a", "a1", "a2"), ("b", "b2", "b1")]
    left = {where: str(row) for where, row in found if isinstance(row, UnfitRow)}
    assert left.keys() == {"row 4", "row 6", "row 7"}
    assert "without one of the other label to pair it with" in left["row 6"]
    assert "label must be true or false" in left["row 7"]


def test_a_damaged_minority_does_not_hide_a_format() -> None:
    good = {"question": "q", "answer": "#### 1"}
    assert recognise([good, {"question": None}, good], use="problems") is not None
    assert recognise([good, {"question": None}, {}], use="problems") is None
    assert recognise([], use="problems") is None


def rows_file(tmp_path: Path, rows: Sequence[object]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_named_columns_keep_a_format_from_being_recognised_and_win_over_one_that_is_named(tmp_path: Path) -> None:
    path = rows_file(tmp_path, [{"question": "q", "answer": "w\n#### 4", "extra": {"gold": ["5", "five"]}}] * 10)
    task = get_task("dataset", path=path, verifier="math", prompt_column="question", reference_column="answer")
    assert task.problems("train")[0].reference == "w\n#### 4"
    assert not any("format" in note for note in task.notes)
    with pytest.raises(TaskError, match=r"has no column 'reference'.*Or set task\.options\.format"):
        get_task("dataset", path=path, verifier="math", prompt_column="question").problems("train")
    task = get_task("dataset", path=path, verifier="math", format="gsm8k", reference_column="extra.gold.0")
    problem = task.problems("train")[0]
    assert (problem.prompt, problem.reference, problem.demonstration) == ("q", "5", "w\n#### 4")
    task = get_task(
        "dataset", path=path, verifier="math", template="Q: {question} {extra.gold.1}", reference_column="extra.gold"
    )
    assert (task.problems("train")[0].prompt, task.problems("train")[0].reference) == ("Q: q five", ["5", "five"])


def test_a_prompt_that_ends_in_the_reply_is_refused_unless_a_format_says_where_it_ends(tmp_path: Path) -> None:
    path = rows_file(tmp_path, [{"chat": CHAT, "messages": CHAT, "answer": "42"}] * 10)
    with pytest.raises(TaskError, match=r"ends in the assistant's reply.*Set task.options.format: messages"):
        get_task("dataset", path=path, verifier="math", prompt_column="chat", reference_column="answer").problems(
            "train"
        )
    problem = get_task("dataset", path=path, verifier="math").problems("train")[0]
    assert problem.prompt == ({"role": "user", "content": "7*6?"},)
    turns = [*CHAT, {"role": "user", "content": "And 7*7?"}]
    path = rows_file(tmp_path, [{"prompt": turns, "reference": "49"}] * 10)
    assert len(get_task("dataset", path=path, verifier="math").problems("train")[0].prompt) == 3


@pytest.mark.parametrize("use", ["problems", "demonstrations", "preferences", "unpaired"])
def test_the_page_shows_the_table_of_the_code(use: Use) -> None:
    page = (Path(__file__).parents[4] / "docs" / "data.md").read_text(encoding="utf-8")
    assert f"### {use.capitalize()}\n\n{table(use)}\n" in page


ASKED = {"prompt": "Say it."}
COMMA, TITLE = "punctuation:no_comma", "detectable_format:title"


@pytest.mark.parametrize(
    ("row", "ids", "kwargs"),
    [
        ({**ASKED, "instruction_id_list": [COMMA], "kwargs": [{"N": None}]}, [COMMA], [{}]),
        ({**ASKED, "instruction_id_list": [COMMA], "kwargs": "[null]"}, [COMMA], [{}]),
        ({**ASKED, "instruction_id_list": ["count:numbers"], "kwargs": [{"N": 2.0}]}, ["count:numbers"], [{"N": 2.0}]),
        ({**ASKED, "instruction_id_list": ["count:numbers"], "kwargs": ['{"N": 2}']}, ["count:numbers"], [{"N": 2}]),
        ({"messages": CHAT, "instruction_id_list": [COMMA], "kwargs": [{}]}, [COMMA], [{}]),
    ],
)
def test_rows_of_instructions_keep_what_is_not_null(row: Mapping[str, object], ids: object, kwargs: object) -> None:
    found = recognise([row], use="problems")
    assert found is not None
    assert found.format.name == "ifeval"
    read = found.format.read(row)
    assert read["reference"] == {"instruction_id_list": ids, "kwargs": kwargs}
    assert "42" not in str(read["prompt"])  # the reply is not shown


@pytest.mark.parametrize(
    "text",
    [
        f"[{{'instruction_id': ['{COMMA}', '{TITLE}'], 'kwargs': [None, {{'N': None}}]}}]",
        json.dumps([{"instruction_id": [COMMA, TITLE], "kwargs": [None, {}]}]),
        json.dumps([{"instruction_id": COMMA, "kwargs": None}, {"instruction_id": TITLE, "kwargs": {}}]),
    ],
)
def test_instructions_in_the_text_of_the_answer(text: str) -> None:
    row = {"messages": [CHAT[0]], "ground_truth": text, "constraint": "No comma."}
    found = recognise([row], use="problems")
    assert found is not None
    assert found.format.name == "if_multi_constraints"
    assert found.format.read(row)["reference"] == {"instruction_id_list": [COMMA, TITLE], "kwargs": [{}, {}]}


@pytest.mark.parametrize(
    "text",
    [
        "[{'instruction_id': ['a:b'], 'kwargs': []}]",
        "[{'instruction_id': [], 'kwargs': []}]",
        "[{'instruction_id': ['a:b'], 'kwargs': ['none']}]",
        "[{'instruction_id': ['a:b', 3], 'kwargs': [None, None]}]",
        "[{'instruction_id': __import__('os').getcwd(), 'kwargs': []}]",
        "instruction_id and kwargs",
        "[" * 50_000 + "'instruction_id', 'kwargs'",
    ],
)
def test_text_that_holds_no_instructions_is_an_unfit_row_and_is_not_run(text: str) -> None:
    row = {"messages": [CHAT[0]], "ground_truth": text}
    with pytest.raises(UnfitRow):
        format_named("if_multi_constraints", "problems").read(row)
