from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.verifiers import scripted_judge as scripted
from tests.unit.verifiers.scripted_judge import ScriptedJudge, Sent
from verifiers import BadOption, GradingRow, Outcome
from verifiers.judge import cache, endpoint
from verifiers.judge.cache import CacheError, ReplyCache
from verifiers.judge.chat import Reply
from verifiers.judge.verifier import Judge
from verifiers.pool import GradingPool, GradingRequest

QUESTION = {
    "question": "Is it polite?",
    "levels": [{"level": at, "description": f"politeness {at}"} for at in (1, 2, 3, 4, 5)],
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(cache, "default_cache", lambda: pytest.fail("a test used the user's own cache"))


def make(server: ScriptedJudge, where: Path, **options: Any) -> Judge:
    given = {"url": server.url, "model": "scripted", "cache": str(where / "cache.sqlite3"), "seconds": 5.0}
    return Judge(**(given | options))


def rows(count: int) -> list[GradingRow]:
    return [GradingRow(completion=f"Good day, number {at}.", reference=QUESTION) for at in range(count)]


def test_levels_become_rewards_with_evidence_and_reason(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        return scripted.level(body, 4, evidence="Good  day", reason="it greets")

    with ScriptedJudge(script) as server:
        judge = make(server, tmp_path, prompt_price=2.0, completion_price=10.0)
        verdict = judge.verify(completion="<think>hm</think>Good day, sir.", reference=QUESTION, prompt="Greet.")
    assert (verdict.outcome, verdict.reward) == (Outcome.PARTIAL, 0.75)
    assert verdict.detail["level"] == 4
    assert verdict.detail["evidence"] == "Good  day"
    assert verdict.detail["quoted"] is True
    assert verdict.reason == "it greets"
    assert verdict.detail["cost"] == pytest.approx((100 * 2 + 20 * 10) / 1e6)
    (body,) = server.bodies
    assert body["temperature"] == 0
    assert body["response_format"]["json_schema"]["schema"]["properties"]["level"]["enum"] == [1, 2, 3, 4, 5]
    assert scripted.data_of(body) == "Good day, sir."  # the thinking is cut
    assert scripted.data_of(body, "prompt") == "Greet."


def test_a_second_run_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.level(body, 1 + number % 5)) as server:
        first = make(server, tmp_path).verify_batch(rows(10))
        asked = len(server.bodies)
        judge = make(server, tmp_path, concurrency=3)  # other options that change no answer: another asker
        second = judge.verify_batch(rows(10))
        assert len(server.bodies) == asked == 10
        assert [v.reward for v in first] == [v.reward for v in second]
        assert judge.usage.calls == 0
        assert judge.usage.hits == 10
        assert judge.usage.cost == 0
        changed: list[dict[str, Any]] = [{"model": "other"}, {"revision": "2"}, {"max_tokens": 99}, {"canary": False}]
        for option in changed:  # whatever can change the answer is asked anew
            make(server, tmp_path, **option).verify_batch(rows(1))
        make(server, tmp_path).verify(completion="Good day, number 0.", reference={**QUESTION, "question": "Rude?"})
        assert len(server.bodies) == 10 + len(changed) + 1


def test_equal_questions_are_put_once_even_at_once(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        return Sent(content=scripted.level(body, 1 + number % 5).content, delay=0.1)

    with ScriptedJudge(script) as server:
        judge = make(server, tmp_path)
        found: list[float | None] = []
        threads = [
            threading.Thread(target=lambda: found.append(judge.verify_batch(rows(1) * 3)[2].reward)) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.bodies) == 1
    assert len(set(found)) == 1
    assert judge.usage.hits == 8 * 3 - 1


TROUBLE: dict[str, list[Any]] = {
    "rate limit": [Sent(status=429, content="slow down", headers={"Retry-After": "0.01"})],
    "server fault": [Sent(status=500, content="oops"), Sent(status=503, content="busy")],
    "hang-up": [Sent(hang_up=True)],
    "no completion": [Sent(content='{"choices": []}'), Sent(content="<html>"), Sent(content="null")],
    "not JSON": [Sent(content=scripted.chat("I would give it a 5."))],
    "truncated": [Sent(content=scripted.chat('{"check": "x", "evid', finish="length"))],
    "a level that does not exist": [lambda body: scripted.level(body, 6)],
    "a level as text": [
        lambda body: Sent(content=scripted.chat('{"check":"a","evidence":"","reason":"","level":"5"}'))
    ],
    "a list": [Sent(content=scripted.chat("[5]"))],
    "a key twice": [Sent(content=scripted.chat('{"level": 1, "level": 5}'))],
    "a wrong check word": [lambda body: scripted.level(body, 5, check="wrong-word")],
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_that_passes_costs_nothing_but_time(name: str, tmp_path: Path) -> None:
    bad = [(lambda body, sent=sent: sent if isinstance(sent, Sent) else sent(body)) for sent in TROUBLE[name]]
    with ScriptedJudge(scripted.in_turn([*bad, lambda body: scripted.level(body, 5)])) as server:
        verdict = make(server, tmp_path).verify_batch(rows(1))[0]
    assert (verdict.outcome, verdict.reward) == (Outcome.CORRECT, 1.0)


@pytest.mark.parametrize("name", [*TROUBLE, "refused"])
def test_trouble_that_stays_is_a_fault_with_its_cause_and_never_a_zero(name: str, tmp_path: Path) -> None:
    refusal = {"message": {"refusal": "I may not"}, "finish_reason": "stop"}
    trouble = {**TROUBLE, "refused": [Sent(content=json.dumps({"choices": [refusal]}))]}
    sent = trouble[name][-1]
    with ScriptedJudge(lambda body, number: sent if isinstance(sent, Sent) else sent(body)) as server:
        judge = make(server, tmp_path, retries=2)
        verdicts = judge.verify_batch(rows(3))
    assert [v.outcome for v in verdicts] == [Outcome.VERIFIER_ERROR] * 3
    assert {v.reward for v in verdicts} == {None}
    assert all(len(v.reason) > 20 for v in verdicts)
    assert judge.usage.faults == 3
    with ScriptedJudge(lambda body, number: scripted.level(body, 5)) as server:  # no fault was remembered
        assert make(server, tmp_path).verify_batch(rows(1))[0].reward == 1.0


def test_a_truncated_reply_is_given_more_room(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        return scripted.level(body, 5) if body["max_tokens"] > 512 else TROUBLE["truncated"][0]

    with ScriptedJudge(script) as server:
        assert make(server, tmp_path).verify_batch(rows(1))[0].reward == 1.0
    assert [body["max_tokens"] for body in server.bodies] == [512, 1024]


def test_line_breaks_in_a_string_are_read_as_guided_decoding_lets_them_through(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        said = f'{{"check": "{scripted.check_word(body)}", "evidence": "", "reason": "one\ntwo\t", "level": 5}}'
        return Sent(content=scripted.chat(said))

    with ScriptedJudge(script) as server:
        verdict = make(server, tmp_path).verify_batch(rows(1))[0]
    assert (verdict.reward, verdict.reason) == (1.0, "one\ntwo\t")
    assert len(server.bodies) == 1


def test_a_refused_call_is_not_repeated(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: Sent(status=401, content="who are you")) as server:
        verdict = make(server, tmp_path).verify_batch(rows(1))[0]
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert "401" in verdict.reason
    assert "who are you" in verdict.reason
    assert len(server.bodies) == 1


def test_a_judge_that_is_too_slow_or_not_there_is_a_fault(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: Sent(delay=3)) as server:
        verdict = make(server, tmp_path, seconds=0.3).verify_batch(rows(1))[0]
        assert verdict.outcome is Outcome.VERIFIER_ERROR
        assert "did not answer in time" in verdict.reason
    verdict = make(server, tmp_path, seconds=0.3).verify_batch(rows(1))[0]
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert "cannot be reached" in verdict.reason


def test_the_budget_is_never_exceeded(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.level(body, 5)) as server:
        judge = make(server, tmp_path, token_budget=9000, concurrency=4)
        verdicts = judge.verify_batch(rows(200))
        used = judge.usage.prompt_tokens + judge.usage.completion_tokens
        again = judge.verify_batch(rows(5))  # what is known stays free when the budget is spent
    graded = [v for v in verdicts if v.graded]
    assert len(graded) == len(server.bodies)
    assert 0 < len(graded) < 200
    assert used == 120 * len(graded) <= 9000
    assert used > 9000 - 5000  # a call of 120 tokens was refused for what it could have taken, not before
    assert all("budget of 9000 tokens" in v.reason for v in verdicts if not v.graded)
    assert [v.reward for v in again] == [1.0] * 5


def test_no_more_calls_at_once_than_allowed(tmp_path: Path) -> None:
    def script(body: scripted.Body, number: int) -> Sent:
        return Sent(content=scripted.level(body, 5).content, delay=0.02)

    with ScriptedJudge(script) as server, GradingPool(workers=1) as pool:
        options = {"url": server.url, "model": "s", "cache": str(tmp_path / "c"), "concurrency": 5}
        verdicts = list(pool.grade(GradingRequest("judge", row, options) for row in rows(40)))
    assert {v.reward for v in verdicts} == {1.0}
    assert server.most_under_way == 5


def test_expectation_over_level_probabilities(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.with_shares(body, {3: 0.5, 5: 0.25, 1: 0.05})) as server:
        verdict = make(server, tmp_path, scores="expectation").verify_batch(rows(1))[0]
    assert server.bodies[0]["top_logprobs"] == 20
    assert verdict.reward == pytest.approx((0.5 * 0.5 + 0.25 * 1.0 + 0.05 * 0.0) / 0.8)
    assert verdict.detail["mass"] == pytest.approx(0.8)
    assert verdict.detail["shares"] == {"1": 0.0625, "2": 0.0, "3": 0.625, "4": 0.0, "5": 0.3125}


def test_without_probabilities_an_expectation_is_a_fault(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.level(body, 5)) as server:
        verdict = make(server, tmp_path, scores="expectation").verify_batch(rows(1))[0]
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert "log-probabilities" in verdict.reason


def test_repeats_have_seeds_of_their_own_and_are_averaged(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.level(body, 1 + 2 * body["seed"])) as server:
        verdict = make(server, tmp_path, repeats=3, temperature=0.7).verify_batch(rows(1))[0]
    assert sorted(body["seed"] for body in server.bodies) == [0, 1, 2]
    assert verdict.detail["levels"] == [1, 3, 5]
    assert verdict.reward == pytest.approx(0.5)
    with pytest.raises(BadOption, match="otherwise all be equal"):
        make(server, tmp_path, repeats=3)


def test_an_obedient_judge_is_found_out(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: scripted.level(body, 5, check=scripted.decoy_word(body))) as server:
        verdict = make(server, tmp_path).verify_batch(rows(1))[0]
    assert verdict.outcome is Outcome.VERIFIER_ERROR
    assert "follows instructions in the text" in verdict.reason
    assert len(server.bodies) == 1  # asking again would not help


def test_empty_and_endless_completions_never_reach_the_judge(tmp_path: Path) -> None:
    with ScriptedJudge(lambda body, number: pytest.fail("asked")) as server:
        judge = make(server, tmp_path, max_characters=100)
        verdicts = [judge.verify(completion=text, reference=QUESTION) for text in ("<think>5</think> \n", "x" * 101)]
        bad = judge.verify(completion="x", reference={"levels": []})
    assert [v.outcome for v in verdicts] == [Outcome.NO_ANSWER, Outcome.LIMIT_EXCEEDED]
    assert bad.outcome is Outcome.BAD_REFERENCE


def test_the_key_comes_from_the_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedJudge(lambda body, number: scripted.level(body, 5)) as server:
        judge = make(server, tmp_path, key_variable="JUDGE_KEY_OF_THE_TEST")
        missing = judge.verify_batch(rows(1))[0]
        monkeypatch.setenv("JUDGE_KEY_OF_THE_TEST", "s3cret")
        assert judge.verify_batch(rows(1))[0].reward == 1.0
    assert missing.outcome is Outcome.VERIFIER_ERROR
    assert "JUDGE_KEY_OF_THE_TEST" in missing.reason
    assert "Bearer s3cret" in server.headers[0]


@pytest.mark.parametrize(
    "options",
    [{"url": "ftp://x"}, {"structured": "xml"}, {"scores": "median"}, {"temperature": 3}, {"concurrency": 0}],
)
def test_options_are_checked(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadOption):
        Judge(**({"url": "http://127.0.0.1:1/v1", "model": "m", "cache": ""} | options))


def test_the_first_answer_stays_in_the_cache(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "cache.sqlite3")
    one, other = ReplyCache(path), ReplyCache(path)
    first, second = Reply("a", "stop", 1, 2), Reply("b", "stop", 3, 4)
    assert one.put("k", first) == first
    assert other.put("k", second) == first
    assert other.get("k") == first
    one.close()
    other.close()
    (tmp_path / "broken").write_bytes(b"no database, certainly not" * 100)
    with pytest.raises(CacheError, match="broken"):
        ReplyCache(str(tmp_path / "broken"))
