"""Decode loop over a transformers model: the engine for machines without vLLM.

Letters: S slots, A active slots, L positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel

from reasoner.config.tolerances import TOLERANCES
from reasoner.engine.base import Engine, EngineError, Finished, NamedTensors, check_requests, most_tokens, stop_strings
from reasoner.engine.check import checksum
from reasoner.model.families import attention_kinds, full_attention, is_known, logit_transform
from reasoner.model.internals import attention_of, keys_and_values
from reasoner.model.load import check_family, default_device, eos_ids, load_tokenizer, move
from reasoner.model.logprobs import head_logits, output_layer
from reasoner.model.lora import exclusive
from reasoner.records import Completion, FinishReason, Request, SamplingParams, Segment


class Kept(NamedTuple):
    """Keys and values of all tokens of an episode but the last, for the turn that may follow."""

    keys: list[Tensor]
    """Of each layer, [heads, L, D]."""
    values: list[Tensor]
    length: int


KEPT_BYTES = 1 << 29
"""Memory for `Kept`; turns that find no place are read again from their beginning."""


class SlotCache:
    """Keys and values of S slots, allocated once; each slot is written at its own positions.

    Implements the methods that a transformers attention layer calls on a cache.
    """

    def __init__(self, slots: int, positions: int) -> None:
        self.slots = slots
        self.positions = positions
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.first, self.count = 0, 0
        self.at = torch.zeros(0, 0, dtype=torch.long)
        self.length = 0

    def write_at(self, first: int, start: Tensor, tokens: int) -> Tensor:
        """Set where `update` writes: T positions from start[i] in slot first + i; padding past the end goes to its end.

        Returns:
            [slots, T, L] bool: which of the first L positions each new one sees.
        """
        self.first, self.count = first, len(start)
        self.at = (start[:, None] + torch.arange(tokens, device=start.device)).clamp(max=self.positions - 1)
        self.length = int(self.at.max()) + 1
        return torch.arange(self.length, device=start.device) <= self.at[:, :, None]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: object, **__: object) -> tuple[Tensor, Tensor]:
        """Write the new positions of the slots; return all keys and values written so far for those slots."""
        rows = slice(self.first, self.first + self.count)
        held_keys, held_values = self.keys[layer][rows], self.values[layer][rows]
        each = torch.arange(self.count, device=self.at.device)[:, None]
        held_keys[each, :, self.at] = keys.transpose(1, 2).to(held_keys.dtype)  # autocast may change the dtype
        held_values[each, :, self.at] = values.transpose(1, 2).to(held_values.dtype)
        return held_keys[:, :, : self.length], held_values[:, :, : self.length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the length of the longest slot before this step."""
        return max(0, self.length - self.at.shape[1])

    def fill(self, layer: int, slots: Tensor, sources: Tensor, keys: Tensor, values: Tensor) -> None:
        """Copy prefilled prompts into slots: slots[i] gets row sources[i] of keys and values [prompts, heads, L, D]."""
        self._allocate(layer, keys, values)
        self.keys[layer][slots, :, : keys.shape[2]] = keys[sources]
        self.values[layer][slots, :, : values.shape[2]] = values[sources]

    def _allocate(self, layer: int, keys: Tensor, values: Tensor) -> None:
        if layer == len(self.keys):
            shape = (self.slots, keys.shape[-3], self.positions, keys.shape[-1])
            self.keys.append(torch.zeros(shape, dtype=keys.dtype, device=keys.device))
            self.values.append(torch.zeros((*shape[:3], values.shape[-1]), dtype=values.dtype, device=values.device))

    def put(self, slot: int, kept: Kept) -> None:
        """Begin a slot with the keys and values of an earlier turn."""
        for layer, (keys, values) in enumerate(zip(kept.keys, kept.values, strict=True)):
            self._allocate(layer, keys, values)
            self.keys[layer][slot, :, : kept.length] = keys
            self.values[layer][slot, :, : kept.length] = values

    def taken(self, slot: int, length: int) -> Kept:
        """Return a copy of the first `length` positions of a slot."""
        return Kept(
            [keys[slot, :, :length].clone() for keys in self.keys],
            [values[slot, :, :length].clone() for values in self.values],
            length,
        )

    def bytes(self, length: int) -> int:
        """Return the memory of so many positions of a slot."""
        return sum(held[0, :, :1].nbytes for held in (*self.keys, *self.values)) * length

    def keep(self, kept: Tensor, *, length: int) -> None:
        """Move slot kept[i] to place i, for all i; only the first `length` positions are in use.

        No slot is overwritten before it is read.
        """
        moved = [(to, source) for to, source in enumerate(kept.tolist()) if to != source]
        if not moved:
            return
        to, source = (torch.tensor(list(part)) for part in zip(*moved, strict=True))
        for held in (*self.keys, *self.values):
            held[to, :, :length] = held[source, :, :length]


@dataclass(slots=True)
class _Active:
    """A request that occupies a slot."""

    index: int
    request: Request
    tokens: list[int]
    logprobs: list[float]


class _Earlier:
    """What earlier turns left, to be found by the tokens of a prompt."""

    def __init__(self, kept: dict[tuple[int, ...], Kept]) -> None:
        self._kept = kept
        self._lengths = sorted({len(ids) for ids in kept}, reverse=True)

    def of(self, prompt_ids: tuple[int, ...]) -> Kept | None:
        """Return what is kept of the longest beginning of a prompt."""
        beginnings = (prompt_ids[:length] for length in self._lengths if length <= len(prompt_ids))
        return next((kept for ids in beginnings if (kept := self._kept.get(ids))), None)


class HfEngine(Engine):
    """Engine that runs the transformers model itself. Finished rows leave the batch and waiting requests replace them.

    A prompt shared by several requests is run once. With a shared `model` nothing is copied: the engine samples from
    the trainer's live weights. It then also keeps the keys and values of a turn for the one that continues it, until
    the next call or the next weights; an engine with its own copy may be called from several threads, where what is
    kept would depend on time.
    """

    shares_model: ClassVar[bool] = True
    runs_beside: ClassVar[bool] = True

    def __init__(
        self,
        *,
        model_path: str,
        dtype: str = "float32",
        max_model_len: int,
        seed: int = 0,
        model: PreTrainedModel | None = None,
        max_batch: int = 256,
        device: str | None = None,
    ) -> None:
        if max_batch < 1:
            raise EngineError(f"max_batch must be >= 1; got {max_batch}. Set engine.options.max_batch.")
        self._shared = model is not None
        self._autocast = torch.bfloat16 if dtype == "bfloat16" and model is not None else None
        if model is None:
            model = AutoModelForCausalLM.from_pretrained(
                model_path, dtype=getattr(torch, dtype), trust_remote_code=False
            ).eval()
            move(model, device or default_device())
        self.model = model
        self.tokenizer = load_tokenizer(model_path)
        self.max_model_len = max_model_len
        self.max_batch = max_batch
        self.version = 0
        self._kept: dict[tuple[int, ...], Kept] = {}
        """By the tokens whose keys and values they are, and the one behind."""
        self._eos = frozenset(eos_ids(model, self.tokenizer))
        self._stop_enders: dict[tuple[str, ...], frozenset[int]] = {}
        _check_attention(model, max_model_len)
        if not self._shared:
            check_family(model)
        if not is_known(model.config):
            self._check_decoding()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    def _check_decoding(self) -> None:
        """Check that sampling with the cache gives the same log-probabilities as a forward pass over the whole text.

        Raises:
            EngineError: it does not, because models of this family keep more than keys and values between tokens.
        """
        prompt = list(range(8))
        (done,) = self._generate([Request(prompt_ids=tuple(prompt), seed=0)], SamplingParams(max_tokens=8))
        scored = self.score([*prompt, *done.completion.token_ids])[len(prompt) - 1 :]
        gap = max(abs(a - b) for a, b in zip(done.completion.rollout_logprobs, scored, strict=True))
        if not gap <= 2 * TOLERANCES[str(self._autocast or self.model.dtype).removeprefix("torch.")].probe:
            raise EngineError(
                f"the hf engine cannot sample models of the family {self.model.config.model_type!r} correctly: they"
                " keep more than keys and values between tokens. Use engine.name=vllm."
            )

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> Iterator[Finished]:
        check_requests(requests, params, limit=self.max_model_len)
        return self._generate(list(requests), params)

    def _autocasting(self) -> AbstractContextManager[object]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._autocast)

    def _generate(self, requests: list[Request], params: SamplingParams) -> Iterator[Finished]:
        with exclusive(self.model):  # a reward model may be an adapter on the same weights, in another thread
            yield from self._sampled(requests, params)

    @torch.no_grad()
    def _sampled(self, requests: list[Request], params: SamplingParams) -> Iterator[Finished]:
        # similar lengths together: every slot attends over the length of the longest active one
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), i))
        waiting = [(index, requests[index]) for index in reversed(order)]
        longest = max((len(one.prompt_ids) + most_tokens(one, params) for one in requests), default=0)
        earlier, self._kept, kept_bytes = _Earlier(self._kept), {}, 0
        cache = SlotCache(min(self.max_batch, len(requests)), longest)
        active: list[_Active] = []
        state = _Slots(self.device)
        while waiting or active:
            first = 0
            if waiting and len(active) <= cache.slots // 2:
                taken = [waiting.pop() for _ in range(min(len(waiting), cache.slots - len(active)))]
                first = len(active)
                taken, logits = self._begin(cache, taken, earlier, first_slot=first)
                state.add([request for _, request in taken], params.max_tokens)
                active += [_Active(index, request, [], []) for index, request in taken]
            else:
                logits = self._decode(cache, state)
            finished = self._choose(active, logits, state, params, first=first)
            for slot in (slot for slot in finished if self._shared and active[slot].request.continued):
                entry, length = active[slot], int(state.position[slot])
                if kept_bytes + (size := cache.bytes(length)) <= KEPT_BYTES:
                    kept_bytes += size
                    self._kept[(*entry.request.prompt_ids, *entry.tokens)] = cache.taken(slot, length)
            yield from finished.values()
            if finished:
                kept = filled(len(active), finished)
                cache.keep(torch.tensor(kept, dtype=torch.long), length=int(state.position.max()))
                state.keep(torch.tensor(kept, dtype=torch.long))
                active = [active[slot] for slot in kept]

    def _begin(
        self, cache: SlotCache, taken: list[tuple[int, Request]], earlier: _Earlier, *, first_slot: int
    ) -> tuple[list[tuple[int, Request]], Tensor]:
        """Read the prompts of new requests; return these in the order of their slots, and [len(taken), V] logits."""
        found = [(one, earlier.of(one[1].prompt_ids)) for one in taken]
        new = [one for one, kept in found if kept is None]
        continued = [(one, kept) for one, kept in found if kept is not None]
        parts = [self._prefill(cache, new, first_slot=first_slot)] if new else []
        if continued:
            parts.append(self._read_on(cache, continued, first_slot=first_slot + len(new)))
        return [*new, *(one for one, _ in continued)], torch.cat(parts)

    def _read_on(
        self, cache: SlotCache, continued: list[tuple[tuple[int, Request], Kept]], *, first_slot: int
    ) -> Tensor:
        """Read what stands behind the kept tokens; return [len(continued), V] logits of the last prompt positions."""
        for place, (_, kept) in enumerate(continued):
            cache.put(first_slot + place, kept)
        unread = [torch.tensor(request.prompt_ids[kept.length :]) for (_, request), kept in continued]
        lengths = torch.tensor([len(ids) for ids in unread], device=self.device)
        start = torch.tensor([kept.length for _, kept in continued], device=self.device)
        # padding is written behind a row's own tokens, is seen by none of them, and is overwritten
        input_ids = pad_sequence(unread, batch_first=True).to(self.device)
        hidden = self._run(cache, input_ids, first_slot, start)
        return self._logits(hidden[torch.arange(len(lengths), device=self.device), lengths - 1])

    def _prefill(self, cache: SlotCache, taken: list[tuple[int, Request]], *, first_slot: int) -> Tensor:
        """Run each distinct prompt once; return the [len(taken), V] logits of the last prompt positions."""
        prompts: dict[tuple[int, ...], int] = {}
        for _, request in taken:
            prompts.setdefault(request.prompt_ids, len(prompts))
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        input_ids = torch.zeros(len(prompts), int(lengths.max()), dtype=torch.long, device=self.device)
        for row, prompt in enumerate(prompts):
            input_ids[row, : len(prompt)] = torch.tensor(prompt, device=self.device)
        sources = torch.tensor([prompts[request.prompt_ids] for _, request in taken], device=self.device)
        slots = torch.arange(first_slot, first_slot + len(taken), device=self.device)
        decoder = self.model.get_decoder()
        with self._autocasting():
            output = decoder(input_ids=input_ids, use_cache=True)
            hidden = output.last_hidden_state[torch.arange(len(prompts), device=self.device), lengths - 1]
            logits = self._logits(hidden)
        for layer, (keys, values) in enumerate(keys_and_values(output.past_key_values)):
            cache.fill(layer, slots, sources, keys, values)
        return logits[sources]

    def _decode(self, cache: SlotCache, state: _Slots) -> Tensor:
        """Run one position of every active slot; return [A, V] logits."""
        hidden = self._run(cache, state.last[:, None], 0, state.position)[:, -1]
        state.position = state.position + 1
        return self._logits(hidden)

    def _run(self, cache: SlotCache, input_ids: Tensor, first_slot: int, start: Tensor) -> Tensor:
        """Run tokens [A, T] of the slots from `first_slot` on, from position start[i] in each; return [A, T, H]."""
        seen = cache.write_at(first_slot, start, input_ids.shape[1])[:, None]
        if attention_of(self.model) == "eager":  # eager attention adds its mask to the scores
            seen = torch.where(seen, 0.0, -torch.inf)
        with self._autocasting():
            return self.model.get_decoder()(
                input_ids=input_ids,
                attention_mask=seen,
                position_ids=cache.at,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state

    def _logits(self, hidden: Tensor) -> Tensor:
        with self._autocasting():
            return head_logits(hidden, output_layer(self.model), logit_transform(self.model.config))

    def _choose(
        self, active: list[_Active], logits: Tensor, state: _Slots, params: SamplingParams, *, first: int
    ) -> dict[int, Finished]:
        """Sample the next token of the slots from `first` on; return the finished requests by slot."""
        uniforms = state.uniform[torch.arange(first, len(active)), state.taken[first:]]
        tokens, logprobs = sample(logits, uniforms.to(self.device), params)
        state.last = torch.cat([state.last[:first], tokens])
        state.taken[first:] += 1
        finished: dict[int, Finished] = {}
        for slot, token, logprob in zip(range(first, len(active)), tokens.tolist(), logprobs.tolist(), strict=True):
            entry = active[slot]
            entry.tokens.append(token)
            entry.logprobs.append(logprob)
            done = self._finish(entry, token, params)
            if done is not None:
                finished[slot] = Finished(entry.index, done)
        return finished

    def _finish(self, entry: _Active, token: int, params: SamplingParams) -> Completion | None:
        text: str | None = None
        reason: FinishReason | None = None
        if token in (self._eos if params.end_ids is None else params.end_ids):
            reason = FinishReason.STOP
        elif (stops := stop_strings(entry.request, params)) and token in self._enders(stops):
            decoded = self._text(entry.tokens)
            ends = [at + len(stop) for stop in stops if (at := decoded.find(stop)) >= 0]
            if ends:
                reason, text = FinishReason.STOP, decoded[: min(ends)]
        if reason is None and len(entry.tokens) >= most_tokens(entry.request, params):
            reason = FinishReason.LENGTH
        if reason is None:
            return None
        count = len(entry.tokens)
        return Completion(
            text=self._text(entry.tokens) if text is None else text,
            token_ids=tuple(entry.tokens),
            rollout_logprobs=tuple(entry.logprobs),
            loss_mask=(True,) * count,
            segments=(Segment(start=0, end=count, origin="policy"),),
            finish_reason=reason,
            policy_version=self.version,
        )

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _enders(self, stops: tuple[str, ...]) -> frozenset[int]:
        """Return the tokens whose text may complete a stop string: those that contain the last character of one."""
        if stops not in self._stop_enders:
            last = {stop[-1] for stop in stops}
            texts = self.tokenizer.batch_decode([[token] for token in range(len(self.tokenizer))])
            # a token with part of a longer character decodes to the replacement character
            self._stop_enders[stops] = frozenset(
                token for token, text in enumerate(texts) if "\ufffd" in text or any(c in text for c in last)
            )
        return self._stop_enders[stops]

    def load_weights(self, weights: NamedTensors, version: int) -> str:
        self.version = version
        self._kept = {}
        if self._shared:  # the trainer's own tensors
            return checksum(weights)
        listed = list(weights)
        missing, unexpected = self.model.load_state_dict(dict(listed), strict=False)
        tied = {name for name in missing if "lm_head" in name} if self.model.config.tie_word_embeddings else set()
        if unexpected or set(missing) - tied:
            raise EngineError(
                f"weights must have the model's names; unexpected {sorted(unexpected)[:3]},"
                f" missing {sorted(set(missing) - tied)[:3]}."
            )
        held = self.model.state_dict()
        return checksum((name, held[name]) for name, _ in listed)

    @torch.no_grad()
    def score(self, token_ids: Sequence[int]) -> list[float]:
        ids = torch.tensor(token_ids, device=self.device)
        with self._autocasting():
            hidden = self.model.get_decoder()(input_ids=ids[None], use_cache=False).last_hidden_state[0, :-1]
            logits = self._logits(hidden)
        return torch.log_softmax(logits, dim=-1).gather(1, ids[1:, None])[:, 0].tolist()

    def sleep(self) -> None:
        """Do nothing: caches exist only during `generate`."""

    def close(self) -> None:
        """Do nothing: this engine has no process of its own."""


def filled(count: int, finished: Collection[int]) -> list[int]:
    """Return which slot moves to each place when finished slots are removed: the last ones fill the gaps.

    Example:
        >>> filled(6, {1, 4})
        [0, 5, 2, 3]
    """
    left = count - len(finished)
    movers = iter(slot for slot in range(left, count) if slot not in finished)
    return [next(movers) if slot in finished else slot for slot in range(left)]


class _Slots:
    """Per-slot tensors of the active requests, in slot order."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.position = torch.zeros(0, dtype=torch.long, device=device)
        """Position at which the next token is written."""
        self.last = torch.zeros(0, dtype=torch.long, device=device)
        self.taken = torch.zeros(0, dtype=torch.long)
        """Number of uniforms used so far."""
        self.uniform = torch.zeros(0, 0, dtype=torch.float64)

    def add(self, requests: list[Request], max_tokens: int) -> None:
        """Append new requests, each with uniforms drawn from its own seed."""
        lengths = torch.tensor([len(request.prompt_ids) for request in requests], device=self.device)
        self.position = torch.cat([self.position, lengths])
        self.taken = torch.cat([self.taken, torch.zeros(len(requests), dtype=torch.long)])
        drawn = [
            torch.rand(max_tokens, generator=torch.Generator().manual_seed(request.seed), dtype=torch.float64)
            for request in requests
        ]
        self.uniform = torch.cat([self.uniform.reshape(-1, max_tokens), torch.stack(drawn)])

    def keep(self, kept: Tensor) -> None:
        """Keep only the given slots, in the given order."""
        self.position, self.last = self.position[kept.to(self.device)], self.last[kept.to(self.device)]
        self.taken, self.uniform = self.taken[kept], self.uniform[kept]


def sample(logits: Tensor, uniforms: Tensor, params: SamplingParams) -> tuple[Tensor, Tensor]:
    """Sample one token per row by inverting the cumulative distribution function.

    Args:
        logits: [A, V] float32.
        uniforms: [A] float64 in [0, 1), one per row; a row's token depends on no other row's uniform.
        params: temperature 0 takes the most likely token.
    Returns:
        [A] tokens, [A] log-probabilities under the sampling distribution; at temperature 0 those of temperature 1.
    """
    if params.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, torch.log_softmax(logits, -1).gather(1, tokens[:, None])[:, 0]
    logprobs = torch.log_softmax(_filtered(logits / params.temperature, params), -1)
    cumulative = logprobs.double().exp().cumsum(-1)
    # scaled to its own total, so that rounding never points past the last token with non-zero probability
    target = uniforms[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True).clamp(max=logits.shape[-1] - 1)
    return tokens[:, 0], logprobs.gather(1, tokens)[:, 0]


def _filtered(logits: Tensor, params: SamplingParams) -> Tensor:
    """Set logits outside top-k and the nucleus (top-p) to minus infinity."""
    if params.top_k <= 0 and params.top_p >= 1:
        return logits
    ordered, indices = logits.sort(descending=True, dim=-1)
    drop = torch.zeros_like(ordered, dtype=torch.bool)
    if params.top_k > 0:
        drop[:, params.top_k :] = True
    if params.top_p < 1:
        probabilities = torch.softmax(ordered.masked_fill(drop, -torch.inf), -1)
        drop |= probabilities.cumsum(-1) - probabilities >= params.top_p
    return logits.masked_fill(torch.zeros_like(drop).scatter(1, indices, drop), -torch.inf)


def _check_attention(model: PreTrainedModel, max_model_len: int) -> None:
    """Reject models with attention windows shorter than the context (the slots are plain caches), and flash attention.

    transformers would pass the mask over the slots to flash attention as if it were a padding mask.
    """
    if attention_of(model) == "flash_attention_2":
        raise EngineError(
            "the hf engine needs model.attention sdpa or eager; got flash_attention_2. Set one of them, or use"
            " engine.name=vllm."
        )
    if not full_attention(model.config, max_model_len):
        kinds = attention_kinds(model.config)
        raise EngineError(
            f"the hf engine supports only models with full attention; {type(model).__name__} has {sorted(kinds)}"
            " layers. Use engine.name=vllm."
        )
