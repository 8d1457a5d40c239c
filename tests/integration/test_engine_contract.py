"""The contract of every engine: its samples, scores and weights are what the trainer assumes."""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.engine import ENGINES, Engine, open_engine
from reasoner.engine.base import EngineError
from reasoner.engine.check import check_checksum, check_probe, checksum, probe_ids
from reasoner.engine.server import ServerEngine
from reasoner.model.load import byte_tokenizer, load_model
from reasoner.records import Completion, FinishReason, Request, SamplingParams
from tests.unit.reasoner.engine.test_vllm import Llm
from tests.unit.reasoner.model.test_families import tiny
from tests.unit.reasoner.rollout import mirrors
from tests.unit.reasoner.rollout.test_turns import CHATML, faults_of, sample
from verifiers.pool import GradingPool, PoolLimits

pytestmark = pytest.mark.integration
CONTEXT = 160
KINDS = [
    pytest.param((name, tied), id=f"{name}-{'tied' if tied else 'untied'}", marks=marks)
    for name in ENGINES
    for tied in (True, False)
    for marks in [[pytest.mark.slow] if name == "vllm-server" else []]  # two servers take a minute to start
]
OPTIONS: dict[str, dict[str, object]] = {"vllm-server": {"servers": 2, "kv_cache_gigabytes": 0.25}}


@pytest.fixture(scope="module", params=KINDS)
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Engine, PreTrainedModel, PreTrainedTokenizerBase]]:
    name, tied = request.param
    folder = tmp_path_factory.mktemp(f"{name}-{tied}")
    model, tokenizer = load_model(
        ModelSection(
            from_scratch=ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=CONTEXT, tie_embeddings=tied)
        ),
        seed=0,
    )
    shake(model, seed=1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    options = OPTIONS.get(name, {}) | ({"weights": "pull" if tied else "file"} if name == "vllm-server" else {})
    engine = open_engine(
        name, model_path=str(folder), dtype="float32", max_model_len=CONTEXT, seed=0, model=None, **options
    )
    yield engine, model, tokenizer
    engine.close()


def shake(model: PreTrainedModel, *, seed: int, size: float = 0.05) -> None:
    """Make weights far enough from the initial ones to distinguish two models."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))


def named(model: PreTrainedModel) -> list[tuple[str, torch.Tensor]]:
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]


def completions(engine: Engine, requests: list[Request], params: SamplingParams) -> list[Completion]:
    found = dict(engine.generate(requests, params))
    return [found[index] for index in range(len(requests))]


def logprobs(
    model: PreTrainedModel, prompt: tuple[int, ...], sampled: tuple[int, ...], temperature: float
) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *sampled]])
    with torch.no_grad():
        scores = (model(ids).logits[0, :-1] / temperature).log_softmax(-1)
    return scores.gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]


def test_the_engine_scores_what_it_samples_under_the_sampling_distribution(opened) -> None:
    engine, model, tokenizer = opened
    requests = [
        Request(prompt_ids=tuple(tokenizer("x" * length)["input_ids"]), seed=index)
        for index, length in enumerate([1, 5, 15, 16, 17, 33, 80, 100] * 2)
    ]
    assert checksum(named(model)) == engine.load_weights(named(model), 7)
    for temperature in (1.0, 0.7):
        done = completions(engine, requests, SamplingParams(max_tokens=40, temperature=temperature))
        for request, completion in zip(requests, done, strict=True):
            expected = logprobs(model, request.prompt_ids, completion.token_ids, temperature)
            assert torch.allclose(expected, torch.tensor(completion.rollout_logprobs), atol=2e-4)
            assert completion.policy_version == 7
            if not isinstance(engine, ServerEngine):  # a server decodes token by token, bytes of broken characters too
                assert completion.text == tokenizer.decode(completion.token_ids, skip_special_tokens=True)
            assert len(completion.token_ids) == len(completion.rollout_logprobs) == len(completion.loss_mask)
            ended = completion.token_ids[-1] == tokenizer.eos_token_id
            assert completion.finish_reason is (FinishReason.STOP if ended else FinishReason.LENGTH)
            assert ended or len(completion.token_ids) == 40


def test_the_same_requests_give_the_same_tokens_and_logprobs(opened) -> None:
    engine, _, tokenizer = opened
    requests = [Request(prompt_ids=tuple(tokenizer(f"q{i}")["input_ids"]), seed=i) for i in range(24)]
    params = SamplingParams(max_tokens=24)
    first, again = completions(engine, requests, params), completions(engine, requests, params)
    assert [one.token_ids for one in again] == [one.token_ids for one in first]
    assert len({completion.token_ids for completion in first}) == 24
    if isinstance(engine, ServerEngine):  # arrival decides what runs side by side, and so the last bits
        for one, other in zip(first, again, strict=True):
            assert one.rollout_logprobs == pytest.approx(other.rollout_logprobs, abs=1e-5)
    else:
        assert again == first


def test_two_syncs_in_a_row_take_effect(opened) -> None:
    engine, model, tokenizer = opened
    probe = probe_ids(model.config.vocab_size, forbidden=tokenizer.all_special_ids, limit=CONTEXT - 1)
    assert len(probe) > 16, "longer than one KV block"
    for version in (8, 9):
        stale = list(engine.score(probe))
        shake(model, seed=version)
        arrived = engine.load_weights(named(model), version)
        check_checksum(checksum(named(model)), arrived)
        ours = logprobs(model, tuple(probe[:1]), tuple(probe[1:]), 1.0).tolist()
        assert check_probe(engine.score(probe), ours, torch.float32) < 1e-4
        with pytest.raises(EngineError, match="score the probe alike"):
            check_probe(stale, ours, torch.float32)
        done = completions(engine, [Request(prompt_ids=tuple(probe[:20]), seed=3)], SamplingParams(max_tokens=30))[0]
        expected = logprobs(model, tuple(probe[:20]), done.token_ids, 1.0)
        assert torch.allclose(expected, torch.tensor(done.rollout_logprobs), atol=2e-4)
        assert done.policy_version == version


def test_a_request_may_have_limits_of_its_own(opened) -> None:
    engine, _, tokenizer = opened
    prompt = tuple(tokenizer("limits")["input_ids"])
    requests = [Request(prompt_ids=prompt, seed=5, max_tokens=most) for most in (None, 3, 7, 100)]
    done = completions(engine, requests, SamplingParams(max_tokens=20))
    longest = done[0].token_ids
    assert [one.token_ids for one in done] == [longest, longest[:3], longest[:7], longest]
    text = tokenizer.decode(longest)
    (stop,) = [text[6]]
    stopped = Request(prompt_ids=prompt, seed=5, stop=(stop,))
    free, ended = completions(engine, [requests[0], stopped], SamplingParams(max_tokens=20))
    assert free.token_ids == longest
    assert ended.text == text[: text.index(stop) + 1]


@pytest.mark.parametrize("frame", ["inline", "chat"])
def test_episodes_of_several_turns_have_the_ids_that_the_engine_was_given_and_sampled(
    opened, frame: str, record_property: Callable[[str, object], None]
) -> None:
    engine, model, _ = opened
    engine.load_weights(named(model), 11)
    chat = {"reply": "tool", "template": CHATML, "max_tokens": 130} if frame == "chat" else {}
    problems = 12
    if isinstance(engine, ServerEngine):  # with few stops, few rows have a second turn
        chat |= {"environment": f"{mirrors.__file__}:FewStops", "max_tokens": 130}
        problems = 36
    with GradingPool(workers=1, limits=PoolLimits(wall_seconds=60)) as pool:
        spy, groups = sample(engine, pool, problems=problems, group=4, **chat)
    assert faults_of(spy, groups) == []
    rows = [rollout for group in groups for rollout in group.rollouts]
    assert len(rows) == 4 * problems
    assert sum(len(row.completion.segments) > 2 for row in rows) > 10
    gaps: dict[bool, list[float]] = {False: [], True: []}
    for row in rows:
        expected = logprobs(model, row.prompt_ids, row.completion.token_ids, 1.0).tolist()
        behind = False
        for own, ours, theirs in zip(row.completion.loss_mask, expected, row.completion.rollout_logprobs, strict=True):
            behind = behind or not own
            if own:
                gaps[behind].append(abs(ours - theirs))
    for behind, found in gaps.items():
        where = "behind a reply" if behind else "first turn"
        said = f"{type(engine).__name__} {frame}: {where}: {len(found)} tokens, largest gap {max(found):.1e}"
        record_property(f"{frame} {where}", said)
        print(said)
        assert len(found) > 50
        assert max(found) < 2e-4, said


def test_stop_strings_end_a_completion_and_stay_in_its_text(opened) -> None:
    engine, _, tokenizer = opened
    requests = [Request(prompt_ids=tuple(tokenizer("go")["input_ids"]), seed=seed) for seed in range(40)]
    stops = ("a", "7", "Z")
    done = completions(engine, requests, SamplingParams(max_tokens=60, stop=stops))
    stopped = [c for c in done if c.finish_reason is FinishReason.STOP and c.token_ids[-1] != tokenizer.eos_token_id]
    assert stopped, "an untrained model of 259 tokens meets one of three letters within 60"
    for completion in stopped:
        assert completion.text.endswith(stops)
        assert not any(stop in completion.text[:-1] for stop in stops)


def test_greedy_is_the_most_likely_token(opened) -> None:
    engine, model, tokenizer = opened
    prompt = tuple(tokenizer("hello")["input_ids"])
    done = completions(engine, [Request(prompt_ids=prompt, seed=0)], SamplingParams(max_tokens=10, temperature=0.0))[0]
    ids = list(prompt)
    for token in done.token_ids:
        with torch.no_grad():
            assert int(model(torch.tensor([ids])).logits[0, -1].argmax()) == token
        ids.append(token)


def test_a_choice_has_the_chances_that_the_model_gives_it(opened) -> None:
    engine, model, tokenizer = opened
    engine.load_weights(named(model), 12)
    prompts = [tokenizer(f"{number} or ")["input_ids"] for number in range(9)]
    for texts in (("A", "B"), ("yes", "no", "AB")):  # one token each; several
        choices = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts}
        found = engine.choose(prompts, choices)
        for prompt, chances in zip(prompts, found, strict=True):
            logs = torch.stack([logprobs(model, tuple(prompt), tuple(ids), 1.0).sum() for ids in choices.values()])
            assert chances == pytest.approx(logs.softmax(0).tolist(), abs=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_hf_engine_samples_under_either_attention(tmp_path: Path, attention: str) -> None:
    shape = ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=CONTEXT)
    model, tokenizer = load_model(ModelSection(from_scratch=shape, attention=attention), seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = open_engine("hf", model_path=str(tmp_path), dtype="float32", max_model_len=CONTEXT, seed=0, model=model)
    requests = [Request(prompt_ids=tuple(range(20, 20 + length)), seed=length) for length in (3, 30, 7)]
    for request, completion in zip(requests, completions(engine, requests, SamplingParams(max_tokens=40)), strict=True):
        expected = logprobs(model, request.prompt_ids, completion.token_ids, 1.0)
        assert torch.allclose(expected, torch.tensor(completion.rollout_logprobs), atol=1e-4)


def test_a_completion_ends_at_the_tokens_that_it_is_told_and_at_no_other(opened) -> None:
    engine, _, tokenizer = opened
    requests = [Request(prompt_ids=tuple(tokenizer(f"t{i}")["input_ids"]), seed=i) for i in range(48)]
    eos = tokenizer.eos_token_id
    free = completions(engine, requests, SamplingParams(max_tokens=40, end_ids=()))
    assert all(done.finish_reason is FinishReason.LENGTH and len(done.token_ids) == 40 for done in free)
    assert any(eos in done.token_ids for done in free)
    ends = {tokenizer.convert_tokens_to_ids("<|im_start|>"), *range(60, 66)}
    for request, whole in zip(requests[:16], free, strict=False):
        (done,) = completions(engine, [request], SamplingParams(max_tokens=40, end_ids=tuple(sorted(ends))))
        at = next((place for place, token in enumerate(whole.token_ids) if token in ends), 39)
        assert done.token_ids[:-1] == whole.token_ids[:at]
        assert (done.token_ids[-1] in ends) == (done.finish_reason is FinishReason.STOP)


def test_a_prompt_that_leaves_no_room_is_refused(opened) -> None:
    engine, _, _ = opened
    with pytest.raises(EngineError, match="context"):
        list(engine.generate([Request(prompt_ids=tuple(range(150)), seed=0)], SamplingParams(max_tokens=20)))


def test_completions_stream_before_the_last_one_is_done(opened) -> None:
    engine, _, tokenizer = opened
    requests = [Request(prompt_ids=tuple(tokenizer(f"s{i}")["input_ids"]), seed=i) for i in range(16)]
    order = [done.index for done in engine.generate(requests, SamplingParams(max_tokens=60, stop=("e", "1", " ")))]
    assert sorted(order) == list(range(16))
    assert order != list(range(16)), "short completions come first"


def test_a_missing_tensor_is_caught(tmp_path: Path, opened) -> None:
    _engine, model, _ = opened
    sent = checksum(named(model))
    arrived = checksum(named(model)[1:])
    with pytest.raises(EngineError, match="arrive"):
        check_checksum(sent, arrived)


def test_an_engine_dropped_in_the_middle_of_a_step_serves_the_next_one(opened) -> None:
    engine, _, tokenizer = opened
    requests = [Request(prompt_ids=tuple(tokenizer(f"d{i}")["input_ids"]), seed=i) for i in range(16)]
    params = SamplingParams(max_tokens=40)
    whole = completions(engine, requests, params)
    for _ in engine.generate(requests, params):
        break
    assert [one.token_ids for one in completions(engine, requests, params)] == [one.token_ids for one in whole]


def test_a_killed_server_costs_nothing_but_its_own_requests_time(opened) -> None:
    engine, model, tokenizer = opened
    if not isinstance(engine, ServerEngine):
        return  # one process: it dies with the trainer
    given = open_engine(
        "vllm-server",
        model_path="",
        dtype="float32",
        max_model_len=CONTEXT,
        urls=[server.url for server in engine.servers],
    )
    assert isinstance(given, ServerEngine)
    requests = [Request(prompt_ids=tuple(tokenizer(f"k{i}")["input_ids"]), seed=i) for i in range(64)]
    params = SamplingParams(max_tokens=100)
    undisturbed = completions(given, requests, params)
    found: dict[int, Completion] = {}
    shares: list[list[int]] = []
    for index, completion in engine.generate(requests, params):
        found[index] = completion
        if len(found) == 2:
            shares.append([server.pending for server in engine.servers])
            os.kill(engine.servers[0].process.pid, signal.SIGKILL)
    assert min(shares[0]) > 0
    assert max(shares[0]) - min(shares[0]) <= 2, "both had their share of the load"
    assert sorted(found) == list(range(64))
    assert [found[index].token_ids for index in range(64)] == [one.token_ids for one in undisturbed]
    assert [server.alive for server in engine.servers] == [False, True]
    assert engine.load_weights(named(model), 20) == checksum(named(model)), "the one that is left is synced"
    given.close()
    assert engine.servers[1].ready(), "closing an engine leaves servers that it was given"


@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral"])
def test_vllm_takes_the_new_weights_of_experts(name: str, tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    heads = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    model = tiny(name, vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, **heads, **ends)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = open_engine("vllm", model_path=str(tmp_path), max_model_len=CONTEXT, kv_cache_gigabytes=0.25)
    probe = probe_ids(len(tokenizer), forbidden=tokenizer.all_special_ids, limit=CONTEXT - 1)
    for version in (1, 2, 3):
        stale = engine.score(probe)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "experts" in key:
                    parameter.mul_(0.5)
        assert engine.load_weights(named(model), version) == checksum(named(model))
        ours = logprobs(model, tuple(probe[:1]), tuple(probe[1:]), 1.0).tolist()
        assert check_probe(engine.score(probe), ours, torch.float32) < 1e-5
        with pytest.raises(EngineError, match="score the probe alike"):
            check_probe(stale, ours, torch.float32)
    engine.close()


def test_vllm_on_a_cpu_holds_a_cache_for_one_full_batch_and_no_more(tmp_path: Path) -> None:
    section = ScratchConfig(hidden_size=64, layers=2, heads=2, max_positions=CONTEXT)
    model, tokenizer = load_model(ModelSection(from_scratch=section), seed=0)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = open_engine("vllm", model_path=str(tmp_path), max_model_len=CONTEXT, max_batch=3)
    cache = engine._llm.llm_engine.vllm_config.cache_config
    assert (cache.block_size, cache.num_gpu_blocks) == (128, 1 + 3 * 2)
    requests = [Request(prompt_ids=(5, 6, 7), seed=seed) for seed in range(8)]
    found = completions(engine, requests, SamplingParams(max_tokens=CONTEXT - 3, end_ids=()))
    assert {len(one.token_ids) for one in found} == {CONTEXT - 3}
    engine.close()


def test_vllm_refuses_heads_that_its_cpu_kernels_lack() -> None:
    from reasoner.engine.vllm_internals import check_head_size

    check_head_size(64)
    with pytest.raises(EngineError, match=r"head sizes 32, .* this model has 16. Set engine.name=hf"):
        check_head_size(16)


def test_vllm_takes_the_calls_that_its_stand_in_takes() -> None:
    import vllm

    for name in ("sleep", "wake_up", "collective_rpc", "reset_prefix_cache", "get_tokenizer"):
        ours, theirs = (inspect.signature(getattr(kind, name)).parameters for kind in (Llm, vllm.LLM))
        assert set(ours) <= set(theirs), name
