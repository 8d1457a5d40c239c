"""`method: constitutional`: a model criticizes, revises and compares its own answers according to written principles.

Following Constitutional AI (Bai et al., arXiv:2212.08073): sections 3.1 (critique and revision, whose results are used
for SFT) and 4.1 (AI feedback: the model is asked which of two answers a principle prefers, by its probabilities of two
letters). Our addition: each comparison is asked in both orders, and a preference that depends on the order is a tie. A
separate judge (`constitutional.judge`) may compare instead of the model; a comparison that it does not answer gives no
pair.

The stage trains nothing. Besides the usual records it writes:
  transcripts.jsonl   every answer with its critiques and revisions, every comparison with both orders' probabilities
  sft.jsonl           {prompt, completion}: the last revisions            (`stage:NAME/sft` in a later stage)
  pairs.jsonl         {prompt, first, second, label, probability}         (`stage:NAME`): revision against answer, and
                      answers to one prompt against each other
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from reasoner import processes
from reasoner.config.errors import ConfigError
from reasoner.config.methods import PAIRS_FILE, SFT_FILE
from reasoner.config.sections import VerifierSection
from reasoner.data.prompt import render
from reasoner.records import Problem, Request, Rollout, RolloutGroup, prompt_as_text
from reasoner.rollout.grading import turns
from reasoner.rollout.round import training_params
from reasoner.seeds import request_seed
from reasoner.session.session import Session
from reasoner.session.step_record import StepRecord
from reasoner.stages.principles import Principle, load_principles
from reasoner.stages.sample_pairs import write_rows
from verifiers import JSON, get_verifier
from verifiers.jsonl import read_jsonl
from verifiers.judge.errors import JudgeFault
from verifiers.judge.pairwise import PairQuestion, compare_pairs
from verifiers.judge.structure import without_structure
from verifiers.judge.verifier import ModelJudge

TRANSCRIPTS_FILE = "transcripts.jsonl"


class Revised(NamedTuple):
    """An answer's latest revision, and the critiques and revisions that led to it."""

    rollout: Rollout
    text: str
    rounds: list[dict[str, JSON]]


def constitutional(session: Session) -> None:
    """Sample, criticize, revise and compare in all remaining steps; then write the data for later stages."""
    config = session.config
    if processes.count() > 1:
        raise ConfigError(
            "bad-value", "method constitutional runs in a single process; use several vLLM servers instead."
        )
    principles = load_principles(config.constitutional.principles)
    if session.fresh:
        session.checkpoint()
    for step in range(session.step + 1, config.steps + 1):
        record = StepRecord(session, step)
        for _ in record.rollouts(session.producer.groups(step)):
            pass  # rollouts are written as they are yielded
        answers = [
            (group, sample, rollout)
            for group, one in enumerate(record.groups)
            for sample, rollout in enumerate(one.rollouts)
        ]
        with record.part("revise"):
            revised = revise(session, [rollout for *_, rollout in answers], principles, step=step)
        rows: list[dict[str, JSON]] = [
            {"step": step, "group": group, "sample": sample, **transcript(one)}
            for (group, sample, _), one in zip(answers, revised, strict=True)
        ]
        with record.part("compare"):
            compared = compare(session, record.groups, principles, step=step)
        session.run.append(TRANSCRIPTS_FILE, [*rows, *compared])
        record.finish(shares(rows, compared), shown=False)
        session.end_step()
    session.checkpoint()
    write_lessons(session)


def shares(rows: Sequence[Mapping[str, JSON]], compared: Sequence[Mapping[str, JSON]]) -> dict[str, float]:
    """Return the share of answers changed by revisions, the share of decided comparisons, and the number of faults."""
    changed = sum(row["answer"] != row["revision"] for row in rows) / max(1, len(rows))
    labels = [row["label"] for row in compared if "label" in row]
    return {
        "constitutional/changed": changed,
        "constitutional/agreed": sum(label != "tie" for label in labels) / max(1, len(labels)),
        "constitutional/faults": float(len(compared) - len(labels)),
    }


def revise(
    session: Session, rollouts: Sequence[Rollout], principles: Sequence[Principle], *, step: int
) -> list[Revised]:
    """Run rounds of critique and revision. The principle is drawn at random for each answer and round."""
    section, seed = session.config.constitutional, session.config.seed
    found = [Revised(rollout, rollout.completion.text.strip(), []) for rollout in rollouts]
    for turn in range(section.rounds):
        chosen = [random.Random(f"{seed} {step} {at} {turn}").choice(principles) for at in range(len(found))]

        def about(template: str, at: int, **more: str) -> str:
            return about_answer(template, found[at].rollout.problem, found[at].text, **more)  # noqa: B023

        asked = [about(section.critique, at, principle=one.critique) for at, one in enumerate(chosen)]
        critiques = sample_texts(session, asked, seed_parts=(seed, step, turn, "critique"))
        asked = [
            about(section.revision, at, principle=one.revision, critique=without_structure(critiques[at]))
            for at, one in enumerate(chosen)
        ]
        revisions = sample_texts(session, asked, seed_parts=(seed, step, turn, "revision"))
        found = [
            Revised(
                one.rollout,
                new or one.text,  # an empty revision is ignored
                [*one.rounds, {"principle": principle.name, "critique": critique, "revision": new}],
            )
            for one, principle, critique, new in zip(found, chosen, critiques, revisions, strict=True)
        ]
    return found


def about_answer(template: str, problem: Problem, answer: str, **more: str) -> str:
    """A prompt about an answer, which is shown without tokens of chat templates and invisible characters."""
    return fill(template, {"prompt": prompt_as_text(problem.prompt), "answer": without_structure(answer), **more})


def fill(template: str, given: Mapping[str, str]) -> str:
    """Fill in the {names} of a template in one pass: braces in the inserted texts are left as they are.

    Example:
        >>> fill("{answer}?", {"answer": "{critique}", "critique": "x"})
        '{critique}?'
    """
    parts = [template]
    for name, text in given.items():
        mark = f"{{{name}}}"
        parts = [
            piece for at, part in enumerate(parts) for piece in ([part] if at % 2 else _between(part.split(mark), text))
        ]
    return "".join(parts)


def _between(pieces: Sequence[str], text: str) -> list[str]:
    """Alternate pieces with the inserted text, so that every odd item is finished text."""
    return [part for piece in pieces for part in (piece, text)][:-1]


def sample_texts(session: Session, prompts: Sequence[str], *, seed_parts: tuple[int | str, ...]) -> list[str]:
    """Sample one completion per prompt from the engine, with the training distribution."""
    problems = [
        Problem(id=f"constitutional/{at}", prompt=prompt, reference=None, verifier="exact")
        for at, prompt in enumerate(prompts)
    ]
    rendered = render(problems, session.policy.tokenizer, session.config.prompt)
    requests = [
        Request(prompt_ids=prompt.ids, seed=request_seed(*seed_parts, at)) for at, prompt in enumerate(rendered)
    ]
    texts = [""] * len(prompts)
    for index, completion in session.producer.rounds.generate(requests, training_params(session.config)):
        texts[index] = completion.text.strip()
    return texts


class Question(NamedTuple):
    """Two answers to one prompt, and the principle by which they are compared."""

    group: int
    problem: Problem
    principle: Principle
    first: str
    second: str

    def swapped(self) -> Question:
        """Return the question with its answers in the other order."""
        return self._replace(first=self.second, second=self.first)


def comparison_text(template: str, question: Question) -> str:
    """A prompt that compares two answers, which are shown without tokens of chat templates."""
    given = {"prompt": prompt_as_text(question.problem.prompt), "principle": question.principle.comparison}
    return fill(
        template, {**given, "first": without_structure(question.first), "second": without_structure(question.second)}
    )


def compare(
    session: Session, groups: Sequence[RolloutGroup], principles: Sequence[Principle], *, step: int
) -> list[dict[str, JSON]]:
    """Compare samples 0 and 1 of each group, 2 and 3, ..., under a random principle and in both orders.

    Empty or equal answers are not compared. Returns one transcript row per comparison.
    """
    asked: list[Question] = []
    for group, held in enumerate(groups):
        for at, (one, other) in enumerate(zip(held.rollouts[0::2], held.rollouts[1::2], strict=False)):
            first, second = one.completion.text.strip(), other.completion.text.strip()
            if first == second or not first or not second:
                continue
            chosen = random.Random(f"{session.config.seed} {step} {group} {at} compare").choice(principles)
            asked.append(Question(group, one.problem, chosen, first, second))
    section = session.config.constitutional
    said = own_preferences(session, asked) if section.judge is None else judge_preferences(section.judge, asked)
    rows: list[dict[str, JSON]] = []
    for one, chances in zip(asked, said, strict=True):
        sides: dict[str, JSON] = {"first": one.first, "second": one.second, "principle": one.principle.name}
        found: dict[str, JSON] = (
            {"fault": str(chances)}
            if isinstance(chances, JudgeFault)
            else {
                "chances": list(chances),
                "probability": sum(chances) / 2,
                "label": label_of(*chances, section.margin),
            }
        )
        rows.append({"step": step, "group": one.group, **as_prompt(one.problem), **sides, **found})
    return rows


def label_of(straight: float, swapped: float, margin: float) -> str:
    """Return the side that both orders prefer, if their mean differs from one half by at least the margin; else "tie".

    Example:
        >>> label_of(0.9, 0.8, 0.1), label_of(0.9, 0.4, 0.1), label_of(0.1, 0.3, 0.1), label_of(0.51, 0.52, 0.1)
        ('first', 'tie', 'second', 'tie')
    """
    if abs((straight + swapped) / 2 - 0.5) < margin:
        return "tie"
    return "first" if min(straight, swapped) > 0.5 else "second" if max(straight, swapped) < 0.5 else "tie"


class Chances(NamedTuple):
    """Probabilities that the first answer of a comparison is the better one."""

    straight: float
    """Probability if it is shown first."""
    swapped: float
    """Probability if it is shown second."""


def own_preferences(session: Session, questions: Sequence[Question]) -> list[Chances]:
    """Return the model's preferences in both orders, from the next-token probabilities of the two letters.

    The probability of the first letter is exp(l_A) / (exp(l_A) + exp(l_B)).
    """
    section, tokenizer = session.config.constitutional, session.policy.tokenizer
    prompts: list[Problem] = []
    for one in (order for question in questions for order in (question, question.swapped())):
        text = comparison_text(section.comparison, one)
        prompts.append(Problem(id="constitutional/compare", prompt=text, reference=None, verifier="exact"))
    letters = {
        letter: cast("list[int]", tokenizer(letter, add_special_tokens=False)["input_ids"])
        for letter in section.letters
    }
    rendered = render(prompts, tokenizer, session.config.prompt)
    first = [chance for chance, _ in session.engine.choose([prompt.ids for prompt in rendered], letters)]
    return [Chances(straight, 1 - swapped) for straight, swapped in zip(first[0::2], first[1::2], strict=True)]


def judge_preferences(judge: VerifierSection, questions: Sequence[Question]) -> list[Chances | JudgeFault]:
    """Return a separate judge's preferences in both orders, or its fault if it gives no answer."""
    made = get_verifier(judge.name, **judge.options)
    if not isinstance(made, ModelJudge):
        raise ConfigError("bad-value", f"constitutional.judge must be judge or judge-model; got {judge.name!r}.")
    found = compare_pairs(
        made,
        [
            PairQuestion(one.principle.comparison, one.first, one.second, prompt_as_text(one.problem.prompt))
            for one in questions
        ],
    )
    return [one if isinstance(one, JudgeFault) else Chances(*one.chances) for one in found]


def transcript(one: Revised) -> dict[str, JSON]:
    """Return an answer with its critiques and revisions, as a JSON row."""
    return {
        **as_prompt(one.rollout.problem),
        "answer": one.rollout.completion.text.strip(),
        "rounds": cast("JSON", one.rounds),
        "revision": one.text,
    }


def as_prompt(problem: Problem) -> dict[str, JSON]:
    """Return a problem's prompt in the format of data rows."""
    prompt = problem.prompt
    return {"prompt": prompt if isinstance(prompt, str) else turns(prompt)}


def write_lessons(session: Session) -> None:
    """Write sft.jsonl and pairs.jsonl from the stage's transcripts."""
    lessons: list[dict[str, JSON]] = []
    pairs: list[dict[str, JSON]] = []
    for number, row in read_jsonl(session.run.path / TRANSCRIPTS_FILE):
        name = f"{row['step']}/{row['group']}/{number - 1}"
        if "fault" in row:
            continue
        if "label" in row:
            kept = {key: row[key] for key in ("prompt", "first", "second", "label", "probability")}
            pairs.append({"id": name, **kept, "category": "comparison"})
            continue
        lessons.append({"prompt": row["prompt"], "completion": row["revision"]})
        if row["revision"] != row["answer"] and row["answer"]:
            sides: dict[str, JSON] = {"first": row["revision"], "second": row["answer"], "label": "first"}
            pairs.append({"id": name, "prompt": row["prompt"], **sides, "probability": 1.0, "category": "revision"})
    if session.config.constitutional.labels == "shuffled":
        pairs = shuffled(pairs, seed=session.config.seed)
    write_rows(session.run.path / SFT_FILE, lessons)
    write_rows(session.run.path / PAIRS_FILE, pairs)
    session.display.note(f"{len(lessons)} revisions and {len(pairs)} pairs in {session.run.path}")


def shuffled(pairs: Sequence[Mapping[str, JSON]], *, seed: int) -> list[dict[str, JSON]]:
    """Swap the label of each pair with probability 1/2, as a control from which nothing can be learned."""
    coin = random.Random(f"{seed} shuffled")
    return [pair if coin.random() < 0.5 else turned(pair) for pair in map(dict, pairs)]


def turned(pair: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return the pair with the opposite preference.

    Example:
        >>> turned({"first": "a", "label": "first", "probability": 0.75})
        {'first': 'a', 'label': 'second', 'probability': 0.25}
    """
    opposite = {"first": "second", "second": "first", "tie": "tie"}[str(pair["label"])]
    return {**pair, "label": opposite, "probability": 1 - cast("float", pair["probability"])}
