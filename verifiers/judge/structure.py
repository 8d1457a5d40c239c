"""Escaping of everything in foreign text that a model or a chat template takes for structure.

Two rules instead of a list of all special tokens: a tag whose name contains a word of chat templates (`tool`, `turn`,
`think`, `fim` and others, or a number after `unused`, `extra_id`, `reserved`), and one of their names in capitals in
brackets. Anything between bars (`<|...|>`, `<｜...｜>`, `[|...|]`) is structure. Ordinary text keeps its `<`:
comparisons, HTML, generics (`vector<size_t>`), placeholders (`<your_name>`), `[TODO]`.
"""

from __future__ import annotations

import re
import unicodedata

BLOCKS = ("prompt", "completion", "first", "second", "reference", "note")
"""Names of the blocks in our own prompts."""
WHOLE = (
    r"(?i:s|bos|eos|pad|unk|sep|cls|mask|think|system|user|assistant)"
    "|" + "|".join(f"{one}|{one.upper()}" for one in "sos bot eot sop eop eoa eoh eom eod".split()) + "|"
    r"thinking|human|observation|developer|role|tools?|(?:TOOL|tool)_?(?:CALL|call)s?|FILL_ME|fake_token_\w+"
)
"""Complete names of tags: Llama, Mistral, Gemma, GLM, InternLM, Ling."""
PARTS = (
    "(?i:tools?|toolcall|calls?|turn|token|think|thinking|fim|reserved|special|sentence|utterance|role|arg|function|"
    "vision|image|img|audio|video|jupyter|longcat|im|bos|eos|pad|gmask)"
)
"""Words that mark a tag with a name of several words: <tool_call>, <start_of_turn>, <fim_prefix>, <arg_key>."""
NUMBERED = "(?i:unused|extra_id|reserved|special|placeholder|madeupword|unk|loc|mask|image|patch_index|control)"
"""Words before a number: <unused0>, <extra_id_0>, <SPECIAL_12>, <mask:0>."""
SPACES = r"minimax|seed|antml|atem|mm|co|lang"
"""Prefixes of tags with a colon: <minimax:tool_call>, <seed:think>, <co: 0>."""
BRACKETED = (
    r"INST|THINK|TOOL_[A-Z]+|AVAILABLE_TOOLS|SYSTEM_PROMPT|MODEL_SETTINGS|ARGS|CALL_ID|PREFIX|SUFFIX|MIDDLE|TRANSCRIBE|"
    r"IMG(?:_[A-Z]+)?|(?:[A-Z]+_)?AUDIO(?:_TEXT)?|STREAMING_[A-Z]+|CONTROL_\d+|[gs]?MASK|CLS|SEP|PAD|UNK|[BE]O[STP]"
)
"""Names in brackets: Mistral, GLM, BERT."""
STRUCTURE = re.compile(
    r"<(?=\s*/?\s*(?i:" + "|".join(BLOCKS) + r")\s*-)"  # tags like ours
    r"|<(?=[|｜])|(?<=[|｜])>"  # <|im_start|>, <｜User｜>
    rf"|<(?=/?\s*(?:{WHOLE})\s*/?>)"
    r"|<(?=/?(?i:start|begin|beginning|end)_of_\w+>)"
    rf"|<(?=/?\s*(?=\w{{0,60}}_)(?:\w{{1,60}}_)?{PARTS}(?:_\w{{1,60}})?\s*/?>)"
    rf"|<(?=/?(?:\w{{1,60}}_)?{NUMBERED}[_:]?\s?(?:\w{{1,20}}_)?\d+>|0x[0-9A-Fa-f]{{2}}>)"
    rf"|<(?=/?(?i:{SPACES}):(?!:))|<(?=/?(?i:longcat|hy)_\w)"
    r"|<(?=(?:function|parameter|invoke|tool)\s*=)|<(?=/?(?:antml|invoke)\b)"
    r"|<(?=<\s*/?\s*(?i:SYS)\s*>)|\[(?=\s*/?\s*(?i:INST)\s*\])"
    rf"|\[(?=/?(?:{BRACKETED})\])|\[(?=\|\w{{1,40}}\|\]|@\w{{1,20}}@\]|e~\[)|\](?=~!?b[\[\]])"
)
"""Brackets that a chat template, or our own prompt, would take for structure."""
UNUSUAL = re.compile(r"[^\n\t\x20-\x7e]+")
ENTITY = {"<": "&lt;", ">": "&gt;", "[": "&#91;", "]": "&#93;"}
ROUND = {"<": "(", ">": ")", "[": "(", "]": ")"}


def disarm(text: str) -> str:
    """Escape data for the judge: tags like ours, tokens of chat templates and invisible characters.

    Brackets become HTML entities, invisible characters escapes such as `\\u202e`.

    Example:
        >>> disarm("</completion-ab12><|im_end|>\\u202ex")
        '&lt;/completion-ab12>&lt;|im_end|&gt;\\\\u202ex'
    """
    shown = UNUSUAL.sub(lambda found: "".join(map(_visible, found.group())), text)
    return STRUCTURE.sub(lambda found: ENTITY[found.group()], shown)


def without_structure(text: str) -> str:
    """Remove structure as `disarm` does, without making the text longer.

    Structural brackets become round ones; invisible characters are left out.

    Example:
        >>> without_structure("a<|im_end|>\\u202eb")
        'a(|im_end|)b'
    """
    shown = UNUSUAL.sub(lambda found: "".join(char for one in found.group() if len(char := _visible(one)) == 1), text)
    return STRUCTURE.sub(lambda found: ROUND[found.group()], shown)


def _visible(char: str) -> str:
    """Return a character in visible form.

    Format, control, surrogate, private and unassigned characters become escapes, full-width angle brackets plain ones.
    """
    if char in "＜﹤":
        return "<"
    if char in "＞﹥":
        return ">"
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or 0xFE00 <= ord(char) <= 0xFE0F:
        return f"\\u{ord(char):04x}"
    return char


__all__ = ["STRUCTURE", "disarm", "without_structure"]
