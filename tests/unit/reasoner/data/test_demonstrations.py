"""SFT rows: the loss covers only the assistant's tokens, checked against the chat template's own mask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.load import resolve
from reasoner.config.sections import PromptSection, SftSection
from reasoner.data.check import Watch, check_demonstrations
from reasoner.data.demonstrations import (
    Demonstration,
    demonstrations_in,
    encode_problems,
    encode_row,
    load_rows,
    read_row,
)
from reasoner.data.encode import batch_of
from reasoner.data.rows import held_out_paths, usable_rows
from reasoner.model.load import CHAT_TEMPLATE, byte_tokenizer
from reasoner.stages.references import with_references
from tasks import BadRow, Problem, UnusableRow

SECTION = PromptSection()
UNMARKED = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def decoded(row, tokenizer) -> tuple[str, str]:
    kept = [token for token, on in zip(row.completion_ids, row.loss_mask, strict=True) if on]
    return tokenizer.decode(list(row.prompt_ids)), tokenizer.decode(kept)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "hi", "completion": "hello"},
        {"prompt": [user("hi")], "completion": [assistant("hello")]},
        {"messages": [user("hi"), assistant("hello")]},
    ],
)
def test_one_turn_is_prompt_and_completion_as_sampled(row: dict[str, object]) -> None:
    tokenizer = byte_tokenizer()
    found = encode_row(row, tokenizer, SECTION, where="f row 1")
    prompt, trained = decoded(found, tokenizer)
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert trained == "hello<|im_end|>"


def test_several_turns_are_trained_by_the_templates_own_mask() -> None:
    tokenizer = byte_tokenizer()
    messages = [user("a"), assistant("one"), user("b"), assistant("two"), user("never seen")]
    found = encode_row({"messages": messages}, tokenizer, SECTION, where="f row 1")
    assert decoded(found, tokenizer)[1] == "one<|im_end|>two<|im_end|>"
    rendered = tokenizer.apply_chat_template(
        messages[:4], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    mask = rendered["assistant_masks"]
    batch = batch_of([found])
    assert int(batch.loss_mask_N.sum()) == sum(mask)
    assert [*found.prompt_ids, *found.completion_ids] == rendered["input_ids"][: len(found)]
    assert batch.weights_N.sum().item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "hi", "completion": " "}, "the completion is empty"),
        ({"prompt": "", "completion": "x"}, "the prompt is empty"),
        ({"prompt": "hi"}, "no value in column 'completion'"),
        ({"messages": [user("hi")]}, "no assistant message"),
        ({"messages": [assistant("hi")]}, "there is no prompt"),
        ({"messages": [user("hi"), assistant("")]}, "an assistant message is empty"),
        ({"messages": "text"}, "must be a list of"),
    ],
)
def test_a_row_that_is_no_demonstration_says_why(row: dict[str, object], reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        encode_row(row, byte_tokenizer(), SECTION, where="f row 1")


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, UNMARKED], ids=["marked", "unmarked"])
def test_every_reply_of_a_chat_is_behind_what_the_policy_would_see(template: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    several = {"messages": [user("a"), assistant("one"), user("b"), assistant("two"), user("c"), assistant("three")]}
    single = {"messages": [user("a"), assistant("one")]}
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (single, several, single)))
    found = load_rows(demonstrations_in(SftSection(), "train", [str(file)]), tokenizer, SECTION, limit=1000)
    assert not found.bad
    one, row, _ = found.rows
    assert decoded(one, tokenizer)[1] == "one<|im_end|>"
    assert decoded(row, tokenizer)[1] == "one<|im_end|>two<|im_end|>three<|im_end|>"
    ids, begin = [*row.prompt_ids, *row.completion_ids], len(row.prompt_ids)
    for turns in (1, 3, 5):  # in front of each reply stand the tokens of the prompt that a server would render
        prompt = tokenizer.apply_chat_template(
            several["messages"][:turns], tokenize=True, add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert ids[: len(prompt)] == prompt
        starts = len(prompt) - begin
        assert row.loss_mask[starts]
        assert starts == 0 or not row.loss_mask[starts - 1]


def test_a_template_whose_mask_is_not_the_completion_is_found_out() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}",
        "{% generation %}<think></think>{{ message.content }}<|im_end|>{% endgeneration %}",
    )
    with pytest.raises(UnusableRow, match="the chat template's own mask is not the completion"):
        encode_row({"messages": [user("a"), assistant("one")]}, tokenizer, SECTION, where="f row 1")


def test_a_row_over_the_limit_is_named() -> None:
    problems = [
        Problem(id=str(n), prompt="p", reference=None, verifier="exact", demonstration="x" * length)
        for n, length in enumerate((5, 50, 0))
    ]
    found = encode_problems(problems, byte_tokenizer(), PromptSection(chat="never"), limit=20)
    assert [row.id for row in found.rows] == ["0"]
    assert [bad.where for bad in found.bad] == ["problem 1", "problem 2"]
    assert "52 tokens are over the limit of 20" in found.bad[0].reason


def test_sft_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="needs an evaluation loss"):
        resolve({"method": "sft", "task": "gsm8k", "sft": {"patience": 2}})
    with pytest.raises(ConfigError, match="task must name at least one task"):
        resolve({"method": "sft"})
    assert resolve({"method": "sft", "sft": {"data": ["x.jsonl"]}}).stages[0].task == []


# --------------------------------------------------------------------------------------------- stages and rounds


def test_rounds_are_written_out_and_references_name_what_stages_wrote() -> None:
    run = resolve(
        {
            "name": "r",
            "task": "covering",
            "stages": [
                {"method": "sft", "label": "start"},
                {
                    "repeat": 2,
                    "stages": [
                        {"method": "pairs"},
                        {
                            "method": "reward_model",
                            "model": {"path": "stage:start"},
                            "preferences": {"train": "stages:pairs"},
                        },
                        {
                            "method": "ppo",
                            "reward": {"name": "reward-model", "options": {"model": "stage:reward_model"}},
                        },
                    ],
                },
            ],
        }
    )
    assert [stage.method for stage in run.stages] == ["sft", *["pairs", "reward_model", "ppo"] * 2]
    last = with_references(run, 5).stages[5]
    assert last.model.path == "runs/r/0-sft/final"
    assert last.preferences.train == ["runs/r/1-pairs/pairs.jsonl", "runs/r/4-pairs/pairs.jsonl"]
    final = with_references(run, 6).stages[6]
    assert final.reward is not None
    assert final.reward.options == {"model": "runs/r/5-reward_model/final"}


def test_a_stage_goes_on_from_the_last_policy_and_a_reference_to_nothing_is_refused() -> None:
    from reasoner.stages.references import stage_with_model

    stages = [
        {"method": "sft", "task": "covering"},
        {"method": "reward_model", "preferences": {"train": ["stage:sftt"]}},
        {"method": "ppo", "task": "covering"},
    ]
    run = resolve({"name": "r", "stages": stages})
    assert stage_with_model(run, 2).model.path == "runs/r/0-sft/final"
    with pytest.raises(ConfigError, match=r"no earlier stage 'sftt'\. Did you mean 'sft'"):
        with_references(run, 1)
    with pytest.raises(ConfigError, match="a repeat must be"):
        resolve({"stages": [{"repeat": 0, "stages": []}]})


def test_demonstrations_of_any_format_and_by_columns(tmp_path: Path) -> None:
    def found(rows: list[dict[str, object]], **section: object) -> tuple[list[object], list[BadRow], list[str]]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        notes: list[str] = []
        source = demonstrations_in(SftSection.model_validate(section), "train", [str(path)])
        usable, bad = usable_rows(source, read=lambda row, where: read_row(row), notes=notes)
        return [*usable], bad, notes

    rows, bad, notes = found([{"instruction": "Add.", "input": "1 and 2", "output": "3"}] * 3)
    assert (rows[0], bad, "alpaca" in notes[0]) == (Demonstration("Add.\n1 and 2", "3"), [], True)
    columns = {"prompt": "q.text", "completion": "said.0.x"}
    rows, bad, notes = found([{"q": {"text": "1+2?"}, "said": [{"x": "3"}]}] * 2, columns=columns)
    assert (rows[0], notes) == (Demonstration("1+2?", "3"), [])
    marked = [{"prompt": "p", "completion": "c", "label": label} for label in (True, False)]
    rows, bad, notes = found(marked)
    assert (len(rows), "marked as a bad completion" in bad[0].reason) == (1, True)
    rows, bad, notes = found([{"text": "Once upon a time"}])
    assert (rows, "is only text" in bad[0].reason) == ([], True)
    with pytest.raises(ValueError, match=r"no column 'promt'; there are messages, prompt, completion.*Did you mean"):
        SftSection.model_validate({"columns": {"promt": "x"}})


def test_a_test_split_of_its_own_gives_the_rows_that_are_held_out(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("test", 2)):
        rows = [{"prompt": f"{split} {n}", "completion": "a"} for n in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here, said = [str(tmp_path)], f"{tmp_path} has a test split of its own, which is held out."
    counts = {}
    for held_out in (0, 1):
        report = check_demonstrations(SftSection(data=here, held_out=held_out), Watch())
        counts[held_out] = ([figures.rows for figures in report.splits], said in report.notes)
    assert counts == {0: ([5], False), 1: ([5, 2], True)}
    file = [str(tmp_path / "train.jsonl")]
    assert held_out_paths(SftSection(data=file, held_out=1), file, use="demonstrations", share=1) == ((), [])
