"""Evaluation of a reward model outside a run, on rows of right and wrong completions.

OUTPUT/evals.jsonl     one line: the figures
OUTPUT/scores.jsonl    every row with its texts, rewards, token counts and how rightly it was ranked
OUTPUT/bad_rows.tsv    rows left out, if any
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from reasoner.config.sections import PromptSection
from reasoner.config.stage import StageConfig
from reasoner.data.choices import CHOICE_SHAPE, Choice, Choices
from reasoner.data.encode import encode
from reasoner.data.rows import Encoded, RowPolicy, length_fault, report_bad_rows
from reasoner.evaluation.choices_report import ChoicesReport, ScoredChoice, choices_report
from reasoner.evaluation.reward_bench import Share
from reasoner.graders.reward_model import RewardModel, spread
from reasoner.model.paths import ModelError
from reasoner.storage.files import write_text
from tasks import BadRow, UnusableRow
from verifiers import JSON
from verifiers.jsonl import json_line
from verifiers.kit.probes import evenly
from verifiers.terminal.console import plain_console
from verifiers.terminal.progress import work_bar
from verifiers.text import one_line

EVALS, SCORES = "evals.jsonl", "scores.jsonl"


class EncodedChoice(NamedTuple):
    """A row as token ids: one entry per completion, the right ones first."""

    choice: Choice
    rows: Sequence[Encoded]


def evaluate_reward_model(
    stage: StageConfig, choices: Choices, *, most: int | None, output: Path | None, as_json: bool
) -> ChoicesReport:
    """Score the completions of each row with the stage's model and print the figures.

    Args:
        stage: `model.path` and `model.dtype`; `prompt`, whose keys that were set change the model's own prompt
            format; `preferences.max_tokens` and `bad_rows`.
        choices: the rows.
        most: most rows, at even distances in the file; None: all.
        output: folder for the files; None: none are written.
        as_json: print one line of JSON instead of the table.
    Raises:
        ConfigError: no row is usable, or too many are not.
        ModelError: the model cannot be loaded, has no trained reward head, or a reward is not finite.
    """
    assert stage.model.path is not None
    section = stage.preferences
    taken = evenly(choices.rows, most) if most else choices.rows
    model = RewardModel(stage.model.path, dtype=stage.model.dtype)
    prompt = model.card.prompt.model_copy(update=stage.prompt.model_dump(exclude_unset=True))
    encoded, long = encode_choices(taken, model, prompt, limit=min(section.max_tokens or model.limit, model.limit))
    said = report_bad_rows(
        [*choices.bad, *long],
        total=len(taken) + len(choices.bad),
        policy=RowPolicy(section.bad_rows, "preferences.bad_rows"),
        shape=CHOICE_SHAPE,
        folder=output,
    )
    scored, disagreement = score_choices(model, encoded)
    report = choices_report(scored)
    figures: dict[str, JSON] = {
        "model": stage.model.path,
        "data": [*section.train],
        **report.to_json(),
        "heads_disagree": disagreement,
        "of_rows": len(choices.rows),
        "bad_rows": len(choices.bad) + len(long),
        "labelled_ties": choices.ties,
    }
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        rows = (json_line(_row(one, each)) + "\n" for one, each in zip(encoded, scored, strict=True))
        write_text(output / SCORES, "".join(rows))
        write_text(output / EVALS, json_line(figures) + "\n")
    if as_json:
        print(json_line(figures))
        return report
    console = plain_console()
    console.print(f"{stage.model.path} on {', '.join(section.train)}: {len(scored)} of {len(choices.rows)} rows")
    for line in (*choices.notes, *([said] if said else []), *_left_out(choices), *report_lines(report)):
        console.print(f"  {one_line(line)}", soft_wrap=True)
    if disagreement is not None:
        console.print(f"  the heads differ by {disagreement:.3g} (mean standard deviation of a completion's reward)")
    return report


def encode_choices(
    choices: Sequence[Choice], model: RewardModel, prompt: PromptSection, *, limit: int
) -> tuple[list[EncodedChoice], list[BadRow]]:
    """Encode every completion; a row of which one is over `limit` tokens is returned as a bad row, and not cut."""
    kept: list[EncodedChoice] = []
    bad: list[BadRow] = []
    for choice in choices:
        try:
            rows = [
                encode(choice.prompt, text, model.tokenizer, prompt, name=choice.id)
                for text in (*choice.chosen, *choice.rejected)
            ]
            if fault := length_fault(max(rows, key=len), limit):
                raise UnusableRow(fault)
        except UnusableRow as error:
            bad.append(BadRow(choice.id, str(error)))
            continue
        kept.append(EncodedChoice(choice, rows))
    return kept, bad


def score_choices(model: RewardModel, encoded: Sequence[EncodedChoice]) -> tuple[list[ScoredChoice], float | None]:
    """Return rows with the model's own outputs (the mean of its heads, not rescaled), and how much the heads differ.

    The second value is the mean over completions of the standard deviation over heads; None for one head.
    """
    flat = [row for one in encoded for row in one.rows]
    with work_bar(plain_console(stderr=True)) as bar:
        task = bar.add_task("scoring completions", total=len(flat))
        outputs_BK = model.outputs(flat, on_progress=lambda done: bar.advance(task, done))
    spreads = [spread(outputs_K) for outputs_K in outputs_BK]
    for row, one in zip(flat, spreads, strict=True):
        if not math.isfinite(one.mean):
            raise ModelError(
                f"every reward must be finite; {model.path} gives {one.mean} for a completion of row {row.id}. Try"
                " model.dtype=float32, or another checkpoint."
            )
    rewards = iter([one.mean for one in spreads])
    scored: list[ScoredChoice] = []
    for choice, rows in encoded:
        tokens, count = [len(row.completion_ids) for row in rows], len(choice.chosen)
        found = [next(rewards) for _ in rows]
        scored.append(
            ScoredChoice(
                id=choice.id,
                subset=choice.subset,
                chosen=found[:count],
                rejected=found[count:],
                chosen_tokens=tokens[:count],
                rejected_tokens=tokens[count:],
            )
        )
    several = len(outputs_BK[0]) > 1
    return scored, sum(one.std for one in spreads) / len(spreads) if several else None


def _row(encoded: EncodedChoice, scored: ScoredChoice) -> dict[str, JSON]:
    choice = encoded.choice
    prompt: JSON = choice.prompt if isinstance(choice.prompt, str) else [{**turn} for turn in choice.prompt]  # pyright: ignore
    return {
        "id": choice.id,
        "subset": choice.subset,
        "prompt": prompt,
        "chosen": [*choice.chosen],
        "rejected": [*choice.rejected],
        "scores_chosen": [*scored.chosen],
        "scores_rejected": [*scored.rejected],
        "tokens_chosen": [*scored.chosen_tokens],
        "tokens_rejected": [*scored.rejected_tokens],
        "right": scored.right,
    }


def _left_out(choices: Choices) -> Iterator[str]:
    if choices.ties:
        yield f"{choices.ties} rows labelled as ties are left out: they have no better completion."


def report_lines(report: ChoicesReport) -> Iterator[str]:
    """Yield the table of a report."""
    width = max([30, *map(len, report.subsets)])
    found = report.benchmark
    yield f"{'':{width}} {'rows':>6}  {'accuracy':>8}  95 %"
    for name, share in report.subsets.items():
        yield _share(name, share, width)
    if found:
        yield from (_share(f"section {name}", share, width) for name, share in found.sections.items())
        if found.score:
            yield _share(f"{found.name} score", found.score, width)
        else:
            few = ", ".join(found.missing[:3]) + (", ..." if found.missing[3:] else "")
            yield f"no {found.name} score: {len(found.missing)} of its subsets are missing ({few})"
    if len(report.best_of) > 1 or report.ties:
        yield from (_share(f"best of {size}", share, width) for size, share in report.best_of.items())
    yield _share("all rows", report.accuracy, width)
    if report.pair_accuracy.value != report.accuracy.value:
        yield _share("pairs of right and wrong", report.pair_accuracy, width)
    if report.ties:
        yield _ties_line(report)
    yield (
        f"rewards: right {_rewards(report.chosen)}, wrong {_rewards(report.rejected)}, margin"
        f" {_rewards(report.margins)} (mean and standard deviation); {report.equal_pairs} of {report.pairs['pairs']}"
        " pairs have equal rewards"
    )
    error = report.pairs["calibration_error"]
    yield f"calibration error {error:.3f} of s(|margin|) as the probability that the preference is right"
    yield from _length_lines(report)


def _share(name: str, share: Share, width: int) -> str:
    return f"{name:{width}} {share.rows:6}  {share.value:8.1%}  [{share.low:.1%}, {share.high:.1%}]"


def _rewards(values: tuple[float, float]) -> str:
    return f"{values[0]:.3g} +- {values[1]:.3g}"


def _ties_line(report: ChoicesReport) -> str:
    ties = report.ties
    assert ties is not None
    left_out = f"; {ties.unpaired} rows without their other half are left out of it" if ties.unpaired else ""
    return (
        f"Ties: several right ones above all wrong ones in {ties.accuracy_several:.1%} of the prompts, one in"
        f" {ties.accuracy_one:.1%}; margin {ties.margin:.1%}, hard {ties.margin_hard:.1%}{left_out}"
    )


def _length_lines(report: ChoicesReport) -> Iterator[str]:
    length = report.pairs["length"]
    assert isinstance(length, dict)
    longer, shorter = length["accuracy_when_longer_is_better"], length["accuracy_when_shorter_is_better"]
    related = report.rank_correlation
    yield (
        f"length: accuracy {_percent(longer)} where the right completion is longer, {_percent(shorter)} where it is"
        f" shorter; the longer one is right in {_percent(length['labels_prefer_longer'])} and preferred in"
        f" {_percent(length['model_prefers_longer'])}; rank correlation of reward and tokens"
        f" {'undefined' if math.isnan(related) else f'{related:+.2f}'}"
    )


def _percent(value: JSON) -> str:
    return f"{value:.1%}" if isinstance(value, float) else "-"
