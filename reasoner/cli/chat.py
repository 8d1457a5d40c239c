"""`reasoner chat`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from reasoner.cli import complete
from reasoner.cli.errors import plain_errors
from reasoner.cli.loading import loading_told
from verifiers.text import visible

if TYPE_CHECKING:
    import torch
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

    from reasoner.config.kept_prompt import KeptPrompt
    from reasoner.model.load import Loaded
    from tasks import Message

NEW = "/new"


def chat(
    model: Annotated[
        str,
        typer.Argument(help="A run, one of its stages, a model folder, or a hub name.", autocompletion=complete.runs),
    ],
    prompt: Annotated[
        str | None, typer.Option("--prompt", help="Answer only this, on standard output, and exit.")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", min=0.0, help="0: the likeliest token. Default: as evaluated."),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Tokens of an answer. Default: as evaluated.")
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="System prompt, instead of the model's own.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the sampling.")] = 0,
) -> None:
    """Talk to a model in the terminal, with the prompt format of its training.

    A model with a chat template keeps the conversation (`/new` starts a new one); a model trained on single prompts
    answers each prompt on its own. Ctrl-D or Ctrl-C ends.
    """
    with plain_errors():
        from reasoner.cli.model_argument import model_and_stage, prompt_format
        from reasoner.engine.environment import go_offline_where_cut_off, prepare_process, skip_unused_packages
        from reasoner.model.paths import check_model

        given = model_and_stage(model, purpose="chat with")
        check_model(given.path, "MODEL")
        prepare_process()
        kept = prompt_format(given)
        if kept.environment is not None:
            typer.echo(
                f"note: in its training this model was answered by the environment {kept.environment}, which `chat`"
                " does not run: what follows is a completion without replies. `reasoner eval` plays it.",
                err=True,
            )
        sampling = {"temperature": temperature, "max_tokens": max_tokens}
        changed = {name: value for name, value in sampling.items() if value is not None}
        section = kept.prompt if system is None else kept.prompt.model_copy(update={"system": system})
        kept = kept.model_copy(update={"sampling": kept.sampling.model_copy(update=changed), "prompt": section})
        with loading_told(f"torch and {Path(given.path).name}"):
            go_offline_where_cut_off()
            skip_unused_packages()
            talk = Talk(given.path, kept, seed=seed)
        if prompt is not None:
            talk.answer(prompt)
            return
        converse(talk)


def converse(talk: Talk) -> None:
    """Read prompts from standard input and answer each, until the input ends."""
    shown = sys.stdin.isatty()
    if shown:
        turns = (
            f"keeps the conversation, {NEW} starts a new one" if talk.keeps_turns else "answers each prompt on its own"
        )
        say(f"{turns}; Ctrl-D ends\n")
        import readline  # noqa: F401  (arrow keys in `input`)
    while True:
        try:
            typed = input("> " if shown else "")
        except EOFError:
            if shown:
                say("\n")
            return
        if typed.strip() == NEW:
            talk.turns.clear()
        elif typed.strip():
            talk.answer(typed)


def say(text: str) -> None:
    """Print a model's text; control characters that a terminal would obey are shown as escapes."""
    sys.stdout.write(visible(text))
    sys.stdout.flush()


class Talk:
    """A loaded model and the conversation so far."""

    def __init__(self, path: str, kept: KeptPrompt, *, seed: int) -> None:
        """Load the model. Raises ModelError as `load_model` does."""
        import torch

        from reasoner.config.sections import ModelSection
        from reasoner.data.prompt import uses_chat
        from reasoner.data.turns import ends_of
        from reasoner.model.load import compute_dtype, configured_ends, context_limit, default_device, load_model, move

        torch.manual_seed(seed)
        device, section = default_device(), ModelSection(path=path)
        self._loaded: Loaded = load_model(section, seed=seed, weights_dtype=compute_dtype("auto", device))
        move(self._loaded.model, device)
        self._kept = kept
        config, tokenizer = self._loaded.model.config, self._loaded.tokenizer
        self._limit = context_limit(config, section)
        self._ends = ends_of(tokenizer, kept.prompt, configured_ends(path, config))
        self.keeps_turns = uses_chat(tokenizer, kept.prompt)
        """False: the model was trained on single prompts."""
        self.turns: list[Message] = []

    def answer(self, text: str) -> str:
        """Answer a message and print the answer while it is sampled; the turn is kept if the model keeps turns.

        Raises:
            ConfigError: the prompt leaves no room in the model's context, or the chat template rejects it.
        """
        question: Message = {"role": "user", "content": self._kept.completed(text)}
        ids = self._prompt_ids([*self.turns, question])
        room = min(self._kept.sampling.max_tokens, self._limit - len(ids))
        if room < 1:
            from reasoner.config.errors import ConfigError

            raise ConfigError(
                "bad-value",
                f"the conversation must leave room in the context of {self._limit} tokens; it has {len(ids)}. Start"
                f" a new one with {NEW}.",
            )
        reply = self._sample(ids, room)
        if self.keeps_turns:
            self.turns += [question, {"role": "assistant", "content": reply}]
        return reply

    def _prompt_ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        from reasoner.data.prompt import render
        from tasks import Problem

        prompt = tuple(messages) if self.keeps_turns else messages[-1]["content"]
        problem = Problem(id="chat", prompt=prompt, reference=None, verifier="exact")
        return render([problem], self._loaded.tokenizer, self._kept.around_messages)[0].ids

    def _sample(self, ids: Sequence[int], room: int) -> str:
        import torch
        from transformers import GenerationConfig

        model, tokenizer, sampling = self._loaded.model, self._loaded.tokenizer, self._kept.sampling
        options: dict[str, Any] = {"do_sample": sampling.temperature > 0}
        if options["do_sample"]:
            options |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        stop = list(self._ends.stop)
        # replaces the model's own config, whose penalties would apply to options not set here
        model.generation_config = GenerationConfig(
            max_new_tokens=room,
            eos_token_id=list(self._ends.ids),
            pad_token_id=tokenizer.pad_token_id,
            stop_strings=stop or None,
            **options,
        )
        printed = Printed(tokenizer, end_ids=self._ends.ids, stop=stop)
        given = torch.tensor([list(ids)], device=model.device)
        further: dict[str, Any] = {"tokenizer": tokenizer} if stop else {}
        cast("Any", model).generate(input_ids=given, attention_mask=torch.ones_like(given), streamer=printed, **further)
        return printed.text


class Printed:
    """Streamer for `generate`: prints a completion while it is sampled."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, end_ids: Sequence[int], stop: Sequence[str]) -> None:
        self._tokenizer, self._end_ids, self._stop = tokenizer, end_ids, stop
        self._tokens: list[int] | None = None
        self.text = ""
        """The completion as an evaluation would grade it: up to the stop string, without the end token."""
        self._shown = 0

    def put(self, value: torch.Tensor) -> None:
        """Receive the prompt, then token after token."""
        if self._tokens is None:
            self._tokens = []
            return
        self._tokens += [token for token in value.flatten().tolist() if token not in self._end_ids]
        self._show(whole=False)

    def end(self) -> None:
        """Print the remaining text."""
        self._show(whole=True)
        say("\n")

    def _show(self, *, whole: bool) -> None:
        text = str(self._tokenizer.decode(self._tokens or [], skip_special_tokens=True))
        ends = [text.index(stop) + len(stop) for stop in self._stop if stop in text]
        self.text = text[: min(ends, default=len(text))]
        # an incomplete character (the first of several tokens) decodes to a replacement character
        if whole or not self.text.endswith("\ufffd"):
            say(self.text[self._shown :])
            self._shown = len(self.text)
