"""Replies of an environment as token ids, the same for rollouts and for demonstrations.

Ids are only ever appended: what the policy sampled is never encoded again, and the chat is never rendered again. A
reply is encoded as plain text, so that a program that prints an end mark does not end a turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection
from reasoner.data.prompt import uses_chat
from reasoner.data.turns import Turns, turns_of
from tasks.environments.base import Environment

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

CUT = "\n... {} tokens left out ...\n"


class Written(NamedTuple):
    """A reply as the policy sees it."""

    ids: tuple[int, ...]
    """With everything around it, up to where the policy writes again."""
    text: str
    """The same as text; with a chat template the reply alone."""
    cut: bool
    """True if the middle of the reply was left out."""


@dataclass(frozen=True, slots=True)
class ReplyWriter:
    """Writes the replies of one environment for one tokenizer and prompt section."""

    turns: Turns
    environment: Environment
    role: str
    """inline, tool or user."""
    most_tokens: int
    """Of a reply, without what stands around it."""

    @classmethod
    def of(
        cls,
        environment: Environment,
        tokenizer: PreTrainedTokenizerBase,
        section: PromptSection,
        *,
        most_tokens: int,
    ) -> ReplyWriter:
        """Choose how replies are written.

        Raises:
            ConfigError: the chat template cannot show a reply in the role; says what to set.
        """
        turns = turns_of(tokenizer, section)
        role = section.reply
        if role == "auto":
            role = "inline"
            if uses_chat(tokenizer, section):
                roles = dict.fromkeys((environment.role, "user"))
                role = next((one for one in roles if turns.reply_fault(one) is None), "user")
        elif role != "inline" and not uses_chat(tokenizer, section):
            raise ConfigError(
                "bad-value",
                f"prompt.reply={role} needs a chat template, and prompts are plain text here. Set prompt.reply=inline.",
            )
        if role != "inline" and (fault := turns.reply_fault(role)):
            raise ConfigError(
                "bad-value",
                f"prompt.reply={role} does not work with this tokenizer: {fault}. Set prompt.reply to another role"
                " (tool, user), or to inline, which uses no template.",
            )
        return cls(turns, environment, role, most_tokens)

    def write(self, text: str, *, end: int | None) -> Written:
        """Write a reply.

        Args:
            text: of the reply.
            end: the token with which the policy ended its turn; None if a stop string ended it. Where a template ends
                turns with the mark of the next role, this is that mark, and the frame begins behind it.
        """
        if self.role == "inline":
            before, after = self.environment.inline
            body, cut = self._shortened(text)
            whole = f"{before}{body}{after}"
            return Written(self.turns.text_ids(whole), whole, cut)
        frame = self.turns.reply_frame(self.role)
        body, cut = self._shortened(self.turns.reply_text(self.role, text.strip("\n")))
        before = frame.after_stop if end is None else frame.after_end
        if end is not None and before[:1] == (end,):
            before = before[1:]
        ids = (*before, *self.turns.text_ids(body), *frame.behind)
        return Written(ids, body, cut)

    def goes_on(self, *, ended: bool) -> bool:
        """Return True if the policy can write on after a reply: inline not behind its end token."""
        return self.role != "inline" or not ended

    def _shortened(self, text: str) -> tuple[str, bool]:
        """Leave out the middle of a text that has more than `most_tokens` tokens."""
        ids = self.turns.text_ids(text)
        if len(ids) <= self.most_tokens:
            return text, False
        kept = max(0, self.most_tokens - len(self.turns.text_ids(CUT.format(len(ids)))))
        while True:
            half = kept // 2
            head = self.turns.tokenizer.decode(list(ids[: kept - half]))
            tail = self.turns.tokenizer.decode(list(ids[len(ids) - half :])) if half else ""
            found = f"{head}{CUT.format(len(ids) - kept)}{tail}"
            if kept == 0 or len(self.turns.text_ids(found)) <= self.most_tokens:
                return found, True
            kept = kept * 3 // 4
