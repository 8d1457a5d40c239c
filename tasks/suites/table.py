"""Definitions of the evaluation sets with sources. `python -m tasks.suites.table` prints the tables of the docs."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.base import TaskError
from tasks.bbh import SUBTASKS
from tasks.suites import readers
from tasks.suites.suite import Difference, Suite
from verifiers.suggest import did_you_mean

QWEN = "Qwen2.5-Math (QwenLM/Qwen2.5-Math, evaluation/)"
LM_EVAL = "lm-evaluation-harness (lm_eval/tasks)"
LIGHTEVAL = "lighteval (lighteval/tasks/tasks)"
SIMPLE = "simple-evals (openai/simple-evals)"
R1 = "DeepSeek-R1 (arXiv:2501.12948)"
DAPO = "DAPO (arXiv:2503.14476)"
EVALPLUS = "EvalPlus (evalplus/evalplus, 0.3.1; arXiv:2305.01210)"
LCB = "LiveCodeBench (LiveCodeBench/LiveCodeBench, lcb_runner/; arXiv:2403.07974)"

BOXED = "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."
"""User message of Qwen2.5-Math's prompt `qwen-boxed` (evaluation/utils.py), also recommended by R1's model card."""
LETTER = (
    "Answer the following multiple choice question. The last line of your response should be of the following format:"
    " 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD. Think step by step before answering.\n\n"
    "{question}"
)
"""QUERY_TEMPLATE_MULTICHOICE of simple-evals (common.py)."""
SCRIPT = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
    "{question}\n"
)
"""Instruction prefix of EvalPlus (evalplus/codegen.py)."""
LONG = 32_768
"""Maximum tokens of a long reasoning completion: R1's limit, and lighteval's for MATH-500, GPQA and LiveCodeBench."""

PROMPT = Difference(
    QWEN,
    "the instruction as system message (`qwen25-math-cot`); for older models in the user message, below `You are a"
    " helpful assistant.` (`qwen-boxed`)",
    "in the user message; no system message",
    "as R1's model card asks",
)
LENGTH = Difference(QWEN, "at most 2,048 tokens", f"at most {LONG:,}", "reasoning models answer at length")
GRADER = Difference(
    QWEN,
    "its own extraction and symbolic comparison, numbers within 1e-4 of the reference, of 100 times it or of a"
    " hundredth of it; the last number if no answer is declared",
    "the verifier `math`; `no_answer` if none is declared",
    "one grader for training and evaluation; docs/math.md has their agreement",
)
AS_QWEN = (PROMPT, LENGTH, GRADER)
ONE_GREEDY = Difference(
    QWEN, "greedy, one completion", "32 completions", "a set this small needs many, as its interval shows"
)
AIME_SAMPLING = (
    Difference(
        R1,
        "4 to 64 completions, depending on the size of the set; 64 in the model card",
        "32",
        "as DAPO reports it (avg@32)",
    ),
    Difference(
        DAPO,
        "temperature 1, top_p 0.7, at most 20,480 tokens",
        f"temperature 0.6, top_p 0.95, at most {LONG:,} (as R1)",
        "the same sampling for all models",
    ),
    Difference(DAPO, "the prompt asks for `Answer: ...` on the last line", "for a box", "Qwen2.5-Math's wording"),
)
ALOUD = Difference(
    LM_EVAL,
    "`Question: ... Answer:`, greedy, one completion; the last box, or the text between the first and the last $, is"
    " compared as text",
    "sampled, an instruction, `math`",
    "as papers report it",
)
SENTENCE = Difference(
    LIGHTEVAL,
    "the prompt asks for `Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct`; one completion, 64"
    " in a variant",
    "a shorter instruction; 32",
    "Qwen2.5-Math's wording; DAPO's number",
)
LETTERS = Difference(
    SIMPLE,
    "the letter after the first `Answer:`",
    "the verifier `choice`: the declared answer must name one letter",
    "an answer with two letters is not a choice; a letter in a box or in brackets counts",
)
PROGRAMS = (
    Difference(EVALPLUS, "the start of the reply is given", "the model writes all of it", "chat templates differ"),
    Difference(EVALPLUS, "the code is extracted by its syntax tree", "by the fence", "docs/code.md"),
    Difference(
        EVALPLUS,
        "at least 1 s per input and 60 s in all, wall-clock time",
        "4 s per input and 20 s in all, CPU time",
        "verdicts do not depend on load",
    ),
    Difference(EVALPLUS, "pass@1 on the base tests as well", "on all tests", "the definition of HumanEval+ and MBPP+"),
)

SUITES: Sequence[Suite] = (
    Suite(
        name="math500",
        title="MATH-500",
        hub="HuggingFaceH4/MATH-500",
        size=500,
        columns="problem, answer",
        read=readers.mathematics,
        prompt=BOXED,
        verifier="math",
        max_tokens=LONG,
        metric="accuracy",
        sources=("Lightman et al., arXiv:2305.20050", QWEN, f"{LIGHTEVAL}: math_500.py", f"{SIMPLE}: math_eval.py"),
        differs=(
            Difference(
                QWEN,
                "its set `math`, the whole test set of MATH",
                "500 of them",
                "the set that reasoning models report",
            ),
            *AS_QWEN,
            Difference(
                SIMPLE,
                "10 completions at temperature 0.5; a model decides if answers are equal",
                "greedy; the verifier `math`",
                "needs no model for grading",
            ),
            Difference(
                LIGHTEVAL, "the prompt asks for `ANSWER: ...` on the last line", "for a box", "Qwen2.5-Math's wording"
            ),
            Difference(
                R1,
                "4 to 64 completions at temperature 0.6, top_p 0.95",
                "greedy",
                "500 problems; --samples 4 --temperature 0.6 --top-p 0.95 for R1's sampling",
            ),
        ),
    ),
    Suite(
        name="aime24",
        title="AIME 2024",
        hub="HuggingFaceH4/aime_2024",
        split="train",
        size=30,
        columns="problem, answer",
        read=readers.mathematics,
        prompt=BOXED,
        verifier="math",
        samples=32,
        temperature=0.6,
        top_p=0.95,
        max_tokens=LONG,
        metric="avg@32",
        sources=(f"{R1}: sampling", f"{DAPO}: avg@32", QWEN, f"{LIGHTEVAL}: aime.py", f"{LM_EVAL}: aime24.yaml"),
        differs=(ONE_GREEDY, *AIME_SAMPLING, *AS_QWEN, SENTENCE, ALOUD),
    ),
    Suite(
        name="aime25",
        title="AIME 2025",
        hub="math-ai/aime25",
        size=30,
        columns="problem, answer",
        read=readers.mathematics,
        prompt=BOXED,
        verifier="math",
        samples=32,
        temperature=0.6,
        top_p=0.95,
        max_tokens=LONG,
        metric="avg@32",
        sources=(f"{R1}: sampling", f"{DAPO}: avg@32", f"{LIGHTEVAL}: aime.py", f"{LM_EVAL}: aime25.yaml"),
        differs=(
            *AIME_SAMPLING,
            SENTENCE,
            ALOUD,
            Difference(LIGHTEVAL, "yentinglin/aime_2025", "math-ai/aime25 (as lm-eval)", "the same 30 problems"),
        ),
    ),
    Suite(
        name="amc23",
        title="AMC 2023",
        hub="math-ai/amc23",
        size=40,
        columns="problem or question, answer",
        read=readers.mathematics,
        prompt=BOXED,
        verifier="math",
        samples=32,
        temperature=0.6,
        top_p=0.95,
        max_tokens=LONG,
        metric="avg@32",
        sources=(QWEN, f"{R1}: sampling"),
        differs=(ONE_GREEDY, *AS_QWEN),
    ),
    Suite(
        name="gpqa",
        title="GPQA Diamond",
        hub="Idavidrein/gpqa",
        configs=("gpqa_diamond",),
        split="train",
        size=198,
        columns="Question, Correct Answer, Incorrect Answer 1 to 3",
        read=readers.gpqa,
        prompt=LETTER,
        verifier="choice",
        samples=4,
        temperature=0.5,
        max_tokens=LONG,
        metric="accuracy",
        sources=("Rein et al., arXiv:2311.12022", f"{SIMPLE}: gpqa_eval.py", f"{LIGHTEVAL}: gpqa.py"),
        differs=(
            Difference(
                SIMPLE,
                "the choices are shuffled again for each of 4 repeats",
                "shuffled once per problem, by seed",
                "all completions of a problem answer the same question",
            ),
            LETTERS,
            Difference(
                SIMPLE,
                "10 repeats from its command line, 4 in its class",
                "4 completions",
                "cheaper; --samples 10 for its number",
            ),
            Difference(
                SIMPLE,
                "at most 2,048 tokens for the models it lists, 1,024 for others",
                f"at most {LONG:,} (as lighteval)",
                "reasoning models",
            ),
            Difference(
                R1, "4 to 64 completions at temperature 0.6, top_p 0.95", "as simple-evals", "the prompt is from there"
            ),
            Difference(LM_EVAL, "greedy, one completion, `(A)`", "4, `Answer: A`", "papers quote simple-evals"),
            Difference(
                LIGHTEVAL,
                "one completion; the right choice at a random position without a seed",
                "4; the order by seed",
                "as simple-evals; two models see the same order",
            ),
        ),
    ),
    Suite(
        name="minerva",
        title="Minerva Math (OCWCourses)",
        hub="math-ai/minervamath",
        size=272,
        columns="problem or question, answer or a boxed solution",
        read=readers.mathematics,
        prompt=BOXED,
        verifier="math",
        max_tokens=LONG,
        metric="accuracy",
        sources=("Lewkowycz et al., arXiv:2206.14858", QWEN),
        differs=(
            *AS_QWEN,
            Difference("arXiv:2206.14858", "4 shots; SymPy", "no shots; `math`", "as Qwen2.5-Math"),
        ),
    ),
    Suite(
        name="olympiadbench",
        title="OlympiadBench, mathematics in English, text only",
        hub="math-ai/olympiadbench",
        size=674,
        columns="question, final_answer",
        read=readers.olympiad,
        prompt=BOXED,
        verifier="math",
        max_tokens=LONG,
        metric="accuracy",
        sources=("He et al., arXiv:2402.14008", QWEN, f"{LIGHTEVAL}: olympiade_bench"),
        differs=(
            *AS_QWEN,
            Difference(QWEN, "675 rows", "674, the copy on the hub", "the same data for everyone"),
            Difference(
                QWEN,
                "the first item of `final_answer`, which may contain several answers",
                "all items",
                "the question asks for each answer",
            ),
            Difference(
                LIGHTEVAL,
                "Hothan/OlympiadBench, OE_TO_maths_en_COMP, at most 2,048 tokens; the prompt gives the type of the"
                " answer and its unit",
                "one prompt for all",
                "as Qwen2.5-Math",
            ),
        ),
    ),
    Suite(
        name="gsm8k",
        title="GSM8K",
        hub="openai/gsm8k",
        configs=("main",),
        size=1319,
        columns="question, answer with ####",
        read=readers.gsm8k,
        prompt=BOXED,
        verifier="math",
        max_tokens=2048,
        metric="accuracy",
        sources=("Cobbe et al., arXiv:2110.14168", QWEN, f"{LM_EVAL}: gsm8k.yaml"),
        differs=(
            PROMPT,
            GRADER,
            Difference(
                LM_EVAL,
                "5 shots; the number after #### (strict), or the last number (flexible), as text",
                "no shots; `math`",
                "chat models",
            ),
        ),
    ),
    Suite(
        name="mmlu-stem",
        title="MMLU, the 18 STEM subjects",
        hub="cais/mmlu",
        configs=readers.STEM,
        size=3018,
        columns="question, choices, answer, subject",
        read=readers.mmlu_stem,
        prompt=LETTER,
        verifier="choice",
        max_tokens=2048,
        metric="accuracy",
        sources=("Hendrycks et al., arXiv:2009.03300", f"{QWEN}: mmlu_stem", f"{SIMPLE}: mmlu_eval.py"),
        differs=(
            Difference(
                QWEN,
                "5 shots, choices in one line; the last of the letters A to E",
                "no shots, choices in lines; `choice`",
                "chat models; simple-evals' prompt",
            ),
            LETTERS,
            Difference(
                SIMPLE,
                "all 57 subjects, at temperature 0.5",
                "the 18 that it classifies as STEM; greedy",
                "the subset that Minerva and Qwen2.5-Math report",
            ),
        ),
    ),
    Suite(
        name="humaneval+",
        title="HumanEval+",
        hub="evalplus/humanevalplus",
        size=164,
        columns="prompt, canonical_solution, entry_point, base_input and plus_input or test",
        read=readers.humaneval_plus,
        prompt=SCRIPT,
        verifier="code",
        options={"cpu_seconds": 20.0},
        max_tokens=768,
        metric="pass@1",
        sources=("Liu et al., arXiv:2305.01210", EVALPLUS),
        differs=PROGRAMS,
    ),
    Suite(
        name="mbpp+",
        title="MBPP+",
        hub="evalplus/mbppplus",
        size=378,
        columns="task_id, prompt, canonical_solution or code, base_input and plus_input or test",
        read=readers.mbpp_plus,
        prompt=SCRIPT,
        verifier="code",
        options={"cpu_seconds": 20.0},
        max_tokens=768,
        metric="pass@1",
        sources=("Liu et al., arXiv:2305.01210", EVALPLUS),
        differs=(
            *PROGRAMS,
            Difference(
                EVALPLUS,
                "alternative results of four functions are accepted",
                "they fail",
                "docs/code.md, format mbpp_plus",
            ),
        ),
    ),
    Suite(
        name="livecodebench",
        title="LiveCodeBench, code generation, release v1",
        hub="livecodebench/code_generation",
        size=400,
        columns="question_content, starter_code, public_test_cases, private_test_cases, metadata",
        read=readers.livecodebench,
        prompt="{question}\n\n### Answer: (use the provided format with backticks)\n\n",
        verifier="code",
        samples=10,
        temperature=0.2,
        top_p=0.95,
        max_tokens=LONG,
        metric="pass@1",
        sources=("Jain et al., arXiv:2403.07974", LCB, f"{LIGHTEVAL}: lcb"),
        differs=(
            Difference(
                LCB,
                "at most 2,000 tokens, stopping at `###`",
                f"at most {LONG:,} (as lighteval)",
                "reasoning models; they write headings",
            ),
            Difference(
                LCB,
                "a system message gives the model a role; for some models a different one",
                "none",
                "--system gives one",
            ),
            Difference(
                LCB,
                "the latest release, with fewer tests (code_generation_lite) unless --not_fast; windows of dates",
                "release v1 with all its tests; others by --data livecodebench=test6.jsonl",
                "the later data set comes with a loading script, which is never run",
            ),
            Difference(LCB, "6 s per test, wall-clock time", "6 s of CPU time", "verdicts do not depend on load"),
            Difference(
                LIGHTEVAL,
                "another wording of the prompt; lighteval/code_generation_lite, its releases v4 and v5; 16 completions",
                "as LiveCodeBench",
                "papers quote LiveCodeBench's own runner",
            ),
            Difference(
                R1,
                "contests of August 2024 to January 2025, 4 to 64 completions at 0.6",
                "release v1, 10 at 0.2",
                "as LCB",
            ),
        ),
    ),
    Suite(
        name="ifeval",
        title="IFEval",
        hub="google/IFEval",
        split="train",
        size=541,
        columns="prompt, instruction_id_list, kwargs",
        read=readers.ifeval,
        prompt="{question}",
        verifier="instructions",
        max_tokens=1280,
        metric="prompt-level strict accuracy",
        sources=("Zhou et al., arXiv:2311.07911", f"{LM_EVAL}: ifeval.yaml", f"{LIGHTEVAL}: ifeval"),
        differs=(
            Difference(
                LM_EVAL,
                "strict and loose, by prompt and by instruction: four metrics",
                "strict by prompt",
                "the one that is quoted first, by R1 as well",
            ),
            Difference(
                R1,
                f"at most {LONG:,} tokens, sampled at temperature 0.6",
                "1,280, greedy (as both harnesses)",
                f"reasoning models need --max-tokens {LONG}",
            ),
        ),
    ),
    Suite(
        name="bbh",
        title="BIG-Bench Hard",
        hub="lukaemon/bbh",
        configs=tuple(SUBTASKS),
        size=6511,
        columns="task, input, target",
        read=readers.bbh,
        prompt="{question}\nThink step by step, and end with: So the answer is ANSWER.",
        verifier="exact",
        options={"ignore_case": True},
        max_tokens=1024,
        metric="accuracy, mean of 27 subtasks",
        over_parts=True,
        sources=("Suzgun et al., arXiv:2210.09261", f"{LM_EVAL}: bbh/cot_fewshot"),
        differs=(
            Difference("arXiv:2210.09261", "3 worked examples in the prompt", "none", "chat models; a shorter prompt"),
            Difference(
                "arXiv:2210.09261",
                "the text after `So the answer is` equals the target",
                "`choice` if choices are listed, otherwise `exact` ignoring case",
                "`A` and `(A)` are the same choice",
            ),
            Difference(
                LM_EVAL,
                "SaylorTwift/bbh; 3 shots; the text after `the answer is`; mean over problems",
                "lukaemon/bbh; none; mean of the subtasks' means",
                "as in the paper",
            ),
            Difference(
                LIGHTEVAL,
                "lighteval/bbh: the most likely of the listed choices",
                "a sampled completion",
                "the paper reports completions",
            ),
        ),
    ),
)
"""All suites in the order in which they are listed."""


def suite_named(name: str) -> Suite:
    """Return the suite with a name.

    Raises:
        TaskError: there is none; the message suggests the closest name.
    """
    found = next((one for one in SUITES if one.name == name), None)
    if found is None:
        names = [one.name for one in SUITES]
        raise TaskError(f"no suite named {name!r}.{did_you_mean(name, names)} There are: {', '.join(names)}.")
    return found


def graded_by(suite: Suite) -> str:
    """Describe the verifier of a suite and its options."""
    options = ", ".join(f"{key}: {value}" for key, value in suite.options.items())
    return f"{suite.verifier} ({options})" if options else suite.verifier


def sampled(suite: Suite) -> str:
    """Describe how the completions of a suite are sampled."""
    how = "greedy" if suite.temperature == 0 else f"temperature {suite.temperature:g}, top_p {suite.top_p:g}"
    return f"{suite.samples} x, {how}, {suite.max_tokens:,} tokens"


def table() -> str:
    """Return the table of suites for docs/suites.md."""
    lines = [
        "| suite | data on the hub | problems | prompt | graded by | sampled | figure | sources |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in SUITES:
        config = (
            f", {len(one.configs)} configurations" if len(one.configs) > 1 else "".join(map(" {}".format, one.configs))
        )
        prompt = one.prompt.replace("\n", "\\n")
        lines.append(
            f"| {one.name} | {one.hub}{config}, {one.split} | {one.size:,} | `{prompt}` | {graded_by(one)} |"
            f" {sampled(one)} | {one.metric} | {'; '.join(one.sources)} |"
        )
    return "\n".join(lines) + "\n"


def difference_table() -> str:
    """Return the table of differences from the sources for docs/suites.md."""
    lines = ["| suite | source | there | here | why |", "|---|---|---|---|---|"]
    for one in SUITES:
        lines += [f"| {one.name} | {d.source} | {d.there} | {d.here} | {d.why} |" for d in one.differs]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table())
    print(difference_table())
