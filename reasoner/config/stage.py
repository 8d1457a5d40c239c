"""A stage and a run of the config."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from reasoner.config.estimators import reward_coef_from, traits_of
from reasoner.config.mappings import deep_merge, is_list, is_mapping
from reasoner.config.methods import METHODS, MethodName
from reasoner.config.sections import (
    AlgorithmSection,
    BatchSection,
    CheckpointSection,
    ClusterSection,
    ConstitutionalSection,
    DpoSection,
    EngineSection,
    EvalSection,
    GkdSection,
    GradingSection,
    KtoSection,
    LoggingSection,
    ModelSection,
    OptimSection,
    PairsSection,
    PreferenceSection,
    ProcessesSection,
    PromptSection,
    RewardModelSection,
    RolloutSection,
    Section,
    SftSection,
    TaskSection,
    TeacherSection,
    ValueSection,
    VerifierSection,
    WatchSection,
)

LOSSES_WITH_RATIO = ("clip", "gspo", "gspo_token", "cispo")
"""Shipped policy losses that bound how far a ratio may move a token."""


class StageConfig(Section):
    """One stage of a run, with every default resolved."""

    method: MethodName = "grpo"
    """grpo, ppo and distill run the same loop; ppo and distill default to rollout.group_size: 1, and to
    algorithm.advantage: gae and reverse_kl."""
    name: str = "run"
    """Name of the run."""
    label: str | None = None
    """Name of the stage in `stage:NAME` references of later stages; None: its method."""
    output: str | None = None
    """Run folder; None: runs/<name>."""
    seed: int = Field(default=0, ge=-(2**63), lt=2**63)
    """Of every random draw of the stage."""
    steps: int = Field(default=100, ge=1)
    """Steps of training."""
    model: ModelSection = ModelSection()
    task: list[TaskSection] = Field(default_factory=list[TaskSection])
    """Tasks to train on; a name, one section or a list."""
    prompt: PromptSection = PromptSection()
    rollout: RolloutSection = RolloutSection()
    algorithm: AlgorithmSection = AlgorithmSection()
    optim: OptimSection = OptimSection()
    batch: BatchSection = BatchSection()
    engine: EngineSection = EngineSection()
    grading: GradingSection = GradingSection()
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    teacher: TeacherSection = TeacherSection()
    sft: SftSection = SftSection()
    gkd: GkdSection = GkdSection()
    preferences: PreferenceSection = PreferenceSection()
    reward_model: RewardModelSection = RewardModelSection()
    dpo: DpoSection = DpoSection()
    kto: KtoSection = KtoSection()
    pairs: PairsSection = PairsSection()
    constitutional: ConstitutionalSection = ConstitutionalSection()
    value: ValueSection = ValueSection()
    reward: VerifierSection | None = None
    """Reward in training instead of the tasks' own verifiers, which still grade every evaluation: a reward model, a
    weighted sum, ... None: the tasks' own verifiers."""
    watch: WatchSection = WatchSection()
    processes: ProcessesSection = ProcessesSection()
    cluster: ClusterSection = ClusterSection()
    logging: LoggingSection = LoggingSection()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_method(cls, value: object) -> object:
        method = METHODS.get(str(value.get("method"))) if is_mapping(value) else None
        return deep_merge(method.defaults, value) if method and is_mapping(value) else value

    @field_validator("model", "teacher", mode="before")
    @classmethod
    def _model_by_name(cls, value: object) -> object:
        return {"path": value} if isinstance(value, str) else value

    @field_validator("task", mode="before")
    @classmethod
    def _tasks(cls, value: object) -> object:
        entries = value if is_list(value) else [value]
        return [{"name": entry} if isinstance(entry, str) else entry for entry in entries]

    @model_validator(mode="after")
    def _fits_together(self) -> StageConfig:
        method = METHODS[self.method]
        from_preferences, from_demonstrations = method.learns_from_preferences, method.learns_from == "demonstrations"
        if from_preferences and not self.preferences.train:
            rows = "pairs" if method.learns_from == "pairs" else "rows {prompt, completion, label}"
            raise ValueError(f"preferences.train must name at least one file of {rows} for method {self.method}")
        if method.learns_from == "unpaired" and self.preferences.targets == "probability":
            raise ValueError(
                f"preferences.targets must be label for method {self.method}, whose rows are desirable or not; got"
                " probability. Use method dpo for soft targets"
            )
        self._kl_settings_fit()
        self._teacher_fits()
        if self.sft.patience is not None and not self.sft.held_out and not self.sft.test:
            raise ValueError("sft.patience needs an evaluation loss. Set sft.held_out or sft.test")
        if not self.task and not from_preferences and not (from_demonstrations and self.sft.data):
            raise ValueError("task must name at least one task. `reasoner tasks list` shows them")
        if self.algorithm.overlong_penalty_tokens > self.rollout.max_tokens:
            raise ValueError(
                "algorithm.overlong_penalty_tokens must be at most rollout.max_tokens;"
                f" got {self.algorithm.overlong_penalty_tokens} of {self.rollout.max_tokens}"
            )
        if self.model.path and self.model.from_scratch:
            raise ValueError("model must have either path or from_scratch, not both")
        if self.model.lora and self.model.lora.dropout > 0 and not from_demonstrations:
            raise ValueError(f"model.lora.dropout must be 0 unless the stage is sft; got {self.model.lora.dropout}")
        if self.model.quantization and (self.model.lora is None or self.model.from_scratch):
            raise ValueError(
                "model.quantization stores the frozen base under adapters in 4 bits: it needs model.lora and"
                " model.path. Set them, or leave it out"
            )
        if self.grading.portions > 1 and (
            self.optim.updates_per_step * self.optim.inner_epochs > 1 or self.rollout.dynamic_sampling_rounds
        ):
            raise ValueError(
                "grading.portions above 1 needs one update per step (optim.updates_per_step, optim.inner_epochs) and no"
                " dynamic_sampling_rounds: both need all the rows of a step. Leave it out"
            )
        if not (self.grading.workers or self.grading.nodes or self.cluster.graders or self.cluster.file):
            raise ValueError("grading.workers must be >= 1; 0 is possible only with grading.nodes or cluster.graders")
        self._lag_is_corrected()
        self._components_can_be_normalized()
        centred = method.learns_from == "rewards" and traits_of(self.algorithm.advantage).group_relative
        if self.rollout.group_size < 2 and centred:
            raise ValueError(
                f"group_size must be >= 2 to centre rewards; got {self.rollout.group_size}."
                " Set rollout.group_size in the config"
            )
        return self

    @property
    def evaluates(self) -> bool:
        """True if problems are solved to evaluate; a reward model samples nothing."""
        return bool(self.task and self.eval.problems and METHODS[self.method].policy != "reward")

    @property
    def proximal(self) -> Literal["trainer", "sampler"]:
        """Policy that the loss's ratio is taken against, with `auto` resolved."""
        if self.algorithm.proximal != "auto":
            return self.algorithm.proximal
        once = self.optim.updates_per_step * self.optim.inner_epochs == 1
        held_back = self.algorithm.loss in LOSSES_WITH_RATIO
        return "sampler" if self.rollout.ahead and once and held_back else "trainer"

    @property
    def watched_kl_rows(self) -> int:
        """Rows per step on which the KL to the reference is measured though nothing uses it; 0: none."""
        learned = self.reward is not None and self.reward.learned
        return self.watch.kl_rows if learned and not self.algorithm.needs_reference else 0

    @property
    def needs_reference(self) -> bool:
        """True if the policy's reference is loaded, to penalise, bound or watch the KL to it."""
        rewarded = METHODS[self.method].learns_from == "rewards"
        return rewarded and (self.algorithm.needs_reference or self.watched_kl_rows > 0)

    @property
    def has_teacher_model(self) -> bool:
        """True if a teacher is loaded beside the policy."""
        return "teacher" in METHODS[self.method].sections and self.teacher.path is not None

    def teacher_fault(self, needs: Collection[str]) -> str | None:
        """Return what is wrong with the teacher of an estimator with these needs; None if nothing is."""
        name, learns = self.algorithm.advantage, "teacher_logprobs" in needs
        if learns and not self.teacher.named:
            return (
                f"algorithm.advantage {name} learns from a teacher, and none is named. Set teacher.path to a model's"
                " folder or hub name, or teacher.urls to vLLM servers"
            )
        if self.teacher.named and not learns:
            return (
                f"algorithm.advantage {name} learns nothing from a teacher. Set it to reverse_kl (method distill does),"
                " or leave teacher out"
            )
        if learns and self.teacher.urls and self.rollout.temperature != 1:
            return (
                "rollout.temperature must be 1 with teacher.urls, since servers score a text at temperature 1; got"
                f" {self.rollout.temperature:g}. Set teacher.path for another"
            )
        return None

    @property
    def samples_to_learn(self) -> bool:
        """True if training problems are sampled; False if only evaluation problems are, or none."""
        method = METHODS[self.method]
        checked = method.learns_from == "demonstrations" and self.sft.until_accuracy is not None
        on_policy = "gkd" in method.sections and self.gkd.lmbda > 0
        return method.samples or checked or on_policy

    @property
    def needs_engine(self) -> bool:
        """True if the stage samples at all, even if only to evaluate."""
        return self.samples_to_learn or self.evaluates

    @property
    def rows_per_step(self) -> int:
        """Demonstrations, pairs or labelled completions of a step, for a method that learns from given rows."""
        section: SftSection | RewardModelSection | DpoSection | KtoSection
        section = getattr(self, METHODS[self.method].sections[0])
        return section.rows_per_step if isinstance(section, SftSection | KtoSection) else section.pairs_per_step

    @property
    def eval_tokens(self) -> int:
        """Maximum tokens of a completion in an evaluation."""
        return self.eval.max_tokens or self.rollout.max_tokens

    def _teacher_fits(self) -> None:
        """Raise ValueError if there is no teacher where one is needed, or nothing learns from it."""
        method, algorithm = METHODS[self.method], self.algorithm
        if "gkd" in method.sections and self.teacher.path is None:
            raise ValueError(
                f"teacher.path must name a model for method {self.method}, which compares whole distributions: servers"
                " (teacher.urls) return the log-probabilities of single tokens. Set it, or use method distill"
            )
        if method.learns_from != "rewards" or ":" in algorithm.advantage:
            return  # an estimator of the user's own is checked when it is imported
        traits = traits_of(algorithm.advantage)
        if fault := self.teacher_fault(traits.needs):
            raise ValueError(fault)
        if traits.baseline != "teacher":
            return
        rewarded = reward_coef_from(algorithm.advantage_options) > 0
        if rewarded and self.rollout.group_size < 2:
            raise ValueError(
                "group_size must be >= 2 for advantage_options.reward_coef, which centres the rewards of a group; got"
                f" {self.rollout.group_size}. Set rollout.group_size in the config"
            )
        acting_on_rewards = {
            "algorithm.normalize_components": algorithm.normalize_components,
            "algorithm.overlong_penalty_tokens": algorithm.overlong_penalty_tokens > 0,
            "algorithm.kl_in=reward": algorithm.kl_coef > 0 and algorithm.kl_in == "reward",
            "rollout.dynamic_sampling_rounds": self.rollout.dynamic_sampling_rounds > 0,
            "rollout.sampling=difficulty": self.rollout.sampling == "difficulty",
        }
        for setting in [name for name, given in acting_on_rewards.items() if given and not rewarded]:
            raise ValueError(
                f"{setting} acts on rewards, and algorithm.advantage {algorithm.advantage} learns from the teacher"
                " alone. Leave it out, or set algorithm.advantage_options.reward_coef above 0"
            )

    def _lag_is_corrected(self) -> None:
        """Raise ValueError if batches are sampled ahead, and nothing corrects for the age of the weights."""
        algorithm, method = self.algorithm, METHODS[self.method]
        if self.rollout.during_update == "pin" and not self.rollout.ahead:
            raise ValueError(
                "rollout.during_update must not be pin with rollout.ahead 0: no batch is under way when the policy has"
                " new weights. Set rollout.ahead to 1 or more"
            )
        if not self.rollout.ahead:
            return
        if method.learns_from != "rewards":
            raise ValueError(
                f"rollout.ahead must be 0 for method {self.method}, which updates no policy between its batches"
            )
        if self.rollout.ahead > 1 and self.rollout.during_update == "wait":
            raise ValueError(
                f"rollout.ahead must be at most 1 with rollout.during_update wait; got {self.rollout.ahead}. Every"
                " batch ahead would be finished before the next update, so that further ones only get older. Set"
                " rollout.during_update to go_on, or with adapters to pin"
            )
        if self.proximal == "trainer" and algorithm.importance == "none":
            raise ValueError(
                "algorithm.importance must not be none with rollout.ahead above 0: the batches are sampled with older"
                " weights, and only the importance correction knows. Set it to truncated, or algorithm.proximal to"
                " sampler"
            )
        if self.proximal == "sampler" and algorithm.loss == "reinforce":
            raise ValueError(
                "algorithm.loss reinforce has no ratio, so that algorithm.proximal sampler leaves the age of the"
                " weights uncorrected. Set proximal to trainer, or another loss"
            )

    def _components_can_be_normalized(self) -> None:
        """Raise ValueError if there is no group to normalize in, or the estimator needs the unnormalized reward."""
        if not self.algorithm.normalize_components:
            return
        if self.rollout.group_size < 2:
            raise ValueError(
                f"algorithm.normalize_components needs a group; got rollout.group_size {self.rollout.group_size}."
                " Set it to 2 or more"
            )
        if self.algorithm.advantage == "rejection":
            raise ValueError(
                "algorithm.normalize_components centres rewards, and rejection compares them with a threshold."
                " Leave it out, or use another advantage"
            )

    def _kl_settings_fit(self) -> None:
        """Raise ValueError if a KL setting has nothing to act on."""
        algorithm = self.algorithm
        if algorithm.kl_target is not None and algorithm.kl_coef == 0:
            raise ValueError("algorithm.kl_target adapts a coefficient. Set algorithm.kl_coef above 0")
        if "kl_coef" in algorithm.advantage_options:
            raise ValueError("advantage_options.kl_coef is set by algorithm.kl_coef with kl_in: reward. Use those")


class RunConfig(Section):
    """A run: one stage or several, in order."""

    name: str
    """Name of the run."""
    output: str
    """Run folder."""
    stages: tuple[StageConfig, ...]
    """Stages in order."""
    starts_fresh: tuple[bool, ...]
    """One flag per stage: True if it names its own model, False if it continues with the previous stage's."""

    def stage_folder(self, index: int) -> Path:
        """Return the folder of a stage's records: the run folder itself if there is only one stage."""
        root = Path(self.output)
        return root if len(self.stages) == 1 else root / f"{index}-{self.stages[index].method}"
