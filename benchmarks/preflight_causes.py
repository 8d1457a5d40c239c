"""Set-ups whose fault is known, and healthy ones: what `reasoner preflight` says of each, in its order.

Small models are trained from scratch on demonstrations (once, in OUTPUT/models); then every set-up is one
`reasoner preflight --json` with the hf engine. Prints one JSON object. The exit status is 1 if a cause is not the first
thing that is said, if a healthy set-up is told to change, or if something is said that must not be.

    python benchmarks/preflight_causes.py --output /tmp/causes             # about 10 minutes on two cores
    python benchmarks/preflight_causes.py --output /tmp/causes --only chat
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reasoner.config.mappings import deep_merge

Rows = Sequence[Mapping[str, object]]
SUMS = [{"name": "arithmetic", "options": {"digits": digits}} for digits in (1, 2)]
MODELS: Mapping[str, Mapping[str, object]] = {
    "plain": {"prompt": {"chat": "never"}, "sft": {"until_accuracy": 0.7}},
    "chat": {"prompt": {"chat": "always"}, "sft": {"until_accuracy": 0.7}},
    "weak": {"prompt": {"chat": "never"}, "sft": {"until_accuracy": 0.05}, "task": SUMS[1]},
}
"""Prompts of the demonstrations, and the share of right answers at which training ends."""
NO_ROLES = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
LLAMA_2 = "{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"


@dataclass(frozen=True)
class SetUp:
    """One preflight: a model, rows, overrides, and what must be said."""

    name: str
    rows: Callable[[], Rows]
    first: str | None
    """Pattern of the first advice; None: there must be none."""
    never: str = r"(?!)"
    """Pattern that no advice may contain."""
    later: Sequence[str] = ()
    """Patterns of which each must occur in some advice."""
    model: str = "plain"
    change: Mapping[str, object] = field(default_factory=dict)
    tested: Callable[[], Rows] | None = None
    template: str | None = None


def sum_row(a: int, b: int, **more: object) -> dict[str, object]:
    digits, carry, steps = max(len(str(a)), len(str(b))), 0, list[str]()
    for place in range(digits):
        x, y = a // 10**place % 10, b // 10**place % 10
        steps.append(f"{x}+{y}+{carry}={x + y + carry:02}\n")
        carry = (x + y + carry) // 10
    return {
        "prompt": f"{a}+{b}=?\n",
        "reference": str(a + b),
        "demonstration": "".join(steps) + f"#### {a + b}",
        **more,
    }


def sums(count: int, *, digits: int = 2, seed: int = 0, **more: object) -> list[dict[str, object]]:
    low, high = 10 ** (digits - 1) if digits > 1 else 0, 10**digits
    pairs = [(a, b) for a in range(low, high) for b in range(low, high)]
    return [sum_row(a, b, **more) for a, b in random.Random(seed).sample(pairs, count)]


def products(count: int, **more: object) -> list[dict[str, object]]:
    source = random.Random(1)
    found: list[dict[str, object]] = []
    for _ in range(count):
        a, b = source.randrange(10**5, 10**6), source.randrange(10**5, 10**6)
        found.append({"prompt": f"{a}*{b}=?\n", "reference": str(a * b), "demonstration": f"#### {a * b}", **more})
    return found


def contradicting() -> Rows:
    """120 sums, each twice, and 40 of them a third time with another reference."""
    own = sums(120)
    wrong = [{**row, "reference": f"{int(str(row['reference'])) + 7}", "demonstration": None} for row in own[:40]]
    return [*own, *own, *wrong]


def boxed() -> Rows:
    """The model's own steps, and the answer in a box."""
    found: list[dict[str, object]] = []
    for row in sums(400):
        steps = str(row["demonstration"]).partition("####")[0]
        found.append({**row, "demonstration": f"{steps}\\boxed{{{row['reference']}}}"})
    return found


def other_form() -> Rows:
    def written(row: Mapping[str, object]) -> str:
        return f"<think>First I add the ones.</think>\nThe answer is $\\boxed{{{row['reference']}}}$."

    return [{**row, "demonstration": written(row)} for row in sums(400)]


SFT = r"sft stage"
SETUPS = [
    SetUp(
        "1 nine of ten unsolvable, no field", lambda: products(360) + sums(40, digits=1),
        r"two kinds of problems", later=(r"prompt",),
    ),
    SetUp(
        "2 copies, contradicting references, known test rows", contradicting,
        r"43 % of the 280 training rows",
        later=(r"23 of the 28", "only 120 different"), never="two kinds|group_size",
        tested=lambda: sums(120)[:23] + sums(5, seed=5),
    ),
    SetUp(
        "3 chat model, plain prompts", lambda: sums(400), r"prompt\.chat=always", model="chat",
        change={"prompt": {"chat": "never"}}, never=SFT + "|--write-problems|group_size",
    ),
    SetUp(
        "4 chat model, another template", lambda: sums(400), r"template", model="chat", template=LLAMA_2,
        never=SFT + " or a stronger|--write-problems|group_size",
    ),
    SetUp("5 healthy, plain", lambda: sums(400), None),
    SetUp("6 healthy, chat", lambda: sums(400), None, model="chat", change={"prompt": {"chat": "auto"}}),
    SetUp(
        "7 two levels", lambda: sums(200, level=1, source="a") + products(200, level=5, source="a"),
        r"two kinds of problems.*level", later=(r"--write-problems",),
        change={"task": {"options": {"info_columns": ["source", "level"]}}},
    ),
    SetUp(
        "8 temperature 2", lambda: sums(400), r"temperature", change={"rollout": {"temperature": 2.0}},
        never=SFT + "|--write-problems|group_size",
    ),
    SetUp(
        "9 answers not read", lambda: sums(400), r"finds no answer", never=SFT + "|--write-problems|group_size",
        change={"task": {"options": {"verifier_options": {"forms": ["boxed"]}}}},
    ),
    SetUp(
        "10 solutions of another form", other_form, None, model="chat", change={"prompt": {"chat": "auto"}},
        never="template",
    ),
    SetUp(
        "14 answers in another form than the solutions'", boxed, r"finds no answer", later=(r"another form.*boxed",),
        model="chat", never="template or|another template|" + SFT + " or a|group_size",
        change={"prompt": {"chat": "auto"}, "task": {"options": {"verifier_options": {"forms": ["boxed"]}}}},
    ),
    SetUp(
        "13 temperature 1.5", lambda: sums(400), r"temperature", change={"rollout": {"temperature": 1.5}},
        never=SFT + "|--write-problems|group_size",
    ),
    SetUp(
        "12 chat model, template without roles", lambda: sums(400), r"template", model="chat", template=NO_ROLES,
        never=SFT + " or a stronger|--write-problems|group_size",
    ),
    SetUp("11 weak model", lambda: sums(400), r"group_size=16|sft stage", model="weak", never="template|two kinds"),
]  # fmt: skip

COMMON: Mapping[str, object] = {
    "seed": 1,
    "method": "grpo",
    "steps": 40,
    "prompt": {"chat": "never"},
    "rollout": {"problems_per_step": 16, "group_size": 8, "max_tokens": 48},
    "optim": {"lr": 1e-4},
    "engine": {"name": "hf"},
    "logging": {"tensorboard": False},
    "eval": {"problems": 32},
}
TRAINED: Mapping[str, object] = {
    "method": "sft",
    "steps": 3000,
    "task": SUMS,
    "optim": {"lr": 1e-3, "warmup_steps": 20},
    "eval": {"problems": 0},
    "checkpoint": {"every": 5000},
    "model": {"from_scratch": {"hidden_size": 128, "layers": 2, "heads": 4, "max_positions": 256}},
    "sft": {"demonstrations": 2000, "rows_per_step": 64, "check_every": 40, "check_problems": 128},
}


def reasoner(*arguments: str) -> str:
    command = [sys.executable, "-c", "from reasoner.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr[-2000:])
    return done.stdout


def merged(*parts: Mapping[str, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for part in parts:
        found = deep_merge(found, part)
    return found


def model_folder(name: str, root: Path) -> Path:
    """Return the folder of a model, trained on first use."""
    folder = root / "models" / name
    if not (folder / "final").is_dir():
        raw = merged(COMMON, TRAINED, MODELS[name], {"output": str(folder)})
        config = root / f"{name}.yaml"
        config.write_text(json.dumps(raw))
        reasoner("train", str(config))
    return folder / "final"


def as_found(model: Path, template: str | None, folder: Path) -> Path:
    """Copy a model without the record of its training prompts, as of a foreign model; with another chat template."""
    shutil.copytree(model, folder, dirs_exist_ok=True)
    (folder / "prompt.json").unlink(missing_ok=True)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def write_rows(path: Path, rows: Rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def measured(one: SetUp, root: Path) -> dict[str, Any]:
    """Run a set-up's preflight and judge what it says."""
    folder = root / one.name.split()[0]
    folder.mkdir(parents=True, exist_ok=True)
    model = as_found(model_folder(one.model, root), one.template, folder / "model")
    options = {"path": write_rows(folder / "rows.jsonl", one.rows()), "verifier": "exact"}
    options |= {"demonstration_column": "demonstration"} if all(row["demonstration"] for row in one.rows()) else {}
    if one.tested:
        options["test_path"] = write_rows(folder / "test.jsonl", one.tested())
    own: dict[str, object] = {
        "model": {"path": str(model)},
        "task": {"name": "dataset", "options": options},
        "prompt": {"chat": "always" if one.template else "never"},
        "output": str(folder / "run"),
    }
    config = folder / "config.yaml"
    config.write_text(json.dumps(merged(COMMON, own, one.change)))
    started = time.monotonic()
    said = json.loads(reasoner("preflight", str(config), "--json").strip().splitlines()[-1])
    seconds = time.monotonic() - started
    advice: list[str] = said["advice"]
    good = not advice if one.first is None else bool(advice and re.search(one.first, advice[0]))
    good &= not any(re.search(one.never, sentence) for sentence in advice)
    good &= all(any(re.search(pattern, sentence) for sentence in advice) for pattern in one.later)
    return {
        "set-up": one.name,
        "good": good,
        "advice": advice,
        "seconds": round(seconds, 1),
        **{key: said[key] for key in ("shares", "signal", "bins", "template")},
        **{key: said[key] for key in ("kinds", "all_rows", "kept", "surprise") if key in said},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", default=[""], nargs="+", help="set-ups whose name contains one of these")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for one in SETUPS:
        if any(part in one.name for part in options.only):
            results.append(measured(one, options.output))
            print(json.dumps(results[-1]), file=sys.stderr)
    good = sum(bool(row["good"]) for row in results)
    print(json.dumps({"set-ups": len(results), "good": good, "runs": results}))
    return 0 if good == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
