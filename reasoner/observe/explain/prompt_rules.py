"""Rules on the prompts: the chat template, reference answers in prompts, and duplicate problems."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from reasoner.config.kept_prompt import read_kept_prompt
from reasoner.observe.explain.finding import Finding, Level, places
from reasoner.observe.explain.significance import percent
from reasoner.storage.history import History, Row

ROLE_MARKS = re.compile(
    r"<\|(?:im_start|im_end|start_header_id|end_header_id|eot_id|user|assistant|system|end)\|>|\[/?INST\]|<start_of_turn>|<end_of_turn>|<｜(?:User|Assistant)｜>"
)
"""Marks between the turns of ChatML, Llama 2 and 3, Gemma, Phi and DeepSeek templates."""
NOT_OPENED = re.compile(
    r"(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>)\s*(?:user|system)\b(?:(?!<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>).)*$",
    re.DOTALL,
)
"""Pattern of a prompt whose last turn is not the assistant's."""
OPENS = re.compile(r"\s*(?:<\|[\w ]+\|>\s*)?(?:assistant|model)\b")
"""Pattern of a completion that opens the assistant's turn itself."""
SLOTS = (2, 4, 8)
"""Numbers of characters before an answer that identify its position."""
START = "\x02"
"""Mark for the beginning of a prompt."""


def prompt_rules(history: History) -> Iterator[Finding]:
    """Yield the findings of this module's rules."""
    yield from _template(history)
    yield from _gold_in_prompt(history)
    yield from _twins(history)


# ------------------------------------------------------------------------------------------------ chat template


def _template(history: History) -> Iterator[Finding]:
    evidence = [*_prompt_changed(history), *_marks(history), *_double_begin(history)]
    if not evidence or not history.rows or history.steps[0] > 2:
        return
    harm = _harm(history)
    if harm is None:
        return
    yield Finding(
        code="wrong-chat-template",
        level=Level.FAULT,
        cost=max(0.5, harm[0]),
        title="The prompts do not look like what the model was trained on: wrong chat template",
        evidence=(*evidence, harm[1]),
        change="set prompt.chat, prompt.template and prompt.system to what the model was trained with;"
        " `reasoner preflight CONFIG` samples with and without the template and shows both.",
        rollouts=places(history.rows),
        explains=frozenset(
            {
                "all-wrong",
                "truncated",
                "no-answer",
                "no-progress",
                "reward-falls",
                "right-answers-fall",
                "rewards-collapsed",
                "repetition",
            }
        ),
    )


def _harm(history: History) -> tuple[float, str] | None:
    """Return the possible harm of the template as (share not right, sentence); None if the first steps went well."""
    first = [row for step in history.steps[:3] for row in history.by_step[step]]
    if not first:
        return None
    bad = sum(row.truncated or row.outcome == "no_answer" for row in first) / len(first)
    right = sum(row.right for row in first) / len(first)
    if right > 0.5 and bad < 0.2:
        return None
    return 1 - right, f"in the first steps {percent(right)} are right, {percent(bad)} are truncated or give no answer"


def _prompt_changed(history: History) -> Iterator[str]:
    """Yield the prompt settings that differ from those of the stage that trained the model."""
    before = history.before
    if before is None:
        return
    then, now = before.prompt, history.config.prompt
    for key in ("chat", "template", "system", "thinking", "template_options"):
        if getattr(then, key) != getattr(now, key):
            yield (
                f"prompt.{key} is {_short(getattr(now, key))} now and was {_short(getattr(then, key))} when the"
                f" model was trained"
            )


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 80 else text[:77] + "..."


def _marks(history: History) -> Iterator[str]:
    """Yield evidence that the model writes turn marks itself, or that prompts have marks unknown to its tokenizer."""
    rows = history.rows
    if not rows:
        return
    writes = [row for row in rows if ROLE_MARKS.search(row.completion)]
    if len(writes) >= max(3, 0.05 * len(rows)):
        mark = Counter(m for row in writes for m in ROLE_MARKS.findall(row.completion)).most_common(1)[0][0]
        yield f"{percent(len(writes) / len(rows))} of the completions contain turn marks such as {mark!r} as text"
    closed = [row for row in rows[:200] if NOT_OPENED.search(row.prompt)]
    if len(closed) > 0.5 * len(rows[:200]):
        yield "the prompts end with the user's turn: the assistant's is not opened (add_generation_prompt)"
    opens = [row for row in rows if OPENS.match(row.completion)]
    if len(opens) >= max(3, 0.05 * len(rows)):
        yield (
            f"{percent(len(opens) / len(rows))} of the completions begin with the name of their role"
            f" ({opens[0].completion[:20]!r}): the prompts end before the assistant's turn is opened"
        )
    own = _own_template(history)
    if own is None or history.config.model.from_scratch is not None:
        return  # a model that was never trained knows no template
    in_prompts = {mark for row in rows[:50] for mark in ROLE_MARKS.findall(row.prompt)}
    foreign = sorted(mark for mark in in_prompts if mark not in own)
    if foreign:
        yield f"the prompts contain {', '.join(map(repr, foreign[:3]))}, which the model's own chat template does not"
    marks = set(ROLE_MARKS.findall(own))
    runs_on = [row for row in rows[:200] if row.truncated]
    if marks and not in_prompts and history.before is None and len(runs_on) > 0.5 * min(200, len(rows)):
        yield (
            f"the model has a chat template ({', '.join(sorted(marks)[:2])}), the prompts contain none of its marks,"
            f" and {percent(len(runs_on) / min(200, len(rows)))} of the completions are truncated"
        )


def _own_template(history: History) -> str | None:
    """Return the chat template in the folder of the run's model; None if there is none."""
    if history.folder is None:
        return None
    folders = [*sorted(history.folder.glob("checkpoints/step-*/model")), history.folder / "final"]
    if history.config.model.path:
        folders.insert(0, Path(history.config.model.path))
    for folder in folders:
        kept = read_kept_prompt(folder)
        if kept is not None and kept.template_replaced:
            return kept.own_template
        if (folder / "chat_template.jinja").is_file():
            return (folder / "chat_template.jinja").read_text(errors="replace")
        if (folder / "tokenizer_config.json").is_file():
            found = json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template")
            if isinstance(found, str):
                return found
    return None


def _double_begin(history: History) -> Iterator[str]:
    """Yield evidence that nearly every prompt begins with two equal special tokens (a doubled begin-of-sequence)."""
    rows = [row for row in history.rows[:200] if len(row.prompt_ids) > 2]
    doubled = [row for row in rows if row.prompt_ids[0] == row.prompt_ids[1]]
    firsts = {int(row.prompt_ids[0]) for row in rows}
    if len(rows) >= 8 and len(doubled) == len(rows) and len(firsts) == 1 and len({row.problem for row in rows}) > 3:
        yield (
            f"every prompt begins with token {firsts.pop()} twice: the template adds it and the tokenizer adds it again"
        )


# ------------------------------------------------------------------------------------------------ gold in the prompt


def _gold_in_prompt(history: History) -> Iterator[Finding]:
    """Yield a finding if a fixed position of the prompt always contains the answer.

    Prompts may contain their answer by accident (a number of the question) or by design (one of the choices), so this
    alone proves nothing. But a position, identified by the characters before it, whose content is the problem's answer
    every time it occurs, in many problems with different answers, is not a part of the question.
    """
    problems = {row.problem: row for row in history.rows if _is_answer(row)}
    rows = list(problems.values())
    right = [row for row in history.graded if row.right and row.answer is not None]
    as_reference = [row for row in right if str(row.answer).strip() == str(row.reference).strip()]
    if len(rows) < 8 or len(as_reference) < 0.5 * len(right):
        return
    slots: Counter[str] = Counter()
    for row in rows:
        slots.update(set(_slots(row)))
    best: list[Row] = []
    where = ""
    for slot, count in slots.most_common(40):
        if count < max(6, 0.02 * len(rows), len(best) + 1):
            break
        holding = [row for row in rows if slot in START + row.prompt]
        filled = [row for row in holding if slot in _slots(row)]
        occurrences = sum((START + row.prompt).count(slot) for row in holding)
        answers = Counter(_gold(row) for row in filled)
        if len(filled) >= 0.95 * occurrences and answers.most_common(1)[0][1] <= 0.6 * len(filled):
            best, where = filled, slot
    if best:
        yield _leak(history, where.removeprefix(START), best, len(rows))


def _is_answer(row: Row) -> bool:
    """Return True if the reference is an answer: no grading criterion, and no copy of most of the question."""
    gold = _gold(row)
    return gold is not None and row.outcome != "scored" and len(gold) < 0.5 * len(row.question.strip())


def _gold(row: Row) -> str | None:
    """Return the answer as text, if the reference is one or the rollout's right answer shows it; else None."""
    if isinstance(row.reference, bool) or not isinstance(row.reference, str | int | float):
        return row.answer if row.right and row.answer and len(row.answer) > 2 else None
    text = str(row.reference).strip()
    return text or None


def _slots(row: Row) -> list[str]:
    """Return the characters before each occurrence of the answer in the prompt as a whole word, in several lengths."""
    gold = _gold(row)
    if gold is None:
        return []
    text = START + row.prompt
    return [
        text[max(0, match.start() - size) : match.start()]
        for match in re.finditer(rf"(?<![\w.]){re.escape(gold)}(?![\w]|\.\d)", text)
        for size in SLOTS
        # digits before a number belong to the question: "0+" is always followed by the sum
        if not (re.search(r"\d", gold) and re.search(r"\d", text[max(0, match.start() - size) : match.start()]))
    ]


def _leak(history: History, slot: str, rows: list[Row], problems: int) -> Finding:
    share = len(rows) / problems
    leaked = {row.problem for row in rows}
    with_gold = [row for row in history.graded if row.problem in leaked]
    without = [row for row in history.graded if row.problem not in leaked]
    evidence = [
        f"in {len(rows)} of {problems} problems the text {slot!r} of the prompt is followed by the reference,"
        f" every time"
        f" that it occurs; the answers differ between the problems",
    ]
    if with_gold and without:
        evidence.append(
            f"{percent(_mean(with_gold))} right where the answer is in the prompt, {percent(_mean(without))} elsewhere"
        )
    return Finding(
        code="gold-in-prompt",
        level=Level.FAULT,
        cost=max(0.6, share),
        title=f"The prompt of {percent(share)} of the problems contains the answer: the model learns to copy it",
        evidence=tuple(evidence),
        change="remove the reference from the prompt (the task's template or prompt_column, prompt.template), and"
        " evaluate"
        " again on clean prompts.",
        rollouts=places(with_gold),
        explains=frozenset({"all-right", "no-diversity", "solved"}),
    )


# ------------------------------------------------------------------------------------------------------- twins


def _twins(history: History) -> Iterator[Finding]:
    """Yield findings on problems with the same prompt: contradicting references, or one problem many times."""
    names: dict[str, dict[str, Row]] = {}
    for row in history.rows:
        if row.outcome != "scored":
            names.setdefault(row.prompt, {}).setdefault(row.problem, row)
    total = sum(map(len, names.values()))
    same = [[*twins.values()] for twins in names.values() if len(twins) > 1]
    contradicting = [rows for rows in same if len({answer for row in rows if (answer := _answer(row))}) > 1]
    contradicting_share, share = sum(map(len, contradicting)) / max(1, total), sum(map(len, same)) / max(1, total)
    if len(contradicting) >= 1 and contradicting_share >= TWINS:
        first, second, *_ = contradicting[0]
        yield Finding(
            code="contradicting-references",
            level=Level.FAULT,
            cost=min(1.0, 0.4 + contradicting_share),
            title=f"{percent(contradicting_share)} of the problems have the same prompt as another problem, but another"
            " reference: the model cannot know which is meant",
            evidence=(
                f"problems {first.problem} and {second.problem} are both {first.prompt[-100:]!r}; references"
                f" {_short(first.reference)} and {_short(second.reference)}",
            ),
            change="check how prompts are made (a template without {prompt}, text cut off, a wrong column), and fix"
            " or drop the wrong references.",
            rollouts=places([row for rows in contradicting for row in rows]),
            explains=frozenset({"all-wrong", "no-progress", "one-answer-for-all", "duplicate-problems"}),
        )
    if total >= 16 and share >= COPIES:
        yield Finding(
            code="duplicate-problems",
            level=Level.WARNING,
            cost=0.5 * share,
            title=f"{percent(share)} of the problems repeat another one under another name: {len(names)} different"
            f" prompts among {total} problems",
            evidence=(f"one occurs {max(map(len, same))} times",),
            change="drop the copies: they are memorized, and the evaluation may contain them too.",
            rollouts=places([rows[0] for rows in same]),
        )


def _answer(row: Row) -> str | None:
    """Return the reference as text if it is a text or a number; else None."""
    return str(row.reference).strip() if isinstance(row.reference, str | int | float) else None


TWINS = 0.05
"""Share of problems that contradict another one from which on it is worth more than a note: about the label noise of
public data sets (our choice)."""
COPIES = 0.5
"""Share of problems with the prompt of another one from which on copies are reported (our choice)."""


def _mean(rows: list[Row]) -> float:
    return sum(row.right for row in rows) / len(rows)
