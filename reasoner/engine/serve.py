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
import sys
from collections.abc import Sequence
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


def main() -> None:
    """Replace this process by the server. On Linux the server ends when the process that started it ends."""
    if not os.environ.get(KEY_VARIABLE, "").strip():
        hint = f"export {KEY_VARIABLE}=$(openssl rand -hex 16), and set the same value at the trainer."
        sys.exit(f"{KEY_VARIABLE} must contain a key that the trainer knows too. {hint}")
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    command = server_command(sys.argv[1:])
    os.execve(command[0], command, server_environment())


if __name__ == "__main__":
    main()
