"""How surprising a model finds the worked solutions, behind its prompts and behind others, and where.

A model that was trained on other prompts is surprised by solutions that it would write itself. The surprise is judged
by three others: that of the model's own samples behind the same prompts, that of the same solutions behind prompts of
the other kind (chat or plain), and that of the solutions' other tokens. Nats are those at temperature 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection
from reasoner.data.prompt import Prompt, render
from reasoner.records import FinishReason, Rollout
from reasoner.rollout.round import Sampled
from reasoner.session.session import Session
from tasks import Problem

SOLUTIONS = 32
"""Worked solutions of the sampled problems that are scored."""
OWN_SAMPLES = 32
"""Samples that are scored."""
FOREIGN_NATS, FOREIGN_TIMES = 2.0, 5.0
"""Worked solutions with at least this many nats per token, and this many times the nats of the model's own text, are
called foreign (our choice). A model that is only weak at a task finds them about as surprising as its own text."""
AT_HOME = 1.5
"""A model writes tokens as it would itself if they have at most this many times its own nats (our choice)."""
ENDED = 0.8
"""Share of samples that end by themselves, if a model knows where its turn ends (our choice)."""
SPOTS = 2
"""Surprising texts that are shown."""


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """Surprise of worked solutions. Nats per token."""

    ways: dict[str, float] = field(default_factory=dict[str, float])
    """Of the solutions, for each way to render the prompt; the name of the config's way ends with "(the config)"."""
    own: float = 0.0
    """Of the model's own samples behind the config's prompts."""
    ended: float = 1.0
    """Share of all samples that end before the token limit."""
    calm: float = 0.0
    """Of the half of each solution, in one piece, that is least surprising behind the config's prompts."""
    spots: tuple[str, ...] = ()
    """The surprising parts of the first solutions."""

    @property
    def ours(self) -> float | None:
        """Nats behind the config's prompts; None if no solution was scored."""
        return next((value for name, value in self.ways.items() if name.endswith("(the config)")), None)

    @property
    def best(self) -> tuple[str, float]:
        """The way with the least surprise, and its nats; ("", 0.0) if no solution was scored."""
        return min(self.ways.items(), key=lambda pair: pair[1], default=("", 0.0))

    @property
    def foreign(self) -> bool:
        """True if the solutions are surprising behind every prompt: in nats, and against the model's own text."""
        least = self.best[1]
        return bool(self.ways) and least > FOREIGN_NATS and least > FOREIGN_TIMES * self.own

    @property
    def of_form(self) -> bool:
        """True if the surprise is in one part, and the model ends its turns: it writes the other half as its own.

        Behind prompts that it does not know, it is surprised all along.
        """
        return self.ended >= ENDED and self.calm <= max(AT_HOME * self.own, 0.1)


def surprise_of(session: Session, rounds: Sequence[Sampled]) -> Surprise:
    """Score worked solutions and samples with the weights that sampled the rounds."""
    policy, section = session.policy, session.config.prompt
    rollouts = [rollout for sampled in rounds for group in sampled.groups for rollout in group.rollouts]
    ended = sum(r.completion.finish_reason is not FinishReason.LENGTH for r in rollouts) / max(1, len(rollouts))
    problems = [g.problem for sampled in rounds for g in sampled.groups if g.problem.demonstration][:SOLUTIONS]
    text_only = all(isinstance(problem.prompt, str) for problem in problems)
    own_way = "chat" if section.chat != "never" and policy.tokenizer.chat_template else "plain"
    ways = ["chat", "plain"] if policy.tokenizer.chat_template and text_only else [own_way]
    ours: list[tuple[Sequence[int], list[float]]] = []
    found: dict[str, float] = {}
    for way in ways if problems else ():
        other = section if way == own_way else section.model_copy(update={"chat": OTHER[way]})
        try:
            scored = _scored(problems, session, other)
        except ConfigError:  # for example, the chat template rejects the system message
            continue
        found[f"{way}{' (the config)' if way == own_way else ''}"] = _mean([n for _, nats in scored for n in nats])
        ours = scored if way == own_way else ours
    return Surprise(
        ways=found,
        own=_own(rollouts, session) if found else 0.0,
        ended=ended,
        calm=_mean([calmest_half(nats) for _, nats in ours]),
        spots=_spots(ours, policy.tokenizer),
    )


OTHER = {"chat": "always", "plain": "never"}


def _scored(
    problems: Sequence[Problem], session: Session, section: PromptSection
) -> list[tuple[Sequence[int], list[float]]]:
    """Return the tokens of each worked solution, with their nats behind the prompt."""
    prompts = render(problems, session.policy.tokenizer, section)
    return [_nats(problem, prompt, session) for problem, prompt in zip(problems, prompts, strict=True)]


def _nats(problem: Problem, prompt: Prompt, session: Session) -> tuple[Sequence[int], list[float]]:
    policy = session.policy
    answer: list[int] = policy.tokenizer(problem.demonstration, add_special_tokens=False)["input_ids"]
    ids = [*prompt.ids, *answer][: policy.context]
    return answer, [-logprob for logprob in policy.score_tokens(ids)[len(prompt.ids) - 1 :]]


def _own(rollouts: Sequence[Rollout], session: Session) -> float:
    """Return the nats per token of the model's own samples, without those of an environment."""
    policy = session.policy
    found: list[float] = []
    step = max(1, len(rollouts) // OWN_SAMPLES)
    for rollout in rollouts[::step][:OWN_SAMPLES]:
        ids = [*rollout.prompt_ids, *rollout.completion.token_ids][: policy.context]
        scored = policy.score_tokens(ids)[len(rollout.prompt_ids) - 1 :]
        sampled = zip(scored, rollout.completion.loss_mask, strict=False)
        found += [-logprob for logprob, own in sampled if own]
    return _mean(found)


def calmest_half(nats: Sequence[float]) -> float:
    """Return the mean of the half of a solution, in one piece, with the least surprise.

    Example:
        >>> calmest_half([9.0, 9.0, 0.5, 0.5, 0.5, 9.0])
        0.5
    """
    size = max(1, len(nats) // 2)
    return min(sum(nats[at : at + size]) for at in range(len(nats) - size + 1)) / size if nats else 0.0


def surprising_part(nats: Sequence[float]) -> slice:
    """Return the place of the tokens in one piece that hold the most surprise: the largest sum of (nats - 1).

    Bentley 1984, Programming Pearls: algorithm design techniques (the largest sum of a piece in one pass).
    """
    best, place, total, start = 0.0, slice(0, 0), 0.0, 0
    for at, value in enumerate(nats):
        if total <= 0:
            total, start = 0.0, at
        total += value - 1
        if total > best:
            best, place = total, slice(start, at + 1)
    return place


def _spots(scored: Sequence[tuple[Sequence[int], list[float]]], tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the texts that hold the most surprise, of the first solutions."""
    texts = [str(tokenizer.decode([*ids[surprising_part(nats)]])).strip() for ids, nats in scored]
    return tuple(dict.fromkeys(text for text in texts if text))[:SPOTS]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
