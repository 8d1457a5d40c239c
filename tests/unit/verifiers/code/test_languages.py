"""The table of languages, and results of a compiler's job; programs are compiled only if this machine has gcc."""

from __future__ import annotations

import json
import shutil

import pytest

from sandbox import open_sandbox
from sandbox.api import Job, JobOutcome, JobResult, Limits
from verifiers import BadOption, BadReference, Verifier, get_verifier
from verifiers.code.answers import FENCES, extract_program, other_languages
from verifiers.code.checkers import CheckerSource, read_checker
from verifiers.code.compiled import Source, Toolchain
from verifiers.code.guests import guest_modules
from verifiers.code.languages import LANGUAGES, language_named
from verifiers.code.references import read_reference
from verifiers.verdict import JSON

ROW: dict[str, JSON] = {"file": "main.zig", "compile": ["zig", "build-exe", "{sources}"], "run": ["./main"]}


def test_a_config_adds_a_language_and_changes_one() -> None:
    zig = language_named("zig", {"zig": ROW})
    assert (zig.fences, zig.compile, zig.run) == (("zig",), ("zig", "build-exe", "{sources}"), ("./main",))
    newer = language_named("cpp", {"cpp": {"compile": ["g++", "-std=gnu++20", "-o", "main", "{sources}"]}})
    assert newer.compile[1] == "-std=gnu++20"
    assert (newer.run, newer.fences, newer.system) == (("./main",), LANGUAGES["cpp"].fences, ("g++",))
    assert language_named("cpp").compile == LANGUAGES["cpp"].compile


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("cp", {}, "language must be one of python, cpp, c,"),
        ("cp", {}, "Did you mean 'cpp'?"),
        ("zig", {"zig": {"file": "main.zig"}}, "is a new language and needs run"),
        ("zig", {"zig": {**ROW, "compiler": "zig"}}, "has no 'compiler'. Did you mean 'compile'?"),
        ("zig", {"zig": {**ROW, "run": "./main"}}, "run must be a list of texts"),
        ("zig", {"zig": {**ROW, "run": []}}, "needs run"),
        ("zig", {"zig": {**ROW, "stack_mb": "64"}}, "stack_mb must be int"),
        ("zig", {"zig": {**ROW, "whole": "main("}}, "whole is not a regular expression"),
        ("zig", {"zig": "zig"}, "zig must be an object of fences"),
    ],
)
def test_a_row_that_cannot_be_used_says_what_is_wrong(name: str, rows: dict[str, JSON], message: str) -> None:
    with pytest.raises(BadOption) as caught:
        language_named(name, rows)
    assert message in str(caught.value)


def test_commands_are_filled_in_from_the_program() -> None:
    java = LANGUAGES["java"]
    source = (
        "import java.util.*;\nclass A { int x; }\npublic final class Two {\n  public static void main(String[] a) {}\n}"
    )
    run = java.command(java.run, source=source, memory_mb=400)
    assert run[0] == "java"
    assert run[-1] == "Two"
    assert "-Xmx300m" in run
    assert java.command((java.file,), source=source, memory_mb=400) == ("Two.java",)
    assert java.command((java.file, "{main}"), source="class B { void main(", memory_mb=64) == ("Main.java", "B")
    cpp = LANGUAGES["cpp"]
    assert cpp.command(cpp.compile, source="", memory_mb=64, sources=("a.cpp", "g.cpp"))[-2:] == ("a.cpp", "g.cpp")


def test_no_two_languages_are_announced_alike() -> None:
    assert len(FENCES) == sum(len(row.fences) for row in LANGUAGES.values())


@pytest.mark.parametrize(
    ("completion", "language", "program"),
    [
        ("```cpp\nint main() {}\n```", "cpp", "int main() {}\n"),
        ("Answer: ```c++17\nint main() {}\n```", "cpp", "int main() {}\n"),
        (
            "```cpp\nint main() { return f(); }\n```\nwhere\n```cpp\nint f();\n```",
            "cpp",
            "int main() { return f(); }\n",
        ),
        ("```cpp\nint main() { return 1; }\n```\n```cpp\nint main() {}\n```", "cpp", "int main() {}\n"),
        ("```\nint main() {}\n```", "cpp", "int main() {}\n"),
        ("```cpp\nint main() {}```\nIt ends.", "cpp", "int main() {}"),
        (
            "```rust\n/// ```\n/// f();\n/// ```\nfn main() {}\n```",
            "rust",
            "/// ```\n/// f();\n/// ```\nfn main() {}\n",
        ),
        ("```js\nlet s = `a`;\n```", "javascript", "let s = `a`;\n"),
        ("> ```go\n> package main\n> ```", "go", "package main\n"),
        ("```c\nint main() {}\n```", "cpp", None),
        ("```python\nprint(1)\n```", "cpp", None),
        ("int main() {}", "cpp", None),
        ("<think>```cpp\nint main() {}\n```</think>", "cpp", None),
        ("```text\nint main() {}\n```", "cpp", None),
    ],
)
def test_the_block_of_a_language(completion: str, language: str, program: str | None) -> None:
    assert extract_program(completion, "last", language=LANGUAGES[language]) == program


@pytest.mark.parametrize(
    ("completion", "said"),
    [
        ("```go\npackage main\n```", "the only fenced block is go"),
        ("```go\na\n```\n```rust\nb\n```", "its blocks are go, rust"),
        ("no block", ""),
        ("```\n", ""),
    ],
)
def test_what_else_there_is(completion: str, said: str) -> None:
    assert other_languages(completion) == said


def test_an_answer_in_a_language_that_is_not_offered_is_told_by_its_name() -> None:
    verifier = get_verifier("code", sandbox="unsafe-host")
    verdict = verifier.verify(completion="```go\npackage main\n```", reference={"cases": [{"input": "", "output": ""}]})
    assert verdict.outcome == "no_answer"
    assert verdict.reason == "the completion contains no fenced Python program; the only fenced block is go"


def test_other_languages_take_cases_alone() -> None:
    verifier = get_verifier("code", sandbox="unsafe-host", language="cpp")
    verifier.check_reference({"cases": [{"input": "", "output": ""}]})
    verifier.check_reference({"cases": [{"input": "", "output": ""}], "imports": "livecodebench"})
    with pytest.raises(BadReference, match="programs in cpp are tested by cases"):
        verifier.check_reference({"tests": ["assert f(1) == 1"]})


@pytest.mark.parametrize("options", [{"image": "gcc"}, {"runtime": "runsc"}])
def test_an_image_is_dockers(options: dict[str, str]) -> None:
    with pytest.raises(BadOption, match="image and runtime are Docker's"):
        get_verifier("code", sandbox="bubblewrap", **options)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"checker": 1}, "checker must be source or an object"),
        ({"checker": {"source": " "}}, "source must be a program"),
        ({"checker": {"source": "x", "language": "perl"}}, "language must be one of"),
        ({"checker": {"source": "x", "protocol": "says"}}, "protocol must be one of exit, prints"),
        ({"checker": {"source": "x", "run": "y"}}, "checker may not have 'run'"),
        ({"files": "input.txt"}, "files must be an object"),
        ({"files": {"in": "input.txt"}}, "files may not have 'in'; it takes input, output."),
        ({"files": {"input": "../input.txt"}}, "a file's name must be of"),
        ({"files": {"output": "/etc/passwd"}}, "a file's name must be of"),
        ({"sources": {"grader.cpp": 1}}, "sources must be an object of texts"),
        ({"sources": {".": "x"}}, "a file's name must be of"),
        ({"program": "a/b.cpp"}, "a file's name must be of"),
    ],
)
def test_fields_of_cases_that_cannot_be_used(fields: dict[str, JSON], message: str) -> None:
    with pytest.raises(BadReference) as caught:
        read_reference({"cases": [{"input": "", "output": ""}], **fields})
    assert message in str(caught.value)


def test_checkers_as_references_have_them() -> None:
    assert read_checker("print(1)") == CheckerSource("print(1)", "python", "prints")
    assert read_checker({"source": "x", "language": "cpp"}) == CheckerSource("x", "cpp", "exit")
    assert read_checker({"source": "x", "protocol": "exit"}) == CheckerSource("x", "python", "exit")


def _compiled(result: bytes, outcome: JobOutcome = JobOutcome.OK, stderr: bytes = b"") -> Toolchain:
    answer = JobResult(outcome=outcome, result=result, stderr=stderr, detail="why")
    return Toolchain(LANGUAGES["cpp"], lambda job: answer, Limits())


@pytest.mark.parametrize(
    ("result", "outcome", "stderr", "trouble", "over"),
    [
        (
            b'{"status": 1}\n',
            JobOutcome.OK,
            b"note\nmain.cpp:1: error: x\nmore",
            "it does not compile: main.cpp:1: error: x\nmore",
            False,
        ),
        (b"", JobOutcome.CPU_LIMIT, b"", "the compiler was stopped: cpu_limit (why)", True),
        (b"", JobOutcome.KILLED, b"", "the compiler was stopped: killed (why)", False),
        (b'{"status": 0}\nnonsense', JobOutcome.OK, b"", "the compiler's results cannot be read", False),
        (
            b'{"status": 0}\n["main", 33554433, true]\n' + bytes(33_554_433),
            JobOutcome.OK,
            b"",
            "it is larger than 32 MiB",
            True,
        ),
    ],
    ids=["error", "limit", "killed", "nonsense", "large"],
)
def test_what_a_compiler_comes_to(result: bytes, outcome: JobOutcome, stderr: bytes, trouble: str, over: bool) -> None:
    built = _compiled(result, outcome, stderr).build(Source(code="int main() {}"))
    assert trouble in built.trouble
    assert built.over is over
    assert not built.files


def test_a_compiler_that_is_not_there_says_nothing_of_the_program() -> None:
    assert _compiled(b'{"missing": "g++: No such file"}\n').build(Source(code="")).missing == "g++: No such file"
    verifier = get_verifier(
        "code", sandbox="unsafe-host", language="none", languages={"none": {**ROW, "compile": ["no-such-compiler"]}}
    )
    verdict = verifier.verify(completion="```none\nx\n```", reference={"cases": [{"input": "", "output": ""}]})
    assert verdict.outcome == "verifier_error"
    assert "no-such-compiler" in verdict.reason


def test_what_a_compiler_made() -> None:
    built = _compiled(b'{"status": 0}\n["main", 2, true]\nab["x.o", 1, false]\nc').build(Source(code="int main() {}"))
    assert dict(built.files) == {"main": b"ab", "x.o": b"c"}
    assert built.executable == {"main"}


def test_runs_whose_results_cannot_be_read_run_again_alone() -> None:
    jobs: list[object] = []

    def run(job: object) -> JobResult:
        jobs.append(job)
        lines = [json.dumps({"i": 0, "size": 1, "status": 0, "cpu": 0.0}), "7" + json.dumps({"i": 5, "size": 1})]
        return JobResult(
            outcome=JobOutcome.OK, result="\n".join(lines).encode() if len(jobs) == 1 else b"", stdout=b"8"
        )

    chain = Toolchain(LANGUAGES["bash"], run, Limits())
    source = Source(code="read a; echo $a")
    built = chain.build(source)
    found = [result.stdout for result in chain.runs(source, built, ["1", "2"], files={}, stop=True)]
    assert found == [b"7", b"8"]
    assert len(jobs) == 2


def test_a_run_with_files_that_is_late_runs_again_where_the_sandbox_tells_why() -> None:
    walls: list[tuple[float, float]] = []

    def run(job: Job) -> JobResult:
        request = json.loads(job.files["request__.json"])
        walls.append((request["wall_seconds"], job.limits.wall_seconds))
        late = JobResult(outcome=JobOutcome.OK, result=b'{"i": 0, "size": 0, "late": true}\n')
        return late if len(walls) == 1 else JobResult(outcome=JobOutcome.WALL_TIMEOUT, detail="it slept")

    chain = Toolchain(LANGUAGES["bash"], run, Limits(wall_seconds=4.0))
    source = Source(code="sleep 9")
    (found,) = chain.runs(source, chain.build(source), ["1"], files={"input": "a.in"}, stop=True)
    assert (found.outcome, found.detail) == (JobOutcome.WALL_TIMEOUT, "it slept")
    assert walls[0] == (4.0, 9.0)
    assert walls[1][0] > walls[1][1] == 4.0


@pytest.mark.parametrize(
    ("code", "outcome", "wall_seconds", "most"),
    [
        ("while :; do :; done", JobOutcome.CPU_LIMIT, 60.0, 0.9),  # RLIMIT_CPU alone, in whole seconds: 1.0
        ("(while :; do :; done) & wait", JobOutcome.CPU_LIMIT, 60.0, 1.6),
        ("sleep 9", JobOutcome.WALL_TIMEOUT, 0.5, 0.3),
        ("for n in 1 2 3; do sleep 0.1; done", JobOutcome.OK, 60.0, 0.3),
    ],
    ids=["endless", "endless in a child", "asleep", "now and then asleep"],
)
def test_a_run_ends_at_its_own_cpu_limit(code: str, outcome: JobOutcome, wall_seconds: float, most: float) -> None:
    limits = Limits(cpu_seconds=0.3, wall_seconds=wall_seconds)
    with open_sandbox("unsafe-host", workers=1, modules=guest_modules()) as sandbox:
        chain = Toolchain(LANGUAGES["bash"], sandbox.run, limits)
        source = Source(code=code)
        (found,) = chain.runs(source, chain.build(source), [""], files={}, stop=True)
    assert found.outcome is outcome
    assert found.cpu_seconds < most


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc on this machine")
    return get_verifier("code", sandbox="unsafe-host", language="c", cpu_seconds=2.0)


@pytest.mark.parametrize(
    ("code", "outcome", "reason"),
    [
        ('int a; scanf("%d", &a); printf("%d\\n", a * 2);', "correct", ""),
        ('int a; scanf("%d", &a); printf("%d\\n", a * 2); fclose(stdout);', "correct", ""),
        ('int a; scanf("%d", &a); printf("%d\\n", a > 2 ? 0 : a * 2);', "incorrect", "case 3: another output"),
        ("int a = ;", "incorrect", "it does not compile: main.c:2:"),
        ("return 3;", "incorrect", "case 1: nonzero_exit (exit status 3)"),
        ("int *p = 0; *p = 1;", "incorrect", "case 1: killed (by signal"),
    ],
)
def test_programs_on_this_machine(verifier: Verifier, code: str, outcome: str, reason: str) -> None:
    cases: list[JSON] = [{"input": f"{n}\n", "output": f"{2 * n}\n"} for n in range(1, 5)]
    text = f"```c\n#include <stdio.h>\nint main() {{ {code} }}\n```"
    verdict = verifier.verify(completion=text, reference={"cases": cases, "imports": "livecodebench"})
    assert verdict.outcome == outcome, verdict
    assert reason in verdict.reason
