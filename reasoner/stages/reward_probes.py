"""Probes of a reward model on its held-out pairs: changes of a completion that should not matter, and their effect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from reasoner.data.encode import batch_of, encode
from reasoner.data.pairs import EncodedPair
from reasoner.data.rows import Encoded
from reasoner.graders.reward_model import RewardModel
from reasoner.policy.reward import RewardPolicy
from tasks import Message, UnusableRow
from verifiers import JSON
from verifiers.kit.probes import Prompt, evenly, measure, variants


def probe_pairs(policy: RewardPolicy, pairs: Sequence[EncodedPair], *, count: int, kept: Path | None) -> JSON:
    """Return the report of `verifiers.kit.probes` on up to `count` decided pairs, for evals.jsonl.

    A changed row over the model's context is not scored, and counted.

    Args:
        policy: the reward model.
        pairs: held-out pairs.
        count: most pairs.
        kept: folder of the model that is probed instead; None: the policy as it is.
    """
    subjects = evenly([encoded.pair.subject for encoded in pairs if encoded.pair.target != 0.5], count)
    rows = variants(subjects)
    encoded: dict[int, Encoded] = {}
    for place, row in enumerate(rows):
        try:
            one = encode(_of_data(row.prompt), row.completion, policy.tokenizer, policy.config.prompt, name=str(place))
        except UnusableRow:
            continue
        if len(one) <= policy.context:
            encoded[place] = one
    scores: list[float | None] = [None] * len(rows)
    for place, score in zip(encoded, _scores(policy, list(encoded.values()), kept), strict=True):
        scores[place] = score
    return measure(subjects, rows, scores).to_json()


def _scores(policy: RewardPolicy, rows: Sequence[Encoded], kept: Path | None) -> list[float]:
    """Return the mean reward of the heads for each row."""
    if not rows:
        return []
    if kept is not None:
        return [sum(rewards_K) / len(rewards_K) for rewards_K in RewardModel(str(kept)).score(rows)]
    even = [*rows, *rows[len(rows) - len(rows) % 2 :]]  # the policy takes rows in pairs
    return policy.rewards(batch_of(even)).mean(1).tolist()[: len(rows)]


def _of_data(prompt: Prompt) -> str | tuple[Message, ...]:
    return prompt if isinstance(prompt, str) else tuple(cast("Sequence[Message]", prompt))
