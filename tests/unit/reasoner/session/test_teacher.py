"""A teacher behind servers gives what the same model gives in this process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasoner.algorithm.distillation import NO_TOKEN_LOGPROB
from reasoner.config.errors import ConfigError
from reasoner.config.sections import TeacherSection
from reasoner.engine import scoring
from reasoner.engine.base import EngineError
from reasoner.model.load import byte_tokenizer
from reasoner.session.teacher import ServerTeacher
from tests.unit.reasoner.model.test_same_tokenizer import made
from tests.unit.reasoner.policy.test_policy import make_batch
from tests.unit.reasoner.teachers import TeacherServer, config_of, opened, save_teacher


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture
def servers(folder: Path) -> Iterator[list[TeacherServer]]:
    running = [TeacherServer(folder) for _ in range(2)]
    yield running
    for one in running:
        one.close()


def connected(servers: list[TeacherServer], **changes: object) -> ServerTeacher:
    section = TeacherSection.model_validate({"urls": [one.url for one in servers], **changes})
    return ServerTeacher(section, tokenizer=byte_tokenizer())


def test_log_probabilities_are_those_of_the_model_in_this_process(folder: Path, servers: list[TeacherServer]) -> None:
    config = config_of(folder)
    batch = make_batch(config, rows=5)
    odd = batch.input_ids[1].clone()
    odd[-1] = 400
    batch = replace(batch, input_ids=(batch.input_ids[0], odd, *batch.input_ids[2:]))
    expected = opened(config).annotate(batch, frozenset({"teacher_logprobs"})).teacher_logprobs_N
    teacher = connected(servers)
    found = teacher.annotate(batch).teacher_logprobs_N
    teacher.close()
    assert teacher.context == 79
    assert expected is not None
    assert found is not None
    assert found.tolist() == pytest.approx(expected.tolist(), abs=2e-5)
    assert found.tolist().count(NO_TOKEN_LOGPROB) == 1
    assert found.std() > 0.5
    assert all("/v1/completions" in one.asked for one in servers)


def test_a_server_that_fails_is_asked_again_also_after_a_new_start(
    servers: list[TeacherServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(scoring, "sleep", waits.append)
    teacher = connected(servers[:1])
    batch = make_batch(config_of(Path("unused")), rows=1)
    before = teacher.annotate(batch).teacher_logprobs_N
    servers[0].fails, servers[0].start = 2, "second"
    assert torch.equal(teacher.annotate(batch).teacher_logprobs_N, before)  # pyright: ignore
    assert waits == [1.0, 2.0]
    servers[0].fails = 100
    with pytest.raises(EngineError, match=r"teacher\.urls: no server answers\..*continue with --resume"):
        teacher.annotate(batch)
    servers[0].fails, servers[0].refuses = 0, True
    with pytest.raises(EngineError, match=r"refused to score a text: 400.*too long"):
        teacher.annotate(batch)
    teacher.close()


def test_what_cannot_be_a_teacher_is_refused(servers: list[TeacherServer]) -> None:
    servers[0].tokenizer = made(swapped=True)
    with pytest.raises(ConfigError, match=r"must have the policy's tokenizer.* is 'a' here, 'b' there"):
        connected(servers)
    servers[0].fails = 1
    with pytest.raises(EngineError, match="does not answer POST /detokenize"):
        connected(servers)
    gone = servers[1].url
    servers[1].close()
    with pytest.raises(EngineError, match=r"teacher\.urls: http://127.* does not answer as a vLLM server"):
        ServerTeacher(TeacherSection(urls=[gone]), tokenizer=byte_tokenizer())
    with pytest.raises(EngineError, match=r"TEACHER_KEY must be set to the key of teacher\.urls"):
        connected(servers[:1], key_variable="TEACHER_KEY")
