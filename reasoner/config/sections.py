"""The sections of a stage's config: every key with its default, range and unit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from reasoner.config.hints import without_cuts
from reasoner.config.mappings import is_mapping
from reasoner.config.pair_losses import pair_traits
from verifiers.suggest import did_you_mean

Options = dict[str, JsonValue]
Paths = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""One path or several."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values are immutable."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


class ScratchConfig(Section):
    """A small Qwen2-architecture model with random weights and a byte-level tokenizer."""

    hidden_size: int = Field(default=128, ge=8)
    """Width of the residual stream."""
    layers: int = Field(default=4, ge=1)
    """Number of transformer blocks."""
    heads: int = Field(default=4, ge=1)
    """Attention heads; they divide hidden_size."""
    kv_heads: int | None = Field(default=None, ge=1)
    """None: the value of heads."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """None: four times hidden_size."""
    max_positions: int = Field(default=1024, ge=16)
    """Longest context, in tokens."""
    tie_embeddings: bool = True
    """True: one matrix for the embedding and the output."""

    @model_validator(mode="after")
    def _heads_fit(self) -> ScratchConfig:
        if self.hidden_size // self.heads < 2 or self.hidden_size // self.heads % 2:
            raise ValueError(
                f"hidden_size // heads must be even, for the rotary embedding; got {self.hidden_size} and {self.heads}"
            )
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"kv_heads must divide heads; got {self.kv_heads} and {self.heads}")
        return self


class LoraConfig(Section):
    """Low-rank adapters (arXiv:2106.09685) through peft."""

    rank: int = Field(default=16, ge=1)
    """Rank of the adapters."""
    alpha: float = Field(default=32.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """For sft only: in reinforcement learning it would make the trainer's log-probabilities differ from the
    engine's."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the layers that get adapters, as peft takes them."""


class ModelSection(Section):
    """The model, its precision and its adapters."""

    path: str | None = None
    """Hub name or folder. None in a later stage: the previous stage's final model."""
    tokenizer: str | None = None
    """None: the model's own."""
    chat_template: str | None = None
    """File with a chat template that replaces the tokenizer's and is saved with the model."""
    from_scratch: ScratchConfig | None = None
    """Shape of a new model with random weights, instead of `path`."""
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    """Type of the trainer's weights. auto: bfloat16 on CUDA, float32 on the CPU."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention of the trainer's forward pass (transformers' attn_implementation)."""
    gradient_checkpointing: bool = False
    """True: activations are computed again in the backward pass; less memory, about a third more time."""
    lora: LoraConfig | None = None
    """Adapters to train instead of all weights; None: all weights."""
    quantization: Literal["nf4"] | None = None
    """nf4: the frozen base under `lora` in 4 bits (QLoRA, arXiv:2305.14314); needs bitsandbytes."""
    resize_embeddings: bool = False
    """Enlarge the embedding if the tokenizer has more tokens; new rows are drawn around the mean of the others."""
    max_context: int | None = Field(default=None, ge=16)
    """Maximum tokens of prompt and completion together; None: the model's own limit."""


class PromptSection(Section):
    """Rendering of a problem into the tokens that the model sees."""

    system: str | None = None
    """System message put before chat prompts."""
    system_in: Literal["system", "user"] = "system"
    """user: a system message is put at the start of the first user message, for templates that accept none."""
    template: str = "{prompt}"
    """Applied to text prompts; must contain {prompt}."""
    chat: Literal["auto", "always", "never"] = "auto"
    """auto: the tokenizer's chat template, if it has one."""
    thinking: bool | None = None
    """Passed to the chat template as enable_thinking, for models that support it."""
    template_options: Options = Field(default_factory=dict[str, JsonValue])
    """Further variables for the chat template."""
    stop: list[str] = Field(default_factory=list[str])
    """Strings that end a completion (and stay in its text), in addition to the end tokens."""
    reply: Literal["auto", "inline", "tool", "user"] = "auto"
    """How replies of an environment are written. inline: as text behind the policy's turn, without a chat template;
    tool, user: as a chat message of that role; auto: the role that the environment and the chat template suggest, or
    inline where there is no chat template."""
    end_tokens: list[str] = Field(default_factory=list[str])
    """The only tokens that end a completion. Demonstrations end with the one with which the chat template ends a turn,
    or, if that is not among them, with the first. Empty: the template's turn end, the tokenizer's eos and the
    generation config's."""

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, value: list[str]) -> list[str]:
        if "" in value:
            raise ValueError("a stop string must not be empty")
        return value

    @field_validator("template")
    @classmethod
    def _holds_prompt(cls, value: str) -> str:
        if "{prompt}" not in value:
            raise ValueError("template must contain {prompt}")
        return value


class VerifierSection(Section):
    """A verifier by name, `module:attribute`, `path.py:attribute` or URL."""

    name: str
    """Name, `module:attribute`, `path.py:attribute` or URL."""
    options: Options = Field(default_factory=dict[str, JsonValue])
    """The verifier's options."""

    @property
    def learned(self) -> bool:
        """True if a model gives the score: a reward model, a judge or a rubric, also as a part of another verifier."""
        return self.name in LEARNED or _names_one(self.options, LEARNED)


LEARNED = frozenset({"reward-model", "judge", "rubric"})
"""Verifiers whose score is a model's: training finds what the model likes, which need not be what it should measure."""


def _names_one(value: JsonValue | Options, names: frozenset[str]) -> bool:
    """Return True if one of the names is the verifier of a part anywhere in a verifier's options."""
    if isinstance(value, list):
        return any(_names_one(one, names) for one in value)
    if not isinstance(value, dict):
        return False
    return any((key == "verifier" and one in names) or _names_one(one, names) for key, one in value.items())


BadRows = Literal["drop", "drop_most", "stop"]
"""Treatment of unusable rows. drop: they are left out, named and counted, and the run stops if they are more than half;
drop_most: left out even then; stop: the run does not start."""


class EnvironmentSection(Section):
    """An environment by name, `module:attribute` or `path.py[:attribute]`: what replies to the policy's turns."""

    name: str
    """Name, `module:attribute` or `path.py[:attribute]`."""
    options: Options = Field(default_factory=dict[str, JsonValue])
    """The environment's options."""


class TaskSection(Section):
    """A task; several tasks make a weighted mixture."""

    name: str
    """Name of the task (`reasoner tasks list`), `module:attribute` or `path.py:attribute`."""
    options: Options = Field(default_factory=dict[str, JsonValue])
    """The task's options (`reasoner tasks show NAME`)."""
    weight: float = Field(default=1.0, gt=0)
    """Share of this task's problems in a step, relative to the others."""
    train_split: str = "train"
    """Split to train on."""
    eval_split: str = "test"
    """Split to evaluate on."""
    verifier: VerifierSection | None = None
    """Replaces the task's own verifier."""
    environment: EnvironmentSection | None = None
    """Replies to the policy's turns (a tool, a game); replaces the task's own environment."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first problems of the training split."""
    problems_file: str | None = None
    """Use only the training problems whose id is in this JSONL file (`reasoner preflight` writes one)."""
    bad_rows: BadRows = "drop"
    """Treatment of rows without a prompt, without a reference answer that the verifier can use, or whose prompt ends
    with its answer."""
    long_prompts: BadRows = "stop"
    """Treatment of prompts that leave no room for rollout.max_tokens (or eval.max_tokens) in the model's context."""


class RolloutSection(Section):
    """Sampling of completions."""

    problems_per_step: int = Field(default=32, ge=1)
    """Problems of a step."""
    group_size: int = Field(default=8, ge=1)
    """Completions of each problem (G)."""
    max_tokens: int = Field(default=512, ge=1)
    """Tokens behind the prompt, an environment's replies included."""
    max_turns: int | None = Field(default=None, ge=1)
    """Turns of the policy with an environment; None: the environment's own number."""
    turn_tokens: int | None = Field(default=None, ge=1)
    """Tokens of one turn of the policy with an environment; None: as many as are left of max_tokens."""
    reply_tokens: int = Field(default=256, ge=8)
    """Tokens of one reply of an environment; a longer one loses its middle, which is marked and counted."""
    temperature: float = Field(default=1.0, ge=0)
    """Above 0."""
    ahead: int = Field(default=0, ge=0)
    """Number of batches that are sampled while the policy learns on an earlier one. 1: the batch of the next step. 0:
    every step waits for its own batch. More than 1 needs during_update=go_on or pin."""
    during_update: Literal["wait", "go_on", "pin"] = "wait"
    """What becomes of batches that are sampled ahead when the policy has new weights. wait: they are finished first, so
    that a batch has one version of the weights. go_on: they go on with the new weights from their next token on, and
    each token is recorded with its version; on vLLM servers. pin: a batch is sampled to its end with the adapter that
    was the newest when it began, beside newer ones; with model.lora on vLLM servers."""
    dynamic_sampling_rounds: int = Field(default=0, ge=0)
    """DAPO (arXiv:2503.14476, section 3.2): number of extra rounds of problems that a step may sample to replace groups
    without signal; 0: groups without signal are only left out of the update."""
    sampling: Literal["epoch", "difficulty"] = "epoch"
    """epoch: every problem once per pass. difficulty: by the estimated chance that a group has signal."""
    shuffle: bool = True
    """False: the problems in the order of the data in every epoch (a curriculum); only with sampling=epoch."""
    difficulty_decay: float = Field(default=0.98, gt=0, le=1)
    """Factor on the evidence of a problem's pass rate for each step of age; kept and saved with either sampling."""
    difficulty_from: str | None = None
    """File of rollouts for initial pass rates: an eval_rollouts.jsonl or rollouts.jsonl."""

    @property
    def goes_on(self) -> bool:
        """True if completions under way go on with new weights."""
        return self.ahead > 0 and self.during_update == "go_on"

    @property
    def pins(self) -> bool:
        """True if each batch under way is sampled with the adapter that it began with."""
        return self.ahead > 0 and self.during_update == "pin"

    @model_validator(mode="after")
    def _one_order(self) -> RolloutSection:
        if not self.shuffle and self.sampling != "epoch":
            raise ValueError(
                f"sampling={self.sampling} chooses the order itself: leave shuffle out, or set sampling=epoch"
            )
        return self

    @field_validator("temperature")
    @classmethod
    def _not_greedy(cls, value: float) -> float:
        if value == 0:
            raise ValueError(
                "temperature must be above 0 in training: greedy samples of a problem are copies of each other, and"
                " give no signal. Leave it at 1; evaluation may be greedy (eval.temperature: 0)"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _whole_distribution(cls, value: object) -> object:
        return without_cuts(value) if is_mapping(value) else value


class AlgorithmSection(Section):
    """The advantage estimator, the loss and the KL control; docs/papers.md maps papers to these names."""

    advantage: str = "grpo"
    """Advantage estimator: its name in docs/papers.md, or `module:attribute`."""
    advantage_options: Options = Field(default_factory=dict[str, JsonValue])
    """The estimator's options."""
    normalize_components: bool = False
    """GDPO (arXiv:2601.05242): normalize each component of a weighted reward within its group before they are added, so
    that its weight and not its spread decides its influence; with advantage reinforce_pp_baseline also over the step,
    as in the paper."""
    loss: str = "clip"
    """Policy loss: its name in docs/papers.md, or `module:attribute`."""
    loss_options: Options = Field(default_factory=dict[str, JsonValue])
    """The loss's options, such as epsilon."""
    aggregation: Literal["token", "sequence", "constant"] = "token"
    """Reduction of token losses to one number: mean over the step's tokens (DAPO), mean of row means (GRPO),
    or sum over rows divided by rows x max_tokens (Dr. GRPO)."""
    proximal: Literal["auto", "trainer", "sampler"] = "auto"
    """Policy that the loss's ratio is taken against. trainer: the policy at the start of the step; `importance`
    corrects the rest, which with rollout.ahead includes the age of the weights. sampler: the engine's own
    log-probabilities, so that the ratio and its clip cover both; `importance` is not used. auto: sampler with
    rollout.ahead and one update a batch, where a ratio against the trainer's policy would be 1 and nothing would be
    clipped; else trainer."""
    importance: str = "truncated"
    """Correction of the difference between engine and trainer; "none" turns it off."""
    importance_options: Options = Field(default_factory=dict[str, JsonValue])
    """Options of `importance`, such as its bound."""
    kl: Literal["k1", "k2", "k3"] = "k3"
    """KL estimator in the loss: k2 or k3 (the gradient of k1 there is 0 in expectation). In the reward it is always
    k1."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL to the reference model; 0: no reference model is loaded, unless there is a kl_budget."""
    kl_in: Literal["loss", "reward"] = "loss"
    """loss: the estimate `kl` is part of the loss. reward: kl_coef * k1 is subtracted from the reward, token by token
    if the estimator reads token rewards (gae, reinforce_pp), otherwise summed over the completion."""
    kl_target: float | None = Field(default=None, gt=0)
    """Target KL in nats per completion; the coefficient is adapted from step to step towards it. None: fixed."""
    kl_horizon: int = Field(default=10_000, ge=1)
    """Completions over which a KL far above the target multiplies the coefficient by about 1.2."""
    kl_budget: float | None = Field(default=None, gt=0)
    """Maximum KL to the reference in nats per completion, measured over the rows of an update. With kl_coef 0 the KL is
    only measured. None: no bound."""
    kl_over_budget: Literal["stop", "rollback"] = "stop"
    """stop: end with the current policy; rollback: end with the newest checkpoint that was within the budget."""
    reference: str | None = None
    """Reference model of the KL; None: the model at the start of the stage."""
    entropy_coef: float = Field(default=0.0, ge=0)
    """Coefficient of the entropy bonus in the loss; 0: none."""
    overlong_penalty_tokens: int = Field(default=0, ge=0)
    """DAPO's soft overlong penalty applies to this many last tokens before max_tokens; 0: off."""
    mask_truncated: bool = False
    """DAPO's overlong filtering (arXiv:2503.14476, section 3.4): the tokens of truncated completions are left out of
    the loss. Their rewards still count in their group's baseline, and they count as rows if `aggregation` divides by
    rows."""

    @property
    def needs_reference(self) -> bool:
        """True if the KL to a reference model is measured: for a penalty, or for a budget."""
        return self.kl_coef > 0 or self.kl_budget is not None


class OptimSection(Section):
    """AdamW and its learning-rate schedule."""

    name: Literal["adamw", "adamw_8bit", "adamw_offload"] = "adamw"
    """adamw: 8 bytes of state per parameter. adamw_8bit: 2 bytes (arXiv:2110.02861). adamw_offload: 8 bytes in memory
    shared by GPU and host, moved to the host when the GPU is full (paged optimizer, arXiv:2305.14314, section 3; on a
    CPU there is no difference). The latter two need bitsandbytes."""
    lr: float = Field(default=1e-6, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Schedule to the end of the last step. Steps without an update count too."""
    warmup_steps: int = Field(default=0, ge=0)
    """Number of first training steps in which the rate rises to lr."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """Adam's epsilon."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this norm."""
    updates_per_step: int = Field(default=1, ge=1)
    """Parts of each pass over a batch of rollouts; there are inner_epochs passes, and one optimizer step per part."""
    inner_epochs: int = Field(default=1, ge=1)
    """Passes over the rollouts of a step."""
    stop_kl: float | None = Field(default=None, gt=0)
    """Nats per token: after an update with a larger approximate KL to the sampling policy, the batch gets no further
    update."""

    @field_validator("betas")
    @classmethod
    def _averages(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"betas must be at least 0 and below 1; got {list(value)}")
        return value


class ValueSection(Section):
    """The value model of PPO: it predicts, token by token, the reward still expected for a completion."""

    trunk: Literal["separate", "shared"] = "separate"
    """separate: its own trunk (with model.lora: its own adapter on the policy's base). shared: a head on the policy's
    trunk, with one forward pass for both."""
    init: str | None = None
    """Model or reward-model folder from which a separate trunk starts; None: the policy's start. A reward model also
    provides its head."""
    coef: float = Field(default=0.5, gt=0)
    """Weight of the value loss relative to the policy loss."""
    clip_range: float | None = Field(default=0.2, gt=0)
    """Largest unclipped change of a value within one step, in units of the reward; None: no clipping."""
    lr: float | None = Field(default=None, gt=0)
    """Learning rate of the value model's own parameters; None: optim.lr."""
    warmup_steps: int = Field(default=0, ge=0)
    """Number of first steps in which only the value model is trained."""


class TeacherSection(Section):
    """The teacher of distillation: a model in this process, or one behind vLLM servers. Its tokenizer is the policy's.

    It reads the policy's own prompts, with the policy's chat template, at rollout.temperature.
    """

    path: str | None = None
    """Folder or hub name of a model that is loaded beside the policy."""
    urls: Paths = Field(default_factory=list[str])
    """vLLM servers that have the teacher, http://HOST:PORT (vLLM's own, or `python -m reasoner.engine.serve`); only for
    advantages, which need the log-probability of each token alone."""
    key_variable: str = "REASONER_ENGINE_KEY"
    """Environment variable with the key of the servers."""
    ca_file: str | None = None
    """Certificates that sign the servers', for https; None: those of this machine."""

    @field_validator("urls")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        for url in value:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"urls must be given as http://HOST:PORT; got {url!r}")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> TeacherSection:
        if self.path and self.urls:
            raise ValueError("teacher must have either path or urls, not both")
        return self

    @property
    def named(self) -> bool:
        """True if there is a teacher."""
        return bool(self.path or self.urls)


class GkdSection(Section):
    """Generalized knowledge distillation (arXiv:2306.13649) on the demonstrations of `sft`, and on own completions."""

    beta: float = Field(default=0.5, ge=0, le=1)
    """Generalized Jensen-Shannon divergence of teacher P and student Q: beta KL(P || M) + (1 - beta) KL(Q || M) with
    M = beta P + (1 - beta) Q. 0: forward KL(P || Q); 1: reverse KL(Q || P), as in TRL."""
    lmbda: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps in which the policy itself completes the prompts of the step's rows (lambda in the paper, and
    TRL's name). 0: the given completions only, without an engine."""


class BatchSection(Section):
    """Arrangement of rows in forward passes; none of it changes the gradient."""

    micro_tokens: int | None = Field(default=None, ge=1)
    """Tokens of prompt and completion in one forward pass; None: 8192, or 2048 on a CPU, whose caches are smaller."""
    layout: Literal["auto", "packed", "padded"] = "auto"
    """padded: rows of similar length side by side. packed: rows end to end in packs. auto: packed with flash attention;
    with sdpa, if it saves work, all rows end to end without padding, where a prompt shared by several rows appears once
    and only attention sees the rows side by side (not in layers with a sliding window); otherwise padded."""
    pack_tokens: int = Field(default=512, ge=1)
    """Longest pack if a pack needs a block mask (whose size is quadratic in its length)."""
    logit_megabytes: int | None = Field(default=None, ge=1)
    """Memory for the logits computed at once, which are never all of them. None: 256, or 64 on a CPU."""

    def tokens_per_pass(self, device: str) -> int:
        """Return the token budget of a forward pass on a kind of device ("cpu", "cuda")."""
        return self.micro_tokens or (2048 if device == "cpu" else 8192)

    def logit_bytes(self, device: str) -> int:
        """Return the maximum bytes of logits computed at once on a kind of device ("cpu", "cuda")."""
        return (self.logit_megabytes or (64 if device == "cpu" else 256)) << 20


class EngineSection(Section):
    """The engine that samples completions."""

    name: str = "vllm"
    """hf (the trainer samples itself), vllm (in the same process), vllm-server, or `module:attribute`."""
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    """auto: the type of the trainer's weights."""
    options: Options = Field(default_factory=dict[str, JsonValue])
    """The engine's options (docs/scale.md)."""
    sync_check: bool = True
    """Compare the log-probabilities of engine and trainer on a fixed text after each weight sync."""


class GradingSection(Section):
    """Limits of the grading pool."""

    workers: int = Field(default=1, ge=0)
    """Grading processes on this machine. With `nodes` or `cluster.graders` 0 is possible: one that grades only what no
    node does."""
    nodes: list[str] = Field(default_factory=list[str])
    """Grading services on other machines, http://HOST:PORT of `reasoner verifiers serve`, which grade beside the
    workers here. Their token is in REASONER_VERIFIER_TOKEN."""
    memory_megabytes: int = Field(default=1024, ge=64)
    """Resident memory of a worker while it grades; a worker above it is killed."""
    wall_seconds: float | None = Field(default=None, gt=0)
    """Time limit per row; None: each verifier's own limit."""
    portions: int = Field(default=1, ge=1)
    """Number of portions into which a step's groups are divided. The update begins on the first portion while the
    others are being graded; 1: when all are graded. More portions hide slow grading (programs, judges) behind the
    update; the gradient is the same."""
    max_ungraded_share: float = Field(default=0.2, ge=0, le=1)
    """Stop if a larger share of a step's rollouts could not be graded."""


class EvalSection(Section):
    """Evaluation on held-out problems during training."""

    every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0: only before and after training."""
    problems: int = Field(default=256, ge=0)
    """Number of problems, from the start of the evaluation split; 0: no evaluation."""
    samples: int = Field(default=1, ge=1)
    """Completions of each problem."""
    temperature: float = Field(default=1.0, ge=0)
    """0: greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus sampling; 1: off."""
    max_tokens: int | None = Field(default=None, ge=1)
    """None: rollout.max_tokens."""
    metric: str | None = None
    """Metric that decides the best checkpoint; None: avg@ of all samples. With several tasks it is that over all
    problems; TASK/METRIC is that of one task."""
    overlap: Literal["warn", "error", "off"] = "warn"
    """If an evaluation problem is in the training data (by n-grams): warn, stop, or (off) do not check."""

    @property
    def deciding(self) -> str:
        """The metric that decides the best checkpoint."""
        return self.metric or f"avg@{self.samples}"


class CheckpointSection(Section):
    """Interval of checkpoints, and how many are kept."""

    every: int = Field(default=25, ge=1)
    """Steps between checkpoints."""
    keep: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept, besides the best."""


SplitName = Literal["train", "test"]
DEMONSTRATION_COLUMNS = ("messages", "prompt", "completion")
"""Columns of a demonstration row."""


class SftSection(Section):
    """Supervised fine-tuning on demonstrations, of the tasks or of `data`."""

    data: Paths = Field(default_factory=list[str])
    """Files, folders, patterns or hub names of demonstrations in any format of docs/data.md; empty: those of the
    tasks."""
    test: Paths = Field(default_factory=list[str])
    """Rows for the evaluation loss. Empty: `held_out` rows of the test split of `data`; without one, of its rows, split
    by prompt; or of the tasks' evaluation split."""
    format: str | None = None
    """Layout of the rows, by a name of docs/data.md; None: recognised automatically, unless `columns` are named."""
    columns: dict[str, str] = Field(default_factory=dict[str, str])
    """Column here -> column in the data (dotted if nested). Columns here: messages, or prompt and completion."""
    config: str | None = None
    """Configuration name, for a data set that has several."""
    split_names: dict[SplitName, str] = Field(default_factory=dict[SplitName, str])
    """Split here -> split in the data, for example {train: "train_sft[:10%]"}."""
    held_out: int = Field(default=0, ge=0)
    """Number of rows for the evaluation loss; 0: none. All rows of one prompt are on the same side, so it may be
    more."""
    patience: int | None = Field(default=None, ge=1)
    """End after this many evaluations (eval.every) without a better evaluation loss; needs held_out."""
    bad_rows: BadRows = "drop"
    """Treatment of rows that cannot be used. drop: they are left out, named and counted, and the run stops if they are
    more than half; drop_most: left out even then; stop: the run does not start."""
    shuffle: bool = True
    """False: the rows in the order of the data in every epoch."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens of prompt and completion together; None: the model's context. Longer rows are bad rows."""
    demonstrations: int | None = Field(default=None, ge=1)
    """Use only this many first demonstrations; None: all."""
    rows_per_step: int = Field(default=32, ge=1)
    """Demonstrations of a step."""
    until_accuracy: float | None = Field(default=None, gt=0, le=1)
    """End as soon as this share of held-out training problems is solved (by sampling)."""
    check_every: int = Field(default=20, ge=1)
    """Steps between those checks."""
    check_problems: int = Field(default=128, ge=1)
    """Problems on which the accuracy of `until_accuracy` is measured."""

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _known(value, DEMONSTRATION_COLUMNS)


def _known(columns: dict[str, str], known: tuple[str, ...]) -> dict[str, str]:
    for name in columns:
        if name not in known:
            raise ValueError(f"no column {name!r}; there are {', '.join(known)}.{did_you_mean(name, known)}")
    return columns


PREFERENCE_COLUMNS = (
    "id",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "first",
    "second",
    "label",
    "probability",
    "margin",
    "category",
)
"""Columns of a preference row."""


class PreferenceSection(Section):
    """Pairs of completions with a label, or (method kto) single ones; reasoner/data/preferences.py and unpaired.py list
    the row shapes.
    """

    train: Paths = Field(default_factory=list[str])
    """Files, folders or hub names; `stage:NAME` is the file written by an earlier pairs stage."""
    test: Paths = Field(default_factory=list[str])
    """Pairs for evaluation. Empty: the test split of `train`; without one, held_out_share of its prompts, by digest."""
    held_out_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts held out; 0: only the pairs of `test` are held out."""
    columns: dict[str, str] = Field(default_factory=dict[str, str])
    """Column here -> column in the data (dotted if nested). Columns here: id, prompt, chosen, rejected, first, second,
    label, probability, margin, category; for method kto id, prompt, completion, label."""
    format: str | None = None
    """Layout of the rows, by a name of docs/data.md; None: recognised automatically, unless `columns` are named."""
    config: str | None = None
    """Configuration name, for a data set that has several."""
    split_names: dict[SplitName, str] = Field(default_factory=dict[SplitName, str])
    """Split here -> split in the data, for example {train: train_prefs, test: test_prefs}."""
    labels: dict[Literal["first", "second", "tie"], list[str]] = Field(
        default_factory=lambda: {
            "first": ["first", "a", "A>B"],
            "second": ["second", "b", "B>A"],
            "tie": ["tie", "A=B"],
        }
    )
    """Values of the label column."""
    ties: Literal["half", "drop"] = "half"
    """half: a tie pulls both rewards together (target 0.5); drop: ties are left out."""
    targets: Literal["label", "probability"] = "label"
    """probability: the target is the row's own probability that its first completion is better, if the row has one
    (arXiv:2212.08073, section 4.1)."""
    bad_rows: BadRows = "drop"
    """Treatment of rows that cannot be used. drop: they are left out, named and counted, and the run stops if they are
    more than half; drop_most: left out even then; stop: the run does not start."""
    shuffle: bool = True
    """False: the pairs in the order of the data in every epoch."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Maximum tokens of prompt and completion together; None: the model's context. Longer rows are bad rows."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first pairs of the training split."""

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _known(value, PREFERENCE_COLUMNS)


class RewardModelSection(Section):
    """A reward model trained on preferences (Bradley-Terry)."""

    pairs_per_step: int = Field(default=32, ge=1)
    """Pairs of a step."""
    heads: int = Field(default=1, ge=1)
    """Number of scalar heads on one trunk, each trained on its own bootstrap sample of the pairs; their spread shows
    where the model is uncertain."""
    centre_coef: float = Field(default=0.01, ge=0)
    """Weight of the squared sum of a pair's rewards, which centres them on zero."""
    patience: int | None = Field(default=None, ge=1)
    """End after this many evaluations (eval.every) without a better held-out loss; None: run all steps."""
    probe_pairs: int = Field(default=64, ge=0)
    """Number of held-out pairs on which the last evaluation tries changes that should not matter (flattery, padding, a
    user's wrong opinion, ...; `verifiers/kit/probes.py`). Each is scored about 20 times. 0: off."""


OWN = "own"
"""Scorer name for each task's own verifier."""


class WatchSection(Section):
    """Monitoring for reward hacking, in addition to lengths, repetition and openings."""

    scorer: VerifierSection | None = None
    """A second judge that training does not use: `own` for each task's own verifier (if `reward` replaces it in
    training), another reward model, or a rubric."""
    rows: int = Field(default=64, ge=1)
    """Number of rollouts per step that the scorer grades."""
    kl_rows: int = Field(default=32, ge=0)
    """Number of rows per step on which the KL to the reference is measured (`kl/ref`) if the reward is learned and
    neither `kl_coef` nor `kl_budget` measures it on all. Without LoRA this loads the reference. 0: not measured."""


class PairsSection(Section):
    """New preference pairs sampled from the current policy: samples 0 and 1 of a group, then 2 and 3, ..."""

    label: Literal["verifier", "person"] = "verifier"
    """verifier: labelled by the reward of `reward` or of the task's own verifier; person: labelled with `reasoner
    label`."""


class ConstitutionalSection(Section):
    """Critique, revision and comparison under principles.

    Templates may contain {prompt} and {principle}; critique and revision also {answer}, the revision also {critique},
    and the comparison {first} and {second}.
    """

    principles: str = "general"
    """YAML file of principles, or a shipped one: general, topics."""
    rounds: int = Field(default=1, ge=1)
    """Rounds of critique and revision."""
    critique: str = (
        "Here is a request and an answer to it.\n\nRequest: {prompt}\n\nAnswer: {answer}\n\nPrinciple: {principle}\n\n"
        "In two or three sentences: where does the answer fall short of the principle?"
    )
    """Template of the request for a critique."""
    revision: str = (
        "Here is a request, an answer to it, and a critique of the answer.\n\nRequest: {prompt}\n\nAnswer: {answer}\n\n"
        "Critique: {critique}\n\nPrinciple: {principle}\n\nWrite the answer anew, so that it follows the principle and"
        " the critique no longer applies. Give the new answer alone."
    )
    """Template of the request for a revision."""
    comparison: str = (
        "Here is a request and two answers to it.\n\nRequest: {prompt}\n\nAnswer A: {first}\n\nAnswer B: {second}\n\n"
        "Principle: {principle}\n\nWhich answer follows the principle better? Say A or B and nothing else."
    )
    """Template of the request for a comparison."""
    letters: tuple[str, str] = ("A", "B")
    """The model's answers that mean the first and the second completion."""
    judge: VerifierSection | None = None
    """Judge of the comparisons: `judge` or `judge-model` with its options; None: the model itself, with
    `comparison`."""
    margin: float = Field(default=0.0, ge=0, lt=0.5)
    """A mean probability closer to one half than this is a tie."""
    labels: Literal["ai", "shuffled"] = "ai"
    """shuffled: every label is random, a control from which nothing can be learned."""


class DpoSection(Section):
    """Direct preference optimization."""

    pairs_per_step: int = Field(default=32, ge=1)
    """Pairs of a step."""
    loss: str = "sigmoid"
    """sigmoid, sigmoid_norm, ipo, robust, hinge, simpo, orpo, cpo, or `module:attribute`."""
    loss_options: Options = Field(default_factory=dict[str, JsonValue])
    """The loss's options, such as beta."""
    beta: float = Field(default=0.1, gt=0)
    """Default: 0.1; 5 for sigmoid_norm and 2 for simpo, which compare log-probabilities per token."""
    reference: Literal["start", "none"] | None = None
    """start: log-ratios to the stage's start model; none: the policy's log-probabilities alone, and no reference is
    computed or kept. None: as `loss` is defined (simpo, orpo and cpo have none); to be set for losses of your own."""
    sft_coef: float = Field(default=0.0, ge=0)
    """Weight of the mean negative log-likelihood of the chosen completions' tokens (orpo and cpo have one already)."""

    @model_validator(mode="before")
    @classmethod
    def _beta_of_the_loss(cls, value: object) -> object:
        if not is_mapping(value) or "beta" in value:
            return value
        return {**value, "beta": pair_traits(str(value.get("loss", "sigmoid"))).beta}

    @model_validator(mode="after")
    def _reference_of_the_loss(self) -> DpoSection:
        if self.reference is None or ":" in self.loss:
            return self
        if self.reference == "start" and not pair_traits(self.loss).reference:
            raise ValueError(
                f"dpo.reference must be none for dpo.loss {self.loss}, which compares the policy's own"
                " log-probabilities; got start. Leave it out"
            )
        if self.reference == "none" and pair_traits(self.loss).reference:
            raise ValueError(
                f"dpo.reference must be start for dpo.loss {self.loss}, which compares with the reference; got none."
                " Leave it out, or use simpo, orpo or cpo, which have no reference"
            )
        return self

    @property
    def has_reference(self) -> bool:
        """True if the loss compares with the stage's start model."""
        return pair_traits(self.loss).reference if self.reference is None else self.reference == "start"


class KtoSection(Section):
    """Kahneman-Tversky optimization: single completions that are desirable or not."""

    rows_per_step: int = Field(default=64, ge=2)
    """Completions of a step."""
    beta: float = Field(default=0.1, gt=0)
    """Weight of the distance to the reference."""
    desirable_weight: float = Field(default=1.0, gt=0)
    """Weight of the desirable rows; raise it if they are the fewer ones."""
    undesirable_weight: float = Field(default=1.0, gt=0)
    """Weight of undesirable completions in the loss."""
    split_pairs: bool = False
    """True: `preferences` are pairs, each of which becomes a desirable and an undesirable row; ties are left out."""


TrackerName = Literal["wandb", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab"]


class ProcessesSection(Section):
    """Several processes of one run, as `accelerate launch` or torchrun starts them."""

    wait_seconds: int = Field(default=3600, ge=10)
    """Longest wait of one process for another, in seconds: for the slowest completion of a step and for its verdict. A
    process that dies is noticed at once; this is how long a machine that vanishes can keep the others waiting."""


class ClusterSection(Section):
    """Parts of a run that `reasoner train` starts, watches and starts again: trainers, vLLM servers, grading nodes."""

    trainers: int = Field(default=0, ge=0)
    """Trainer processes; 0: one, if there are samplers or graders."""
    samplers: int = Field(default=0, ge=0)
    """vLLM servers (`engine.name: vllm-server`) for all stages that sample."""
    graders: int = Field(default=0, ge=0)
    """Grading nodes (`reasoner verifiers serve`), beside `grading.workers` of the trainers."""
    trainer_machines: int = Field(default=1, ge=1)
    """Machines over which the trainer processes are divided evenly."""
    sampler_gpus: int = Field(default=1, ge=0)
    """GPUs of each sampler, where there are any; above 1 set vLLM's --tensor-parallel-size in `sampler_arguments`."""
    sampler_arguments: list[str] = Field(default_factory=list[str])
    """Further arguments of vLLM's server."""
    grader_workers: int | None = Field(default=None, ge=1)
    """Grading processes of each grader; None: as `reasoner verifiers serve` has by default."""
    accelerate: str | None = None
    """Config file of `accelerate launch`, e.g. configs/accelerate/fsdp2.yaml; None: torchrun starts the trainers."""
    address: str | None = None
    """Ray cluster that places the parts, "auto" or HOST:PORT; None: all run on this machine, as child processes."""
    restarts: int = Field(default=3, ge=0)
    """Restarts of a part without success in between (a step of the trainers, an answer of a server) before the run
    ends."""
    wait_seconds: float = Field(default=600.0, gt=0)
    """Time in which a server must answer after its start."""
    file: str | None = None
    """A cluster.json with the addresses of samplers and graders that are there already. Then nothing is started."""

    @model_validator(mode="after")
    def _trainers_divide(self) -> ClusterSection:
        if self.starts and max(1, self.trainers) % self.trainer_machines:
            raise ValueError(
                f"cluster.trainers must be a multiple of cluster.trainer_machines; got {self.trainers} and"
                f" {self.trainer_machines}."
            )
        return self

    @property
    def starts(self) -> bool:
        """True if `reasoner train` starts the parts, instead of being one of them."""
        return self.file is None and self.trainers + self.samplers + self.graders > 0


class LoggingSection(Section):
    """Trackers that receive the metrics, in addition to metrics.jsonl."""

    tensorboard: bool = True
    """True: metrics are also written to `tensorboard/` in the run folder."""
    trackers: list[TrackerName] = Field(default_factory=list[TrackerName])
    """Trackers supported by accelerate, by the names of their packages."""
    project: str = "reasoner"
    """Project of the trackers."""
    run: str | None = None
    """Name of the run in the trackers; None: `name`, with the folder of the stage where a run has several."""
    group: str | None = None
    """Group of the run, in trackers that have groups (wandb, trackio)."""
    tags: list[str] = Field(default_factory=list[str])
    """Tags of the run, in trackers that have tags (wandb)."""
    samples: int = Field(default=8, ge=0)
    """Completions of a step and of an evaluation that wandb and trackio get as a table; 0: none leave this machine."""
    samples_every: int = Field(default=10, ge=1)
    """Steps between two such tables."""
