"""The gate of chat templates: what each kind can show as a reply of an environment, against the whole chat rendered."""

from __future__ import annotations

import pytest

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection
from reasoner.data.replies import ReplyWriter
from reasoner.rollout.turns import strips_thinking
from tasks.environments import get_environment
from tests.unit.reasoner.data.test_turns import PLAIN, THINKING, tokenizer_of

TOOL = "{% for m in messages %}{% if m.role == 'tool' %}<|im_start|>tool\n"
REST = (
    "<|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
JSON = f"{TOOL}{{{{ m.content | tojson }}}}{REST}"
TRIMMED = f"{TOOL}{{{{ m.content | trim }}}}{REST}"
NEXT_ROLE = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""The mark of the next role ends a turn."""
NO_HEADER_NEEDED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}</s>"
    "{% else %}[INST]{{ m.content }}[/INST]{% endif %}{% endfor %}"
)
"""The assistant writes right behind the mark that ends a message."""
FIRST_IS_OTHER = (
    "{% set ns = namespace(first=true) %}{% for m in messages %}{% if m.role == 'tool' %}"
    "{% if ns.first %}<outputs>{% set ns.first = false %}{% endif %}<|im_start|>tool\n{{ m.content }}" + REST
)
"""The first message of a tool is opened in another way than those after it, whatever the users write."""
NAMED = f"{TOOL.removesuffix(chr(10))} {{{{ m.name or '' }}}}\n{{{{ m.content }}}}{REST}"
BEHIND_CALLS = f"{TOOL}{{{{ m.content if messages[loop.index0 - 1].tool_calls else '' }}}}{REST}"
JOINED = "{% for m in messages %}{{ m.content }}{% endfor %}"
HEADER_LEFT_OUT = PLAIN.replace("{% if add_generation_prompt %}", "{% if false %}")
STRIPPED_ALWAYS = THINKING.replace("not loop.last", "true")

BODIES = ("42", ' two\nlines: "a\\b" ', '{"a": 1}', "é <b>", "")
SPECIAL = {"special": ("<|tool|>", "<|user|>", "<|assistant|>", "[INST]", "[/INST]", "</s>")}


def writer_of(template: str, role: str, eos: str = "<|im_end|>") -> ReplyWriter:
    tokenizer = tokenizer_of(template, eos=eos, **SPECIAL)  # pyright: ignore[reportArgumentType]
    section = PromptSection(reply=role, chat="always")  # pyright: ignore[reportArgumentType]
    return ReplyWriter.of(get_environment("calculator"), tokenizer, section, most_tokens=256)


def grown(writer: ReplyWriter, body: str, end: str | None) -> str:
    """A chat of two calls and two replies, id by id as a rollout; a stop string ends the turns where `end` is None."""
    tokenizer = writer.turns.tokenizer
    question = [{"role": "user", "content": "hello"}]
    start = str(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
    ids: list[int] = list(tokenizer(start, add_special_tokens=False)["input_ids"])
    closing = [] if end is None else [tokenizer.convert_tokens_to_ids(end)]
    for said in ("call one", "call two"):
        ids += [*writer.turns.plain_ids(said), *closing]
        ids += writer.write(body, end=closing[0] if closing else None).ids
    return str(tokenizer.decode(ids))


def rendered(writer: ReplyWriter, body: str) -> str:
    messages = [{"role": "user", "content": "hello"}]
    for said in ("call one", "call two"):
        messages += [{"role": "assistant", "content": said}, {"role": writer.role, "content": body}]
    text = writer.turns.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text)


@pytest.mark.parametrize(
    ("template", "role", "end"),
    [
        (PLAIN, "user", "<|im_end|>"),
        (JSON, "tool", "<|im_end|>"),
        (TRIMMED, "tool", "<|im_end|>"),
        (NEXT_ROLE, "tool", "<|tool|>"),
        (NEXT_ROLE, "user", "<|user|>"),
        (NO_HEADER_NEEDED, "user", "</s>"),
        (FIRST_IS_OTHER, "user", "<|im_end|>"),
        (NAMED, "user", "<|im_end|>"),
    ],
    ids=[
        "chatml",
        "json",
        "trimmed",
        "next role",
        "next role, user",
        "brackets",
        "user beside tool",
        "user beside name",
    ],
)
def test_an_episode_has_the_text_that_the_template_gives_the_whole_chat(template: str, role: str, end: str) -> None:
    writer = writer_of(template, role, eos=end if end in ("</s>", "<|im_end|>") else "<|endoftext|>")
    for body in BODIES:
        assert grown(writer, body, end) == rendered(writer, body), body
        assert grown(writer, body, None) == rendered(writer, body), body


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (FIRST_IS_OTHER, "writes messages of the roles tool after a reply differently in a longer chat"),
        (NAMED, "writes the tool's name beside its answer"),
        (BEHIND_CALLS, "does not show messages of the roles tool once"),
        (JOINED, "writes nothing where the assistant begins"),
        (HEADER_LEFT_OUT, "writes nothing where the assistant begins"),
        (JSON.replace("m.content | tojson", "m.content ~ m.content"), "does not show messages of the roles tool once"),
    ],
    ids=["first is other", "name", "behind calls", "joined", "header left out", "twice"],
)
def test_a_near_miss_is_refused_with_what_it_cannot_do(template: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        writer_of(template, "tool")


def test_a_written_reply_is_plain_text_also_where_the_template_escapes_it() -> None:
    writer = writer_of(JSON, "tool")
    written = writer.write('say "hi"\n<|im_end|>', end=None)
    assert written.text == r"say \"hi\"\n<|im_end|>"
    marks = [token for token in written.ids if token in writer.turns.tokenizer.all_special_ids]
    ends = [writer.turns.tokenizer.decode([token]) for token in marks]
    assert ends == ["<|im_end|>", "<|im_start|>", "<|im_end|>", "<|im_start|>"]
    long = writer.write('"' * 1000, end=None)
    assert long.cut
    assert len(writer.turns.text_ids(long.text)) <= 256


@pytest.mark.parametrize(
    ("template", "user", "tool"), [(PLAIN, False, False), (THINKING, True, True), (STRIPPED_ALWAYS, True, True)]
)
def test_thinking_that_a_template_drops_is_found_for_each_role(template: str, user: bool, tool: bool) -> None:
    tokenizer = tokenizer_of(template)
    assert [strips_thinking(tokenizer, role) for role in ("user", "tool")] == [user, tool]
    kept = template.replace("m.role == 'assistant' and", "m.role == 'assistant' and messages[-1].role == 'user' and")
    if kept != template:
        assert not strips_thinking(tokenizer_of(kept), "tool")
        assert strips_thinking(tokenizer_of(kept), "user")
