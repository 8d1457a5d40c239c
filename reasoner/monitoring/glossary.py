"""Glossary of all metrics: meaning, healthy range, and the reason for it.

`python -m reasoner.monitoring.glossary` prints the table of docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """Description of one metric."""

    meaning: str
    healthy: str
    """Healthy range and the reason for it; empty if there is none."""


GLOSSARY: Mapping[str, Entry] = {
    "reward/mean": Entry(
        "mean reward over the step's graded rollouts, shaping included",
        "rises; noise of about reward/std / sqrt(rollouts) per step is normal",
    ),
    "reward/std": Entry("population standard deviation of those rewards", "above 0: equal rewards give no gradient"),
    "reward/pass_rate": Entry(
        "share of correct rollouts among those graded correct or wrong; in a composed reward the deciding part counts",
        "0.05 to 0.95: outside this range most groups have equal rewards",
    ),
    "reward/TASK": Entry(
        "mean reward of one of several tasks", "each rises; a falling one is sacrificed for the others"
    ),
    "component/NAME": Entry(
        "mean reward of one part of a composed reward, before its weight",
        "the part that measures correctness rises; if only another part rises, the policy learns just that part",
    ),
    "groups/signal": Entry(
        "share of groups whose rewards differ: only they give a gradient",
        "above 0.2; below, four fifths of the sampling give no gradient",
    ),
    "groups/all_right, groups/all_wrong": Entry(
        "share of groups whose answers are all correct, all wrong; no signal unless something else is rewarded too",
        "all_wrong below 0.5 and falling; all_right grows only late in a run",
    ),
    "groups/rows_kept": Entry("rollouts in the update", "several groups' worth; 0: no gradient in this step"),
    "groups/rows_acting": Entry(
        "rollouts in the update with non-zero advantage; with `advantage: rejection` the accepted ones",
        "close to rows_kept, and above 0: the other rows only count in the mean",
    ),
    "outcome/...": Entry(
        "share of each verdict outcome", "no_answer and limit_exceeded near 0 once the format is learned"
    ),
    "grading/ungraded": Entry(
        "share that could not be graded; left out of every mean", "0; sampling each of them was wasted"
    ),
    "grading/undecided": Entry(
        "share of answers that a verifier reads but cannot decide (integrals, series, hard formulas): reward 0",
        "below 0.01; if it grows, the policy stops before it has worked out its answer",
    ),
    "grading/sympy": Entry(
        "share of answers decided by SymPy, in a separate process, because no cheaper check could",
        "below 0.01; each costs up to sympy_seconds of CPU time",
    ),
    "judge/calls": Entry("calls of judges that this process made in the step, retries included", ""),
    "judge/cached": Entry("questions answered from the cache, or by the same question under way", ""),
    "judge/faults": Entry("questions that no judge answered; a fall-back decides, or the rollout is ungraded", "0"),
    "judge/tokens, judge/cost": Entry(
        "tokens of those calls, and what they cost by prompt_price and completion_price", "steady; it grows with length"
    ),
    "judge/agreement": Entry(
        "share of judged questions with several votes (a jury, repeats, orders) on which all votes are equal",
        "above 0.8, with rewards that differ: a judge that always says the same agrees too",
    ),
    "completion/length_mean, completion/length_max": Entry(
        "tokens of a completion", "grows only while the reward does"
    ),
    "completion/truncated": Entry(
        "share that stopped at max_tokens", "below 0.05; above 0.1 right answers are cut off"
    ),
    "turns/mean": Entry("turns of the policy in an episode, with an environment", "as the task needs"),
    "turns/limit": Entry(
        "share of episodes that ended at rollout.max_turns", "below 0.1, except for games that are lost there"
    ),
    "turns/cut": Entry(
        "share of episodes that a turn ended at rollout.turn_tokens, without a reply (part of completion/truncated)",
        "below 0.1",
    ),
    "calls/mean, calls/share": Entry(
        "tool calls of an episode; share of episodes with one", "does not fall to 0 where the tool is needed"
    ),
    "calls/error": Entry("share of the calls that are answered with an error", "below 0.3 and falling"),
    "reply/tokens, reply/cut": Entry(
        "tokens of replies in an episode; share of replies that lost their middle", "cut: below 0.1"
    ),
    "environment/faults": Entry(
        "share of episodes without a verdict because the environment could not reply", "0; never rising"
    ),
    "policy/entropy": Entry(
        "entropy of the next-token distribution at the sampling temperature, nats per token",
        "falls slowly; near 0 all samples of a group are alike, a sudden rise is the start of a collapse",
    ),
    "policy/step_kl": Entry(
        "how far one step moves the policy on its own rollouts: (log after - log before)^2 / 2, nats per token, on"
        " 16 rows",
        "1e-5 to 0.02; at 0.02 the average token leaves the usual clip range in one step, above 0.1 expect a collapse",
    ),
    "policy/step_gain": Entry(
        "advantage * (log after - log before), mean per token on the same rows: the step's gain in its objective",
        "above 0 in nearly every step; below 0 throughout means a flipped sign",
    ),
    "policy/ratio": Entry(
        "trainer / old probability of the sampled tokens, mean",
        "1 with one update per step; within 0.05 of 1 with several",
    ),
    "policy/clip_fraction, _low, _high": Entry(
        "share of tokens whose ratio is clipped, by side",
        "0 with one update per step; below 0.2 with several: a clipped token gives no gradient",
    ),
    "policy/approx_kl": Entry(
        "k3 estimate of KL(old || trainer) over the updates of one step, nats per token",
        "0 with one update per step; below 0.02 with several",
    ),
    "policy/kl_ref": Entry(
        "KL estimate to the reference model, nats per token; only with kl_coef > 0",
        "grows slowly; a jump comes with a collapse or a hacked reward",
    ),
    "gap/logprob_abs, gap/logprob_max": Entry(
        "|log trainer - log engine| of the sampled tokens at the same weights, mean and largest",
        "below 1e-3 in float32, below 0.05 in bfloat16, and not growing",
    ),
    "gap/kl, gap/ratio": Entry(
        "the same gap as k3 estimate and as mean ratio",
        "ratio within 0.01 of 1: the mean is 1 for any two distributions over the same tokens, so 0.9 means a"
        " truncated one (top-p)",
    ),
    "gap/importance, gap/left_out": Entry("mean correction weight; share of tokens it masks", "near 1; near 0"),
    "gap/probe": Entry(
        "|difference| on the probe text after a sync, nats per token",
        "as gap/logprob_abs; null if engine.sync_check is off",
    ),
    "optim/loss": Entry(
        "loss of the step's updates",
        "near 0 with one update and centred advantages, whatever is learned: look at the reward instead",
    ),
    "optim/grad_norm": Entry(
        "gradient norm before clipping", "steady; a spike is one odd batch, steady growth means a too large step size"
    ),
    "optim/lr, optim/tokens": Entry("learning rate; tokens trained on", ""),
    "check/accuracy": Entry(
        "share of held-back training problems that a sample solves (sft.until_accuracy)", "rises to the required share"
    ),
    "eval/avg@K": Entry(
        "mean reward of K completions of each held-out problem; with several evaluation sets `eval/SET/...` for each"
        " and `eval/pooled/...` for all their problems",
        "rises; its 95 % interval separates chance from progress",
    ),
    "eval/pass@K, eval/maj@K": Entry(
        "probability that one of K completions is correct (unbiased), and that their most common answer is",
        "pass@K far above avg@K: the model is able to, but seldom does",
    ),
    "eval/component": Entry("mean of one part of a composed reward on held-out problems (`eval/component/NAME`)", ""),
    "eval/loss, eval/row_loss": Entry(
        "held-out loss: of sft in nats per token (row_loss: mean over rows), of gkd the divergence in nats per token,"
        " of reward_model and dpo in nats per pair, of kto per row, from 0 to its weight (half of it at the start)",
        "falls; rising while optim/loss falls, the data is memorized; of pairs below 0.693, the loss of a coin flip",
    ),
    "eval/perplexity": Entry("exp of the held-out loss per token", "falls"),
    "eval/accuracy": Entry(
        "share of held-out pairs in which the better completion has the higher reward; of kto the chance that a"
        " desirable completion has a higher one than an undesirable one (AUC)",
        "its interval above 0.5, the accuracy of a coin flip",
    ),
    "eval/calibration_error": Entry(
        "mean |probability that a reward model gives its preference - share that is correct|",
        "near 0: its probabilities can be trusted",
    ),
    "eval/disagreement": Entry(
        "standard deviation of a completion's reward over the model's heads", "falls on data like the training pairs"
    ),
    "time/generation": Entry("seconds until the last completion", "usually the largest part of a step"),
    "time/grading_wait": Entry(
        "seconds of waiting for verdicts after that: the time that grading adds to a step",
        "below 2 % of the step; with slow graders raise grading.portions: the update then begins meanwhile",
    ),
    "time/environment, time/environment_wait": Entry(
        "seconds of workers spent on replies of environments; of the generation, seconds of waiting for them",
        "waiting: below 5 % of a step for a calculator, below 15 % for Python",
    ),
    "time/ahead_wait, time/sampler_idle": Entry(
        "with rollout.ahead: seconds that the trainer waits for the next batch before it sends new weights (only"
        " with rollout.during_update=wait); seconds in which the sampler has no batch",
        "both near 0 where sampling and learning take the same time; the larger one names the slower side",
    ),
    "lag/mean, lag/max": Entry(
        "updates between the weights that sampled a trained token and those that it is trained on",
        "at most rollout.ahead x updates per step",
    ),
    "lag/effective_sample": Entry(
        "(sum w)^2 / (n sum w^2) of the ratios w = trainer / engine over the n trained tokens",
        "near 1; below 0.7 part of the tokens carries most of the update: lower rollout.ahead or the learning rate",
    ),
    "lag/mixed": Entry(
        "share of the trained completions that went on over an update, so that several versions sampled their tokens;"
        " only with rollout.during_update=go_on",
        "no bound: the weights of each token are known",
    ),
    "lag/gap_slope, lag/gap_intercept": Entry(
        "least squares line of |log ratio| over the lag of a step's tokens, if they have several",
        "the intercept is the engine's own gap, the slope what each update adds",
    ),
    "time/logprobs, time/update, time/sync, time/step": Entry(
        "seconds of the other parts, and of the whole step", "sync below 2 %"
    ),
    "throughput/tokens_per_second": Entry("sampled tokens over the whole step", ""),
    "throughput/generated_per_second": Entry("sampled tokens over generation alone", ""),
    "memory/peak_mb": Entry(
        "peak resident memory, or peak accelerator memory if there is one", "constant after the first steps"
    ),
    "data/epoch": Entry("passes over the training problems", "a few: problems seen many times are memorized"),
    "policy/version": Entry("updates so far", "grows by updates_per_step x inner_epochs per step"),
    "value/explained_variance": Entry(
        "1 - Var(return - value) / Var(return) of the values before the step",
        "rises above 0 in the first steps; if below -0.5 and falling, the value diverges",
    ),
    "value/clip_fraction": Entry("share of tokens whose value is clipped", "below 0.3; above, value.lr is too high"),
    "value/error_squared, value/error": Entry("(value - return)^2 and value - return, mean per token", "falls"),
    "value/before, value/returns": Entry("mean value before the step, and mean return", "near each other"),
    "value/grad_norm_max": Entry("gradient norm of the value's own parameters, before clipping", "steady"),
    "kl/ref": Entry(
        "log policy - log reference summed over a completion, mean over the step (k1), nats per completion; with"
        " kl_coef or kl_budget, else on watch.kl_rows rows if the reward is learned",
        "grows while the reward does; above 10 the policy is far from the data that the reward model was trained on",
    ),
    "kl/coef, kl/penalty": Entry(
        "current KL coefficient, and the KL penalty per completion",
        "the penalty is a considerable part of the gained reward",
    ),
    "teacher/reverse_kl": Entry(
        "log student - log teacher of the sampled tokens, mean: an estimate of KL(student || teacher), nats per token",
        "falls, fast at first; the student's capacity decides where it stays above 0",
    ),
    "gkd/on_policy": Entry(
        "1 in a step of method gkd in which the policy completed the prompts itself, else 0", "gkd.lmbda on average"
    ),
    "optim/updates, optim/stopped_early": Entry(
        "optimizer steps on the batch; 1 if optim.stop_kl ended them", "stopped_early now and then; always: lower lr"
    ),
    "constitutional/changed": Entry("share of answers changed by the revisions", "near 0 the critiques find nothing"),
    "constitutional/agreed": Entry(
        "share of comparisons with a winner: both orders prefer it by constitutional.margin",
        "near 0 the judge follows the order, or the answers are alike",
    ),
    "constitutional/faults": Entry("comparisons that the judge did not answer; they give no pairs", "0"),
    "watch/proxy, watch/held_out": Entry(
        "reward used in training, and reward of a scorer that training never uses, on the same rollouts",
        "rise together; if they diverge, the reward model is being hacked",
    ),
    "watch/agreement": Entry(
        "correlation of the two over a step's rollouts", "above 0.3; near 0 the reward carries no information"
    ),
    "watch/length, watch/repetition, watch/flattery, watch/confident_wrong": Entry(
        "tokens; share of repeated phrases, of flattering openings, of confident completions that the held-out scorer"
        " rejects",
        "steady: each is a cheap way to please a reward model",
    ),
    "reward_model/accuracy, reward_model/difference": Entry(
        "share of a step's pairs in which the better completion has the higher reward; mean difference",
        "held-out accuracy (eval/accuracy) is what counts: the gap between the two is memorization",
    ),
    "dpo/reward_chosen, dpo/reward_rejected, dpo/margin, dpo/accuracy": Entry(
        "beta * (log policy - log reference) of both sides, their difference, and how often it is above 0; per token"
        " for sigmoid_norm, simpo and orpo, without the reference for simpo, orpo and cpo",
        "the margin rises; if both rewards fall, the chosen side is losing likelihood (dpo.sft_coef)",
    ),
    "kto/reward_desirable, kto/reward_undesirable, kto/margin": Entry(
        "beta * (log policy - log reference) of the step's completions of both labels, and their difference",
        "the margin rises",
    ),
    "kto/kl, kto/desirable": Entry(
        "estimated KL to the reference in nats, from completions of other prompts: a reward counts as a gain above beta"
        " times it; share of desirable rows",
        "kl rises slowly; at 0 it is cut off, since its mean was negative",
    ),
}


def table() -> str:
    """Return the glossary as a Markdown table, with bars inside cells escaped."""
    rows = [("name", "what it is", "healthy, and why"), ("---",) * 3, *((name, *e) for name, e in GLOSSARY.items())]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


if __name__ == "__main__":
    print(table())
