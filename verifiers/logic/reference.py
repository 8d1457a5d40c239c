"""References of the logic verifier: objects of one of the KINDS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from verifiers.errors import BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.logic.formula import FormulaError
from verifiers.verdict import JSON

KINDS: Mapping[str, tuple[str, ...]] = {
    "model": ("formulas", "values", "smtlib"),
    "entailment": ("premises", "claim", "label", "domain", "smtlib"),
    "consistency": ("formulas", "label", "domain", "smtlib"),
    "equivalence": ("formula", "form", "max_operators", "domain", "smtlib"),
    "translation": ("formula", "domain", "smtlib"),
    "proof": ("premises", "goal"),
}
"""Kind -> the keys that its references may have."""
FORMS = ("any", "cnf", "dnf", "nnf", "pnf")
WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "entailment": {
        "entailed": ("entailed", "yes", "true", "valid", "it follows", "follows", "entailment", "proved", "proven"),
        "contradicted": ("contradicted", "false", "contradiction", "refuted", "disproved", "disproven"),
        "unknown": (
            "unknown", "uncertain", "undetermined", "neither", "cannot be determined", "neutral", "undecided",
            "not determined", "it cannot be determined", "can not be determined", "unsure", "indeterminate",
        ),
        "not entailed": ("no", "not entailed", "invalid", "does not follow", "not valid"),
    },
    "consistency": {
        "consistent": ("consistent", "satisfiable", "sat", "yes", "true"),
        "inconsistent": ("inconsistent", "unsatisfiable", "unsat", "contradictory", "no", "false"),
    },
}  # fmt: skip
"""For kinds whose answer is a label: label -> the words for it."""
NOT_ENTAILED = "not entailed"
"""An answer that leaves open whether the claim is contradicted; never the label of a reference."""


def label_in(kind: str, text: str) -> str | None:
    """Return the label that the words mean; None if they mean none."""
    plain = " ".join("".join(" " if mark in "*$.`\"'()_" else mark for mark in text).lower().split())
    return next((label for label, words in WORDS[kind].items() if plain in words), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A reference of the logic verifier; fields that its kind lacks are empty."""

    kind: str
    formulas: tuple[str, ...]
    values: Mapping[str, JSON]
    premises: tuple[str, ...]
    claim: str | None
    label: str | None
    """A label of WORDS[kind]; None: z3 finds it."""
    formula: str
    goal: str
    form: str
    max_operators: int | None
    domain: tuple[str, ...] | None
    """Names of all existing objects; None: any domain."""
    smtlib: str | None
    """Declarations, under which formulas are SMT-LIB terms; None: formulas are in our own language."""


def read_reference(reference: JSON) -> Reference:
    """Parse a reference and check its fields.

    Raises:
        BadReference: it is malformed.
    """
    given = reference if is_object(reference) else {}
    kind = given.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadReference(
            f"reference must be an object whose kind is one of {', '.join(KINDS)}; got {reference!r:.80}."
        )
    unknown = set(given) - set(KINDS[kind]) - {"kind"}
    if unknown:
        raise BadReference(f"a reference of kind {kind} has {', '.join(KINDS[kind])}; got {min(unknown)!r}.")
    label = _label(given, kind)
    bare = kind in WORDS and label is not None and not set(given) - {"kind", "label"}
    wanted = () if bare else KINDS[kind]
    form, values, limit, smtlib = (given.get(key) for key in ("form", "values", "max_operators", "smtlib"))
    read = Reference(
        kind=kind,
        formulas=_texts(given, "formulas") if "formulas" in wanted else (),
        values=values if is_object(values) else {},
        premises=_texts(given, "premises") if "premises" in wanted else (),
        claim=_text(given, "claim") if "claim" in wanted else None,
        label=label,
        formula=_text(given, "formula") if "formula" in wanted else "",
        goal=_text(given, "goal") if "goal" in wanted else "",
        form=str(given.get("form", "any")),
        max_operators=limit if isinstance(limit, int) else None,
        domain=_domain(given.get("domain")),
        smtlib=None if smtlib is None else str(smtlib),
    )
    if read.form not in FORMS:
        raise BadReference(f"form must be one of {', '.join(FORMS)}; got {form!r:.80}.")
    if read.domain is not None and read.smtlib is not None:
        raise BadReference("domain and smtlib exclude each other: declare a datatype in smtlib instead.")
    return read


def _label(given: Mapping[str, JSON], kind: str) -> str | None:
    said = given.get("label")
    if said is None:
        return None
    label = label_in(kind, str(said)) if kind in WORDS else None
    if label is None or label == NOT_ENTAILED:
        raise BadReference(
            f"label must be one of {', '.join(WORDS.get(kind, ()))}, or a word for it; got {said!r:.80}."
        )
    return label


def _domain(value: JSON) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = [name for name in value if isinstance(name, str)] if is_list(value) else []
    if not is_list(value) or not names or len(set(names)) < len(value):
        raise BadReference(f"domain must be a list of different names, at least one; got {value!r:.80}.")
    return tuple(names)


def _texts(given: Mapping[str, JSON], key: str) -> tuple[str, ...]:
    value = given.get(key)
    listed = value
    if isinstance(value, str) and (key == "formulas" or "\n" in value):
        listed = [line for line in value.split("\n") if line.strip()]
    texts = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
    if not isinstance(listed, list) or len(texts) < len(listed):
        raise BadReference(f"{key} must be a list of formulas; got {value!r:.80}.")
    return tuple(texts)


def _text(given: Mapping[str, JSON], key: str) -> str:
    value = given.get(key)
    if not isinstance(value, str):
        raise BadReference(f"{key} must be a formula; got {value!r:.80}.")
    return value


def no_formula(error: FormulaError) -> BadReference:
    """Return the error for a reference whose formulas cannot be parsed."""
    return BadReference(f"reference has an invalid formula: {error}")


__all__ = ["KINDS", "NOT_ENTAILED", "WORDS", "Reference", "label_in", "no_formula", "read_reference"]
