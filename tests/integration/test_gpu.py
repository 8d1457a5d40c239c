"""Checks that need a CUDA GPU: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.engine import open_engine
from reasoner.engine.check import check_checksum, check_probe, checksum, probe_ids
from reasoner.model.load import load_model
from tests.integration.test_engine_contract import CONTEXT, logprobs, named, shake

pytestmark = pytest.mark.gpu


def test_engines_that_sleep_follow_one_another_in_a_process(tmp_path: Path) -> None:
    shape = ScratchConfig(hidden_size=128, layers=2, heads=2, max_positions=CONTEXT)
    model, tokenizer = load_model(ModelSection(from_scratch=shape), seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ids = probe_ids(model.config.vocab_size, forbidden=tokenizer.all_special_ids, limit=CONTEXT - 1)
    for ends_asleep in (False, True, False):
        engine = open_engine(
            "vllm", model_path=str(tmp_path), dtype="float32", max_model_len=CONTEXT, gpu_memory_utilization=0.5
        )
        for seed in (1, 2):
            shake(model, seed=seed)
            engine.sleep()
            free, total = torch.cuda.mem_get_info()
            assert free > 0.75 * total
            check_checksum(checksum(named(model)), engine.load_weights(named(model), seed))
            expected = logprobs(model, tuple(ids[:1]), tuple(ids[1:]), 1.0)
            check_probe(engine.score(ids), expected.tolist(), torch.float32)
        if ends_asleep:
            engine.sleep()
        engine.close()
