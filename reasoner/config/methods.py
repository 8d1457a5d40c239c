"""Table of the training methods, read wherever behaviour depends on the method of a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

MethodName = Literal["grpo", "ppo", "distill", "sft", "gkd", "reward_model", "dpo", "kto", "pairs", "constitutional"]
MODEL, PAIRS_FILE, SFT_FILE = "final", "pairs.jsonl", "sft.jsonl"


class Method(NamedTuple):
    """A training method: its function, the data that it needs and the files that it writes."""

    run: str
    """`module:function`, called with the open session; imported when a stage starts."""
    learns_from: Literal["rewards", "demonstrations", "pairs", "unpaired"] | None
    """Training signal: rewards of the policy's completions (`algorithm`), `sft`, or `preferences` (in pairs, or single
    completions with a label); None: no training."""
    samples: bool = False
    """True if every step samples completions of training problems."""
    policy: Literal["token", "pair", "reward", "distribution"] = "token"
    """Class in reasoner/policy/: token rows, rows in pairs, rows with a scalar reward, or token rows of which whole
    distributions are compared with a teacher's."""
    writes: Mapping[str, str] = {"": MODEL}
    """Suffix of a `stage:NAME` reference to the file in that stage's folder that it names."""
    check: str | None = None
    """`module:function`, called with the stage's config before the first stage of a run begins; None: no check."""
    sections: tuple[str, ...] = ()
    """Config sections that this method reads and some other methods do not. Of a method that learns from given rows the
    first one has their number per step."""
    several_turns: bool = True
    """False if it reads a completion as one text: its problems then have no environment."""
    defaults: Mapping[str, object] = {}
    """Values of the stage's config that apply if neither the file nor an override sets them."""

    @property
    def learns_from_preferences(self) -> bool:
        """True if the section `preferences` names its data."""
        return self.learns_from in ("pairs", "unpaired")

    @property
    def passes_on_its_model(self) -> bool:
        """True if the next stage continues with this stage's model."""
        return self.learns_from is not None and self.policy != "reward"


_RL_CHECK = "reasoner.algorithm.objective:check_algorithm"
_RL_SECTIONS = ("algorithm", "value", "teacher")
METHODS: Mapping[str, Method] = {
    "grpo": Method("reasoner.train:train", "rewards", samples=True, check=_RL_CHECK, sections=_RL_SECTIONS),
    "ppo": Method(
        "reasoner.train:train",
        "rewards",
        samples=True,
        check=_RL_CHECK,
        sections=_RL_SECTIONS,
        defaults={"algorithm": {"advantage": "gae"}, "rollout": {"group_size": 1}},
    ),
    "distill": Method(
        "reasoner.train:train",
        "rewards",
        samples=True,
        check=_RL_CHECK,
        sections=_RL_SECTIONS,
        defaults={"algorithm": {"advantage": "reverse_kl"}, "rollout": {"group_size": 1}},
    ),
    "sft": Method("reasoner.stages.sft:sft", "demonstrations", sections=("sft",)),
    "gkd": Method(
        "reasoner.stages.gkd:gkd",
        "demonstrations",
        policy="distribution",
        sections=("sft", "gkd", "teacher"),
        several_turns=False,
    ),
    "reward_model": Method(
        "reasoner.stages.reward_model:reward_model",
        "pairs",
        policy="reward",
        sections=("reward_model", "preferences"),
        several_turns=False,
    ),
    "dpo": Method(
        "reasoner.stages.dpo:dpo",
        "pairs",
        policy="pair",
        check="reasoner.stages.dpo:check_loss",
        sections=("dpo", "preferences"),
        several_turns=False,
    ),
    "kto": Method("reasoner.stages.kto:kto", "unpaired", sections=("kto", "preferences"), several_turns=False),
    "pairs": Method(
        "reasoner.stages.sample_pairs:pairs",
        None,
        samples=True,
        writes={"": PAIRS_FILE},
        check="reasoner.stages.sample_pairs:check_groups",
        sections=("pairs",),
        several_turns=False,
    ),
    "constitutional": Method(
        "reasoner.stages.constitutional:constitutional",
        None,
        samples=True,
        writes={"": PAIRS_FILE, "/sft": SFT_FILE},
        sections=("constitutional",),
        several_turns=False,
    ),
}
