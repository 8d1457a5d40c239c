"""CRUXEval (Gu et al., arXiv:2401.03065): predict a function's output, or an input that gives a stated output."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.base import Problem, TaskError
from tasks.code_sets.functions import cruxeval
from tasks.code_sets.rows import fitting
from tasks.programs import ProgramTask
from verifiers import JSON

ASKS: Mapping[str, str] = {
    "output": "Here is a function and an assertion about it that lacks its right side.",
    "input": "Here is a function and an assertion about it that lacks the arguments. Any that make it hold will do.",
}


class CruxEval(ProgramTask):
    """800 short functions, for evaluation: there is only a test split.

    Args:
        path: a file of rows; None: cruxeval-org/cruxeval from the hub.
        predict: output or input.
        instruction: the prompt; "{problem}" is replaced by the function and the assertion.
        verifier_options: options of the code verifier.
    Raises:
        TaskError: predict is neither output nor input.
    """

    name = "cruxeval"
    splits = ("test",)
    hub_name = "cruxeval-org/cruxeval"
    columns = ("code", "input", "output", "id")

    def __init__(
        self,
        *,
        path: str | None = None,
        predict: str = "output",
        instruction: str | None = None,
        verifier_options: Mapping[str, JSON] | None = None,
    ) -> None:
        if predict not in ASKS:
            raise TaskError(f"predict must be output or input; got {predict!r}.")
        self._predict = predict
        asked = f"{ASKS[predict]}\n\n{{problem}}\n\nEnd your answer with [ANSWER]the whole assertion[/ANSWER]."
        super().__init__(path=path, instruction=instruction or asked, verifier_options=verifier_options)

    def problem(self, row: Mapping[str, object], number: int) -> Problem:
        with fitting(f"cruxeval row {number}"):
            found = cruxeval(row, self._predict)
        return self.made(
            id=str(row["id"]),
            problem=str(found.problem),
            reference=found.reference,
            demonstration=found.solution,
        )
