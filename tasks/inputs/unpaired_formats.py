"""Formats of single completions that are marked as good or bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.inputs.formats import Format
from tasks.inputs.preference_formats import is_kto, unpaired
from tasks.inputs.problem_formats import TRL

Row = Mapping[str, object]


def _read(row: Row) -> Row:
    prompt, completion, good = unpaired(row)
    return {"id": row.get("id"), "prompt": prompt, "completion": completion, "label": good}


FORMATS: Sequence[Format] = (
    Format(
        name="kto",
        use="unpaired",
        told_by="prompt and completion (or messages that end in the reply), and a label that is true or false",
        fits=is_kto,
        read=_read,
        example={"prompt": "What is 7 times 6?", "completion": "It is 42.", "label": True},
        source=TRL,
    ),
)
