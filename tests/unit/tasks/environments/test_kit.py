"""Environments by name, their checks, the scaffold, and live objects by replay."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reasoner.cli import app
from reasoner.config.load import load_config
from tasks import TaskError, Turn
from tasks.environments import Episode, Reply, environment, get_environment, installed_environments
from tasks.environments.base import EnvironmentFault, checked_reply
from tasks.environments.conformance import check_environment
from tasks.environments.registry import BUILTIN
from tasks.environments.scaffold import CONFIG, FILE, new_file
from tasks.registry import get_task, task_class
from tasks.validate import validate_task
from verifiers import UnknownVerifier, get_verifier

BAD = """
import os, random
from tasks.environments import Reply, environment

@environment("unseeded", sample_turns=("a",))
def unseeded(*, turns):
    return Reply(str(random.SystemRandom().random()))

SEEN = []

@environment("remembers", sample_turns=("a", "b"))
def remembers(*, turns):
    SEEN.append(turns[-1].text)
    return Reply(" ".join(SEEN))

@environment("raises", sample_turns=("1",))
def raises(*, turns):
    return Reply(str(int(turns[-1].text)))

@environment("endless", sample_turns=("a",))
def endless(*, turns):
    return Reply("x" * 200_000)

@environment("silent", sample_turns=("a",))
def silent(*, turns):
    return None

@environment("text", sample_turns=("a",))
def text(*, turns):
    return "a"

@environment("two-words", sample_turns=("a",))
def two_words(*, turns):
    return Reply(random.choice(["cold", "warm"]) if turns[-1].text == "a" else "?")

@environment("hangs", sample_turns=("a",))
def hangs(*, turns):
    while turns[-1].text != "never":
        pass

hangs.__environment__.reply_seconds = 0.5

@environment("forever", sample_turns=("a",))
def forever(*, turns):
    return Reply("again")
"""
RAISES = """from tasks.environments import Reply, environment
@environment("raises")
def play(*, turns):
    return Reply(str(int(turns[-1].text)))
"""
SECRET = """
import random
from tasks.environments import Reply, environment

SECRET = random.randrange(10**9)

@environment("secret", sample_turns=("a",))
def secret(*, turns):
    return Reply("won" if turns[-1].text == str(SECRET) else "no", score=0.0)
"""


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("unseeded", "the same reply in another process"),
        ("remembers", "the same reply in another process"),
        ("raises", "raises for nothing that a policy can write"),
        ("endless", "replies of at most 100,000 characters"),
        ("silent", "answers its sample turns"),
        ("text", "answers its sample turns"),
        ("two_words", "the same reply in another process"),
        ("hangs", "answers its sample turns"),
    ],
)
def test_the_check_finds_what_is_wrong(tmp_path: Path, name: str, check: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(BAD)
    told: list[str] = []
    report = check_environment(f"{file}:{name}", told=lambda finding: told.append(finding.check))
    failed = {finding.check: finding.detail for finding in report.failures}
    assert check in failed
    assert told == [finding.check for finding in report.findings]
    if name in ("text", "hangs"):
        assert len(report.findings) == 1, "the others would only say it again"
    for case, says in (
        ("text", "at bad.py:28 must return a Reply or None; got str"),
        ("hangs", "took longer than 0.5 s"),
        ("raises", "at bad.py:18. Reply to such a turn instead"),
        ("two_words", "random.Random(seed)"),
    ):
        assert name != case or says in failed[check], failed


def test_what_is_never_said_is_a_note(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    report = check_environment(f"{tmp_path}/bad.py:forever")
    assert report.failures == ()
    last = report.findings[-1]
    assert last.result == "note"
    assert "no reply has done=True" in last.detail
    assert "no reply has a score" in last.detail


def test_a_secret_of_the_process_is_found(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text(SECRET)
    (failed,) = check_environment(f"{tmp_path}/secret.py").failures
    assert failed.check == "the same globals in another process"
    assert failed.detail.startswith("SECRET is ")


def test_shipped_environments_pass() -> None:
    for name in ("calculator", "guess"):
        assert check_environment(name).failures == ()


def test_names() -> None:
    assert {source.name for source in installed_environments()} >= set(BUILTIN)
    with pytest.raises(TaskError, match=r"no environment named 'calculater'.*calculator"):
        get_environment("calculater")
    with pytest.raises(TaskError, match="option"):
        get_environment("calculator", digits=3)
    with pytest.raises(TaskError, match="must be an Environment class"):
        get_environment("tasks.environments.guess:MOST_DIGITS")
    with pytest.raises(TaskError, match="cannot load"):
        get_environment("nowhere.py")


def test_a_file_or_module_of_ones_own_is_named_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    new_file("maze", Path("maze.py"))
    assert task_class("maze.py").__name__ == "MazeTask"
    assert get_environment("maze.py").name == "maze"
    for look, name, says in (
        (task_class, "maze:MazeTask", "maze.py:MazeTask"),
        (task_class, "maze", "maze.py"),
        (get_environment, "maze:play", "maze.py:play"),
        (get_verifier, "maze", "maze.py"),
    ):
        with pytest.raises((TaskError, UnknownVerifier), match=rf"The file maze.py is named '{says}'"):
            look(name)
    Path("two.py").write_text(Path("maze.py").read_text() + "\n\nclass Other(MazeTask): ...\n")
    with pytest.raises(TaskError, match=r"two.py must define exactly one Task; found MazeTask, Other. Name one"):
        task_class("two.py")
    Path("syntax.py").write_text("def broken(:\n")
    with pytest.raises(TaskError, match=r"cannot load 'syntax.py': invalid syntax"):
        get_environment("syntax.py")
    Path("bare.py").write_text("from tasks.environments import environment\n@environment\ndef play(turns): ...\n")
    with pytest.raises(TaskError, match="@environment needs a name in parentheses"):
        get_environment("bare.py")


def test_a_function_says_which_arguments_it_wants() -> None:
    @environment("seeded")
    def seeded(*, turns: object, seed: int) -> Reply:
        return Reply(str(seed))

    made = get_environment("seeded")
    assert made.uses_seed
    reply = made.reply(Episode(turns=[Turn("policy", "")], seed=9))
    assert reply is not None
    assert reply.text == "9"
    with pytest.raises(TaskError, match="must be a function of turns"):
        environment("wrong")(lambda *, question: Reply(question))


def test_replies_are_checked() -> None:
    assert checked_reply(None, "x") is None
    for bad in ("text", Reply(7), Reply("a", score=float("nan")), Reply("a", score="1")):  # pyright: ignore
        with pytest.raises(EnvironmentFault, match="'x'"):
            checked_reply(bad, "x")


def test_the_scaffold_writes_a_working_file(tmp_path: Path) -> None:
    file = new_file("hang-man", tmp_path / "games" / "hang_man.py")
    assert [finding.result for finding in check_environment(str(file)).findings] == ["ok"] * 8
    found = validate_task(get_task(str(file), train_size=50), "train")
    assert (found.faults, found.stops) == ([], [])
    assert found.demonstrations > 25
    assert len(file.read_text().splitlines()) < 80
    shown = (Path(__file__).parents[4] / "docs" / "environments.md").read_text()
    assert FILE.format(name="hi-lo", cls="HiLo") in shown
    assert CONFIG.format(name="hi-lo", file="hi_lo.py") in shown
    run = load_config(str(file.with_suffix(".yaml")))
    assert [stage.method for stage in run.stages] == ["sft", "grpo"]
    assert get_task(run.stages[0].task[0].name, **run.stages[0].task[0].options).name == "hang-man"
    with pytest.raises(TaskError, match="exists already"):
        new_file("hang-man", file)
    with pytest.raises(TaskError, match="lower-case"):
        new_file("Hang Man", tmp_path / "x.py")


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    listed = runner.invoke(app, ["environments", "list"])
    assert listed.exit_code == 0
    assert "guess" in listed.output
    said = runner.invoke(app, ["environments", "new", "hangman"]).output
    assert "environments check hangman.py" in said
    assert "train hangman.yaml" in said
    checked = runner.invoke(app, ["environments", "check", "hangman.py"])
    assert checked.exit_code == 0, checked.output
    shown = runner.invoke(app, ["tasks", "show", "hangman.py", "-n", "1"]).output
    assert "environment 'higher\\n'" in shown or "environment 'lower\\n'" in shown
    played = runner.invoke(app, ["environments", "play", "guess", "--reference", "40"], input="32\n40\n")
    assert "higher" in played.output
    assert "score 1.0" in played.output
    assert "a number, please" in runner.invoke(app, ["environments", "play", "guess"], input="\n").output
    given_up = runner.invoke(app, ["environments", "play", "guess", "--seed", "3", "--info", "a=1"], input="")
    assert (given_up.exit_code, "(given up)" in given_up.output) == (0, True)
    (tmp_path / "raises.py").write_text(RAISES)
    fell = runner.invoke(app, ["environments", "play", "raises.py"], input="x\n")
    assert fell.exit_code == 2
    assert "'raises' raised ValueError: invalid literal" in fell.output
    assert "at raises.py:4. Reply to such a turn instead" in fell.output
    (tmp_path / "bad.py").write_text(BAD)
    failed = runner.invoke(app, ["environments", "check", "bad.py:raises"])
    assert failed.exit_code == 1
    assert "FAIL" in failed.output


class Corridor:
    """A gymnasium-like object: walk right to the end; the start depends on the seed."""

    def __init__(self, *, length: int = 4, repeatable: bool = True) -> None:
        self._length, self._repeatable = length, repeatable

    def reset(self, *, seed: int = 0) -> tuple[str, dict[str, Any]]:
        self._at = random.Random(seed).randrange(self._length - 1)
        if not self._repeatable:
            self._at = random.SystemRandom().randrange(1000)
        return f"at {self._at}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self._at += action == "right"
        done = self._at >= self._length
        return f"at {self._at}", float(done), done, False, {}


class Result:
    def __init__(self, observation: str, reward: float | None = None, done: bool = False) -> None:
        self.observation, self.reward, self.done = observation, reward, done


class OpenEnvLike:
    """An object in OpenEnv's shape."""

    closed = 0

    def reset(self, seed: int) -> Result:
        self._sum = seed
        return Result(f"sum {seed}")

    def step(self, action: int) -> Result:
        self._sum += action
        return Result(f"sum {self._sum}", reward=float(action), done=self._sum > 9)

    def close(self) -> None:
        OpenEnvLike.closed += 1


def test_live_objects_are_replayed() -> None:
    made = get_environment("replayed", make=f"{__name__}:Corridor", options={"length": 3})
    turns: list[Turn] = []
    start = random.Random(5).randrange(2)
    score = None
    for step in range(1, 4):
        turns.append(Turn("policy", "right\n"))
        reply = made.reply(Episode(turns=tuple(turns), info={"seed": 5}))
        assert reply is not None
        assert reply.text == f"at {start + step}\n"
        turns.append(Turn("environment", reply.text))
        score = reply.score
        if reply.done:
            break
    assert score == 1.0


def test_objects_that_do_not_repeat_themselves_are_refused() -> None:
    made = get_environment("replayed", make=f"{__name__}:Corridor", options={"repeatable": False})
    turns = (Turn("policy", "right"), Turn("environment", "at 5000\n"), Turn("policy", "right"))
    with pytest.raises(EnvironmentFault, match="had another reply when it was repeated"):
        made.reply(Episode(turns=turns))


def test_openenv_results_and_actions_that_are_none() -> None:
    made = get_environment("replayed", make=f"{__name__}:OpenEnvLike", action="integer")
    before = OpenEnvLike.closed
    said = [Turn("policy", "4\n"), Turn("environment", "sum 4\n"), Turn("policy", "no\n")]
    reply = made.reply(Episode(turns=tuple(said)))
    assert reply is not None
    assert (reply.text, reply.errors, reply.score) == ("invalid action\n", 1, 4.0)
    said += [Turn("environment", reply.text), Turn("policy", "6\n")]
    last = made.reply(Episode(turns=tuple(said)))
    assert last is not None
    assert (last.text, last.done, last.score) == ("sum 10\n", True, 10.0)
    assert OpenEnvLike.closed == before + 2
    with pytest.raises(TaskError, match="must name a callable"):
        get_environment("replayed", make="tasks.environments.guess:MOST_DIGITS")
