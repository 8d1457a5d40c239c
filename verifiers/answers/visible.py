"""The part of a model's text that answers the user: no thinking, no special tokens, no next problem. Linear.

`visible_text` removes thinking (`strip_thinking`), ends the text with the model's turn (`end_of_turn`), and drops
purely decorative Markdown and HTML. `before_next_problem` ends the text where a base model goes on to a problem of its
own, if an answer is declared before that place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from verifiers.answers.escapes import without_form_feeds

TAGS = (
    "think",
    "thinking",
    "thought",
    "thoughts",
    "scratchpad",
    "reasoning",
    "seed:think",
    "internal_monologue",
)
"""Names of thinking tags: `<think>`, `[THINK]`, `◁think▷` and their closing tags, in any case."""
_MARKS: Mapping[str, str] = {
    "<|begin_of_thought|>": "<|end_of_thought|>",  # OpenThoughts, Sky-T1
    "<|START_THINKING|>": "<|END_THINKING|>",  # Command A
    "<|thinking_start|>": "<|thinking_end|>",
    "<unused94>thought": "<unused95>",  # MedGemma
    "<|think|>": "<|/think|>",
}
"""Opening -> closing marks of thinking that are not tags."""
_CHANNEL = re.compile(r"<\|channel\|>\s{0,4}([a-z]{1,20})[^<\n]{0,100}<\|message\|>|<\|channel\|>\s{0,4}([a-z]{1,20})")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start)\|>")
_CHANNEL_NAMES = re.compile(r"\s{0,8}(?:analysis|commentary)(?=[\sA-Z\d\"'(\\$])")
"""Remains of a channel's mark after decoding dropped the special tokens."""
_FINAL = "assistantfinal"
_END = re.compile(
    r"<\|(?:im_end|im_start|endoftext|end_of_text|eot_id|eom_id|eot|end|return|end_of_turn|EOT|end_of_role|user|system"
    r"|start_header_id|START_OF_TURN_TOKEN|END_OF_TURN_TOKEN)\|>"
    r"|<｜(?:end▁of▁sentence|User|begin▁of▁sentence)｜>|<(?:eos|end_of_turn|start_of_turn|EOS|pad)>|</s>|\[/?INST\]|<\|pad\|>"
)
"""Tokens that end a turn or begin another one, in the vocabularies of Qwen, Llama, Phi, Gemma, Mistral, DeepSeek."""
_BEGIN = re.compile(
    r"\s*(?:<s>|<bos>|<pad>|<\|begin_of_text\|>|<｜begin▁of▁sentence｜>|<\|im_start\|>\s{0,4}assistant\s"
    r"|<\|start_header_id\|>\s{0,4}assistant\s{0,4}<\|end_header_id\|>|<start_of_turn>\s{0,4}model\s|<｜Assistant｜>"
    r"|<\|assistant\|>|<\|START_OF_TURN_TOKEN\|>\s{0,4}<\|CHATBOT_TOKEN\|>|\[/INST\])"
)
_STRUCK = re.compile(r"<(s|del|strike)>[^<\n]{0,400}</\1>", re.IGNORECASE)
_MARKUP = re.compile(r"</?(?:b|strong|i|em|u|p|span|div|code|mark)(?:\s[^<>]{0,80})?>|<br\s?/?>", re.IGNORECASE)
_UNDERSCORES = re.compile(r"(?<![\w\\])__(?=[A-Z\d])|(?<=[\w:.!?)])__(?!\w)")
_TRIPLE = re.compile(r"\*\*\*(?=\S)|(?<=\S)\*\*\*")
_PROBLEM = (
    r"(?:question|problem|exercise|q|human|user|instruction|task|input|student|问题|题目|問題|вопрос|задача|frage|aufgabe"
    r"|pregunta)"
)
_NEXT = re.compile(
    rf"\n[ \t]{{0,8}}(?:(?:\*\*|#{{1,6}}[ \t]{{0,4}})?(?:(?:next|new|another)\s)?{_PROBLEM}(?P<number>\s\d{{1,2}})?"
    rf"(?:\*\*)?[ \t]{{0,4}}[:：]|(?:\*\*)?{_PROBLEM}\s(?P<listed>\d{{1,2}})\.\s"
    r"|#{1,6}[ \t]{1,4}(?:question|problem|instruction|user|human)[ \t]{0,4}\n)",
    re.IGNORECASE,
)
_NUMBERED = re.compile(rf"\b{_PROBLEM}\s\d", re.IGNORECASE)
MAX_VISIBLE = 100_000
"""Characters at the end of the visible text that are searched for an answer: more than the longest answers today."""
STRUCK = 400
"""Limit on the characters of struck-out text."""
MAX_NEXT = 3
"""Number of possible beginnings of further problems that are examined."""


def _tag_pattern(names: Sequence[str]) -> re.Pattern[str]:
    listed = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    marks = "|".join(re.escape(mark) for pair in _MARKS.items() for mark in pair)
    return re.compile(rf"(?:<|\[|◁)(?P<close>/?)\s{{0,4}}(?:{listed})\s{{0,4}}(?:>|\]|▷)|{marks}", re.IGNORECASE)


_THINK = _tag_pattern(TAGS)
_CLOSING = frozenset(mark.lower() for mark in _MARKS.values())


def visible_text(text: str, *, thinking_tags: Sequence[str] = ()) -> str:
    """Return the text of a completion that the user sees, without decoration.

    Args:
        text: a model's whole completion.
        thinking_tags: names of further thinking tags, in addition to TAGS.

    Example:
        >>> visible_text("[THINK]41?[/THINK]**42**<|im_end|>")
        '**42**'
    """
    text = without_form_feeds(end_of_turn(strip_thinking(text, tags=thinking_tags)))
    if "<" in text:
        text = _MARKUP.sub("", _STRUCK.sub("", text))
    text = text[-MAX_VISIBLE:]
    if "***" in text:
        text = _TRIPLE.sub("**", text)
    return _UNDERSCORES.sub("**", text) if "__" in text else text


def strip_thinking(text: str, *, tags: Sequence[str] = ()) -> str:
    """Return the text outside thinking blocks.

    A lone `</think>` hides everything before it, since its opening tag was in the prompt; an unclosed `<think>` hides
    everything after it.

    Example:
        >>> strip_thinking("a<think>b</think>c"), strip_thinking("b</think>c"), strip_thinking("a<think>b")
        ('ac', 'c', 'a')
    """
    text = _final_channel(text)
    parts: list[str] = []
    depth = at = 0
    for mark in (_tag_pattern((*TAGS, *tags)) if tags else _THINK).finditer(text):
        opening = not mark["close"] and mark[0].lower() not in _CLOSING
        if opening:
            if depth == 0:
                parts.append(text[at : mark.start()])
            depth += 1
        elif depth > 0:
            depth -= 1
        else:
            parts.clear()
        at = mark.end()
    if depth == 0:
        parts.append(text[at:])
    return "".join(parts)


def _final_channel(text: str) -> str:
    """Return the final channel of a text in channels (gpt-oss); any other text unchanged."""
    if "<|channel|>" not in text:
        opened = _CHANNEL_NAMES.match(text) if _FINAL in text else None
        return text.rpartition(_FINAL)[2] if opened else text
    marks = list(_CHANNEL.finditer(text))
    parts: list[str] = []
    for place, mark in enumerate(marks):
        if (mark[1] or mark[2]) == "final":
            stop = marks[place + 1].start() if place + 1 < len(marks) else len(text)
            end = _CHANNEL_END.search(text, mark.end(), stop)
            parts.append(text[mark.end() : end.start() if end else stop])
    return "".join(parts)


def end_of_turn(text: str) -> str:
    """Return the text up to the token that ends the model's turn, without the tokens that begin it.

    Example:
        >>> end_of_turn("<s>42</s><s>43")
        '42'
    """
    if "<" not in text and "INST]" not in text:
        return text
    start = 0
    while (begun := _BEGIN.match(text, start)) is not None:
        start = begun.end()
    struck = text.find("<s>", start + 1) >= 0
    for end in _END.finditer(text, start):
        at = end.start()
        if struck and end[0] == "</s>" and text.rfind("<s>", at - STRUCK if at > STRUCK else 0, at) > 0:
            continue  # it closes struck-out text
        if text[start:at].strip():
            return text[start:at]
        start = end.end()
    return text[start:]


def before_next_problem(text: str, declares: Callable[[str], bool]) -> str:
    """Return the text up to the line where another problem begins, if an answer is declared before it; else all of it.

    Args:
        text: the visible text.
        declares: returns True if a text declares an answer.
    """
    for count, mark in enumerate(_NEXT.finditer(text)):
        if count == MAX_NEXT:
            break
        before = text[: mark.start()]
        if (mark["number"] or mark["listed"]) and _NUMBERED.search(before):
            continue  # the parts of one exercise
        if before.strip() and declares(before):
            return before
    return text
