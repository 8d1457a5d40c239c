"""Readers of the rows of evaluation sets, as published or copied: the question and its reference for a verifier.

Each takes a row and a random state for that row, and raises UnfitRow if the row is not of its format.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from tasks.bbh import SUBTASKS
from tasks.code_sets.functions import mbpp_plus_docstring, read_humaneval_plus, read_mbpp_plus
from tasks.code_sets.livecodebench import read_livecodebench
from tasks.code_sets.rows import CodeProblem
from tasks.inputs.formats import UnfitRow
from tasks.inputs.instruction_formats import read_ifeval
from tasks.inputs.problem_formats import read_gsm8k
from tasks.inputs.values import find, need, need_text, texts
from tasks.suites.suite import Asked, Row
from verifiers import JSON

LETTERS = "ABCDEFGHIJ"
LETTER = re.compile(r"\([A-Z]\)")
"""Target of a BIG-Bench Hard question with listed choices."""
STEM = (
    *("abstract_algebra", "astronomy", "college_biology", "college_chemistry", "college_computer_science"),
    *("college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering"),
    *("elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science"),
    *("high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning"),
)
"""The 18 subjects of MMLU that Minerva (arXiv:2206.14858) and Qwen2.5-Math count as STEM."""
EXAMPLE_CODE = "# YOUR CODE HERE"


def mathematics(row: Row, draw: random.Random) -> Asked:
    """Read a problem and its answer; without a column for the answer the reference is the whole solution."""
    answer = need(row, "answer", "final_answer", "expected_answer", "solution")
    return Asked(question=need_text(row, "problem", "question"), reference=_answer(answer))


def olympiad(row: Row, draw: random.Random) -> Asked:
    """Read a text-only problem of OlympiadBench; several final answers are joined by commas."""
    answers = texts(need(row, "final_answer"))
    if answers is None:
        raise UnfitRow(f"column 'final_answer' must be a list of answers; got {str(row['final_answer'])[:60]!r}")
    return Asked(
        question=need_text(row, "question", "problem"),
        reference=", ".join(one.strip().strip("$") for one in answers),
    )


def gsm8k(row: Row, draw: random.Random) -> Asked:
    """Read a question and a worked answer that ends in #### and a number."""
    found = read_gsm8k(row)
    return Asked(
        question=str(found["prompt"]),
        reference=str(found["reference"]),
        demonstration=str(found["demonstration"]),
    )


def gpqa(row: Row, draw: random.Random) -> Asked:
    """Read a question with its right answer and three wrong ones, in random order."""
    right = need_text(row, "correct answer", "correct_answer").strip()
    wrong = [need_text(row, f"incorrect answer {number}", f"incorrect_answer_{number}") for number in (1, 2, 3)]
    places = [0, 1, 2, 3]
    draw.shuffle(places)
    choices = [right, *(one.strip() for one in wrong)]
    return _letter(need_text(row, "question"), [choices[place] for place in places], places.index(0))


def mmlu_stem(row: Row, draw: random.Random) -> Asked | None:
    """Read a question of MMLU with its choices and the right one; None for a subject that is not STEM."""
    subject = str(find(row, "subject", "type"))
    if subject not in STEM:
        return None
    choices, right = texts(need(row, "choices")), need(row, "answer")
    place = LETTERS.find(right) if isinstance(right, str) and len(right) == 1 else right
    if choices is None or not isinstance(place, int) or not 0 <= place < len(choices):
        raise UnfitRow(f"must have a list of choices and the number of the right one; got {right!r:.40}")
    return _letter(need_text(row, "question"), [one.strip() for one in choices], place, part=subject)


def _letter(question: str, choices: Sequence[str], right: int, *, part: str = "") -> Asked:
    """Build a question with its choices below it; the reference is the letter of the right one."""
    listed = "\n".join(f"{letter}) {text}" for letter, text in zip(LETTERS, choices, strict=False))
    return Asked(question=f"{question.strip()}\n\n{listed}", reference=LETTERS[right], part=part)


def bbh(row: Row, draw: random.Random) -> Asked | None:
    """Read an input and its target; None for an unknown subtask.

    A letter in brackets is graded by `choice`, any other target by the suite's verifier.
    """
    subtask, target = need_text(row, "task", "subtask"), need_text(row, "target").strip()
    if subtask not in SUBTASKS:
        return None
    kind: str | None = "choice" if LETTER.fullmatch(target) else None
    return Asked(
        question=need_text(row, "input"),
        reference=target,
        part=subtask,
        verifier=kind,
        options={} if kind else None,
        demonstration=f"So the answer is {target}.",
    )


def humaneval_plus(row: Row, draw: random.Random) -> Asked:
    """Read a signature with docstring; tests compare with the canonical solution on EvalPlus's inputs."""
    return _program(read_humaneval_plus(row))


def mbpp_plus(row: Row, draw: random.Random) -> Asked:
    """Read a docstring that ends with one assertion; tests compare with the canonical solution on EvalPlus's inputs."""
    asked = f'```\n"""\n{mbpp_plus_docstring(row)}\n"""\n```'
    return replace(_program(read_mbpp_plus(row)), question=asked)


def _program(found: CodeProblem) -> Asked:
    return Asked(question=str(found.problem), reference=found.reference, demonstration=found.solution)


def livecodebench(row: Row, draw: random.Random) -> Asked:
    """Read a contest problem: a program with input and output, or a method of the class in the starter code.

    The prompt is that of LiveCodeBench's runner (lcb_runner/prompts/code_generation.py, 28fef95).
    """
    starter = str(row.get("starter_code") or "")
    asks = (
        "You will use the following starter code to write the solution to the problem and enclose your code within"
        " delimiters."
        if starter
        else "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the"
        " sample inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it"
        " reads the inputs, runs the algorithm and writes output to STDOUT."
    )
    question = need_text(row, "question_content")
    return Asked(
        question=f"### Question:\n{question}\n\n### Format: {asks}\n```python\n{starter or EXAMPLE_CODE}\n```",
        reference=read_livecodebench(row).reference,
    )


def ifeval(row: Row, draw: random.Random) -> Asked:
    """Read a prompt; the reference has the ids of its instructions and their arguments."""
    return Asked(question=need_text(row, "prompt"), reference=cast("JSON", read_ifeval(row)["reference"]))


def _answer(value: object) -> str:
    """Return an answer as text, 27.0 as 27.

    Raises:
        UnfitRow: it is neither text nor a number, or is blank.
    """
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
        raise UnfitRow(f"column 'answer' must be text or a number; got {str(value)[:60]!r}")
    return str(value).strip()
