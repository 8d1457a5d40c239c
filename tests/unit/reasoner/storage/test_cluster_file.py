"""cluster.json: what is read from it, what is refused, and what trainers ask for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasoner.storage.cluster_file import (
    ASKED_FILE,
    Asked,
    Place,
    PlacedParts,
    Places,
    read_asked,
    read_places,
    write_places,
)
from reasoner.storage.files import RunError

URL = "http://10.0.0.2:8000"


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    places = Places(
        trainers=[Place(machine="a", pid=3, version="7")],
        samplers=[Place(url=URL, serves="m", restarts=2, why="was killed", log="cluster/sampler-0.log", since=1.5)],
        graders=[Place(state="starting")],
        kept_by="process 1 on a",
        time=2.5,
    )
    write_places(tmp_path / "cluster.json", places)
    assert read_places(tmp_path / "cluster.json") == places
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def test_by_hand_addresses_are_enough(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"samplers": [{"url": "http://[::1]:8000/"}], "graders": [{"url": "https://g:1"}]}))
    parts = PlacedParts(file)
    assert (parts.count("sampler"), parts.count("grader"), parts.count("trainer")) == (1, 1, 0)
    mark = parts.ask("model", ["--seed", "0"])
    assert parts.address("sampler", 0, asked=mark) == "http://[::1]:8000/", "it serves what it serves"
    assert [address() for address in parts.addresses("grader")] == ["https://g:1"]
    assert not (tmp_path / ASKED_FILE).exists(), "nobody would read it"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must be JSON such as"),
        (b"\xff\xfe\x00", "must be JSON such as"),
        (b"[]", "must be JSON such as"),
        (b"null", "must be JSON such as"),
        (b"[" * 100_000, "must be JSON such as"),
        (b'{"sampler": [{"url": "http://a:1"}]}', "sampler: .*not permitted|sampler: Unexpected"),
        (b'{"samplers": [{"adress": "http://a:1"}]}', "samplers: 0: adress: "),
        (b'{"samplers": {"url": "http://a:1"}}', "samplers: "),
        (b'{"samplers": ["http://a:1"]}', "samplers: 0: "),
        (b'{"samplers": [{"url": "a:8000"}]}', r"samplers\[0\].url must be http://HOST:PORT; got 'a:8000'"),
        (b'{"samplers": [{"url": "http://a:99999"}]}', r"samplers\[0\].url must be"),
        (b'{"graders": [{"url": "http://a:1"}, {}]}', r"graders\[1\].url must be http://HOST:PORT; got None"),
        (b'{"graders": [{"url": "http://a:1", "state": "asleep"}]}', "graders: 0: state: "),
        (b'{"trainers": [{"restarts": "many"}]}', "trainers: 0: restarts: "),
    ],
)
def test_what_is_no_such_file_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "cluster.json"
    file.write_bytes(content)
    with pytest.raises(RunError, match=said) as raised:
        read_places(file)
    assert str(raised.value).startswith(str(file))
    assert len(str(raised.value)) < 600
    assert PlacedParts(file).address("sampler", 0) is None, "in the middle of a run it is asked again"


@pytest.mark.parametrize("name", ["none.json", ""])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match=r"cannot be read: .* Set cluster.file to a cluster.json"):
        PlacedParts(tmp_path / name).count("sampler")


def test_an_address_is_that_of_a_part_that_is_up_with_what_was_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "cluster.json"
    place = Place(url=URL, state="starting")
    places = Places(samplers=[place], kept_by="process 1 on a")
    write_places(file, places)
    parts = PlacedParts(file)
    mark = parts.ask("model", ("--seed", "0"))
    assert read_asked(tmp_path) == Asked("model", ("--seed", "0"))
    assert mark == Asked("model", ("--seed", "0")).mark
    assert mark != Asked("model", ("--seed", "1")).mark
    assert parts.address("sampler", 0, asked=mark) is None
    place.state, place.serves = "up", "another"
    write_places(file, places)
    assert parts.address("sampler", 0, asked=mark) is None
    assert parts.address("sampler", 0) == URL
    place.serves = mark
    write_places(file, places)
    assert parts.address("sampler", 0, asked=mark) == URL
    assert parts.address("sampler", 1, asked=mark) is None
    file.unlink()
    assert parts.address("sampler", 0, asked=mark) is None


def test_of_parts_that_have_ended_nothing_is_asked(tmp_path: Path) -> None:
    """Otherwise a trainer would wait for them until engine.options.start_seconds."""
    write_places(tmp_path / "cluster.json", Places(samplers=[Place(url=URL, state="ended")], kept_by="process 1 on a"))
    with pytest.raises(RunError, match="have ended with the command that started them"):
        PlacedParts(tmp_path / "cluster.json").ask("model", ())
    assert not (tmp_path / ASKED_FILE).exists()


def test_nothing_is_asked_while_there_is_no_file(tmp_path: Path) -> None:
    assert read_asked(tmp_path) is None
