"""A teacher behind a real vLLM server: its log-probabilities, and a run that learns from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasoner.config.load import load_config
from reasoner.config.sections import TeacherSection
from reasoner.engine import open_engine
from reasoner.engine.gate import KEY_VARIABLE
from reasoner.engine.server import ServerEngine
from reasoner.model.load import byte_tokenizer
from reasoner.session.teacher import ServerTeacher
from reasoner.stages.pipeline import run_pipeline
from tests.integration.test_resume import write_config
from tests.unit.reasoner.policy.test_policy import make_batch
from tests.unit.reasoner.teachers import config_of, opened, save_teacher

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Folder of a teacher, and the address of a server that has it."""
    folder = save_teacher(tmp_path_factory.mktemp("teacher"), spare=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, "the key of both")
        engine = open_engine("vllm-server", model_path=str(folder), max_model_len=80, kv_cache_gigabytes=0.1)
        assert isinstance(engine, ServerEngine)
        yield folder, engine.servers[0].url
        engine.close()


def test_it_says_what_the_model_says_in_this_process(served: tuple[Path, str]) -> None:
    folder, url = served
    config = config_of(folder)
    batch = make_batch(config, rows=6)
    expected = opened(config).annotate(batch, frozenset({"teacher_logprobs"})).teacher_logprobs_N
    teacher = ServerTeacher(TeacherSection(urls=[url]), tokenizer=byte_tokenizer())
    found = teacher.annotate(batch).teacher_logprobs_N
    teacher.close()
    assert teacher.context == 79
    assert expected is not None
    assert found is not None
    assert (found - expected).abs().max() < 1e-3
    assert found.std() > 0.5


def test_a_run_learns_from_it(served: tuple[Path, str], tmp_path: Path) -> None:
    rollout = {"problems_per_step": 16, "group_size": 1, "max_tokens": 8}
    config = write_config(
        tmp_path,
        "run",
        method="distill",
        steps=20,
        rollout=rollout,
        optim={"lr": 3e-2},
        eval={"problems": 0},
        teacher={"urls": [served[1]]},
    )
    run = run_pipeline(load_config(str(config)), resume=False)
    kl = [json.loads(line)["teacher/reverse_kl"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(kl[-2:]) < 0.5 * sum(kl[:2])
