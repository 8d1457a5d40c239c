"""The constitutional loop with its model behind vLLM's OpenAI-compatible server: comparisons by guided decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from reasoner.config.load import load_config
from reasoner.config.sections import ModelSection
from reasoner.model.load import load_model
from reasoner.stages.pipeline import run_pipeline
from tests.unit.reasoner.stages.test_constitutional import TINY

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SERVED = "hidden_size: 64, layers: 1, heads: 2"  # heads of 32: what vLLM's attention takes on a CPU


def test_the_loop_through_a_server(tmp_path: Path) -> None:
    tiny = TINY.replace("hidden_size: 16, layers: 1, heads: 2", SERVED)
    assert SERVED in tiny
    stage = "    label: own\n"
    assert stage in tiny
    served = "    engine: {name: vllm-server, options: {kv_cache_gigabytes: 0.25}}\n"
    (tmp_path / "tiny.yaml").write_text(tiny.replace(stage, stage + served))
    run_pipeline(load_config(str(tmp_path / "tiny.yaml"), [f"output={tmp_path / 'run'}"]), resume=False)
    folder = tmp_path / "run" / "1-constitutional"
    rows: list[dict[str, Any]] = [json.loads(line) for line in (folder / "transcripts.jsonl").read_text().splitlines()]
    told = [row for row in rows if "rounds" in row]
    compared = [row for row in rows if "chances" in row]
    assert len(told) == 2 * 12 * 2
    assert len(compared) > 4
    loaded = load_model(ModelSection(path=str(tmp_path / "run" / "0-sft" / "final")), seed=0)
    letters = [loaded.tokenizer(letter)["input_ids"][0] for letter in "AB"]
    gaps: list[float] = []
    for row in compared:
        for chance, (first, second) in zip(
            row["chances"], ((row["first"], row["second"]), (row["second"], row["first"])), strict=True
        ):
            ids = torch.tensor(
                [loaded.tokenizer(f"{row['principle'].replace('_', ' ')}|{first}|{second}:")["input_ids"]]
            )
            with torch.no_grad():
                of_a = loaded.model(ids).logits[0, -1, letters].softmax(-1)[0].item()
            gaps.append(abs(chance - (of_a if first == row["first"] else 1 - of_a)))
    print(json.dumps({"transcripts": len(told), "comparisons": len(compared), "largest gap": max(gaps)}))
    assert max(gaps) < 1e-3
