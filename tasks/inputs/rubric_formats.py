"""Formats of rubric sets: a prompt, and the criteria of its own by which a judge grades an answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.inputs.formats import Format, UnfitRow
from tasks.inputs.values import (
    before_reply,
    chat,
    find,
    from_json,
    is_chat,
    is_list,
    is_object,
    is_text,
    need,
    need_text,
    texts,
)

Row = Mapping[str, object]
CATEGORY = re.compile(r"\s*(essential|important|optional|pitfall)\s+criteri(?:a|on)\s*:\s*", re.IGNORECASE)
"""Beginning of a description in a reference rubric (arXiv:2507.17746, appendix, prompts of the rubric writers)."""
AVOIDED = re.compile(
    r"(?:the\s+(?:response|answer|explanation|completion)\s+)?"
    r"(?:avoids?\b|avoiding\b|refrains?\b|steers?\s+clear\b|never\b"
    r"|does\s+not\s+(?:incorrectly|wrongly|falsely|erroneously|mistakenly|confuse|conflate|claim|assume)\b"
    r"|(?:must|should)\s+(?:not|avoid|never)\b)",
    re.IGNORECASE,
)
"""A pitfall in the words of its avoidance: true of a good answer. Others name the fault ("Does not mention ...",
"Recommends ..."). Published sets hold both under a negative weight."""
JUDGE: Mapping[str, object] = {
    "judge": {"verifier": "judge", "options": {"url": "http://127.0.0.1:8000/v1", "model": "NAME_OF_THE_JUDGE"}}
}
"""Options of the verifier that are still to be filled in."""


def is_healthbench(row: Row) -> bool:
    """A prompt, and `rubrics` of {criterion, points}."""
    prompt = row.get("prompt")
    return (is_text(prompt) or is_chat(prompt)) and "reference" not in row and _holds(row.get("rubrics"), "criterion")


def read_healthbench(row: Row) -> Row:
    """Each criterion is a statement with its points and tags; `weight` is read where there are no points."""
    criteria: list[object] = []
    for number, one in enumerate(_objects(row, "rubrics"), 1):
        said = _text(one, "criterion", number)
        found: dict[str, object] = {"judged": {"statement": said}, "points": _points(one, number)}
        tags = texts(one.get("tags")) if one.get("tags") else ()
        if tags is None:
            raise UnfitRow(f"criterion {number}: tags must be a list of texts; got {str(one['tags'])[:60]!r}")
        criteria.append({**found, "tags": [*dict.fromkeys(tags)]} if tags else found)
    prompt = need(row, "prompt")
    return {**row, "prompt": before_reply(chat(prompt)) if is_chat(prompt) else prompt, "reference": criteria}


def is_reference_rubric(row: Row) -> bool:
    """A question, and `rubric` of {title, description, weight}."""
    asked = is_text(find(row, "question", "prompt", "problem"))
    return asked and "reference" not in row and _holds(row.get("rubric"), "description")


def read_reference_rubric(row: Row) -> Row:
    """Each description is a statement without its category, which becomes a tag; its title is its name.

    A pitfall that names the fault has the negative points that stand there. One in the words of its avoidance earns
    as many: what is true of a good answer costs nothing.
    """
    listed, criteria, titles = _objects(row, "rubric"), list[object](), Counter[str]()
    for number, one in enumerate(listed, 1):
        said, points = _text(one, "description", number), _points(one, number)
        category = CATEGORY.match(said)
        statement = said[category.end() :] if category else said
        if points < 0 and AVOIDED.match(statement):
            points = -points
        title = str(one["title"]).strip() if is_text(one.get("title")) else f"criterion {number}"
        titles[title] += 1
        name = title if titles[title] == 1 else f"{title} ({titles[title]})"
        found = {"name": name, "judged": {"statement": statement}, "points": points}
        criteria.append({**found, "tags": [category[1].lower()]} if category else found)
    return {**row, "prompt": need_text(row, "question", "prompt", "problem"), "reference": criteria}


def _holds(value: object, key: str) -> bool:
    """Return True if a value, or the JSON in its text, is a list of objects with a text under `key` and a number."""
    try:
        listed = from_json(value)
    except UnfitRow:
        return False
    return (
        is_list(listed)
        and bool(listed)
        and all(is_object(one) and is_text(one.get(key)) and _value(one) is not None for one in listed)
    )


def _objects(row: Row, column: str) -> Sequence[Row]:
    listed = from_json(need(row, column))
    if not is_list(listed) or not listed:
        raise UnfitRow(f"column {column!r} must be a list of criteria; got {str(listed)[:60]!r}")
    found = [one for one in listed if is_object(one)]
    if len(found) < len(listed):
        raise UnfitRow(f"column {column!r} must be a list of objects; got {str(listed)[:60]!r}")
    return found


def _text(one: Row, key: str, number: int) -> str:
    said = one.get(key)
    if not is_text(said):
        raise UnfitRow(f"criterion {number} has no text in {key!r}; got {str(one)[:60]!r}")
    return said.strip()


def _value(one: Row) -> float | None:
    """Points, or the weight in their place."""
    value = one.get("points") if one.get("points") is not None else one.get("weight")
    return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def _points(one: Row, number: int) -> float:
    value = _value(one)
    if value is None:
        raise UnfitRow(f"criterion {number} must have a number as points or weight; got {str(one)[:60]!r}")
    return value


ASKED = "I burnt my hand on a pan. What should I do?"
FORMATS: Sequence[Format] = (
    Format(
        name="healthbench",
        use="problems",
        told_by="prompt, and rubrics of {criterion, points}",
        fits=is_healthbench,
        read=read_healthbench,
        example={
            "prompt_id": "1",
            "prompt": [{"role": "user", "content": ASKED}],
            "rubrics": [
                {"criterion": "Says to cool the burn under running water.", "points": 7, "tags": ["axis:accuracy"]},
                {"criterion": "Recommends putting butter on it.", "points": -6, "tags": ["axis:accuracy"]},
            ],
            "example_tags": ["theme:emergency_referrals"],
        },
        source="https://github.com/openai/simple-evals/blob/main/healthbench_eval.py",
        verifier="rubric",
        verifier_options=JUDGE,
    ),
    Format(
        name="reference_rubric",
        use="problems",
        told_by="question, and rubric of {title, description, weight}",
        fits=is_reference_rubric,
        read=read_reference_rubric,
        example={
            "question": ASKED,
            "reference_answer": "Cool it under running water for 20 minutes.",
            "rubric": [
                {"title": "Cooling", "description": "Essential Criteria: Says to cool the burn.", "weight": 5},
                {"title": "Butter", "description": "Pitfall Criteria: Recommends butter.", "weight": -1},
            ],
        },
        source="https://huggingface.co/datasets/ScaleAI/RaR-Medicine",
        verifier="rubric",
        verifier_options=JUDGE,
    ),
)

__all__ = ["FORMATS"]
