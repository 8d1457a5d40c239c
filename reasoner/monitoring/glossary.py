"""Every metric: what it is, what it looks like when all is well, and why.

`python -m reasoner.monitoring.glossary` prints the table of docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """One metric."""

    meaning: str
    healthy: str
    """The healthy range and the reason for it; empty where there is none."""


GLOSSARY: Mapping[str, Entry] = {
    "reward/mean": Entry(
        "mean reward over the step's graded rollouts, shaping included",
        "rises; noise of about reward/std / sqrt(rollouts) a step is normal",
    ),
    "reward/std": Entry("population standard deviation of those rewards", "above 0: equal rewards teach nothing"),
    "reward/pass_rate": Entry(
        "share right, of the rollouts that are right or wrong; in a composed reward the deciding part says which",
        "0.05 to 0.95: outside, most groups have equal rewards",
    ),
    "reward/TASK": Entry("mean reward of one task of several", "each rises; one that falls is paid for by the others"),
    "component/NAME": Entry(
        "mean reward of one part of a composed reward, before its weight",
        "the part that says what is right rises; another one that rises alone is what is being learned",
    ),
    "groups/signal": Entry(
        "share of groups whose rewards differ: only they give a gradient",
        "above 0.2; below, four fifths of the sampling teach nothing",
    ),
    "groups/all_right, groups/all_wrong": Entry(
        "share of groups whose answers are all right, all wrong; without signal unless something else is rewarded too",
        "all_wrong below 0.5 and falling; all_right grows only late in a run",
    ),
    "groups/rows_kept": Entry("rollouts in the update", "several groups' worth; 0: no gradient in this step"),
    "groups/rows_acting": Entry(
        "those whose advantage is not 0; with `advantage: rejection` the accepted ones",
        "as rows_kept, and above 0: the others only count in the mean",
    ),
    "outcome/...": Entry(
        "share of each verdict outcome", "no_answer and limit_exceeded near 0 once the format is learned"
    ),
    "grading/ungraded": Entry(
        "share that could not be graded; left out of every mean", "0; each one is sampled for nothing"
    ),
    "grading/undecided": Entry(
        "share of answers that a verifier reads and cannot decide (integrals, series, hard formulas): reward 0",
        "below 0.01; growing, the policy stops before it has worked its answer out",
    ),
    "grading/sympy": Entry(
        "share of answers that SymPy decided, in a process of its own, because nothing cheaper could",
        "below 0.01; each costs up to sympy_seconds of CPU time",
    ),
    "completion/length_mean, completion/length_max": Entry(
        "tokens of a completion", "grows only while the reward does"
    ),
    "completion/truncated": Entry(
        "share that stopped at max_tokens", "below 0.05; above 0.1 right answers are cut off"
    ),
    "policy/entropy": Entry(
        "entropy of the next-token distribution at the sampling temperature, nats a token",
        "falls slowly; near 0 the samples of a group are all alike, a sudden rise is the start of a collapse",
    ),
    "policy/step_kl": Entry(
        "how far one step moves the policy on its own rollouts: (log after - log before)^2 / 2, nats a token, on"
        " 16 rows",
        "1e-5 to 0.02; at 0.02 the average token leaves the usual clip range in one step, above 0.1 expect a collapse",
    ),
    "policy/step_gain": Entry(
        "advantage * (log after - log before), mean a token on the same rows: what the step added to its objective",
        "above 0 in nearly every step; below 0 throughout, a sign is flipped",
    ),
    "policy/ratio": Entry(
        "trainer / old probability of the sampled tokens, mean",
        "1 with one update a step; within 0.05 of 1 with several",
    ),
    "policy/clip_fraction, _low, _high": Entry(
        "share of tokens whose ratio is clipped, by side",
        "0 with one update a step; below 0.2 with several: a clipped token gives no gradient",
    ),
    "policy/approx_kl": Entry(
        "k3 estimate of KL(old || trainer) over the updates of one step, nats a token",
        "0 with one update a step; below 0.02 with several",
    ),
    "policy/kl_ref": Entry(
        "KL estimate to the reference model, nats a token; only with kl_coef > 0",
        "grows slowly; a jump comes with a collapse or a hacked reward",
    ),
    "gap/logprob_abs, gap/logprob_max": Entry(
        "|log trainer - log engine| of the sampled tokens at the same weights, mean and largest",
        "below 1e-3 in float32, below 0.05 in bfloat16, and not growing",
    ),
    "gap/kl, gap/ratio": Entry(
        "the same as k3 and as mean ratio",
        "ratio within 0.01 of 1: the mean is 1 for any two distributions over the same tokens, so 0.9 means a"
        " cut-off one (top-p)",
    ),
    "gap/importance, gap/left_out": Entry("mean correction weight; share of tokens that it masks", "near 1; near 0"),
    "gap/probe": Entry(
        "|difference| on the probe text after a sync, nats a token",
        "as gap/logprob_abs; null: engine.sync_check is off",
    ),
    "optim/loss": Entry(
        "of the step's updates",
        "near 0 with one update and centred advantages, whatever is learned: read the reward instead",
    ),
    "optim/grad_norm": Entry(
        "before clipping", "steady; a spike is one odd batch, steady growth a step size that is too large"
    ),
    "optim/lr, optim/tokens": Entry("learning rate; tokens trained on", ""),
    "check/accuracy": Entry(
        "share of held-back training problems that a sample solves (sft.until_accuracy)", "rises to the asked share"
    ),
    "eval/avg@K": Entry(
        "mean reward of K completions of each held-out problem; of several evaluation sets `eval/SET/...` of each and"
        " `eval/pooled/...` of all their problems",
        "rises; its 95 % interval tells chance from progress",
    ),
    "eval/pass@K, eval/maj@K": Entry(
        "chance that one of K completions is right (unbiased), and that their commonest answer is",
        "pass@K far above avg@K: the model can, but seldom does",
    ),
    "eval/component": Entry("mean of one part of a composed reward on held-out problems (`eval/component/NAME`)", ""),
    "eval/loss, eval/row_loss": Entry(
        "held-out loss: of sft in nats a token (row_loss: mean over rows), of reward_model and dpo in nats a pair",
        "falls; rising while optim/loss falls, the data is learned by heart; of pairs below 0.693, which a coin has",
    ),
    "eval/perplexity": Entry("exp of the held-out loss of a token", "falls"),
    "eval/accuracy": Entry(
        "share of held-out pairs in which the better completion has the higher reward",
        "its interval above 0.5, which a coin has",
    ),
    "eval/calibration_error": Entry(
        "mean |chance that a reward model claims for its preference - share that comes true|",
        "near 0: its differences are to be believed",
    ),
    "eval/disagreement": Entry(
        "standard deviation of a completion's reward over the model's heads", "falls on data like the training pairs"
    ),
    "time/generation": Entry("seconds until the last completion", "usually the largest part of a step"),
    "time/grading_wait": Entry(
        "waiting for verdicts after that: what grading adds to a step",
        "below 2 % of the step; with slow graders raise grading.portions: the update begins meanwhile",
    ),
    "time/logprobs, time/update, time/sync, time/step": Entry(
        "seconds of the other parts, and of all", "sync below 2 %"
    ),
    "throughput/tokens_per_second": Entry("sampled tokens over the whole step", ""),
    "throughput/generated_per_second": Entry("over generation alone", ""),
    "memory/peak_mb": Entry(
        "peak resident memory, or peak accelerator memory where there is one", "constant after the first steps"
    ),
    "data/epoch": Entry("passes over the training problems", "a few: problems seen many times are learned by heart"),
    "policy/version": Entry("updates so far", "grows by updates_per_step x inner_epochs a step"),
    "value/explained_variance": Entry(
        "1 - Var(return - value) / Var(return) of the values before the step",
        "rises above 0 in the first steps; below -0.5 and falling the value diverges",
    ),
    "value/clip_fraction": Entry("share of tokens whose value is clipped", "below 0.3: more, and value.lr is too high"),
    "value/error_squared, value/error": Entry("(value - return)^2 and value - return, mean a token", "falls"),
    "value/before, value/returns": Entry("mean value before the step, and mean return", "near each other"),
    "value/grad_norm_max": Entry("of the value's own parameters, before clipping", "steady"),
    "kl/ref": Entry(
        "log policy - log reference summed over a completion, mean over the step (k1), nats a completion; with kl_coef"
        " or kl_budget",
        "grows while the reward does; above 10 the reward model is far from what it was trained on",
    ),
    "kl/coef, kl/penalty": Entry(
        "present KL coefficient, and what the KL costs a completion",
        "the penalty is a good part of what reward is gained",
    ),
    "optim/updates, optim/stopped_early": Entry(
        "optimizer steps on the batch; 1 where optim.stop_kl ended them", "stopped_early now and then; always: lower lr"
    ),
    "constitutional/changed": Entry("share of answers that the revisions changed", "near 0 the critiques find nothing"),
    "constitutional/agreed": Entry(
        "share of comparisons with a winner: both orders prefer it, by constitutional.margin",
        "near 0 the judge follows the order, or the answers are alike",
    ),
    "constitutional/faults": Entry("comparisons that the judge did not answer; they are no pairs", "0"),
    "watch/proxy, watch/held_out": Entry(
        "the reward of training, and that of a scorer it never sees, on the same rollouts",
        "rise together; apart, the reward model is being hacked",
    ),
    "watch/agreement": Entry(
        "correlation of the two over a step's rollouts", "above 0.3; near 0 the reward says nothing"
    ),
    "watch/length, watch/repetition, watch/flattery, watch/confident_wrong": Entry(
        "tokens; share of repeated phrases, of flattering openings, of confident completions that the held-out scorer"
        " rejects",
        "steady: each is a cheap way to please a reward model",
    ),
    "reward_model/accuracy, reward_model/difference": Entry(
        "share of a step's pairs in which the better completion has the higher reward; mean difference",
        "held-out accuracy (eval/accuracy) is what counts: the gap between them is learned by heart",
    ),
    "dpo/reward_chosen, dpo/reward_rejected, dpo/margin, dpo/accuracy": Entry(
        "beta * (log policy - log reference) of both sides, their difference, and how often it is above 0",
        "the margin rises; both rewards falling means that likelihood of the chosen is lost (dpo.sft_coef)",
    ),
}


def table() -> str:
    """The glossary as a Markdown table; a bar inside a cell is escaped, or it would end the cell."""
    rows = [("name", "what it is", "healthy, and why"), ("---",) * 3, *((name, *e) for name, e in GLOSSARY.items())]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


if __name__ == "__main__":
    print(table())
