"""A run whose answers real grading nodes judge has the records of one that judged them itself."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.test_resume import assert_same_run, run, write_config
from tests.integration.test_service import get, service
from verifiers import GradingRow
from verifiers.pool import GradingPool
from verifiers.pool.work_queue import GradingRequest
from verifiers.serve.nodes import Node

pytestmark = pytest.mark.integration


@pytest.mark.slow
def test_a_run_with_nodes_equals_one_without(tmp_path: Path) -> None:
    with service("-v", "exact", "-v", "numeric") as url:
        nodes = {"nodes": [url, "http://127.0.0.1:9"], "workers": 0}
        with_nodes = write_config(tmp_path, "nodes", steps=4, grading=nodes)
        assert run(with_nodes) == 0
        figures = get(f"{url}/metrics")
    alone = write_config(tmp_path, "alone", steps=4)
    assert run(alone) == 0
    assert_same_run(tmp_path / "nodes", tmp_path / "alone")
    graded = [float(line.split()[-1]) for line in figures.splitlines() if line.startswith("reasoner_verdicts_total")]
    assert sum(graded) > 40, "the node judged most of the 64 rollouts and 16 answers of evaluations"


def test_no_verdict_is_lost_or_wrong_when_one_of_two_nodes_ends() -> None:
    rows = 1500
    with ExitStack() as stack:
        staying = stack.enter_context(service("-v", "math"))
        with service("-v", "math") as ending:
            lanes = [lane for url in (staying, ending) for lane in Node(url).lanes]
            pool = stack.enter_context(GradingPool(workers=0, nodes=lanes))
            asked = [
                GradingRequest("math", GradingRow(completion=f"\\boxed{{{n + n % 2}}}", reference=str(n)))
                for n in range(rows)
            ]
            verdicts = pool.grade(asked)
            found = [next(verdicts) for _ in range(50)]
        found += verdicts
    assert [verdict.graded and verdict.right for verdict in found] == [n % 2 == 0 for n in range(rows)]
