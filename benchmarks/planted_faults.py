"""Faults planted in real small runs, and healthy runs: test of what `explain` names first.

Every run starts from a small model that was warm-started on demonstrations, and uses the same loop, engine and
verifiers as any other run. Prints one JSON object. The exit status is 1 if fewer than 90 % of the faults are named
first, or if a healthy run raises an alarm.

    python benchmarks/planted_faults.py --output /tmp/planted             # about 20 minutes on two cores
    python benchmarks/planted_faults.py --output /tmp/planted --only top-p --engine vllm
    python benchmarks/planted_faults.py --output /tmp/planted --judge     # explain the stored runs again
"""

from __future__ import annotations

from reasoner.engine.environment import prepare_process

prepare_process()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import dataclasses  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator, Mapping  # noqa: E402
from dataclasses import dataclass, field, replace  # noqa: E402
from pathlib import Path  # noqa: E402

from reasoner.config.load import resolve  # noqa: E402
from reasoner.config.mappings import deep_merge  # noqa: E402
from reasoner.observe.analysis.audit import explain_and_audit  # noqa: E402
from reasoner.observe.explain import Level  # noqa: E402

PARTS = str(Path(__file__).resolve().parent / "planted" / "parts.py")
Patch = Callable[[], contextlib.AbstractContextManager[None]]


# ------------------------------------------------------------------------------------------------------- patches


@contextlib.contextmanager
def patched(owner: object, name: str, value: object) -> Iterator[None]:
    """Replace an attribute temporarily."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def engine_class(engine: str) -> type:
    if engine == "hf":
        from reasoner.engine.hf import HfEngine

        return HfEngine
    from reasoner.engine.vllm import VllmEngine

    return VllmEngine


def sampling(engine: str, **changes: float) -> Patch:
    """Let the engine sample with other parameters than requested."""

    @contextlib.contextmanager
    def patch() -> Iterator[None]:
        cls = engine_class(engine)
        original = cls.generate  # pyright: ignore[reportAttributeAccessIssue]

        def generate(self, requests, params):
            other = {k: params.temperature * v if k == "temperature" else v for k, v in changes.items()}
            return original(self, requests, replace(params, **other))

        with patched(cls, "generate", generate):
            yield

    return patch


def reported_before(engine: str, *, temperature: float = 1.0, top_p: float = 1.0) -> Patch:
    """Let the engine sample with other parameters, and report log-probabilities from before they were applied."""

    @contextlib.contextmanager
    def patch() -> Iterator[None]:
        cls = engine_class(engine)
        original = cls.generate  # pyright: ignore[reportAttributeAccessIssue]

        def generate(self, requests, params):
            for done in original(self, requests, replace(params, temperature=temperature, top_p=top_p)):
                ids = [*requests[done.index].prompt_ids, *done.completion.token_ids]
                reported = self.score(ids)[-len(done.completion.token_ids) :]
                yield done._replace(completion=replace(done.completion, rollout_logprobs=tuple(reported)))

        with patched(cls, "generate", generate):
            yield

    return patch


def one_seed(engine: str) -> Patch:
    """Draw every sample of a problem with the same seed."""

    @contextlib.contextmanager
    def patch() -> Iterator[None]:
        cls = engine_class(engine)
        original = cls.generate  # pyright: ignore[reportAttributeAccessIssue]

        def generate(self, requests, params):
            return original(self, [replace(request, seed=0) for request in requests], params)

        with patched(cls, "generate", generate):
            yield

    return patch


@contextlib.contextmanager
def endless() -> Iterator[None]:
    """Let the hf engine ignore the end token."""
    from reasoner.engine.hf import HfEngine

    original = HfEngine.generate

    def generate(self, requests, params):
        return original(self, requests, dataclasses.replace(params, end_ids=()))

    with patched(HfEngine, "generate", generate):
        yield


@contextlib.contextmanager
def never_zeroed() -> Iterator[None]:
    """Gradients of all updates add up."""
    import torch

    with patched(torch.optim.Optimizer, "zero_grad", lambda self, set_to_none=True: None):
        yield


@contextlib.contextmanager
def turn_not_opened() -> Iterator[None]:
    """End chat prompts before the assistant's turn."""
    from transformers import PreTrainedTokenizerBase

    original = PreTrainedTokenizerBase.apply_chat_template

    def apply(self, *args, **options):
        return original(self, *args, **{**options, "add_generation_prompt": False})

    with patched(PreTrainedTokenizerBase, "apply_chat_template", apply):
        yield


def lagging(engine: str) -> Patch:
    """Let the engine use the weights of the previous sync."""

    @contextlib.contextmanager
    def patch() -> Iterator[None]:
        import reasoner.session.opening as session
        from reasoner.engine.check import checksum

        cls, opened = engine_class(engine), session.open_engine
        original = cls.load_weights  # pyright: ignore[reportAttributeAccessIssue]
        before: list = []

        def load_weights(self, weights, version):
            listed = [(name, tensor.detach().clone()) for name, tensor in weights]
            original(self, before[-1] if before else listed, version)
            before[:] = [listed]
            return checksum(listed)

        def open_engine(name, **options):
            return opened(name, **{**options, "model": None})

        with patched(cls, "load_weights", load_weights), patched(session, "open_engine", open_engine):
            yield

    return patch


def syncs(engine: str, *, every: int | None) -> Patch:
    """Let the engine take new weights only at every `every`-th sync (None: never), but report that it did."""

    @contextlib.contextmanager
    def patch() -> Iterator[None]:
        import reasoner.session.opening as session
        from reasoner.engine.check import checksum

        cls, opened = engine_class(engine), session.open_engine
        original = cls.load_weights  # pyright: ignore[reportAttributeAccessIssue]
        calls = [0]

        def load_weights(self, weights, version):
            listed = list(weights)
            calls[0] += 1
            if calls[0] == 1 or (every is not None and calls[0] % every == 1):
                return original(self, listed, version)
            self.version = version
            return checksum(listed)

        def open_engine(name, **options):
            return opened(name, **{**options, "model": None})  # with its own copy, as other engines have

        with patched(cls, "load_weights", load_weights), patched(session, "open_engine", open_engine):
            yield

    return patch


# ---------------------------------------------------------------------------------------------------------- runs


@dataclass(frozen=True)
class Run:
    """One run: overrides of the common config, a further defect, and the codes that name the cause."""

    name: str
    change: Mapping[str, object] = field(default_factory=dict)
    expected: tuple[str, ...] = ()
    """Codes that name the cause; empty: a healthy run."""
    warm: str = "addition"
    patch: Patch = contextlib.nullcontext


def task(**options: object) -> dict[str, object]:
    return {"name": "arithmetic", "options": {"family": "addition", "digits": 2, **options}}


def part(name: str, **options: object) -> dict[str, object]:
    return {"name": f"{PARTS}:{name}", "options": {"family": "addition", "digits": 2, **options}}


COMMON: dict[str, object] = {
    "seed": 1,
    "method": "grpo",
    "steps": 16,
    "task": task(),
    "prompt": {"chat": "never"},
    "rollout": {"problems_per_step": 12, "group_size": 8, "max_tokens": 48},
    "optim": {"lr": 1e-4, "warmup_steps": 2},
    "batch": {"layout": "packed", "pack_tokens": 256},
    "eval": {"problems": 32},
    "checkpoint": {"every": 100, "keep": 1},
    "logging": {"tensorboard": False},
}

WARM: dict[str, dict[str, object]] = {
    "addition": {"task": task(), "sft": {"until_accuracy": 0.4}},
    "weak": {"task": task(), "sft": {"until_accuracy": 0.08}},
    "expert": {
        "task": task(digits=1),
        "steps": 1000,
        "optim": {"schedule": "linear"},
        "sft": {"until_accuracy": None},
    },
    "chat": {"task": task(), "prompt": {"chat": "always"}, "sft": {"until_accuracy": 0.4}},
    "subtraction": {"task": task(family="subtraction"), "sft": {"until_accuracy": 0.4}},
    "chain": {"task": task(family="chain", digits=1), "sft": {"until_accuracy": 0.4}},
    "multiplication": {"task": task(family="multiplication"), "sft": {"until_accuracy": 0.4, "demonstrations": 500}},
    "countdown": {
        "task": {"name": "countdown", "options": {"numbers": 2, "largest": 12}},
        "sft": {"until_accuracy": 0.3},
    },
    "empty-20": {"task": part("EmptyDemonstrations", share=0.2), "sft": {"until_accuracy": 0.35}},
    "empty-3": {"task": part("EmptyDemonstrations", share=0.03), "sft": {"until_accuracy": 0.4}},
}


def runs(engine: str) -> list[Run]:
    """Return every planted fault at two strengths, and the healthy runs."""
    empty = {"verifier": {"name": f"{PARTS}:AcceptsEmpty"}}
    stale = {"engine": {"sync_check": False}}
    hard = task(digits=6)
    return [
        Run("weights never synced", stale, ("weights-not-synced",), patch=syncs(engine, every=None)),
        Run("weights synced every 6 steps", stale, ("weights-not-synced",), patch=syncs(engine, every=6)),
        Run("top-p 0.8", {}, ("top-p-unaccounted",), patch=sampling(engine, top_p=0.8)),
        Run("top-p 0.95", {}, ("top-p-unaccounted",), patch=sampling(engine, top_p=0.95)),
        Run("temperature 0.6", {}, ("temperature-mismatch",), patch=sampling(engine, temperature=0.6)),
        Run("temperature 0.9", {}, ("temperature-mismatch",), patch=sampling(engine, temperature=0.9)),
        Run("chat template on a plain model", {"prompt": {"chat": "always"}}, ("wrong-chat-template",)),
        Run("another plain template", {"prompt": {"template": "Q: {prompt}A: "}}, ("wrong-chat-template",)),
        Run("gold in every prompt", {"task": part("Leaky")}, ("gold-in-prompt",)),
        Run("gold in a fifth of the prompts", {"task": part("Leaky", share=0.2)}, ("gold-in-prompt",)),
        Run("max tokens 12", {"rollout": {"max_tokens": 12}}, ("truncated", "answers-cut")),
        Run("max tokens 25", {"rollout": {"max_tokens": 25}}, ("truncated", "answers-cut")),
        Run("all wrong", {"task": hard}, ("all-wrong",)),
        Run("nearly all wrong", {"task": [{**hard, "weight": 9.0}, task()]}, ("all-wrong", "task-all-wrong")),
        Run("all right", {"task": task(digits=1)}, ("all-right",), warm="expert"),
        Run("nearly all right", {"task": [{**task(digits=1), "weight": 9.0}, task()]}, ("all-right",), warm="expert"),
        Run("learning rate x100", {"optim": {"lr": 1e-2}}, ("learning-rate-too-high",)),
        Run("learning rate x30", {"optim": {"lr": 3e-3}}, ("learning-rate-too-high",)),
        Run("empty box accepted", {"task": {**task(), **empty}}, HACKED, warm="empty-20"),
        Run("empty box accepted, seldom tried", {"task": {**task(), **empty}}, HACKED, warm="empty-3"),
        Run("verifier raises on 10 %", {"task": {**task(), "verifier": {"name": f"{PARTS}:Raises"}}}, ("ungraded",)),
        Run("verifier rejects 10 %", {"task": {**task(), "verifier": {"name": f"{PARTS}:Rejects"}}}, REJECTS),
        Run("advantage flipped", {"algorithm": {"advantage": f"{PARTS}:flipped"}}, FLIPPED),
        Run("loss flipped", {"algorithm": {"loss": f"{PARTS}:ascending_loss"}}, FLIPPED),
        *further(engine),
        Run("healthy: addition"),
        Run("healthy: subtraction", {"task": task(family="subtraction")}, warm="subtraction"),
        Run(
            "healthy: chain, RLOO",
            {"task": task(family="chain", digits=1), "algorithm": {"advantage": "rloo"}},
            warm="chain",
        ),
        Run(
            "healthy: multiplication, Dr. GRPO",
            {"task": task(family="multiplication"), **DR_GRPO},
            warm="multiplication",
        ),
        Run("healthy: countdown", {"task": WARM["countdown"]["task"]}, warm="countdown"),
        Run("healthy: LoRA", {"model": {"lora": {"rank": 8}}, "optim": {"lr": 1e-3}}),
        Run("healthy: sparse reward", {"steps": 24}, warm="weak"),
        Run("healthy: four updates a batch, KL", {"optim": {"updates_per_step": 4}, "algorithm": {"kl_coef": 1e-3}}),
        Run("healthy: temperature 0.8, GSPO", {"rollout": {"temperature": 0.8}, "algorithm": {"loss": "gspo"}}),
        Run(
            "healthy: two tasks, dynamic sampling",
            {"task": [task(), task(family="subtraction")], "rollout": {"dynamic_sampling_rounds": 1}},
        ),
        Run("healthy: expert goes on", {"optim": {"lr": 5e-5}}, warm="addition-trained"),
        Run("healthy: REINFORCE++", {"algorithm": {"advantage": "reinforce_pp"}}),
        Run("healthy: groups of four", {"rollout": {"group_size": 4, "problems_per_step": 24}}),
        Run("healthy: mean of sequences, entropy", {"algorithm": {"aggregation": "sequence", "entropy_coef": 1e-3}}),
    ]


def further(engine: str) -> list[Run]:
    """Return further faults, of similar and of other kinds."""
    stale = {"engine": {"sync_check": False}}

    def verified(name: str, **options: object) -> dict[str, object]:
        return {"verifier": {"name": f"{PARTS}:{name}", "options": options}}

    def mixture(name: str, **options: object) -> dict[str, object]:
        return {"task": [task(), {**part("Leaky", share=0.0), **verified(name, **options)}]}

    chat = {"prompt": {"chat": "always"}}
    return [
        Run("weights one step late", stale, ("weights-not-synced",), patch=lagging(engine)),
        Run("temperature 1.3", {}, ("temperature-mismatch",), patch=sampling(engine, temperature=1.3)),
        Run("temperature 0.97", {}, ("temperature-mismatch",), patch=sampling(engine, temperature=0.97)),
        Run("top-k 3", {}, ("top-p-unaccounted",), patch=sampling(engine, top_k=3)),
        Run("temperature 0.6 reported as 1", {}, UNREPORTED, patch=reported_before(engine, temperature=0.6)),
        Run("temperature 1.5 reported as 1", {}, UNREPORTED, patch=reported_before(engine, temperature=1.5)),
        Run("top-p 0.8 reported as 1", {}, UNREPORTED, patch=reported_before(engine, top_p=0.8)),
        Run("reward for length", {"task": {**task(), **verified("Long", characters=27)}}, LENGTH),
        Run("reward for any answer", {"task": {**task(), **verified("Lenient", share=1.0)}}, LENIENT),
        Run("3 % of the wrong answers accepted", {"task": {**task(), **verified("Lenient", share=0.03)}}, LENIENT),
        Run("verifier of one task of two raises", mixture("Raises", share=1.0), ("ungraded",)),
        Run("verifier of one task of two rejects all", mixture("Dead"), DEAD),
        Run("references of other problems", {"task": part("WrongReferences")}, ("all-wrong",)),
        Run("learning rate / 1000", {"optim": {"lr": 1e-7}}, ("no-movement",)),
        Run("gradients clipped to nothing", {"optim": {"max_grad_norm": 1e-10}}, ("no-movement",)),
        Run("KL coefficient 30", {"algorithm": {"kl_coef": 30.0}}, ("kl-coef-too-large",)),
        Run("advantage without a baseline", {"algorithm": {"advantage": f"{PARTS}:uncentred"}}, UNCENTRED),
        Run("advantages of other rollouts", {"algorithm": {"advantage": f"{PARTS}:shuffled"}}, FLIPPED),
        Run("one seed for a group", {}, ("samples-not-independent",), patch=one_seed(engine)),
        Run("end token unknown to the engine", {"engine": {"name": "hf"}}, ("truncated",), patch=endless),
        Run("assistant's turn not opened", chat, ("wrong-chat-template",), warm="chat", patch=turn_not_opened),
        Run("four problems under many names", {"task": part("Copies", distinct=4)}, ("duplicate-problems",)),
        Run("gradients never set to zero, unclipped", UNCLIPPED, ("gradients-add-up",), patch=never_zeroed),
        Run("a quarter cannot be solved", {"task": part("Hidden", share=0.25)}, HIDDEN),
        Run("prompts cut off", {"task": part("CutPrompts", characters=4)}, ("contradicting-references",)),
        Run("healthy: chat", chat, warm="chat"),
    ]


UNCLIPPED: dict[str, object] = {"steps": 24, "optim": {"max_grad_norm": 1e9}}
HIDDEN = ("problems-never-solved", "contradicting-references")
UNREPORTED = ("sampling-sharper", "sampling-flatter")
LENGTH = ("reward-is-length",)
LENIENT = ("wrong-answer-accepted", "one-answer-for-all")
DEAD = ("task-all-wrong", "all-wrong")
UNCENTRED = ("advantages-not-centred",)
HACKED = ("empty-answer-accepted", "one-answer-for-all")
REJECTS = ("right-answer-rejected", "inconsistent-verdicts")
FLIPPED = ("advantage-sign-flipped", "descends")
DR_GRPO: dict[str, object] = {"algorithm": {"advantage": "dr_grpo", "aggregation": "constant"}}


def train(raw: Mapping[str, object], folder: Path) -> float:
    """Train one run unless it exists; keep a run that stops with an error. Return seconds."""
    from reasoner.stages.pipeline import run_pipeline

    if (folder / "done.json").is_file() or (folder / "failed.json").is_file():
        return 0.0
    started = time.monotonic()
    try:
        run_pipeline(resolve({**raw, "output": str(folder)}), resume=folder.exists())
    except (RuntimeError, ValueError) as error:
        print(f"{folder.name}: {type(error).__name__}: {error}", file=sys.stderr)
    return time.monotonic() - started


def warm_model(name: str, root: Path) -> Path:
    """Return the folder of a named warm-started model, trained on first use."""
    if name == "addition-trained":
        return root / "runs" / "healthy--addition" / "final"
    folder = root / "warm" / name
    section = WARM[name]
    raw = deep_merge(
        deep_merge(COMMON, {"optim": {"lr": 1e-3, "warmup_steps": 20}, "eval": {"problems": 0}, "steps": 3000}),
        {
            **section,
            "method": "sft",
            "engine": {"name": "hf"},
            "model": {"from_scratch": {"hidden_size": 128, "layers": 2, "heads": 4, "max_positions": 256}},
            "sft": {
                "demonstrations": 1000,
                "rows_per_step": 64,
                "check_every": 20,
                "check_problems": 256,
                **section["sft"],
            },  # type: ignore[dict-item]
        },
    )
    train(raw, folder)
    if not (folder / "final").is_dir():
        raise SystemExit(
            f"the warm start {name!r} did not finish: see {folder}/failed.json, remove the folder, try again"
        )
    return folder / "final"


def judge(run: Run, folder: Path) -> dict[str, object]:
    """Return the findings of explain on a run, and if they are right."""
    found = explain_and_audit(folder)[-1].findings
    alarms = [finding for finding in found if finding.level is not Level.NOTE]
    first = found[0].code if found else ""
    good = first in run.expected if run.expected else not alarms
    return {
        "run": run.name,
        "good": good,
        "first": first,
        "expected": [*run.expected],
        "said": [f"{finding.level}: {finding.title}" for finding in (found if run.expected else alarms)[:4]],
        "codes": [f"{finding.code}:{finding.level}" for finding in found],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--engine", default="hf", choices=["hf", "vllm"])
    parser.add_argument("--only", default=[""], nargs="+", help="runs whose name contains one of these")
    parser.add_argument("--judge", action="store_true", help="train nothing; explain the stored runs")
    options = parser.parse_args()
    results: list[dict[str, object]] = []
    for run in runs(options.engine):
        folder = (
            options.output / "runs" / run.name.replace(" ", "-").replace(":", "-").replace(",", "").replace("%", "pc")
        )
        if not any(part in run.name for part in options.only) or (
            options.judge and not (folder / "config.yaml").is_file()
        ):
            continue
        seconds = 0.0
        if not options.judge:
            base = deep_merge(
                COMMON,
                {"engine": {"name": options.engine}, "model": {"path": str(warm_model(run.warm, options.output))}},
            )
            with run.patch():
                seconds = train(deep_merge(base, run.change), folder)
        results.append({**judge(run, folder), "seconds": round(seconds, 1)})
        print(json.dumps(results[-1]), file=sys.stderr)
    faults = [row for row in results if row["expected"]]
    healthy = [row for row in results if not row["expected"]]
    named, quiet = sum(bool(row["good"]) for row in faults), sum(bool(row["good"]) for row in healthy)
    print(
        json.dumps(
            {"faults": len(faults), "named_first": named, "healthy": len(healthy), "quiet": quiet, "runs": results}
        )
    )
    return 0 if named >= 0.9 * len(faults) and quiet == len(healthy) else 1


if __name__ == "__main__":
    sys.exit(main())
