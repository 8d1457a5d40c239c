"""What every engine does: sample completions, take new weights, prove that they took effect."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from reasoner.errors import ReasonerError
from reasoner.records import Completion, Request, SamplingParams

if TYPE_CHECKING:
    import torch

NamedTensors = Iterable[tuple[str, "torch.Tensor"]]


class EngineError(ReasonerError, RuntimeError):
    """The engine could not be started, died, or does not hold the weights that it was given."""


class Finished(NamedTuple):
    """One finished request."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  (a request has no other name)
    """Position in the requests given to `generate`."""
    completion: Completion


class Engine(ABC):
    """Samples from the policy. One contract test covers every implementation.

    A subclass anywhere is an engine too: `engine.name: package.module:Class` or `path/to/file.py:Class`. It is made
    with the keywords model_path, dtype, max_model_len and seed, and with `engine.options`.
    """

    shares_model: ClassVar[bool] = False
    """True: it is also given `model`, the trainer's live one, unless that is sharded (None)."""

    @abstractmethod
    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        """Yield each completion as it finishes, so that grading overlaps with generation.

        The same requests in the same order under the same weights give the same tokens and logprobs,
        bit for bit.

        Raises:
            EngineError: a prompt plus max_tokens does not fit the context, or the engine died.
        """

    @abstractmethod
    def load_weights(self, weights: NamedTensors, version: int) -> str:
        """Replace the weights in place and drop every cache that depends on the old ones.

        Args:
            weights: Hugging Face names and tensors of the full model (adapters merged), tied ones once.
            version: stamped on completions from now on.
        Returns:
            A checksum of what arrived: `reasoner.engine.check.checksum` of the same tensors.
        """

    @abstractmethod
    def score(self, token_ids: Sequence[int]) -> list[float]:
        """[T-1] log-probability of each token given those before it, at temperature 1 (the sync probe)."""

    def choose(self, prompts: Sequence[Sequence[int]], choices: Mapping[str, Sequence[int]]) -> list[list[float]]:
        """[prompts][choices] chance of each continuation, of these alone: exp(l_i) / sum of exp(l_j), at temperature 1.

        Args:
            prompts: token ids.
            choices: text and token ids of what may follow each of them.
        """
        return [
            among([math.fsum(self.score([*prompt, *choice])[-len(choice) :]) for choice in choices.values()])
            for prompt in prompts
        ]

    @abstractmethod
    def sleep(self) -> None:
        """Free the accelerator for the trainer, where the engine can; `load_weights` wakes it."""

    @abstractmethod
    def close(self) -> None:
        """Release processes and memory. Idempotent."""


def among(logprobs: Sequence[float]) -> list[float]:
    """Log-probabilities as chances that sum to one.

    Example:
        >>> among([-2.0, -2.0])
        [0.5, 0.5]
    """
    highest = max(logprobs)
    weights = [math.exp(value - highest) for value in logprobs]
    return [weight / math.fsum(weights) for weight in weights]


class NoEngine(Engine):
    """Of a stage that samples nothing."""

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        raise EngineError("this stage has no engine: it samples nothing and has no problems to evaluate on.")

    def load_weights(self, weights: NamedTensors, version: int) -> str:
        raise EngineError("this stage has no engine to load weights into.")

    def score(self, token_ids: Sequence[int]) -> list[float]:
        raise EngineError("this stage has no engine to score with.")

    def sleep(self) -> None:
        """Nothing to free."""

    def close(self) -> None:
        """Nothing to stop."""


def most_tokens(request: Request, params: SamplingParams) -> int:
    """Return the token limit of one request."""
    return params.max_tokens if request.max_tokens is None else min(request.max_tokens, params.max_tokens)


def stop_strings(request: Request, params: SamplingParams) -> tuple[str, ...]:
    """Return the stop strings of one request."""
    return params.stop if request.stop is None else request.stop


def check_requests(requests: Sequence[Request], params: SamplingParams, *, limit: int) -> None:
    """Raise where a request is empty or does not fit the context.

    Raises:
        EngineError: names its length and what to change.
    """
    for request in requests:
        length, tokens = len(request.prompt_ids), most_tokens(request, params)
        if not 0 < length <= limit - tokens:
            raise EngineError(
                f"a prompt must hold at least one token and, with max_tokens={tokens}, fit the context of"
                f" {limit}; got {length} tokens. Lower rollout.max_tokens or shorten the prompt."
            )
