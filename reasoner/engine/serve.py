"""`python -m reasoner.engine.serve --model NAME --port 8000 ...`: vLLM's OpenAI-compatible server for a trainer.

All options are passed to vLLM. Added are what the trainer needs: a worker extension that loads weights from a file,
log-probabilities of the sampling distribution, and the endpoints that pause and reload. Every request needs the key in
the environment variable REASONER_ENGINE_KEY, which must be the same here and at the trainer; a trainer generates one
for the servers that it starts. The server listens on the loopback address unless --host is given. Its connections are
not encrypted.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache

from reasoner.engine.gate import KEY_VARIABLE

NEEDED = (
    "--enable-scale-out",  # the route whose answers say which weights sampled each token
    "--worker-extension-cls",
    "reasoner.engine.vllm_internals.WeightLoader",
    "--logprobs-mode",
    "processed_logprobs",
    "--middleware",
    "reasoner.engine.gate.Gate",
)
STARTER_VARIABLE = "REASONER_STARTED_BY"
"""Environment variable with the process whose end also ends the server; default: the parent process."""
STOP_SECONDS = 10
"""Time in which a server must end when it is asked to."""
PR_SET_PDEATHSIG = 1


def server_command(options: Sequence[str]) -> list[str]:
    """Return the command line of vLLM's server with the given options and those that the trainer needs."""
    host = [] if any(option.split("=")[0] == "--host" for option in options) else ["--host", "127.0.0.1"]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *host, *NEEDED, *options]


@cache
def _drawn_key() -> str:
    return secrets.token_urlsafe(24)


def engine_key(variable: str = KEY_VARIABLE) -> str:
    """Return the key of this process's servers: from an environment variable, or drawn once per process."""
    return os.environ.get(variable, "").strip() or _drawn_key()


def server_environment(key: str | None = None) -> dict[str, str]:
    """Return this process's environment plus the key, reload endpoints on, and the engine in a separate process."""
    return os.environ | {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        KEY_VARIABLE: key or engine_key(),
    }


def main() -> int:
    """Run the server until it ends, or until the process that started it ends; return its exit status.

    The server has processes of its own, all in the process group of this one. If it is left behind, or if the server
    does not end when asked to, the whole group is killed.
    """
    if not os.environ.get(KEY_VARIABLE, "").strip():
        hint = f"export {KEY_VARIABLE}=$(openssl rand -hex 16), and set the same value at the trainer."
        sys.exit(f"{KEY_VARIABLE} must contain a key that the trainer knows too. {hint}")
    starter = int(os.environ.get(STARTER_VARIABLE) or os.getppid())
    if os.getpid() != os.getpgrp():
        os.setpgid(0, 0)
    server = subprocess.Popen(server_command(sys.argv[1:]), env=server_environment(), preexec_fn=_end_with_starter)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: asked.append(received))
    while server.poll() is None:
        left = os.getppid() != starter
        if asked or left:
            _stop(server, left=left)
        time.sleep(0.2)
    return server.returncode


def _end_with_starter() -> None:
    """Let this process be killed when the one that started it ends, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(server: subprocess.Popen[bytes], *, left: bool) -> None:
    """Ask the server to end; kill the process group, with this process, if it does not in STOP_SECONDS or is left."""
    server.terminate()
    with suppress(subprocess.TimeoutExpired):
        server.wait(STOP_SECONDS)
    if left or server.poll() is None:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
