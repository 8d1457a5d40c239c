"""The math verifier: labelled cases, hostile input, and forbidden constructs in its code."""

from __future__ import annotations

import ast
import json
import random
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verifiers import GradingRow, Outcome, get_verifier
from verifiers.errors import BadReference
from verifiers.kit.audit import Thresholds, read_cases, tally
from verifiers.mathematics.equality.compare import compare
from verifiers.mathematics.limits import LimitExceeded, ParseError
from verifiers.mathematics.reading.listing import table
from verifiers.mathematics.reading.reader import read
from verifiers.mathematics.verifier import Math

ROOT = Path(__file__).parents[4]
CASES = ROOT / "tests" / "cases" / "math.jsonl"
WRITTEN = ROOT / "tests" / "cases" / "math_written.jsonl"
BLIND = ROOT / "tests" / "cases" / "math_blind.jsonl"
MATH = Math()


def verdict(answer: str, gold: str):
    return MATH.verify(completion=f"The final answer is \\boxed{{{answer}}}.", reference=gold)


def test_labelled_cases_reach_their_thresholds() -> None:
    cases = read_cases(str(CASES), {})
    assert len(cases) >= 600
    verdicts = [MATH.verify(completion=case.completion, reference=case.reference) for case in cases]
    audit = tally((case, v.reward, v.reason) for case, v in zip(cases, verdicts, strict=True))
    assert not audit.failures(Thresholds(0.97, 0.015, 0.05, 0.85)), audit.mistakes
    for name in ("near-miss", "reward-hack"):
        assert audit.categories[name].accepted_wrong == 0


def test_every_written_case_is_right() -> None:
    """Texts of models and data sets, by kind, half of them near misses."""
    cases = read_cases(str(WRITTEN), {})
    assert len(cases) >= 480
    wrong = [
        (case.id, case.completion, case.reference, verdict.reason)
        for case in cases
        if ((verdict := MATH.verify(completion=case.completion, reference=case.reference)).reward == 1) != case.expected
    ]
    assert not wrong


def test_every_blind_case_has_its_outcome() -> None:
    """Two rounds of 300 pairs in the style of contests, textbooks and chats, written without knowledge of the
    verifier.
    """
    cases = [json.loads(line) for line in BLIND.read_text(encoding="utf-8").splitlines()]
    assert len(cases) == 600
    wrong = [
        (case["id"], case["why"], verdict.reason)
        for case in cases
        if (verdict := MATH.verify(completion=case["completion"], reference=case["reference"])).outcome
        != case["outcome"]
    ]
    assert not wrong
    assert all(case["expected"] == (case["outcome"] == "correct") for case in cases)


POLICIES = [
    ({}, "0.333", r"\frac{1}{3}", 1),
    ({"rounding": "exact"}, "0.333", r"\frac{1}{3}", 0),
    ({}, r"\frac{1}{3}", "0.333", 0),
    ({"relative_tolerance": 0.01}, r"\frac{1}{3}", "0.333", 1),
    ({}, r"\sqrt{7}", "2.6458", 0),
    ({"relative_tolerance": 0.001}, r"\sqrt{7}", "2.6458", 1),
    ({"relative_tolerance": 0.001}, r"\sqrt{7}", "2.6558", 0),
    ({"relative_tolerance": 0.001}, r"x\sqrt{7}", "2.6458x", 0),
    ({}, "0.5", r"50\%", 1),
    ({"percent_optional": False}, "50", r"50\%", 0),
    ({}, "30", r"30\text{ cm}", 1),
    ({"units_optional": False}, "30", r"30\text{ cm}", 0),
    ({"units_optional": False}, r"30\text{ cm}", r"0.3\text{ m}", 1),
    ({}, "8", "3+5", 1),
    ({"unsimplified": False}, "8", "3+5", 0),
    ({}, "1,2", "2,1", 1),
    ({"ordered_lists": True}, "1,2", "2,1", 0),
    ({}, "11", "1011_2", 0),
    ({"any_base": True}, "11", "1011_2", 1),
]


@pytest.mark.parametrize(("options", "gold", "answer", "reward"), POLICIES)
def test_each_policy_is_a_switch(options: dict, gold: str, answer: str, reward: int) -> None:
    found = Math(**options).verify(completion=f"\\boxed{{{answer}}}", reference=gold)
    assert found.reward == reward, found.reason


def test_forms_can_be_restricted() -> None:
    strict = Math(forms=["boxed"])
    assert strict.verify(completion="The answer is 42.", reference="42").outcome is Outcome.NO_ANSWER
    assert strict.verify(completion="\\boxed{42}", reference="42").reward == 1
    talk = "She has 42 apples then.\nThat is what we were looking for in the first place."
    assert MATH.verify(completion=talk, reference="42").outcome is Outcome.NO_ANSWER
    lenient = Math(lenient=True)
    assert lenient.verify(completion=talk, reference="42").reward == 1


LENIENT = [
    ("Donc, il a déjà 79 g de cire.", "79", 1),
    ("Donc, il a déjà 78 g de cire.", "79", 0),
    ("两者的比例为13/28", "13/28", 1),
    ("两者的比例为13/27", "13/28", 0),
    ("5 m or 3 m", "3", 0),
    ("sin x + 2 cos 3x", r"\sin x + 2\cos 3x", 1),
    ("4 hours 20 minutes", "20", 0),
    ("充分不必要条件。", "充分不必要条件", 1),
]


@pytest.mark.parametrize(("completion", "reference", "reward"), LENIENT)
def test_lenient_takes_the_last_number_of_a_sentence_and_leaves_an_answer_whole(
    completion: str, reference: str, reward: int
) -> None:
    assert Math(lenient=True).verify(completion=completion, reference=reference).reward == reward


def test_the_comparison_is_symmetric_where_nothing_is_rounded() -> None:
    """Swapping answer and reference changes nothing, except for a decimal reference, which accepts values that round to
    it.
    """
    exact = get_verifier("math", rounding="exact")
    asymmetric = []
    for case in read_cases(str(CASES), {}):
        if not case.completion.startswith("The final answer is \\boxed{") or not isinstance(case.reference, str):
            continue
        answer = case.completion.removeprefix("The final answer is \\boxed{").removesuffix("}.")
        there = exact.verify(completion=f"\\boxed{{{answer}}}", reference=case.reference)
        back = exact.verify(completion=f"\\boxed{{{case.reference}}}", reference=answer)
        if None not in (there.reward, back.reward) and there.reward != back.reward:
            asymmetric.append((answer, case.reference))
    # what is on one side alone may be left out by the answer, and not added to it, or bears another meaning there
    assert len(asymmetric) <= 12, asymmetric


def test_verdicts_say_why() -> None:
    found = verdict("\\frac{2}{4}", "0.5")
    assert found.outcome is Outcome.CORRECT
    assert found.answer == "\\frac{2}{4}"
    assert {"reason", "form", "tier"} <= found.detail.keys()


@pytest.mark.parametrize("gold", ["", "   ", "\\frac{1}{", "x" * 1_000_000, None, 3.5, [], {"4": "4"}, "\x00"])
def test_a_gold_that_cannot_be_used_is_said_to_be(gold: object) -> None:
    found = MATH.verify(completion="\\boxed{4}", reference=gold)  # pyright: ignore
    assert found.outcome in (Outcome.BAD_REFERENCE, Outcome.INCORRECT)
    if not isinstance(gold, float | int):
        assert found.outcome is Outcome.BAD_REFERENCE
        assert found.reward is None


HOSTILE = {
    "power tower": "9^{9^{9^{9^9}}}",
    "large power": "7^{10^{12}}",
    "factorial": "(10^9)!",
    "iterated factorial": "3!!!!!!!!",
    "binomial": "\\binom{10^{9}}{5\\cdot 10^{8}}",
    "sum": "\\sum_{k=1}^{10^{12}} \\frac{1}{k}",
    "product": "\\prod_{k=1}^{10^{9}} k",
    "expansion": "(a+b+c+d+e+f+g+h)^{200}",
    "nested expansion": "((x+1)^{50}+1)^{50}",
    "root": "\\sqrt[1000000]{2^{1000000}}",
    "many digits": "9" * 100_000,
    "long decimal": "0." + "3" * 100_000,
    "exponent": "1e999999999",
    "braces": "{" * 20_000 + "1" + "}" * 20_000,
    "open braces": "{" * 20_000,
    "parentheses": "(" * 20_000 + "1" + ")" * 20_000,
    "minus signs": "-" * 20_000 + "1",
    "fractions": "\\frac{1}{" * 5_000 + "1" + "}" * 5_000,
    "square roots": "\\sqrt{" * 5_000 + "2" + "}" * 5_000,
    "list": ",".join(map(str, range(20_000))),
    "matrix": "\\begin{pmatrix}" + "\\\\".join(["1&2"] * 10_000) + "\\end{pmatrix}",
    "plus": "+".join(["x"] * 30_000),
    "product of sums": "(x+y)" * 5_000,
    "absolute": "|" * 20_000,
    "long string": "a" * 100_000,
    "spaces": " " * 100_000,
    "backslashes": "\\" * 50_000,
    "dollars": "$" * 50_000,
    "injection": "__import__('os').system('touch /tmp/owned')",
    "lambda": "(lambda: ().__class__.__bases__[0].__subclasses__())()",
    "format": "{0.__class__}" * 50,
    "latex": "\\input{/etc/passwd}\\write18{id}",
    "nested sums": "\\sum_{i=1}^{1000}\\sum_{j=1}^{1000} ij",
    "many terms": "\\sum_{k=1}^{2000} \\frac{\\sin k}{k^2+1}",
    "far scales": "+".join(f"10^{{-{k}}}" for k in range(1, 1500)),
    "saturation": "\\tanh(10^{10^{5}})",
    "towers of e": "e^{e^{e^{e^{10}}}}",
    "angle": "\\sin(10^{10^{6}})",
    "combinations": "C(10^9, 5\\cdot10^8)",
    "sum of matrices": "+".join(["\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}"] * 300),
    "union": "\\cup".join(f"({k},{k + 1})" for k in range(2000)),
    "inequalities": ",".join(f"x>{k}" for k in range(2000)),
    "cycle": "0." + "12" * 30_000 + "...",
    "units": "5 " + "kg m/s^2 " * 10_000,
    "words": "one hundred and " * 6_000,
    "declarations": "the answer is " * 7_000,
    "listing": "Answer: 1\n" * 10_000,
    "boxes": "} \\boxed{1" * 10_000,
    "nested boxes": "\\boxed{" * 5_000 + "1" + "}" * 5_000,
    "thoughts": "<think>" * 15_000,
    "tags": "<answer>1</answer>" * 5_000,
    "objects": '{"a":' * 20_000,
    "fences": "```json {" * 10_000,
    "bold": "**" * 50_000,
    "retractions": "\\boxed{1} wait that is wrong the answer is " * 2_400,
    "reversed": "1 is the answer " * 6_000,
    "spaces after a word": "the answer" + " " * 100_000,
    "spaces between words": "the answer to the" + " " * 50_000 + "question" + " " * 50_000,
    "numbers and spaces": "1 " * 50_000,
    "open text": "\\text{" * 10_000,
    "backticks": "`" * 100_000,
    "open brackets after numbers": "0.(" * 30_000,
    "subscripts": "A_" * 40_000,
    "nan": "nan",
    "zero by zero": "\\frac{0}{0}",
    "by zero": "\\frac{1}{0}",
    "log zero": "\\log 0",
    "zero to the zero": "0^0",
    "infinity": "\\infty-\\infty",
    "nul": "4\x002",
    "right to left": "\u202e24\u202c",
    "combining": "4\u0301" * 1000,
    "surrogates": "\ud800",
    "emoji": "🧮" * 1000,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("side", ["answer", "gold", "completion", "inside"])
def test_hostile_input_is_answered_soon(name: str, side: str) -> None:
    """Limit: five seconds of CPU time; without limits most of these would take minutes or all memory."""
    text = HOSTILE[name]
    completion, gold = {
        "answer": (f"The final answer is \\boxed{{{text}}}.", "42"),
        "gold": ("\\boxed{42}", text),
        "completion": (text, "42"),
        "inside": (f"\\boxed{{\\sin({text})}}", "\\cos 3"),
    }[side]
    started = time.process_time()
    found = MATH.verify(completion=completion, reference=gold)
    assert time.process_time() - started < 5
    assert found.reward != 1
    assert not Path("/tmp/owned").exists()


def test_hostile_input_from_a_thread_and_within_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: dict[str, float | None] = {}

    def grade() -> None:
        for name, text in HOSTILE.items():
            found[name] = verdict(text, "42").reward

    thread = threading.Thread(target=grade)
    thread.start()
    thread.join(timeout=len(HOSTILE))
    assert found.keys() == HOSTILE.keys()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024


MEGABYTE = 1_000_000
ENDLESS = [
    *(
        "#### ",
        "Answer: ",
        "the answer is ",
        "$",
        "\\boxed{\n",
        "\\boxed{1} and ",
        "<think>",
        "</s>",
        "<s></s>",
        "**",
        "1",
    ),
    *(
        "\nQuestion: ",
        "<answer>",
        "答：",
        "ответ: ",
        "is the answer ",
        "Answer: $LETTER ",
        "If a \\boxed{1}\n\n",
        "\n",
        "{",
    ),
    *("<|channel|>final<|message|>", "[THINK]", "the answer is correct. ", "\\\\frac", "\x0crac", "| ", "a "),
]


def cpu_seconds(text: str) -> float:
    """Return the least CPU time of two gradings of a text: other work on the machine makes it longer."""
    seconds = []
    for _ in range(2):
        started = time.process_time()
        assert MATH.verify(completion=text, reference="42").reward == 0
        seconds.append(time.process_time() - started)
    return min(seconds)


@pytest.mark.parametrize("piece", ENDLESS)
def test_time_grows_with_the_length_of_a_text_and_not_faster(piece: str) -> None:
    """Eight times the text takes about eight times as long; quadratic time would be 64 times."""
    eighth, whole = (cpu_seconds(piece * (length // len(piece))) for length in (MEGABYTE // 8, MEGABYTE))
    assert whole < 24 * max(eighth, 0.01)


def test_references_that_cannot_be_told_from_answers_are_refused() -> None:
    for gold in ("\\frac{1}{0}", "\\log 0", "(1, \\frac{0}{0})", "\\tan 90^\\circ"):
        with pytest.raises(BadReference, match="must have a value"):
            MATH.check_reference(gold)
    for gold in ("\\frac{1}{x}", "0", "\\infty", "1 \\pm \\sqrt{2}", "\\int_0^1 x^x\\,dx", "\\text{undefined}"):
        MATH.check_reference(gold)


NOTES = {
    "42": [],
    "x = 5": [],
    "\\frac{1}{2}": [],
    "0": [],
    "0=0": ["0=0", "statement about numbers"],
    "\\log_3 9 = 2": ["statement about numbers"],
    "2 < 3": ["comparison of numbers"],
    "(x+1)^2=x^2+2x+1": ["identity"],
    "\\boxed{2} and \\boxed{3}": ["one list of 2"],
    "First $\\boxed{2}$. With that one finds at once the length that was asked for: $\\boxed{3}$": ["last one"],
    "\\\\frac{1}{2}": ["doubled backslashes"],
    "\\int_0^1 x^x\\,dx": ["an integral"],
}


@pytest.mark.parametrize("gold", NOTES)
def test_a_reference_that_may_surprise_bears_a_note(gold: str) -> None:
    notes = MATH.reference_notes(gold)
    assert len(notes) == len(NOTES[gold]), notes
    assert all(part in note for part, note in zip(NOTES[gold], notes, strict=True))


def test_what_nobody_works_out_is_undecided_and_pays_nothing() -> None:
    for answer, gold in (
        ("\\int_0^1 x^x\\,dx", "0.78"),
        ("\\lim_{n\\to\\infty} (1+1/n)^n", "e"),
        ("\\sum_{k=1}^{\\infty} \\frac{1}{k^2}", "\\frac{\\pi^2}{6}"),
        ("5", "\\int_0^1 x^x\\,dx"),
    ):
        found = verdict(answer, gold)
        assert (found.outcome, found.detail["tier"]) == (Outcome.INCORRECT, "undecided"), (answer, found)
    assert verdict("\\int_0^1 t^2\\,dt", "\\int_0^1 t^2\\,dt").reward == 1
    for answer, gold in (("4", "5"), ("\\sin 1", "\\cos 1"), ("x", "y")):
        assert verdict(answer, gold).detail["tier"] != "undecided"


def test_the_open_questions_of_a_comparison_are_kept() -> None:
    pair = read("\\frac{\\pi^2}{6}"), read("\\sum_{k=1}^{\\infty} \\frac{1}{k^2}")
    assert compare(*pair).open == (pair,)
    assert compare(read("2"), read("3")).open == ()


def test_the_table_in_the_docs_is_the_one_in_the_code() -> None:
    assert table() in (ROOT / "docs" / "math.md").read_text()


WORK = (
    "Now the length of the other side follows from the theorem, and the perimeter is the sum of all three of them. " * 3
)
TAKEN_BACK = {
    "So it is \\boxed{41}. Wait, that is wrong: the answer is 42": "42",
    "So it is \\boxed{41}. Correction: \\boxed{42}": "42",
    "The answer is 41. No, the answer is 42.": "42",
    "So it is \\boxed{42}. Scratch that.": None,
    "So it is \\boxed{42}. Hmm, that cannot be right.": None,
    "The answer is 42. I made a mistake.": None,
    "The answer is <s>41</s> 42": "42",
    "The answer is 41 or 42": "41, 42",
    "The answer is 41, or possibly 42": "",
    "It is \\boxed{41}. It could also be \\boxed{42}.": "41, 42",
    "The answer is 41. Or it could be 42.": "41, 42",
    "It is \\boxed{41}.\n\nAlternatively, \\boxed{42}.": "41, 42",
    "Option 1: \\boxed{41}\n\nOption 2: \\boxed{42}": "41, 42",
    "If $n$ is even, \\boxed{41}. If $n$ is odd, \\boxed{42}.": "41, 42",
    f"The first side is \\boxed{{41}}. {WORK} So \\boxed{{42}}": "42",
    "Either way \\boxed{42}. A second way gives \\boxed{42}.": "42",
    "The answer is 42. Note that the answer is not 41.": "42",
    "The answer is 42. No, the answer is not 42.": None,
}
"""Text -> its answer; None for no answer, "" for an answer equal to neither number."""


@pytest.mark.parametrize("text", TAKEN_BACK)
def test_one_value_said_once_or_changed_in_the_open_is_an_answer(text: str) -> None:
    said = TAKEN_BACK[text]
    for gold in ("41", "42", "41, 42"):
        assert MATH.verify(completion=text, reference=gold).reward == (gold == said), (gold, said)
    if said is None:
        assert MATH.verify(completion=text, reference="42").outcome is Outcome.NO_ANSWER


def test_more_thinking_tags_can_be_named() -> None:
    text = "<musing>\\boxed{41}</musing>\\boxed{42} <musing>\\boxed{43}</musing>"
    assert MATH.verify(completion=text, reference="42").reward == 0
    assert Math(thinking_tags=["musing"]).verify(completion=text, reference="42").reward == 1


def test_identical_monsters_are_equal_without_being_computed() -> None:
    assert verdict("9^{9^{9^{9}}}", "9^{9^{9^{9}}}").reward == 1


def test_hostile_input_through_the_pool_loses_no_worker() -> None:
    from verifiers.pool import GradingPool, GradingRequest

    rows = [
        GradingRow(completion=f"\\boxed{{{text}}}", reference="42")
        for name, text in HOSTILE.items()
        if name != "surrogates"
    ]
    with GradingPool(workers=1) as pool:
        verdicts = list(pool.grade([GradingRequest("math", row) for row in rows]))
    assert all(v.outcome is not Outcome.VERIFIER_ERROR for v in verdicts), [v.reason for v in verdicts]


def test_nothing_in_the_package_evaluates_text() -> None:
    banned = {"eval", "exec", "compile", "sympify", "S", "parse_expr", "parse_latex", "literal_eval", "__import__"}
    banned |= {"lambdify"}
    paths = list((ROOT / "verifiers" / "mathematics").rglob("*.py"))
    assert len(paths) > 10
    for path in [*paths, ROOT / "verifiers" / "answers" / "find.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
                if called == "compile" and ast.unparse(node.func) == "re.compile":
                    continue
                assert called not in banned, f"{path}:{node.lineno}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                parsers = {"antlr4"} if path.parent.name == "opinion" else {"antlr4", "sympy"}  # it is handed trees
                assert not parsers & {name.split(".")[0] for name in names}, f"{path}:{node.lineno}"


def test_importing_it_loads_the_standard_library_alone() -> None:
    code = "import sys; before = set(sys.modules); import verifiers.mathematics.verifier"
    code += "; print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - sys.stdlib_module_names == {"verifiers"}


PIECES = st.sampled_from(
    r"\frac { } ( ) [ ] 1 2 34 0.5 x y z + - * / ^ _ , \sqrt \pi e i = < \le \cup \infty \{ \} \pm ! % | \text{cm} \sin"
    r" \log \begin{pmatrix} \end{pmatrix} & \\ : 7,000 \binom \sum_{k=1}^{n} \circ \% \$ and or \dots C A B km"
    r" m/s base \approx \pmod \mathbb{R} \setminus \in k\in\mathbb{Z} x>1 x\le3 3:30 May (1,2) [1,2) \{1,2\} \angle"
    r" ABC \mathbf{i} FF_{16} 0.(3) 0.33... f(x) two to \int \lim '".split()
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=25), st.lists(PIECES, max_size=10))
def test_any_sequence_of_tokens_gets_a_verdict(answer: list[str], gold: list[str]) -> None:
    found = verdict(" ".join(answer), " ".join(gold))
    assert found.outcome in Outcome
    assert found.outcome is not Outcome.VERIFIER_ERROR


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        tree = read(text)
    except (ParseError, LimitExceeded):
        return
    assert tree == read(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_fractions_equal_themselves_in_every_spelling_and_nothing_near(top: int, bottom: int) -> None:
    spellings = [f"\\frac{{{top}}}{{{bottom}}}", f"{top}/{bottom}", f"{2 * top}/{2 * bottom}", f"{top}\\div{bottom}"]
    for spelling in spellings:
        assert verdict(spelling, spellings[0]).reward == 1
    assert verdict(f"{top + 1}/{bottom}", spellings[0]).reward == 0
    assert verdict(f"{top}/{bottom + 1}", spellings[0]).reward == (1 if top == 0 else 0)


@pytest.mark.parametrize("text", ["\\frac{3}{4}", "\\dfrac{12}{5}", "3/4", "0012/5", "7/0"])
def test_plain_fractions_are_read_as_the_grammar_reads_them(text: str) -> None:
    assert read(text) == read(f"{text} ")


def test_random_edits_of_right_answers_never_crash() -> None:
    source = random.Random(0)
    rows = [json.loads(line) for line in CASES.read_text().split("\n") if line]
    for row in source.sample(rows, 700):
        text = row["completion"]
        for _ in range(3):
            place = source.randrange(len(text) + 1)
            edited = text[:place] + source.choice(["", "{", "}", "\\", "$", "9", "-", ",", "\n"]) + text[place + 1 :]
            assert MATH.verify(completion=edited, reference=row["reference"]).outcome in Outcome
