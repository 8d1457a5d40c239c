"""Peak memory and CPU seconds of `data check` and of a run of one step, with little and with much data. Prints JSON.

    python benchmarks/large_data.py --megabytes 2048 [--only grpo --only sft] [--shape jsonl] [--folder /tmp]

The data is generated: rows of about 4,000 characters, as one file of JSON lines and as a folder of parquet shards, once
of 1 MB and once of the requested size. Each value is measured by the kernel for a fresh process and its children: the
peak resident memory of the largest process, and the CPU seconds of all. The cost of the data is the difference between
the two sizes. The model is a tiny one with random weights, whose tokens are words; nothing is evaluated. The rows that
a run stores in its temporary file are in the same folder as the data.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
SHARDS = 16
CHARACTERS = 3900
"""Characters of a prompt; the rows are excerpts of one text of 28 million characters."""
LETTERS = "etaoinshrdlu"
TINY = (
    *("prompt.chat=never", "engine.name=hf", "steps=1", "eval.problems=0"),
    *("rollout.problems_per_step=2", "rollout.group_size=2", "rollout.max_tokens=4", "sft.rows_per_step=2"),
    *("preferences.held_out_share=0", "dpo.pairs_per_step=2", "reward_model.pairs_per_step=2", "grading.workers=1"),
)
RUNS = {
    "grpo": ("{name: dataset, options: {path: DATA, verifier: exact, held_out_share: 0}}", ()),
    "grpo by difficulty": (
        "{name: dataset, options: {path: DATA, verifier: exact, held_out_share: 0}}",
        ("rollout.sampling=difficulty",),
    ),
    "sft": ("", ("sft.data=DATA",)),
    "reward_model": ("", ("preferences.train=DATA",)),
}


class Cost(NamedTuple):
    """Cost of a process and of those that it started."""

    peak_mb: int
    """Peak resident memory of the largest process."""
    cpu_seconds: float


def vocabulary() -> list[str]:
    """Return made-up words."""
    source = random.Random(0)
    return ["".join(source.choices(LETTERS, k=source.randint(2, 9))) for _ in range(20_000)]


def write_model(folder: Path) -> None:
    """Write a tiny model with random weights and a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    names = dict.fromkeys(["<unk>", "<eos>", *vocabulary()])
    tokenizer = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    ).save_pretrained(folder)
    shape = LlamaConfig(
        vocab_size=len(names),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        eos_token_id=1,
        bos_token_id=None,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)


def rows(megabytes: float) -> Iterator[dict[str, str]]:
    """Yield rows that serve as problems, demonstrations and preferences; no two prompts are equal."""
    source, written = random.Random(0), 0
    text = " ".join(source.choices(vocabulary(), k=4_000_000))
    for number in itertools.count():
        begin = source.randrange(len(text) - CHARACTERS)
        answer = str(source.randint(0, 9999))
        row = {
            "prompt": f"Problem {number}. {text[begin : begin + CHARACTERS]} How many are there?",
            "reference": answer,
            "completion": f"There are {answer}.",
            "chosen": f"There are {answer}.",
            "rejected": "I do not know.",
        }
        yield row
        written += CHARACTERS + 240
        if written >= megabytes * (1 << 20):
            return


def apart(work: Callable[..., None], *given: object) -> None:
    """Run a function in a separate process, because the kernel counts this process's memory in its children's peak.

    Raises:
        SystemExit: it fails.
    """
    process = multiprocessing.get_context("spawn").Process(target=work, args=given)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def write(path: Path, megabytes: float, shape: str) -> None:
    """Write the rows as a file of JSON lines or as a folder of parquet shards."""
    if shape == "jsonl":
        with path.open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows(megabytes))
        return
    import pyarrow
    import pyarrow.parquet as parquet

    path.mkdir()
    schema = pyarrow.schema([(name, pyarrow.string()) for name in next(rows(0))])
    every, each = rows(megabytes), max(1, int(megabytes * (1 << 20) / 4000 / SHARDS) + 1)
    for shard in range(SHARDS):
        with parquet.ParquetWriter(
            path / f"train-{shard:05}-of-{SHARDS:05}.parquet",
            schema,
            compression="none",
            use_dictionary=False,
        ) as to:
            for _ in range(0, each, 1000):
                to.write_table(pyarrow.Table.from_pylist([*itertools.islice(every, 1000)], schema))


def cost(words: list[str], folder: Path) -> Cost:
    """Run a command of the trainer; return its cost.

    Raises:
        SystemExit: it fails.
    """
    program = "from reasoner.__main__ import main; main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    log = folder / "log.txt"
    with log.open("wb") as to:
        started = subprocess.Popen([sys.executable, "-c", program, *words], env=environment, stdout=to, stderr=to)
        _, status, used = os.wait4(started.pid, 0)
    if status:
        sys.exit(f"{words} ended with {status}:\n{log.read_text()[-3000:]}")
    return Cost(used.ru_maxrss >> 10, round(used.ru_utime + used.ru_stime, 1))


def measured(name: str, data: Path, folder: Path) -> dict[str, Any]:
    """Return the cost of a command on a path."""
    if name == "check":
        return cost(["data", "check", str(data), "verifier=exact"], folder)._asdict()
    task, settings = RUNS[name]
    config = folder / "config.yaml"
    lines = [f"method: {name.split()[0]}", f"output: {folder / 'run'}", f"model: {folder / 'model'}"] + (
        [f"task: {task}"] if task else []
    )
    config.write_text("\n".join(lines).replace("DATA", str(data)) + "\n")
    overrides = [one.replace("DATA", str(data)) for one in (*TINY, *settings)]
    found = cost(["train", str(config), *overrides], folder)
    shutil.rmtree(folder / "run")
    return found._asdict()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=2048)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--shape", action="append", choices=("jsonl", "parquet"))
    parser.add_argument("--only", action="append", choices=("check", *RUNS))
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for shape in asked.shape or ("jsonl", "parquet"):
        for megabytes in (1.0, asked.megabytes):
            with tempfile.TemporaryDirectory(dir=asked.folder) as name:
                apart(write_model, Path(name) / "model")
                data = Path(name) / ("rows.jsonl" if shape == "jsonl" else "shards")
                apart(write, data, megabytes, shape)
                size = sum(one.stat().st_size for one in ([data] if data.is_file() else data.iterdir()))
                figures = found.setdefault(f"{shape}, {size >> 20} MB", {})
                for one in asked.only or ("check", *RUNS):
                    figures[one] = measured(one, data, Path(name))
                    print(shape, size >> 20, one, figures[one], file=sys.stderr)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
