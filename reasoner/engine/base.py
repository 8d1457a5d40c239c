"""Interface of all engines: sample completions, load new weights, score a text to prove that they took effect."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from reasoner.errors import ReasonerError
from reasoner.records import Completion, Request, SamplingParams

if TYPE_CHECKING:
    import torch

NamedTensors = Iterable[tuple[str, "torch.Tensor"]]


class EngineError(ReasonerError, RuntimeError):
    """The engine could not be started, died, or does not have the weights that were sent to it."""


class Finished(NamedTuple):
    """A completion and the request it belongs to."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  (overrides tuple.index on purpose)
    """Position in the requests given to `generate`."""
    completion: Completion


class Adapter(NamedTuple):
    """A LoRA adapter, for engines that apply it to the base model themselves."""

    tensors: NamedTensors
    """peft's names and tensors."""
    config: Mapping[str, object]
    """Content of peft's adapter_config.json."""
    base: Callable[[], NamedTensors]
    """The base model's weights under Hugging Face names. If sharded, every process must iterate over all of them."""
    keep: Collection[int] = ()
    """Earlier versions that requests will still ask for."""


class Engine(ABC):
    """Sampler of the policy. One contract test covers every implementation.

    The user's own subclass can be used too: `engine.name: package.module:Class` or `path/to/file.py:Class`. It is built
    with the keywords model_path, dtype, max_model_len and seed, and with `engine.options`.
    """

    shares_model: ClassVar[bool] = False
    """True if the constructor also takes `model`: the trainer's live model, or None if that is sharded or if the engine
    must sample while the policy learns."""
    runs_beside: ClassVar[bool] = False
    """True if it can sample in a thread while the policy learns (`rollout.ahead`)."""
    loads_beside: ClassVar[bool] = False
    """True if it can load weights while it samples (`rollout.during_update: go_on`): completions under way go on with
    them, and say which tokens have which version."""
    pins: ClassVar[bool] = False
    """True if it has several adapters at a time, and samples each request with the one of its `version`
    (`rollout.during_update: pin`)."""
    version: int = 0
    """Version of the newest weights."""

    @property
    def in_step(self) -> bool:
        """True if several processes share the engine, so that all of them must call `generate` equally often."""
        return False

    @abstractmethod
    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        """Yield each completion as it finishes, so that grading overlaps with generation.

        The same requests in the same order under the same weights give the same tokens and logprobs,
        bit for bit.

        Raises:
            EngineError: a prompt plus max_tokens exceeds the context, or the engine died.
        """

    @abstractmethod
    def load_weights(self, weights: NamedTensors, version: int) -> str:
        """Replace the weights in place and clear every cache that depends on the old ones.

        Args:
            weights: Hugging Face names and tensors of the full model, adapters merged, tied tensors listed once.
            version: policy version written into all completions from now on.
        Returns:
            Checksum of the received tensors, as computed by `reasoner.engine.check.checksum`.
        """

    def load_adapter(self, adapter: Adapter, version: int) -> str | None:
        """Apply new weights of an adapter, apart from its base model, instead of `load_weights`.

        Returns:
            Checksum of the received tensors; None if this engine does not apply adapters: merge and load the whole.
        """
        return None

    @abstractmethod
    def score(self, token_ids: Sequence[int]) -> list[float]:
        """Return [T-1] log-probabilities of each token given those before it, at temperature 1 (the sync probe)."""

    def choose(self, prompts: Sequence[Sequence[int]], choices: Mapping[str, Sequence[int]]) -> list[list[float]]:
        """Return the probability of each choice as a continuation, normalized over the choices, at temperature 1.

        With l_i the log-probability of choice i, its probability is exp(l_i) / sum of exp(l_j).

        Args:
            prompts: token ids.
            choices: text and token ids of the possible continuations.
        Returns:
            For each prompt, the probability of each choice.
        """
        return [
            among([math.fsum(self.score([*prompt, *choice])[-len(choice) :]) for choice in choices.values()])
            for prompt in prompts
        ]

    def take_notes(self) -> list[str]:
        """Return sentences for the user since the last call, e.g. on a server that was lost."""
        return []

    @abstractmethod
    def sleep(self) -> None:
        """Free accelerator memory for the trainer, if the engine can. `load_weights` wakes the engine again."""

    @abstractmethod
    def close(self) -> None:
        """Stop processes and free memory. Idempotent."""


def among(logprobs: Sequence[float]) -> list[float]:
    """Convert log-probabilities to probabilities that sum to one (softmax).

    Example:
        >>> among([-2.0, -2.0])
        [0.5, 0.5]
    """
    highest = max(logprobs)
    weights = [math.exp(value - highest) for value in logprobs]
    return [weight / math.fsum(weights) for weight in weights]


class NoEngine(Engine):
    """The engine of a stage that samples nothing."""

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        raise EngineError("this stage has no engine: it samples nothing and has no problems to evaluate on.")

    def load_weights(self, weights: NamedTensors, version: int) -> str:
        raise EngineError("this stage has no engine to load weights into.")

    def score(self, token_ids: Sequence[int]) -> list[float]:
        raise EngineError("this stage has no engine to score with.")

    def sleep(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def most_tokens(request: Request, params: SamplingParams) -> int:
    """Return the token limit of one request."""
    return params.max_tokens if request.max_tokens is None else min(request.max_tokens, params.max_tokens)


def stop_strings(request: Request, params: SamplingParams) -> tuple[str, ...]:
    """Return the stop strings of one request."""
    return params.stop if request.stop is None else request.stop


def check_requests(requests: Sequence[Request], params: SamplingParams, *, limit: int) -> None:
    """Check that every request has a prompt and fits the context.

    Raises:
        EngineError: one does not; the message gives its length and what to change.
    """
    for request in requests:
        length, tokens = len(request.prompt_ids), most_tokens(request, params)
        if not 0 < length <= limit - tokens:
            raise EngineError(
                f"a prompt must have at least one token and, with max_tokens={tokens}, fit the context of"
                f" {limit} tokens; got {length} tokens. Lower rollout.max_tokens or shorten the prompt."
            )
