"""An endpoint that lies, leaks or talks nonsense: the budget holds, the key stays here, no batch ends."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent
from verifiers import BadOption, GradingRow, Outcome
from verifiers.judge import endpoint
from verifiers.judge.counting import tokens_of
from verifiers.judge.models import same_model
from verifiers.judge.pairwise import PairQuestion, Preference, compare_pairs
from verifiers.judge.secret import without_key
from verifiers.judge.verifier import Judge

QUESTION: Any = {
    "question": "Is it polite?",
    "levels": [{"level": at, "description": f"politeness {at}"} for at in (1, 2, 3)],
}
KEY = "sk-proj-9aF/x+Q2_tTz0&Bk7wVm3"
PLACE: list[Path] = []
"""Caches of a test."""
VARIABLE = "JUDGE_KEY_OF_THIS_TEST"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    PLACE[:] = [tmp_path]


def make(server: ScriptedJudge, **options: Any) -> Judge:
    """A judge with a cache that no other server shares."""
    cache = str(PLACE[0] / f"cache-{server.url.rpartition(':')[2][:-3]}")
    return Judge(**({"url": server.url, "model": "scripted", "cache": cache, "seconds": 5.0, "retries": 1} | options))


def rows(count: int, *, prompt: str = "") -> list[GradingRow]:
    return [GradingRow(completion=f"Good day, {at}.", reference=QUESTION, prompt=prompt) for at in range(count)]


def changed(body: scripted.Body, **parts: Any) -> Sent:
    """Return a well-formed judgement with some parts changed; None removes one."""
    answer = json.loads(scripted.level(body, 3).content) | parts
    return Sent(content=json.dumps({key: value for key, value in answer.items() if value is not None}))


# ------------------------------------------------------------------------------------------------------- the budget

USAGES = {
    "missing": None,
    "empty": {},
    "text": "many",
    "a list": [100, 20],
    "nulls": {"prompt_tokens": None, "completion_tokens": None},
    "zeros": {"prompt_tokens": 0, "completion_tokens": 0},
    "ones": {"prompt_tokens": 1, "completion_tokens": 1},
    "negative": {"prompt_tokens": -5000, "completion_tokens": -1},
    "huge": {"prompt_tokens": 10**12, "completion_tokens": 10**30},
    "more than was sent": {"prompt_tokens": 10_000, "completion_tokens": 10_000},
    "texts": {"prompt_tokens": "700", "completion_tokens": "20"},
    "bools": {"prompt_tokens": True, "completion_tokens": False},
    "fractions": {"prompt_tokens": 0.5, "completion_tokens": 1.5},
    "infinite": {"prompt_tokens": float("inf"), "completion_tokens": float("nan")},
    "nested": {"prompt_tokens": {"total": 1}, "completion_tokens": [1]},
}


@pytest.mark.parametrize("name", USAGES)
def test_the_budget_holds_whatever_the_endpoint_says_of_usage(name: str) -> None:
    text = "Say it in other words, please. " * 60
    with ScriptedJudge(lambda body, number: changed(body, usage=USAGES[name])) as server:
        judge = make(server, token_budget=20_000, concurrency=2)
        verdicts = judge.verify_batch(rows(40, prompt=text))
        sent = sum(len(turn["content"]) for body in server.bodies for turn in body["messages"])
    assert 3 <= len(server.bodies) <= 20  # 40 of them are about 40,000 tokens of an ordinary tokenizer
    assert sent / 4 <= judge.usage.prompt_tokens <= 20_000  # and never less than it makes of what was sent
    assert sum(v.graded for v in verdicts) == len(server.bodies)
    assert all("budget of 20000 tokens" in v.reason for v in verdicts if not v.graded)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 500, "completion_tokens": 30},
        {"prompt_tokens": 500.0, "completion_tokens": 512},  # with hidden thinking
        {"prompt_tokens": 1200, "completion_tokens": 30, "total_tokens": 1230, "prompt_tokens_details": {}},
    ],
)
def test_a_count_that_can_be_true_is_taken(usage: dict[str, Any]) -> None:
    with ScriptedJudge(lambda body, number: changed(body, usage=usage)) as server:
        judge = make(server)
        verdict = judge.verify_batch(rows(1))[0]
    assert (judge.usage.prompt_tokens, judge.usage.completion_tokens) == tuple(map(int, list(usage.values())[:2]))
    assert verdict.detail["tokens"] == int(usage["prompt_tokens"]) + int(usage["completion_tokens"])


CUT = '{"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": "{\\"ch'
UNREADABLE = {
    "half a JSON": Sent(content=CUT),
    "brackets": Sent(content="[" * 200_000),
    "braces": Sent(content='{"choices":' * 100_000),
    "a long number": Sent(content='{"choices": [' + "9" * 10_000 + "]}"),
    "no choices": Sent(content='{"choices": []}'),
    "choices that are text": Sent(content='{"choices": "none"}'),
    "no content": Sent(content='{"choices": [{"message": {"content": null}}]}'),
    "content in parts": Sent(content='{"choices": [{"message": {"content": [{"type": "text", "text": "5"}]}}]}'),
    "half of what it promised": Sent(content=CUT, headers={"Content-Length": "10000"}),
    "an endless one": Sent(content=" " * (9 << 20)),
    "no gzip": Sent(content=CUT, headers={"Content-Encoding": "gzip"}),
    "probabilities without end": Sent(
        content='{"choices":[{"message": {"content": ""}, "logprobs": {"content": [{"token": "", "logprob": 1e400}]}}]}'
    ),
    "probabilities that are none": Sent(
        content='{"choices": [{"message": {"content": ""}, "logprobs": {"content": [{"token": "", "logprob": NaN}]}}]}'
    ),
    "a probability of many digits": Sent(
        content='{"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"token": "a", "logprob": -'
        + "9" * 4000
        + "}]}}]}"
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_answer_that_cannot_be_read_is_charged_and_asked_for_again(name: str) -> None:
    sent, hang_up = UNREADABLE[name], name == "half of what it promised"
    with ScriptedJudge(lambda body, number: sent) as server:
        judge = make(server, token_budget=8000, seconds=2.0 if hang_up else 10.0)
        verdicts = judge.verify_batch(rows(6))
        calls = len(server.bodies)
    assert {v.outcome for v in verdicts} == {Outcome.VERIFIER_ERROR}
    assert 2 <= calls < 12  # two for a row, until the budget is spent
    assert judge.usage.calls == calls
    assert judge.usage.prompt_tokens >= calls * 500
    assert judge.usage.prompt_tokens + judge.usage.completion_tokens <= 8000


def test_an_answer_that_cannot_be_read_once_costs_nothing_but_time() -> None:
    for name in ("brackets", "half a JSON", "probabilities without end"):
        with ScriptedJudge(
            lambda body, number, name=name: UNREADABLE[name] if number == 1 else scripted.level(body, 3)
        ) as s:
            assert make(s).verify_batch(rows(1))[0].reward == 1.0


@pytest.mark.parametrize("status", [401, 429, 503])
def test_a_refused_call_is_not_charged(status: int) -> None:
    with ScriptedJudge(lambda body, number: Sent(status=status, content="no")) as server:
        judge = make(server)
        judge.verify_batch(rows(2))
    assert judge.usage.prompt_tokens == judge.usage.completion_tokens == 0


def test_our_own_count_is_above_that_of_a_tokenizer() -> None:
    # tokens of o200k_base, counted once
    assert tokens_of("The quick brown fox jumps over the lazy dog. " * 20) >= 200
    assert tokens_of("0123456789" * 30) >= 300
    assert tokens_of("你好，世界。" * 20) >= 100
    assert tokens_of("") == 0


# --------------------------------------------------------------------------------------------------------- the key

BEARER = f"Bearer {KEY}"
FORMS = {
    "as it is": f"Authorization: {BEARER}",
    "in an address": f"https://x/?key={quote(KEY, safe='')}",
    "in JSON": json.dumps({"headers": {"authorization": BEARER}}).replace("/", "\\/"),
    "in escapes": "".join(f"\\u{ord(char):04x}" for char in BEARER),
    "in HTML": f"<p>{BEARER.replace('&', '&amp;')}</p>",
    "in numbers of HTML": "".join(f"&#{ord(char)};" for char in BEARER),
    "in base64": base64.b64encode(BEARER.encode()).decode(),
    "in base64 with more": base64.b64encode(f"xy{KEY}".encode()).decode(),
    "in base64 of an address": base64.urlsafe_b64encode(f"user:{KEY}".encode()).decode(),
    "in hexadecimal": BEARER.encode().hex(),
    "in bytes": BEARER.encode().hex(" "),
    "the begin": f"key {KEY[:14]}... is unknown",
    "the end": f"key ...{KEY[-14:]} is unknown",
    "in capitals": KEY.upper(),
    "backwards": KEY[::-1],
    "on several lines": "\n".join(KEY),
    "twice escaped": quote(quote(KEY, safe=""), safe=""),
    "in a Python repr": repr(BEARER.encode()),
}


def leaks(said: str) -> bool:
    """Return True if eight consecutive characters of the key are in a text, as they are or decoded."""
    pieces = [KEY[at : at + 8] for at in range(len(KEY) - 7)]
    readings = [said, said[::-1], "".join(said.split()), said.replace("\\u00", "%")]
    return any(piece.casefold() in reading.casefold() for piece in pieces for reading in readings)


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("form", FORMS)
def test_no_message_repeats_the_key(form: str, status: int, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    with (
        caplog.at_level(logging.DEBUG),
        ScriptedJudge(lambda body, number: Sent(status=status, content=FORMS[form])) as s,
    ):
        verdict = make(s, key_variable=VARIABLE, retries=0).verify_batch(rows(1))[0]
        assert BEARER in s.headers[0]
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    said = json.dumps(verdict.to_json()) + caplog.text
    assert not leaks(said), said
    assert FORMS[form] not in said
    if status != 200:
        assert f"answered {status}" in verdict.reason
    assert "API key" in verdict.reason


@pytest.mark.parametrize("form", ["as it is", "in base64", "the begin"])
@pytest.mark.parametrize("place", ["reason", "evidence", "level", "model", "refusal", "finish_reason"])
def test_no_judgement_repeats_the_key(form: str, place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, KEY)

    def script(body: scripted.Body, number: int) -> Sent:
        answer = json.loads(scripted.level(body, 3).content)
        choice = answer["choices"][0]
        if place in ("reason", "evidence", "level"):
            said = json.loads(choice["message"]["content"])
            choice["message"]["content"] = json.dumps(said | {place: FORMS[form]})
        elif place == "refusal":
            choice["message"] = {"refusal": FORMS[form]}
        elif place == "model":
            answer["model"] = FORMS[form]
        else:
            choice["finish_reason"] = FORMS[form]
        return Sent(content=json.dumps(answer))

    with ScriptedJudge(script) as server:
        judge = make(server, key_variable=VARIABLE)
        verdict = judge.verify_batch(rows(1))[0]
    assert not leaks(json.dumps(verdict.to_json()))
    assert FORMS[form] not in json.dumps(verdict.to_json())
    assert KEY.encode() not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


@pytest.mark.parametrize(
    "bad", [KEY + "\n", KEY + "\r\n", "a b" + KEY, KEY + "é", KEY + "\x00"[:0] + "\x7f", "\t" + KEY]
)
def test_a_key_that_no_header_carries_is_refused_by_the_name_of_its_variable(
    bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, bad)
    with ScriptedJudge(lambda body, number: pytest.fail("asked")) as server:
        verdict = make(server, key_variable=VARIABLE).verify_batch(rows(1))[0]
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert f"environment variable {VARIABLE} must contain" in verdict.reason
    assert not leaks(verdict.reason)


def test_a_password_in_the_address_is_refused_without_a_word_of_it() -> None:
    with pytest.raises(BadOption) as told:
        Judge(url="http://user:hunter22@127.0.0.1:1/v1", model="m", cache="")
    assert "hunter22" not in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        "It is polite enough.",
        "the key is on the table",
        "sk-proj is a prefix",
        "a" * 3000,
        "Bearer of news",
        "QmFzZTY0IGlzIGZpbmU=",
    ],
)
def test_ordinary_text_is_not_masked(text: str) -> None:
    assert without_key(text, KEY) == text
    assert without_key("EMPTY words", "EMPTY") == "EMPTY words"  # no secret, as servers without keys have it


# ------------------------------------------------------------------------------------------------------- the model

SAME = [
    ("gpt-4o", "gpt-4o-2024-08-06"),
    ("gpt-4o", "gpt-4o"),
    ("gpt-4-0613", "gpt-4-0613"),
    ("gpt-4", "gpt-4-0613"),
    ("o3-mini", "o3-mini-2025-01-31"),
    ("claude-sonnet-4", "claude-sonnet-4-20250514"),
    ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
    ("claude-sonnet-4", "claude-sonnet-4@20250514"),
    ("gemini-2.5-flash", "models/gemini-2.5-flash-preview-05-20"),
    ("mistral-large-latest", "mistral-large-2407"),
    ("llama3", "llama3:latest"),
    ("Qwen/Qwen3-8B", "qwen/qwen3-8b"),
    ("openai/gpt-4o", "gpt-4o-2024-08-06"),
    ("Qwen3-8B", "Qwen/Qwen3-8B"),
    ("gemini-1.5-pro", "gemini-1.5-pro-002"),
]
OTHER = [
    ("gpt-4o", "gpt-4o-mini"),
    ("gpt-4o", "gpt-4o-mini-2024-07-18"),
    ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13"),
    ("gpt-4", "gpt-4-32k"),
    ("gpt-4", "gpt-4.1"),
    ("gpt-4", "gpt-40"),
    ("claude-sonnet-4", "claude-sonnet-4-5"),
    ("qwen2", "qwen2.5"),
    ("llama-3", "llama-3-70b"),
    ("llama-3-70b", "llama-3"),
    ("org-a/model", "org-b/model"),
    ("deepseek-chat", "deepseek-v3"),
    ("m", "other"),
    ("model", ""),
]


@pytest.mark.parametrize(
    ("asked", "answered", "same"), [(*pair, True) for pair in SAME] + [(*pair, False) for pair in OTHER]
)
def test_a_dated_name_is_the_same_model_and_another_name_is_not(asked: str, answered: str, same: bool) -> None:
    assert same_model(asked, answered) is same


def test_the_model_that_answered_is_recorded_and_another_one_is_spoken_of(caplog: Any) -> None:
    with ScriptedJudge(lambda body, number: changed(body, model="scripted-2026-01-01")) as server:
        verdict = make(server).verify_batch(rows(1))[0]
    assert verdict.detail["model"] == "scripted-2026-01-01"
    assert "asked_model" not in verdict.detail
    assert not caplog.records
    with ScriptedJudge(lambda body, number: changed(body, model=f"other{number % 2}\x1b[2J")) as server:
        verdicts = make(server).verify_batch(rows(6))
    assert {str(v.detail["model"]) for v in verdicts} == {"other0\x1b[2J", "other1\x1b[2J"}
    assert {str(v.detail["asked_model"]) for v in verdicts} == {"scripted"}
    assert {v.reward for v in verdicts} == {1.0}
    assert len([record for record in caplog.records if "is answered by model" in record.getMessage()]) == 2


@pytest.mark.parametrize("model", [None, 7, ["m"], {"name": "m"}, ""])
def test_an_endpoint_that_does_not_name_its_model_is_fine(model: Any) -> None:
    with ScriptedJudge(lambda body, number: changed(body, model=model)) as server:
        verdict = make(server).verify_batch(rows(1))[0]
    assert verdict.reward == 1.0
    assert "model" not in verdict.detail


def test_a_comparison_says_which_models_answered() -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        answer = json.loads(scripted.better(body, number).content)
        return Sent(content=json.dumps(answer | {"model": "other"}))

    with ScriptedJudge(script) as server:
        judge = make(server, concurrency=1)
        for _ in range(2):  # from the cache too
            (found,) = compare_pairs(judge, [PairQuestion(question="Which?", first="a", second="b")])
            assert isinstance(found, Preference)
            assert found.models == ("other", "other")
    assert len(server.bodies) == 2
