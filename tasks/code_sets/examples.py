"""Invented example rows, one in the layout of each code set."""

from __future__ import annotations

import json
from collections.abc import Mapping

PROMPT = 'def add(a: int, b: int) -> int:\n    """The sum of two integers."""\n'
BODY = "    return a + b\n"
CHECK = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n"
FUNCTION = PROMPT + BODY
DOUBLED = {"inputs": ["1\n", "21\n"], "outputs": ["2\n", "42\n"]}
ASKED = "Read n and print 2n."

EXAMPLES: Mapping[str, Mapping[str, object]] = {
    "livecodebench": {
        "question_title": "Double",
        "question_content": ASKED,
        "platform": "atcoder",
        "question_id": "1",
        "starter_code": "",
        "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
        "private_test_cases": json.dumps([{"input": "21\n", "output": "42\n", "testtype": "stdin"}]),
        "metadata": "{}",
    },
    "apps": {
        "problem_id": 1,
        "question": ASKED,
        "solutions": json.dumps(["print(2 * int(input()))"]),
        "input_output": json.dumps(DOUBLED),
        "difficulty": "interview",
        "starter_code": "",
    },
    "taco": {
        "question": ASKED,
        "solutions": json.dumps(["print(2 * int(input()))"]),
        "input_output": json.dumps(DOUBLED),
        "difficulty": "EASY",
        "starter_code": "",
        "tags": "['Implementation']",
    },
    "eurus": {
        "data_source": "taco",
        "prompt": [{"role": "user", "content": ASKED}],
        "ability": "code",
        "reward_model": {"ground_truth": json.dumps(DOUBLED), "style": "rule"},
    },
    "code_contests": {
        "name": "1_A. Double",
        "description": ASKED,
        "public_tests": {"input": ["1\n"], "output": ["2\n"]},
        "private_tests": {"input": ["21\n"], "output": ["42\n"]},
        "generated_tests": {"input": [], "output": []},
        "solutions": {"language": [2, 3], "solution": ["int main() {}", "print(2 * int(input()))"]},
    },
    "codeforces": {
        "id": "1/A",
        "title": "Double",
        "description": ASKED,
        "input_format": "n",
        "output_format": "2n",
        "time_limit": 2.0,
        "official_tests": [{"input": "1\r\n", "output": "2\r\n"}, {"input": "21\r\n", "output": "42\r\n"}],
        "input_mode": "stdio",
        "generated_checker": None,
        "interaction_format": None,
    },
    "synthetic1": {
        "prompt": ASKED,
        "gold_standard_solution": "print(2 * int(input()))",
        "verification_info": json.dumps(
            {"language": "python", "test_cases": [{"type": "stdin_stdout", "input": "21\n", "output": "42\n"}]}
        ),
    },
    "leetcode": {
        "task_id": "add",
        "prompt": "from typing import *\n",
        "query": "Write a method add of class Solution that adds two integers.",
        "completion": "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b\n",
        "entry_point": "Solution().add",
        "test": CHECK.replace("(1, 2)", "(a = 1, b = 2)").replace("(-1, 1)", "(a = -1, b = 1)"),
    },
    "humaneval_plus": {
        "task_id": "HumanEval/1",
        "prompt": PROMPT,
        "entry_point": "add",
        "canonical_solution": BODY,
        "base_input": [[1, 2]],
        "plus_input": [[-1, 1]],
        "atol": 0,
    },
    "mbpp_plus": {
        "task_id": "Mbpp/1",
        "prompt": "Add two integers.",
        "entry_point": "add",
        "canonical_solution": FUNCTION,
        "base_input": [[1, 2]],
        "plus_input": [[-1, 1]],
        "assertion": "assert add(1, 2) == 3",
        "atol": 0,
    },
    "humaneval": {
        "task_id": "HumanEval/1",
        "prompt": PROMPT,
        "canonical_solution": BODY,
        "test": CHECK,
        "entry_point": "add",
    },
    "mbpp": {
        "task_id": 11,
        "text": "Add two integers.",
        "code": FUNCTION,
        "test_list": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"],
        "test_setup_code": "",
        "challenge_test_list": [],
    },
    "acecoder": {
        "id": "1",
        "source": "oss",
        "question": "Write add(a, b), which adds two integers.",
        "test_cases": ["assert add(1, 2) == 3", "assert add(-1, 1) == 0"],
    },
    "kodcode": {
        "question_id": "1",
        "question": "Write add(a, b), which adds two integers.",
        "solution": FUNCTION,
        "test": "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n    assert add(-1, 1) == 0\n",
        "test_info": [{"function_name": "add"}],
    },
    "cruxeval": {"id": "sample_0", "code": "def f(x):\n    return x + [1]", "input": "[3]", "output": "[3, 1]"},
    "cruxeval_input": {"id": "sample_0", "code": "def f(x):\n    return x + [1]", "input": "[3]", "output": "[3, 1]"},
}
