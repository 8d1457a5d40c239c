"""Chat templates of many kinds: the end of a turn, the text between two turns, and the turns that each refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.sections import ModelSection, PromptSection, ScratchConfig
from reasoner.data.demonstrations import encode_problems, encode_row
from reasoner.data.pairs import encode_pairs
from reasoner.data.preferences import Pair
from reasoner.data.prompt import render
from reasoner.data.rows import RowPolicy, report_bad_rows
from reasoner.data.turns import Turns, ends_of, turns_of
from reasoner.graders.judge_model import prompt_text
from reasoner.model.load import CHAT_TEMPLATE, byte_tokenizer, load_model
from reasoner.model.paths import ModelError
from tasks import BadRow, Problem, UnusableRow
from verifiers.judge.chat import Turn

SECTION = PromptSection()
PLAIN = CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")
NAMED_ENDS = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Turns with their own end mark, no system role, alternating roles."""
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }} {{ eos_token }}"
    "{% else %}[INST] {{ m.content }} [/INST]{% endif %}{% endfor %}"
    "{% if add_generation_prompt and messages[-1].role == 'assistant' %}[INST] {% endif %}"
)
"""No mark for the start of the assistant's text after a user message."""
NO_HEADER = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
"""Nothing is written where the assistant begins, though its turns in the history begin with a header."""
NO_END = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""A turn ends only at the role of the next one."""
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' and not loop.last else m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""Earlier thoughts are dropped from the history; there is a switch."""
OPENED = PLAIN.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
"""The prompt ends in an opened thought."""
TWO_ENDS = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}"
    "{% if m.role == 'assistant' and loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|message|>{% endif %}"
)
"""The last reply ends differently from those before it."""
IN_A_ROW = (
    "{% for m in messages %}<|turn|>{{ m.role }}<|body|>{{ m.content }}"
    "{% if m.role == 'assistant' %}<|end_body|>{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|turn|>assistant<|body|>{% endif %}"
)
"""Two marks end a reply; the second is the tokenizer's eos token."""
CALLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }} {{ c.function.arguments | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COUNTED = PLAIN.replace(
    "{{ message.content }}<|im_end|>\n{% endif %}", "{{ loop.index }}{{ message.content }}<|im_end|>\n{% endif %}"
)
"""The text of a turn depends on the turns before it."""


def tokenizer_of(template: str, *, eos: str = "<|endoftext|>", special: tuple[str, ...] = (), bos: str | None = None):
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *special]})
    tokenizer.add_special_tokens({"eos_token": eos, **({"bos_token": bos} if bos else {})})
    tokenizer.chat_template = template
    return tokenizer


def user(text: str) -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: str | None, **further: object) -> dict[str, object]:
    return {"role": "assistant", "content": text, **further}


def trained(row, tokenizer) -> str:
    return tokenizer.decode([token for token, on in zip(row.completion_ids, row.loss_mask, strict=True) if on])


CHAT = {"messages": [user("a"), assistant("one"), user("b"), assistant("two"), user("c"), assistant("three")]}


@pytest.mark.parametrize(
    ("template", "options", "expected"),
    [
        (PLAIN, {}, "one<|im_end|>|\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n|two<|im_end|>|"),
        (
            NAMED_ENDS,
            {"special": ("<end_of_turn>", "<start_of_turn>", "<bos>"), "bos": "<bos>"},
            "one<end_of_turn>|\n<start_of_turn>user\nb<end_of_turn>\n<start_of_turn>model\n|two<end_of_turn>|",
        ),
        (
            NO_END,
            {"special": ("<|user|>", "<|assistant|>")},
            "one<|endoftext|>|<|user|>\nb<|assistant|>\n|two<|endoftext|>|",
        ),
        (THINKING, {}, "one<|im_end|>|\n<|im_start|>user\nb<|im_end|>\n<|im_start|>assistant\n|two<|im_end|>|"),
        (
            TWO_ENDS,
            {"special": ("<|start|>", "<|message|>", "<|return|>", "<|end|>"), "eos": "<|return|>"},
            "one<|return|>|<|start|>user<|message|>b<|end|><|start|>assistant<|message|>|two<|return|>|",
        ),
        (
            IN_A_ROW,
            {"special": ("<|turn|>", "<|body|>", "<|end_body|>", "<|end|>"), "eos": "<|end|>"},
            "one<|end_body|><|end|>|<|turn|>user<|body|>b<|end|><|turn|>assistant<|body|>|two<|end_body|><|end|>|",
        ),
        (
            BRACKETS,
            {"special": ("[INST]", "[/INST]", "<s>", "</s>"), "eos": "</s>", "bos": "<s>"},
            "one</s>|[INST] b [/INST]|two</s>|",
        ),
    ],
    ids=["chatml", "named-ends", "no-end", "thinking", "two-ends", "in-a-row", "brackets"],
)
def test_replies_end_as_the_template_ends_them_and_stand_behind_its_frames(
    template: str, options: dict, expected: str
) -> None:
    tokenizer = tokenizer_of(template, **options)
    row = encode_row(CHAT, tokenizer, SECTION, where="f row 1")
    pieces, before = "", True
    for token, on in zip(row.completion_ids, row.loss_mask, strict=True):
        pieces, before = pieces + ("" if on == before else "|") + tokenizer.decode([token]), on
    assert pieces.startswith(expected)
    one = encode_row({"messages": CHAT["messages"][:2]}, tokenizer, SECTION, where="f row 2")
    assert (
        trained(one, tokenizer)
        == expected.split("|\n")[0].split("|<|user")[0].split("|<|start")[0].split("|<|turn")[0].split("|[INST")[0]
    )
    task = Problem(id="1", prompt="a", reference=None, verifier="exact", demonstration="one")
    assert encode_problems([task], tokenizer, SECTION, limit=500).rows[0].completion_ids == one.completion_ids
    pair = Pair(id="1", prompt="a", first="one", second="two")
    (encoded,), _ = encode_pairs([pair], tokenizer, SECTION, limit=500)
    assert encoded.first.completion_ids == one.completion_ids


def test_a_thought_in_an_earlier_reply_stays_in_front_of_the_next_one() -> None:
    tokenizer = tokenizer_of(THINKING)
    thought = "<think>\nhm\n</think>\n\none"
    row = encode_row(
        {"messages": [user("a"), assistant(thought), user("b"), assistant("two")]}, tokenizer, SECTION, where="f row 1"
    )
    assert trained(row, tokenizer) == f"{thought}<|im_end|>two<|im_end|>"


def test_a_thinking_switch_is_passed_on_marked_or_not() -> None:
    marked = THINKING.replace(
        "{{ m.content.split",
        "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}\n"
        "{% else %}{{ m.content.split",
    ).replace("<|im_end|>\n{% endfor", "<|im_end|>\n{% endif %}{% endfor")
    section = PromptSection(thinking=False)
    for template in (THINKING, marked):
        tokenizer = tokenizer_of(template)
        row = encode_row({"messages": CHAT["messages"][:2]}, tokenizer, section, where="f row 1")
        assert tokenizer.decode(list(row.prompt_ids)).endswith("assistant\n<think>\n\n</think>\n\n")
        assert trained(row, tokenizer) == "one<|im_end|>"
        several = encode_row(CHAT, tokenizer, section, where="f row 1")
        assert tokenizer.decode(list(several.completion_ids)).count("<think>\n\n</think>\n\n") == 2
        assert trained(several, tokenizer) == "one<|im_end|>two<|im_end|>three<|im_end|>"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("one", "\n</think>\n\none<|im_end|>"),
        ("<think>\nhm\n</think>\n\none", "hm\n</think>\n\none<|im_end|>"),
        ("hm</think>one", "hm</think>one<|im_end|>"),
    ],
)
def test_a_prompt_that_opens_a_thought_is_not_opened_again_and_is_closed(said: str, expected: str) -> None:
    tokenizer = tokenizer_of(OPENED)
    row = encode_row({"messages": [user("a"), assistant(said)]}, tokenizer, SECTION, where="f row 1")
    assert trained(row, tokenizer) == expected


def test_calls_of_tools_are_trained_as_the_template_writes_them() -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = [user("a"), assistant(None, tool_calls=[call]), {"role": "tool", "content": "5"}, assistant("five")]
    tokenizer = tokenizer_of(CALLS)
    row = encode_row({"messages": messages}, tokenizer, SECTION, where="f row 1")
    assert trained(row, tokenizer) == '<tool_call>add {"a": 1}</tool_call><|im_end|>five<|im_end|>'
    assert "tool\n5<|im_end|>\n<|im_start|>assistant\n" in tokenizer.decode(list(row.completion_ids))
    with pytest.raises(UnusableRow, match="its tool calls are not written by the chat template"):
        encode_row({"messages": messages}, tokenizer_of(PLAIN), SECTION, where="f row 1")
    text = CALLS.replace("c.function.arguments | tojson", "'' + c.function.arguments")  # wants a string
    row = encode_row({"messages": messages}, tokenizer_of(text), SECTION, where="f row 1")
    assert trained(row, tokenizer).startswith('<tool_call>add {"a": 1}</tool_call>')


@pytest.mark.parametrize(
    ("template", "messages", "reason"),
    [
        (COUNTED, CHAT["messages"], "differently in a longer chat"),
        (NO_HEADER, CHAT["messages"], "writes nothing where the assistant begins"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", CHAT["messages"], "writes nothing where the assistant"),
        (
            NAMED_ENDS,
            [user("a"), user("b"), assistant("c")],
            r"whose roles are user, user \(Conversation roles must alt",
        ),
        (
            NAMED_ENDS,
            [user("a"), assistant("b"), {"role": "tool", "content": "c"}, assistant("d")],
            "accepts no tool after",
        ),
        (PLAIN, [user("a"), assistant("b"), {"role": "user", "content": [{"type": "image"}]}], "part of kind 'image'"),
        (PLAIN.replace("{{ message.content }}", "{{ message.parts.x }}"), CHAT["messages"], "rejects its messages"),
    ],
)
def test_a_chat_that_cannot_be_used_says_why(template: str, messages: list, reason: str) -> None:
    with pytest.raises(UnusableRow, match=reason):
        encode_row({"messages": messages}, tokenizer_of(template), SECTION, where="f row 1")


def test_a_completion_of_several_messages_is_trained_and_the_prompts_replies_are_not() -> None:
    tokenizer = tokenizer_of(PLAIN)
    row = {
        "prompt": [user("a"), assistant("one"), user("b")],
        "completion": [assistant("two"), user("c"), assistant("three")],
    }
    assert trained(encode_row(row, tokenizer, SECTION, where="f"), tokenizer) == "two<|im_end|>three<|im_end|>"
    text = {"prompt": "a", "completion": [assistant("two")]}
    assert trained(encode_row(text, tokenizer, PromptSection(chat="never"), where="f"), tokenizer) == "two<|endoftext|>"


# ----------------------------------------------------------------------------------------------------- what ends


def named(tokenizer, ids: tuple[int, ...]) -> set[str]:
    return set(tokenizer.convert_ids_to_tokens(list(ids)))


def test_the_templates_turn_end_is_an_end_and_a_disagreement_is_told() -> None:
    tokenizer = tokenizer_of(PLAIN)
    configured = [tokenizer.convert_tokens_to_ids("<|im_start|>")]
    ends = ends_of(tokenizer, SECTION, configured)
    assert named(tokenizer, ends.ids) == {"<|im_end|>", "<|endoftext|>", "<|im_start|>"}
    assert ends.told is not None
    assert "ends a turn with '<|im_end|>', which is neither the tokenizer's eos_token ('<|endoftext|>')" in ends.told
    agreed = ends_of(tokenizer_of(PLAIN, eos="<|im_end|>"), SECTION, [])
    assert (agreed.told, len(agreed.ids)) == (None, 1)
    assert ends_of(tokenizer, SECTION, [tokenizer.convert_tokens_to_ids("<|im_end|>")]).told is None
    plain = ends_of(tokenizer, PromptSection(chat="never"), [])
    assert named(tokenizer, plain.ids) == {"<|endoftext|>"}


def test_end_tokens_are_named() -> None:
    tokenizer = tokenizer_of(PLAIN)
    ends = ends_of(tokenizer, PromptSection(end_tokens=["<|endoftext|>"]), [7])
    assert named(tokenizer, ends.ids) == {"<|endoftext|>"}
    assert ends.told is not None
    assert "not among prompt.end_tokens" in ends.told
    assert turns_of(tokenizer, PromptSection(end_tokens=["<|endoftext|>"])).completion_ids("a")[-1] == ends.ids[0]
    both = PromptSection(end_tokens=["<|endoftext|>", "<|im_end|>"])
    assert turns_of(tokenizer, both).end == tokenizer.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(ConfigError, match=r"single tokens.*'Human:' is 6 of them. Use prompt.stop"):
        ends_of(tokenizer, PromptSection(end_tokens=["Human:"]), [])


def test_a_special_token_as_a_stop_string_is_an_end_token_and_among_other_text_refused() -> None:
    tokenizer = tokenizer_of(PLAIN)
    ends = ends_of(tokenizer, PromptSection(stop=["<|im_start|>", "\n\n"]), [])
    assert "<|im_start|>" in named(tokenizer, ends.ids)
    assert ends.stop == ("\n\n",)
    with pytest.raises(
        ConfigError, match=r"contains the special token '<\|im_end\|>'.*prompt.end_tokens=\['<\|im_end\|>'\]"
    ):
        ends_of(tokenizer, PromptSection(stop=["<|im_end|>\n"]), [])


def test_a_template_that_shows_no_reply_still_has_an_end() -> None:
    assert Turns(tokenizer_of("{{ messages[0].content }}"), SECTION).end == byte_tokenizer().pad_token_id


# ------------------------------------------------------------------------------------------------------- prompts


def problem(prompt, name: str = "train/7") -> Problem:
    return Problem(id=name, prompt=prompt, reference="1", verifier="exact")


def test_a_system_message_that_a_template_refuses_is_named_and_can_be_folded() -> None:
    tokenizer = tokenizer_of(NAMED_ENDS, bos="<bos>", special=("<start_of_turn>", "<end_of_turn>"))
    system = PromptSection(system="Be brief.")
    with pytest.raises(
        ConfigError,
        match=r"problem train/7: the chat template accepts no system message \(System role not supported\)\. Leave it"
        r" out.*system_in: user.* 1 other problems likewise",
    ):
        render([problem("a"), problem("b", "train/8")], tokenizer, system)
    (prompt,) = render([problem("a")], tokenizer, system.model_copy(update={"system_in": "user"}))
    assert "user\nBe brief.\n\na<end_of_turn>" in prompt.text
    (prompt,) = render([problem(({"role": "user", "content": "a"},))], tokenizer, PromptSection())
    assert prompt.text.startswith("<bos><start_of_turn>user\na<end_of_turn>")


def test_a_system_message_that_a_template_leaves_out_is_refused() -> None:
    silent = PLAIN.replace("{% for message in messages %}", "{% for message in messages if message.role != 'system' %}")
    with pytest.raises(ConfigError, match="omits the system message"):
        render([problem("a")], tokenizer_of(silent), PromptSection(system="Be brief."))


def test_roles_that_do_not_alternate_name_the_row() -> None:
    twice = ({"role": "user", "content": "a"}, {"role": "user", "content": "b"})
    tokenizer = tokenizer_of(NAMED_ENDS, bos="<bos>")
    with pytest.raises(
        ConfigError, match=r"problem train/3: the chat template rejects its messages, whose roles are user, user"
    ):
        render([problem("a", "train/2"), problem(twice, "train/3")], tokenizer, SECTION)


def test_a_begin_of_sequence_token_stands_once() -> None:
    tokenizer = tokenizer_of(PLAIN, bos="<bos>", special=("<bos>",))
    from tokenizers.processors import TemplateProcessing

    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <|endoftext|>", special_tokens=[("<bos>", bos), ("<|endoftext|>", eos)]
    )
    for section in (PromptSection(chat="never"), PromptSection(chat="never", template="<bos>{prompt}")):
        (prompt,) = render([problem("a")], tokenizer, section)
        assert prompt.ids == (bos, *tokenizer("a", add_special_tokens=False)["input_ids"])
    (prompt,) = render([problem("a<|endoftext|>")], tokenizer, PromptSection(chat="never"))
    assert prompt.ids[-1] == eos  # the text's own


def test_a_judges_chat_is_rendered_where_its_template_takes_no_system_message() -> None:
    tokenizer = tokenizer_of(NAMED_ENDS, bos="<bos>")
    asked = [Turn("system", "Grade."), Turn("user", "An answer.")]
    assert "user\nGrade.\n\nAn answer.<end_of_turn>" in prompt_text(asked, tokenizer)
    with pytest.raises(ModelError, match="the judge's chat cannot be rendered"):
        prompt_text([*asked, Turn("user", "Again.")], tokenizer)


def test_a_chat_template_of_ones_own_takes_the_place_of_the_tokenizers(tmp_path: Path) -> None:
    file = tmp_path / "own.jinja"
    file.write_text(NO_END)
    shape = ScratchConfig(hidden_size=16, layers=1, heads=1)
    _, tokenizer = load_model(ModelSection(from_scratch=shape, chat_template=str(file)), seed=0)
    assert tokenizer.chat_template == NO_END
    with pytest.raises(ModelError, match=r"model\.chat_template='.*nowhere.jinja' cannot be read"):
        load_model(ModelSection(from_scratch=shape, chat_template=str(tmp_path / "nowhere.jinja")), seed=0)


@pytest.mark.parametrize(("bad", "policy", "goes_on"), [(2, "drop", True), (3, "drop", False), (3, "drop_most", True)])
def test_a_run_does_not_begin_where_most_rows_cannot_be_used(bad: int, policy: str, goes_on: bool) -> None:
    rows = [BadRow(f"f row {place}", "why") for place in range(bad)]
    if goes_on:
        said = report_bad_rows(rows, total=4, policy=RowPolicy(policy, "sft.bad_rows"), shape="{prompt}")
        assert said is not None
        assert f"{bad} of 4 rows cannot be used: f row 0: why ({bad} rows)" in said
        return
    with pytest.raises(ConfigError, match=r"3 of 4 rows cannot be used.*75% of the data.*set sft.bad_rows: drop_most"):
        report_bad_rows(rows, total=4, policy=RowPolicy(policy, "sft.bad_rows"), shape="{prompt}")
