"""The turns of a chat as token ids: the end tokens of a reply, and the template's text between two replies.

A frame is the text between the end of one reply and the beginning of the next. It is cut out of the rendered chat after
a sentinel, a reply that occurs nowhere else. So it does not matter how the template renders the history before it (some
templates strip the thinking of earlier replies), and each turn only appends tokens to a chat's ids.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from weakref import WeakKeyDictionary

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection
from reasoner.data.prompt import TEMPLATE_FAULTS, chat_text, messages_of, template_options, uses_chat
from tasks import Message, UnusableRow

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""Mark in a chat template around the assistant's text."""
REPLY = "Sentinel7Reply"
"""A reply that no template alters and no other text contains."""
BODY = "Sentinel7Body"
NEXT = "Sentinel7Next"
PROBES = ("42", '  "two" <b>\n\\lines\t', '{"a": [1, true]}')
"""Sample replies that show if a template changes the text of a reply."""
NAMES = "the chat template writes the tool's name beside its answer, and a reply has none: it may answer several calls"
OPENED, CLOSED = "<think>", "</think>"
"""Marks around a thought."""


class Ends(NamedTuple):
    """Token ids and strings that end a completion."""

    ids: tuple[int, ...]
    """Token ids."""
    stop: tuple[str, ...]
    """Strings that are searched for in the text, which contains no special tokens."""
    told: str | None
    """Description of a disagreement between chat template, tokenizer and generation config; None without one."""


class ReplyFrame(NamedTuple):
    """Token ids that the chat template writes around a reply of an environment."""

    after_end: tuple[int, ...]
    """In front of the reply, where the policy ended its turn with the end token."""
    after_stop: tuple[int, ...]
    """In front of the reply, where a stop string ended the policy's turn: with the end of that turn."""
    behind: tuple[int, ...]
    """Behind the reply, up to where the policy writes again."""


class Turns:
    """Turns of a chat as one tokenizer and one prompt section write them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, section: PromptSection) -> None:
        """Render a short chat and find the tokens that the template writes after a reply.

        Raises:
            ConfigError: prompt.end_tokens names a text that is not a single token.
        """
        self.tokenizer, self.section = tokenizer, section
        self._marks = {*tokenizer.all_special_ids, *cast("Any", tokenizer).added_tokens_decoder}
        self.template_end: int | None = None
        """Token with which the chat template ends a reply; None without a template, or if it writes no such token."""
        self._closing, self._inner_end, self._start = "", None, ""
        self._before_end: tuple[int, ...] = ()
        if uses_chat(tokenizer, section):
            self._find_marks()
        self.named = tuple(_single_token(text, tokenizer) for text in section.end_tokens)
        named = self.named if self.template_end not in self.named else ()
        eos = cast("int", tokenizer.eos_token_id)
        self.end: int = named[0] if named else eos if self.template_end is None else self.template_end
        """The last token of a demonstration."""
        if self.end != self.template_end:
            self._before_end = ()
        self._faults: dict[tuple[str, ...], str | None] = {}
        self._reply_faults: dict[str, str | None] = {}
        self._verbatim: dict[str, bool] = {}
        self.mask_fault = self._mask_fault()
        """How the template's mask of the assistant's tokens differs from the tokens trained here; None if equal."""

    def plain_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of a turn of the policy that a stop string ends: its tokens alone."""
        return tuple(self._ids(text))

    def completion_ids(self, text: str) -> tuple[int, ...]:
        """Encode a given reply as the policy would have sampled it: its tokens and the end token."""
        return (*self._ids(text), *self._before_end, self.end)

    def demonstrated(self, message: Message) -> str:
        """Return the text that the assistant writes: the content, or the message's tool calls in the template's form.

        If the prompt ends inside an opened thought, the demonstration's own opening mark is removed; a demonstration
        without a thought gets the closing mark first.

        Raises:
            UnusableRow: the template does not write the calls as a reply.
        """
        if "tool_calls" in message:
            return self._calls(message)
        content = message["content"]
        if not self._start.rstrip().endswith(OPENED):
            return content
        if CLOSED in content:
            return content.lstrip().removeprefix(OPENED).removeprefix("\n")
        return f"\n{CLOSED}\n\n{content}"

    def _calls(self, message: Message) -> str:
        whole = self._render([*self._history(), message], reply_follows=False)
        reply = whole[len(self._start) : len(whole) - len(self._closing)]
        names = [str(call.get("function", call).get("name")) for call in cast("Any", message).get("tool_calls")]
        if (
            not whole.startswith(self._start)
            or not whole.endswith(self._closing)
            or not all(name in reply for name in names)
        ):
            raise UnusableRow("its tool calls are not written by the chat template as a reply")
        return reply

    def frame_ids(self, following: Sequence[Message]) -> tuple[int, ...]:
        """Return the token ids between a reply (which includes its end token) and the next reply.

        Args:
            following: the messages between the two.
        Raises:
            UnusableRow: the template rejects them, does not show them exactly once, or writes them differently in
                longer chats.
        """
        roles = tuple(message["role"] for message in following)
        if roles not in self._faults:
            self._faults[roles] = self._frame_fault(roles)
        if fault := self._faults[roles]:
            raise UnusableRow(fault)
        return self._behind_end(self._ids(self._behind(following, reply_follows=True)))

    def _behind_end(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Leave out the marks with which the template ends a reply: the reply's own end token takes their place."""
        marks, at = self._marks_of(ids)
        closing = (*self._before_end, self.end)
        if marks[: len(closing)] == closing:
            return tuple(ids[at + len(closing) :])
        if marks and marks[0] in (self.template_end, self._inner_end):
            return tuple(ids[at + 1 :])
        return tuple(ids)

    def reply_fault(self, role: str) -> str | None:
        """Return why the chat template cannot show an environment's reply in this role; None if it can."""
        if role not in self._reply_faults:
            named = role == "tool" and self._frame_fault((role,)) is None and self._writes_names()
            self._reply_faults[role] = NAMES if named else self._frame_fault((role,))
        return self._reply_faults[role]

    def _writes_names(self) -> bool:
        """Return True if the template writes the tool's name beside its answer."""
        plain = {"role": "tool", "content": BODY}
        texts = [self._behind([cast("Message", one)], reply_follows=True) for one in (plain, {**plain, "name": NEXT})]
        return texts[0] != texts[1]

    def reply_frame(self, role: str) -> ReplyFrame:
        """Return the ids around an environment's reply in this role.

        Raises:
            UnusableRow: the template refuses the role, does not show the reply once, or writes it differently in longer
                chats.
        """
        if fault := self.reply_fault(role):
            raise UnusableRow(fault)
        before, _, after = self._behind([Message(role=role, content=BODY)], reply_follows=True).partition(BODY)
        ids = self._ids(before)
        return ReplyFrame(self._behind_end(ids), tuple(ids), tuple(self._ids(after)))

    def reply_text(self, role: str, text: str) -> str:
        """Return an environment's reply as the chat template writes it in this role: unchanged, trimmed, or as JSON."""
        if role not in self._verbatim:
            self._verbatim[role] = all(self._written(role, probe) == probe for probe in PROBES)
        if self._verbatim[role]:
            return text
        written = self._written(role, text)
        return text if written is None else written

    def _written(self, role: str, text: str) -> str | None:
        """Return what stands for `text` within the frame; None if the frame is another one."""
        before, _, after = self._behind([Message(role=role, content=BODY)], reply_follows=True).partition(BODY)
        try:
            whole = self._behind([Message(role=role, content=text)], reply_follows=True)
        except UnusableRow:
            return None
        framed = len(whole) >= len(before) + len(after) and whole.startswith(before) and whole.endswith(after)
        return whole[len(before) : len(whole) - len(after)] if framed else None

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Return the ids of text in which nothing is a special token, whatever it looks like."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(cast("list[int]", ids))

    def _history(self, *, rounds: int = 1, between: Sequence[str] = ("user",)) -> list[Message]:
        """Return a chat of a question, `rounds` - 1 replies, and messages of the roles `between` behind each reply."""
        messages = [Message(role="user", content="Question")]
        for turn in range(rounds - 1):
            messages.append(Message(role="assistant", content=f"Answer {turn}"))
            messages += [Message(role=role, content=f"Message {turn}.{place}") for place, role in enumerate(between)]
        return messages

    def _render(self, messages: Sequence[Message], *, reply_follows: bool) -> str:
        plain = self.section.model_copy(update={"system": None})  # text before a reply is irrelevant here
        return chat_text(messages_of(messages, plain), self.tokenizer, plain, reply_follows=reply_follows)

    def _behind(
        self,
        following: Sequence[Message],
        *,
        reply_follows: bool,
        rounds: int = 1,
        between: Sequence[str] = ("user",),
    ) -> str:
        """Return the text that the template writes after a reply."""
        history = self._history(rounds=rounds, between=between)
        text = self._render(
            [*history, Message(role="assistant", content=REPLY), *following], reply_follows=reply_follows
        )
        _, found, behind = text.rpartition(REPLY)
        if not found:
            raise UnusableRow("the chat template does not show the assistant's replies")
        return behind

    def _find_marks(self) -> None:
        """Find the texts with which the template begins and ends a reply."""
        try:
            self._start = self._render(self._history(), reply_follows=True)
            self._closing = self._behind((), reply_follows=False)
        except UnusableRow:
            return
        marks, _ = self._marks_of(self._ids(self._closing))
        if not marks:
            return
        eos = self.tokenizer.eos_token_id
        at = marks.index(eos) if eos in marks else 0  # of several marks in sequence, the one that ends a turn
        self._before_end, self.template_end = marks[:at], marks[at]
        self._inner_end = self._end_inside()

    def _end_inside(self) -> int | None:
        """Return the token that ends a reply within a chat; it must also end the user's turn after it, else None."""
        try:
            behind = self._behind([Message(role="user", content=BODY)], reply_follows=True)
        except UnusableRow:
            return None
        marks, again = (self._marks_of(self._ids(text))[0] for text in (behind, behind.rpartition(BODY)[2]))
        return marks[0] if marks and marks[:1] == again[:1] else None

    def _ids(self, text: str) -> list[int]:
        return cast("list[int]", self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _marks_of(self, ids: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Return the special or added tokens that `ids` begin with, after white space, and the index of the first."""
        for place, token in enumerate(ids):
            if token in self._marks:
                return tuple(itertools.takewhile(self._marks.__contains__, ids[place:])), place
            if str(self.tokenizer.decode([token])).strip():
                break
        return (), 0

    def _frame_fault(self, roles: tuple[str, ...]) -> str | None:
        """Return why messages of these roles have no frame, as text; None if they have one."""
        following = [Message(role=role, content=f"{BODY}{place}x") for place, role in enumerate(roles)]
        named = f"messages of the roles {', '.join(roles)}" if roles else "nothing"
        try:
            behind = self._behind(following, reply_follows=True)
            if any(behind.count(message["content"]) != 1 for message in following):
                return f"the chat template does not show {named} once after a reply"
            later = {self._behind(following, reply_follows=True, rounds=3, between=kind) for kind in (("user",), roles)}
        except UnusableRow as error:
            return f"the chat template accepts no {', '.join(roles) or 'second reply'} after a reply: {error}"
        if later != {behind}:
            return f"the chat template writes {named} after a reply differently in a longer chat"
        if behind == self._behind(following, reply_follows=False) and not self._begins_there(following, behind):
            return "the chat template writes nothing where the assistant begins to write"
        return None

    def _begins_there(self, following: Sequence[Message], behind: str) -> bool:
        """Return True if the next reply stands right behind the marks that end these messages."""
        if not following or not behind.rpartition(following[-1]["content"])[2].strip():
            return False
        try:
            chat = self._behind([*following, Message(role="assistant", content=NEXT)], reply_follows=False)
        except UnusableRow:
            return False
        before, found, _ = chat.partition(NEXT)
        return bool(found) and before.startswith(behind) and not before[len(behind) :].strip()

    def _mask_fault(self) -> str | None:
        """Compare the template's `generation` marks, if it has any, with the tokens of a reply that are trained on."""
        if not uses_chat(self.tokenizer, self.section) or not GENERATION.search(str(self.tokenizer.chat_template)):
            return None
        try:
            ids, mask = template_mask(
                [*self._history(), Message(role="assistant", content=REPLY)], self.tokenizer, self.section
            )
        except UnusableRow:
            return None  # rejected, or a tokenizer without character offsets
        marked = [token for token, on in zip(ids, mask, strict=True) if on]
        ours = self.completion_ids(REPLY)
        prompt = self._ids(self._start)
        # text of the generation prompt (such as an empty thought) may be marked, and the end token may be unmarked
        for given_already in range(min(len(marked), len(prompt)) + 1):
            rest = tuple(marked[given_already:])
            if marked[:given_already] != prompt[len(prompt) - given_already :]:
                continue
            if rest[: len(ours)] == ours or (rest and rest == ours[:-1]):
                return None
        marked_text = self.tokenizer.decode(marked)
        return f"the chat template's own mask is not the completion: it marks {marked_text!r} of the reply {REPLY!r}"


def template_mask(
    messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, section: PromptSection
) -> tuple[list[int], list[bool]]:
    """Return the token ids of a chat, and a flag for each: True if the template's `generation` marks enclose it.

    Raises:
        UnusableRow: the template rejects the messages.
    """
    options = {**template_options(section), "return_dict": True, "return_assistant_tokens_mask": True}
    given: list[Any] = [dict(message) for message in messages]
    try:
        rendered = cast("dict[str, list[int]]", tokenizer.apply_chat_template(given, tokenize=True, **options))
    except TEMPLATE_FAULTS as error:
        raise UnusableRow(f"the chat template rejects its messages: {error}") from error
    return rendered["input_ids"], [bool(kept) for kept in rendered["assistant_masks"]]


def _single_token(text: str, tokenizer: PreTrainedTokenizerBase) -> int:
    ids = cast("list[int]", tokenizer(text, add_special_tokens=False)["input_ids"])
    if len(ids) != 1:
        raise ConfigError(
            "bad-value",
            f"prompt.end_tokens must name single tokens of the tokenizer; {text!r} is {len(ids)} of them. Use"
            " prompt.stop for strings.",
        )
    return ids[0]


_TURNS: WeakKeyDictionary[PreTrainedTokenizerBase, dict[str, Turns]] = WeakKeyDictionary()
"""Cached turns by tokenizer, then by its chat template and the prompt section."""


def turns_of(tokenizer: PreTrainedTokenizerBase, section: PromptSection) -> Turns:
    """Return the turns of a tokenizer and a prompt section; computed once and cached."""
    known = _TURNS.setdefault(tokenizer, {})
    key = f"{tokenizer.chat_template}\n{tokenizer.eos_token}\n{section.model_dump_json()}"
    if key not in known:
        known[key] = Turns(tokenizer, section)
    return known[key]


def ends_of(tokenizer: PreTrainedTokenizerBase, section: PromptSection, configured: Sequence[int]) -> Ends:
    """Return the token ids and strings that end a completion.

    Args:
        tokenizer: its eos token, and every stop string that is one of its special tokens, end a completion.
        section: end_tokens and stop.
        configured: eos_token_id of the model's generation config.
    Raises:
        ConfigError: a stop string contains a special token within other text, or an end token is not a single token.
    """
    turns = turns_of(tokenizer, section)
    special = {text: cast("int", tokenizer.convert_tokens_to_ids(text)) for text in _special_texts(tokenizer)}
    for text in section.stop:
        mark = next((one for one in special if one in text and one != text), None)
        if mark is not None and text not in special:
            raise ConfigError(
                "bad-value",
                f"prompt.stop: {text!r} contains the special token {mark!r}, which the text of a completion never does."
                f" Name it alone: prompt.end_tokens=[{mark!r}].",
            )
    stopping = {special[text] for text in section.stop if text in special}
    stop = tuple(text for text in section.stop if text not in special)
    own = {cast("int", tokenizer.eos_token_id), *configured}
    ids = set(turns.named) or own | {turns.end}
    return Ends(tuple(sorted(ids | stopping)), stop, _disagreement(turns, own))


def _special_texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the tokens that decoding omits from the text."""
    added = cast("dict[int, Any]", getattr(tokenizer, "added_tokens_decoder", {})).values()
    return list(dict.fromkeys([*map(str, tokenizer.all_special_tokens), *(str(t) for t in added if t.special)]))


def _disagreement(turns: Turns, own: set[int]) -> str | None:
    tokenizer, end = turns.tokenizer, turns.template_end
    if end is None:
        return None
    written, eos = tokenizer.convert_ids_to_tokens(end), tokenizer.eos_token
    if turns.named and end not in turns.named:
        return f"the chat template ends a turn with {written!r}, which is not among prompt.end_tokens and ends nothing"
    if turns.named or end in own:
        return None
    return (
        f"the chat template ends a turn with {written!r}, which is neither the tokenizer's eos_token ({eos!r}) nor an"
        " eos_token_id of the generation config; completions end at either, demonstrations with the template's, and the"
        " saved generation config names both"
    )
