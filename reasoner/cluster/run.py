"""A run with `cluster.trainers`, `samplers` or `graders`: from its config to its exit status."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reasoner.cluster.driver import Driver
from reasoner.cluster.parts import Start, cluster_of
from reasoner.cluster.placement import Placement, ThisMachine
from reasoner.config.stage import RunConfig


def run_cluster(config: RunConfig, *, source: str, overrides: Sequence[str], resume: bool) -> int:
    """Start the parts of a run, watch them until the trainers have ended, and end the others.

    Args:
        config: the resolved run.
        source, overrides: as given to `reasoner train`, the latter with `engine_overrides`.
        resume: go on with what the run folder holds.
    Returns:
        The exit status of the run: 0, 1 (an error, which the trainers have printed), 2 (bad input) or 130 (stopped).
    Raises:
        ClusterError: a part dies again and again, or a machine does not see the run folder.
        ConfigError: the machine or the Ray cluster has not what the parts need.
        RunError: another command starts parts for this run folder.
    """
    cluster = cluster_of(config)
    placement: Placement
    if cluster.address is None:
        placement = ThisMachine(cluster)
    else:
        from reasoner.cluster.on_ray import OnRay

        placement = OnRay(cluster)
    start = Start(config=source, overrides=tuple(overrides), cwd=str(Path.cwd()))
    try:
        return Driver(config, start, placement, resume=resume).run()
    finally:
        placement.close()
