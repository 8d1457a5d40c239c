"""Losses on pairs of completions: Bradley-Terry for reward models, the DPO family for policies. Letters: C pairs.

Every function returns one loss per pair. The caller weighs each by 1 / (number of pairs in the optimizer step), so that
micro-batches are only summed. `target` is the probability that the first completion of a pair is the better one: 1 for
a label, 0.5 for a tie, a judge's probability in between (Bai et al., arXiv:2212.08073, section 4.1; Lee et al.,
arXiv:2309.00267). Every loss is the expectation over the label (for ipo up to a constant), so soft targets need no
other formula. docs/papers.md maps papers to names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor, expm1
from torch.nn.functional import logsigmoid, relu


def bradley_terry(
    first_C: Tensor, second_C: Tensor, target_C: Tensor, *, margin_C: Tensor | float = 0.0, centre_coef: float = 0.0
) -> Tensor:
    """Compute the Bradley-Terry loss of each pair, with an optional margin and centring term.

    -t log s(d - m) - (1 - t) log s(-d - m) + centre_coef * (first + second)^2, where d = first - second, s is the
    sigmoid, t the target and m the margin.

    The likelihood is that of Bradley and Terry 1952 as used by Ouyang et al., arXiv:2203.02155, equation 1. The margin
    m is that of Touvron et al., arXiv:2307.09288, equation 2: it can only increase the loss. The last term centres
    rewards on zero (Eisenstein et al., arXiv:2312.09244, section 3.1). A tie (t = 0.5) pulls both rewards together and
    has no margin.

    Args:
        first_C: [C] rewards of the first completions, with gradient.
        second_C: [C] rewards of the second.
        target_C: [C] probability that the first is better.
        margin_C: >= 0, in units of the reward; ignored for ties.
        centre_coef: >= 0; 0.01 in the paper.
    Returns:
        [C] losses.

    Example:
        >>> import torch
        >>> one = torch.tensor([1.0])
        >>> round(bradley_terry(2 * one, one, one, centre_coef=0.01).item(), 4)
        0.4033
    """
    difference_C = first_C - second_C
    kept_C = margin_C * (target_C != 0.5)
    loss_C = -target_C * logsigmoid(difference_C - kept_C) - (1 - target_C) * logsigmoid(-difference_C - kept_C)
    return loss_C + centre_coef * (first_C + second_C) ** 2


class PairScores(NamedTuple):
    """Scores of each pair for a DPO loss. A log-ratio is log policy - log ref of a whole completion.

    A loss without a reference (simpo, orpo, cpo) gets log policy alone in its place.
    """

    first_C: Tensor
    """[C] log-ratio of the first completion, with gradient."""
    second_C: Tensor
    first_tokens_C: Tensor
    """[C] number of trained tokens of the first completion."""
    second_tokens_C: Tensor
    target_C: Tensor

    def per_token(self) -> PairScores:
        """Divide the log-ratios by the number of trained tokens; those of an empty completion stay 0."""
        return self._replace(
            first_C=self.first_C / self.first_tokens_C.clamp(min=1),
            second_C=self.second_C / self.second_tokens_C.clamp(min=1),
        )


DpoLoss = Callable[..., Tensor]
"""(PairScores, *, beta, **options) -> [C] losses."""


def sigmoid(scores: PairScores, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Compute the DPO loss of each pair: arXiv:2305.18290, equation 7.

    -t log s(beta d) - (1 - t) log s(-beta d), where d is the difference of log-ratios and s the sigmoid.
    With label_smoothing e every label is assumed wrong with probability e: t becomes (1 - e) t + e (1 - t)
    ("conservative DPO", Mitchell 2023, "A note on DPO with noisy preferences").
    """
    scaled_C = beta * (scores.first_C - scores.second_C)
    target_C = (1 - label_smoothing) * scores.target_C + label_smoothing * (1 - scores.target_C)
    return -target_C * logsigmoid(scaled_C) - (1 - target_C) * logsigmoid(-scaled_C)


def robust(scores: PairScores, *, beta: float, label_smoothing: float = 0.1) -> Tensor:
    """Compute a DPO loss that is unbiased if labels are flipped with probability e: arXiv:2403.00409, equation 12.

    ((1 - e) L(label) - e L(flipped label)) / (1 - 2 e), with e = label_smoothing and L the loss of DPO.

    Raises:
        ValueError: label_smoothing is not in [0, 0.5).
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5) for the robust loss; got {label_smoothing}.")
    flipped = scores._replace(target_C=1 - scores.target_C)
    clean_C, wrong_C = sigmoid(scores, beta=beta), sigmoid(flipped, beta=beta)
    return ((1 - label_smoothing) * clean_C - label_smoothing * wrong_C) / (1 - 2 * label_smoothing)


def ipo(scores: PairScores, *, beta: float, average: bool = True) -> Tensor:
    """Compute the IPO loss (d - (2 t - 1) / (2 beta))^2: arXiv:2310.12036, equation 17, where beta is its tau.

    With `average`, log-ratios are means over tokens instead of sums, which keeps the scale of 1 / (2 beta) independent
    of the length (as in TRL, after asking the authors).
    """
    seen = scores.per_token() if average else scores
    return (seen.first_C - seen.second_C - (2 * seen.target_C - 1) / (2 * beta)) ** 2


def hinge(scores: PairScores, *, beta: float) -> Tensor:
    """Compute the hinge loss max(0, 1 - beta d) in the label's direction, with DPO's log-ratios (RSO).

    SLiC-HF, arXiv:2305.10425; for soft targets the expectation over the label.
    """
    scaled_C = beta * (scores.first_C - scores.second_C)
    return scores.target_C * relu(1 - scaled_C) + (1 - scores.target_C) * relu(1 + scaled_C)


def sigmoid_norm(scores: PairScores, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Compute the DPO loss on log-ratios per token: "length-normalized DPO" of Tulu 3, arXiv:2411.15124."""
    return sigmoid(scores.per_token(), beta=beta, label_smoothing=label_smoothing)


def simpo(scores: PairScores, *, beta: float, gamma: float = 1.0) -> Tensor:
    """Compute the SimPO loss of each pair: arXiv:2405.14734, equation 6. No reference.

    -t log s(beta d - gamma) - (1 - t) log s(-beta d - gamma), where d is the difference of log-probabilities per token.
    The better completion must be ahead by gamma; the default is half of the default beta, where
    the authors start (princeton-nlp/SimPO, README).

    Raises:
        ValueError: gamma is negative.
    """
    if gamma < 0:
        raise ValueError(f"gamma must be >= 0 for the simpo loss; got {gamma}.")
    seen = scores.per_token()
    scaled_C = beta * (seen.first_C - seen.second_C)
    return -seen.target_C * logsigmoid(scaled_C - gamma) - (1 - seen.target_C) * logsigmoid(-scaled_C - gamma)


def orpo(scores: PairScores, *, beta: float) -> Tensor:
    """Compute the ORPO loss of each pair: arXiv:2403.07691, equations 6 and 7, where beta is its lambda. No reference.

    NLL of the chosen completion per token - beta log s(log odds(chosen) - log odds(rejected)), where odds = p / (1 - p)
    and log p is the log-probability per token. p is at most 1 - MOST_CERTAIN, where the odds end.
    """
    seen = scores.per_token()
    odds_C = _log_odds(seen.first_C) - _log_odds(seen.second_C)
    return _likelihood(seen) - beta * (seen.target_C * logsigmoid(odds_C) + (1 - seen.target_C) * logsigmoid(-odds_C))


def cpo(scores: PairScores, *, beta: float) -> Tensor:
    """Compute the CPO loss of each pair: arXiv:2401.08417, equation 3: DPO's without a reference, and the chosen's NLL.

    The NLL is that per token, as in the authors' code and in TRL, so that long completions do not outweigh the pairs.
    """
    return sigmoid(scores, beta=beta) + _likelihood(scores.per_token())


MOST_CERTAIN = 1e-6
"""Least distance of a probability per token from 1 in ORPO's odds, which are infinite at 1 (our choice)."""


def _log_odds(logprob_C: Tensor) -> Tensor:
    """Return log(p / (1 - p)) of p = exp(logprob)."""
    kept_C = logprob_C.clamp(max=-MOST_CERTAIN)
    return kept_C - (-expm1(kept_C)).log()


def _likelihood(seen: PairScores) -> Tensor:
    """Return the negative log-likelihood of the completion that the label chooses: its expectation over the label."""
    return -seen.target_C * seen.first_C - (1 - seen.target_C) * seen.second_C


DPO_LOSSES: Mapping[str, DpoLoss] = {
    "sigmoid": sigmoid,
    "sigmoid_norm": sigmoid_norm,
    "ipo": ipo,
    "robust": robust,
    "hinge": hinge,
    "simpo": simpo,
    "orpo": orpo,
    "cpo": cpo,
}
"""Loss of `dpo.loss`; `reasoner.config.pair_losses` has what each of them compares."""
