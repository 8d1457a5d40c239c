"""Seats on the machines of a Ray cluster (https://docs.ray.io): Ray places them and notices machines that die.

No tensor, rollout or row passes through Ray: an actor holds one seat, which runs one command.
"""

from __future__ import annotations

import socket
from typing import Any

from reasoner.cluster.placement import AnySeat, Placement
from reasoner.cluster.seat import Command, Report, Seat, SeatLost
from reasoner.config.errors import ConfigError
from reasoner.config.sections import ClusterSection

CALL_SECONDS = 30.0
"""Time for an answer of a seat; stopping a command may take all of its time to end."""


class OnRay(Placement):
    """Seats as Ray actors, spread over the machines."""

    one_machine = False

    def __init__(self, cluster: ClusterSection) -> None:
        """Connect to the Ray cluster.

        Raises:
            ConfigError: Ray is not installed, or there is no cluster at the address.
        """
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ConfigError("bad-value", "cluster.address needs Ray: pip install 'reasoner-rl[cluster]'.") from error
        self._ray, self._cluster = ray, cluster
        try:
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                "bad-value",
                f"cluster.address must be a running Ray cluster; got {cluster.address!r}: {error}. Start it with"
                " `ray start --head`, and on the other machines `ray start --address HOST:6379`.",
            ) from error
        self._gpus = bool(ray.cluster_resources().get("GPU"))
        self._nodes: dict[tuple[str, int], str] = {}
        """Machine of each part, by Ray's name."""

    def seat(self, role: str, number: int) -> AnySeat:
        cluster = self._cluster
        each = max(1, cluster.trainers) // cluster.trainer_machines
        gpus = {"trainer": each, "sampler": cluster.sampler_gpus}.get(role, 0) if self._gpus else 0
        # CPUs are not reserved: those of a machine that dies must not be needed elsewhere before its parts can move
        actor = self._ray.remote(_Actor).options(
            num_cpus=0,
            num_gpus=gpus,
            scheduling_strategy="SPREAD" if gpus else self._emptiest(role, number),
            max_restarts=0,
            max_concurrency=4,
        )
        seat = _RaySeat(self._ray, actor.remote(), seconds=cluster.wait_seconds)
        self._nodes[role, number] = seat.node
        return seat

    def _emptiest(self, role: str, number: int) -> object:
        """Return the strategy for the machine with the fewest parts of a role, then with the fewest at all."""
        from ray.util.scheduling_strategies import (  # pyright: ignore[reportMissingImports]
            NodeAffinitySchedulingStrategy,
        )

        others = {part: node for part, node in self._nodes.items() if part != (role, number)}

        def parts(node: str) -> tuple[int, int]:
            return sum(at == node and part[0] == role for part, at in others.items()), [*others.values()].count(node)

        alive = sorted(node["NodeID"] for node in self._ray.nodes() if node["Alive"])
        return NodeAffinitySchedulingStrategy(node_id=min(alive, key=parts), soft=False)

    def close(self) -> None:
        self._ray.shutdown()


class _Actor:
    """One seat in a process of its own, on the machine that Ray chose."""

    def __init__(self) -> None:
        import ray  # pyright: ignore[reportMissingImports]

        self._seat = Seat()
        self._seat.host = ray.util.get_node_ip_address()
        self._node = str(ray.get_runtime_context().get_node_id())

    def where(self) -> tuple[str, str, str]:
        """Return address and name of the machine, and Ray's name of it."""
        return self._seat.host, socket.gethostname(), self._node

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the seat."""
        return getattr(self._seat, method)(*arguments)


class _RaySeat(AnySeat):
    def __init__(self, ray: Any, actor: Any, *, seconds: float) -> None:
        self._ray, self._actor = ray, actor
        try:
            self.host, self.machine, self.node = ray.get(actor.where.remote(), timeout=seconds)
        except Exception as error:
            ray.kill(actor)
            raise SeatLost(f"Ray has started nothing for it within {seconds:.0f} s: {_short(error)}") from error

    def _call(self, method: str, *arguments: Any, seconds: float = CALL_SECONDS) -> Any:
        try:
            return self._ray.get(self._actor.call.remote(method, *arguments), timeout=seconds)
        except (self._ray.exceptions.RayError, TimeoutError) as error:
            raise SeatLost(f"{self.machine}: {_short(error)}") from error

    def free_port(self) -> int:
        return int(self._call("free_port"))

    def sees(self, file: str, content: str) -> bool:
        return bool(self._call("sees", file, content))

    def start(self, command: Command) -> None:
        self._call("start", command, seconds=CALL_SECONDS + command.stop_seconds)

    def poll(self) -> Report:
        report: Report = self._call("poll")
        return report

    def interrupt(self) -> None:
        self._call("interrupt")

    def stop(self) -> None:
        self._call("stop", seconds=4 * CALL_SECONDS)

    def close(self) -> None:
        try:
            self._call("close", seconds=4 * CALL_SECONDS)
        finally:
            self._ray.kill(self._actor)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
