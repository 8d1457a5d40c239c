"""The driver, with real processes that do little: whatever dies, the run goes on or ends as said, and nothing is left.

A trainer here is a line of Python that plays the scene: it kills, waits for what must follow, and ends.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from reasoner.cluster import driver
from reasoner.cluster.driver import ClusterError, Driver
from reasoner.cluster.parts import Start
from reasoner.cluster.placement import Placement
from reasoner.cluster.seat import PYTHON, Command, Report, Seat, SeatLost
from reasoner.config.load import resolve
from reasoner.storage.cluster_file import Asked, Place, read_places
from reasoner.storage.files import RunError
from reasoner.storage.run_lock import locked
from tests.unit.reasoner.cluster.living import marked, until

ROOT = Path(__file__).resolve().parents[4]
SERVE = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("serving", flush=True)
while True:
    one = server.accept()[0]
    one.recv(4096)
    one.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\n{"weight_version": "7"}')
    one.close()
"""
SILENT = "import time; time.sleep(300)"
TRAIN = """
import json, os, signal, sys, time
root, driver, index = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def until(holds):
    end = time.monotonic() + 30
    while not holds():
        if time.monotonic() > end:
            sys.exit("it does not come about")
        time.sleep(0.02)
def write(name, content, how="w"):
    with open(f"{root}/{name}", how) as file:
        file.write(content)
def there(name):
    return os.path.exists(f"{root}/{name}")
def part(role, number=0):
    with open(f"{root}/cluster/cluster.json") as file:
        return json.load(file)[role + "s"][number]
def up(role, number=0, restarts=0):
    until(lambda: part(role, number)["state"] == "up" and part(role, number)["restarts"] == restarts)
    return part(role, number)
def ask(model):
    write("cluster/asks", json.dumps({"model": model, "options": ["--seed", "1"]}))
    os.rename(f"{root}/cluster/asks", f"{root}/cluster/samplers.json")
def step(number, folder="."):
    os.makedirs(f"{root}/{folder}", exist_ok=True)
    write(f"{folder}/metrics.jsonl", json.dumps({"step": number}) + "\\n", "a")
def fail(error, status=1, folder="."):
    write(f"{folder}/failed.json", json.dumps({"error": error}))
    sys.exit(status)
"""


class Machines(Placement):
    """Seats on this machine, which can be lost: those of the parts that the file `lost` of the folder names."""

    one_machine = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.seats = folder, list[LosableSeat]()
        self.waits: Callable[[], None] = lambda: None
        self.full = False
        self.sees = True

    def seat(self, role: str, number: int) -> Seat:
        self.waits()
        if self.full and len(self.seats) > 1:
            raise SeatLost("no machine is free")
        self.seats.append(LosableSeat(self, f"{role}-{number}-{len(self.seats)}"))
        return self.seats[-1]

    def close(self) -> None:
        """Do nothing."""


class LosableSeat(Seat):
    """A seat that is lost once the file `lost` begins its name."""

    def __init__(self, machines: Machines, name: str) -> None:
        super().__init__()
        self.machines, self.name, self.closed = machines, name, False

    def poll(self) -> Report:
        lost = self.machines.folder / "lost"
        if lost.exists() and lost.read_text() == self.name:
            raise SeatLost("its power is off")
        return super().poll()

    def sees(self, file: str, content: str) -> bool:
        return self.machines.sees and super().sees(file, content)

    def close(self) -> None:
        super().close()
        self.closed = True


class Scene:
    """A run of the driver: what its parts do at each start, and what they were started with."""

    def __init__(self, folder: Path) -> None:
        self.root, self.mark = folder / "a run", str(folder)
        self.machines = Machines(folder)
        self.trainers: list[str] = []
        """Code of each start of a trainer, in order."""
        self.servers: list[str] = []
        """Code of each start of a server, in order; then SERVE."""
        self.resumed: list[bool] = []
        self.ports: list[int] = []
        self.served: list[Asked] = []
        self.times: list[float] = []
        """Monotonic time of each start of a server."""
        self.stop_seconds = 0.3

    def trainer(self, *_: object, machine: int, resume: bool, **__: object) -> Command:
        code = TRAIN + (self.trainers.pop(0) if self.trainers else "sys.exit('started too often')")
        if machine == 0:
            self.resumed.append(resume)
        return self._command(code, str(self.root), str(os.getpid()), str(machine))

    def server(self, *given: object, port: int, **_: object) -> Command:
        self.ports.append(port)
        self.served += [one for one in given if isinstance(one, Asked)]
        self.times.append(time.monotonic())
        return self._command(self.servers.pop(0) if self.servers else SERVE, str(port))

    def _command(self, code: str, *arguments: str) -> Command:
        words = (PYTHON, "-I", "-S", "-c", code, *arguments)
        return Command(words, environment={"MARK": self.mark}, stop_seconds=self.stop_seconds)

    def play(self, *trainers: str, resume: bool = False, stages: Sequence[str] = ("grpo",), **cluster: int) -> int:
        """Run until the trainers end; return the status."""
        self.trainers = list(trainers)
        config = resolve(
            {"task": "arithmetic", "model": "m", "output": str(self.root)}
            | {"stages": [{"method": method, "steps": 9} for method in stages]}
            | {"cluster": {"wait_seconds": 30.0, "trainers": 1, **cluster}}
        )
        start = Start(config="c", overrides=(), cwd=str(self.root.parent))
        return Driver(config, start, self.machines, resume=resume).run()

    def part(self, role: str, number: int = 0) -> Place:
        """Return what cluster.json says of a part."""
        return read_places(self.root / "cluster/cluster.json").of(role)[number]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for name in (driver.ENGINE_KEY, driver.TOKEN_VARIABLE):
        monkeypatch.setenv(name, "k" * 20)
    for name, value in {"LOOP_SECONDS": 0.02, "LOOK_SECONDS": 0.25, "LONGEST_PAUSE": 0.05}.items():
        monkeypatch.setattr(driver, name, value)
    scene = Scene(tmp_path)
    monkeypatch.setattr(driver, "trainer_command", scene.trainer)
    monkeypatch.setattr(driver, "sampler_command", scene.server)
    monkeypatch.setattr(driver, "grader_command", scene.server)
    yield scene
    until(lambda: marked(scene.mark) == [] and not [*(tmp_path / "temporary").iterdir()])
    places = read_places(scene.root / "cluster/cluster.json")
    assert {(place.state, place.pid) for role in ("trainer", "sampler", "grader") for place in places.of(role)} == {
        ("ended", None)
    }
    assert not {path.name for path in (scene.root / "cluster").iterdir()} & {
        "run.lock",
        "seen",
        ".writing-cluster.json",
    }


def test_parts_come_up_in_order_and_end_with_the_trainers(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    seen = """
assert part("grader")["state"] == "up", "graders come first"
assert part("sampler")["state"] == "starting" and part("sampler")["pid"] is None, "nobody has asked for it"
ask("m")
assert up("sampler")["version"] == "7" and up("sampler")["url"].startswith("http://127.0.0.1:")
assert part("trainer")["pid"] == os.getpid()
print("learned")
"""
    assert scene.play(seen, samplers=1, graders=1) == 0
    assert scene.served == [Asked("m", ("--seed", "1"))]
    assert scene.part("sampler").serves == scene.served[0].mark
    assert capsys.readouterr().out == "learned\n"
    assert (scene.root / "cluster/trainer-0.log").read_text() == "learned\n"
    assert (scene.root / "cluster/grader-0.log").read_text().startswith("serving\n")


@pytest.mark.parametrize("how", ["KILL", "STOP"])
def test_servers_that_die_or_hang_are_started_again_at_their_ports(
    scene: Scene, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "HUNG_SECONDS", 0.5 if how == "STOP" else 120.0)
    kills = f"""
ask("m")
for role in ("grader", "sampler"):
    before = up(role)
    os.kill(before["pid"], signal.SIG{how})
    after = up(role, restarts=1)
    assert after["url"] == before["url"] and after["pid"] != before["pid"]
"""
    assert scene.play(kills, samplers=1, graders=1) == 0
    assert len(scene.ports) == 4
    said = capsys.readouterr().err
    for name in ("grader-0", "sampler-0"):
        assert f"cluster: {name} {'was killed (SIGKILL)' if how == 'KILL' else 'has not answered for '}" in said


def test_a_server_that_does_not_come_up_in_time_is_ended_and_gets_another_port(scene: Scene) -> None:
    dies = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit('I waited for a lock')); time.sleep(300)"
    scene.servers = [dies]
    assert scene.play("up('grader', restarts=1)", graders=1, wait_seconds=3) == 0
    assert len(set(scene.ports)) == 2
    assert (scene.root / "cluster/grader-0.log").read_text().startswith("I waited for a lock\nserving\n"), "last words"


def test_a_server_that_never_comes_up_ends_the_run_and_pauses_grow(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LONGEST_PAUSE", 30.0)
    scene.servers = ["print('out of memory'); raise SystemExit(3)"] * 3
    log = scene.root / "cluster/sampler-0.log"
    said = "sampler-0 ended with status 3, 3 times without success in between (cluster.restarts=2). Its log says why: "
    with pytest.raises(ClusterError, match=re.escape(f"{said}{log}")):
        scene.play("ask('m'); time.sleep(300)", restarts=2, samplers=1)
    assert log.read_text() == "out of memory\n" * 3
    assert scene.part("sampler").why == "ended with status 3"
    assert scene.part("sampler").restarts == 3
    first, second, third = scene.times
    assert third - second >= 1.0
    assert first < second


def test_a_server_that_answers_in_between_may_fail_more_often(scene: Scene) -> None:
    kills = "ask('m')\nfor n in range(2): os.kill(up('sampler', restarts=n)['pid'], 9)\nup('sampler', restarts=2)"
    assert scene.play(kills, samplers=1, restarts=1) == 0


def test_where_no_machine_is_free_the_run_ends(scene: Scene) -> None:
    scene.machines.full = True
    loses = "write('../lost', 'grader-0-0'); time.sleep(300)"
    with pytest.raises(ClusterError, match=r"grader-0 has got no machine \(no machine is free\), 3 times"):
        scene.play(loses, graders=1, restarts=2)
    assert scene.part("grader").machine is None


def test_a_server_on_a_lost_machine_gets_another_seat(scene: Scene) -> None:
    loses = """
before = up("grader")
write("../lost", "grader-0-0")
after = up("grader", restarts=1)
assert after["url"] != before["url"] and after["pid"] != before["pid"]
"""
    assert scene.play(loses, graders=1) == 0
    assert [seat.name for seat in scene.machines.seats] == ["grader-0-0", "trainer-0-1", "grader-0-2"]
    until(lambda: scene.machines.seats[0].closed)


def test_samplers_of_another_model_take_the_place_of_the_first_ones(scene: Scene) -> None:
    asks = """
ask("first")
first = up("sampler", 1)
ask("second")
until(lambda: part("sampler", 1)["serves"] != first["serves"] and part("sampler", 1)["state"] == "up")
assert up("sampler", 1)["url"] == first["url"]
"""
    assert scene.play(asks, samplers=2, restarts=0) == 0
    assert [one.model for one in scene.served] == ["first", "first", "second", "second"]


def test_trainers_that_die_go_on_with_what_they_had(scene: Scene) -> None:
    deaths = ["os.kill(os.getpid(), 9)", "sys.exit(1)", "fail('EngineError')", "fail('ProcessError')"]
    learns = [f"step({number}); {death}" for number, death in enumerate(deaths, start=1)]
    assert scene.play(*learns, "assert part('trainer')['restarts'] == 4", restarts=1) == 0
    assert scene.resumed == [False, True, True, True, True]
    assert scene.part("trainer").version == "4"


@pytest.mark.parametrize(
    ("ends", "status"),
    [("fail('TaskError')", 1), ("fail('UngradedError', 7)", 1), ("sys.exit(2)", 2), ("sys.exit(130)", 130)],
)
def test_trainers_that_say_why_are_not_started_again(scene: Scene, ends: str, status: int) -> None:
    assert scene.play(f"step(1); {ends}", resume=True) == status
    assert scene.resumed == [True]


def test_what_failed_before_the_start_is_not_why_trainers_ended(scene: Scene) -> None:
    scene.root.mkdir()
    (scene.root / "failed.json").write_text('{"error": "TaskError"}')
    os.utime(scene.root / "failed.json", (4e9, 4e9))  # the clock of the file system may be ahead
    assert scene.play("os.kill(os.getpid(), 9)", "pass", resume=True) == 0


def test_restarts_without_a_new_step_end_the_run(scene: Scene) -> None:
    said = r"trainer-0 ended with status 1, 2 times without success in between \(cluster.restarts=1\)"
    with pytest.raises(ClusterError, match=said):
        scene.play("step(3); sys.exit(1)", "step(3); sys.exit(1)", "sys.exit('once too often')", restarts=1)
    assert scene.resumed == [False, True]


def test_of_several_stages_any_may_make_a_step_or_fail(scene: Scene) -> None:
    learns = [
        f"step({number}, {stage!r}); sys.exit(1)" for stage, number in (("0-sft", 9), ("1-grpo", 1), ("1-grpo", 2))
    ]
    assert scene.play(*learns, "fail('TaskError', folder='1-grpo')", stages=("sft", "grpo"), restarts=1) == 1
    assert scene.resumed == [False, True, True, True]
    assert scene.part("trainer").version == "2"


def test_trainers_on_several_machines_are_started_again_together(scene: Scene) -> None:
    waits = "time.sleep(300)"
    again = "until(lambda: [part('trainer', n)['restarts'] for n in (0, 1)] == [1, 1])"
    assert scene.play(waits, "sys.exit(1)", again, again, trainers=2, trainer_machines=2) == 0
    assert scene.resumed == [False, True]


def test_a_lost_machine_of_a_trainer_gives_it_another_seat(scene: Scene) -> None:
    loses = "write('../lost', 'trainer-1-1'); time.sleep(300)"
    assert scene.play(loses, "time.sleep(300)", "pass", "pass", trainers=2, trainer_machines=2) == 0
    assert [seat.name for seat in scene.machines.seats] == ["trainer-0-0", "trainer-1-1", "trainer-1-2"]
    assert scene.resumed == [False, True]


def test_a_run_that_another_process_took_over_is_left_to_it(scene: Scene) -> None:
    """The lock is held by this process, as if by another command."""
    scene.root.mkdir()
    with (
        locked(scene.root),
        pytest.raises(ClusterError, match=f"is being written by process {os.getpid()} .* Stop that, then"),
    ):
        scene.play("sys.exit(1)")
    assert scene.resumed == [False]


def test_the_lock_of_a_trainer_on_a_lost_machine_is_removed(scene: Scene) -> None:
    held = '(root / \'run.lock\').write_text(\'{"host": "gone", "pid": 1}\'); sys.exit(1)'
    assert scene.play(held, "assert not there('run.lock')") == 0


ENDS = "signal.signal(2, lambda *_: (print('written'), sys.exit({status})))\n"
SIGNALS = "os.kill(driver, signal.SIG{name})\ntime.sleep(300)"


@pytest.mark.parametrize("name", ["INT", "TERM"])
def test_once_interrupted_the_trainers_end_with_a_checkpoint(
    scene: Scene, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        scene.play("ask('m'); up('sampler')\n" + ENDS.format(status=130) + SIGNALS.format(name=name), samplers=1) == 130
    )
    said = capsys.readouterr()
    assert said.out == "written\n"
    assert said.err == "cluster: stopping after this step, with a checkpoint (again: at once)\n"


def test_the_last_of_several_trainers_is_waited_for(scene: Scene) -> None:
    slow = "def end(*_):\n    time.sleep(1.0)\n    write('checkpoint', '')\n    sys.exit(130)\n"
    slow += "signal.signal(2, end)\nwrite('set', '')\ntime.sleep(300)"
    quick = "until(lambda: there('set'))\n" + ENDS.format(status=130) + SIGNALS.format(name="INT")
    scene.stop_seconds = 0.0
    assert scene.play(slow, quick, trainers=2, trainer_machines=2) == 130
    assert (scene.root / "checkpoint").exists()


def test_twice_interrupted_all_end_at_once(scene: Scene) -> None:
    deaf = "for one in (2, 15): signal.signal(one, lambda *_: write('first', ''))\n"
    twice = "os.kill(driver, 2)\nuntil(lambda: there('first'))\nos.kill(driver, 15)\nwhile True: time.sleep(1)"
    with pytest.raises(KeyboardInterrupt):
        scene.play("up('grader')\n" + deaf + twice, graders=1)


def test_interrupted_before_the_graders_are_up_it_ends(scene: Scene) -> None:
    scene.servers = [f"import os; os.kill({os.getpid()}, 2); {SILENT}"]
    assert scene.play("raise SystemExit('not to be started')", graders=1) == 130
    assert scene.resumed == []


def test_a_second_command_is_refused(scene: Scene) -> None:
    second = Scene(scene.root.parent)
    seen: list[str] = []

    def starts(*given: object, **options: object) -> Command:
        with pytest.raises(RunError, match="cluster is being written by process"):
            second.play("pass")
        seen.append("refused")
        return scene.server(*given, **options)  # pyright: ignore[reportArgumentType]

    driver.grader_command = starts  # pyright: ignore[reportAttributeAccessIssue]  (set back by the fixture)
    assert scene.play("pass", graders=1) == 0
    assert seen == ["refused"]
    assert second.resumed == []


def test_a_machine_that_does_not_see_the_run_folder_is_named(scene: Scene) -> None:
    scene.machines.sees = False
    with pytest.raises(ClusterError, match=r"must see the run folder .* Set output to a folder of a file system"):
        scene.play("pass")
    (scene.root / "cluster/seen").unlink()


def test_while_a_machine_is_waited_for_the_table_is_kept_and_servers_are_not_taken_for_hung(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "HUNG_SECONDS", 0.5)

    def waits() -> None:
        if scene.ports:  # the grader is up
            file = scene.root / "cluster/cluster.json"
            begun = read_places(file).time or 0.0
            until(lambda: (read_places(file).time or 0.0) > begun + 1.0)

    scene.machines.waits = waits
    assert scene.play("up('grader')", graders=1) == 0
    assert scene.part("grader").restarts == 0
    assert len(scene.ports) == 1


def test_any_output_is_kept(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    talks = "b'\\xff\\xfe\\x1b[31m' + 'é'.encode()"
    slow = "é".encode()
    split = f"; write({slow[:1]!r}); sys.stdout.flush(); time.sleep(0.2); write({slow[1:]!r})"
    floods = "import sys\nfor _ in range(40): sys.stdout.buffer.write(b'x' * (1 << 20))\nraise SystemExit(1)"
    scene.servers = [floods]
    assert (
        scene.play(f"up('grader', restarts=1); write = sys.stdout.buffer.write; write({talks}){split}", graders=1) == 0
    )
    assert capsys.readouterr().out == "\ufffd\ufffd\x1b[31méé"
    assert (scene.root / "cluster/trainer-0.log").read_bytes() == b"\xff\xfe\x1b[31m" + "éé".encode()
    assert (scene.root / "cluster/grader-0.log").stat().st_size - len("serving\n") >= 40 << 20


def test_a_run_goes_on_when_nobody_reads_its_output(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        monkeypatch.setattr(sys, "stderr", broken)
        assert scene.play("print('one', flush=True); os.kill(os.getpid(), 9)", "print('two')") == 0
    assert (scene.root / "cluster/trainer-0.log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("content", "step"),
    [(b'{"step": 3}\n{"step": 4}\n', 4), (b'{"step": 3}\n{"st', 3), (b"", 0), (b"x\n", 0), (b"\xff\n", 0), (None, 0)],
)
def test_the_last_step_is_that_of_the_last_whole_row(tmp_path: Path, content: bytes | None, step: int) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content)
    assert driver.last_step(tmp_path) == step
