"""Two examples for each command, shown at the end of its help."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from verifiers.terminal.program import program

EXAMPLES: Mapping[str, Sequence[str]] = {
    "train": ("reasoner train quickstart output=runs/first", "reasoner train mine.yaml optim.lr=2e-6 --dry-run"),
    "eval": ("reasoner eval runs/first --samples 8", "reasoner eval org/Model --task gsm8k --problems 200"),
    "chat": ("reasoner chat runs/first", "reasoner chat runs/first --prompt 123+456 --temperature 0"),
    "serve": ("reasoner serve runs/first", "reasoner serve runs/first --port 9000 -- --max-model-len 512"),
    "preflight": ("reasoner preflight mine.yaml", "reasoner preflight mine.yaml --problems 64 --json"),
    "doctor": ("reasoner doctor", "reasoner doctor mine.yaml"),
    "verify": (
        "reasoner verify --verifier math --gold 1/2 --completion 'so \\boxed{0.5}'",
        "reasoner verify answers.jsonl --verifier math --output verdicts.jsonl",
    ),
    "label": ("reasoner label pairs.jsonl", "reasoner label blind.jsonl --blind runs/one runs/other"),
    "export": ("reasoner export runs/first plain-model", "reasoner export runs/first best-model --best"),
    "view": ("reasoner view runs", "reasoner view runs/first --port 8801 --no-browser"),
    "report": ("reasoner report runs/first", "reasoner report runs/one runs/other --rollouts 2000 --output page.html"),
    "explain": ("reasoner explain runs/first", "reasoner explain runs/first --json"),
    "rescore": ("reasoner rescore runs/first --verifier math", "reasoner rescore runs/first --steps 10-20"),
    "compare": ("reasoner compare runs/one runs/other", "reasoner compare runs/one runs/other --on train"),
    "data": ("reasoner data check rows.jsonl", "reasoner data check mine.yaml --json"),
    "data check": (
        "reasoner data check rows.jsonl",
        "reasoner data check org/set verifier=math reference_column=answer --tokenizer org/Model",
    ),
    "cluster": ("reasoner cluster status runs/first", "reasoner cluster status runs/first --json"),
    "cluster status": ("reasoner cluster status runs/first", "reasoner cluster status runs/first --json"),
    "env": ("reasoner env", "reasoner --version"),
    "": ("reasoner train quickstart output=runs/first", "reasoner COMMAND --help"),
    "verifiers": ("reasoner verifiers list", "reasoner verifiers check math"),
    "verifiers list": ("reasoner verifiers list", "reasoner verifiers list --json"),
    "verifiers new": ("reasoner verifiers new rhyme", "reasoner verifiers new rhyme --folder ~/rhyme"),
    "verifiers check": (
        "reasoner verifiers check palindrome.py",
        "reasoner verifiers check numeric --cases labelled.jsonl",
    ),
    "verifiers serve": (
        "reasoner verifiers serve --port 8800",
        "reasoner verifiers serve -v math -v palindrome.py --host 0.0.0.0 --token-file token",
    ),
    "verifiers audit": (
        "reasoner verifiers audit math labelled.jsonl --against math-verify",
        "reasoner verifiers audit math labelled.jsonl -c expected=is_correct --min-accuracy 0.95",
    ),
    "verifiers probe": (
        "reasoner verifiers probe reward-model pairs.jsonl -o model=runs/rm/final",
        "reasoner verifiers probe judge runs/first -o url=http://localhost:8000/v1 -o model=org/Judge --limit 32",
    ),
    "environments": (
        "reasoner environments new hangman",
        "reasoner environments check guess",
    ),
    "environments list": ("reasoner environments list", "reasoner environments list --json"),
    "environments new": (
        "reasoner environments new hangman",
        "reasoner environments new hangman --file games/hangman.py",
    ),
    "environments check": (
        "reasoner environments check python -o state=none",
        "reasoner environments check hangman.py",
    ),
    "environments play": (
        "reasoner environments play guess --reference 40",
        "reasoner environments play hangman.py --reference 21",
    ),
    "suites": ("reasoner suites", "reasoner suites gpqa"),
    "tasks": ("reasoner tasks list", "reasoner tasks show arithmetic"),
    "tasks list": ("reasoner tasks list", "reasoner tasks list | less"),
    "tasks show": (
        "reasoner tasks show arithmetic -n 5 -o digits=2",
        "reasoner tasks show dataset -o path=rows.jsonl -o verifier=math",
    ),
    "tasks validate": (
        "reasoner tasks validate arithmetic --split test",
        "reasoner tasks validate dataset -o path=rows.jsonl -o verifier=math",
    ),
    "sandbox": ("reasoner sandbox doctor", "echo 1 | reasoner sandbox run program.py"),
    "sandbox doctor": ("reasoner sandbox doctor", "reasoner sandbox doctor --quick"),
    "sandbox build": ("reasoner sandbox build", "reasoner sandbox build --base python:3.12-slim --packages numpy"),
    "sandbox run": ("echo 1 | reasoner sandbox run program.py", "reasoner sandbox run program.py --wall 5"),
    "sandbox check": ("reasoner sandbox check", "reasoner sandbox check --backend bubblewrap"),
    "sandbox bench": ("reasoner sandbox bench", "reasoner sandbox bench --seconds 10"),
}
"""Command words to the examples at the end of its help."""


def epilog(command: str) -> str:
    """Return the end of a command's help; its examples name the program as the user started it."""
    started = shlex.join(program())
    shown = (example.replace("reasoner", started, 1) for example in EXAMPLES[command])
    return "Examples:\n\n\b\n" + "\n".join(shown)  # \b: click does not rewrap these lines
