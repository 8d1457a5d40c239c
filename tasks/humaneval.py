"""HumanEval (Chen et al., arXiv:2107.03374): complete a function from its signature and docstring."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.base import Problem
from tasks.code_sets.functions import humaneval_reference
from tasks.code_sets.rows import fitting
from tasks.programs import ProgramTask, fenced


class HumanEval(ProgramTask):
    """164 functions, each with a `check(candidate)`; for evaluation: there is only a test split.

    Options are those of ProgramTask; the hub's name is openai/openai_humaneval. For a base model that continues the
    prompt: `instruction="{problem}" verifier_options="{block: whole}"`.
    """

    name = "humaneval"
    splits = ("test",)
    hub_name = "openai/openai_humaneval"
    columns = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
    default_instruction = (
        "Complete this function. Answer with the whole function in one fenced Python block.\n\n"
        "```python\n{problem}```"
    )  # fmt: skip

    def problem(self, row: Mapping[str, object], number: int) -> Problem:
        prompt = str(row["prompt"])
        with fitting(f"humaneval row {number}"):
            reference = humaneval_reference(row)
        return self.made(
            id=str(row["task_id"]).rpartition("/")[2],
            problem=prompt,
            reference=reference,
            demonstration=fenced(prompt + str(row["canonical_solution"])),
        )
