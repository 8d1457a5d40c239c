"""Runs a config and kills its own process with SIGKILL at the n-th arrival at a named moment."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from reasoner.engine.environment import prepare_process

prepare_process()


def main(config: str, moment: str, count: int) -> None:
    import reasoner.session.session as session
    import reasoner.storage.files as files
    from reasoner.config.load import load_config
    from reasoner.policy.policy import Policy
    from reasoner.stages.pipeline import run_pipeline
    from reasoner.storage.run_folder import RunFolder
    from verifiers.pool.pool import GradingPool

    places: dict[str, tuple[object, str]] = {
        "grading": (GradingPool, "submit"),
        "records": (RunFolder, "write_rollouts"),
        "annotate": (Policy, "annotate"),
        "update": (Policy, "step"),
        "sync": (session.Session, "sync"),
        "checkpoint": (files, "_sync_tree"),
        "metrics": (RunFolder, "log"),
        "evaluation": (session.Session, "evaluate"),
    }
    if moment == "generation":
        from reasoner.engine.hf import HfEngine as engine

        places["generation"] = (engine, "generate")
    if moment != "never":
        owner, name = places[moment]
        left = [count]
        original: Callable[..., object] = getattr(owner, name)

        def deadly(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, deadly)
    run_pipeline(load_config(config), resume=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
