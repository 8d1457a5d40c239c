"""Overlap between training and evaluation: planted copies are found, instruction text and chance are not."""

from __future__ import annotations

import random

from reasoner.data.overlap import find_overlaps, overlap_sentence
from tasks import Problem
from tasks.registry import get_task

INSTRUCTION = "Reason step by step, and put the final number of your answer into a box at the very end."


def problem(name: str, text: str) -> Problem:
    return Problem(id=name, prompt=f"{text}\n{INSTRUCTION}", reference="1", verifier="exact", task="t")


def texts(count: int, seed: int) -> list[str]:
    source = random.Random(seed)
    words = [f"word{i}" for i in range(400)]
    return [" ".join(source.choices(words, k=30)) for _ in range(count)]


def test_copies_are_found_and_nothing_else() -> None:
    train = [problem(f"train/{i}", text) for i, text in enumerate(texts(300, 0))]
    held_out = [problem(f"test/{i}", text) for i, text in enumerate(texts(100, 1))]
    copied = texts(300, 0)[7]
    held_out.append(problem("test/copy", copied.upper().replace(" ", "  ")))
    words = copied.split()
    held_out.append(problem("test/two-thirds", " ".join([*words[:20], *texts(1, 2)[0].split()[:10]])))
    held_out.append(problem("test/a-third", " ".join([*words[:10], *texts(1, 3)[0].split()[:20]])))
    found = find_overlaps(train, held_out)
    assert [(one.held_out, one.train) for one in found] == [("test/copy", "train/7"), ("test/two-thirds", "train/7")]
    assert found[0].share == 1.0
    assert 0.5 < found[1].share < 0.8
    assert "2 of 103 evaluation problems" in overlap_sentence(found, held_out=103, train=300)


def test_short_problems_must_be_equal() -> None:
    train = [Problem(id=f"a{i}", prompt=f"{i}+{i}=?", reference="1", verifier="exact", task="t") for i in range(50)]
    held_out = [Problem(id="x", prompt="7 + 7 = ?", reference="1", verifier="exact", task="t"),
                Problem(id="y", prompt="7+8=?", reference="1", verifier="exact", task="t")]  # fmt: skip
    assert [(one.held_out, one.train) for one in find_overlaps(train, held_out)] == [("x", "a7")]


def test_a_task_of_ours_keeps_its_splits_apart() -> None:
    task = get_task("arithmetic", family="addition", digits=2)
    assert not find_overlaps(task.problems("train"), task.problems("test"))


def template(count: int, seed: int, name: str) -> list[Problem]:
    """Sentences with two numbers in them."""
    source = random.Random(seed)
    return [
        Problem(
            id=f"{name}/{i}",
            prompt=f"A farmer has {source.randrange(10_000)} sheep in one field and {source.randrange(10_000)} cows in"
            f" another; {source.choice(['Ann', 'Bob', 'Cid'])} asks how many animals there are in the two fields.",
            reference="1",
            verifier="exact",
            task="template",
        )
        for i in range(count)
    ]


def test_problems_of_one_template_are_not_copies_but_equal_ones_are() -> None:
    train, held_out = template(60, 0, "train"), template(40, 1, "test")
    assert not find_overlaps(train, held_out)
    copy = Problem(id="test/copy", prompt=train[3].prompt, reference="1", verifier="exact", task="template")
    assert [(one.held_out, one.train, one.share) for one in find_overlaps(train, [*held_out, copy])] == [
        ("test/copy", "train/3", 1.0)
    ]


def test_a_template_task_does_not_hide_copies_of_another_task() -> None:
    natural = [problem(f"natural/{i}", text) for i, text in enumerate(texts(300, 0))]
    words = texts(300, 0)[7].split()
    near = problem("test/near", " ".join([*words[:20], *texts(1, 2)[0].split()[:10]]))
    found = find_overlaps([*template(60, 0, "train"), *natural], [*template(40, 1, "test"), near])
    assert [(one.held_out, one.train) for one in found] == [("test/near", "natural/7")]


def test_training_problems_that_resemble_each_other_do_not_hide_a_contaminated_evaluation() -> None:
    """One training problem in twenty has a near copy among the others; one in five of the evaluation does."""
    own = texts(400, 0)

    def altered(text: str, seed: int) -> str:
        return " ".join([*text.split()[:20], *texts(1, seed)[0].split()[:10]])

    train = [problem(f"train/{i}", text) for i, text in enumerate([*own, *(altered(own[i], 9 + i) for i in range(10))])]
    clean = [problem(f"test/{i}", text) for i, text in enumerate(texts(80, 1))]
    copied = [problem(f"test/near{i}", altered(own[100 + i], 99 + i)) for i in range(20)]
    assert {one.held_out for one in find_overlaps(train, [*clean, *copied])} == {p.id for p in copied}
    assert not find_overlaps(train, [*clean, *copied[:5]])
