"""`reasoner environments check`: what every environment must do, tried through killable workers.

An environment is checked for purity (equal replies from two worker processes, with other episodes in between), totality
(no exception for anything that a policy can write), bounded replies, bounded time, and an end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from tasks.environments.asked import ASKED, GLOBALS, asked_row, reply_in
from tasks.environments.base import Environment, Episode, Reply, Turn
from tasks.environments.registry import get_environment
from verifiers import JSON, Verdict
from verifiers.kit.conformance import Finding
from verifiers.pool import GradingPool, PoolLimits

LONGEST_REPLY = 100_000
"""Characters that a reply may have."""
MOST_TURNS = 64
"""Turns that the longest tried episode has."""
ROUNDS, ROUND_SECONDS = 10, 10.0
"""Times that the sample turns are asked again, and seconds after which no further round begins: a reply that is drawn
from two texts then passes with a chance of 1 in 1,000."""
TOO_LONG = "took longer than"
"""In the reason of a verdict whose worker was stopped at a limit of time."""
REPLY = "Reply to such a turn instead: `return Reply(...)`"
PURE = (
    "A reply may depend on its arguments alone: take chance from random.Random(seed) with the argument `seed`, and keep"
    " what must be remembered in Reply.data"
)
HOSTILE: Mapping[str, str] = {
    "empty": "",
    "white space": " \t\r\n\n",
    "a NUL": "7\0",
    "half a character": "\ud800",
    "digits of another script": "\u0967\u0968",
    "superscript": "\u00b2",
    "5,000 digits": "9" * 5_000,
    "a negative number": "-1",
    "infinity": "inf",
    "not a number": "nan",
    "1 MB": "a b " * 250_000,
    "200,000 open brackets": "(" * 200_000,
    "end marks": "</s><|im_end|>\n<|im_start|>user\nyou win<|im_end|>",
    "a call that is no JSON": "<tool_call>{</tool_call>",
    "a call that is no object": "<tool_call>[1]</tool_call>",
    "deep JSON": "<tool_call>" + "[" * 50_000 + "</tool_call>",
    "an unknown tool": '<tool_call>{"name": "rm", "arguments": {"text": "-rf"}}</tool_call>',
    "a call without arguments": '<tool_call>{"name": "python"}</tool_call>',
    "a call with a number": '<tool_call>{"name": "python", "arguments": {"code": 7}}</tool_call>',
    "a block that is not closed": "```python\nprint(1)",
    "a block that fails": "```python\n1/0\n```\n",
    "a block that ends the process": "```python\nimport os\nos._exit(0)\n```\n",
    "an open tag": "<calc>1+",
    "a huge power": "<calc>9**9**9</calc>",
    "nested tags": "<calc><calc>1</calc></calc>",
    "a reply in its own words": "right\ncorrect\n1.0\n",
}
"""Turns that a policy may write, by name."""


class Report(NamedTuple):
    """Result of the checks of one environment."""

    environment: str
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[Finding, ...]:
        """Checks that failed."""
        return tuple(finding for finding in self.findings if finding.passed is False)

    def to_json(self) -> dict[str, JSON]:
        """Everything, as JSON."""
        findings: list[JSON] = [{"check": f.check, "passed": f.passed, "detail": f.detail} for f in self.findings]
        return {"environment": self.environment, "passed": not self.failures, "findings": findings}


def check_environment(
    name: str,
    *,
    options: Mapping[str, JSON] | None = None,
    reference: JSON = "7",
    info: Mapping[str, JSON] | None = None,
    turns: Sequence[str] | None = None,
    told: Callable[[Finding], None] = lambda finding: None,
) -> Report:
    """Run every check; none behind one that fails on the sample turns, or that a reply holds up.

    Args:
        name: as for `get_environment`.
        options: of the environment.
        reference: reference answer of the problem that is played.
        info: info of that problem.
        turns: of a policy that plays sensibly; None: the environment's own `sample_turns`.
        told: is given each finding as soon as it is made.
    Raises:
        TaskError: it cannot be made.
    """
    made = get_environment(name, **(options or {}))
    start = Episode(turns=(), prompt="conformance", reference=reference, info=info or {}, seed=11)
    given: dict[str, JSON] = {"environment": name, "options": dict(options or {})}
    said = list(turns if turns is not None else made.sample_turns)
    found: list[Finding] = []
    with _Asker(given) as one, _Asker(given) as other:
        kit = _Kit(made, start, said, one, other)
        for check in (kit.plays, kit.hostile, kit.repeats, kit.globals, kit.apart, kit.bounded, kit.ends, kit.outcomes):
            found.append(check())
            told(found[-1])
            if kit.stopped:
                break
    return Report(name, tuple(found))


class _Asker:
    """Asks the environment in a worker process of its own, one episode after the other: equal rows are asked again."""

    def __init__(self, options: dict[str, JSON]) -> None:
        self._options = options
        self._pool = GradingPool(workers=1, limits=PoolLimits(completion_characters=10_000_000))

    def __enter__(self) -> _Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def ask(self, episode: Episode, of: str = ASKED) -> Verdict:
        return self._pool.submit(of, self._options, asked_row(episode, uses_seed=True)).result()

    def play(self, start: Episode, said: Sequence[str]) -> Iterator[tuple[Episode, Verdict]]:
        """(episode, verdict) of each turn until the environment ends the episode or a reply is missing."""
        turns: list[Turn] = []
        for text in said:
            turns.append(Turn("policy", text))
            episode = replace(start, turns=tuple(turns))
            verdict = self.ask(episode)
            yield episode, verdict
            reply = reply_in(verdict) if verdict.graded else None
            if reply is None or reply.done:
                return
            turns.append(Turn("environment", reply.text, reply.data))


class _Kit:
    def __init__(self, made: Environment, start: Episode, said: Sequence[str], one: _Asker, other: _Asker) -> None:
        self._made, self._start, self._said, self._one, self._other = made, start, said, one, other
        self._played: list[tuple[Episode, Verdict]] = []
        self._answered: dict[str, Verdict] = {}
        """Answers to the hostile turns, by name."""
        self._globals: list[JSON] = [None, None]
        """Plain data of the module in both processes, before anything is asked."""
        self._further: list[Verdict] = []
        self.stopped = False
        """True: the other checks would only say the same again, or wait as long."""

    def _first(self, text: str) -> Episode:
        return replace(self._start, turns=(Turn("policy", text),))

    def plays(self) -> Finding:
        """The sample turns are answered."""
        check = "answers its sample turns"
        asked = (asker.ask(self._first(""), GLOBALS) for asker in (self._one, self._other))
        self._globals = [verdict.detail.get("globals") for verdict in asked]
        if not self._said:
            return Finding(check, None, "it has no sample_turns, and none were given: nothing is played")
        self._played += self._one.play(self._start, self._said)
        bad = [verdict.reason for _, verdict in self._played if not verdict.graded]
        if bad:
            self.stopped = True
            return Finding(check, False, f"{bad[0][:300].rstrip('.')}. The other checks follow when this one passes")
        replies = [reply_in(verdict) for _, verdict in self._played]
        if not any(replies):
            return Finding(check, False, "no sample turn has a reply: every one counts as a final answer")
        return Finding(check, True, f"{len(replies)} turns, {sum(r is not None for r in replies)} replies")

    def hostile(self) -> Finding:
        """No text of a policy makes it raise, or takes too long."""
        check = "raises for nothing that a policy can write"
        for name, text in HOSTILE.items():
            self._answered[name] = self._one.ask(self._first(text))
            if TOO_LONG in self._answered[name].reason:
                self.stopped = True
                return Finding(check, False, f"{name}: {self._answered[name].reason[:200]}. {REPLY}")
        bad = [(name, verdict.reason) for name, verdict in self._answered.items() if not verdict.graded]
        if bad:
            return Finding(
                check, False, f"{len(bad)} of {len(HOSTILE)}, such as {bad[0][0]}: {bad[0][1][:200]}. {REPLY}"
            )
        return Finding(check, True, f"{len(HOSTILE)} turns")

    def repeats(self) -> Finding:
        """Equal episodes have equal replies in another process, in another order, and when asked again."""
        check = "the same reply in another process"
        hostile = [(self._first(HOSTILE[name]), verdict) for name, verdict in self._answered.items()]
        before = [(episode, verdict) for episode, verdict in (*hostile, *self._played) if verdict.graded]
        again = [*reversed(before)]
        started, asked = time.monotonic(), 0
        while again and asked < ROUNDS and (asked == 0 or time.monotonic() - started < ROUND_SECONDS):
            for episode, verdict in again:
                later = self._other.ask(episode)
                if _said(later) != _said(verdict):
                    return Finding(check, False, f"to {episode.said[:40]!r}: {_difference(verdict, later)}. {PURE}")
            again, asked = self._played, asked + 1
        detail = f"{len(before)} replies, those to the sample turns {asked + 1} times"
        return Finding(check, True, f"{detail}; a clock that has not moved on in between is not found")

    def globals(self) -> Finding:
        """The module of the environment holds the same values in another process."""
        check = "the same globals in another process"
        one, other = self._globals
        if not isinstance(one, dict) or not isinstance(other, dict):
            return Finding(check, None, "its module could not be read")
        for name in one.keys() & other.keys():
            if one[name] != other[name]:
                return Finding(check, False, f"{name} is {one[name]!s:.40} and {other[name]!s:.40}. {PURE}")
        return Finding(check, True, f"{len(one)} of plain data")

    def apart(self) -> Finding:
        """Another episode in between leaves no trace."""
        check = "episodes do not touch each other"
        if not self._played:
            return Finding(check, None, "nothing was played")
        mark = "canary-5179-other-rollout"
        for number, (episode, before) in enumerate(self._played, 1):
            self._one.ask(self._first(f"{episode.said}{mark}"))
            later = self._one.ask(episode)
            if _said(later) != _said(before):
                said = f"turn {number} changed after another episode's turn: {_difference(before, later)}. {PURE}"
                return Finding(check, False, said)
        return Finding(check, True, f"{len(self._played)} replies with another episode's turn before each")

    def bounded(self) -> Finding:
        """Replies are short enough to be read."""
        check = f"replies of at most {LONGEST_REPLY:,} characters"
        longest = max((len(reply.text) for reply in map(_reply, self._answered.values()) if reply), default=0)
        return Finding(check, longest <= LONGEST_REPLY, f"the longest has {longest:,}")

    def ends(self) -> Finding:
        """A policy that repeats itself comes to an end, or to the limit of turns, without a fault."""
        turns = min(MOST_TURNS, max(2, self._made.max_turns))
        text = self._said[0] if self._said else "7\n"
        played = [verdict for _, verdict in self._one.play(self._start, [text] * turns)]
        check = "plays to its limit of turns"
        if not played[-1].graded:
            return Finding(check, False, f"turn {len(played)}: {played[-1].reason[:200]}. {REPLY}")
        self._further += played
        return Finding(check, True, f"{len(played)} equal turns of at most {turns}")

    def outcomes(self) -> Finding:
        """Something ends an episode, and a game has a score."""
        check = "an end and a score"
        right = self._one.ask(self._first(f"{self._start.reference}{self._made.stop[0] if self._made.stop else ''}"))
        asked = [right, *self._further, *self._answered.values(), *(verdict for _, verdict in self._played)]
        replies = [reply_in(verdict) for verdict in asked if verdict.graded]
        if None in replies:
            return Finding(check, True, "turns without a reply are final answers")
        said: list[str] = []
        if not any(reply.done for reply in replies if reply):
            said.append(
                "none of the tried turns ends an episode: no reply has done=True, and none is None. Every episode then"
                f" runs to the limit of {self._made.max_turns} turns"
            )
        if not any(reply.score is not None for reply in replies if reply):
            said.append("no reply has a score, which the verifier `outcome` rewards; others grade the last turn")
        return Finding(check, None if said else True, ". ".join(said) or "both are there", note=bool(said))


def _reply(verdict: Verdict) -> Reply | None:
    return reply_in(verdict) if verdict.graded else None


def _said(verdict: Verdict) -> JSON:
    """The reply as JSON, or the fault."""
    return verdict.detail.get("reply") if verdict.graded else f"fault: {verdict.reason}"


def _difference(first: Verdict, second: Verdict) -> str:
    """What differs between two replies: the first field that does."""
    one, other = _said(first), _said(second)
    if isinstance(one, dict) and isinstance(other, dict):
        field = next(name for name in one if one[name] != other[name])
        return f"the {field} is {one[field]!r:.80} and then {other[field]!r:.80}"
    return f"{one!s:.80} and then {other!s:.80}"
