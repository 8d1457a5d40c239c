"""A chat template that reproduces the prompts of a run, for programs that do not read its prompt section.

With it, vLLM's chat endpoint and `apply_chat_template` give the prompts of the training. A template is kept only after
it has produced exactly the same tokens for prompts of the run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from reasoner.config.kept_prompt import KeptPrompt, KeptSampling
from reasoner.config.sections import PromptSection
from reasoner.config.stage import StageConfig
from reasoner.data.prompt import TEMPLATE_FAULTS, render_each, template_options, uses_chat
from tasks import Problem

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

PROBES = ("What is 12 + 30?", "One line,\nand another one: {1, 2}", "é ")
"""Messages for testing a template if no prompt of the run is known."""
ENOUGH = 8
"""Minimum number of different prompts from which a common beginning and ending are inferred."""


def kept_prompt(
    stage: StageConfig,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    *,
    environment: str | None = None,
) -> KeptPrompt:
    """Return the prompt format of a stage's model.

    Args:
        stage: the stage's prompt and sampling settings.
        tokenizer: with the chat template that the stage used.
        questions: text prompts of the run's problems, before the section's template was applied.
        environment: that replied to the model.
    """
    prompt = stage.prompt.model_copy(update={"chat": "always" if uses_chat(tokenizer, stage.prompt) else "never"})
    opening, ending = common_form(questions)
    before, _, after = prompt.template.partition("{prompt}")
    if prompt.template.count("{prompt}") > 1:
        before = after = opening = ending = ""
    return KeptPrompt(
        prompt=prompt,
        opening=before + opening,
        ending=ending + after,
        environment=environment,
        sampling=KeptSampling(temperature=stage.eval.temperature, top_p=stage.eval.top_p, max_tokens=stage.eval_tokens),
    )


def common_form(questions: Sequence[str]) -> tuple[str, str]:
    r"""Return the text that all prompts begin with and the text that all end with, each only if it has a line break.

    A person who types a question leaves these texts out. Text that may belong to the question itself (letters and
    digits at the edge, a common text within one line) is not included. Both are "" for fewer than ENOUGH different
    prompts.

    Example:
        >>> common_form([f"{n}+{n + 1}=?\n" for n in range(40)])
        ('', '=?\n')
    """
    if len(set(questions)) < ENOUGH:
        return "", ""
    opening = _common_start(questions)
    opening = opening[: opening.rfind("\n") + 1]
    rest = [question[len(opening) :] for question in questions]
    ending = _common_start([question[::-1] for question in rest])[::-1]
    while ending and ending[0].isalnum():
        ending = ending[1:]
    return opening, ending if "\n" in ending else ""


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # in alphabetical order: a prefix common to these two is common to all
    size = next((at for at, char in enumerate(first) if last[at : at + 1] != char), len(first))
    return first[:size]


def fitting_template(kept: KeptPrompt, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]) -> str | None:
    """Return the template for a model folder; None if the tokenizer's own is enough, or if no template fits.

    Args:
        kept: the prompt format.
        tokenizer: with the chat template that the stage used.
        questions: text prompts of the run, on which the template is tested.
    """
    own = tokenizer.chat_template
    if own is not None and not isinstance(own, str):  # several by name
        return None
    if own is not None and gives_prompts(own, kept, tokenizer, questions) and kept.completed("") == "":
        return None
    if kept.prompt.chat == "never":
        made = [plain_template(kept, begin) for begin in ("", "{{ bos_token }}")]
    else:
        made = [chat_template(kept, str(own))]
    return next((template for template in made if gives_prompts(template, kept, tokenizer, questions)), None)


def gives_prompts(
    template: str, kept: KeptPrompt, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str]
) -> bool:
    """Return True if a chat template gives the tokens of training for each question, sent as a user message.

    Without questions it is tested on `PROBES`.
    """
    questions = questions or PROBES
    wanted = render_each([_problem(question) for question in questions], tokenizer, kept.prompt)
    for question, prompt in zip(questions, wanted, strict=True):
        if isinstance(prompt, Exception):
            return False
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
            )
        except TEMPLATE_FAULTS:
            return False
        ids = cast("list[int]", tokenizer(str(text), add_special_tokens=False)["input_ids"])
        if tuple(ids) != prompt.ids:
            return False
    return True


def text_prompts(
    rows: Sequence[tuple[str, Sequence[int]]], tokenizer: PreTrainedTokenizerBase, section: PromptSection
) -> list[str]:
    """Return the questions of rollout rows that are text prompts: rendered as text, they give the row's own tokens.

    Args:
        rows: (question, prompt_ids) of each row.
        tokenizer: the stage's.
        section: the stage's.
    """
    found = render_each([_problem(question) for question, _ in rows], tokenizer, section)
    return [
        question
        for (question, ids), prompt in zip(rows, found, strict=True)
        if not isinstance(prompt, Exception) and prompt.ids == tuple(ids)
    ]


def _problem(prompt: str) -> Problem:
    return Problem(id="message", prompt=prompt, reference=None, verifier="exact")


def plain_template(kept: KeptPrompt, begin: str) -> str:
    """Return a template for plain-text prompts: a system text and one user message, without any special marks.

    Args:
        kept: the prompt format.
        begin: text at the very beginning, such as the beginning-of-sequence token.
    """
    return (
        "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
        "{%- set asked = messages[1:] %}"
        f"{{%- else %}}{{%- set system = {_literal(kept.prompt.system or '')} %}}{{%- set asked = messages %}}"
        "{%- endif %}"
        "{%- if asked | length != 1 or asked[0]['role'] != 'user' %}"
        "{{- raise_exception('this model was trained on single prompts: send one user message') }}{%- endif %}"
        f"{_completing(kept, 'asked[0]')}"
        f"{begin}"
        r"{{- system + '\n' if system else '' }}{{- ns.text }}"
    )


def chat_template(kept: KeptPrompt, own: str) -> str:
    """Return the tokenizer's own template, preceded by code for the section's system message, form and variables."""
    section = kept.prompt
    defaults = "".join(
        f"{{%- if {name} is not defined %}}{{%- set {name} = {_literal(value)} %}}{{%- endif %}}"
        for name, value in template_options(section).items()
        if name.isidentifier()
    )
    system = (
        "{%- if messages[0]['role'] != 'system' %}"
        f"{{%- set all.messages = [{{'role': 'system', 'content': {_literal(section.system)}}}] %}}{{%- endif %}}"
        if section.system
        else ""
    )
    folded = (
        "{%- if all.messages | length > 1 and all.messages[0]['role'] == 'system'"
        " and all.messages[1]['role'] == 'user' %}"
        r"{%- set all.messages = [dict(all.messages[1], content=all.messages[0]['content'] + '\n\n'"
        " + all.messages[1]['content'])] + all.messages[2:] %}{%- endif %}"
        if section.system_in == "user"
        else ""
    )
    return (
        f"{defaults}{{%- set all = namespace(messages=[]) %}}{system}"
        "{%- for message in messages %}"
        "{%- if message['role'] == 'user' and message['content'] is string %}"
        f"{_completing(kept, 'message')}"
        "{%- set all.messages = all.messages + [dict(message, content=ns.text)] %}"
        "{%- else %}{%- set all.messages = all.messages + [message] %}{%- endif %}{%- endfor %}"
        f"{folded}{{%- set messages = all.messages %}}{own}"
    )


def _completing(kept: KeptPrompt, message: str) -> str:
    """Return template code that does what `KeptPrompt.completed` does for a message; the result is in `ns.text`."""
    opening, ending = _literal(kept.opening), _literal(kept.ending)
    taken = f"{{%- set ns = namespace(text={message}['content'], done=false) %}}"
    if not kept.opening and not kept.ending:
        return taken
    return (
        f"{taken}{{%- if not ns.text.startswith({opening}) %}}{{%- set ns.text = {opening} + ns.text %}}{{%- endif %}}"
        f"{{%- for size in range({ending} | length, -1, -1) %}}"
        f"{{%- if not ns.done and ns.text.endswith({ending}[:size]) %}}"
        f"{{%- set ns.text = ns.text + {ending}[size:] %}}{{%- set ns.done = true %}}{{%- endif %}}{{%- endfor %}}"
    )


def _literal(value: object) -> str:
    """Return a config value as a jinja literal; no character of a text can act as template syntax."""
    if isinstance(value, Mapping):
        items = (f"{_literal(str(key))}: {_literal(held)}" for key, held in cast("Mapping[str, object]", value).items())
        return "{" + ", ".join(items) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, cast("list[object]", value))) + "]"
    if isinstance(value, str):
        return '"' + re.sub(r"[^ \w.,:;!?/=*+()<>|-]|[^\x00-\x7f]", _escaped, value) + '"'
    return "none" if value is None else repr(value).lower() if isinstance(value, bool) else repr(value)


def _escaped(found: re.Match[str]) -> str:
    return f"\\U{ord(found.group()):08x}"
