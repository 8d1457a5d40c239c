"""Formats of demonstrations: a chat whose replies are learned, or a prompt and its completion."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tasks.inputs.formats import Format, UnfitRow, as_it_is
from tasks.inputs.problem_formats import CHAT, REPLY, TRL, is_gsm8k, read_gsm8k
from tasks.inputs.values import (
    asked,
    chat,
    chat_in,
    find,
    from_json,
    is_chat,
    is_text,
    joined,
    mark_of,
    need,
    need_text,
)

Row = Mapping[str, object]
CHATS = ("conversations", "conversation", "messages")
QUESTIONS = ("question", "problem", "query", "instruction", "prompt", "input")
REPLIES = ("response", "solution", "answer", "output", "generation", "target")
"""Columns of a question and of its reply in rows without more specific names."""


def is_kto(row: Row) -> bool:
    """Return True for a row with a completion and a mark of whether it is good."""
    return isinstance(mark_of(row), bool) and (row.get("completion") is not None or is_chat(row.get("messages")))


def _read_kto(row: Row) -> Row:
    if mark_of(row) is not True:
        raise UnfitRow("is marked as a bad completion, which nothing should learn to say")
    return row if row.get("completion") is not None else {"messages": chat(row.get("messages"))}


def is_own(row: Row) -> bool:
    """Return True for a row with our own columns, which are TRL's."""
    if is_chat(row.get("messages")):
        return "role" in str(row["messages"])[:200]
    return row.get("prompt") is not None and row.get("completion") is not None


def is_sharegpt(row: Row) -> bool:
    """Return True for a row with conversations in any wording."""
    return chat_in(row, *CHATS) is not None


def _read_sharegpt(row: Row) -> Row:
    return {"messages": chat(chat_in(row, *CHATS), system=find(row, "system", "system_prompt"))}


def is_alpaca(row: Row) -> bool:
    """Return True for a row with instruction and output, each one text."""
    return is_text(row.get("instruction")) and is_text(row.get("output"))


def _read_alpaca(row: Row) -> Row:
    prompt = joined(need_text(row, "instruction"), row.get("input"))
    return {
        "prompt": asked(row.get("system"), from_json(row.get("history")), prompt),
        "completion": need_text(row, "output"),
    }


def is_dolly(row: Row) -> bool:
    """Return True for a row with instruction and response (a context is optional)."""
    return is_text(row.get("instruction")) and is_text(row.get("response"))


def _read_dolly(row: Row) -> Row:
    prompt = joined(need_text(row, "instruction"), find(row, "context", "input"))
    return {"prompt": asked(row.get("system"), None, prompt), "completion": need_text(row, "response")}


def is_swift(row: Row) -> bool:
    """Return True for a row with query and response."""
    return is_text(row.get("query")) and is_text(row.get("response"))


def _read_swift(row: Row) -> Row:
    prompt = asked(row.get("system"), from_json(row.get("history")), need_text(row, "query"))
    return {"prompt": prompt, "completion": need_text(row, "response")}


def is_openrlhf(row: Row) -> bool:
    """Return True for a row with input and output but no instruction."""
    given = row.get("input")
    return (is_text(given) or is_chat(given)) and is_text(row.get("output")) and "instruction" not in row


def _read_openrlhf(row: Row) -> Row:
    given = need(row, "input")
    prompt = chat(given) if is_chat(given) else need_text(row, "input")
    return {"prompt": prompt, "completion": need_text(row, "output")}


def _read_gsm8k_row(row: Row) -> Row:
    found = read_gsm8k(row)
    return {"prompt": found["prompt"], "completion": found["demonstration"]}


def is_math(row: Row) -> bool:
    """Return True for a row with problem and solution."""
    return is_text(find(row, "problem")) and is_text(find(row, "solution", "generated_solution"))


def _read_math(row: Row) -> Row:
    return {
        "prompt": need_text(row, "problem"),
        "completion": need_text(row, "solution", "generated_solution"),
    }


def is_qa(row: Row) -> bool:
    """Return True for a row with a question and its reply, in columns with names of `REPLIES`."""
    question = find(row, "question", "query", "prompt")
    return is_text(question) and is_text(find(row, *REPLIES)) and find(row, "chosen", "completion") is None


def _read_qa(row: Row) -> Row:
    question = joined(find(row, "context"), need_text(row, *QUESTIONS))
    return {
        "prompt": asked(find(row, "system", "system_prompt"), None, question),
        "completion": need_text(row, *REPLIES),
    }


def refuse(why: str) -> Callable[[Row], Row]:
    """Return a reader that raises UnfitRow for every row, with this reason."""

    def read(row: Row) -> Row:
        raise UnfitRow(why)

    return read


def is_plain_text(row: Row) -> bool:
    """Return True for a row with text and no prompt."""
    known = {"text", "id", "meta", "metadata", "source", "url", "timestamp"}
    return is_text(row.get("text")) and row.keys() <= known


ALPACA = "https://github.com/tatsu-lab/stanford_alpaca#data-release"
SWIFT = "https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html"

FORMATS: Sequence[Format] = (
    Format(
        name="kto",
        use="demonstrations",
        told_by="a label that is true or false; only the good completions are used",
        fits=is_kto,
        read=_read_kto,
        example={"prompt": "What is 7 times 6?", "completion": "It is 42.", "label": True},
        source=TRL,
    ),
    Format(
        name="trl",
        use="demonstrations",
        told_by="messages, or prompt and completion",
        fits=is_own,
        read=as_it_is,
        example={"messages": [*CHAT, REPLY]},
        source=TRL,
    ),
    Format(
        name="sharegpt",
        use="demonstrations",
        told_by="conversations of {from, value}, or of {human, assistant}",
        fits=is_sharegpt,
        read=_read_sharegpt,
        example={
            "system": "Be brief.",
            "conversations": [
                {"from": "human", "value": "What is 7 times 6?"},
                {"from": "gpt", "value": "It is 42."},
            ],
        },
        source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md",
    ),
    Format(
        name="alpaca",
        use="demonstrations",
        told_by="instruction, input and output; optionally system and history",
        fits=is_alpaca,
        read=_read_alpaca,
        example={"instruction": "Multiply the numbers.", "input": "7 and 6", "output": "42"},
        source=ALPACA,
    ),
    Format(
        name="dolly",
        use="demonstrations",
        told_by="instruction, context and response",
        fits=is_dolly,
        read=_read_dolly,
        example={"instruction": "Multiply the numbers.", "context": "7 and 6", "response": "42"},
        source="https://huggingface.co/datasets/databricks/databricks-dolly-15k",
    ),
    Format(
        name="swift",
        use="demonstrations",
        told_by="query and response; optionally system and history",
        fits=is_swift,
        read=_read_swift,
        example={"query": "And 7 times 6?", "response": "42", "history": [["What is 7 times 7?", "49"]]},
        source=SWIFT,
    ),
    Format(
        name="openrlhf",
        use="demonstrations",
        told_by="input and output",
        fits=is_openrlhf,
        read=_read_openrlhf,
        example={"input": "What is 7 times 6?", "output": "It is 42."},
        source="https://openrlhf.readthedocs.io/en/latest/sft.html",
    ),
    Format(
        name="gsm8k",
        use="demonstrations",
        told_by="question, and an answer with ####",
        fits=is_gsm8k,
        read=_read_gsm8k_row,
        example={"question": "What is 7 times 6?", "answer": "7 times 6 is <<7*6=42>>42.\n#### 42"},
        source="https://huggingface.co/datasets/openai/gsm8k",
    ),
    Format(
        name="math",
        use="demonstrations",
        told_by="problem and solution",
        fits=is_math,
        read=_read_math,
        example={"problem": "What is 7 times 6?", "solution": "It is $\\boxed{42}$."},
        source="https://huggingface.co/datasets/AI-MO/NuminaMath-CoT",
    ),
    Format(
        name="qa",
        use="demonstrations",
        told_by="question and answer, response or solution",
        fits=is_qa,
        read=_read_qa,
        example={"system_prompt": "Be brief.", "question": "What is 7 times 6?", "response": "42"},
        source="https://huggingface.co/datasets/Open-Orca/OpenOrca",
    ),
    Format(
        name="text",
        use="demonstrations",
        told_by="only text: refused, since nothing says which part is the prompt",
        fits=is_plain_text,
        read=refuse("is only text, without a prompt; a demonstration needs {messages} or {prompt, completion}"),
        example={"text": "7 times 6 is 42."},
        source=TRL,
    ),
    Format(
        name="tokens",
        use="demonstrations",
        told_by="input_ids: refused, since they are valid for one tokenizer only",
        fits=lambda row: "input_ids" in row,
        read=refuse("has token ids, which are valid for one tokenizer only; give the text: {messages}"),
        example={"input_ids": [1, 2], "labels": [-100, 2]},
        source="https://docs.axolotl.ai/docs/dataset-formats/tokenized.html",
    ),
)
