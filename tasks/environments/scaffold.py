"""`reasoner environments new`: one file with an environment, its task and its config, which works as it is."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from tasks.base import TaskError

FILE = '''\
"""The environment {name}: the policy names letters of a hidden word, one a turn, and sees which places they fill."""

from __future__ import annotations

from collections.abc import Sequence

from tasks import Problem, Task, TaskError, Turn
from tasks.environments import Reply, environment

WORDS = {{"train": ("plane", "crown", "mouth", "light", "stone"), "test": ("brick", "cloud")}}


@environment("{name}", stop=("\\n",), max_turns=12, sample_turns=("e\\n", "?\\n", "a\\n"))
def play(*, turns: Sequence[Turn], reference: object) -> Reply | None:
    """Show the letters that have been found; the reference answer is the hidden word.

    A pure function: equal turns give equal replies. It raises for nothing that a policy can write.
    """
    said = {{turn.text.strip().lower() for turn in turns if turn.origin == "policy"}}
    word = str(reference)
    shown = "".join(letter if letter in said else "_" for letter in word)
    if "_" not in shown or word in said:
        return Reply("solved\\n", done=True, score=1.0)
    return Reply(f"{{shown}}\\n", score=0.0)


class {cls}Task(Task):
    """Problems for the environment {name}, rewarded by the score of the last reply."""

    name = "{name}"

    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of a split."""
        if split not in WORDS:
            raise TaskError(f"split must be one of {{', '.join(WORDS)}}; got {{split!r}}.")
        return [
            Problem(
                id=f"{name}/{{word}}",
                prompt=f"Guess the word of {{len(word)}} letters ({{split}} {{number}}).\\n",
                reference=word,
                verifier="outcome",
                environment=f"{{__file__}}:play",
                task=self.name,
            )
            for number, word in enumerate(WORDS[split])
        ]
'''


def new_file(name: str, path: Path) -> Path:
    """Write a working environment with its task into one file.

    Args:
        name: of the environment: lower-case letters, digits, - and _.
        path: of the file; it must not exist.
    Raises:
        TaskError: the name is none, or the file exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or keyword.iskeyword(name):
        raise TaskError(f"an environment's name must be of lower-case letters, digits, - and _; got {name!r}.")
    if path.exists():
        raise TaskError(f"{path} exists already. Name another file with --file.")
    cls = "".join(part.capitalize() for part in re.split(r"[-_]", name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILE.format(name=name, cls=cls))
    return path
