"""The training methods: one table, read wherever a stage depends on its method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

MethodName = Literal["grpo", "ppo", "sft", "reward_model", "dpo", "pairs", "constitutional"]
MODEL, PAIRS_FILE, SFT_FILE = "final", "pairs.jsonl", "sft.jsonl"


class Method(NamedTuple):
    """The function of a training method, the data that it needs and the files that it writes."""

    run: str
    """`module:function` of the open session, imported when a stage starts."""
    learns_from: Literal["rewards", "demonstrations", "pairs"] | None
    """Training signal: rewards of its own completions (`algorithm`), `sft`, `preferences`; None: trains nothing."""
    samples: bool = False
    """Samples completions of training problems in every step."""
    policy: Literal["token", "pair", "reward"] = "token"
    """Class of reasoner/policy/: rows of tokens, rows in pairs, or rows with a scalar reward."""
    writes: Mapping[str, str] = {"": MODEL}
    """Suffix of `stage:NAME` to the file in the stage's folder that later stages get for it."""
    check: str | None = None
    """`module:function` of the stage's config, called before the first stage of a run begins."""
    sections: tuple[str, ...] = ()
    """Sections of the config that other methods do not read."""
    defaults: Mapping[str, object] = {}
    """Values of the stage's config where neither the file nor an override sets them."""

    @property
    def passes_on_its_model(self) -> bool:
        """True if the next stage goes on with this stage's model."""
        return self.learns_from is not None and self.policy != "reward"


_RL_CHECK = "reasoner.algorithm.objective:check_algorithm"
_RL_SECTIONS = ("algorithm", "value")
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
    "sft": Method("reasoner.stages.sft:sft", "demonstrations", sections=("sft",)),
    "reward_model": Method(
        "reasoner.stages.reward_model:reward_model", "pairs", policy="reward", sections=("reward_model", "preferences")
    ),
    "dpo": Method(
        "reasoner.stages.dpo:dpo",
        "pairs",
        policy="pair",
        check="reasoner.stages.dpo:check_loss",
        sections=("dpo", "preferences"),
    ),
    "pairs": Method(
        "reasoner.stages.sample_pairs:pairs",
        None,
        samples=True,
        writes={"": PAIRS_FILE},
        check="reasoner.stages.sample_pairs:check_groups",
        sections=("pairs",),
    ),
    "constitutional": Method(
        "reasoner.stages.constitutional:constitutional",
        None,
        samples=True,
        writes={"": PAIRS_FILE, "/sft": SFT_FILE},
        sections=("constitutional",),
    ),
}
