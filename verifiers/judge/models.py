"""Comparison of the model that answered with the model that was asked."""

from __future__ import annotations

import re

VERSION = re.compile(r"(?:[-@:](?:\d{3,}(?:[-.]\d+)*|v\d+(?:\.\d+)*|latest|preview|stable|exp|\d\d-\d\d))*")
"""Suffix by which a provider marks a version of a model: -2024-08-06, -0613, @20240806, :latest, -preview-05-20."""


def same_model(asked: str, answered: str) -> bool:
    """Return True if the name that came back is the one asked for, or a version of it.

    Case is ignored, and an organisation in front (`org/name`) unless both names have one. Aliases of a model under
    another name are not recognised.

    Example:
        >>> same_model("gpt-4o", "gpt-4o-2024-08-06"), same_model("gpt-4o", "gpt-4o-mini")
        (True, False)
    """
    asked, answered = _plain(asked), _plain(answered)
    if "/" not in asked or "/" not in answered:
        asked, answered = asked.rpartition("/")[2], answered.rpartition("/")[2]
    asked = re.sub(r"[-:@](latest)$", "", asked)
    return answered.startswith(asked) and VERSION.fullmatch(answered[len(asked) :]) is not None


def _plain(name: str) -> str:
    return name.strip().casefold().removeprefix("models/").rstrip("/")


__all__ = ["same_model"]
