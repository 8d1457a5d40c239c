"""Strict parsing of a judge's reply: the chosen level, or the reason that there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from verifiers.answers.find import strip_thinking
from verifiers.answers.json_schema import read_json
from verifiers.judge.chat import Reply, Token
from verifiers.judge.errors import Obeyed, Unusable
from verifiers.judge.prompts import Prompt, disarm
from verifiers.verdict import JSON

FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\s*\Z", re.DOTALL)
MOST_SAID = 4000
"""Characters of a reason or of evidence that are kept; it matters if the server does not enforce the schema."""
LEAST_MASS = 0.05
"""Minimum probability of all levels together at the answer's token (our choice); below it their shares are noise."""


class Judged(NamedTuple):
    """A parsed answer of a judge."""

    choice: int
    """The level; in a comparison 1 or 2 for the better completion, 0 for a tie."""
    evidence: str
    quoted: bool
    """True if the evidence occurs in the data, up to white space."""
    reason: str
    shares: Mapping[int, float]
    """Probability of each choice if it was requested; otherwise 1 for the choice that was made."""
    mass: float
    """Probability of all choices together, before normalisation; 1 if it was not requested."""
    model: str = ""
    """Name of the model that answered, as the server reports it; empty if it reports none."""


def read_reply(reply: Reply, *, prompt: Prompt, key: str, data: Sequence[str], shares: bool) -> Judged:
    """Parse a reply to one question.

    Args:
        reply: of the judge model.
        prompt: the prompt that it answers.
        key: JSON key of the choice: level, or better.
        data: texts that the evidence may quote.
        shares: read the probabilities of the choices.
    Raises:
        Unusable: it is not a JSON object of the schema, is truncated, or lacks the probabilities of the choices.
        Obeyed: it contains the decoy: the judge followed an instruction in the data.
    """
    fields = _fields(reply, prompt)
    return _judged(fields, reply, prompt=prompt, key=key, number="", data=data, shares=shares)


def read_checklist(reply: Reply, *, prompt: Prompt, count: int, data: Sequence[str], shares: bool) -> list[Judged]:
    """Parse a reply to a checklist; return one answer for each question, in order.

    Args:
        reply, prompt, data, shares: as in `read_reply`.
        count: questions of the checklist.
    Raises:
        Unusable, Obeyed: as in `read_reply`; one missing answer makes the whole reply unusable.
    """
    fields = _fields(reply, prompt)
    return [
        _judged(fields, reply, prompt=prompt, key="level", number=f"_{at}", data=data, shares=shares)
        for at in range(1, count + 1)
    ]


def _fields(reply: Reply, prompt: Prompt) -> dict[str, JSON]:
    """Parse the JSON object of a reply; raise if it is truncated or contains the decoy."""
    if reply.finish_reason == "length":
        raise Unusable(f"the reply was truncated after {reply.completion_tokens} tokens; raise max_tokens")
    fields = _object(reply.text)
    check = fields.get("check")
    if prompt.decoy is not None and isinstance(check, str) and prompt.decoy in check.lower():
        raise Obeyed(
            f"the judge wrote {prompt.decoy!r}, as the data asked, and not {prompt.check!r}: it follows instructions in"
            " the text that it grades. Use a better judge, or set canary to false and rely on the injection attacks of"
            " `reasoner verifiers check` alone"
        )
    return fields


def _judged(
    fields: Mapping[str, JSON],
    reply: Reply,
    *,
    prompt: Prompt,
    key: str,
    number: str,
    data: Sequence[str],
    shares: bool,
) -> Judged:
    """Build the answer from the keys that end in `number` ("" or "_2"), after checking the check word."""
    key, choices = f"{key}{number}", _choices(prompt.schema, f"{key}{number}")
    choice, evidence, reason = fields.get(key), fields.get(f"evidence{number}"), fields.get(f"reason{number}")
    if isinstance(choice, bool) or not isinstance(choice, int) or choice not in choices:
        raise Unusable(f"{key} must be one of {choices}; the judge wrote {str(choice)[:80]!r}")
    if not isinstance(evidence, str) or not isinstance(reason, str):
        raise Unusable(f"evidence{number} and reason{number} must be strings")
    check = fields.get("check")
    if prompt.decoy is not None and (not isinstance(check, str) or prompt.check not in check.lower()):
        raise Unusable(f"check must be {prompt.check!r}; the judge wrote {str(check)[:80]!r}")
    found, mass = choice_shares(reply.tokens, reply.text, key, choices) if shares else ({choice: 1.0}, 1.0)
    quoted = _is_quoted(evidence, data)
    return Judged(choice, evidence[:MOST_SAID], quoted, reason[:MOST_SAID], found, mass, reply.model)


def _choices(schema: Mapping[str, JSON], key: str) -> list[int]:
    properties = schema["properties"]
    assert isinstance(properties, dict)
    listed = properties[key]
    assert isinstance(listed, dict)
    choices = listed["enum"]
    assert isinstance(choices, list)
    return [choice for choice in choices if isinstance(choice, int)]


def _object(text: str) -> dict[str, JSON]:
    """Parse the JSON object of a reply, which may be in a fence and follow the judge's thinking."""
    visible = strip_thinking(text).strip()
    fenced = FENCE.match(visible)
    try:
        # guided decoding may let line breaks into strings (xgrammar does)
        found = read_json(fenced.group(1) if fenced else visible, control_characters=True)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"the reply is not a JSON object ({error}): {visible[:120]!r}") from error
    if not isinstance(found, dict):
        raise Unusable(f"the reply is not a JSON object: {visible[:120]!r}")
    return found


def _is_quoted(evidence: str, data: Sequence[str]) -> bool:
    wanted = " ".join(evidence.split())
    return bool(wanted) and any(wanted in " ".join(text.split()) for raw in data for text in (raw, disarm(raw)))


def choice_shares(
    tokens: Sequence[Token], text: str, key: str, choices: Sequence[int]
) -> tuple[dict[int, float], float]:
    """Return the probability of each choice at the token with the chosen digit, normalised over the choices.

    For G-Eval's expectation over levels (Liu et al., arXiv:2303.16634, section 3, equation 1), with the probabilities
    at one sampled position instead of sampled replies.

    Args:
        tokens: of the reply, with log-probabilities.
        text: of the reply.
        key: JSON key of the choice.
        choices: the digits that may be chosen.
    Returns:
        Shares that sum to 1, and the probability of all choices together before normalisation.
    Raises:
        Unusable: there are no log-probabilities, the tokens do not match the text, or the choices together have less
            than LEAST_MASS.
    """
    if not tokens:
        raise Unusable('the endpoint sends no log-probabilities; set scores to "level"')
    pattern, spelt = rf'"{key}"\s*:\s*(\d)', "".join(token.text for token in tokens)
    places, wanted_digits = list(re.finditer(pattern, spelt)), re.findall(pattern, text)
    if not places or [place.group(1) for place in places] != wanted_digits:
        raise Unusable("the tokens of the reply do not match its text; its probabilities cannot be assigned")
    wanted = places[-1].start(1)
    start = 0
    for token in tokens:
        if start <= wanted < start + len(token.text):
            return _normalised(token, wanted - start, choices)
        start += len(token.text)
    raise AssertionError(f"no token at character {wanted} of {len(spelt)}")


def _normalised(token: Token, at: int, choices: Sequence[int]) -> tuple[dict[int, float], float]:
    before, after = token.text[:at], token.text[at + 1 :]
    raw = dict.fromkeys(choices, 0.0)
    for text, logprob in token.logprobs.items():
        for choice in choices:
            if text == f"{before}{choice}{after}":
                raw[choice] += math.exp(logprob)
    mass = math.fsum(raw.values())
    if mass < LEAST_MASS:
        raise Unusable(f"{mass:.2g} is the probability of all choices together; the judge did not mean any of them")
    return {choice: share / mass for choice, share in raw.items()}, min(1.0, mass)


__all__ = ["Judged", "choice_shares", "read_checklist", "read_reply"]
