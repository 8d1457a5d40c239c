"""Groups survive the way to another process, in a few bytes a token."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

from reasoner.records import Completion, FinishReason, Rollout, RolloutGroup, Segment, VersionSpan
from reasoner.rollout.exchange import pack, unpack
from reasoner.storage.rows import recorded_rollout, rollout_row
from tasks import Problem
from verifiers import Outcome, Verdict

PROBLEMS = [Problem(id=str(n), task="t", prompt=f"{n}?", reference=str(n), verifier="exact") for n in range(3)]


def group(place: int, lengths: list[int], *, masked: bool = False) -> RolloutGroup:
    rollouts = [
        Rollout(
            problem=PROBLEMS[place],
            prompt_text=f"{place}?",
            prompt_ids=(1, 2, place),
            completion=Completion(
                text="x" * length,
                token_ids=tuple(range(70_000, 70_000 + length)),
                rollout_logprobs=tuple(-0.25 * n for n in range(length)),
                loss_mask=tuple(not (masked and n % 3 == 1) for n in range(length)),
                segments=(Segment(start=0, end=length, origin="policy"),),
                finish_reason=FinishReason.STOP,
                policy_version=4,
            ),
            verdict=Verdict(outcome=Outcome.CORRECT, reward=1.0, verifier="exact"),
            sample_index=sample,
            step=9,
        )
        for sample, length in enumerate(lengths)
    ]
    return RolloutGroup(problem=PROBLEMS[place], rollouts=tuple(rollouts))


def test_groups_arrive_as_they_were() -> None:
    groups = [(2, group(2, [3, 0, 5])), (0, group(0, [7, 9, 1], masked=True))]
    arrived = unpack(pickle.loads(pickle.dumps(pack(groups))), PROBLEMS)
    assert arrived == [one for _, one in groups]
    assert pack(groups[:1]).masks is None


def test_versions_of_tokens_arrive_and_stand_in_the_records_where_there_are_several() -> None:
    whole = group(1, [5])
    (one,) = whole.rollouts
    spans = (VersionSpan(4, 0, 2), VersionSpan(6, 2, 5))
    mixed = replace(whole, rollouts=(replace(one, completion=replace(one.completion, versions=spans)),))
    assert unpack(pickle.loads(pickle.dumps(pack([(1, mixed)]))), PROBLEMS) == [mixed]
    assert mixed.rollouts[0].completion.token_versions == [4, 4, 6, 6, 6]
    (plain,), (line,) = rollout_row(whole, 0), rollout_row(mixed, 0)
    assert "versions" not in plain
    assert line == {**plain, "versions": [[4, 0, 2], [6, 2, 5]]}
    for row, given in ((plain, one), (line, mixed.rollouts[0])):
        assert recorded_rollout(json.loads(json.dumps(row)), PROBLEMS[1]).completion == given.completion


def test_nothing_arrives_as_nothing() -> None:
    assert unpack(pack([]), PROBLEMS) == []


def test_a_token_takes_eight_bytes_and_not_thirteen() -> None:
    groups = [(0, group(0, [2000] * 8))]
    bare = [
        (
            place,
            replace(one, rollouts=tuple(replace(r, completion=replace(r.completion, text="")) for r in one.rollouts)),
        )
        for place, one in groups
    ]
    assert len(pickle.dumps(pack(bare))) / 16_000 < 8.5
    assert len(pickle.dumps([one for _, one in bare])) / 16_000 > 13
