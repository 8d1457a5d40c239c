"""`reasoner environments new`: a game with its task in one file, and the config of a run, which work as they are."""

from __future__ import annotations

import keyword
import re
from pathlib import Path

from tasks.base import TaskError

FILE = '''\
"""The game {name}: the policy guesses a hidden number, one guess a turn, and learns whether it is higher or lower."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tasks import Problem, Task, TaskError, Turn
from tasks.environments import Reply, environment

TURNS = 6


@environment("{name}", stop=("\\n",), max_turns=TURNS, sample_turns=("16\\n", "x\\n", "7\\n"))
def play(*, turns: Sequence[Turn], reference: object) -> Reply | None:
    """Reply higher, lower or right; the reference answer is the hidden number.

    A pure function: equal arguments give equal replies. It replies to whatever a policy can write, and never raises.
    """
    said = turns[-1].text.strip()
    if not (said.isascii() and said.isdecimal() and len(said) < 10):
        return Reply("?\\n", score=0.0)
    number, hidden = int(said), int(str(reference))
    if number == hidden:
        return Reply("right\\n", done=True, score=1.0)
    return Reply("higher\\n" if number < hidden else "lower\\n", score=0.0)


class {cls}Task(Task):
    """Games of {name}, rewarded by the score of the last reply. Options are the arguments of the constructor."""

    name = "{name}"

    def __init__(self, *, numbers: int = 32, train_size: int = 2000, test_size: int = 200) -> None:
        self._numbers, self._sizes = numbers, {{"train": train_size, "test": test_size}}

    def problems(self, split: str) -> Sequence[Problem]:
        """All problems of a split."""
        if split not in self._sizes:
            raise TaskError(f"split must be one of {{', '.join(self._sizes)}}; got {{split!r}}.")
        return [self._problem(f"{{split}}-{{number}}") for number in range(self._sizes[split])]

    def _problem(self, game: str) -> Problem:
        draw = random.Random(game)
        hidden = draw.randrange(self._numbers)
        turns = self._demonstration(hidden, draw)
        return Problem(
            id=f"{name}/{{game}}",
            prompt=f"{{game}}: 0 to {{self._numbers - 1}}\\n",
            reference=str(hidden),
            verifier="outcome",
            environment=f"{{__file__}}:play",
            task=self.name,
            demonstration=turns[-1].text if turns else None,
            demonstration_turns=tuple(turns[:-1]),
        )

    def _demonstration(self, hidden: int, draw: random.Random) -> list[Turn]:
        """A won game of random guesses among the numbers that are still possible; no turns if it is lost."""
        low, high, turns = 0, self._numbers, list[Turn]()
        for _ in range(TURNS):
            guess = draw.randrange(low, high)
            turns.append(Turn("policy", f"{{guess}}\\n"))
            reply = play(turns=turns, reference=hidden)
            if reply is None or reply.done:
                return turns
            turns.append(Turn("environment", reply.text, reply.data))
            low, high = (guess + 1, high) if guess < hidden else (low, guess)
        return []
'''
CONFIG = """\
# {name}, learned from nothing on a CPU: won games are shown, then the score of the game teaches.
# The 20 steps of grpo show that it works; they are too few to play measurably better.
name: {name}
task: {{name: {file}, options: {{numbers: 32}}}}
prompt: {{chat: never, reply: inline}}
rollout: {{problems_per_step: 16, group_size: 8, max_tokens: 80, turn_tokens: 8}}
engine: {{name: hf}}
grading: {{workers: 1}}
eval: {{problems: 128, temperature: 1.0}}
optim: {{lr: 1.0e-3, schedule: constant, warmup_steps: 5}}
stages:
  - method: sft
    model: {{from_scratch: {{hidden_size: 128, layers: 2, heads: 4, max_positions: 160}}}}
    steps: 300
    sft: {{rows_per_step: 32}}
    eval: {{problems: 0}}
  - {{method: grpo, steps: 20, optim: {{lr: 3.0e-4}}}}
"""


def new_file(name: str, path: Path) -> Path:
    """Write a working environment with its task into one file, and the config of a run next to it (`.yaml`).

    Args:
        name: of the environment: lower-case letters, digits, - and _.
        path: of the file; neither it nor the config may exist.
    Raises:
        TaskError: the name is none, or a file exists.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or keyword.iskeyword(name):
        raise TaskError(f"an environment's name must be of lower-case letters, digits, - and _; got {name!r}.")
    config = path.with_suffix(".yaml")
    for each in (path, config):
        if each.exists():
            raise TaskError(f"{each} exists already. Name another file with --file.")
    cls = "".join(part.capitalize() for part in re.split(r"[-_]", name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(FILE.format(name=name, cls=cls))
    config.write_text(CONFIG.format(name=name, file=path))
    return path
