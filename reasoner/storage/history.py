"""Records of a run in memory, for the rules of `explain` and for the report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from reasoner.config.load import load_config
from reasoner.config.stage import StageConfig
from reasoner.errors import faults
from reasoner.storage.files import RunError
from reasoner.storage.step_ranges import StepFile, spread
from verifiers import JSON, Outcome, mark_of
from verifiers.compose import part_at
from verifiers.jsonl import JsonLinesError, is_object, parse_line, read_jsonl

Floats = Annotated[NDArray[np.float32], BeforeValidator(partial(np.asarray, dtype=np.float32))]
Ids = Annotated[NDArray[np.int32], BeforeValidator(partial(np.asarray, dtype=np.int32))]
Line = TypeVar("Line")
UNGRADED = ("bad_reference", "verifier_error")
_no_floats, _no_ids = partial(np.zeros, 0, np.float32), partial(np.zeros, 0, np.int32)


def _of_verdict(name: str) -> Any:
    return Field(validation_alias=AliasPath("verdict", name))


def _mask(value: object) -> object:
    return None if value is None else np.asarray(value, dtype=np.bool_)


@dataclass(slots=True, kw_only=True)
class Row:
    """One rollout: a line of rollouts.jsonl, with the matching line of updates.jsonl if there is one."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True)
    step: int
    group: int
    sample: int
    problem: str
    task: str = ""
    difficulty: float | None = None
    prompt: str = ""
    """Prompt as the model saw it."""
    without_marks: Annotated[str | None, Field(validation_alias="question")] = None
    completion: str
    reference: JsonValue = None
    verifier: str = ""
    verifier_options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    info: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    outcome: Annotated[str, AfterValidator(lambda text: str(Outcome(text))), _of_verdict("outcome")]
    reward: float | None = None
    """Reward including shaping; None: ungraded."""
    verdict_reward: Annotated[float | None, _of_verdict("reward")]
    answer: Annotated[str | None, _of_verdict("answer")] = None
    detail: Annotated[Mapping[str, JsonValue], _of_verdict("detail")] = field(default_factory=dict[str, JsonValue])
    seconds: Annotated[float, _of_verdict("seconds")] = 0.0
    shaping: float = 0.0
    components: Mapping[str, float] = field(default_factory=dict[str, float])
    weights: Annotated[Mapping[str, float], _of_verdict("weights")] = field(default_factory=dict[str, float])
    """Weights of the components whose weighted sum is the verdict's reward; empty if it is not such a sum."""
    decided_by: Annotated[str | None, _of_verdict("decided_by")] = None
    """Component that decides if the answer is correct; None: the reward itself decides."""
    tokens: int
    finish_reason: str
    policy_version: int = 0
    versions: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    """(version, start, end) of the sampled tokens; empty: `policy_version` sampled all."""
    logprobs: Annotated[Floats, Field(validation_alias="rollout_logprobs")] = field(default_factory=_no_floats)
    """[T] log-probabilities of the engine."""
    mask: Annotated[NDArray[np.bool_] | None, Field(validation_alias="loss_mask"), BeforeValidator(_mask)] = None
    """[T] True for trained tokens; None: all are trained."""
    turns: list[dict[str, JsonValue]] | None = None
    """Turns of a rollout with an environment; None: one turn."""
    token_ids: Ids = field(default_factory=_no_ids)
    prompt_ids: Ids = field(default_factory=_no_ids)
    advantage: float | None = None
    dropped: str | None = None
    trainer: Floats | None = None
    """[T] log-probabilities of the trainer at the start of the step; None if the row was not in the update."""

    @property
    def question(self) -> str:
        """Prompt as the verifier saw it, without chat markup."""
        return self.without_marks or self.prompt

    @property
    def reason(self) -> str:
        """Reason given in the verdict."""
        return str(self.detail.get("reason", ""))

    @property
    def answer_text(self) -> str:
        """Text that was graded: the policy's last turn."""
        said = [turn for turn in self.turns or () if turn.get("origin") == "policy"]
        return str(said[-1].get("text", "")) if said else self.completion

    @property
    def graded_info(self) -> dict[str, JsonValue]:
        """The info that the verifier was given."""
        return {**self.info} if self.turns is None else {**self.info, "turns": [*self.turns]}

    @property
    def truncated(self) -> bool:
        """True if the completion reached the token limit."""
        return self.finish_reason == "length"

    def cut_in_turn(self, turn_tokens: int | None) -> bool:
        """True if the episode ended because a turn reached `rollout.turn_tokens`."""
        last: dict[str, Any] = self.turns[-1] if self.turns else {}
        if not self.truncated or last.get("origin", "policy") != "policy":
            return False
        return (last["end"] - last["start"] if last else self.tokens) == turn_tokens

    @property
    def policy_logprobs(self) -> Floats:
        """Log-probabilities of the engine for the policy's own tokens, without those of an environment."""
        return self.logprobs if self.mask is None else self.logprobs[self.mask]

    @property
    def token_versions(self) -> NDArray[np.int64]:
        """[T] version of the weights that sampled each token."""
        found = np.full(len(self.logprobs), self.policy_version, dtype=np.int64)
        for version, start, end in self.versions:
            found[start:end] = version
        return found

    @property
    def mark(self) -> float | None:
        """Correctness of the answer, without other parts of the reward: see `verifiers.mark_of`."""
        return mark_of(Outcome(self.outcome), self.components.get(self.decided_by or "", self.verdict_reward))

    @property
    def quality(self) -> float | None:
        """The mark, or the verdict's reward if nothing decides correctness; None: ungraded."""
        return self.verdict_reward if self.mark is None else self.mark

    @property
    def right(self) -> bool:
        """True if the verdict is correct, whatever else the reward includes. Always False for a learned reward."""
        return self.outcome == Outcome.CORRECT

    @property
    def decider(self) -> tuple[str, Mapping[str, JsonValue]]:
        """Verifier and options that decide if the answer is correct: one part of a composed verifier."""
        return part_at(self.decided_by or "", self.verifier, self.verifier_options)

    @property
    def place(self) -> tuple[int, int, int]:
        """Position of the rollout: (step, group, sample)."""
        return self.step, self.group, self.sample


_ROW = TypeAdapter(Row)


def row_of(record: Mapping[str, object]) -> Row:
    """Validate a line of rollouts.jsonl and return its rollout."""
    return _ROW.validate_python(record)


class EvalSet(BaseModel):
    """One of several evaluation sets; only the fields used here."""

    problems: int


class ShiftRecord(BaseModel):
    """Effect of one probe on a reward model's score; only the fields used here."""

    probe: str
    rows: int
    ungraded: int
    shift: tuple[float, float | None, float | None] | None
    """(mean, low, high) in standard deviations of the plain scores; None: unknown."""
    raised: float | None
    overtakes: float | None
    overtakes_plain: float | None


class OpinionRecord(BaseModel):
    """Effect of a user's wrong opinion on a reward model's preferences."""

    pairs: int
    ungraded: int
    change: tuple[float, float | None, float | None] | None
    """(mean, low, high) of the change of the margin, in standard deviations of the plain scores; None: unknown."""
    margin: float | None = None
    """Mean of better minus worse without the opinion, in the same unit."""
    overtakes: float | None
    overtakes_plain: float | None


class ProbeRecord(BaseModel):
    """Probes of a reward model (verifiers/kit/probes.py), with the fields used here."""

    pairs: int
    shifts: list[ShiftRecord]
    opinion: OpinionRecord | None = None


class LengthRecord(BaseModel):
    """Influence of length on a reward model's preferences (reasoner/evaluation/reward_report.py); None: undefined."""

    labels_prefer_longer: float | None = None
    accuracy_when_shorter_is_better: float | None = None
    accuracy_when_longer_is_better: float | None = None
    accuracy_at_equal_length: tuple[float, float, float] | None = None
    """(value, low, high)."""
    correlation: float = 0.0


class EvalRecord(BaseModel):
    """A line of evals.jsonl, with the fields used here: results on problems, or a loss on given rows."""

    step: int = 0
    """Training step; 0 for an evaluation outside a run."""
    problems: int | None = None
    rows: int | None = None
    pairs: int | None = None
    metrics: dict[str, tuple[float, float, float]] = {}
    """(value, low, high) by name; with several sets, by `SET/NAME` and `pooled/NAME`."""
    sets: dict[str, EvalSet] = {}
    """Evaluation sets by name; empty if there is only one."""
    loss: float | None = None
    perplexity: float | None = None
    calibration_error: float | None = None
    disagreement: float | None = None
    truncated: float | None = None
    """Share of the completions that reached the token limit."""
    length: LengthRecord | None = None
    probes: ProbeRecord | None = None

    def count_behind(self, name: str) -> int | None:
        """Return the number of problems, rows or pairs that a metric averages over; None if it is not recorded."""
        of_set = next((part.problems for label, part in self.sets.items() if name.startswith(f"{label}/")), None)
        counts = (of_set, self.problems, self.rows, self.pairs)
        return next((count for count in counts if count is not None), None)


class AlarmPlace(BaseModel):
    """A rollout recorded with an alarm."""

    group: int
    sample: int


class AlarmRecord(BaseModel):
    """A line of alarms.jsonl."""

    step: int
    alarm: str
    sentence: str
    evidence: dict[str, float] = {}
    rollouts: list[AlarmPlace] = []


class UpdateRecord(BaseModel):
    """A line of updates.jsonl."""

    step: int
    group: int
    sample: int
    advantage: float | None = None
    dropped: str | None = None
    trainer_logprobs: list[float] | None = None


@dataclass
class History:
    """Records of one stage: config, metrics, rollouts, evaluations."""

    config: StageConfig
    folder: Path | None = None
    metrics: list[Mapping[str, float | None]] = field(default_factory=list[Mapping[str, "float | None"]])
    rows: list[Row] = field(default_factory=list[Row])
    evals: list[EvalRecord] = field(default_factory=list[EvalRecord])
    eval_rows: list[Row] = field(default_factory=list[Row])
    alarms: list[AlarmRecord] = field(default_factory=list[AlarmRecord])
    environment: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    failure: Mapping[str, JSON] | None = None
    """Cause of the run's failure; None if it did not fail."""
    before: StageConfig | None = None
    """Config of the stage or run that wrote the start model; None if it is not on this disk."""
    complete: bool = False
    steps_left_out: int = 0
    """Steps whose rollouts were not read, because the records are too long (`read_history(most=...)`)."""

    def series(self, name: str) -> NDArray[np.float64]:
        """Return the values of a metric over the steps that have it, without nulls."""
        values = [row[name] for row in self.metrics if row.get(name) is not None]
        return np.asarray(values, dtype=np.float64)

    def steps_of(self, name: str) -> list[int]:
        """Return the steps of the values in `series`."""
        return [int(row["step"] or 0) for row in self.metrics if row.get(name) is not None]

    @cached_property
    def by_step(self) -> dict[int, list[Row]]:
        """Rollouts of each step."""
        found: dict[int, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.step, []).append(row)
        return found

    @cached_property
    def groups(self) -> list[list[Row]]:
        """Groups of rollouts of one problem in one step, each in sampling order."""
        found: dict[tuple[int, int], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row.step, row.group), []).append(row)
        return list(found.values())

    @property
    def graded(self) -> list[Row]:
        """Rollouts with a reward."""
        return [row for row in self.rows if row.reward is not None]

    @property
    def steps(self) -> list[int]:
        """Steps with rollouts, ascending."""
        return sorted(self.by_step)

    def trained_tokens(self, rows: Sequence[Row], *, version: int | None = None) -> tuple[Floats, Floats]:
        """Return (engine's, trainer's) log-probabilities of the trained tokens, for rows that were in an update.

        Args:
            rows: rollouts.
            version: only tokens that these weights sampled; None: all.
        """
        engine: list[Floats] = []
        trainer: list[Floats] = []
        for row in rows:
            if row.trainer is None or len(row.trainer) != len(row.logprobs):
                continue
            kept = np.ones(len(row.logprobs), dtype=np.bool_) if row.mask is None else row.mask
            if version is not None:
                kept = kept & (row.token_versions == version)
            engine.append(row.logprobs[kept])
            trainer.append(row.trainer[kept])
        empty = np.zeros(0, dtype=np.float32)
        return (np.concatenate(engine), np.concatenate(trainer)) if engine else (empty, empty)


class Most(NamedTuple):
    """Most that is read of a file of rollouts; of a longer file whole steps are read (`step_ranges.spread`)."""

    rows: int
    size: int
    """In bytes."""


def read_history(folder: Path, *, most: Most | None = None, rollouts: bool = True) -> History:
    """Read one stage's run folder.

    Args:
        folder: of the stage.
        most: how much of rollouts.jsonl and of eval_rollouts.jsonl to read; None: everything.
        rollouts: False leaves out the rollouts of training and of evaluations, which are most of the bytes.
    Raises:
        RunError: it is not a run folder.
    """
    if not (folder / "config.yaml").is_file():
        raise RunError(f"{folder} must be a run folder; it has no config.yaml. Give the `output` of a run.")
    config = load_config(str(folder / "config.yaml")).stages[0]
    history = History(config=config, folder=folder, before=config_before(config))
    history.metrics = [*lines(folder / "metrics.jsonl", like=metrics_of)]
    if rollouts:
        steps, history.steps_left_out = chosen_steps(folder / "rollouts.jsonl", most)
        history.rows = [*lines(folder / "rollouts.jsonl", like=row_of, steps=steps)]
        updates = lines(folder / "updates.jsonl", like=UpdateRecord.model_validate, steps=steps)
        attach_updates(history.rows, updates)
        steps, _ = chosen_steps(folder / "eval_rollouts.jsonl", most)
        history.eval_rows = [*lines(folder / "eval_rollouts.jsonl", like=row_of, steps=steps)]
    history.evals = [*lines(folder / "evals.jsonl", like=EvalRecord.model_validate)]
    history.alarms = [*lines(folder / "alarms.jsonl", like=AlarmRecord.model_validate)]
    history.environment = _json(folder / "environment.json")
    history.failure = _json(folder / "failed.json") or None
    history.complete = (folder / "done.json").is_file()
    return history


def is_evaluation(names: Collection[str]) -> bool:
    """Return True if a folder with files of these names was written by `reasoner eval --output`, not by a run."""
    return "eval_rollouts.jsonl" in names and "config.yaml" not in names


def evaluation_result(folder: Path) -> dict[str, JSON]:
    """Return the settings and metrics of an evaluation outside a run: its line of evals.jsonl, or a suite's result."""
    found = [*lines(folder / "evals.jsonl", like=dict)]
    return found[-1] if found else _json(folder / "result.json")


def read_evaluation(folder: Path) -> History:
    """Read the folder of an evaluation outside a run, without its completions. Its config names model and tasks only.

    Raises:
        RunError: a record is damaged.
    """
    result = evaluation_result(folder)
    tasks = str(result.get("task") or result.get("suite") or "unknown").split(", ")
    model = {"path": str(result["model"])} if result.get("model") else {}
    config = StageConfig.model_validate({"model": model, "task": [{"name": name} for name in tasks]})
    history = History(config=config, folder=folder, complete=True)
    try:
        history.evals = [EvalRecord.model_validate(result)]
    except ValidationError as error:
        raise RunError(f"{folder} must hold the result of an evaluation: {faults(error)}") from error
    return history


def chosen_steps(path: Path, most: Most | None) -> tuple[list[int] | None, int]:
    """Choose the steps of a record file to read, by the mean sizes of its steps and lines.

    Returns:
        (the steps, ascending, the number of those left out); (None, 0) if the whole file is to be read.
    Raises:
        RunError: a line that was looked at is not a valid record.
    """
    bounds = None if most is None else step_bounds(path)
    if most is None or bounds is None:
        return None, 0
    with StepFile(path) as file:
        size = min(most.size, most.rows * file.line_bytes())
        share = size / file.size
    if share >= 1:
        return None, 0
    first, last = bounds
    count = last - first + 1
    chosen = spread(first, last, max(1, int(count * share)))
    return chosen, count - len(chosen)


def step_bounds(path: Path) -> tuple[int, int] | None:
    """Return the first and the last step of a record file; None if it has no complete line.

    Raises:
        RunError: a line that was looked at is not a valid record.
    """
    if not path.is_file():
        return None
    try:
        with StepFile(path) as file:
            return file.bounds()
    except ValueError as error:
        raise RunError(f"{path} has a line that is not a valid record ({error}). Restore the file.") from error


def attach_updates(rows: Sequence[Row], updates: Iterable[UpdateRecord]) -> None:
    """Add advantages, trainer log-probabilities and reasons for being left out to the rollouts."""
    at = {row.place: row for row in rows}
    for update in updates:
        row = at.get((update.step, update.group, update.sample))
        if row is None:
            continue
        row.advantage, row.dropped, scored = update.advantage, update.dropped, update.trainer_logprobs
        row.trainer = None if scored is None else np.asarray(scored, dtype=np.float32)


def stage_folders(run: Path) -> list[Path]:
    """Return the folders of a run's stages in order; the run folder itself if it has only one stage.

    Raises:
        RunError: the folder contains no stage.
    """
    stages = sorted((p.parent for p in run.glob("[0-9]*-*/config.yaml")), key=lambda p: int(p.name.partition("-")[0]))
    if (run / "config.yaml").is_file():
        return [run]
    if not stages:
        raise RunError(f"{run} must be a run folder; it has no config.yaml and no stage. Give the `output` of a run.")
    return stages


def metrics_of(record: Mapping[str, JSON]) -> Mapping[str, float | None]:
    """Validate a line of metrics.jsonl, and return its step and metrics."""
    found: dict[str, float | None] = {}
    for name, value in {"step": None, **record}.items():
        if not isinstance(value, int | float) and (name == "step" or value is not None):
            raise ValueError(f"{name} must be a number; got {value!r}")
        found[name] = value
    return found


def lines(path: Path, *, like: Callable[[dict[str, JSON]], Line], steps: Sequence[int] | None = None) -> Iterator[Line]:
    """Yield the JSON lines of a file, each converted by `like`. The file may still be written to.

    An incomplete last line is skipped.

    Args:
        path: the file; one that does not exist has no lines.
        like: the conversion; it raises ValueError.
        steps: only lines of these steps, ascending; the others are not read. None: all.
    Raises:
        RunError: a line is not valid JSON or `like` rejects it; the message gives its number.
    """
    if not path.is_file():
        return
    place = ""
    try:
        for place, record in _numbered(path) if steps is None else _of_steps(path, steps):  # noqa: B007  (named below)
            yield like(record)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, JsonLinesError):
            place = f"line {error.line}"
        reason = faults(error) if isinstance(error, ValidationError) else getattr(error, "reason", error)
        raise RunError(
            f"{path} {place} is not a valid record ({reason}). Restore the file, or remove the line."
        ) from error


def _numbered(path: Path) -> Iterator[tuple[str, dict[str, JSON]]]:
    for number, record in read_jsonl(path, growing=True):
        yield f"line {number}", record


def _of_steps(path: Path, steps: Sequence[int]) -> Iterator[tuple[str, dict[str, JSON]]]:
    with StepFile(path) as file:
        for number, line in enumerate(file.lines(steps), 1):
            record = parse_line(line)
            if not is_object(record):
                raise ValueError(f"must be a JSON object; got {type(record).__name__}")
            yield f"line {number} of steps {steps[0]} to {steps[-1]}", record


MAX_FILE_BYTES = 16 << 20
"""Largest size of a file next to the records that is read."""


def _json(path: Path) -> dict[str, JSON]:
    """Read a JSON object that a run writes next to its records; empty if the file is missing or damaged."""
    try:
        if not path.is_file():  # reading a pipe or a device might never end
            return {}
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        found = parse_line(content) if len(content) <= MAX_FILE_BYTES else None
    except (OSError, ValueError):
        return {}
    return found if is_object(found) else {}


def config_before(config: StageConfig) -> StageConfig | None:
    """Return the config of the run or stage whose model this one starts from; None if it is not found.

    The model may be its `final/` or in `checkpoints/step-N/model`.
    """
    if config.model.path is None:
        return None
    path = Path(config.model.path)
    for folder in (path, *path.parents[:4]):
        if (folder / "config.yaml").is_file() and (folder / "environment.json").is_file():
            return load_config(str(folder / "config.yaml")).stages[0]
    return None
