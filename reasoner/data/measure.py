"""Token counts of rows, and the rows as a model sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reasoner.config.sections import PromptSection
from reasoner.data.check import Report
from reasoner.data.check_text import Tokens
from reasoner.data.figures import EXAMPLES, Item, spread_of
from reasoner.data.prompt import Prompt, render_each
from tasks import Problem

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


def measure(report: Report, tokenizer: PreTrainedTokenizerBase, section: PromptSection) -> Tokens:
    """Count the tokens of the first training rows, and render the first few.

    Raises:
        ConfigError: prompts must use a chat template, and the tokenizer has none.
    """
    items: Sequence[Item] = report.splits[0].measured if report.splits else ()
    problems = [Problem(id=one.name, prompt=one.prompt, reference=None, verifier="") for one in items]
    rendered = render_each(problems, tokenizer, section)
    prompts = [len(one.ids) if isinstance(one, Prompt) else 0 for one in rendered]
    trained = report.use != "problems"
    answers = [max(len(tokenizer(text)["input_ids"]) for text in one.answers) for one in items] if trained else []
    both = [prompt + answer for prompt, answer in zip(prompts, answers, strict=False)]
    shown = [_shown(item, one) for item, one in zip(items[:EXAMPLES], rendered, strict=False)]
    return Tokens(len(items), spread_of(prompts), spread_of(both), shown)


def _shown(item: Item, rendered: Prompt | Exception) -> str:
    prompt = rendered.text if isinstance(rendered, Prompt) else f"(cannot be rendered: {rendered})"
    return " => ".join([prompt, *item.answers])


__all__ = ["measure"]
