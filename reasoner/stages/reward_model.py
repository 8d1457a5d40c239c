"""Reward models from preferences: `method: reward_model`. Letters: B rows, C pairs, K heads, N completion tokens.

What is trained is the trunk of a causal model and K linear heads on each row's last token. What is saved is a plain
Hugging Face sequence-classification folder (its `score` is the heads), beside `reward.json`: see reward_scorer.py.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
from transformers.modeling_utils import PreTrainedModel

from reasoner.algorithm.batch import Batch
from reasoner.algorithm.loss import LossTerms
from reasoner.algorithm.pairwise import bradley_terry
from reasoner.config.sections import ConfigError, StageConfig
from reasoner.data.encode import BadRow, Encoded, batch_of, length_fault, report_bad_rows
from reasoner.data.preferences import Pair, load_pairs, shares
from reasoner.data.sampler import request_seed
from reasoner.evaluation.evaluate import Estimate
from reasoner.evaluation.reward_report import pair_report, pairwise_accuracy
from reasoner.graders.reward_model import BASE_FILE, RewardCard, RewardModel, encode, last_token_scores
from reasoner.graders.reward_model import REWARD_HEAD_FILE as HEAD_FILE
from reasoner.model.forward import Forward
from reasoner.model.lora import fingerprint, save_adapter
from reasoner.model.sharding import whole_state
from reasoner.policy.policy import Objective, Policy, TokenScores
from reasoner.session.session import Session
from reasoner.stages.supervised import HeldOut, Lesson, supervise


class RewardScorer(nn.Module):
    """The model as a function from a forward layout to K rewards a row."""

    def __init__(self, model: PreTrainedModel, head: nn.Linear) -> None:
        super().__init__()
        self.model = model
        self.head = head

    def forward(self, forward: Forward, temperature: float) -> TokenScores:
        rewards_BK = last_token_scores(cast("nn.Module", self.model.get_decoder()), self.head, forward)
        nothing = rewards_BK.new_zeros(0)
        return TokenScores(nothing, nothing, rewards_BK)


class RewardPolicy(Policy):
    """The trunk with its reward heads, trained through the interface of every policy."""

    unit: ClassVar[int] = 2
    reads_last_token: ClassVar[bool] = True
    card: RewardCard

    def _make_scorer(self, checkpoint: Path | None) -> nn.Module:
        self.card = RewardCard(prompt=self.config.prompt)
        self.head = scalar_head(self.model.config.hidden_size, self.config.reward_model.heads, seed=self.config.seed)
        if checkpoint is not None:
            self.head.load_state_dict(load_file(checkpoint / HEAD_FILE))
        if not self.model.config.tie_word_embeddings:
            output = cast("nn.Module", self.model.get_output_embeddings())
            output.requires_grad_(False)  # never used
        self._base = fingerprint(self.model) if self.adapter is not None else ""
        return RewardScorer(self.model, self.head)

    @torch.no_grad()
    def rewards(self, batch: Batch) -> Tensor:
        """[B, K] float64 rewards of a batch's rows."""
        found = torch.zeros(len(batch), self.config.reward_model.heads, dtype=torch.float64)
        for rows in self.planner().passes(batch):
            scores = self.trainer_logprobs(batch.select(rows)).rewards_BK
            assert scores is not None
            found[torch.tensor(rows)] = scores.double().cpu()
        return found

    def save(self, folder: Path) -> None:
        """Write a sequence-classification folder; with an adapter, the adapter and the head apart as well."""
        folder.mkdir(parents=True, exist_ok=True)
        config = copy.deepcopy(self.unwrapped().config)
        known = cast("dict[type, type]", MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING)
        if type(config) not in known:
            raise ConfigError(
                "bad-value",
                f"{type(config).__name__} has no sequence-classification model in transformers, and a reward model is"
                " saved as one. Use another base model.",
            )
        config.architectures = [known[type(config)].__name__]
        config.num_labels = self.config.reward_model.heads
        config.pad_token_id = self.tokenizer.pad_token_id
        config.save_pretrained(folder)
        weights = {name: t.cpu().contiguous() for name, t in self._written("model").items()}
        weights = {name: t for name, t in weights.items() if not name.startswith("lm_head")}
        weights["score.weight"] = self._written("head")["weight"].cpu()
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.tokenizer.save_pretrained(folder)
        self.card.write(folder)
        if self.adapter is not None:
            save_adapter(self.adapter, self._written("adapter"), folder / "adapter")
            save_file(self._written("head"), folder / "adapter" / HEAD_FILE)
            (folder / "adapter" / BASE_FILE).write_text(self._base + "\n")

    def save_trained(self, checkpoint: Path) -> None:
        if self.adapter is None:
            super().save(checkpoint / "model")
        else:
            save_adapter(self.adapter, self._written("adapter"), checkpoint / "adapter")
        save_file({name: t.cpu() for name, t in self._written("head").items()}, checkpoint / HEAD_FILE)

    def _saved_parts(self) -> list[str]:
        return ["model", "head", *(["adapter"] if self.adapter is not None else [])]

    def _trained_parts(self) -> list[str]:
        return [*super()._trained_parts(), "head"]

    def _weights(self, part: str) -> Iterator[tuple[str, Tensor]]:
        if part == "head":
            return whole_state(self.head)
        return super()._weights(part)


def scalar_head(hidden_size: int, heads: int, *, seed: int) -> nn.Linear:
    """Linear heads without bias, normal with std 1 / sqrt(hidden + 1) as in Stiennon et al., arXiv:2009.01325."""
    generator = torch.Generator().manual_seed(request_seed(seed, "reward head"))
    head = nn.Linear(hidden_size, heads, bias=False)
    with torch.no_grad():
        head.weight.normal_(std=1 / math.sqrt(hidden_size + 1), generator=generator)
    return head


class EncodedPair(NamedTuple):
    """A pair as token ids, the better completion first."""

    pair: Pair
    first: Encoded
    second: Encoded
    number: int
    """Its place among the training pairs."""


def reward_model(session: Session) -> None:
    """Train on the pairs; held-out accuracy with its interval, calibration and length bias go to evals.jsonl."""
    config, policy = session.config, cast("RewardPolicy", session.policy)
    train, held_out = load_encoded(session)
    weights_CK = bootstrap(len(train), config.reward_model.heads, seed=config.seed)
    lesson = Lesson(
        items=train,
        items_per_step=config.reward_model.pairs_per_step,
        batch=pair_batch,
        objective=lambda batch: bradley_terry_objective(
            pairs=len(batch) // 2, weights_CK=weights_CK, centre_coef=config.reward_model.centre_coef
        ),
        evaluate=(lambda: evaluate_pairs(policy, held_out)) if held_out else None,
        patience=config.reward_model.patience,
    )
    supervise(session, lesson)
    sample = pair_batch(train[:CARD_PAIRS])
    if session.final_model is None:
        policy.card = card_of(policy.rewards(sample), config)
    else:  # an earlier model is the stage's final one
        rows = [side for encoded in train[:CARD_PAIRS] for side in (encoded.first, encoded.second)]
        rewards_BK = torch.tensor(RewardModel(str(session.final_model)).score(rows), dtype=torch.float64)
        card_of(rewards_BK, config).write(session.final_model)


CARD_PAIRS = 1024
"""Training pairs from which the mean and spread of rewards are taken."""


def card_of(rewards_BK: Tensor, config: StageConfig) -> RewardCard:
    """The card of a model that gives training completions these rewards."""
    mean_B = rewards_BK.mean(1)
    return RewardCard(prompt=config.prompt, mean=float(mean_B.mean()), std=max(1e-6, float(mean_B.std())))


def load_encoded(session: Session) -> tuple[list[EncodedPair], list[EncodedPair]]:
    """Training and held-out pairs as token ids; what is left out is said and listed.

    Raises:
        ConfigError: no pair is left, or one is bad and the policy is to stop.
    """
    config, policy = session.config, session.policy
    section = config.preferences
    bad: list[BadRow] = []
    sides: list[list[EncodedPair]] = []
    total = 0
    for split, found in load_pairs(section)._asdict().items():
        kept, long = encode_pairs(found.pairs, policy, limit=min(section.max_tokens or policy.context, policy.context))
        total += len(found.pairs) + len(found.bad)
        bad += [*found.bad, *long]
        sides.append(kept)
        if session.fresh:
            session.display.note(f"{split}: {'; '.join(shares([encoded.pair for encoded in kept]))}")
    said = report_bad_rows(bad, total=total, policy=section.bad_rows, folder=session.run.path)
    if said and session.fresh:
        session.display.note(said)
    if not sides[0]:
        raise ConfigError("bad-value", "preferences.train must hold at least one pair; none is left for training.")
    session.same_data("pairs", [*sides[0], *sides[1]])
    return sides[0], sides[1]


def encode_pairs(pairs: Sequence[Pair], policy: Policy, *, limit: int) -> tuple[list[EncodedPair], list[BadRow]]:
    """Pairs as token ids, and those over the limit."""
    kept: list[EncodedPair] = []
    bad: list[BadRow] = []
    section = policy.config.prompt
    for pair in pairs:
        first, second = (
            encode(pair.prompt, text, policy.tokenizer, section, name=pair.id) for text in (pair.first, pair.second)
        )
        fault = length_fault(max(first, second, key=len), limit)
        if fault:
            bad.append(BadRow(pair.id, fault))
        else:
            kept.append(EncodedPair(pair, first, second, len(kept)))
    return kept, bad


def pair_batch(pairs: Sequence[EncodedPair]) -> Batch:
    """Rows 2c and 2c + 1 of pair c; rewards hold the target and its complement, groups the pair's number."""
    return batch_of(
        [side for encoded in pairs for side in (encoded.first, encoded.second)],
        rewards=[value for encoded in pairs for value in (encoded.pair.target, 1 - encoded.pair.target)],
        groups=[encoded.number for encoded in pairs for _ in range(2)],
        margins=[encoded.pair.margin for encoded in pairs for _ in range(2)],
    )


def bootstrap(pairs: int, heads: int, *, seed: int) -> Tensor:
    """[C, K] how often each head sees each pair: Poisson(1) draws, all 1 for a single head.

    The online bootstrap (Oza and Russell 2001): each head learns from a resample of the pairs of its own.
    """
    if heads == 1:
        return torch.ones(pairs, 1)
    source = random.Random(request_seed(seed, "bootstrap"))
    return torch.tensor([[_poisson(source) for _ in range(heads)] for _ in range(pairs)], dtype=torch.float32)


def _poisson(source: random.Random) -> int:
    """A draw with mean 1, by Knuth's product of uniforms."""
    count, product, floor = 0, source.random(), math.exp(-1)
    while product > floor:
        count, product = count + 1, product * source.random()
    return count


def bradley_terry_objective(*, pairs: int, weights_CK: Tensor, centre_coef: float) -> Objective:
    """Mean over the step's pairs and heads; `pairs` is their number in the whole optimizer step."""

    def objective(scores: TokenScores, micro: Batch) -> LossTerms:
        assert scores.rewards_BK is not None
        assert micro.margin_B is not None
        first_CK, second_CK = scores.rewards_BK[0::2], scores.rewards_BK[1::2]
        target_C1 = micro.reward_B[0::2, None].to(first_CK.dtype)
        loss_CK = bradley_terry(
            first_CK, second_CK, target_C1, margin_C=micro.margin_B[0::2, None], centre_coef=centre_coef
        )
        taken_CK = weights_CK.to(loss_CK.device)[micro.group_B[0::2]]
        loss = (taken_CK * loss_CK).sum() / (pairs * loss_CK.shape[1])
        difference_C = (first_CK - second_CK).detach().mean(1)
        return LossTerms(
            loss,
            {
                "reward_model/accuracy": (difference_C > 0).sum(),
                "reward_model/difference": difference_C.sum(),
                "reward_model/mean": scores.rewards_BK.detach().mean(1).sum() / 2,
                "tokens": torch.tensor(len(difference_C)),
            },
        )

    return objective


def evaluate_pairs(policy: RewardPolicy, pairs: Sequence[EncodedPair]) -> HeldOut:
    """Held-out loss, accuracy, calibration and length bias; ties count in the loss alone."""
    rewards_BK = policy.rewards(pair_batch(pairs))
    first_CK, second_CK = rewards_BK[0::2], rewards_BK[1::2]
    target_C = torch.tensor([encoded.pair.target for encoded in pairs], dtype=torch.float64)
    loss = float(bradley_terry(first_CK, second_CK, target_C[:, None]).mean())
    decided = [place for place, encoded in enumerate(pairs) if encoded.pair.target != 0.5]
    mean_C2 = torch.stack([first_CK.mean(1), second_CK.mean(1)], 1).tolist()
    rewards_C = [(mean_C2[place][0], mean_C2[place][1]) for place in decided]
    lengths_C = [(len(pairs[place].first.completion_ids), len(pairs[place].second.completion_ids)) for place in decided]
    report = pair_report(rewards_C, lengths_C, [pairs[place].pair.category for place in decided])
    accuracy = pairwise_accuracy([better - other for better, other in rewards_C])
    disagreement = float(rewards_BK.std(1, correction=0).mean())
    return HeldOut(loss, {"accuracy": Estimate(*accuracy)}, {"loss": loss, "disagreement": disagreement, **report})


__all__ = [
    "EncodedPair",
    "RewardPolicy",
    "RewardScorer",
    "bootstrap",
    "bradley_terry_objective",
    "encode_pairs",
    "evaluate_pairs",
    "load_encoded",
    "pair_batch",
    "reward_model",
    "scalar_head",
]
