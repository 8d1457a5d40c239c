"""Where parts run: on this machine as child processes, or on the machines of a Ray cluster."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from typing import Protocol

from reasoner.cluster.seat import Command, Report, Seat
from reasoner.config.errors import ConfigError
from reasoner.config.sections import ClusterSection


class AnySeat(Protocol):
    """A seat, on this machine or another one. Every method may raise SeatLost."""

    host: str
    """Address at which the other machines reach it."""
    machine: str
    """Name of the machine."""

    def free_port(self) -> int:
        """Return a port of the machine that nobody uses."""
        ...

    def sees(self, file: str, content: str) -> bool:
        """Return True if a file has this content there."""
        ...

    def start(self, command: Command) -> None:
        """Start a command; one that runs is ended first."""
        ...

    def poll(self) -> Report:
        """Return what became of the command, with its output since the last call."""
        ...

    def interrupt(self) -> None:
        """Send SIGINT to the command's process group."""
        ...

    def stop(self) -> None:
        """End the command and everything that it started."""
        ...

    def close(self) -> None:
        """End the command and give the seat up."""
        ...


class Placement(Protocol):
    """Gives seats."""

    one_machine: bool
    """True if all seats are on this machine."""

    def seat(self, role: str, number: int) -> AnySeat:
        """Return a new seat for a part.

        Raises:
            SeatLost: there is no place at present.
        """
        ...

    def close(self) -> None:
        """Give up what the placement itself holds."""
        ...


class ThisMachine(Placement):
    """All parts as child processes. GPUs are given out in order: to the trainers, then to each sampler."""

    one_machine = True

    def __init__(self, cluster: ClusterSection) -> None:
        """Divide the GPUs.

        Raises:
            ConfigError: there are too few.
        """
        if cluster.trainer_machines > 1:
            raise ConfigError(
                "bad-value",
                f"cluster.trainer_machines must be 1 without a Ray cluster; got {cluster.trainer_machines}. Set"
                " cluster.address (auto, or HOST:PORT).",
            )
        trainers, each = max(1, cluster.trainers), cluster.sampler_gpus
        self._cluster, self._devices = cluster, devices()
        needed = trainers + cluster.samplers * each
        if self._devices and len(self._devices) < needed:
            raise ConfigError(
                "bad-value",
                f"{trainers} trainers and {cluster.samplers} samplers need {needed} GPUs; this machine has"
                f" {len(self._devices)}. Lower cluster.trainers, samplers or sampler_gpus; CUDA_VISIBLE_DEVICES="
                " (empty) runs on the CPU.",
            )

    def seat(self, role: str, number: int) -> Seat:
        trainers, each = max(1, self._cluster.trainers), self._cluster.sampler_gpus
        first = trainers + number * each
        given = {"trainer": self._devices[:trainers], "sampler": self._devices[first : first + each]}.get(role, [])
        return Seat({"CUDA_VISIBLE_DEVICES": ",".join(given)} if self._devices else {})

    def close(self) -> None:
        """Do nothing."""


def devices() -> list[str]:
    """Return the GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:  # CUDA ignores what follows an invalid name, such as -1
        names = [name.strip() for name in said.split(",")]
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), names))
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    listed = subprocess.run([program, "--list-gpus"], capture_output=True, text=True, check=False)
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
