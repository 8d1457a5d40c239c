"""The verifier anagram: many right answers, none of them written down."""

from __future__ import annotations

from verifiers import JSON, BadReference, Example, GradingRow, Outcome, Verdict, Verifier, fixed
from verifiers.answers.find import extract_answer


class Anagram(Verifier):
    """The final answer has the letters of the reference, each as often, in another order."""

    name = "anagram"
    reference_schema = {"type": "string", "minLength": 2}
    examples = (
        Example(completion="The answer is silent.", reference="listen", prompt="Rearrange the letters: listen"),
        Example(completion="The answer is listen.", reference="listen", outcome=Outcome.INCORRECT),
        Example(completion="The answer is silents.", reference="listen", outcome=Outcome.INCORRECT),
    )

    def check_reference(self, reference: JSON) -> None:
        """Words that have another arrangement at all."""
        if not isinstance(reference, str) or not reference.isalpha() or len(set(reference.lower())) < 2:
            raise BadReference(f"reference must be a word with two different letters; got {reference!r:.80}.")

    def grade(self, row: GradingRow) -> Verdict:
        """The verdict on one row."""
        self.check_reference(row.reference)
        word = str(row.reference).lower()
        found = extract_answer(row.completion)
        if found is None:
            return fixed(Outcome.NO_ANSWER, "the completion declares no final answer")
        answer = found.answer.strip().lower()
        if sorted(answer) != sorted(word):
            return fixed(Outcome.INCORRECT, f"not the letters of {word}", answer=answer[:100])
        if answer == word:
            return fixed(Outcome.INCORRECT, "the word itself", answer=answer)
        return fixed(Outcome.CORRECT, "the same letters in another order", answer=answer)
