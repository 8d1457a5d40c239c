"""Training data in a temporary file: the same draws, digests and splits as from lists."""

from __future__ import annotations

import hashlib
import json
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from reasoner.config.load import resolve
from reasoner.config.sections import PreferenceSection, SftSection
from reasoner.data.demonstrations import demonstrations_in, read_row
from reasoner.data.difficulty import Difficulty, DifficultySampler
from reasoner.data.overlap import find_overlaps
from reasoner.data.preferences import load_pairs
from reasoner.data.problems import gold_notes, load_problems
from reasoner.data.rows import Encoded, usable_rows
from reasoner.data.sampler import Mixture, ProblemSampler, summary
from reasoner.stages.sft import hold_back
from tasks import Problem
from tasks.inputs.spool import Joined, Spool

PROBLEMS = [
    Problem(id=f"t/{n}", prompt=f"What is {n} and {n * n % 7}?", reference=str(n), verifier="exact", task="t")
    for n in range(40)
]


def test_the_same_problems_are_drawn_as_of_a_list() -> None:
    spool = Spool(PROBLEMS)

    def drawn(problems: list[Problem] | Spool[Problem]) -> list[str]:
        known = Difficulty(decay=0.9)
        parts = [
            ProblemSampler(problems, seed=3),
            DifficultySampler(problems[5:], known, seed=3, group_size=4),
        ]
        mixture, found = Mixture(parts, [2.0, 1.0]), list[Problem]()
        for step in range(20):
            found += mixture.take(7)
            known.add(f"t/{step}", passes=2.0, fails=2.0, step=step)
            state = json.loads(json.dumps(mixture.state()))
        again = Mixture(
            [ProblemSampler(problems, seed=3), DifficultySampler(problems[5:], known, seed=3, group_size=4)], [2.0, 1.0]
        )
        again.restore(state)
        found += again.take(7)
        return [repr(problem) for problem in found]

    assert drawn(spool) == drawn(PROBLEMS)
    assert summary(Joined([spool[:10], spool[10:]])) == summary(PROBLEMS)
    held = [*PROBLEMS[:3], Problem(id="u", prompt="A question of its own", reference="1", verifier="exact")]
    assert find_overlaps(spool, held) == find_overlaps(PROBLEMS, held)
    assert [one.train for one in find_overlaps(spool, held)] == ["t/0", "t/1", "t/2"]


def test_rows_are_held_back_by_prompt_in_the_order_of_digests() -> None:
    source = random.Random(0)
    rows = [
        Encoded(id=str(n), prompt_ids=(source.randint(0, 30), 1), completion_ids=(n,), loss_mask=(True,))
        for n in range(100)
    ]

    def by_counting(count: int) -> tuple[list[Encoded], list[Encoded]]:
        prompts = Counter(row.prompt_ids for row in rows)
        held, left = set[tuple[int, ...]](), count
        for prompt in sorted(prompts, key=lambda ids: hashlib.blake2b(repr(ids).encode(), digest_size=8).digest()):
            if left <= 0:
                break
            held.add(prompt)
            left -= prompts[prompt]
        return [row for row in rows if row.prompt_ids not in held], [row for row in rows if row.prompt_ids in held]

    for count in (0, 1, 7, 50, 99, 100, 200):
        train, held = hold_back(Spool(rows), count)
        assert ([*train], [*held]) == by_counting(count)


def peak(work: Callable[[], object]) -> int:
    """Return the peak number of bytes of Python objects."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_data_of_a_run_is_in_no_memory(tmp_path: Path) -> None:
    path, long = tmp_path / "rows.jsonl", "x" * 40_000
    with path.open("w") as file:
        for n in range(400):  # 16 MB of each
            row = {"prompt": f"{n} {long}", "reference": "1", "completion": "1", "chosen": "1", "rejected": "2"}
            file.write(json.dumps(row) + "\n")
    options = {"path": str(path), "verifier": "exact"}
    stage = resolve({"method": "grpo", "model": "org/name", "task": {"name": "dataset", "options": options}}).stages[0]

    def problems() -> None:
        loaded = load_problems(stage)
        every = Joined(loaded.train)
        assert len(every) + sum(map(len, loaded.tested)) == 400
        assert gold_notes(every) == ""
        summary(Joined(Mixture([ProblemSampler(every, seed=0)], [1.0]).parts))

    def pairs() -> None:
        assert sum(len(side.pairs) for side in load_pairs(PreferenceSection(train=[str(path)]))) == 400

    def demonstrations() -> None:
        source = demonstrations_in(SftSection(data=[str(path)]), "train", [str(path)])
        assert len(usable_rows(source, read=lambda row, where: read_row(row))[0]) == 400

    problems()  # imports
    assert peak(problems) < 3_000_000
    assert peak(pairs) < 3_000_000
    assert peak(demonstrations) < 3_000_000
