"""`reasoner serve`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.cli.loading import loading_told

if TYPE_CHECKING:
    from reasoner.cli.model_argument import Given
    from reasoner.config.kept_prompt import KeptPrompt

KEY_VARIABLE = "VLLM_API_KEY"
"""vLLM's own variable. A key in a command's arguments could be read by every user of the machine."""


def serve(
    model: Annotated[
        str,
        typer.Argument(help="A run, one of its stages, a model folder, or a hub name.", autocompletion=complete.runs),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="After --: arguments for vLLM's server.", metavar="[-- VLLM ...]")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address; others than localhost need --api-key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", help=f"Key that clients must send; or {KEY_VARIABLE}.", envvar=KEY_VARIABLE),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The model's name in requests. Default: MODEL.")] = None,
) -> None:
    """Serve a model with vLLM's OpenAI-compatible server, with the prompt format and sampling of its training.

    Chat template, end tokens, stop strings, temperature and top_p are those of the model's evaluation; a request may
    override them.
    """
    with plain_errors():
        from reasoner.cli.model_argument import model_and_stage, prompt_format
        from reasoner.config.errors import ConfigError
        from reasoner.engine.environment import prepare_process
        from reasoner.model.paths import check_model
        from verifiers.serve.boundary import is_loopback

        given = model_and_stage(model, purpose="serve")
        check_model(given.path, "MODEL")
        if not is_loopback(host) and not api_key:
            raise ConfigError(
                "bad-value", f"{host} can be reached from other machines: give --api-key, or set {KEY_VARIABLE}."
            )
        prepare_process()
        kept = prompt_format(given)
        with tempfile.TemporaryDirectory(prefix="reasoner-serve-") as folder:
            command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", given.path]
            command += ["--host", host, "--port", str(port), "--served-model-name", name or model]
            with loading_told("torch"):
                from reasoner.engine.server import memory_options
            command += memory_options(1.0, 0.9)
            if given.kept is not None or given.stage is not None:
                command += _as_trained(given, kept, Path(folder))
            environment = {**os.environ, "VLLM_LOGGING_LEVEL": "INFO", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
            environment |= {KEY_VARIABLE: api_key} if api_key else {}
            if kept.prompt.stop:
                environment["REASONER_STOP_STRINGS"] = json.dumps(kept.prompt.stop)
            raise typer.Exit(_run([*command, *(arguments or [])], environment))


def _as_trained(given: Given, kept: KeptPrompt, folder: Path) -> list[str]:
    """Return arguments with which vLLM prompts, samples and ends completions as in the model's evaluation."""
    from reasoner.cli.model_argument import format_of_run

    sampling = {"temperature": kept.sampling.temperature, "top_p": kept.sampling.top_p, "top_k": 0}
    found = ["--override-generation-config", json.dumps({**sampling, "repetition_penalty": 1.0})]
    if _dtype(Path(given.path)) == "float32":  # vLLM would use half precision
        found += ["--dtype", "float32"]
    if kept.prompt.stop:
        found += ["--middleware", "reasoner.engine.stop_strings.StopStrings"]
    of_run = format_of_run(given)
    if of_run is None or of_run.template is None:
        return found
    file = folder / "chat_template.jinja"
    file.write_text(of_run.template, encoding="utf-8")
    return [*found, "--chat-template", str(file)]


def _dtype(folder: Path) -> str | None:
    """Return the dtype of the weights by config.json; None if it names none or cannot be read."""
    try:
        row = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return None
    return row.get("dtype") or row.get("torch_dtype")


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run the server until it exits; Ctrl-C and SIGTERM are passed on to it. Return its exit status."""
    import signal

    server = subprocess.Popen(command, env=environment)
    before = {
        number: signal.signal(number, lambda *_: server.send_signal(signal.SIGTERM))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        return server.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
