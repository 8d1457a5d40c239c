"""Template of `reasoner verifiers new`: a working package with a verifier, a task, tests and entry points."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from verifiers.errors import BadOption
from verifiers.registry import installed

PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{package}"
version = "0.1.0"
description = "The verifier {name} for reasoner"
requires-python = ">=3.11"
dependencies = ["reasoner-rl"]

[project.entry-points."reasoner.verifiers"]
{name} = "{module}.verifier:{cls}"

[project.entry-points."reasoner.tasks"]
{name} = "{module}.task:{cls}Task"

[tool.setuptools]
packages = ["{module}"]
"""

INIT = '"""The verifier and the task {name}."""\n'

VERIFIER = '''\
"""Verifier {name}."""

from __future__ import annotations

from verifiers import JSON, BadReference, Example, GradingRow, Outcome, Verdict, Verifier, fixed
from verifiers.answers.find import extract_answer


class {cls}(Verifier):
    """Equality of the final answer and the reference.

    Args:
        ignore_case: fold case on both sides.
    """

    name = "{name}"
    version = "1"  # raise it whenever a verdict could change
    reference_schema = {{"type": "string", "minLength": 1}}
    grade_seconds = 10.0  # the pool kills a worker that takes longer for one row
    examples = (
        Example(completion="So the answer is Paris.", reference="Paris", prompt="What is the capital of France?"),
        Example(completion="So the answer is Lyon.", reference="Paris", outcome=Outcome.INCORRECT),
        Example(completion="I do not know which town it is.", reference="Paris", outcome=Outcome.NO_ANSWER),
    )

    def __init__(self, *, ignore_case: bool = True) -> None:
        self._ignore_case = ignore_case

    def check_reference(self, reference: JSON) -> None:
        """Raise BadReference if no answer could match; called for every problem before grading."""
        if not isinstance(reference, str) or not reference.strip():
            raise BadReference(f"reference must be a text; got {{reference!r}}.")

    def grade(self, row: GradingRow) -> Verdict:
        """Return the verdict on one row. An exception means "could not grade", never "wrong"."""
        self.check_reference(row.reference)
        found = extract_answer(row.completion)
        if found is None:
            return fixed(Outcome.NO_ANSWER, "the completion declares no final answer")
        right = self._folded(found.answer) == self._folded(str(row.reference))
        outcome = Outcome.CORRECT if right else Outcome.INCORRECT
        return fixed(outcome, "equal" if right else "not equal", answer=found.answer)

    def _folded(self, text: str) -> str:
        words = " ".join(text.split())
        return words.casefold() if self._ignore_case else words
'''

TASK = '''\
"""Task {name}: problems for the verifier {name}."""

from __future__ import annotations

from collections.abc import Sequence

from tasks import Problem, Task, TaskError

CAPITALS = {{
    "train": {{"France": "Paris", "Kenya": "Nairobi", "Peru": "Lima", "Japan": "Tokyo"}},
    "test": {{"Norway": "Oslo", "Cuba": "Havana"}},
}}


class {cls}Task(Task):
    """Capitals of countries."""

    name = "{name}"

    def problems(self, split: str) -> Sequence[Problem]:
        """Return all problems of a split."""
        if split not in CAPITALS:
            raise TaskError(f"split must be one of {{', '.join(CAPITALS)}}; got {{split!r}}.")
        return [
            Problem(
                id=f"{name}/{{country}}",
                prompt=f"What is the capital of {{country}}? End with: The answer is TOWN.\\n",
                reference=town,
                verifier="{name}",
                demonstration=f"The answer is {{town}}.",
                task=self.name,
            )
            for country, town in CAPITALS[split].items()
        ]
'''

TESTS = """\
from __future__ import annotations

import pytest

from {module}.task import {cls}Task
from {module}.verifier import {cls}
from verifiers.kit.conformance import check_verifier


@pytest.mark.parametrize(
    ("completion", "reward"), [("The answer is paris.", 1), ("The answer is Rome.", 0), ("I really cannot say it.", 0)]
)
def test_rewards(completion: str, reward: float) -> None:
    assert {cls}().verify(completion=completion, reference="Paris").reward == reward


def test_conformance() -> None:
    report = check_verifier("{module}.verifier:{cls}")
    assert not report.failures, report.failures


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_demonstration_is_right(split: str) -> None:
    for problem in {cls}Task().problems(split):
        assert {cls}().verify(completion=problem.demonstration or "", reference=problem.reference).reward == 1
"""

README = """\
# {package}

The verifier `{name}` and the task `{name}` for reasoner.

```
pip install -e .                              # from then on `{name}` works wherever a verifier's name does
python -m pytest                              # the tests, the conformance kit among them
reasoner verifiers check {name}               # the kit alone, with what each trick scored
reasoner tasks validate {name}
reasoner train CONFIG task={name}
```

`{module}/verifier.py` grades, `{module}/task.py` contains the problems. Edit both, including their examples.
"""

FILES: Mapping[str, str] = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "{module}/__init__.py": INIT,
    "{module}/verifier.py": VERIFIER,
    "{module}/task.py": TASK,
    "tests/test_{module}.py": TESTS,
}


def new_package(name: str, folder: Path) -> list[Path]:
    """Write the package and return its files.

    Raises:
        BadOption: the name is invalid or already used by a verifier, or the folder exists.
    """
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,40}", name) or keyword.iskeyword(module):
        raise BadOption(f"name must be lower-case letters, digits, - and _, and begin with a letter; got {name!r}.")
    if name in {source.name for source in installed()}:
        raise BadOption(f"a verifier {name!r} already exists; choose another name.")
    if folder.exists():
        raise BadOption(f"{folder} already exists. Pass another --folder.")
    cls = "".join(part.capitalize() for part in re.split(r"[-_]", name))
    package = f"{name}-verifier"
    written: list[Path] = []
    for path, template in FILES.items():
        file = folder / path.format(module=f"{module}_verifier")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(template.format(name=name, module=f"{module}_verifier", cls=cls, package=package))
        written.append(file)
    return written
