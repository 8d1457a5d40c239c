r"""Formats of problems: a prompt, and the reference answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tasks.inputs.formats import Format, UnfitRow, as_it_is
from tasks.inputs.multiple_choice import is_multiple_choice, read_multiple_choice
from tasks.inputs.values import (
    before_reply,
    chat,
    chat_in,
    find,
    from_json,
    is_answer,
    is_chat,
    is_list,
    is_object,
    is_text,
    joined,
    need,
    need_text,
)

Row = Mapping[str, object]
ANSWERS = (
    *(
        "reference",
        "answer",
        "final_answer",
        "solution",
        "ground_truth",
        "reference_answer",
        "golden_answers",
        "answers",
    ),
    *("expected_answer", "correct_answer", "gold", "label", "target"),
)
"""Columns of the reference answer in rows with a prompt, the most reliable first."""
QUESTIONS = ("problem", "question")
CALCULATOR = re.compile(r"<<[^<>]*>>")
BOX = r"\boxed"


def is_own(row: Row) -> bool:
    """Return True for a row with our own columns."""
    return (is_text(row.get("prompt")) or is_chat(row.get("prompt"))) and "reference" in row


def is_verl(row: Row) -> bool:
    """Return True for a row with a prompt, and a reference inside reward_model that is not of code."""
    inside = row.get("reward_model")
    if not (is_object(inside) and inside.get("ground_truth") is not None):
        return False
    truth = inside["ground_truth"]
    coded = isinstance(truth, str) and truth.lstrip().startswith("{")
    return (is_chat(row.get("prompt")) or is_text(row.get("prompt"))) and not coded


def read_verl(row: Row) -> Row:
    """Read a row of verl. The reference may be several answers: a list, the same as JSON in text, or {target:
    [...]}.
    """
    inside, prompt = row.get("reward_model"), need(row, "prompt")
    truth = inside.get("ground_truth") if is_object(inside) else None
    if truth is None:
        raise UnfitRow("has no value in column 'reward_model.ground_truth'")
    found = from_json(truth) if isinstance(truth, str) and re.match(r'\s*\["', truth) else truth
    if is_object(found) and list(found) == ["target"] and is_list(found["target"]):
        found = {"any": found["target"]}
    return _kept(row, prompt=before_reply(chat(prompt)) if is_chat(prompt) else prompt, reference=found)


def is_gsm8k(row: Row) -> bool:
    """Return True for a row with a question and a worked answer that contains ####."""
    return is_text(row.get("question")) and "####" in str(row.get("answer") or "")


def read_gsm8k(row: Row) -> Row:
    """Read a row of GSM8K: the reference is the number after ####, the demonstration the answer without calculator
    marks.
    """
    worked, mark, final = need_text(row, "answer").rpartition("####")
    answer = final.strip().replace(",", "")
    if not mark or not answer:
        raise UnfitRow("its answer must end in #### and the final answer")
    said = f"{CALCULATOR.sub('', worked).strip()}\n#### {answer}"
    return _kept(row, prompt=need_text(row, "question"), reference=answer, demonstration=said)


def is_math(row: Row) -> bool:
    """Return True for a row with a problem and an answer, or a solution with a boxed answer."""
    boxed = BOX in str(find(row, "solution", "generated_solution") or "")
    return is_text(find(row, "problem")) and (is_answer(find(row, *ANSWERS[1:3], "expected_answer")) or boxed)


def _read_math(row: Row) -> Row:
    solution = find(row, "solution", "generated_solution")
    answer = find(row, "answer", "final_answer", "expected_answer")
    reference = answer if is_answer(answer) else solution
    if not is_answer(reference):
        raise UnfitRow("has neither an answer nor a solution")
    worked = {"demonstration": solution} if is_text(solution) and BOX in solution else {}
    return _kept(row, prompt=need_text(row, "problem"), reference=reference, **worked)


def is_trl(row: Row) -> bool:
    """Return True for a row with a prompt without a final reply, and an answer column that reward functions read."""
    prompt = row.get("prompt")
    open_chat = is_chat(prompt) and not _ends_in_reply(prompt)
    rated = isinstance(row.get("label"), bool) or "completion" in row or "chosen" in row
    return (is_text(prompt) or open_chat) and is_answer(find(row, *ANSWERS[1:])) and not rated


def _read_trl(row: Row) -> Row:
    return _kept(row, prompt=need(row, "prompt"), reference=need(row, *ANSWERS))


def is_verifiable(row: Row) -> bool:
    """Return True for a row with a prompt, and the reference inside verification_info, which may be JSON in text."""
    return is_text(row.get("prompt")) and "ground_truth" in str(row.get("verification_info") or "")


def _verifiable(row: Row) -> Row:
    inside = from_json(need(row, "verification_info"))
    truth = inside.get("ground_truth") if is_object(inside) else None
    if not is_answer(truth):
        raise UnfitRow("has no text or number in 'verification_info.ground_truth'")
    return _kept(row, prompt=need_text(row, "prompt"), reference=truth)


def is_sharegpt(row: Row) -> bool:
    """Return True for a row with conversations, and the reference in another column."""
    return chat_in(row, "conversations", "conversation") is not None and is_answer(find(row, *ANSWERS))


def _read_sharegpt(row: Row) -> Row:
    turns = chat(chat_in(row, "conversations", "conversation"), system=row.get("system"))
    return _kept(row, prompt=before_reply(turns), reference=need(row, *ANSWERS))


def is_messages(row: Row) -> bool:
    """Return True for a row with messages, and the reference in another column."""
    return is_chat(row.get("messages")) and is_answer(find(row, *ANSWERS))


def _read_messages_row(row: Row) -> Row:
    return _kept(row, prompt=before_reply(chat(need(row, "messages"))), reference=need(row, *ANSWERS))


def is_openrlhf(row: Row) -> bool:
    """Return True for a row with input and label, where the label is an answer and not a mark of good or bad."""
    given = row.get("input")
    return (is_text(given) or is_chat(given)) and is_answer(row.get("label")) and "instruction" not in row


def _read_openrlhf(row: Row) -> Row:
    given = need(row, "input")
    prompt = before_reply(chat(given)) if is_chat(given) else need_text(row, "input")
    return _kept(row, prompt=prompt, reference=need(row, "label"))


def _answers_of(row: Row) -> object:
    """Return the reference answers of a question; for {text: [...], answer_start: [...]}, its texts."""
    found = find(row, *ANSWERS)
    inner = row.get("answers")
    return inner["text"] if is_object(inner) and "text" in inner else found


def is_qa(row: Row) -> bool:
    """Return True for a row with a question (or an input) and its answer, in columns of these names."""
    if find(row, "choices", "options") is not None:
        return False
    asked = is_text(find(row, "question", "query")) and is_answer(_answers_of(row))
    return asked or (is_text(find(row, "input")) and is_answer(find(row, "target")))


def _read_qa(row: Row) -> Row:
    question = joined(find(row, "context", "passage"), need_text(row, "question", "query", "input"))
    reference = _answers_of(row)
    return _kept(row, prompt=question, reference=need(row, *ANSWERS) if reference is None else reference)


def is_alpaca(row: Row) -> bool:
    """Return True for a row with instruction and output."""
    return is_text(row.get("instruction")) and is_text(row.get("output"))


def _read_alpaca(row: Row) -> Row:
    prompt = joined(need_text(row, "instruction"), row.get("input"))
    return _kept(row, prompt=prompt, reference=need(row, "output"))


def _ends_in_reply(prompt: Sequence[object]) -> bool:
    last = prompt[-1]
    return is_object(last) and last.get("role", last.get("from")) in ("assistant", "gpt")


def _kept(row: Row, **ours: object) -> Row:
    """Return our columns together with the row's own, which options such as `info_columns` may name."""
    return {**row, **ours}


CHAT = [{"role": "user", "content": "What is 7 times 6?"}]
REPLY = {"role": "assistant", "content": "7 times 6 is 42."}
TRL = "https://huggingface.co/docs/trl/dataset_formats"

FORMATS: Sequence[Format] = (
    Format(
        name="reasoner",
        use="problems",
        told_by="prompt and reference",
        fits=is_own,
        read=as_it_is,
        example={"prompt": "What is 7 times 6?", "reference": "42"},
        source="docs/verifiers.md",
    ),
    Format(
        name="verl",
        use="problems",
        told_by="prompt, and ground_truth inside reward_model",
        fits=is_verl,
        read=read_verl,
        example={
            "data_source": "openai/gsm8k",
            "prompt": CHAT,
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "42"},
            "extra_info": {"split": "train", "index": 0},
        },
        source="https://verl.readthedocs.io/en/latest/preparation/prepare_data.html",
        verifier="math",
    ),
    Format(
        name="mcq",
        use="problems",
        told_by="question, choices (or options, or columns A, B, C, D) and which is right",
        fits=is_multiple_choice,
        read=read_multiple_choice,
        example={
            "question": "What is 7 times 6?",
            "choices": {"text": ["36", "42"], "label": ["A", "B"]},
            "answerKey": "B",
        },
        source="https://huggingface.co/datasets/allenai/ai2_arc",
        verifier="choice",
    ),
    Format(
        name="gsm8k",
        use="problems",
        told_by="question, and an answer with ####",
        fits=is_gsm8k,
        read=read_gsm8k,
        example={"question": "What is 7 times 6?", "answer": "7 times 6 is <<7*6=42>>42.\n#### 42"},
        source="https://huggingface.co/datasets/openai/gsm8k",
        verifier="math",
    ),
    Format(
        name="math",
        use="problems",
        told_by="problem, and an answer or a boxed solution",
        fits=is_math,
        read=_read_math,
        example={"problem": "What is 7 times 6?", "solution": "It is $\\boxed{42}$.", "level": "Level 1"},
        source="https://huggingface.co/datasets/HuggingFaceH4/MATH-500",
        verifier="math",
    ),
    Format(
        name="sharegpt",
        use="problems",
        told_by="conversations, and the answer in another column",
        fits=is_sharegpt,
        read=_read_sharegpt,
        example={
            "conversations": [
                {"from": "human", "value": "What is 7 times 6?"},
                {"from": "gpt", "value": "It is 42."},
            ],
            "answer": "42",
        },
        source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md",
        verifier="math",
    ),
    Format(
        name="messages",
        use="problems",
        told_by="messages, and the answer in another column",
        fits=is_messages,
        read=_read_messages_row,
        example={"messages": [*CHAT, REPLY], "answer": "42"},
        source=TRL,
        verifier="math",
    ),
    Format(
        name="trl",
        use="problems",
        told_by="prompt, and solution (or answer, ground_truth, ...)",
        fits=is_trl,
        read=_read_trl,
        example={"prompt": CHAT, "solution": "\\boxed{42}"},
        source="https://huggingface.co/docs/trl/grpo_trainer",
        verifier="math",
    ),
    Format(
        name="verification_info",
        use="problems",
        told_by="prompt, and ground_truth inside verification_info",
        fits=is_verifiable,
        read=_verifiable,
        example={"prompt": "What is 7 times 6?", "verification_info": '{"ground_truth": "42"}'},
        source="https://huggingface.co/datasets/PrimeIntellect/verifiable-math-problems",
        verifier="math",
    ),
    Format(
        name="openrlhf",
        use="problems",
        told_by="input and label",
        fits=is_openrlhf,
        read=_read_openrlhf,
        example={"input": "What is 7 times 6?", "label": "42"},
        source="https://openrlhf.readthedocs.io/en/latest/rl.html",
        verifier="math",
    ),
    Format(
        name="qa",
        use="problems",
        told_by="question and answer, or input and target",
        fits=is_qa,
        read=_read_qa,
        example={"question": "What is the capital of France?", "answer": "Paris"},
        source="https://huggingface.co/datasets/basicv8vc/SimpleQA",
        verifier="exact",
    ),
    Format(
        name="alpaca",
        use="problems",
        told_by="instruction and output",
        fits=is_alpaca,
        read=_read_alpaca,
        example={"instruction": "Multiply the numbers.", "input": "7 and 6", "output": "42"},
        source="https://github.com/tatsu-lab/stanford_alpaca#data-release",
        verifier="math",
        by_itself=False,
    ),
)
