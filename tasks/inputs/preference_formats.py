"""Formats of preferences: which of two completions of one prompt is better."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile

from tasks.inputs.formats import Format, UnfitRow, as_it_is
from tasks.inputs.problem_formats import CHAT, REPLY, TRL
from tasks.inputs.values import (
    asked,
    before_reply,
    chat,
    compact,
    find,
    is_chat,
    is_list,
    is_object,
    is_text,
    joined,
    mark_of,
    need,
    need_text,
)

Row = Mapping[str, object]
KEPT = ("id", "margin", "category", "subset", "probability")
"""Our own optional columns that a row of any format may have."""


def is_own(row: Row) -> bool:
    """Return True for a row with our own columns, which are TRL's."""
    if row.get("first") is not None and row.get("second") is not None and "label" in row:
        return True
    if row.get("chosen") is None or row.get("rejected") is None:
        return False
    sides = is_chat(row["chosen"]) and is_chat(row["rejected"]) and "role" in str(row["chosen"])[:200]
    transcripts = str(row["chosen"]).lstrip().startswith("Human:")
    return row.get("prompt") is not None or sides or transcripts


def is_ultrafeedback(row: Row) -> bool:
    """Return True for a row with a prompt as text, and whole conversations that begin with it."""
    chosen = row.get("chosen")
    return is_text(row.get("prompt")) and is_chat(chosen) and is_chat(row.get("rejected")) and len(chosen) > 1


def is_sharegpt(row: Row) -> bool:
    """Return True for a row with conversations of {from, value}, and two alternatives for the next message."""
    return is_chat(row.get("conversations")) and row.get("chosen") is not None and row.get("rejected") is not None


def _read_sharegpt(row: Row) -> Row:
    turns = chat(need(row, "conversations"), system=row.get("system"))
    return {
        "prompt": turns,
        "chosen": _said(need(row, "chosen")),
        "rejected": _said(need(row, "rejected")),
        **_kept(row),
    }


def is_swift(row: Row) -> bool:
    """Return True for a row with messages that end in the better reply, and a column for the worse one."""
    return is_chat(row.get("messages")) and (
        is_text(row.get("rejected_response")) or is_chat(row.get("rejected_messages"))
    )


def _read_swift(row: Row) -> Row:
    turns = chat(need(row, "messages"))
    worse = row.get("rejected_response") or need(row, "rejected_messages")
    if turns[-1]["role"] != "assistant":
        raise UnfitRow("its messages must end in the assistant's better reply")
    rejected = worse if isinstance(worse, str) else chat(worse)[-1]["content"]
    return {"prompt": turns[:-1], "chosen": turns[-1]["content"], "rejected": rejected, **_kept(row)}


def is_continued(row: Row) -> bool:
    """Return True for a row with messages, and two replies to them as text."""
    return is_chat(row.get("messages")) and is_text(row.get("chosen")) and is_text(row.get("rejected"))


def _read_continued(row: Row) -> Row:
    turns = before_reply(chat(need(row, "messages")))
    return {"prompt": turns, "chosen": row["chosen"], "rejected": row["rejected"], **_kept(row)}


def is_instructed(row: Row) -> bool:
    """Return True for a row with a question or an instruction, and two replies as text."""
    return is_text(find(row, "instruction", "question", "query", "input")) and all(map(is_text, _two(row)))


def _read_instructed(row: Row) -> Row:
    system, given = find(row, "system", "system_prompt"), find(row, "input")
    question = find(row, "instruction", "question", "query")
    prompt = joined(question, given) if question is not None else need_text(row, "input")
    chosen, rejected = _two(row)
    if not is_text(chosen) or not is_text(rejected):
        raise UnfitRow("must have two replies as text: chosen and rejected")
    return {"prompt": asked(system, None, prompt), "chosen": chosen, "rejected": rejected, **_kept(row)}


def _two(row: Row) -> tuple[object, object]:
    output = row.get("output")
    if is_list(output) and len(output) == 2:
        return output[0], output[1]
    return find(row, "chosen", "chosen_response"), find(row, "rejected", "rejected_response")


def is_implicit(row: Row) -> bool:
    """Return True for a row with two texts without a prompt column: the prompt is their common beginning."""
    return row.get("prompt") is None and is_text(row.get("chosen")) and is_text(row.get("rejected"))


def _read_implicit(row: Row) -> Row:
    chosen, rejected = need_text(row, "chosen"), need_text(row, "rejected")
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    if shared == min(len(chosen), len(rejected)):
        raise UnfitRow(
            "must have two replies after the common beginning of both texts; one text is the beginning of the other"
        )
    while shared and not chosen[shared - 1].isspace():
        shared -= 1  # do not split a word
    if shared and chosen[shared - 1] == " ":
        shared -= 1  # a space belongs to the next word, as tokenizers have it
    if not chosen[:shared].strip():
        raise UnfitRow("has no prompt: its texts begin with different words")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:], **_kept(row)}


def is_shp(row: Row) -> bool:
    """Return True for a row with a history, two replies by people, and which was preferred."""
    return is_text(row.get("history")) and is_text(row.get("human_ref_A")) and is_text(row.get("human_ref_B"))


def _read_shp(row: Row) -> Row:
    label = row.get("labels")
    if label not in (0, 1):
        raise UnfitRow(f"labels must be 1 (A is better) or 0; got {label!r}")
    return _ordered(need_text(row, "history"), row["human_ref_A"], row["human_ref_B"], better=label == 1)


def is_arena(row: Row) -> bool:
    """Return True for a row with replies a and b to one prompt, and the winner."""
    sides = row.get("response_a", row.get("conversation_a")), row.get("response_b", row.get("conversation_b"))
    return None not in sides and ("winner" in row or "winner_model_a" in row)


def _read_arena(row: Row) -> Row:
    winner = str(row.get("winner") or next((key for key in row if key.startswith("winner_") and row[key] == 1), "none"))
    label = {"a": "first", "b": "second"}.get(winner.rpartition("_")[2], "tie" if "tie" in winner else winner)
    if is_chat(row.get("conversation_a")):
        first, second = chat(row["conversation_a"]), chat(row["conversation_b"])
        if first[:-1] != second[:-1]:
            raise UnfitRow("its two conversations must be the same up to the last reply")
        sides = first[:-1], first[-1]["content"], second[-1]["content"]
    else:
        sides = need_text(row, "prompt"), need_text(row, "response_a"), need_text(row, "response_b")
    return {"prompt": sides[0], "first": sides[1], "second": sides[2], "label": label, **_kept(row)}


def is_kto(row: Row) -> bool:
    """Return True for a row with one completion and a mark of whether it is good."""
    return isinstance(mark_of(row), bool) and (row.get("completion") is not None or is_chat(row.get("messages")))


def unpaired(row: Row) -> tuple[object, object, bool]:
    """Return (prompt, completion, True if it is good) of an unpaired row.

    Raises:
        UnfitRow: it lacks one of them.
    """
    good = mark_of(row)
    if not isinstance(good, bool):
        raise UnfitRow(f"label must be true or false; got {str(good)[:40]!r}")
    if is_chat(row.get("messages")):
        turns = chat(row["messages"])
        if len(turns) < 2 or turns[-1]["role"] != "assistant":
            raise UnfitRow("its messages must end in the assistant's reply")
        return turns[:-1], turns[-1]["content"], good
    return need(row, "prompt"), _said(need(row, "completion")), good


def paired(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """Pair good and bad completions of the same prompt, in order; a row left over becomes {"unfit": why}.

    A prompt with three good completions and two bad ones gives two pairs: each completion is in at most one pair.
    """
    waiting: dict[str, dict[bool, list[tuple[str, object, object]]]] = {}
    for where, row in rows:
        try:
            prompt, said, good = unpaired(row)
        except UnfitRow as error:
            yield where, {"unfit": str(error)}
            continue
        marked = waiting.setdefault(compact(prompt), {True: [], False: []})
        if not marked[not good]:
            marked[good].append((where, prompt, said))
            continue
        other = marked[not good].pop(0)
        better, worse = (said, other[2]) if good else (other[2], said)
        yield f"{other[0]} and {where}", {"prompt": prompt, "chosen": better, "rejected": worse}
    for marked in waiting.values():
        for good, left in marked.items():
            for where, _, _ in left:
                word = "good" if good else "bad"
                yield (
                    where,
                    {"unfit": f"is the {word} completion of a prompt without one of the other label to pair it with"},
                )


def _ordered(prompt: object, first: object, second: object, *, better: bool) -> Row:
    chosen, rejected = (first, second) if better else (second, first)
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def _said(value: object) -> object:
    """Return a reply as text: the value itself, or the content of its only or last message."""
    if is_object(value):
        return chat([value])[-1]["content"]
    return chat(value)[-1]["content"] if is_chat(value) else value


def _kept(row: Row) -> Row:
    return {key: row[key] for key in KEPT if row.get(key) is not None}


BETTER, WORSE = "It is 42.", "It is 43."

FORMATS: Sequence[Format] = (
    Format(
        name="ultrafeedback",
        use="preferences",
        told_by="prompt as text; chosen and rejected as conversations that begin with it",
        fits=is_ultrafeedback,
        read=as_it_is,
        example={
            "prompt": "What is 7 times 6?",
            "chosen": [*CHAT, REPLY],
            "rejected": [*CHAT, {"role": "assistant", "content": WORSE}],
            "score_chosen": 8.0,
            "score_rejected": 4.0,
        },
        source="https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized",
    ),
    Format(
        name="sharegpt",
        use="preferences",
        told_by="conversations; chosen and rejected, each one message",
        fits=is_sharegpt,
        read=_read_sharegpt,
        example={
            "conversations": [{"from": "human", "value": "What is 7 times 6?"}],
            "chosen": {"from": "gpt", "value": BETTER},
            "rejected": {"from": "gpt", "value": WORSE},
        },
        source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md",
    ),
    Format(
        name="swift",
        use="preferences",
        told_by="messages that end in the better reply, and rejected_response",
        fits=is_swift,
        read=_read_swift,
        example={"messages": [*CHAT, REPLY], "rejected_response": WORSE},
        source="https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html",
    ),
    Format(
        name="messages",
        use="preferences",
        told_by="messages; chosen and rejected as text",
        fits=is_continued,
        read=_read_continued,
        example={"messages": CHAT, "chosen": BETTER, "rejected": WORSE},
        source="https://huggingface.co/datasets/laurentiubp/dpo-capybara-sampled",
    ),
    Format(
        name="trl",
        use="preferences",
        told_by="prompt, chosen and rejected; or chosen and rejected as whole conversations",
        fits=is_own,
        read=as_it_is,
        example={"prompt": "What is 7 times 6?", "chosen": BETTER, "rejected": WORSE},
        source=TRL,
    ),
    Format(
        name="trl_implicit",
        use="preferences",
        told_by="chosen and rejected as text that begins with the prompt",
        fits=is_implicit,
        read=_read_implicit,
        example={"chosen": "7 times 6 is 42.", "rejected": "7 times 6 is 43."},
        source=TRL,
        by_itself=False,
    ),
    Format(
        name="openrlhf",
        use="preferences",
        told_by="prompt, chosen and rejected",
        fits=is_own,
        read=as_it_is,
        example={"prompt": "What is 7 times 6?", "chosen": BETTER, "rejected": WORSE},
        source="https://openrlhf.readthedocs.io/en/latest/rm.html",
    ),
    Format(
        name="shp",
        use="preferences",
        told_by="history, human_ref_A, human_ref_B and labels",
        fits=is_shp,
        read=_read_shp,
        example={"history": "What is 7 times 6?", "human_ref_A": BETTER, "human_ref_B": WORSE, "labels": 1},
        source="https://huggingface.co/datasets/stanfordnlp/SHP",
    ),
    Format(
        name="arena",
        use="preferences",
        told_by="response_a and response_b (or conversations), and the winner",
        fits=is_arena,
        read=_read_arena,
        example={"prompt": "What is 7 times 6?", "response_a": BETTER, "response_b": WORSE, "winner": "model_a"},
        source="https://huggingface.co/datasets/lmsys/chatbot_arena_conversations",
    ),
    Format(
        name="alpaca",
        use="preferences",
        told_by="instruction or question; chosen and rejected as text",
        fits=is_instructed,
        read=_read_instructed,
        example={"instruction": "Multiply the numbers.", "input": "7 and 6", "chosen": "42", "rejected": "43"},
        source="https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md",
    ),
    Format(
        name="kto",
        use="preferences",
        told_by="prompt, completion and a label that is true or false; the two labels of one prompt become pairs",
        fits=is_kto,
        read=as_it_is,
        example={"prompt": "What is 7 times 6?", "completion": BETTER, "label": True},
        source=TRL,
        gather=paired,
    ),
)
