"""Checks of problems, demonstrations and preferences before they are used, with counts over all rows.

Used by `reasoner data check` and `--dry-run`. Imports no torch unless a tokenizer is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from reasoner.config.methods import METHODS
from reasoner.config.sections import KtoSection, PreferenceSection, SftSection, TaskSection
from reasoner.config.stage import StageConfig
from reasoner.data.demonstrations import DEMONSTRATION_SHAPE, demonstrations_in, read_row
from reasoner.data.figures import NEAR_TESTED, Figures, Item, of_demonstration, of_labelled, of_pair, of_problem
from reasoner.data.overlap import Overlap, find_overlaps
from reasoner.data.preferences import PAIR_SHAPE, pair_of, preferences_in
from reasoner.data.problems import PROBLEM_SHAPE, with_verifiers
from reasoner.data.rows import RowPolicy, Source, held_out_paths, shaped_rows
from reasoner.data.unpaired import UNPAIRED_SHAPE, labelled_of, lopsided, one_label, unpaired_in
from tasks import BadRow, UnusableRow
from tasks.base import TaskError
from tasks.held_out import held_out
from tasks.inputs import is_local
from tasks.inputs.formats import Use
from tasks.registry import get_task
from tasks.row_task import RowTask
from tasks.validate import Verifiers
from verifiers import VerifierError
from verifiers.registry import verifier_class

SHAPES: Mapping[Use, str] = {
    "problems": PROBLEM_SHAPE,
    "demonstrations": DEMONSTRATION_SHAPE,
    "preferences": PAIR_SHAPE,
    "unpaired": UNPAIRED_SHAPE,
}


Paths = tuple[tuple[Literal["train", "test"], Sequence[str]], ...]


class Shared(NamedTuple):
    """Overlap of the test rows with the training rows."""

    equal: int
    """Test rows whose prompt equals a training prompt, ignoring case and white space; counted over all rows."""
    examples: list[str]
    near: list[Overlap]
    """Test rows that share at least half of their words with a training row, among the first `near_tested`."""
    near_tested: int
    near_train: int


@dataclass(slots=True, kw_only=True)
class Report:
    """Result of checking one data source."""

    use: Use
    where: str
    policy: RowPolicy
    splits: list[Figures] = field(default_factory=list[Figures])
    """The train split, then the test split if there is one."""
    shared: Shared | None = None
    notes: list[str] = field(default_factory=list[str])
    """Notes on how the data was found and read."""
    fault: str | None = None
    """Reason why the data cannot be used; None if it can."""


class Watch(NamedTuple):
    """Callbacks called while rows are read: for every row, and for every bad row."""

    on_row: Callable[[], None] = lambda: None
    on_bad: Callable[[BadRow], None] = lambda row: None


def check_stage(stage: StageConfig, watch: Watch, *, hub: bool = True, output: Path | None = None) -> Iterator[Report]:
    """Check every data source of a stage.

    Args:
        stage: the config.
        watch: callbacks for the rows.
        hub: False skips data sets of the hub instead of downloading them.
        output: the run folder. Paths inside it are skipped, because earlier stages have not written them yet.
    """

    def is_here(path: str) -> bool:
        coming = output is not None and Path(path).resolve().is_relative_to(output.resolve())
        return not coming and (hub or is_local(path)) and not path.startswith(("stage:", "stages:"))

    def here(paths: Iterable[object]) -> bool:
        return all(isinstance(path, str) and is_here(path) for path in paths)

    method = METHODS[stage.method]
    learns_from = method.learns_from
    if method.learns_from_preferences and here([*stage.preferences.train, *stage.preferences.test]):
        if learns_from == "pairs" or stage.kto.split_pairs:
            yield check_preferences(stage.preferences, watch)
        else:
            yield check_unpaired(stage.preferences, stage.kto, watch)
    if learns_from == "demonstrations" and stage.sft.data and here([*stage.sft.data, *stage.sft.test]):
        yield check_demonstrations(stage.sft, watch)
    for section in stage.task:
        path = section.options.get("path")
        if path is not None and here(path if isinstance(path, list) else [path]):
            yield check_task(section, watch, tests=stage.evaluates, tested=stage.eval.problems)


def check_task(section: TaskSection, watch: Watch, *, tests: bool = True, tested: int = NEAR_TESTED) -> Report:
    """Check the problems of a task.

    Args:
        section: the task's section of the config.
        watch: callbacks for the rows.
        tests: True reads the evaluation split too.
        tested: number of evaluation problems compared with the training problems by shared words; at most NEAR_TESTED.
    Raises:
        TaskError, VerifierError: the task has no such option or verifier.
    """
    path = section.options.get("path")
    where = ", ".join(map(str, path)) if isinstance(path, list) else str(path or section.name)
    report = Report(use="problems", where=where, policy=RowPolicy(section.bad_rows, "task.bad_rows"))

    task = get_task(section.name, **section.options)
    if isinstance(verifier := section.options.get("verifier"), str):
        verifier_class(verifier)  # an unknown name raises here, so that it is not reported as a fault of the data

    def rows() -> Iterator[tuple[str, Item | BadRow]]:
        if tests and isinstance(task, RowTask) and task.source() is not None:
            found = task.sides()
        else:
            names = (section.train_split, section.eval_split)[: 1 + tests]
            found = ((split, one) for split in names for one in task.each(split))
        for split, one in found:
            yield split, one if isinstance(one, BadRow) else of_problem(next(with_verifiers([one], section)))

    _count(report, rows(), watch, Verifiers(), splits=(section.train_split, section.eval_split)[: 1 + tests])
    report.notes += task.notes
    _finish(report, min(tested, NEAR_TESTED))
    return report


def check_demonstrations(section: SftSection, watch: Watch) -> Report:
    """Check the demonstrations of an sft section; raises as `check_task` does."""
    report = Report(
        use="demonstrations", where=", ".join(section.data), policy=RowPolicy(section.bad_rows, "sft.bad_rows")
    )

    tested, own = held_out_paths(section, section.data, use="demonstrations", share=section.held_out)
    report.notes += own

    def rows() -> Iterator[tuple[str, Item | BadRow]]:
        both: Paths = (("train", section.data), ("test", tested))
        for split, paths in both:
            source = demonstrations_in(section, split, paths)
            items = _items(source, lambda row, where: of_demonstration(read_row(row), where), report.notes)
            yield from ((split, one) for one in items)

    _count(report, rows(), watch, splits=("train", "test") if tested else ("train",))
    _finish(report, NEAR_TESTED)
    return report


def check_preferences(section: PreferenceSection, watch: Watch) -> Report:
    """Check the pairs of a preferences section; raises as `check_task` does."""
    return _check_preferences(
        section, watch, "preferences", lambda row, where: of_pair(pair_of(row, section, where=where)), preferences_in
    )


def check_unpaired(section: PreferenceSection, kto: KtoSection, watch: Watch) -> Report:
    """Check the labelled completions of a preferences section, and that both labels occur; raises as `check_task`."""
    desirable = rows = 0

    def item(row: Mapping[str, object], where: str) -> Item:
        nonlocal desirable, rows
        found = labelled_of(row, where=where)
        rows, desirable = rows + 1, desirable + found.desirable
        return of_labelled(found)

    report = _check_preferences(section, watch, "unpaired", item, unpaired_in)
    report.notes.append(f"{report.where}: {desirable} of {rows} usable rows are desirable")
    if note := lopsided(desirable, rows, kto):
        report.notes.append(f"{report.where}: {note}")
    report.fault = report.fault or one_label(desirable, rows)
    return report


def _check_preferences(
    section: PreferenceSection,
    watch: Watch,
    use: Use,
    item: Callable[[Mapping[str, object], str], Item],
    source_of: Callable[[PreferenceSection, Literal["train", "test"], Sequence[str]], Source],
) -> Report:
    report = Report(use=use, where=", ".join(section.train), policy=RowPolicy(section.bad_rows, "preferences.bad_rows"))

    share = section.held_out_share
    tested, own = held_out_paths(section, section.train, use=use, share=share)
    report.notes += own

    def rows() -> Iterator[tuple[str, Item | BadRow]]:
        both: Paths = (("train", section.train), ("test", tested))
        for split, paths in both:
            for one in _items(source_of(section, split, paths), item, report.notes):
                is_test = not tested and isinstance(one, Item) and held_out(one.prompt, share)
                yield "test" if is_test else split, one

    _count(report, rows(), watch, splits=("train", "test") if tested or share else ("train",))
    if not tested and share:
        split_note = f"{share:.0%} of the prompts, by their digest, are held out (preferences.held_out_share)"
        report.notes.append(f"{report.where}: {split_note}")
    _finish(report, NEAR_TESTED)
    return report


def _items(
    source: Source, make: Callable[[Mapping[str, object], str], Item], notes: list[str]
) -> Iterator[Item | BadRow]:
    for where, row in shaped_rows(source, notes=notes):
        try:
            if isinstance(row, ValueError):
                raise UnusableRow(str(row))
            yield make(row, where)
        except UnusableRow as error:
            yield BadRow(where, str(error))


def _count(
    report: Report,
    rows: Iterable[tuple[str, Item | BadRow]],
    watch: Watch,
    verifiers: Verifiers | None = None,
    *,
    splits: Sequence[str],
) -> None:
    """Add the counts of the splits to the report; an error while reading becomes the report's fault."""
    found = {split: Figures(split, verifiers=verifiers, on_bad=watch.on_bad) for split in splits}
    report.splits.extend(found.values())
    try:
        for split, one in rows:
            watch.on_row()
            found[split].add(one)
    except (TaskError, VerifierError) as error:
        report.fault = str(error)
    for figures in found.values():
        figures.close()
        refusal = report.policy.refusal(figures.bad, figures.rows)
        if refusal and report.fault is None:
            shape = f" A row must be {SHAPES[report.use]}." if figures.bad == figures.rows else ""
            counted = f"{figures.bad} of {figures.rows} rows cannot be used. "
            report.fault = f"{figures.name}: {counted}{refusal}{shape}"


def _finish(report: Report, tested: int) -> None:
    """Compare the test split with the training split."""
    if len(report.splits) < 2 or not all(figures.usable for figures in report.splits):
        return
    report.shared = shared_rows(*report.splits, tested=tested)


def shared_rows(train: Figures, test: Figures, *, tested: int) -> Shared:
    """Return the overlap of test rows with training rows; at most `tested` of them are compared by shared words."""
    equal, numbers = test.asking.shared(train.asking)
    own = test.near[:tested]
    near = [one for one in find_overlaps(train.near, own) if one.share < 1]
    return Shared(equal, [test.named(number) for number in numbers], near, len(own), len(train.near))


__all__ = [
    "Report",
    "Shared",
    "Watch",
    "check_demonstrations",
    "check_preferences",
    "check_stage",
    "check_task",
    "check_unpaired",
    "shared_rows",
]
