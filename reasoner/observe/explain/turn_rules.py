"""Runs with an environment: is it used, does it work, do its limits cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from reasoner.observe.explain.finding import Finding, Level, places
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History, Row
from verifiers import JSON

FEW_STEPS = 3
OFTEN = 0.1
"""Share of episodes from which a limit is worth a sentence; our choice, as for truncated completions."""
SLOW = 0.15
"""Share of a step spent waiting for replies that is worth a sentence; our choice."""

ENOUGH = 30
"""Answers that repeat a reply from which something can be said about the replies; our choice."""
NEVER = 0.02
"""Share of right ones among these up to which the replies count as wrong; our choice."""
MARKS = ("<tool_call>", "<calc>")
"""Begin of a call in notations that are nothing else."""


def turn_rules(history: History) -> Iterator[Finding]:
    """Every rule of this module; nothing for a run without an environment."""
    if len(history.series("turns/mean")) < FEW_STEPS:
        return
    yield from _trained(history)
    yield from _faults(history)
    yield from _errors(history)
    yield from _wrong(history)
    yield from _unread(history)
    yield from _unused(history)
    yield from _unshown(history)
    yield from _cut_turns(history)
    yield from _limits(history)
    yield from _cut(history)
    yield from _slow(history)


def _trained(history: History) -> Iterator[Finding]:
    """Replies of an environment among the trained tokens."""
    replied = [row for row in history.rows if any(_shown_reply(turn) for turn in row.turns or ())]
    wrong = [row for row in replied if row.mask is None or any(row.mask[_span(turn)].any() for turn in _replies(row))]
    if not wrong:
        return
    tokens = sum(_span(turn).stop - _span(turn).start for row in wrong for turn in _replies(row))
    yield Finding(
        code="replies-trained",
        level=Level.FAULT,
        cost=1.0,
        title=f"{percent(len(wrong) / len(replied))} of the episodes are trained on what the environment replied",
        evidence=(
            f"{tokens} tokens of replies are not masked out in rollouts.jsonl (loss_mask), such as"
            f" {str(_replies(wrong[0])[0].get('text', ''))[:40]!r}",
        ),
        change="mask the tokens of replies: a policy learns from its own tokens alone. Look for what builds loss_mask.",
        rollouts=places(wrong),
        explains=frozenset(
            {
                *(
                    "top-p-unaccounted",
                    "engine-trainer-gap",
                    "sampling-sharper",
                    "sampling-flatter",
                    "weights-not-synced",
                ),
                *("references-doubtful", "all-wrong", "no-progress", "reward-falls", "tool-wrong"),
            }
        ),
    )


def _shown_reply(turn: Mapping[str, Any]) -> bool:
    return turn.get("origin") == "environment" and turn["end"] > turn["start"]


def _replies(row: Row) -> list[Mapping[str, Any]]:
    return [turn for turn in row.turns or () if _shown_reply(turn)]


def _span(turn: Mapping[str, Any]) -> slice:
    return slice(int(turn["start"]), int(turn["end"]))


def _faults(history: History) -> Iterator[Finding]:
    """Replies that could not be made: our own fault, never the policy's."""
    curve = history.series("environment/faults")
    share = float(curve.mean())
    if share < 0.005:
        return
    bad = [row for row in history.rows if row.outcome == "verifier_error"]
    third = max(1, len(curve) // 3)
    rises = len(curve) >= 6 and curve[-third:].mean() > 2 * max(0.005, float(curve[:third].mean()))
    evidence = tuple(dict.fromkeys(row.reason[:200] for row in bad))[:2]
    yield Finding(
        code="environment-fault",
        level=Level.FAULT if share > 0.05 or rises else Level.WARNING,
        cost=min(1.0, share),
        title=f"{percent(share)} of the episodes have no verdict, because the environment could not reply"
        + ("; it rises as the policy trains" if rises else ""),
        evidence=evidence,
        change="fix the environment. If the share rises, the policy may have learned to break it: a text that makes it"
        " raise must be answered with a reply (`reasoner environments check NAME`).",
        rollouts=places(bad),
        explains=frozenset({"ungraded"}),
    )


def _errors(history: History) -> Iterator[Finding]:
    """Calls that are answered with an error."""
    calls, errors = history.series("calls/mean"), history.series("calls/error")
    share = float(np.average(errors, weights=np.maximum(calls, 1e-9)))
    if calls.mean() < 0.05 or share < 0.3:
        return
    rows = [row for row in history.rows if any(turn.get("errors") for turn in row.turns or ())]
    said = [str(turn.get("text", ""))[:120] for row in rows for turn in row.turns or () if turn.get("errors")]
    common = sorted(set(said), key=lambda text: -said.count(text))[:2]
    down = share > 0.95
    yield Finding(
        code="tool-down" if down else "tool-errors",
        level=Level.FAULT if down else Level.WARNING,
        cost=share * min(1.0, float(history.series("calls/share").mean())),
        title=f"{percent(share)} of the calls are answered with an error"
        + (": the tool does not work, or is never called right" if down else ""),
        evidence=tuple(f"{said.count(text)} x {text!r}" for text in common),
        change="try the tool by hand (`reasoner environments play NAME`), and look at how the calls are written: the"
        " prompt or the demonstrations must show the notation that the environment reads.",
        rollouts=places(rows),
        explains=frozenset({"no-progress", "calls-collapse", "all-wrong", "task-all-wrong", "turn-limit"}),
    )


def _wrong(history: History) -> Iterator[Finding]:
    """Answers that repeat the tool's last reply, and are never right."""
    calling = [row for row in history.rows if _last_reply(row) is not None and row.quality is not None]
    quoting = [row for row in calling if row.answer_text.strip() == _last_reply(row)]
    if len(quoting) < ENOUGH or len(quoting) < len(calling) / 2:
        return
    right = [row for row in quoting if (row.quality or 0.0) > 0 or str(row.reference).strip() == _last_reply(row)]
    if len(right) > NEVER * len(quoting):
        return
    examples = (f"reply {_last_reply(row)!r}, reference {str(row.reference)[:60]!r}" for row in quoting)
    yield Finding(
        code="tool-wrong",
        level=Level.WARNING,
        cost=len(quoting) / len(history.rows),
        title=f"{len(quoting)} answers repeat the tool's reply, and {percent(len(right) / len(quoting))} of them are"
        " right: the tool answers wrongly, or is asked the wrong question",
        evidence=tuple(islice(examples, 2)),
        change="ask the tool by hand what these episodes asked (`reasoner environments play NAME`). If its replies are"
        " right, the calls are not: begin with demonstrations that call it as the problems need.",
        rollouts=places(quoting),
        explains=frozenset(
            {"all-wrong", "task-all-wrong", "no-progress", "calls-collapse", "reward-falls", "right-answers-fall"}
        ),
    )


def _last_reply(row: Row) -> str | None:
    """The last reply to a call, without an error, that the policy saw; None if there is none."""
    seen = [turn for turn in (row.turns or [])[:-1] if turn.get("origin") == "environment" and turn.get("calls")]
    return str(seen[-1].get("text", "")).strip() if seen and not seen[-1].get("errors") else None


def _unread(history: History) -> Iterator[Finding]:
    """Episodes in which the mark of a call stands, and no call was read."""
    marks = _marks(history)
    rows = [row for row in history.rows if not row.turns and any(mark in row.completion for mark in marks)]
    share = len(rows) / max(1, len(history.rows))
    if share < OFTEN:
        return
    never = history.series("calls/share").max() < 0.02
    yield Finding(
        code="calls-not-read",
        level=Level.FAULT if never else Level.WARNING,
        cost=share,
        title=f"{percent(share)} of the episodes begin a call that the environment does not read as one",
        evidence=tuple(repr(row.completion[:120]) for row in rows[:2]),
        change="the policy must write a call as the environment reads it, its closing mark included: compare the"
        " options of the environment with the prompt or the demonstrations, and see that no stop string and no limit of"
        " tokens (rollout.turn_tokens) cuts it off.",
        rollouts=places(rows),
        explains=frozenset(
            {"no-calls", "calls-collapse", "all-wrong", "task-all-wrong", "no-progress", "no-answer", "truncated"}
        ),
    )


def _marks(history: History) -> set[str]:
    """Text with which a call begins, as far as the config says how the environments read calls."""
    found = {*MARKS}
    for part in history.config.task:
        if part.environment is None:
            continue
        options = part.environment.options
        if opening := options.get("opening"):
            found.add(str(opening))
        if part.environment.name == "python" and options.get("parse", "fenced") == "fenced":
            found.add("```python\n")
    return found


def _unshown(history: History) -> Iterator[Finding]:
    """Episodes that the policy ended with its turn (a call, a move), so that it never saw the reply."""
    rows = [row for row in history.rows if row.turns and row.finish_reason == "stop" and _is_unshown(row.turns[-1])]
    share = len(rows) / max(1, len(history.rows))
    if share < OFTEN:
        return
    turn = "call" if any((row.turns or [{}])[-1].get("calls") for row in rows) else "turn"
    yield Finding(
        code="replies-not-shown",
        level=Level.WARNING,
        cost=share,
        title=f"{percent(share)} of the episodes end with a {turn} whose reply the policy never saw: it wrote the end"
        f" token behind the {turn}",
        change="let each turn of the demonstrations end with a stop string of the environment (`reasoner tasks validate"
        " TASK` lists those that do not), or write replies as chat messages, which follow an end token."
        if turn == "turn"
        else "train on demonstrations in which the policy goes on behind a reply, or write replies as chat messages"
        " (prompt.reply=tool), which follow an end token.",
        rollouts=places(rows),
        explains=frozenset({"no-progress", "all-wrong"}),
    )


def _is_unshown(turn: Mapping[str, JSON]) -> bool:
    return turn.get("origin") == "environment" and not turn.get("done")


def _unused(history: History) -> Iterator[Finding]:
    """Calls that are never made, and calls that were made and stop; a game whose replies count no calls has none."""
    share = history.series("calls/share")
    whole = [row for row in history.rows if not row.truncated]
    replied = [row for row in whole if any(turn.get("origin") == "environment" for turn in row.turns or ())]
    if share.max() < 0.02 and (not whole or len(replied) > 0.02 * len(whole)):
        return
    third = max(1, len(share) // 3)
    early, late = float(share[:third].mean()), float(share[-third:].mean())
    if share.max() < 0.02:
        yield Finding(
            code="no-calls",
            level=Level.WARNING,
            cost=0.3,
            title=f"The environment is never used: {percent(float(share.mean()))} of the episodes have a call",
            evidence=("a policy does not discover a notation that it has never seen",),
            change="show calls in the prompt, or begin with sft on demonstrations that call.",
            explains=frozenset({"no-progress", "all-wrong", "task-all-wrong"}),
        )
    elif early > 0.1 and late < early / 4:
        yield Finding(
            code="calls-collapse",
            level=Level.WARNING,
            cost=min(1.0, early - late),
            title=f"The policy stops calling: from {percent(early)} of the episodes to {percent(late)}",
            evidence=("what is not called is not sampled, and cannot be learned again",),
            change="take problems that cannot be solved without the tool, check that its replies are right, or lower"
            " the learning rate.",
        )


def _cut_turns(history: History) -> Iterator[Finding]:
    """Episodes that end in a turn of `rollout.turn_tokens`."""
    cap = history.config.rollout.turn_tokens
    rows = [row for row in history.graded if row.cut_in_turn(cap)]
    share = len(rows) / max(1, len(history.graded))
    if share < OFTEN:
        return
    yield Finding(
        code="turn-tokens",
        level=Level.WARNING,
        cost=share,
        title=f"{percent(share)} of the episodes end in a turn that reaches rollout.turn_tokens={cap}, without a reply",
        evidence=(f"such as {(rows[0].answer_text or rows[0].completion)[-40:]!r}",),
        change="teach the policy to end its turns with a stop string (more steps of sft, demonstrations whose turns end"
        " with one), or raise rollout.turn_tokens if a good turn needs more. rollout.max_tokens changes nothing here.",
        rollouts=places(rows),
        explains=frozenset({"all-wrong", "no-answer", "no-progress"}),
    )


def _limits(history: History) -> Iterator[Finding]:
    """Episodes that end at the limit of turns."""
    share = float(history.series("turns/limit").mean())
    if share < OFTEN:
        return
    rows = [row for row in history.rows if row.finish_reason == "turns"]
    scored = [row for row in rows if _scored(row)]
    lost = len(scored) > len(rows) / 2
    yield Finding(
        code="turn-limit",
        level=Level.NOTE if lost else Level.WARNING,
        cost=share if not lost else share / 4,
        title=f"{percent(share)} of the episodes end at the limit of turns",
        evidence=("the environment still expected a turn",),
        change="that is how a lost game ends; raise rollout.max_turns if it should be longer."
        if lost
        else "raise rollout.max_turns, or teach the policy to answer (sft on demonstrations that end).",
        rollouts=places(rows),
        explains=frozenset({"all-wrong", "task-all-wrong", "no-progress"}) if share > 0.5 and not lost else frozenset(),
    )


def _scored(row: Row) -> bool:
    return any(turn.get("score") is not None for turn in row.turns or ())


def _cut(history: History) -> Iterator[Finding]:
    """Replies that lost their middle."""
    share = float(history.series("reply/cut").mean())
    if share < OFTEN:
        return
    rows = [row for row in history.rows if any(turn.get("cut") for turn in row.turns or ())]
    yield Finding(
        code="replies-cut",
        level=Level.WARNING,
        cost=share,
        title=f"{percent(share)} of the replies are longer than rollout.reply_tokens and lose their middle",
        change="raise rollout.reply_tokens (and rollout.max_tokens), or make the environment's replies shorter.",
        rollouts=places(rows),
    )


def _slow(history: History) -> Iterator[Finding]:
    """A step that waits for replies."""
    wait, step = history.series("time/environment_wait"), history.series("time/step")
    if len(wait) < FEW_STEPS or len(wait) != len(step):
        return
    share = float(wait.sum() / max(1e-9, step.sum()))
    if share < SLOW or wait.mean() < 0.5:
        return
    seconds = history.series("time/environment")
    own = float(min(wait.sum(), seconds.sum() / max(1, history.config.grading.workers)) / max(1e-9, step.sum()))
    if own < SLOW:
        yield Finding(
            code="environment-starved",
            level=Level.NOTE,
            cost=share,
            title=f"{percent(share)} of the time the trainer waits for replies that take the environment"
            f" {seconds.mean():.2g} s a step: its workers get no processor",
            change="leave a core to the grading workers (fewer threads, or fewer other programs on this machine).",
        )
        return
    yield Finding(
        code="environment-slow",
        level=Level.WARNING,
        cost=own,
        title=f"{percent(share)} of the time the trainer waits for replies of the environment",
        evidence=(f"replies take {seconds.mean():.1f} s of workers' time a step",),
        change="raise grading.workers, or make the environment faster.",
    )
