from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reasoner.observe.analysis.rescore import (
    Regraded,
    advantages,
    advantages_note,
    changed_rows,
    learned_rewards,
    regrade,
    summarize,
)
from reasoner.storage.history import row_of
from tests.unit.reasoner.runs import make_history, make_records, stage, write_run
from verifiers import Outcome, Verdict


def test_the_same_verifier_gives_the_same_rewards() -> None:
    history = make_history(make_records(steps=3))
    done = regrade(history.rows, history.config, workers=1)
    assert [item.after for item in done] == [item.before for item in done]
    found = summarize(done, history.config)
    assert (found.changed, found.advantages_changed, found.signal_lost, found.signal_gained) == (0, 0, 0, 0)
    assert changed_rows(done) == []


def test_another_verifier_changes_rewards_advantages_and_signal(tmp_path: Path) -> None:
    (tmp_path / "even.py").write_text(
        "def even(*, completion, reference):\n    return int(completion.split()[-1]) % 2 == 0\n"
    )
    history = make_history(make_records(steps=2, problems=4))
    done = regrade(history.rows, history.config, verifier=f"{tmp_path / 'even.py'}:even", workers=1)
    wanted = [float(int(row.completion.split()[-1]) % 2 == 0) for row in history.rows]
    assert [item.after for item in done] == wanted
    found = summarize(done, history.config)
    assert found.changed == sum(a != b.reward for a, b in zip(wanted, history.rows, strict=True))
    assert found.reward_after == pytest.approx(sum(wanted) / len(wanted))
    groups = [history.rows[i : i + 8] for i in range(0, len(history.rows), 8)]
    had = [len({row.reward for row in group}) > 1 for group in groups]
    would = [len({wanted[i + k] for k in range(8)}) > 1 for i in range(0, len(wanted), 8)]
    assert found.signal_lost == sum(a and not b for a, b in zip(had, would, strict=True))
    assert found.signal_gained == sum(b and not a for a, b in zip(had, would, strict=True))
    assert len(changed_rows(done)) == found.changed


@pytest.mark.parametrize(
    ("algorithm", "expected", "says"),
    [
        ({"advantage": "dr_grpo"}, [0.25, -0.75, 0.0, 0.25, 0.25], None),
        ({"advantage": "rloo"}, [1 / 3, -1.0, 0.0, 1 / 3, 1 / 3], None),
        ({"advantage": "rejection", "advantage_options": {"threshold": 0.5}}, [1.0, 0.0, 0.0, 1.0, 1.0], None),
        ({"advantage": "gae"}, [0.25, -0.75, 0.0, 0.25, 0.25], "'gae' needs more than the rewards of a group"),
        ({"advantage": "my:own"}, [0.25, -0.75, 0.0, 0.25, 0.25], "rewards minus their group's mean"),
        (
            {"advantage": "rloo", "kl_in": "reward", "kl_coef": 0.1},
            [1 / 3, -1.0, 0.0, 1 / 3, 1 / 3],
            "leave out",
        ),
    ],
)
def test_advantages_are_those_of_the_run_or_it_is_said_that_they_are_not(
    algorithm: dict[str, object], expected: list[float], says: str | None
) -> None:
    section = stage(algorithm=algorithm).algorithm
    assert advantages([1.0, 0.0, None, 1.0, 1.0], section) == pytest.approx(expected)
    note = advantages_note(section)
    assert note is None if says is None else says in (note or "")


def test_the_command_says_what_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", make_records(steps=2))
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", "rescore", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changed"] == 0
    assert json.loads(done.stdout)["advantages_note"] is None


def test_what_is_learned_from_is_that_of_the_run() -> None:
    """Right (in format), wrong in format, right without format, as a sum of 1 + 1."""
    rows = []
    for mark, form in ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0)):
        verdict = Verdict(
            outcome=Outcome.CORRECT if mark else Outcome.INCORRECT, reward=mark + form, decided_by="exact",
            components={"exact": mark, "format": form}, weights={"exact": 1.0, "format": 1.0},
        )  # fmt: skip
        made = make_records(steps=1, problems=1, group_size=2).rollouts[0]
        row = row_of({**made, "verdict": verdict.to_json(), "components": dict(verdict.components), "shaping": -0.25})
        row.reward = verdict.reward - 0.25 if verdict.reward is not None else None
        rows.append(Regraded(row, verdict))
    for after in (False, True):
        plain = learned_rewards(rows, stage(algorithm={}).algorithm, after=after)
        assert plain == [1.75, 0.75, 0.75]
        right = learned_rewards(rows, stage(algorithm={"advantage": "rejection"}).algorithm, after=after)
        assert right == [0.75, -0.25, 0.75]
        scaled = learned_rewards(rows, stage(algorithm={"normalize_components": True}).algorithm, after=after)
        z = 0.5**0.5
        assert scaled == pytest.approx([2 * z - 0.25, z - 2 * z - 0.25, z - 2 * z - 0.25], abs=1e-4)


def test_records_run_no_code_unless_it_is_asked_for(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (tmp_path / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\ndef right(*, completion, reference):\n    return True\n"
    )
    name = f"{tmp_path / 'own.py'}:right"

    def named(row: dict, _: object) -> None:
        row["verifier"] = name

    made = make_records(steps=1, change=named)
    for folder, config in (("records", {}), ("config", {"task": {"name": "arithmetic", "verifier": {"name": name}}})):
        run = str(write_run(tmp_path / folder, made, **config))
        command = [sys.executable, "-c", "from reasoner.cli import main; main()", "rescore", run]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 2
        assert "--allow-row-code" in done.stderr
        assert not mark.exists()
        for more in (["--allow-row-code"], ["--verifier", name]):
            done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=120)
            assert done.returncode in (0, 1), done.stderr
            assert "rewards change" in done.stdout
            assert mark.exists()
            mark.unlink()
