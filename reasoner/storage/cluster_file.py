"""Where the parts of a run are: `cluster.json`, kept by the command that starts them, or written by hand.

By hand it names servers that are there: `{"samplers": [{"url": "http://10.0.0.2:8000"}], "graders": [{"url": ...}]}`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from reasoner.errors import faults
from reasoner.storage.files import RunError, write_atomic
from verifiers.serve.addresses import is_address

CLUSTER_FOLDER = "cluster"
"""Folder in a run folder with cluster.json, the logs of the parts, and what the trainers ask of the samplers."""
CLUSTER_FILE = "cluster.json"
ASKED_FILE = "samplers.json"
State = Literal["starting", "up", "down", "ended"]
ROLES = ("trainer", "sampler", "grader")
_STRICT = ConfigDict(extra="forbid")


@dataclass
class Place:
    """One part of a run and where it is."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    url: str | None = None
    """Address of a sampler or grader; None: it is not up yet."""
    state: State = "up"
    """`down`: it will be started again."""
    machine: str | None = None
    pid: int | None = None
    restarts: int = 0
    since: float | None = None
    """Time of the last change of `state`, in seconds since 1970."""
    serves: str | None = None
    """Mark of the model that a sampler was started with (`Asked.mark`); None: not said."""
    version: str | None = None
    """Version of a sampler's weights, as it says itself; of a trainer its last step."""
    why: str | None = None
    """Why it is down."""
    log: str | None = None
    """Its log, relative to the run folder."""


@dataclass
class Places:
    """Content of cluster.json."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    trainers: list[Place] = field(default_factory=list[Place])
    samplers: list[Place] = field(default_factory=list[Place])
    graders: list[Place] = field(default_factory=list[Place])
    kept_by: str | None = None
    """The command that starts the parts and keeps the file, as `process N on HOST`; None: written by hand."""
    time: float | None = None
    """When it was written last, in seconds since 1970."""

    def of(self, role: str) -> list[Place]:
        """Return the parts of a role, `trainer`, `sampler` or `grader`."""
        return cast("list[Place]", getattr(self, f"{role}s"))

    @property
    def ended(self) -> bool:
        """True if the command that started the parts has ended them."""
        return self.kept_by is not None and all(place.state == "ended" for role in ROLES for place in self.of(role))


_PLACES = TypeAdapter(Places)


@dataclass(frozen=True)
class Asked:
    """What the trainers ask of the command that starts the samplers."""

    model: str
    """Folder or hub name of a model with the trained one's architecture and tokenizer; its weights are not read."""
    options: tuple[str, ...]
    """Arguments of vLLM's server."""

    @property
    def mark(self) -> str:
        """Name of this request: the same content has the same one."""
        return hashlib.blake2b(json.dumps(asdict(self)).encode(), digest_size=6).hexdigest()


def read_places(file: Path) -> Places:
    """Read cluster.json.

    Raises:
        RunError: it cannot be read, or is none.
    """
    try:
        places = _PLACES.validate_json(file.read_bytes())
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}. Set cluster.file to a cluster.json.") from error
    except ValidationError as error:
        raise RunError(
            f'{file} must be JSON such as {{"samplers": [{{"url": "http://HOST:PORT"}}], "graders": []}}:'
            f" {faults(error)}"
        ) from error
    for role in ("sampler", "grader"):
        for number, place in enumerate(places.of(role)):
            if not is_address(place.url) and not (place.url is None and places.kept_by is not None):
                raise RunError(f"{file}: {role}s[{number}].url must be http://HOST:PORT; got {place.url!r}.")
    return places


def write_places(file: Path, places: Places) -> None:
    """Write cluster.json in one piece."""
    write_atomic(file, json.dumps(asdict(places), indent=1).encode() + b"\n")


def read_asked(folder: Path) -> Asked | None:
    """Return what the trainers asked for last; None: nothing, or the file system fails for a moment."""
    try:
        found = cast("Mapping[str, object]", json.loads((folder / ASKED_FILE).read_bytes()))
    except OSError:
        return None
    return Asked(str(found["model"]), tuple(cast("Sequence[str]", found["options"])))


class PlacedParts:
    """Addresses of a run's samplers and graders, read from cluster.json whenever they are needed."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def count(self, role: str) -> int:
        """Return the number of parts of a role.

        Raises:
            RunError: cluster.json cannot be read.
        """
        return len(read_places(self._file).of(role))

    def address(self, role: str, index: int, *, asked: str | None = None) -> str | None:
        """Return the address of a part; None: it is not up, or does not serve what was asked for."""
        try:
            places = read_places(self._file)
        except RunError:  # on a file system that fails for a moment
            return None
        parts = places.of(role)
        if index >= len(parts) or parts[index].state != "up":
            return None
        serves = parts[index].serves
        return parts[index].url if asked is None or serves in (None, asked) else None

    def addresses(self, role: str) -> list[Callable[[], str | None]]:
        """Return one function for each part of a role, which returns its present address."""
        return [lambda place=index: self.address(role, place) for index in range(self.count(role))]

    def ask(self, model: str, options: Sequence[str]) -> str:
        """Ask for samplers of a model; return the mark that they will have. Nothing is asked of a file written by hand.

        Args:
            model: model folder or hub name.
            options: arguments of vLLM's server.
        Raises:
            RunError: cluster.json cannot be read, or nobody keeps it any more.
        """
        asked, places = Asked(model, tuple(options)), read_places(self._file)
        if places.ended:
            raise RunError(
                f"the parts in {self._file} have ended with the command that started them. Continue that run with its"
                " own cluster.* and --resume, or set cluster.file to servers that are up."
            )
        if places.kept_by is not None:
            write_atomic(self._file.with_name(ASKED_FILE), json.dumps(asdict(asked)).encode())
        return asked.mark


def now() -> float:
    """Return the present time as cluster.json has it."""
    return round(time.time(), 1)
