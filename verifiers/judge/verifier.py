"""`judge`: a completion's level on one question, by a model behind an OpenAI-compatible endpoint. No torch."""

from __future__ import annotations

import functools
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from verifiers.answers.find import strip_thinking
from verifiers.base import Example, GradingRow, Verifier
from verifiers.errors import BadOption, BadReference
from verifiers.judge.asker import Answer, Asker
from verifiers.judge.budget import Meter, Usage
from verifiers.judge.cache import ReplyCache, default_cache
from verifiers.judge.chat import ChatRequest
from verifiers.judge.endpoint import Endpoint
from verifiers.judge.errors import JudgeFault
from verifiers.judge.models import same_model
from verifiers.judge.prompts import PROMPT_VERSION, Prompt, grading_prompt
from verifiers.judge.questions import QUESTION_SCHEMA, Question
from verifiers.judge.replies import Judged, read_reply
from verifiers.verdict import JSON, Outcome, Verdict, fixed, graded

SCORES = ("level", "expectation")
MAX_CHARACTERS = 100_000
TOP_LOGPROBS = 20

_CAPITAL: JSON = {
    "question": "Does the text name the capital of France rightly?",
    "levels": [
        {"level": 1, "description": "It names no town, or a wrong one."},
        {"level": 2, "description": "It names Paris beside other towns, and does not decide."},
        {"level": 3, "description": "It says that Paris is the capital."},
    ],
}


class ModelJudge(Verifier):
    """What every judge does, whatever its model runs on; subclasses make the `Asker`.

    Args:
        scores: level: the reward of the level that the judge chose; expectation: the mean reward over its
            probabilities of the levels (needs log-probabilities).
        repeats: how often each question is put, with different seeds; the reward is the mean. Needs a temperature.
        temperature: of the judge's sampling.
        max_tokens: of a reply.
        max_characters: of a completion without its thinking; a longer one is limit_exceeded.
        canary: lay an order in the data of each prompt, and take a judge that follows it for broken.
    """

    in_process = True
    reference_schema = QUESTION_SCHEMA
    injectable = True
    asked_model: str = ""
    """The name of the model that is asked; empty where it runs in this process."""
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
        if not 0 <= temperature <= 2 or (repeats > 1 and temperature == 0):
            raise BadOption(
                f"temperature must be from 0 to 2, and above 0 with repeats, which would all say the same; got"
                f" {temperature} with repeats={repeats}."
            )
        self._scores, self._repeats, self._temperature = scores, repeats, temperature
        self._max_tokens, self._max_characters, self.canary = max_tokens, max_characters, canary

    @property
    def asker(self) -> Asker:
        """The model, its cache and its meter."""
        raise NotImplementedError

    @property
    def usage(self) -> Usage:
        """Calls, tokens and cost in this process so far, of all judges with these options."""
        return self.asker.meter.usage

    def check_reference(self, reference: JSON) -> None:
        Question.from_json(reference)

    def grade(self, row: GradingRow) -> Verdict:
        return self.grade_batch([row])[0]

    def grade_batch(self, rows: Sequence[GradingRow]) -> list[Verdict]:
        """All rows' questions at once; a row that cannot be asked about does not hold up the others."""
        verdicts: dict[int, Verdict] = {}
        asked: dict[int, tuple[Question, Prompt, str]] = {}
        for at, row in enumerate(rows):
            try:
                question = Question.from_json(row.reference)
            except BadReference as error:
                verdicts[at] = fixed(Outcome.BAD_REFERENCE, str(error))
                continue
            text = strip_thinking(row.completion).strip()
            if not text:
                verdicts[at] = fixed(Outcome.NO_ANSWER, "the completion says nothing outside its thinking")
            elif len(text) > self._max_characters:
                reason = f"a judge reads {self._max_characters} characters; this completion has {len(text)}"
                verdicts[at] = fixed(Outcome.LIMIT_EXCEEDED, reason)
            else:
                prompt = grading_prompt(question=question, completion=text, prompt=row.prompt, canary=self.canary)
                asked[at] = (question, prompt, text)
        for at, replies in self.ask_all({at: (prompt, [text]) for at, (_, prompt, text) in asked.items()}).items():
            verdicts[at] = self._verdict(asked[at][0], replies)
        return [verdicts[at] for at in range(len(rows))]

    def ask_all(
        self, prompts: Mapping[int, tuple[Prompt, Sequence[str]]], *, key: str = "level"
    ) -> dict[int, list[tuple[Judged, Answer] | JudgeFault]]:
        """Put each prompt `repeats` times; answers by number."""
        shares = self._scores == "expectation"
        places = [(at, repeat) for at in prompts for repeat in range(self._repeats)]
        requests = [
            ChatRequest(
                turns=prompts[at][0].turns,
                schema=prompts[at][0].schema,
                max_tokens=self._max_tokens,
                temperature=self._temperature,
                seed=repeat,
                top_logprobs=TOP_LOGPROBS if shares else 0,
            )
            for at, repeat in places
        ]

        readers = [
            functools.partial(read_reply, prompt=prompts[at][0], key=key, data=prompts[at][1], shares=shares)
            for at, _ in places
        ]
        answers = self.asker.ask(requests, readers)
        found: dict[int, list[tuple[Judged, Answer] | JudgeFault]] = {at: [] for at in prompts}
        for (at, _), answer in zip(places, answers, strict=True):
            found[at].append(answer)
        return found

    def _models(self, judged: Judged) -> dict[str, JSON]:
        """Which model answered, where it says so; and which was asked, where that is another one."""
        if not judged.model:
            return {}
        said: dict[str, JSON] = {"model": judged.model}
        if self.asked_model and not same_model(self.asked_model, judged.model):
            said["asked_model"] = self.asked_model
        return said

    def _verdict(self, question: Question, replies: Sequence[tuple[Judged, Answer] | JudgeFault]) -> Verdict:
        fault = next((reply for reply in replies if isinstance(reply, JudgeFault)), None)
        if fault is not None:
            return fixed(Outcome.VERIFIER_ERROR, f"{type(fault).__name__}: {fault}")
        usable = [reply for reply in replies if not isinstance(reply, JudgeFault)]
        rewards = [
            math.fsum(share * question.reward_of(level) for level, share in judged.shares.items())
            for judged, _ in usable
        ]
        first = usable[0][0]
        detail: dict[str, JSON] = {
            "level": first.choice,
            "evidence": first.evidence,
            "quoted": first.quoted,
            "tokens": sum(answer.reply.prompt_tokens + answer.reply.completion_tokens for _, answer in usable),
            "cost": math.fsum(answer.cost for _, answer in usable),
        }
        detail |= self._models(first)
        if self._scores == "expectation":
            detail["shares"] = {str(level): round(share, 6) for level, share in first.shares.items()}
            detail["mass"] = round(first.mass, 6)
        if len(usable) > 1:
            detail["levels"] = [judged.choice for judged, _ in usable]
        reward = min(1.0, max(0.0, round(math.fsum(rewards) / len(rewards), 9)))
        verdict = graded(reward, first.reason or f"level {first.choice}")
        return replace(verdict, detail={**verdict.detail, **detail})


class Judge(ModelJudge):
    """The level that a model behind an OpenAI-compatible endpoint gives a completion on one question.

    The reference is the question, with its levels. A judge that does not answer, or not as asked, makes the row
    `verifier_error`; the reason says why.

    Args:
        url: of the API, as in http://127.0.0.1:8000/v1.
        model: its name there.
        revision: of its weights, where the name alone does not tell; part of the cache key.
        key_variable: environment variable that holds the API key; empty: no key is sent.
        structured: json_schema (response_format), vllm (structured_outputs), or prompt (the server constrains nothing).
        cache: SQLite file of replies; None: in the user's cache folder; "" : in memory.
        concurrency: calls under way at a time.
        seconds: for one question, retries included.
        retries: of calls that fail for a reason that passes.
        token_budget: tokens that this process may use on this judge; None: any number.
        prompt_price, completion_price: of a million tokens.
        options: those of every judge: scores, repeats, temperature, max_tokens, max_characters, canary.
    """

    name = "judge"
    machine_options = frozenset(
        "url model revision key_variable cache concurrency seconds retries token_budget repeats max_tokens".split()
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
        temperature: float = 0.0,
        max_tokens: int = 512,
        max_characters: int = MAX_CHARACTERS,
        canary: bool = True,
    ) -> None:
        super().__init__(
            scores=scores,
            repeats=repeats,
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
        Endpoint(meter=Meter(**meter), **endpoint)  # pyright: ignore[reportArgumentType]  (a wrong option shows now)
        self._opened = json.dumps([endpoint, meter, default_cache() if cache is None else cache], sort_keys=True)
        self.asked_model = model
        self.version = f"{PROMPT_VERSION}:{model}{'@' if revision else ''}{revision}"
        self.batch_rows, self.concurrency = 1, concurrency
        # Beside the retries: a queue at the endpoint's own limit, and an answer that has to be asked for again.
        self.grade_seconds = 2 * seconds * repeats + 10

    @property
    def asker(self) -> Asker:
        with _opening:
            return _open(self._opened)


_opening = threading.Lock()
"""functools.cache alone would make several where several threads ask first."""


@functools.cache
def _open(opened: str) -> Asker:
    """One endpoint, cache and meter for all judges with the same options in this process."""
    endpoint, meter_options, cache = json.loads(opened)
    meter = Meter(**meter_options)
    return Asker(Endpoint(meter=meter, **endpoint), open_cache(cache), meter)


@functools.cache
def open_cache(path: str) -> ReplyCache:
    """One connection to a cache for all judges of this process."""
    return ReplyCache(path)


__all__ = ["SCORES", "Judge", "ModelJudge", "Usage", "open_cache"]
