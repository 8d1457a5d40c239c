"""The prompt format saved with a model, as `prompt.json` in its folder; read when no run config is at hand."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field, ValidationError

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection, Section
from reasoner.errors import faults

PROMPT_FILE = "prompt.json"


class KeptSampling(Section):
    """Sampling settings of the model's evaluations."""

    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)


class KeptPrompt(Section):
    """Prompt format of a model: how a user's message becomes the text that the model was trained on."""

    prompt: PromptSection = PromptSection()
    """The prompt section as used: `chat` is always or never."""
    opening: str = ""
    """Common beginning of every user message, including the part from the prompt section's template."""
    ending: str = ""
    """Common ending of every user message, including the part from the template."""
    sampling: KeptSampling = KeptSampling()
    environment: str | None = None
    """Environment that replied to the model in its training, as recorded; None: none did, or it is not recorded."""
    template_replaced: bool = False
    """True if the tokenizer's chat template in the folder was replaced by one that writes this format, for other
    programs. Then `own_template` is the original, which this package continues to use."""
    own_template: str | None = None

    def completed(self, text: str) -> str:
        r"""Return a message with the opening and ending that the model was trained with; parts already there are kept.

        Example:
            >>> KeptPrompt(ending="=?\n").completed("1+2=?")
            '1+2=?\n'
        """
        if self.prompt.template.count("{prompt}") > 1:
            return self.prompt.template.replace("{prompt}", text)
        text = text if text.startswith(self.opening) else self.opening + text
        overlap = next(size for size in range(len(self.ending), -1, -1) if text.endswith(self.ending[:size]))
        return text + self.ending[overlap:]

    @property
    def around_messages(self) -> PromptSection:
        """The prompt section for messages that went through `completed`."""
        return self.prompt.model_copy(update={"template": "{prompt}"})


def read_kept_prompt(folder: str | Path) -> KeptPrompt | None:
    """Read the prompt format in a model folder; None if there is none, or the model is not a local folder.

    Raises:
        ConfigError: the file is damaged.
    """
    file = Path(folder) / PROMPT_FILE
    if not file.is_file():
        return None
    try:
        return KeptPrompt.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        reason = faults(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(
            "bad-value", f"{file} must contain a prompt format; {reason} Remove it to go on without one."
        ) from error


def write_kept_prompt(folder: Path, kept: KeptPrompt) -> None:
    """Write `prompt.json`: the values that differ from the defaults, `chat`, and the sampling."""
    row = kept.model_dump(mode="json", exclude_defaults=True)
    row["prompt"] = {"chat": kept.prompt.chat, **row.get("prompt", {})}
    row["sampling"] = kept.sampling.model_dump(mode="json")
    (folder / PROMPT_FILE).write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


__all__ = ["PROMPT_FILE", "KeptPrompt", "KeptSampling", "read_kept_prompt", "write_kept_prompt"]
