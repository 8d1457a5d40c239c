"""The table of code sets: how rows are recognised, the rules of each set's own grader, and whether it was run for
comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.code_sets.apps import read_apps, read_eurus, read_taco
from tasks.code_sets.contests import read_code_contests, read_codeforces, read_synthetic
from tasks.code_sets.examples import EXAMPLES
from tasks.code_sets.functions import (
    read_acecoder,
    read_cruxeval,
    read_cruxeval_input,
    read_humaneval,
    read_humaneval_plus,
    read_kodcode,
    read_leetcode,
    read_mbpp,
    read_mbpp_plus,
)
from tasks.code_sets.livecodebench import read_livecodebench
from tasks.code_sets.rows import CodeProblem, Row
from tasks.inputs.formats import UnfitRow
from verifiers.jsonl import is_list, is_object

HUB = "https://huggingface.co/datasets/"
APPS_RULE = "cases: `apps`; calls: `wrapped`"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSet:
    """The layout and grading rules of one data set."""

    name: str
    """Name of its format."""
    title: str
    columns: tuple[str, ...]
    """Columns that every row of it has, by which it is recognised."""
    read: Callable[[Row], CodeProblem]
    rule: str
    """Compared values and kind of comparison: names of `COMPARISONS` and `VALUES`."""
    limit: str
    """Time limit of its own grader, which is CPU time here."""
    grader: str
    """Grader that was run for comparison with this one; "" for none."""
    otherwise: str
    """Cases graded differently here than by its own grader; "" if none are known."""
    source: str
    marked: Callable[[Row], bool] | None = None
    """A further condition on rows that have the columns; None for no condition."""
    by_itself: bool = True

    def fits(self, row: Row) -> bool:
        """Return True if a row has this layout."""
        laid_out = "reference" not in row and all(row.get(name) is not None for name in self.columns)
        return laid_out and (self.marked is None or self.marked(row))

    @property
    def example(self) -> Row:
        """An example row."""
        return EXAMPLES[self.name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A data set that is not read, because its tests need many packages."""

    name: str
    title: str
    columns: tuple[str, ...]
    needs: str

    def fits(self, row: Row) -> bool:
        """Return True if a row has the columns of this data set."""
        return all(name in row for name in self.columns)

    def read(self, row: Row) -> CodeProblem:
        """Refuse the row.

        Raises:
            UnfitRow: always; says what to do instead.
        """
        raise UnfitRow(
            f"is one of {self.title}, which needs {self.needs} and is not read as it is. Build an image with these"
            " packages, name it in verifier_options.image, and write each row's tests as a reference of kind tests or"
            " pytest (docs/code.md)"
        )


def _is_leetcode(row: Row) -> bool:
    return str(row["entry_point"]).startswith("Solution().")


def _is_plus(row: Row) -> bool:
    return "base_input" in row or "assertion(" in str(row.get("test", ""))


def _is_humaneval(row: Row) -> bool:
    return not _is_plus(row) and not _is_leetcode(row) and "def check(" in str(row["test"])


def _is_mbpp_plus(row: Row) -> bool:
    return _is_plus(row) and ("Mbpp" in str(row["task_id"]) or "code" in row)


def _is_taco(row: Row) -> bool:
    return "problem_id" not in row


def _has_code(row: Row) -> bool:
    inside = row["reward_model"]
    truth = inside.get("ground_truth") if is_object(inside) else None
    if isinstance(truth, str):
        return truth.lstrip().startswith("{") and '"inputs"' in truth and '"outputs"' in truth
    return is_object(truth) and {"inputs", "outputs"} <= truth.keys()


def _has_cases(row: Row) -> bool:
    info = row["verification_info"]
    return '"test_cases"' in info if isinstance(info, str) else is_object(info) and bool(info.get("test_cases"))


def _is_asserts(row: Row) -> bool:
    tests = row.get("test_cases") or row.get("tests")
    return is_list(tests) and bool(tests) and str(tests[0]).lstrip().startswith("assert")


REFUSED: Sequence[Refused] = (
    Refused(
        name="bigcodebench",
        title="BigCodeBench",
        columns=("complete_prompt", "instruct_prompt", "test", "entry_point"),
        needs="some 140 packages, files and mocks of the network",
    ),
    Refused(
        name="ds1000",
        title="DS-1000",
        columns=("code_context", "reference_code"),
        needs="numpy, pandas, scipy, sklearn, matplotlib, tensorflow and torch, and puts answers into a context",
    ),
    Refused(
        name="classeval",
        title="ClassEval",
        columns=("skeleton", "solution_code", "methods_info", "test"),
        needs="packages of its own (numpy, nltk, gensim, openpyxl, ...) and files",
    ),
)
WALL = "limits are of CPU time here, and of the clock there"
WRAPPED = (
    "programs that its wrapping into a function breaks (`global`, `from __future__`) pass here; a status other than 0"
    " from `sys.exit` fails here"
)
SETS: Sequence[CodeSet] = (
    CodeSet(
        name="livecodebench",
        title="LiveCodeBench",
        columns=("question_content", "public_test_cases", "private_test_cases"),
        read=read_livecodebench,
        rule="cases: `decimals`; calls: `outer`",
        limit="6 s a case or call",
        grader="LiveCodeBench 28fef95",
        otherwise=f"{WRAPPED}; `open(0)` fails there",
        source=HUB + "livecodebench/code_generation_lite",
    ),
    CodeSet(
        name="apps",
        title="APPS",
        columns=("question", "input_output", "problem_id"),
        read=read_apps,
        rule=APPS_RULE,
        limit="4 s a case or call",
        grader="hendrycks/apps 362aedc",
        otherwise=f"{WRAPPED}; `if __name__ == '__main__'` and `sys.stdin.buffer` fail there",
        source=HUB + "codeparrot/apps",
    ),
    CodeSet(
        name="taco",
        title="TACO",
        columns=("question", "input_output"),
        marked=_is_taco,
        read=read_taco,
        rule="cases: `taco`; calls: `wrapped`",
        limit="4 s a case or call",
        grader="FlagOpen/TACO 245eba3",
        otherwise="a program that fails is not run again there with input.txt and output.txt",
        source=HUB + "BAAI/TACO",
    ),
    CodeSet(
        name="eurus",
        title="Eurus-2-RL-Data, code",
        columns=("prompt", "reward_model"),
        marked=_has_code,
        read=read_eurus,
        rule="cases: `eurus`; calls: `wrapped`; the first ten",
        limit="6 s a case or call",
        grader="PRIME-RL/PRIME 18ad596",
        otherwise=f"{WRAPPED}; `open(0)`, `sys.stdin.buffer` and a call that returns what JSON lacks fail there",
        source=HUB + "PRIME-RL/Eurus-2-RL-Data",
    ),
    CodeSet(
        name="code_contests",
        title="CodeContests",
        columns=("description", "public_tests", "private_tests"),
        read=read_code_contests,
        rule="cases: `words`, any case, numbers less than 1e-5 apart",
        limit="10 s a case",
        grader="",
        otherwise="its sandbox (C++, Bazel) was not built; its comparison alone, compiled from fa7a4f8, agreed on 6,000"
        " outputs, but for inf and nan beside numbers that are near. By its source, what a program printed counts there"
        " however it ended (here a status other than 0 and a limit fail), and blanks and letters outside ASCII are no"
        " blanks and have no case",
        source=HUB + "deepmind/code_contests",
    ),
    CodeSet(
        name="codeforces",
        title="open-r1/codeforces",
        columns=("official_tests", "input_mode", "description"),
        read=read_codeforces,
        rule="cases: `words`, yes and no in any case",
        limit="the row's time_limit a case",
        grader="guipenedo/piston, codeforces 1.0.0, 7a38da2",
        otherwise="generated tests, which lie in files apart, are not read; memory_limit is not the row's",
        source=HUB + "open-r1/codeforces",
    ),
    CodeSet(
        name="synthetic1",
        title="SYNTHETIC-1, verifiable-coding-problems",
        columns=("verification_info",),
        marked=_has_cases,
        read=read_synthetic,
        rule="cases: `trimmed`; calls: `printed`",
        limit="none there; cpu_seconds here",
        grader="PrimeIntellect-ai/genesys bc10edd",
        otherwise="a status other than 0 fails here, words on stderr fail there; each call is a process of its own"
        " there, and an instance of a subclass (Counter) prints its name",
        source=HUB + "PrimeIntellect/SYNTHETIC-1",
    ),
    CodeSet(
        name="leetcode",
        title="LeetCodeDataset",
        columns=("prompt", "test", "entry_point"),
        marked=_is_leetcode,
        read=read_leetcode,
        rule="its check(candidate): Python's equality",
        limit="3 s together",
        grader="newfacade/LeetCodeDataset 182cd19",
        otherwise=WALL,
        source=HUB + "newfacade/LeetCodeDataset",
    ),
    CodeSet(
        name="humaneval_plus",
        title="HumanEval+",
        columns=("prompt", "canonical_solution", "entry_point"),
        marked=lambda row: _is_plus(row) and not _is_mbpp_plus(row),
        read=read_humaneval_plus,
        rule="calls against the canonical solution: `evalplus`",
        limit="4 s a call",
        grader="evalplus 0.3.1",
        otherwise="a call that takes the canonical solution over 1 s has more than 4 s there; find_zero, which nothing"
        " passes in 0.3.1, is graded as in the source of 26d6d00",
        source=HUB + "evalplus/humanevalplus",
    ),
    CodeSet(
        name="mbpp_plus",
        title="MBPP+",
        columns=("task_id", "prompt"),
        marked=_is_mbpp_plus,
        read=read_mbpp_plus,
        rule="calls against the canonical solution: `evalplus`; `set` for 8 functions, `not_none` for 3",
        limit="4 s a call",
        grader="evalplus 0.3.1",
        otherwise="the further answers of are_equivalent, sum_div, surface_Area and digit_distance_nums fail here",
        source=HUB + "evalplus/mbppplus",
    ),
    CodeSet(
        name="humaneval",
        title="HumanEval",
        columns=("prompt", "test", "entry_point"),
        marked=_is_humaneval,
        read=read_humaneval,
        rule="its check(candidate): Python's equality",
        limit="3 s together",
        grader="openai/human-eval 6d43fb9",
        otherwise=WALL,
        source=HUB + "openai/openai_humaneval",
    ),
    CodeSet(
        name="mbpp",
        title="MBPP",
        columns=("task_id", "code", "test_list"),
        read=read_mbpp,
        rule="its assertions",
        limit="none there; cpu_seconds here",
        grader="Python itself: it has no grader",
        otherwise="",
        source=HUB + "google-research-datasets/mbpp",
    ),
    CodeSet(
        name="acecoder",
        title="AceCode-87K, AceCode-V2-122K",
        columns=("question",),
        marked=_is_asserts,
        read=read_acecoder,
        rule="its assertions",
        limit="4 s a test, 15 s together; the smaller sum here",
        grader="TIGER-AI-Lab/AceCoder e37ef2a",
        otherwise="one slow test takes the time of the others",
        source=HUB + "TIGER-Lab/AceCode-87K",
    ),
    CodeSet(
        name="kodcode",
        title="KodCode-V1",
        columns=("question", "test", "test_info"),
        read=read_kodcode,
        rule="its pytest file",
        limit="none there; cpu_seconds here",
        grader="pytest",
        otherwise="what docs/code.md says of pytest",
        source=HUB + "KodCode/KodCode-V1",
    ),
    CodeSet(
        name="cruxeval",
        title="CRUXEval, output",
        columns=("code", "input", "output", "id"),
        read=read_cruxeval,
        rule="Python's equality",
        limit="3 s there; cpu_seconds here",
        grader="facebookresearch/cruxeval 190faf1",
        otherwise="",
        source=HUB + "cruxeval-org/cruxeval",
    ),
    CodeSet(
        name="cruxeval_input",
        title="CRUXEval, input",
        columns=("code", "input", "output", "id"),
        read=read_cruxeval_input,
        rule="Python's equality",
        limit="3 s there; cpu_seconds here",
        grader="facebookresearch/cruxeval 190faf1",
        otherwise="arguments without `f(...)` around them pass here",
        source=HUB + "cruxeval-org/cruxeval",
        by_itself=False,
    ),
)
"""The order matters: the first set that fits a row is taken."""


def code_set_of(row: Row) -> CodeSet | Refused | None:
    """Return the code set of a row, recognised by its columns; None if there is none."""
    refused = next((one for one in REFUSED if one.fits(row)), None)
    return refused or next((one for one in SETS if one.by_itself and one.fits(row)), None)


def table() -> str:
    """Return the table of docs/code.md, in Markdown."""
    lines = [
        "| format | data set | columns | compared | limit | its own grader, run for comparison | known differences |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for one in SETS:
        columns = ", ".join(one.columns)
        verified = one.grader or "unverified"
        lines.append(
            f"| {one.name} | {one.title} | {columns} | {one.rule} | {one.limit} | {verified} | {one.otherwise or '-'} |"
        )
    return "\n".join(lines) + "\n"
