"""The trainable policy: one interface for all algorithms.

Letters: B rows, N completion tokens, K x L lines and tokens of a forward pass.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner import processes
from reasoner.algorithm.batch import Batch
from reasoner.algorithm.distillation import readable, with_teacher
from reasoner.algorithm.loss import LossTerms, merge_metrics
from reasoner.algorithm.objective import Objective, TokenScores
from reasoner.config.errors import ConfigError
from reasoner.config.sections import ModelSection
from reasoner.config.stage import StageConfig
from reasoner.errors import ReasonerError
from reasoner.model.forward import Forward, hidden_states, takes_unpadded
from reasoner.model.load import (
    Loaded,
    check_filled,
    compute_dtype,
    context_limit,
    dtype_of,
    eos_ids,
    load_empty,
    load_model,
    load_tokenizer,
    tokens_of,
)
from reasoner.model.logprobs import logprobs_and_entropy, output_layer
from reasoner.model.lora import (
    adapter_weights,
    add_adapter,
    dropout_modules,
    exclusive,
    is_adapter,
    load_adapter,
    plain_name,
    plain_weights,
    save_adapter,
)
from reasoner.model.measured import packs
from reasoner.model.paths import DTYPE_FILE, ModelError
from reasoner.model.same_tokenizer import check_same_tokenizer
from reasoner.model.save import dtype_name, write_model, write_model_share
from reasoner.model.sharding import (
    fill,
    free_gathered,
    is_sharded,
    load_whole_state,
    name_layers,
    own_share,
    shard_frozen,
    shards,
    stored_tensors,
    whole_optimizer_state,
)
from reasoner.model.soundness import LARGEST_WEIGHT, largest
from reasoner.policy.layout import packed, padded, unpadded
from reasoner.policy.optimizer import make_optimizer, parameter_groups, schedule_factor, updates_per_step
from reasoner.policy.passes import GAIN, GAIN_ELSEWHERE, Planner
from reasoner.seeds import request_seed

if TYPE_CHECKING:
    from peft import PeftModel


class TrainingError(ReasonerError, RuntimeError):
    """Training cannot continue; the message names the cause and what to change. Checkpoints are not affected."""


class Diverged(TrainingError):
    """The loss, gradient or weights became non-finite or huge. Restart from an earlier checkpoint with a lower rate."""

    def __init__(self, message: str, *, lr: float) -> None:
        super().__init__(message)
        self.lr = lr
        """Learning rate of the config."""

    def __reduce__(self) -> tuple[partial[Diverged], tuple[str]]:
        return partial(Diverged, lr=self.lr), (str(self),)


class Part(NamedTuple):
    """A micro-batch of one process."""

    rows: list[int]
    real: bool
    """False for a filler pass that keeps the processes synchronized; its loss, gradient and metrics are discarded."""


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """Results of one optimizer step."""

    loss: float
    grad_norm: float
    """Gradient norm before clipping."""
    lr: float
    metrics: Mapping[str, float]


class TokenScorer(nn.Module):
    """The model as a module that maps a forward layout to log-probabilities of completion tokens.

    Every pass goes through this module's `forward`, so that wrappers (DDP, FSDP2) see it.
    """

    def __init__(self, model: PreTrainedModel, *, logit_bytes: int, entropy_gradient: bool = False) -> None:
        super().__init__()
        self.model = model
        self.logit_bytes = logit_bytes
        self.entropy_gradient = entropy_gradient

    def forward(self, forward: Forward, temperature: float) -> TokenScores:
        hidden_ND = hidden_states(self.model.get_decoder(), forward, forward.flat_positions_N)
        return TokenScores(
            *logprobs_and_entropy(
                hidden_ND,
                output_layer(self.model),
                forward.targets_N,
                temperature=temperature,
                max_bytes=self.logit_bytes,
                entropy_gradient=self.entropy_gradient,
                config=self.model.config,
            )
        )


class Policy:
    """A trainable model with its optimizer, its reference model and its version."""

    unit: ClassVar[int] = 1
    """Number of consecutive rows that stay in one micro-batch: 2 if rows are the two sides of a pair."""
    reads_last_token: ClassVar[bool] = False
    """True if passes are read at each row's last token, which a pass without padding otherwise leaves out."""
    reads_base: ClassVar[bool] = False
    """True if the base's weights are read before they are sharded, so that each process loads all of them."""
    passes_leave_out: ClassVar[bool] = False
    """True if a backward pass may not reach every trainable parameter (sets DDP's `find_unused_parameters`)."""

    def __init__(self, config: StageConfig, *, accelerator: Accelerator, checkpoint: Path | None = None) -> None:
        """Load the config's model, or the same model with a checkpoint's weights.

        Raises:
            ConfigError: the model cannot be used with batch.layout.
            ModelError: the model cannot be loaded, or a checkpoint's weights are not finite.
        """
        self.config = config
        self.accelerator = accelerator
        self.device = accelerator.device
        self.dtype = compute_dtype(config.model.dtype, self.device)
        section, lora = config.model, config.model.lora
        if checkpoint is not None and lora is None:
            folder = str(checkpoint / "model")
            section = section.model_copy(update={"path": folder, "from_scratch": None, "tokenizer": None})
        self._unread: list[tuple[PreTrainedModel, Mapping[str, Path], str]] = []
        """Models whose weights are read once they are sharded: model, file of each tensor, path for messages."""
        self._in_shards = shards(accelerator) and not (self.reads_base and lora is not None)
        # frozen weights need no float32 master copy
        loaded = self._load(section, torch.float32 if lora is None else self.dtype)
        self.tokenizer: PreTrainedTokenizerBase = loaded.tokenizer
        self.context = context_limit(loaded.model.config, config.model)
        self.eos_ids = eos_ids(loaded.model, loaded.tokenizer)
        self.end_ids = self.eos_ids
        """Tokens that end a completion."""
        self.vocabulary = loaded.model.config.vocab_size
        self.special_ids: list[int] = list(loaded.tokenizer.all_special_ids)
        self.model = loaded.model
        self.saved_dtype = dtype_of(section)
        """Dtype of saved models: that of the base model."""
        if self._packs and not packs(self.model):
            raise ConfigError(
                "bad-value",
                f"batch.layout must be padded for {type(self.model).__name__}: in packed rows its tokens attend to"
                f" other rows; got {config.batch.layout} with model.attention={config.model.attention}.",
            )
        tied = self.model.config.get_text_config().tie_word_embeddings
        self.adapter: PeftModel | None = None
        if lora is not None:
            adapter = checkpoint / "adapter" if checkpoint else None
            self.adapter = add_adapter(self.model, lora, seed=config.seed, weights=adapter)
        untied = tied != self.model.config.get_text_config().tie_word_embeddings
        self.reshaped = config.model.resize_embeddings or untied
        """True if the model's matrices may differ in shape from those of the model it was loaded from."""
        self._loss, self._metrics = 0.0, dict[str, float]()
        """Loss and metrics accumulated since the last optimizer step."""
        self._collected: dict[str, dict[str, Tensor]] | None = None
        self._dealt: set[str] = set()
        """Collected parts of which each process has some of the tensors."""
        self._in_training = self._trained_modules()
        self.version = 0
        self.temperature = config.rollout.temperature
        self._teacher: TokenScorer | None = None
        scorer = self._make_scorer(checkpoint)
        name_layers(scorer, accelerator)
        optimizer = self._make_optimizer(scorer)
        self.scorer, self.optimizer = accelerator.prepare(scorer, optimizer)
        self._read_shards()
        self._settings = [
            {name: value for name, value in group.items() if name != "params"} for group in self.optimizer.param_groups
        ]
        self._update = 0
        """Index of the next optimizer step in the schedule."""
        self._reference: TokenScorer | None = None
        if config.needs_reference and (self.adapter is None or config.algorithm.reference):
            self._reference = self._load_reference()
        if config.has_teacher_model and self._teacher is None:
            self._teacher = self._load_teacher()
        self._may_unpad = self._can_unpad()
        if checkpoint is not None and not math.isfinite(size := self._largest_weight()):
            raise ModelError(f"its trained weights contain a value of {size}", path=checkpoint)

    def _load(self, section: ModelSection, dtype: torch.dtype) -> Loaded:
        """Load a model of this policy; where it will be sharded, its weights only after that, if its files allow it."""
        if self._in_shards and (empty := load_empty(section, weights_dtype=dtype)) is not None:
            self._unread.append((empty.loaded.model, empty.stored, str(section.path)))
            return empty.loaded
        return load_model(section, seed=self.config.seed, weights_dtype=dtype)

    def _read_shards(self) -> None:
        """Read this process's shards of the models that `_load` left empty.

        Raises:
            ModelError: a model is damaged.
        """
        for model, stored, path in self._unread:
            embedding = model.get_input_embeddings().get_parameter("weight")
            names = {plain_name(name): held for name, held in model.named_parameters() if not is_adapter(name)}
            tied = next(name for name, held in names.items() if held is embedding)
            # an adapter on a tied output layer has given it a matrix of its own
            named = [(name if name in stored else tied, held) for name, held in names.items()]
            check_filled(dict(named), processes.gather(fill(named, stored)), path)
        self._unread.clear()

    def _make_scorer(self, checkpoint: Path | None) -> nn.Module:
        """Build the module that every pass goes through. A checkpoint's weights are already in `self.model`."""
        return TokenScorer(
            self.model,
            logit_bytes=self.config.batch.logit_bytes(self.device.type),
            entropy_gradient=self.config.algorithm.entropy_coef > 0,
        )

    def _make_optimizer(self, scorer: nn.Module) -> torch.optim.Optimizer:
        return make_optimizer(parameter_groups(scorer, self.config), self.config, self.device)

    def _trained_modules(self) -> list[nn.Module]:
        """List the modules that run in training mode during an update; all others stay in evaluation mode.

        transformers recomputes activations only in layers that are in training mode. The model's own dropout must stay
        off: it would make the trainer's log-probabilities differ from the engine's.
        """
        section = self.config.model
        found: list[nn.Module] = []
        if section.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            found += [layer for layer in self.model.modules() if isinstance(layer, GradientCheckpointingLayer)]
        if section.lora is not None and section.lora.dropout > 0:
            found += dropout_modules(self.model)
        return found

    @contextmanager
    def _learning(self) -> Iterator[None]:
        for module in self._in_training:
            module.training = True
        try:
            yield
        finally:
            for module in self._in_training:
                module.training = False

    def _load_reference(self) -> TokenScorer:
        section, other = self.config.model, self.config.algorithm.reference
        if other is not None:
            section = section.model_copy(update={"path": other, "from_scratch": None, "tokenizer": None})
        return self._load_frozen(section)

    def _load_teacher(self) -> TokenScorer:
        """Load the teacher; the policy's context becomes no longer than the teacher's.

        Raises:
            ConfigError: its tokenizer is another one.
        """
        path = self.config.teacher.path
        assert path is not None
        check_same_tokenizer(self.tokenizer, load_tokenizer(path), teacher=path)
        further = {"chat_template": None, "resize_embeddings": False, "quantization": None}
        named = {"path": path, "from_scratch": None, "tokenizer": None, **further}
        teacher = self._load_frozen(self.config.model.model_copy(update=named))
        self.context = min(self.context, context_limit(teacher.model.config, self.config.model))
        return teacher

    def _load_frozen(self, section: ModelSection) -> TokenScorer:
        model = self._load(section, self.dtype).model
        model.requires_grad_(False)
        scorer = TokenScorer(model, logit_bytes=self.config.batch.logit_bytes(self.device.type))
        if shards(self.accelerator):
            name_layers(scorer, self.accelerator)
            shard_frozen(scorer, self.accelerator)
            self._read_shards()
        return scorer

    def layout(self, batch: Batch) -> Forward:
        """Lay out a micro-batch for a forward pass on the policy's device, following config.batch.layout."""
        section, planner = self.config.batch, self.planner()
        if self._packs:
            flash = self.config.model.attention == "flash_attention_2"
            forward = packed(batch, None if flash else section.pack_tokens)
        elif planner.unpads(planner.sizes(batch), range(len(batch))):
            forward = unpadded(batch, ends=self.reads_last_token)
        else:
            forward = padded(batch)
        return forward.to(self.device)

    @property
    def _packs(self) -> bool:
        """True if micro-batches are packed end to end."""
        layout, flash = self.config.batch.layout, self.config.model.attention == "flash_attention_2"
        return layout == "packed" or (layout == "auto" and flash)

    def planner(self) -> Planner:
        """Return the planner that divides rows into passes; config.batch.layout decides if padding can be left out."""
        section = self.config.batch
        gain = GAIN.get(self.device.type, GAIN_ELSEWHERE)
        return Planner(
            max_tokens=section.tokens_per_pass(self.device.type),
            unit=self.unit,
            gain=gain if section.layout == "auto" and self._may_unpad else None,
            ends=self.reads_last_token,
        )

    def _can_unpad(self) -> bool:
        """Return True if all models that passes go through support lines without padding."""
        beside = [scorer for scorer in (self._reference, self._teacher) if scorer is not None]
        modules = [module for scorer in (self.scorer, *beside) for module in scorer.modules()]
        models = [module for module in modules if isinstance(module, PreTrainedModel)]
        return all(takes_unpadded(model, self.context) for model in models)

    def trainer_logprobs(self, micro: Batch) -> TokenScores:
        """Return log-probabilities (with gradient) and entropies of a micro-batch's completion tokens."""
        with self.accelerator.autocast():
            return self.scorer(self.layout(micro), self.temperature)

    def annotate(self, batch: Batch, needs: frozenset[str]) -> Batch:
        """Add the tensors that the estimator and the loss need: `old_logprobs`, `ref_logprobs`, `teacher_logprobs`."""
        if "old_logprobs" in needs:
            batch = replace(batch, old_logprobs_N=self._score(batch, self.scorer))
        if "ref_logprobs" in needs:
            batch = replace(batch, ref_logprobs_N=self._reference_logprobs(batch))
        if "teacher_logprobs" in needs and batch.teacher_logprobs_N is None:
            if self._teacher is None:
                raise TrainingError("teacher_logprobs need a teacher, but none is loaded: set teacher.path.")
            teacher, tokens = self._teacher, tokens_of(self.tokenizer)
            scored = self._score_frozen(readable(batch, tokens=tokens), teacher)
            batch = with_teacher(batch, scored, tokens=tokens)
        return batch

    def _score_frozen(self, batch: Batch, scorer: TokenScorer) -> Tensor:
        """Score with a second model.

        It is moved to the device for the call and kept in host memory otherwise; a sharded one stays.
        """
        if is_sharded(scorer):
            found = self._score(batch, scorer)
            free_gathered(scorer)
            return found
        scorer.to(self.device)
        try:
            return self._score(batch, scorer)
        finally:
            if self.device.type != "cpu":
                scorer.to("cpu")

    def _reference_logprobs(self, batch: Batch) -> Tensor:
        """Score with the reference: the policy without its adapter, or a second model."""
        if self._reference is not None:
            return self._score_frozen(batch, self._reference)
        if self.adapter is None:
            raise TrainingError(
                "ref_logprobs need a reference model, but none is loaded: set algorithm.kl_coef above 0."
            )
        with exclusive(self.model), self.adapter.disable_adapter():
            return self._score(batch, self.scorer)

    def _score(self, batch: Batch, scorer: nn.Module) -> Tensor:
        return self._read(batch, lambda micro: [scorer(self.layout(micro), self.temperature).logprobs_N])[0]

    @torch.no_grad()
    def _read(self, batch: Batch, read: Callable[[Batch], Sequence[Tensor]]) -> list[Tensor]:
        """Apply `read` to micro-batches on all processes; return its [N] tensors in batch order, float32 on the CPU."""
        found: list[tuple[list[int], list[Tensor]]] = []
        for part in self.parts(batch):
            with exclusive(self.model), self.accelerator.autocast():
                read_N = read(batch.select(part.rows))
            if part.real:
                found.append((part.rows, [one.float().cpu() for one in read_N]))
        dealt = list(itertools.chain.from_iterable(processes.gather(found)))
        starts = batch.row_starts()
        place_N = torch.cat([torch.arange(starts[row], starts[row + 1]) for rows, _ in dealt for row in rows])
        joined = [torch.cat(one) for one in zip(*(read_N for _, read_N in dealt), strict=True)]
        return [torch.empty_like(one_N).index_copy(0, place_N, one_N) for one_N in joined]

    def parts(self, batch: Batch) -> list[Part]:
        """List this process's micro-batches, filled up to the same number on every process with filler passes."""
        parts_of = self.planner().distribute(batch, processes.count())
        own = [Part(rows, real=True) for rows in parts_of[processes.rank()]]
        idle = Part(list(range(min(self.unit, len(batch)))), real=False)
        return own + [idle] * (max(map(len, parts_of)) - len(own))

    @torch.no_grad()
    def score_tokens(self, token_ids: Sequence[int]) -> list[float]:
        """Return [T-1] log-probabilities of each token given those before it, at temperature 1 (the sync probe)."""
        ids = torch.tensor(token_ids)
        at = torch.arange(len(ids) - 1)
        forward = Forward(ids[None], None, at, ids[1:], at[-1:] + 1).to(self.device)
        with exclusive(self.model), self.accelerator.autocast():
            return self.scorer(forward, 1.0).logprobs_N.float().tolist()

    def finite_scores(self, token_ids: Sequence[int]) -> list[float]:
        """Return `score_tokens`, checked to be finite.

        Raises:
            Diverged: a value is not finite. The cause is the model's own forward pass, not the engine.
        """
        scores = self.score_tokens(token_ids)
        if not all(map(math.isfinite, scores)):
            dtype = str(self.dtype).removeprefix("torch.")
            raise Diverged(
                f"the policy's own log-probabilities must be finite; after {self.version} updates they are not, in"
                f" {dtype} with trained weights of up to {self._largest_weight():.3g}: its forward pass overflows."
                + ("" if self.version else " Use another model, or another model.dtype."),
                lr=self.config.optim.lr,
            )
        return scores

    def _losses(self, micro: Batch, objective: Objective | None) -> Iterator[LossTerms]:
        """Yield the losses of a micro-batch. Each is backpropagated, and its memory freed, before the next one."""
        if objective is None:
            raise TrainingError("without a value model there is nothing to warm up. Set value.warmup_steps: 0.")
        yield objective(self.trainer_logprobs(micro), micro.to(self.device))

    def _clip_gradients(self, metrics: dict[str, float]) -> float:
        """Clip the gradient to optim.max_grad_norm; return the norm before clipping."""
        norm = self.accelerator.clip_grad_norm_(self.scorer.parameters(), self.config.optim.max_grad_norm)
        return float(norm) if norm is not None else float("nan")

    def apply_settings(self) -> None:
        """Set the optimizer's rates, decay etc. to the config's, after loading a state with other values."""
        for group, settings in zip(self.optimizer.param_groups, self._settings, strict=True):
            group.update(settings)

    def begin_step(self, step: int) -> None:
        """Prepare the updates of a training step: the schedule's position and the random seed.

        The learning rate depends on the step number, also if earlier steps had no update. Random numbers of the step
        (dropout) depend only on the run's seed, the step and the process, not on what ran before.
        """
        self._update = (step - 1) * updates_per_step(self.config)
        torch.manual_seed(request_seed(self.config.seed, "torch", step, processes.rank()))

    def _set_lr(self) -> float:
        """Set the learning rates of the next optimizer step; return the first of them."""
        factor = schedule_factor(self.config, self._update)
        for group, settings in zip(self.optimizer.param_groups, self._settings, strict=True):
            group["lr"] = settings["lr"] * factor
        return float(self.optimizer.param_groups[0]["lr"])

    def update(self, batch: Batch, objective: Objective | None) -> UpdateStats:
        """Take one optimizer step on a whole batch: `accumulate`, then `step`."""
        self.accumulate(batch, objective)
        return self.step()

    def accumulate(self, batch: Batch, objective: Objective | None) -> None:
        """Add a batch's gradient to the next optimizer step, in micro-batches that respect the token budget.

        Args:
            batch: rows of the step, all or some.
            objective: the policy's objective; None: only the value model is trained.
        """
        # gradients are averaged over processes, but the loss is already divided by the global token count
        scale = self.accelerator.num_processes
        parts = self.parts(batch)
        for place, part in enumerate(parts, 1):
            # a reward model on the same base may be grading the next portion in another thread
            with exclusive(self.model), self._learning(), self._reduction(over_processes=place == len(parts)):
                for terms in self._losses(batch.select(part.rows), objective):
                    self.accelerator.backward(terms.loss * (scale if part.real else 0.0))
                    if part.real:
                        self._loss += terms.loss.detach().item()
                        merge_metrics(self._metrics, terms.metrics)

    def _reduction(self, *, over_processes: bool) -> AbstractContextManager[None]:
        """Return the context of a backward pass; under DDP it sums the gradient over processes if `over_processes`."""
        # DDP would treat parameters that the last pass leaves out as unused, and keep each process's own sum for them
        if over_processes or self.passes_leave_out or not isinstance(self.scorer, DistributedDataParallel):
            return nullcontext()
        return self.scorer.no_sync()

    def step(self, *, scale: float = 1.0) -> UpdateStats:
        """Take the optimizer step along the accumulated gradient.

        Args:
            scale: factor on gradient and loss, if the batches' token weights were provisional
                (`Batch.whole_step_scale`).
        Raises:
            Diverged: loss or gradient is not finite (the weights are unchanged), or the updated weights are not finite
                or too large.
        """
        loss, metrics = self._over_processes(self._loss * scale, self._metrics)
        self._loss, self._metrics = 0.0, {}
        if scale != 1.0:
            for parameter in self.scorer.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        grad_norm = self._clip_gradients(metrics)
        lr = self._set_lr()
        if not (torch.isfinite(torch.tensor(loss)) and torch.isfinite(torch.tensor(grad_norm))):
            self.optimizer.zero_grad()
            raise Diverged(
                f"loss and gradient must be finite; got loss {loss} and gradient norm {grad_norm} at learning rate"
                f" {lr:.3g}, with weights of up to {self._largest_weight():.3g}. This update was not applied.",
                lr=self.config.optim.lr,
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        size = self._largest_weight()
        if not size <= LARGEST_WEIGHT:
            raise Diverged(
                f"the policy's weights must stay finite and of ordinary size; update {self.version + 1}, at learning"
                f" rate {lr:.3g} and gradient norm {grad_norm:.3g}, made one of them {size:.3g}.",
                lr=self.config.optim.lr,
            )
        self._update += 1
        self.version += 1
        return UpdateStats(loss, grad_norm, lr, metrics)

    def _largest_weight(self) -> float:
        """Return the largest absolute value of the trained weights over all processes; NaN if one is NaN."""
        own = largest(parameter for parameter in self.scorer.parameters() if parameter.requires_grad)
        sizes = processes.gather(own) if is_sharded(self.scorer) else [own]
        return math.nan if any(map(math.isnan, sizes)) else max(sizes)

    @staticmethod
    def _over_processes(loss: float, metrics: dict[str, float]) -> tuple[float, dict[str, float]]:
        """Combine loss and metrics of all processes into those of the whole step."""
        gathered = processes.gather((loss, metrics))
        merged: dict[str, float] = {}
        for _, one in gathered:
            merge_metrics(merged, one)
        return sum(one for one, _ in gathered), merged

    def named_weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield Hugging Face names and tensors of the full model for engines: adapters merged, tied tensors once."""
        return plain_weights(self.unwrapped())

    def unwrapped(self) -> PreTrainedModel:
        """Return the transformers model without wrappers."""
        scorer: TokenScorer = self.accelerator.unwrap_model(self.scorer)
        return scorer.model

    def end_with(self, end_ids: Sequence[int]) -> None:
        """Set the end tokens in the generation config of saved models."""
        self.end_ids = tuple(end_ids)
        generation = self.unwrapped().generation_config
        if generation is not None and set(end_ids) != set(self.eos_ids):
            generation.eos_token_id = list(end_ids)

    def save(self, folder: Path) -> None:
        """Write model and tokenizer as a plain Hugging Face folder in the base's dtype, with merged adapters.

        Call it, as `save_trained`, inside `collected`; on every process if sharded.
        """
        self._write("model", self.unwrapped(), folder, self.saved_dtype)

    def _save_master(self, folder: Path) -> None:
        """Write the weights in their training dtype, for resuming, and a note of the dtype that `save` uses."""
        model = self.unwrapped()
        self._write("model", model, folder, model.dtype)
        if processes.is_main():
            (folder / DTYPE_FILE).write_text(dtype_name(self.saved_dtype) + "\n")

    def _write(self, part: str, model: PreTrainedModel, folder: Path, dtype: torch.dtype) -> None:
        """Write a whole model, or this process's part of it if all write together."""
        if part in self._dealt:
            place = {"rank": processes.rank(), "count": processes.count()}
            write_model_share(model, self.tokenizer, self._written(part), folder, dtype, **place)
        else:
            write_model(model, self.tokenizer, self._written(part), folder, dtype)

    def _in_saved_dtype(self, part: str, *, trained: bool) -> Iterator[tuple[str, Tensor]]:
        """Yield the full tensors of a part in the dtype in which they are written."""
        for name, tensor in self._weights(part):
            yield name, tensor if trained or not tensor.is_floating_point() else tensor.to(self.saved_dtype)

    @contextmanager
    def collected(self, *, trained: bool) -> Iterator[None]:
        """Collect sharded tensors, so that inside each process may write alone. Enter on every process.

        Of a whole model each process gets some of the tensors; adapters and heads go to the main process.

        Args:
            trained: True for `save_trained`; False for `save`.
        """
        if is_sharded(self.scorer):
            self._collected = {}
            for part in self._trained_parts() if trained else self._saved_parts():
                if self._dealt_out(part, trained=trained):
                    tensors = self._in_saved_dtype(part, trained=trained)
                    self._collected[part] = own_share(tensors, rank=processes.rank(), count=processes.count())
                    self._dealt.add(part)
                    continue
                self._collected[part] = {}
                for name, tensor in self._weights(part):
                    if processes.is_main():
                        self._collected[part][name] = tensor.cpu()
        try:
            yield
        finally:
            self._collected = None
            self._dealt.clear()

    def _dealt_out(self, part: str, *, trained: bool) -> bool:
        """Return True if all processes write a sharded part together."""
        return part in ("model", "trunk")

    def _saved_parts(self) -> list[str]:
        """List the parts that `save` writes."""
        return ["model"]

    def _trained_parts(self) -> list[str]:
        """List the parts that `save_trained` writes."""
        return ["model" if self.adapter is None else "adapter"]

    def _weights(self, part: str) -> Iterator[tuple[str, Tensor]]:
        """Yield names and full tensors of a part. If sharded, every process must iterate over all of them."""
        return adapter_weights(self.adapter) if part == "adapter" and self.adapter else self.named_weights()

    def _written(self, part: str) -> dict[str, Tensor]:
        """Return the same tensors on the main process, from `collected` if it is active."""
        return dict(self._weights(part)) if self._collected is None else self._collected[part]

    def optimizer_state(self) -> dict[str, Any]:
        """Return the optimizer state; of a sharded one all but the tensors, which every process writes itself."""
        return whole_optimizer_state(self.optimizer)

    def save_trained(self, checkpoint: Path) -> None:
        """Write the trained weights: the model under `model`, or only the adapter under `adapter`."""
        if self.adapter is None:
            self._save_master(checkpoint / "model")
        elif processes.is_main():
            save_adapter(self.adapter, self._written("adapter"), checkpoint / "adapter")

    def load_trained(self, checkpoint: Path) -> None:
        """Load the weights that `save_trained` wrote, in place, because an engine may share them."""
        if self.adapter is not None:
            load_adapter(self.adapter, checkpoint / "adapter")
            return
        folder = checkpoint / "model"
        if is_sharded(self.scorer) and (stored := stored_tensors(folder)):
            names = {plain_name(name): held for name, held in self.unwrapped().named_parameters()}
            if names.keys() <= stored.keys():
                fill(names.items(), stored)
                return
        changed = {"path": str(folder), "from_scratch": None, "tokenizer": None}
        held = load_model(self.config.model.model_copy(update=changed), seed=self.config.seed).model
        load_whole_state(self.unwrapped(), held.state_dict())
