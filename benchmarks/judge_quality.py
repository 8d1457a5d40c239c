"""How well a model grades: its levels against GPT-4's scores, its preferences against labels, on public judgments.

    REASONER_DATA_DIR=DATA python -m benchmarks.judge_quality MODEL [--scores 60] [--pairs 30] [--characters 4500]

DATA holds `rubric/vicuna_eval.jsonl.gz` and `rubric/mt_bench_eval.jsonl.gz` (Prometheus, arXiv:2310.08491: an answer,
a reference answer, a rubric of five levels, three scores of GPT-4), `preferences/judgebench_claude35.jsonl.gz` and
`rubric/judgebench_judgments.jsonl.gz` (JudgeBench, arXiv:2410.12784: pairs of which one is right, and the decisions of
another judge in both orders). Rows are drawn by seed among those of at most --characters. Prints one JSON line a part,
each beside what the published judge, or a constant guess, has on the same rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from reasoner.graders.judge_model import JudgeModel
from verifiers import JSON, GradingRow, Verdict
from verifiers.judge.agreement import graded_agreement
from verifiers.judge.errors import JudgeFault
from verifiers.judge.judgments import Judgment, Record, read_judgment
from verifiers.judge.pairwise import SWAPPED, PairQuestion, compare_pairs
from verifiers.judge.questions import from_score_rubric
from verifiers.kit.judge_audits import PAIR_QUESTION

SETS = ("vicuna_eval", "mt_bench_eval")
PARTS = re.compile(
    r"###The instruction to evaluate:\n(?P<prompt>.*)\n###Response to evaluate:\n(?P<completion>.*)"
    r"\n###Reference Answer \(Score 5\):\n(?P<reference>.*)\n###Score Rubrics:\n\[(?P<criteria>.*?)\]\n(?P<levels>.*)"
    r"\n###Feedback:",
    re.DOTALL,
)
LEVEL = re.compile(r"^Score (\d): (.*)$", re.MULTILINE)
AT_ONCE = 10
"""Rows between two lines of progress on standard error."""


class Scored(NamedTuple):
    """An answer with a rubric of its own and GPT-4's three scores."""

    row: GradingRow
    scores: Sequence[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder, GGUF file or hub name")
    parser.add_argument("--scores", type=int, default=60, help="answers, half of each set; 0: none")
    parser.add_argument("--pairs", type=int, default=30, help="pairs; 0: none")
    parser.add_argument("--characters", type=int, default=4500, help="of the longest row that is drawn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", default="", help="SQLite file of replies; default: in memory")
    given = parser.parse_args()
    folder = Path(os.environ.get("REASONER_DATA_DIR") or parser.error("set REASONER_DATA_DIR to the folder of data"))
    judge = JudgeModel(model=given.model, cache=given.cache)
    chosen = random.Random(given.seed)
    if given.scores:
        rows = [
            one for name in SETS for one in _drawn(scored(folder, name, given.characters), given.scores // 2, chosen)
        ]
        print(json.dumps(measured_scores(judge, rows) | _about(given)), flush=True)
    if given.pairs:
        rows = _drawn(pairs(folder, given.characters), given.pairs, chosen)
        print(json.dumps(measured_pairs(judge, rows, folder) | _about(given)), flush=True)


def _about(given: argparse.Namespace) -> dict[str, JSON]:
    return {"model": Path(given.model).name, "seed": given.seed, "characters": given.characters}


def _drawn(rows: Iterator[Any], count: int, chosen: random.Random) -> list[Any]:
    listed = [*rows]
    return chosen.sample(listed, min(count, len(listed)))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        yield from map(json.loads, lines)


def scored(folder: Path, name: str, most: int) -> Iterator[Scored]:
    """Answers of one set; a row without the five parts is an error."""
    for row in _lines(folder / "rubric" / f"{name}.jsonl.gz"):
        found = PARTS.search(row["instruction"])
        if found is None:
            raise SystemExit(f"{name} row {row['idx']} has not the parts of a Prometheus prompt")
        if len(row["instruction"]) > most:
            continue
        levels = {f"score{level}_description": said for level, said in LEVEL.findall(found["levels"])}
        question = from_score_rubric(
            {"criteria": found["criteria"], **levels}, reference_answer=found["reference"].strip()
        )
        yield Scored(
            GradingRow(
                completion=found["completion"].strip(), reference=question.to_json(), prompt=found["prompt"].strip()
            ),
            row["gpt4_score"],
        )


def measured_scores(judge: JudgeModel, rows: Sequence[Scored]) -> dict[str, JSON]:
    """The judge's most likely level and its expectation, against the median of GPT-4's scores."""
    started, verdicts = time.perf_counter(), list[Verdict]()
    for at in range(0, len(rows), AT_ONCE):
        verdicts += judge.verify_batch([one.row for one in rows[at : at + AT_ONCE]])
        _progress("scores", len(verdicts), len(rows), started)
    kept = [(verdict, one.scores) for verdict, one in zip(verdicts, rows, strict=True) if verdict.reward is not None]
    medians = [float(statistics.median(scores)) for _, scores in kept]
    levels = [float(str(verdict.detail["level"])) for verdict, _ in kept]
    expected = [1 + 4 * (verdict.reward or 0.0) for verdict, _ in kept]
    commonest = Counter(medians).most_common(1)[0][0]
    return {
        "part": "scores",
        "rows": len(rows),
        "ungraded": len(rows) - len(kept),
        "level": graded_agreement(levels, medians),
        "levels_given": {f"{level:g}": count for level, count in sorted(Counter(levels).items())},
        "expectation": _correlations(expected, medians),
        "gpt4_with_itself": graded_agreement([float(s[0]) for _, s in kept], [float(s[1]) for _, s in kept]),
        "always_the_commonest": sum(median == commonest for median in medians) / len(medians),
        "mass_on_levels": statistics.fmean(float(str(verdict.detail["mass"])) for verdict, _ in kept),
        "tokens": sum(int(str(verdict.detail["tokens"])) for verdict, _ in kept),
        "seconds": time.perf_counter() - started,
    }


def _correlations(first: Sequence[float], second: Sequence[float]) -> dict[str, JSON]:
    found = graded_agreement(first, second)
    return {name: found[name] for name in ("mean_error", "pearson", "spearman", "kendall")}


def pairs(folder: Path, most: int) -> Iterator[Mapping[str, Any]]:
    """Pairs of JudgeBench."""
    for row in _lines(folder / "preferences" / "judgebench_claude35.jsonl.gz"):
        if sum(len(row[key]) for key in ("question", "response_A", "response_B")) <= most:
            yield row


def measured_pairs(judge: JudgeModel, rows: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, JSON]:
    """Accuracy in each order and in both, of the judge and of the published one on the same pairs."""
    started, found = time.perf_counter(), list[Judgment]()
    probabilities: list[tuple[float, str]] = []
    for at, row in enumerate(rows, 1):
        question = PairQuestion(PAIR_QUESTION, row["response_A"], row["response_B"], row["question"])
        (answer,) = compare_pairs(judge, [question])
        label = "first" if row["label"] == "A>B" else "second"
        sides = (None, None) if isinstance(answer, JudgeFault) else answer.sides
        found += [Judgment("judge", row["pair_id"], order == 1, sides[order], label) for order in (0, 1)]
        if not isinstance(answer, JudgeFault):
            probabilities.append((answer.probability, label))
        if at % AT_ONCE == 0:
            _progress("pairs", at, len(rows), started)
    published = Path(folder) / "rubric" / "judgebench_judgments.jsonl.gz"
    wanted = {row["pair_id"] for row in rows}
    others = [read_judgment(row) for row in _lines(published) if _is_of(row, wanted)]
    right = [(chance > 0.5) == (label == "first") for chance, label in probabilities if chance != 0.5]
    return {
        "part": "pairs",
        "judge": Record(judge="judge", judgments=found).to_json(),
        "by_mean_probability": [sum(right), len(right)],
        "shown_first_preferred": sum(
            (SWAPPED[one.decision] if one.swapped else one.decision) == "first" for one in found if one.decision
        )
        / max(1, sum(one.decision is not None for one in found)),
        "published": {name: Record(judge=name, judgments=of).to_json() for name, of in _by_name(others).items()},
        "seconds": time.perf_counter() - started,
    }


def _is_of(row: Mapping[str, Any], wanted: set[str]) -> bool:
    return row["response_model"].startswith("claude") and row["pair_id"] in wanted


def _by_name(judgments: Sequence[Judgment]) -> dict[str, list[Judgment]]:
    found: dict[str, list[Judgment]] = {}
    for one in judgments:
        found.setdefault(one.judge, []).append(one)
    return found


def _progress(part: str, done: int, total: int, started: float) -> None:
    import sys

    print(f"{part} {done} of {total}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
