"""Checks: pure functions of a text and of parsed arguments, in a table by public id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from verifiers.errors import BadReference
from verifiers.jsonl import is_list
from verifiers.suggest import did_you_mean
from verifiers.verdict import JSON

Follows = TypeVar("Follows", bound=Callable[..., bool])
LONGEST_TEXT = 20_000
"""Limit on the characters of a text argument."""


class Argument(NamedTuple):
    """The rule for an argument's value."""

    said: str
    """Description of allowed values, to follow "must be"."""
    read: Callable[[JSON], object]
    """Returns the value in the type that the check takes; None if the value is not allowed."""


def _whole(least: int) -> Callable[[JSON], int | None]:
    def read(value: JSON) -> int | None:
        number = _number(value)
        return int(number) if number is not None and number == number // 1 and least <= number <= 1e9 else None

    return read


def _number(value: JSON) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _percentage(value: JSON) -> int | float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 100 else None


def _relation(value: JSON) -> str | None:
    return value if isinstance(value, str) and value in RELATIONS else None


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) and value.strip() and len(value) <= LONGEST_TEXT else None


def _keyword(value: JSON) -> str | None:
    text = _text(value)
    return None if text is None else text.strip()


def _texts(value: JSON) -> tuple[str, ...] | None:
    found = [text for one in value if (text := _text(one)) is not None] if is_list(value) else []
    return tuple(found) if is_list(value) and found and len(found) == len(value) else None


def _letter(value: JSON) -> str | None:
    return value.lower() if isinstance(value, str) and len(value) == 1 and not value.isspace() else None


def _language(value: JSON) -> str | None:
    return value.lower() if isinstance(value, str) and value.lower() in LANGUAGES else None


RELATIONS = ("less than", "at least")
LANGUAGES = (
    "af ar bg bn ca cs cy da de el en es et fa fi fr gu he hi hr hu id it ja kn ko lt lv mk ml mr ne nl no pa pl pt ro"
    " ru sk sl so sq sv sw ta te th tl tr uk ur vi zh-cn zh-tw"
).split()
"""Language codes of langdetect."""
COUNT = Argument("a whole number of at least 0", _whole(0))
PLACE = Argument("a whole number of at least 1", _whole(1))
PERCENTAGE = Argument("a number from 0 to 100", _percentage)
RELATION = Argument("'less than' or 'at least'", _relation)
TEXT = Argument(f"a text of up to {LONGEST_TEXT} characters that is not empty", _text)
KEYWORD = Argument(TEXT.said, _keyword)
KEYWORDS = Argument("a list of texts, none of them empty", _texts)
LETTER = Argument("one character", _letter)
LANGUAGE = Argument(f"a code of {', '.join(LANGUAGES)}", _language)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One kind of instruction."""

    id: str
    """Its public name, for example `punctuation:no_comma`."""
    follows: Callable[..., bool]
    """Takes (text, arguments by name); True if the text follows the instruction."""
    arguments: Mapping[str, Argument]
    """Arguments by public name; all are required."""
    needs: tuple[str, ...]
    """Modules of the extra `instructions` that it needs."""
    fault: Callable[..., str | None] | None
    """Takes the arguments by name; returns what is wrong with their combination, or None."""

    def read(self, kwargs: Mapping[str, JSON]) -> Mapping[str, object]:
        """Parse the arguments of a row; null arguments count as missing.

        Raises:
            BadReference: an argument is unknown, missing or has a value that is not allowed; names it.
        """
        given = {name: value for name, value in kwargs.items() if value is not None}
        for name in given:
            if name not in self.arguments:
                takes = ", ".join(self.arguments) or "none"
                raise BadReference(
                    f"{self.id} has no argument {name!r}.{did_you_mean(name, self.arguments)} It has: {takes}."
                )
        found: dict[str, object] = {}
        for name, argument in self.arguments.items():
            if name not in given:
                raise BadReference(f"{self.id} lacks its argument {name}: {argument.said}.")
            found[name] = argument.read(given[name])
            if found[name] is None:
                raise BadReference(f"{self.id}: {name} must be {argument.said}; got {given[name]!r:.80}.")
        fault = self.fault(**found) if self.fault else None
        if fault:
            raise BadReference(f"{self.id}: {fault}.")
        return found


class Table:
    """Checks by id, in the order of their definition."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}

    def check(
        self,
        id: str,
        *,
        needs: tuple[str, ...] = (),
        fault: Callable[..., str | None] | None = None,
        **arguments: Argument,
    ) -> Callable[[Follows], Follows]:
        """Return a decorator that adds a function under a public id; the function itself is unchanged."""

        def enter(follows: Follows) -> Follows:
            assert id not in self.checks, id
            self.checks[id] = Check(id=id, follows=follows, arguments=arguments, needs=needs, fault=fault)
            return follows

        return enter


def compares(found: int, relation: str, wanted: int) -> bool:
    """Compare a count with a number under a published relation ("less than", otherwise "at least").

    Example:
        >>> compares(3, "less than", 3), compares(3, "at least", 3)
        (False, True)
    """
    return found < wanted if relation == "less than" else found >= wanted


__all__ = [
    "COUNT",
    "KEYWORD",
    "KEYWORDS",
    "LANGUAGE",
    "LETTER",
    "PERCENTAGE",
    "PLACE",
    "RELATION",
    "TEXT",
    "Argument",
    "Check",
    "Table",
    "compares",
]
