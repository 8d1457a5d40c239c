"""`python -m reasoner.engine.serve --model NAME --port 8000 ...`: vLLM's OpenAI-compatible server for a trainer.

Every option goes to vLLM. What the trainer needs is added: a worker extension that loads weights from a file,
log-probabilities of the sampling distribution, and the endpoints that pause and reload. These endpoints know no
password: the server listens on the loopback address unless --host says otherwise, and then belongs behind a firewall.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

NEEDED = (
    "--worker-extension-cls",
    "reasoner.engine.vllm_internals.WeightLoader",
    "--logprobs-mode",
    "processed_logprobs",
)
PR_SET_PDEATHSIG = 1


def server_command(options: Sequence[str]) -> list[str]:
    """The command of vLLM's server with the options and with what the trainer needs."""
    host = [] if any(option.split("=")[0] == "--host" for option in options) else ["--host", "127.0.0.1"]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *host, *NEEDED, *options]


def server_environment() -> dict[str, str]:
    """This process's environment as the server needs it: reload endpoints on, its engine in a process of its own."""
    return os.environ | {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}


def main() -> None:
    """Become the server; it ends with the process that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    command = server_command(sys.argv[1:])
    os.execve(command[0], command, server_environment())


if __name__ == "__main__":
    main()
