"""Equal episodes of a step: one reply for all of them where it does not depend on the seed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import Turn
from tasks.environments import Episode, get_environment
from tasks.environments.asked import ASKED, Choice, asked_options, asked_row, reply_in
from verifiers.pool import GradingPool

STAMPED = """\
import time

from tasks.environments import Reply, environment


@environment("stamped")
def stamped(*, turns{seed}):
    time.sleep(0.02)
    return Reply(str(time.monotonic_ns()))
"""


def replies(path: Path, texts: list[str]) -> list[str]:
    """Return the replies to one-turn episodes of different seeds that are in the pool at the same time."""
    environment = get_environment(str(path))
    options = asked_options(Choice(str(path), {}))
    with GradingPool(workers=1) as pool:

        def ask(text: str, seed: int):
            episode = Episode(turns=(Turn("policy", text),), seed=seed)
            return pool.submit(ASKED, options, asked_row(episode, uses_seed=environment.uses_seed))

        ask("the worker loads the environment", 0).result()
        found = [reply_in(future.result()) for future in [ask(text, seed) for seed, text in enumerate(texts)]]
    return [one.text for one in found if one is not None]


@pytest.mark.parametrize(("seed", "different"), [("", 2), (", seed", 8)])
def test_equal_episodes_are_asked_once_unless_the_seed_counts(tmp_path: Path, seed: str, different: int) -> None:
    path = tmp_path / "stamped.py"
    path.write_text(STAMPED.format(seed=seed))
    found = replies(path, ["a", "a", "a", "a", "b", "b", "b", "b"])
    assert len(found) == 8
    assert len(set(found)) == different


@pytest.mark.parametrize(
    ("name", "options", "seeded"),
    [
        ("python", {}, False),
        ("python", {"state": "none"}, True),
        ("calculator", {}, False),
        ("tools", {"use": {"calculator": {}, "python": {}}}, False),
        ("tools", {"use": {"calculator": {}, "python": {"state": "none"}}}, True),
    ],
)
def test_which_tools_use_the_seed(name: str, options: dict, seeded: bool) -> None:
    assert get_environment(name, **options).uses_seed is seeded
