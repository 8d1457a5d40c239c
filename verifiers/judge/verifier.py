"""`judge`: a model behind an OpenAI-compatible endpoint gives a completion a level on a question. Needs no torch."""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from verifiers.answers.find import strip_thinking
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.jsonl import is_list, is_object
from verifiers.judge.asker import Answer, Asker
from verifiers.judge.budget import Meter, Usage
from verifiers.judge.cache import ReplyCache, default_cache
from verifiers.judge.chat import ChatRequest, Reply
from verifiers.judge.endpoint import Endpoint
from verifiers.judge.errors import JudgeFault
from verifiers.judge.models import same_model
from verifiers.judge.prompts import PROMPT_VERSION, Prompt, checklist_prompt, grading_prompt
from verifiers.judge.questions import QUESTION_SCHEMA, Question, questions_in
from verifiers.judge.replies import Judged, read_checklist, read_reply
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

SCORES = ("level", "expectation")
MAX_CHARACTERS = 100_000
TOP_LOGPROBS = 20


class Asked(NamedTuple):
    """A prompt, and how its reply is parsed."""

    prompt: Prompt
    data: Sequence[str]
    """Texts that the evidence may quote."""
    key: str = "level"
    """JSON key of the choice: level, or better."""
    listed: int = 0
    """Questions of a checklist; 0: the prompt asks a single question, and the keys of its reply have no number."""


class Vote(NamedTuple):
    """Result of one call: an answer to each question of its prompt."""

    judged: Sequence[Judged]
    answer: Answer


_CAPITAL: JSON = {
    "question": "Does the text name the capital of France rightly?",
    "levels": [
        {"level": 1, "description": "It names no town, or a wrong one."},
        {"level": 2, "description": "It names Paris beside other towns, and does not decide."},
        {"level": 3, "description": "It says that Paris is the capital."},
    ],
}


class ModelJudge(Verifier):
    """Base of all judges, independent of what runs the model; subclasses provide the `Asker`.

    Args:
        scores: level: the reward of the level that the judge chose; expectation: the mean reward over its
            probabilities of the levels (needs log-probabilities).
        repeats: how often each question is asked, with different seeds; the reward is the mean. More than 1 needs a
            temperature above 0.
        orders: 2: each question is asked with its levels in rising and in falling order; the reward is the mean.
        temperature: sampling temperature of the judge.
        max_tokens: of a reply, for each question that it answers.
        max_characters: of a completion without its thinking; a longer one is limit_exceeded.
        canary: insert an instruction into the data of each prompt; a judge that follows it is treated as faulty
            (prompt-injection check).
    Raises:
        BadOption: an option is out of range.
    """

    in_process = True
    reference_schema = QUESTION_SCHEMA
    injectable = True
    checklists: bool = True
    """True: several questions can be asked in one call."""
    asked_model: str = ""
    """Name of the requested model; empty if it runs in this process."""
    examples = (
        Example(completion="The capital of France is Paris.", reference=_CAPITAL, prompt="Capital of France?"),
        Example(
            completion="The capital of France is Lyon.",
            reference=_CAPITAL,
            prompt="Capital of France?",
            outcome=Outcome.INCORRECT,
        ),
    )

    def __init__(
        self,
        *,
        scores: str = "level",
        repeats: int = 1,
        orders: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        max_characters: int = MAX_CHARACTERS,
        canary: bool = True,
    ) -> None:
        if scores not in SCORES:
            raise BadOption(f"scores must be one of {', '.join(SCORES)}; got {scores!r}.")
        if repeats < 1 or max_tokens < 1 or max_characters < 1:
            raise BadOption(
                f"repeats, max_tokens and max_characters must be >= 1; got {repeats}, {max_tokens}, {max_characters}."
            )
        if orders not in (1, 2):
            raise BadOption(f"orders must be 1 or 2: rising levels, or rising and falling; got {orders}.")
        if not 0 <= temperature <= 2 or (repeats > 1 and temperature == 0):
            raise BadOption(
                f"temperature must be from 0 to 2, and above 0 with repeats, which would otherwise all be equal; got"
                f" {temperature} with repeats={repeats}."
            )
        self._scores, self._repeats, self._orders, self._temperature = scores, repeats, orders, temperature
        self._max_tokens, self._max_characters, self.canary = max_tokens, max_characters, canary

    @property
    def asker(self) -> Asker:
        """The judge model with its cache and its meter."""
        raise NotImplementedError

    @property
    def usage(self) -> Usage:
        """Calls, tokens and cost so far, of all judges in this process with the same options."""
        return self.asker.meter.usage

    @property
    def meter(self) -> Meter:
        """Counter of its calls and tokens; judges with the same options share one."""
        return self.asker.meter

    def check_reference(self, reference: JSON) -> None:
        questions = questions_in(reference)
        if len(questions) > 1 and not self.checklists:
            raise BadReference(f"{self.name} with these options answers one question per call; got {len(questions)}.")

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """Grade all rows with one round of calls; a row with a bad reference does not affect the others."""
        verdicts: dict[int, Verdict] = {}
        asked: dict[int, tuple[tuple[Question, ...], list[Asked]]] = {}
        for at, row in enumerate(rows):
            try:
                self.check_reference(row.reference)
                questions = questions_in(row.reference)
            except BadReference as error:
                verdicts[at] = fixed(Outcome.BAD_REFERENCE, str(error))
                continue
            text = strip_thinking(row.completion).strip()
            if not text:
                verdicts[at] = fixed(Outcome.NO_ANSWER, "the completion has no text outside its thinking")
            elif len(text) > self._max_characters:
                reason = f"a judge reads {self._max_characters} characters; this completion has {len(text)}"
                verdicts[at] = fixed(Outcome.LIMIT_EXCEEDED, reason)
            else:
                is_list = isinstance(row.reference, dict) and "questions" in row.reference
                asked[at] = (questions, self._asked(questions, text, conversation(row), is_list=is_list))
        votes = iter(self.ask_all([one for _, put in asked.values() for one in put]))
        for at, (questions, put) in asked.items():
            replies = [vote for _ in put for vote in next(votes)]
            verdicts[at] = (
                self._listed(questions, replies) if put[0].listed else self._verdict(questions[0], replies, 0)
            )
        return [verdicts[at] for at in range(len(rows))]

    def _asked(self, questions: Sequence[Question], text: str, prompt: str | None, *, is_list: bool) -> list[Asked]:
        """Build the prompts of one row, one for each order of the levels."""
        found: list[Asked] = []
        for reverse in (False, True)[: self._orders]:
            if is_list:
                made = checklist_prompt(
                    questions=questions, completion=text, prompt=prompt, canary=self.canary, reverse=reverse
                )
            else:
                made = grading_prompt(
                    question=questions[0], completion=text, prompt=prompt, canary=self.canary, reverse=reverse
                )
            found.append(Asked(made, [text], listed=len(questions) if is_list else 0))
        return found

    def ask_all(self, asked: Sequence[Asked]) -> list[list[Vote | JudgeFault]]:
        """Ask each prompt `repeats` times, all at once.

        Returns:
            For each prompt, in order, its `repeats` votes or faults.
        """
        shares = self._scores == "expectation"
        put = [(one, repeat) for one in asked for repeat in range(self._repeats)]
        requests = [
            ChatRequest(
                turns=one.prompt.turns,
                schema=one.prompt.schema,
                max_tokens=self._max_tokens * max(1, one.listed),
                temperature=self._temperature,
                seed=repeat,
                top_logprobs=TOP_LOGPROBS if shares else 0,
            )
            for one, repeat in put
        ]
        readers = [functools.partial(_read, asked=one, shares=shares) for one, _ in put]
        votes = [
            answer if isinstance(answer, JudgeFault) else Vote(*answer) for answer in self.asker.ask(requests, readers)
        ]
        return [votes[at : at + self._repeats] for at in range(0, len(votes), self._repeats)]

    def _models(self, judged: Judged) -> dict[str, JSON]:
        """Return `model`, if the server reports it, and `asked_model`, if that is another one."""
        if not judged.model:
            return {}
        names: dict[str, JSON] = {"model": judged.model}
        if self.asked_model and not same_model(self.asked_model, judged.model):
            names["asked_model"] = self.asked_model
        return names

    def _verdict(self, question: Question, votes: Sequence[Vote | JudgeFault], at: int) -> Verdict:
        """Build the verdict on the question at index `at` of the prompt, from all votes."""
        fault = next((vote for vote in votes if isinstance(vote, JudgeFault)), None)
        if fault is not None:
            return fixed(Outcome.VERIFIER_ERROR, f"{type(fault).__name__}: {fault}")
        usable = [vote for vote in votes if not isinstance(vote, JudgeFault)]
        judged = [vote.judged[at] for vote in usable]
        rewards = [
            math.fsum(share * question.reward_of(level) for level, share in one.shares.items()) for one in judged
        ]
        first = judged[0]
        detail: dict[str, JSON] = {
            "level": first.choice,
            "evidence": first.evidence,
            "quoted": first.quoted,
            "tokens": sum(vote.answer.reply.prompt_tokens + vote.answer.reply.completion_tokens for vote in usable),
            "cost": math.fsum(vote.answer.cost for vote in usable),
        }
        detail |= self._models(first)
        if self._scores == "expectation":
            detail["shares"] = {str(level): round(share, 6) for level, share in first.shares.items()}
            detail["mass"] = round(first.mass, 6)
        if len(usable) > 1:
            detail["levels"] = [one.choice for one in judged]
        reward = min(1.0, max(0.0, round(math.fsum(rewards) / len(rewards), 9)))
        verdict = graded(reward, first.reason or f"level {first.choice}")
        return replace(verdict, detail={**verdict.detail, **detail})

    def _listed(self, questions: Sequence[Question], votes: Sequence[Vote | JudgeFault]) -> Verdict:
        """Build the verdict on a checklist: the mean reward, with that of each question in `detail["answers"]`."""
        each = [self._verdict(question, votes, at) for at, question in enumerate(questions)]
        if not each[0].graded:
            return each[0]
        rewards = [one.reward or 0.0 for one in each]
        answers: list[JSON] = [
            {"reward": one.reward, **{key: value for key, value in one.detail.items() if key not in ("tokens", "cost")}}
            for one in each
        ]
        worst = min(each, key=lambda one: one.reward or 0.0)
        joined = graded(round(math.fsum(rewards) / len(rewards), 9), worst.reason)
        called = {key: each[0].detail[key] for key in ("tokens", "cost")}
        return replace(joined, detail={**joined.detail, **called, "answers": answers})


def conversation(row: GradingRow) -> str | None:
    """Return the prompt of a row; a chat of several messages as "role: content" paragraphs, from `info["messages"]`."""
    turns = row.info.get("messages")
    if not is_list(turns) or len(turns) < 2 or not all(is_object(turn) for turn in turns):
        return row.prompt
    return "\n\n".join(f"{turn.get('role')}: {turn.get('content')}" for turn in turns if is_object(turn))


def _read(reply: Reply, *, asked: Asked, shares: bool) -> Sequence[Judged]:
    if asked.listed:
        return read_checklist(reply, prompt=asked.prompt, count=asked.listed, data=asked.data, shares=shares)
    return [read_reply(reply, prompt=asked.prompt, key=asked.key, data=asked.data, shares=shares)]


class Judge(ModelJudge):
    """A model behind an OpenAI-compatible endpoint that gives a completion a level on a question.

    The reference is the question with its levels. If the judge gives no valid answer, the row is `verifier_error`; the
    reason says why.

    Args:
        url: address of the API, as in http://127.0.0.1:8000/v1.
        model: name of the model there.
        revision: of the weights, if the name does not identify them; part of the cache key.
        key_variable: environment variable that contains the API key; empty: no key is sent.
        structured: json_schema (response_format), vllm (structured_outputs), or prompt (the server constrains nothing).
        cache: SQLite file of replies; None: in the user's cache folder; "": in memory.
        concurrency: simultaneous calls.
        seconds: timeout of one question, retries included.
        retries: of calls that fail for a temporary reason.
        token_budget: tokens that this process may use on this judge; None: unlimited.
        prompt_price, completion_price: price of a million tokens.
        options: those of every judge: scores, repeats, orders, temperature, max_tokens, max_characters, canary.
    """

    name = "judge"
    machine_options = frozenset(
        "url model revision key_variable cache concurrency seconds retries token_budget repeats orders"
        " max_tokens".split()
    )

    def __init__(
        self,
        *,
        url: str,
        model: str,
        revision: str = "",
        key_variable: str = "",
        structured: str = "json_schema",
        cache: str | None = None,
        concurrency: int = 16,
        seconds: float = 120.0,
        retries: int = 5,
        token_budget: int | None = None,
        prompt_price: float = 0.0,
        completion_price: float = 0.0,
        scores: str = "level",
        repeats: int = 1,
        orders: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        max_characters: int = MAX_CHARACTERS,
        canary: bool = True,
    ) -> None:
        super().__init__(
            scores=scores,
            repeats=repeats,
            orders=orders,
            temperature=temperature,
            max_tokens=max_tokens,
            max_characters=max_characters,
            canary=canary,
        )
        endpoint: dict[str, JSON] = {
            "url": url,
            "model": model,
            "revision": revision,
            "key_variable": key_variable,
            "structured": structured,
            "seconds": seconds,
            "retries": retries,
            "concurrency": concurrency,
        }
        meter: dict[str, JSON] = {
            "tokens": token_budget,
            "prompt_price": prompt_price,
            "completion_price": completion_price,
        }
        Endpoint(meter=Meter(**meter), **endpoint)  # pyright: ignore[reportArgumentType]  (raises for a wrong option)
        self._opened = json.dumps([endpoint, meter, default_cache() if cache is None else cache], sort_keys=True)
        self.asked_model = model
        self.version = f"{PROMPT_VERSION}:{model}{'@' if revision else ''}{revision}"
        self.batch_rows, self.concurrency = 1, concurrency
        # Twice `seconds`: a call may first queue for `concurrency`, and an unreadable answer is asked for again.
        self.grade_seconds = 2 * seconds * repeats * orders + 10

    @property
    def asker(self) -> Asker:
        with _opening:
            return _open(self._opened)


_opening = threading.Lock()
"""functools.cache alone could build several if several threads call it first."""


@functools.cache
def _open(opened: str) -> Asker:
    """Build the endpoint, cache and meter that all judges with the same options share in this process."""
    endpoint, meter_options, cache = json.loads(opened)
    meter = Meter(**meter_options)
    return Asker(Endpoint(meter=meter, **endpoint), open_cache(cache), meter)


@functools.cache
def open_cache(path: str) -> ReplyCache:
    """Return the connection to a cache that all judges of this process share."""
    return ReplyCache(path)


__all__ = ["SCORES", "Judge", "ModelJudge", "Usage", "open_cache"]
