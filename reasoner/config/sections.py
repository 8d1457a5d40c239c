"""The sections of a stage's config: every key with its default, its range and its unit."""

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
from verifiers.suggest import did_you_mean

Options = dict[str, JsonValue]
Paths = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""One path or several."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


class ScratchConfig(Section):
    """A small Qwen2-architecture model with random weights and a byte-level tokenizer."""

    hidden_size: int = Field(default=128, ge=8)
    layers: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int | None = Field(default=None, ge=1)
    """None: as many as heads."""
    intermediate_size: int | None = Field(default=None, ge=1)
    """None: four times hidden_size."""
    max_positions: int = Field(default=1024, ge=16)
    tie_embeddings: bool = True

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
    alpha: float = Field(default=32.0, gt=0)
    """Adapters are scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """sft alone: in reinforcement learning it would tear the trainer's log-probabilities from the engine's."""
    targets: Literal["all-linear"] | list[str] = "all-linear"


class ModelSection(Section):
    """Which model, and how it is held."""

    path: str | None = None
    """Hub name or folder. None in a later stage: the previous stage's final model."""
    tokenizer: str | None = None
    """None: the model's own."""
    chat_template: str | None = None
    """File of a chat template that takes the place of the tokenizer's, and is saved with the model."""
    from_scratch: ScratchConfig | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    """Of the trainer's weights. auto: bfloat16 on CUDA, float32 on the CPU."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    gradient_checkpointing: bool = False
    lora: LoraConfig | None = None
    quantization: Literal["nf4"] | None = None
    """nf4: the frozen base under `lora` in 4 bits (QLoRA, arXiv:2305.14314); needs bitsandbytes."""
    resize_embeddings: bool = False
    """Grow the embedding where the tokenizer has more tokens; new rows are drawn around the mean of the others."""
    max_context: int | None = Field(default=None, ge=16)
    """Tokens of prompt and completion together; None: the model's own limit."""


class PromptSection(Section):
    """From a problem to the tokens that the model sees."""

    system: str | None = None
    """System message put before chat prompts."""
    system_in: Literal["system", "user"] = "system"
    """user: system messages stand in front of the first user message, for templates that take none of their own."""
    template: str = "{prompt}"
    """Applied to text prompts; must contain {prompt}."""
    chat: Literal["auto", "always", "never"] = "auto"
    """auto: the tokenizer's chat template where it has one."""
    thinking: bool | None = None
    """Passed to the chat template as enable_thinking, for models that have the switch."""
    template_options: Options = Field(default_factory=dict[str, JsonValue])
    """Further variables for the chat template."""
    stop: list[str] = Field(default_factory=list[str])
    """Strings that end a completion (kept in its text), beside the end tokens."""
    reply: Literal["auto", "inline", "tool", "user"] = "auto"
    """How replies of an environment are written. inline: as text behind the policy's turn, without a chat template;
    tool, user: as a chat message of that role; auto: the role that the environment and the chat template suggest, or
    inline where there is no chat template."""
    end_tokens: list[str] = Field(default_factory=list[str])
    """Tokens that end a completion, these alone; demonstrations end with the one that the chat template ends turns
    with, otherwise with the first. Empty: the template's turn end, the tokenizer's eos and the generation config's."""

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
    options: Options = Field(default_factory=dict[str, JsonValue])


BadRows = Literal["drop", "drop_most", "stop"]
"""What becomes of rows of data that cannot be used: left out, named and counted, unless they are more than half;
drop_most: even then; stop: the run does not start."""


class EnvironmentSection(Section):
    """An environment by name, `module:attribute` or `path.py[:attribute]`: what replies to the policy's turns."""

    name: str
    options: Options = Field(default_factory=dict[str, JsonValue])


class TaskSection(Section):
    """One task; several make a weighted mixture."""

    name: str
    options: Options = Field(default_factory=dict[str, JsonValue])
    weight: float = Field(default=1.0, gt=0)
    """Share of this task's problems in a step, relative to the others."""
    train_split: str = "train"
    eval_split: str = "test"
    verifier: VerifierSection | None = None
    """Replaces the task's own verifier."""
    environment: EnvironmentSection | None = None
    """Replies to the policy's turns (a tool, a game); replaces the task's own environment."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first problems of the training split."""
    problems_file: str | None = None
    """Use only the training problems whose id stands in this JSONL file (`reasoner preflight` writes one)."""
    bad_rows: BadRows = "drop"
    """Rows without a prompt or a reference answer that its verifier can use, and prompts that end in their answer."""
    long_prompts: BadRows = "stop"
    """Prompts that leave no room for rollout.max_tokens (or eval.max_tokens) in the model's context."""


class RolloutSection(Section):
    """How completions are sampled."""

    problems_per_step: int = Field(default=32, ge=1)
    group_size: int = Field(default=8, ge=1)
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
    dynamic_sampling_rounds: int = Field(default=0, ge=0)
    """DAPO (arXiv:2503.14476, section 3.2): extra rounds of problems sampled in a step to replace groups
    without signal; 0: groups without signal are simply left out of the update."""
    sampling: Literal["epoch", "difficulty"] = "epoch"
    """epoch: every problem once a pass. difficulty: by the chance, as last seen, that a group has signal."""
    shuffle: bool = True
    """False: the problems in the order of the data, in every epoch (a curriculum); only with sampling=epoch."""
    difficulty_decay: float = Field(default=0.98, gt=0, le=1)
    """What evidence on a problem's pass rate is worth a step later; kept and saved with either sampling."""
    difficulty_from: str | None = None
    """Rollouts to begin the pass rates with: an eval_rollouts.jsonl or rollouts.jsonl."""

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
                " teach nothing. Leave it at 1; evaluation may be greedy (eval.temperature: 0)"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _whole_distribution(cls, value: object) -> object:
        return without_cuts(value) if is_mapping(value) else value


class AlgorithmSection(Section):
    """Which advantage and which loss; docs/papers.md maps papers to these names."""

    advantage: str = "grpo"
    advantage_options: Options = Field(default_factory=dict[str, JsonValue])
    normalize_components: bool = False
    """GDPO (arXiv:2601.05242): each component of a weighted reward is normalized within its group before they are
    added, so that it counts by its weight and not by its spread; with advantage reinforce_pp_baseline also over the
    step, as in the paper."""
    loss: str = "clip"
    loss_options: Options = Field(default_factory=dict[str, JsonValue])
    aggregation: Literal["token", "sequence", "constant"] = "token"
    """How token losses become one number: mean over the step's tokens (DAPO), mean of row means (GRPO),
    or sum over rows divided by rows x max_tokens (Dr. GRPO)."""
    importance: str = "truncated"
    """Correction of the engine-trainer gap; "none" switches it off."""
    importance_options: Options = Field(default_factory=dict[str, JsonValue])
    kl: Literal["k1", "k2", "k3"] = "k3"
    """Estimate in the loss: k2 or k3 (the gradient of k1 there is 0 in expectation); in the reward it is k1."""
    kl_coef: float = Field(default=0.0, ge=0)
    """Weight of the KL to the reference model; 0: no reference model is loaded, but for a kl_budget."""
    kl_in: Literal["loss", "reward"] = "loss"
    """loss: the estimate `kl` is part of the loss; reward: kl_coef * k1 is taken off the reward, token by token where
    the estimator reads token rewards (gae, reinforce_pp), otherwise summed over the completion."""
    kl_target: float | None = Field(default=None, gt=0)
    """Nats a completion: the coefficient is adapted from step to step until the KL is near it; None: fixed."""
    kl_horizon: int = Field(default=10_000, ge=1)
    """Completions in which a KL far above the target multiplies the coefficient by about 1.2."""
    kl_budget: float | None = Field(default=None, gt=0)
    """Nats a completion that the policy may move away from the reference, measured over the rows of an update; also
    with kl_coef 0, where the KL is measured and nothing else. None: no bound."""
    kl_over_budget: Literal["stop", "rollback"] = "stop"
    """stop: end with the policy as it is; rollback: with the newest checkpoint that was within the budget."""
    reference: str | None = None
    """Model that the KL is measured to; None: the one that the stage begins with."""
    entropy_coef: float = Field(default=0.0, ge=0)
    overlong_penalty_tokens: int = Field(default=0, ge=0)
    """DAPO's soft overlong penalty over the last so many tokens before max_tokens; 0: off."""
    mask_truncated: bool = False
    """DAPO's overlong filtering (arXiv:2503.14476, section 3.4): the tokens of truncated completions are left out of
    the loss; their rewards still count in the baseline of their group, and as rows where `aggregation` divides by
    rows."""

    @property
    def needs_reference(self) -> bool:
        """True if the KL to a reference model is measured: for a penalty, or for a budget."""
        return self.kl_coef > 0 or self.kl_budget is not None


class OptimSection(Section):
    """AdamW and its schedule."""

    name: Literal["adamw", "adamw_8bit", "adamw_offload"] = "adamw"
    """adamw: state of 8 bytes a parameter. adamw_8bit: of 2 (arXiv:2110.02861). adamw_offload: of 8, in memory that GPU
    and host share, from which it moves to the host where the GPU is full (paged optimizer, arXiv:2305.14314, section 3;
    on a CPU it is where it always is). The latter two need bitsandbytes."""
    lr: float = Field(default=1e-6, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """To the end of the last step. Steps count with an update or without one."""
    warmup_steps: int = Field(default=0, ge=0)
    """First training steps, in which the rate rises to lr."""
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    updates_per_step: int = Field(default=1, ge=1)
    """Optimizer steps on one batch of rollouts: inner_epochs passes, each split into this many parts."""
    inner_epochs: int = Field(default=1, ge=1)
    stop_kl: float | None = Field(default=None, gt=0)
    """Nats a token: no further update on a batch once one saw an approximate KL to the sampling policy above this."""

    @field_validator("betas")
    @classmethod
    def _averages(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"betas must be at least 0 and below 1; got {list(value)}")
        return value


class ValueSection(Section):
    """The value model of PPO: what a completion is still expected to earn, token by token."""

    trunk: Literal["separate", "shared"] = "separate"
    """separate: a trunk of its own (with model.lora: an adapter of its own on the policy's base); shared: a head on the
    policy's trunk, one forward pass for both."""
    init: str | None = None
    """Model or reward-model folder that a separate trunk starts from; None: the policy's start. A reward model brings
    its head as well."""
    coef: float = Field(default=0.5, gt=0)
    """Weight of the value loss beside the policy loss."""
    clip_range: float | None = Field(default=0.2, gt=0)
    """In units of the reward: values may move so far in one step before their loss is clipped; None: unclipped."""
    lr: float | None = Field(default=None, gt=0)
    """Of the value's own parameters; None: optim.lr."""
    warmup_steps: int = Field(default=0, ge=0)
    """First steps in which the value alone is trained."""


class BatchSection(Section):
    """How rows travel through the model; none of it changes the gradient."""

    micro_tokens: int | None = Field(default=None, ge=1)
    """Tokens of prompt and completion in one forward pass; None: 8192, and 2048 on a CPU, whose caches hold no more."""
    layout: Literal["auto", "packed", "padded"] = "auto"
    """auto: packed for flash attention. Otherwise, where that saves work and attention is sdpa, rows lie in one line
    without padding, a prompt that several of them share once, and only attention sees them side by side (not in layers
    that see only a window); padded: rows of like length side by side."""
    pack_tokens: int = Field(default=512, ge=1)
    """Longest pack where a pack needs a block mask (quadratic in its length)."""
    logit_megabytes: int | None = Field(default=None, ge=1)
    """For the logits that are held at once; never are all of them. None: 256, and 64 on a CPU."""

    def tokens_per_pass(self, device: str) -> int:
        """The token budget of a forward pass on a kind of device ("cpu", "cuda")."""
        return self.micro_tokens or (2048 if device == "cpu" else 8192)

    def logit_bytes(self, device: str) -> int:
        """The bound on logits held at once on a kind of device."""
        return (self.logit_megabytes or (64 if device == "cpu" else 256)) << 20


class EngineSection(Section):
    """What samples."""

    name: str = "vllm"
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    """auto: the trainer's."""
    options: Options = Field(default_factory=dict[str, JsonValue])
    sync_check: bool = True
    """Score a fixed probe on both sides after each weight sync."""


class GradingSection(Section):
    """Limits of the grading pool."""

    workers: int = Field(default=1, ge=1)
    memory_megabytes: int = Field(default=1024, ge=64)
    wall_seconds: float | None = Field(default=None, gt=0)
    """None: each verifier's own limit."""
    portions: int = Field(default=1, ge=1)
    """The update begins on the first of so many portions of a step's groups while the others are still being graded;
    1: once all are. More of them hide slow grading (programs, judges) behind the update; the gradient is the same."""
    max_ungraded_share: float = Field(default=0.2, ge=0, le=1)
    """Stop when more of a step's rollouts than this could not be graded."""


class EvalSection(Section):
    """Held-out evaluation during training."""

    every: int = Field(default=0, ge=0)
    """Steps between evaluations; 0: only before and after."""
    problems: int = Field(default=256, ge=0)
    """First so many of the evaluation split; 0: no evaluation at all."""
    samples: int = Field(default=1, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    """None: rollout.max_tokens."""
    metric: str | None = None
    """Which metric decides the best checkpoint; None: avg@ of all samples. With several tasks over the problems of all,
    or of one as TASK/METRIC."""
    overlap: Literal["warn", "error", "off"] = "warn"
    """Where an evaluation problem stands in the training data (n-grams): say so, refuse, or do not look."""

    @property
    def deciding(self) -> str:
        """The metric that decides the best checkpoint."""
        return self.metric or f"avg@{self.samples}"


class CheckpointSection(Section):
    """How often, and how many are kept."""

    every: int = Field(default=25, ge=1)
    keep: int = Field(default=2, ge=1)


SplitName = Literal["train", "test"]
DEMONSTRATION_COLUMNS = ("messages", "prompt", "completion")
"""What a row of demonstrations may hold."""


class SftSection(Section):
    """Supervised fine-tuning on demonstrations: of the tasks, or of `data`."""

    data: Paths = Field(default_factory=list[str])
    """Files, folders, patterns or hub names of demonstrations in any format of docs/data.md; empty: the tasks' own."""
    test: Paths = Field(default_factory=list[str])
    """Rows for the evaluation loss; empty: held_out rows of the test split of `data`, or, without one, of its rows by
    prompt, or of the tasks' evaluation split."""
    format: str | None = None
    """How rows are laid out, by a name of docs/data.md; None: recognised, unless `columns` are named."""
    columns: dict[str, str] = Field(default_factory=dict[str, str])
    """Our column -> theirs, dotted where it lies deeper: messages, or prompt and completion."""
    config: str | None = None
    """The configuration, of a data set that has several."""
    split_names: dict[SplitName, str] = Field(default_factory=dict[SplitName, str])
    """Our split -> theirs, for example {train: "train_sft[:10%]"}."""
    held_out: int = Field(default=0, ge=0)
    """Rows for the evaluation loss; 0: none. Of `data` all rows of a prompt lie on one side: it may be a few more."""
    patience: int | None = Field(default=None, ge=1)
    """End after so many evaluations (eval.every) without a better evaluation loss; needs held_out."""
    bad_rows: BadRows = "drop"
    shuffle: bool = True
    """False: the rows in the order of the data, in every epoch."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of prompt and completion together; None: the model's context. Longer rows are bad rows."""
    demonstrations: int | None = Field(default=None, ge=1)
    """Use only the first so many; None: all."""
    rows_per_step: int = Field(default=32, ge=1)
    until_accuracy: float | None = Field(default=None, gt=0, le=1)
    """End as soon as this share of held-out training problems is solved (sampled)."""
    check_every: int = Field(default=20, ge=1)
    """Steps between those checks."""
    check_problems: int = Field(default=128, ge=1)

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
    "chosen",
    "rejected",
    "first",
    "second",
    "label",
    "probability",
    "margin",
    "category",
)
"""What a row of preferences may hold."""


class PreferenceSection(Section):
    """Pairs of completions with a label; see reasoner/data/preferences.py for the shapes of a row."""

    train: Paths = Field(default_factory=list[str])
    """Files, folders or hub names; `stage:NAME` is the file that an earlier pairs stage wrote."""
    test: Paths = Field(default_factory=list[str])
    """Empty: the test split of `train`; without one, held_out_share of its prompts, chosen by their digest."""
    held_out_share: float = Field(default=0.1, ge=0, lt=1)
    """0: nothing is held out but what `test` names."""
    columns: dict[str, str] = Field(default_factory=dict[str, str])
    """Our column -> theirs, dotted where it lies deeper: id, prompt, chosen, rejected, first, second, label,
    probability, margin, category."""
    format: str | None = None
    """How rows are laid out, by a name of docs/data.md; None: recognised, unless `columns` are named."""
    config: str | None = None
    """The configuration, of a data set that has several."""
    split_names: dict[SplitName, str] = Field(default_factory=dict[SplitName, str])
    """Our split -> theirs, for example {train: train_prefs, test: test_prefs}."""
    labels: dict[Literal["first", "second", "tie"], list[str]] = Field(
        default_factory=lambda: {
            "first": ["first", "a", "A>B"],
            "second": ["second", "b", "B>A"],
            "tie": ["tie", "A=B"],
        }
    )
    """Values of the label column."""
    ties: Literal["half", "drop"] = "half"
    """half: a tie pulls both rewards together (target 0.5); drop: it is left out."""
    targets: Literal["label", "probability"] = "label"
    """probability: a row's own chance that its first completion is the better one is its target, where it has one
    (arXiv:2212.08073, section 4.1)."""
    bad_rows: BadRows = "drop"
    shuffle: bool = True
    """False: the pairs in the order of the data, in every epoch."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Of prompt and completion together; None: the model's context. Longer rows are bad rows."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first pairs of the training split."""

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, value: dict[str, str]) -> dict[str, str]:
        return _known(value, PREFERENCE_COLUMNS)


class RewardModelSection(Section):
    """A reward model from preferences (Bradley-Terry)."""

    pairs_per_step: int = Field(default=32, ge=1)
    heads: int = Field(default=1, ge=1)
    """Scalar heads on one trunk, each trained on its own bootstrap sample of the pairs: their spread says where the
    model guesses."""
    centre_coef: float = Field(default=0.01, ge=0)
    """Weight of the squared sum of a pair's rewards: centres them on zero."""
    patience: int | None = Field(default=None, ge=1)
    """End after so many evaluations (eval.every) without a better held-out loss; None: run all steps."""


OWN = "own"
"""Scorer that stands for each task's own verifier."""


class WatchSection(Section):
    """What is watched for reward hacking, beside lengths, repetition and openings."""

    scorer: VerifierSection | None = None
    """A second judge that training never sees: `own` for each task's own verifier (where `reward` replaces it in
    training), another reward model, a rubric."""
    rows: int = Field(default=64, ge=1)
    """Rollouts of a step that it grades."""


class PairsSection(Section):
    """New preference pairs, sampled from the present policy: samples 0 and 1 of a group, then 2 and 3, ..."""

    label: Literal["verifier", "person"] = "verifier"
    """verifier: by the reward of `reward` or of the task's own verifier; person: with `reasoner label`."""


class ConstitutionalSection(Section):
    """Critique, revision and comparison under principles.

    Templates may hold {prompt} and {principle}; critique and revision {answer}, the revision {critique} as well, and
    the comparison {first} and {second}.
    """

    principles: str = "general"
    """YAML file of principles, or a shipped one: general, topics."""
    rounds: int = Field(default=1, ge=1)
    """Of critique and revision."""
    critique: str = (
        "Here is a request and an answer to it.\n\nRequest: {prompt}\n\nAnswer: {answer}\n\nPrinciple: {principle}\n\n"
        "In two or three sentences: where does the answer fall short of the principle?"
    )
    revision: str = (
        "Here is a request, an answer to it, and a critique of the answer.\n\nRequest: {prompt}\n\nAnswer: {answer}\n\n"
        "Critique: {critique}\n\nPrinciple: {principle}\n\nWrite the answer anew, so that it follows the principle and"
        " the critique no longer applies. Give the new answer alone."
    )
    comparison: str = (
        "Here is a request and two answers to it.\n\nRequest: {prompt}\n\nAnswer A: {first}\n\nAnswer B: {second}\n\n"
        "Principle: {principle}\n\nWhich answer follows the principle better? Say A or B and nothing else."
    )
    letters: tuple[str, str] = ("A", "B")
    """What the model says for the first and for the second."""
    judge: VerifierSection | None = None
    """What compares answers: `judge` or `judge-model` with its options; None: the model itself, by `comparison`."""
    margin: float = Field(default=0.0, ge=0, lt=0.5)
    """A mean probability nearer to one half than this is a tie."""
    labels: Literal["ai", "shuffled"] = "ai"
    """shuffled: every label by a coin, a control from which nothing can be learned."""


class DpoSection(Section):
    """Direct preference optimization."""

    pairs_per_step: int = Field(default=32, ge=1)
    loss: str = "sigmoid"
    """sigmoid, ipo, robust, hinge, or `module:attribute`."""
    loss_options: Options = Field(default_factory=dict[str, JsonValue])
    beta: float = Field(default=0.1, gt=0)
    sft_coef: float = Field(default=0.0, ge=0)
    """Weight of the mean negative log-likelihood of the chosen completions' tokens."""


TrackerName = Literal["wandb", "trackio", "mlflow", "comet_ml", "aim", "clearml", "dvclive", "swanlab"]


class LoggingSection(Section):
    """Where numbers go beside metrics.jsonl."""

    tensorboard: bool = True
    trackers: list[TrackerName] = Field(default_factory=list[TrackerName])
    """By the names of their packages; those that accelerate knows."""
    project: str = "reasoner"
