"""Return values of users' functions: converted, awaited, or refused with what to return."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from verifiers import BadReference, GradingRow, Outcome, Verdict, Verifier, from_function, graded
from verifiers.errors import BadReturn
from verifiers.integrations.trl import TrlFunction
from verifiers.integrations.verl import VerlFunction
from verifiers.pool import GradingPool, GradingRequest
from verifiers.returned import all_finished, as_number, finished

ROW = GradingRow(completion="a", reference="a")


def returning(result: object) -> Verdict:
    return from_function(lambda completion: result, "mine")().verify_batch([ROW])[0]  # pyright: ignore[reportArgumentType, reportUnknownLambdaType]


@pytest.mark.parametrize(
    ("result", "reward"),
    [
        (True, 1.0),
        (0, 0.0),
        (np.float32(0.5), 0.5),
        (np.array(0.25), 0.25),
        (np.bool_(True), 1.0),
        (np.int64(1), 1.0),
        (Fraction(1, 2), 0.5),
        (Decimal("0.5"), 0.5),
    ],
)
def test_a_number_of_any_kind_is_a_reward(result: object, reward: float) -> None:
    verdict = returning(result)
    assert verdict.reward == reward
    assert type(verdict.reward) is float


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (None, r"got None\. Some path through the function has no `return`"),
        ("0.5", r"got str '0\.5'\. Return float"),
        ([1.0], r"got list \[1\.0\]\. Return the number itself"),
        ((1.0, "ok"), r"got tuple \(1\.0, 'ok'\)\. Return the number itself"),
        ({"score": 1}, "got dict .*Return the number itself"),
        (np.array([0.5]), r"got numpy\.ndarray of shape \(1,\)\. Return the number of this completion alone"),
        (np.array(["x"])[0], r"numpy\.str_ of shape \(\)|got numpy"),
        (math.nan, r"got nan\. Return 0\.0 for a wrong answer"),
        (math.inf, "got inf"),
        (np.float64("nan"), "got nan"),
        (-1.0, r"got -1\. Scale it into \[0, 1\], or return Verdict\(outcome=Outcome\.SCORED"),
        (5, r"got 5\. Scale it"),
        (1j, "got complex 1j"),
        (object, "Return a plain number"),
    ],
)
def test_anything_else_is_named_with_what_to_return(result: object, says: str) -> None:
    with pytest.raises(BadReturn, match=r"mine must return a bool, a reward in \[0, 1\] or a Verdict; ") as caught:
        returning(result)
    import re

    assert re.search(says, str(caught.value)), str(caught.value)


def test_a_generator_is_told_to_return() -> None:
    def yields(completion: str):  # type: ignore[no-untyped-def]
        yield 1.0

    with pytest.raises(BadReturn, match="Use `return`, not `yield`"):
        from_function(yields, "mine")().verify_batch([ROW])  # pyright: ignore[reportArgumentType]


def test_rows_of_an_asynchronous_function_wait_together() -> None:
    waiting = 0
    most = 0

    async def slow(completion: str, reference: str) -> bool:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0.02)
        waiting -= 1
        return completion == reference

    rows = [GradingRow(completion=str(n), reference=str(n % 4)) for n in range(8)]
    made = from_function(slow, "slow")()  # pyright: ignore[reportArgumentType]
    assert [v.outcome for v in made.verify_batch(rows)] == [Outcome.CORRECT] * 4 + [Outcome.INCORRECT] * 4
    assert most == 8


def test_one_row_that_fails_is_its_own() -> None:
    async def picky(completion: str) -> float:
        await asyncio.sleep(0)
        if completion == "bad":
            raise BadReference("no gold")
        return 0.5

    made = from_function(picky, "picky")()  # pyright: ignore[reportArgumentType]
    rows = [GradingRow(completion=text, reference=None) for text in ("a", "bad", "b")]
    assert [v.outcome for v in made.verify_batch(rows)] == [Outcome.PARTIAL, Outcome.BAD_REFERENCE, Outcome.PARTIAL]


def test_what_is_awaited_shares_one_loop_and_may_be_asked_from_another() -> None:
    loops: list[object] = []

    async def note(value: int) -> int:
        loops.append(asyncio.get_running_loop())
        return value

    async def inside() -> object:
        return finished(note(3))  # as a reward function that is called from an event loop

    assert asyncio.run(inside()) == 3
    assert all_finished([note(1), 2, note(3)]) == [1, 2, 3]
    assert len(set(map(id, loops))) == 1


class Own(Verifier):
    """Return the given value."""

    name = "own"

    def __init__(self, result: Callable[[], object]) -> None:
        self._result = result

    def grade(self, row: GradingRow) -> Verdict:
        return self._result()  # type: ignore[return-value]


async def awaited() -> Verdict:
    return graded(0.5, "later")


def test_a_plugin_class_may_be_asynchronous_and_return_a_reward_of_numpy() -> None:
    assert Own(awaited).verify(completion="", reference=None).reward == 0.5
    of_numpy = Own(lambda: Verdict(outcome=Outcome.SCORED, reward=np.float32(2.5)))  # pyright: ignore[reportArgumentType]
    reward = of_numpy.verify(completion="", reference=None).reward
    assert (reward, type(reward)) == (2.5, float)


@pytest.mark.parametrize("result", [None, 0.5, True, [graded(0.5, "x")]])
def test_a_plugin_class_must_return_a_verdict(result: object) -> None:
    with pytest.raises(BadReturn, match=r"own: grade must return a Verdict; got .* Return graded\(reward, reason\)"):
        Own(lambda: result).verify(completion="", reference=None)


@pytest.mark.parametrize("result", [[], None, [graded(1.0, "x")] * 3, 0.5])
def test_a_batch_must_have_one_verdict_a_row(result: object) -> None:
    class Batches(Own):
        def grade_batch(self, rows: object) -> list[Verdict]:
            return self._result()  # type: ignore[return-value]

    with pytest.raises(BadReturn, match="grade_batch must return 2 verdicts, one per row"):
        Batches(lambda: result).verify_batch([ROW, ROW])


TRL = """
import asyncio
import numpy as np
def listed(prompts, completions, **columns): return [1.0 if c == "a" else 0.0 for c in completions]
def array(prompts, completions, **columns): return np.array([float(c == "a") for c in completions])
def scalars(prompts, completions, **columns): return [np.float32(0.5) for c in completions]
async def later(prompts, completions, **columns):
    await asyncio.sleep(0)
    return [0.5 for c in completions]
def short(prompts, completions, **columns): return [1.0]
def alone(prompts, completions, **columns): return 1.0
def text(prompts, completions, **columns): return ["1.0" for c in completions]
def nan(prompts, completions, **columns): return [float("nan") for c in completions]
def nothing(prompts, completions, **columns): pass
def some(prompts, completions, **columns): return [None for c in completions]
def score(data_source, solution_str, ground_truth, extra_info): return {"score": np.float64(1.0), "acc": True}
def pair(data_source, solution_str, ground_truth, extra_info): return (0.5, "half")
def empty(data_source, solution_str, ground_truth, extra_info): return {"acc": 1}
def none(data_source, solution_str, ground_truth, extra_info): return None
"""


@pytest.fixture
def functions(tmp_path: Path) -> str:
    (tmp_path / "rewards.py").write_text(TRL)
    return str(tmp_path / "rewards.py")


@pytest.mark.parametrize(
    ("name", "rewards"),
    [("listed", [1.0, 0.0]), ("array", [1.0, 0.0]), ("scalars", [0.5, 0.5]), ("later", [0.5, 0.5])],
)
def test_a_function_of_trls_shape_gives_a_number_a_completion(functions: str, name: str, rewards: list[float]) -> None:
    made = TrlFunction(function=f"{functions}:{name}", column=None, chat=False)
    rows = [GradingRow(completion=text, reference=None) for text in "ab"]
    assert [verdict.reward for verdict in made.verify_batch(rows)] == rewards


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("short", "must return a list of 2 rewards, one per completion; got 1"),
        ("alone", "got 1.0. Return one number"),
        ("nothing", "got None"),
        ("text", "for each completion, must return a number or None; got str '1.0'"),
        ("nan", "got nan"),
    ],
)
def test_a_function_of_trls_shape_is_told_what_to_return(functions: str, name: str, says: str) -> None:
    made = TrlFunction(function=f"{functions}:{name}", column=None, chat=False)
    with pytest.raises(BadReturn) as caught:
        made.verify_batch([ROW, ROW])
    assert says in str(caught.value)


def test_none_in_trls_list_is_a_row_without_a_reward(functions: str) -> None:
    made = TrlFunction(function=f"{functions}:some", column=None, chat=False)
    assert made.verify_batch([ROW])[0].outcome is Outcome.BAD_REFERENCE


def test_a_function_of_verls_shape_may_return_more_than_the_score(functions: str) -> None:
    assert VerlFunction(function=f"{functions}:score").verify_batch([ROW])[0].reward == 1.0
    assert VerlFunction(function=f"{functions}:pair").verify_batch([ROW])[0].reward == 0.5
    for name in ("empty", "none"):
        with pytest.raises(BadReturn, match=r"must return a number, a dict with the number .* got None"):
            VerlFunction(function=f"{functions}:{name}").verify_batch([ROW])


def test_the_pool_names_what_came_back_and_awaits(functions: str) -> None:
    options: dict[str, dict[str, object]] = {
        name: {"function": f"{functions}:{name}", "column": None, "chat": False} for name in ("later", "text")
    }
    with GradingPool(workers=1) as pool:
        later, text = pool.grade([GradingRequest("trl", ROW, options[name]) for name in ("later", "text")])  # type: ignore[arg-type]
    assert later.reward == 0.5
    assert text.outcome is Outcome.VERIFIER_ERROR
    assert text.reason.startswith("BadReturn: ")


def test_a_tensor_without_dimensions_is_a_number() -> None:
    torch = pytest.importorskip("torch")
    assert as_number(torch.tensor(0.5), who="f", wants="a number") == 0.5
    assert as_number(torch.tensor(0.5, requires_grad=True), who="f", wants="a number") == 0.5
    with pytest.raises(BadReturn, match=r"got torch\.Tensor of shape \(2,\)"):
        as_number(torch.tensor([0.5, 1.0]), who="f", wants="a number")
