"""`reasoner cluster status`: the table of a run's parts, and an exit status for scripts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reasoner.cli import app
from reasoner.storage.cluster_file import Place, Places, State, write_places

RUN = CliRunner()


def status(folder: Path, *options: str) -> tuple[int, list[str]]:
    done = RUN.invoke(app, ["cluster", "status", str(folder), *options], env={"COLUMNS": "300"})
    return done.exit_code, done.output.splitlines()


def write(
    folder: Path, *states: State, age: float = 0.0, kept_by: str | None = "process 12 on here", why: str | None = None
) -> Path:
    """Write the table of a run with a trainer, which is up, and samplers in these states."""
    (folder / "cluster").mkdir()
    since = time.time() - 3 * 3600
    places = Places(
        trainers=[
            Place(state="ended" if states == ("ended",) else "up", machine="m-0", pid=71, version="40", since=since)
        ],
        samplers=[
            Place(url="http://m-1:8000", state=one, machine="m-1", why=why, restarts=2, log=f"cluster/sampler-{n}.log")
            for n, one in enumerate(states)
        ],
        kept_by=kept_by,
        time=time.time() - age,
    )
    write_places(folder / "cluster/cluster.json", places)
    return folder


def test_who_is_alive_where_and_with_which_weights(tmp_path: Path) -> None:
    code, lines = status(write(tmp_path, "up"))
    assert code == 0
    assert lines[0].split() == ["part", "state", "machine", "process", "address", "version", "restarts", "since"]
    assert lines[1].split() == ["trainer-0", "up", "m-0", "71", "40", "0", "3", "h", "ago"]
    assert lines[2].split() == ["sampler-0", "up", "m-1", "http://m-1:8000", "2"]
    assert lines[3].startswith("kept by process 12 on here, ")


@pytest.mark.parametrize("state", ["starting", "down"])
def test_what_is_not_up_gives_status_one_and_its_cause(tmp_path: Path, state: State) -> None:
    code, lines = status(write(tmp_path, "up", state, why="was killed (SIGKILL)"))
    assert code == 1
    assert "sampler-1 was killed (SIGKILL); its log: cluster/sampler-1.log" in lines


def test_a_part_has_one_line_whatever_it_is_called(tmp_path: Path) -> None:
    _, lines = status(write(tmp_path, "down", kept_by="process 1\non here", why="died\ntrainer-1  up"))
    assert len(lines) == 5
    assert r"sampler-0 died\ntrainer-1  up; its log: cluster/sampler-0.log" in lines


def test_a_run_that_has_ended_is_not_gone(tmp_path: Path) -> None:
    code, lines = status(write(tmp_path, "ended", age=7200.0))
    assert code == 0
    assert lines[-1] == "ended by process 12 on here, 2 h ago"


def test_a_table_that_nobody_keeps_any_more_is_said_to_be_so(tmp_path: Path) -> None:
    code, lines = status(write(tmp_path, "up", age=90.0))
    assert code == 1
    assert lines[-1] == "nobody has kept this table for 90 s: process 12 on here is gone. Continue with --resume."


def test_a_file_written_by_hand_is_shown(tmp_path: Path) -> None:
    code, lines = status(write(tmp_path, "up", age=9000.0, kept_by=None) / "cluster/cluster.json")
    assert code == 0
    assert lines[-1] == "written by hand: nobody watches these parts"


def test_json_is_the_table_itself(tmp_path: Path) -> None:
    code, lines = status(write(tmp_path, "up", "down"), "--json")
    assert code == 1
    assert json.loads(lines[0]) == json.loads((tmp_path / "cluster/cluster.json").read_bytes())


@pytest.mark.parametrize("name", [".", "no-run", "no-run.json"])
def test_where_no_cluster_ran_one_sentence_says_so(tmp_path: Path, name: str) -> None:
    code, lines = status(tmp_path / name)
    assert code == 2
    assert len(lines) == 1
    assert "Name the folder of a run that was started with cluster.trainers, samplers or graders." in lines[0]


def test_a_table_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster/cluster.json").write_text("{")
    code, lines = status(tmp_path)
    assert (code, len(lines)) == (2, 1)
    assert "must be JSON such as" in lines[0]
