"""Judges behind a vLLM server and in this process: guided decoding by a model of random weights.

The judgements mean nothing. The tests show that every reply obeys its schema, and that equal completions get equal
verdicts.

Its judgements mean nothing; that every reply obeys its schema, and that the same completion gets the same verdict, is
what is shown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.engine.remote import OwnServer
from reasoner.engine.server import memory_options
from reasoner.graders.judge_model import JudgeModel
from reasoner.model.load import load_model
from verifiers import GradingRow, Verdict
from verifiers.judge.verifier import Judge
from verifiers.pool import GradingPool, GradingRequest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LEVELS = [{"level": at, "description": f"politeness {at}"} for at in (1, 2, 3, 4, 5)]
RUBRIC = [
    {"name": "polite", "judged": {"question": "Is it polite?", "levels": LEVELS}, "weight": 3},
    {"name": "clear", "judged": "Is it clear?"},
    {"name": "short", "length": {"max": 20}},
]
MODEL = "judge-of-random-weights"
# sampled, not greedy: random weights would write one character for as long as the schema lets them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("judge") / "model"
    shape = ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=8192)
    loaded = load_model(ModelSection(from_scratch=shape), seed=5)
    loaded.model.save_pretrained(path)
    loaded.tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def url(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    options = ["--dtype", "float32", "--max-model-len", "8192", "--served-model-name", MODEL, "--enforce-eager"]
    options += ["--max-num-seqs", "8", *memory_options(0.25, 0.3)]
    log = tmp_path_factory.mktemp("log") / "server.log"
    server = OwnServer(folder, number=0, log=log, device=None, seconds=120, options=options)
    try:
        server.wait_until_ready(time.monotonic() + 420)
        yield f"{server.url}/v1"
    finally:
        server.stop()


def rows(count: int) -> list[GradingRow]:
    return [GradingRow(completion=f"Good day, number {at}.", reference=RUBRIC, prompt="Greet.") for at in range(count)]


def check(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        assert verdict.graded, verdict.reason
        polite = verdict.detail["criteria"]["polite"]  # type: ignore[index, call-overload]
        assert polite["level"] in (1, 2, 3, 4, 5)  # type: ignore[index, call-overload]
        assert verdict.components["short"] == 1


def test_a_rubric_through_a_vllm_server(url: str, tmp_path: Path) -> None:
    options = {"url": url, "model": MODEL, "cache": str(tmp_path / "cache"), "canary": False, "max_tokens": 2000}
    options |= {"concurrency": 8, "seconds": 400.0, "temperature": 1.0}
    with GradingPool(workers=1) as pool:
        whole = {"judge": {"verifier": "judge", "options": options}}
        first = list(pool.grade(GradingRequest("rubric", row, whole) for row in rows(4)))
        again = list(pool.grade(GradingRequest("rubric", row, whole) for row in rows(4)))
    check(first)
    assert [verdict.detail for verdict in first] == [verdict.detail for verdict in again]
    judge = Judge(**options)  # type: ignore[arg-type]
    assert judge.usage.calls == 8
    expected = Judge(**options, scores="expectation")  # type: ignore[arg-type]
    verdict = expected.verify(completion="Good day.", reference=RUBRIC[0]["judged"])  # type: ignore[arg-type]
    assert verdict.graded, verdict.reason
    print(json.dumps({"usage": str(judge.usage), "expectation": verdict.detail["shares"]}))


def test_a_rubric_through_vllm_in_this_process(folder: str, tmp_path: Path) -> None:
    options = {"model": folder, "engine": "vllm", "cache": str(tmp_path / "cache"), "canary": False, "max_tokens": 2000}
    options["temperature"] = 1.0
    options["engine_options"] = {"kv_cache_gigabytes": 0.25, "max_batch": 8}
    judge = JudgeModel(**options)  # type: ignore[arg-type]
    asked = [GradingRow(completion=row.completion, reference=RUBRIC[0]["judged"], prompt=row.prompt) for row in rows(4)]  # type: ignore[arg-type]
    verdicts = judge.verify_batch(asked)
    assert all(verdict.graded for verdict in verdicts), verdicts[0].reason
    assert judge.usage.calls == 4
    shares = JudgeModel(**options, scores="expectation").verify_batch(asked[:1])[0]  # type: ignore[arg-type]
    assert shares.graded, shares.reason
    judge.asker.backend.close()  # type: ignore[attr-defined]
