"""`instructions`: checks that the completion follows instructions about its words, length and format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from verifiers.answers.find import strip_thinking
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.instructions.check import Check
from verifiers.instructions.ifbench_forms import FORMS
from verifiers.instructions.ifbench_words import WORDS
from verifiers.instructions.ifeval import IFEVAL
from verifiers.instructions.texts import TooLong, need
from verifiers.jsonl import is_list, is_object
from verifiers.suggest import did_you_mean
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

CHECKS: Mapping[str, Check] = {**IFEVAL.checks, **WORDS.checks, **FORMS.checks}
"""Public id -> check: 25 of IFEval, 58 of IFBench."""
MOST_CHARACTERS = 100_000
"""Limit on the characters of a completion without its thinking; a longer one is `limit_exceeded`."""
MOST_INSTRUCTIONS = 50
"""Limit on the instructions of one reference."""
KEYS = ("instruction_id_list", "kwargs")
_NO_COMMA: JSON = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
_LIST: JSON = {
    "instruction_id_list": ["detectable_format:number_bullet_lists", "keywords:existence"],
    "kwargs": [{"num_bullets": 2}, {"keywords": ["tea", "milk"]}],
}
_TITLED: JSON = {
    "instruction_id_list": ["detectable_format:title", "startend:end_checker"],
    "kwargs": [{}, {"end_phrase": "Good night."}],
}


class Instructions(Verifier):
    """A completion is correct if it follows every instruction of its reference, as checked by programs.

    The reference is `{"instruction_id_list": [ids], "kwargs": [arguments of each]}`, as IFEval and IFBench publish it:
    `{"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"relation": "at least", "num_words":
    300}]}`. Null arguments count as missing; all other arguments of a kind are required. Thinking (`<think>`) is
    ignored. Each instruction is a component, 1 if it is followed.

    Args:
        mode: strict, or loose: an instruction also counts as followed if the text follows it without its first line,
            its last line, both, or, in each of these versions, without asterisks.
        reward: all (1 if every instruction is followed, else 0) or share (of the instructions that are followed).
    Raises:
        BadOption: another mode or reward.
    """

    name = "instructions"
    grade_seconds = 30.0
    reference_schema = {
        "type": "object",
        "properties": {
            "instruction_id_list": {"type": "array", "items": {"enum": [*CHECKS]}, "minItems": 1},
            "kwargs": {"type": "array", "items": {"type": ["object", "null"]}},
        },
        "required": [*KEYS],
    }
    examples = (
        Example(
            completion="- hot tea\n- cold milk",
            reference=_LIST,
            prompt="What shall we drink? Write two points, and name tea and milk.",
        ),
        Example(completion="- hot tea\n- cold milk\n- more tea", reference=_LIST, outcome=Outcome.INCORRECT),
        Example(completion="- hot tea\n- cold water", reference=_LIST, outcome=Outcome.INCORRECT),
        Example(completion="<<Owls>>\nThey hunt at dusk.\nGood night.", reference=_TITLED),
        Example(completion="Owls\nThey hunt at dusk.\nGood night.", reference=_TITLED, outcome=Outcome.INCORRECT),
        Example(completion="Tea, then milk.", reference=_NO_COMMA, outcome=Outcome.INCORRECT),
        Example(completion="<think>Tea?</think>\n", reference=_NO_COMMA, outcome=Outcome.NO_ANSWER),
    )

    def __init__(self, *, mode: str = "strict", reward: str = "all") -> None:
        if mode not in ("strict", "loose"):
            raise BadOption(f"mode must be strict or loose; got {mode!r}.")
        if reward not in ("all", "share"):
            raise BadOption(f"reward must be all or share; got {reward!r}.")
        self._loose, self._share = mode == "loose", reward == "share"

    def check_reference(self, reference: JSON) -> None:
        for instruction in read_instructions(reference):
            need(*instruction.check.needs)

    def grade(self, row: GradingRow) -> Verdict:
        instructions = read_instructions(row.reference)
        text = strip_thinking(row.completion)
        if text != row.completion:
            text = text.strip()
        if not text.strip():
            return fixed(Outcome.NO_ANSWER, "the text is empty")
        if len(text) > MOST_CHARACTERS:
            return fixed(Outcome.LIMIT_EXCEEDED, f"{len(text)} characters; the limit is {MOST_CHARACTERS}")
        try:
            strict = [one.follows(text) for one in instructions]
            loose = [
                done or (self._loose and any(map(one.follows, variants(text))))
                for one, done in zip(instructions, strict, strict=True)
            ]
        except TooLong as error:
            return fixed(Outcome.LIMIT_EXCEEDED, str(error))
        names = named([one.check.id for one in instructions])
        missed = [name for name, done in zip(names, loose, strict=True) if not done]
        said = f"{len(loose) - len(missed)} of {len(loose)} followed" + (f"; not {', '.join(missed)}" if missed else "")
        share = 1 - len(missed) / len(loose)
        verdict = graded(share if self._share else float(not missed), said[:500])
        detail: dict[str, JSON] = {**verdict.detail, "strict": [*strict]}
        if self._loose:
            detail["loose"] = [*loose]
        return replace(verdict, detail=detail, components=dict(zip(names, map(float, loose), strict=True)))


class Instruction(NamedTuple):
    """One instruction of a reference."""

    check: Check
    follows: Callable[[str], bool]
    """True for a text that follows it; its arguments are bound."""


def read_instructions(reference: JSON) -> tuple[Instruction, ...]:
    """Parse the instructions of a reference, in order.

    Raises:
        BadReference: it is malformed; names the instruction and the argument.
    """
    if not is_object(reference) or not set(KEYS) <= set(reference):
        raise BadReference(f"reference must be an object of {' and '.join(KEYS)}; got {reference!r:.80}.")
    ids, kwargs = reference["instruction_id_list"], reference["kwargs"]
    if not is_list(ids) or not is_list(kwargs) or len(ids) != len(kwargs) or not 1 <= len(ids) <= MOST_INSTRUCTIONS:
        raise BadReference(
            f"instruction_id_list and kwargs must be lists of one length, from 1 to {MOST_INSTRUCTIONS}; got"
            f" {ids!r:.80} and {kwargs!r:.80}."
        )
    return tuple(map(_read, ids, kwargs))


def _read(id: JSON, kwargs: JSON) -> Instruction:
    check = CHECKS.get(id) if isinstance(id, str) else None
    if check is None:
        hint = did_you_mean(id, CHECKS) if isinstance(id, str) else ""
        raise BadReference(f"no instruction {id!r:.80}.{hint} There are the {len(CHECKS)} of IFEval and IFBench.")
    if kwargs is not None and not is_object(kwargs):
        raise BadReference(f"{check.id}: kwargs must be an object; got {kwargs!r:.80}.")
    return Instruction(check, partial(check.follows, **check.read(kwargs or {})))


def variants(text: str) -> list[str]:
    r"""Return the text without its first line, its last line, both, and all four versions without asterisks.

    Versions that are empty or equal to the text or to each other are left out.

    Example:
        >>> variants("Sure:\n*one* two")
        ['Sure:\none two', '*one* two', 'Sure:', 'one two']
    """
    lines = text.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    found = [text.replace("*", ""), *cut, *(part.replace("*", "") for part in cut)]
    return [one for one in dict.fromkeys(found) if one.strip() and one != text]


def named(ids: Sequence[str]) -> list[str]:
    """Return names of components: the ids, with a number from the second occurrence on.

    Example:
        >>> named(["a:b", "c:d", "a:b"])
        ['a:b', 'c:d', 'a:b#2']
    """
    return [id if id not in ids[:at] else f"{id}#{ids[: at + 1].count(id)}" for at, id in enumerate(ids)]


__all__ = ["CHECKS", "Instruction", "Instructions", "named", "read_instructions", "variants"]
