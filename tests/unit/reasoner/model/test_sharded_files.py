"""A model read after its memory was laid out, one written by several processes, an optimizer in shards of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from reasoner.config.sections import ModelSection, ScratchConfig
from reasoner.model.load import check_filled, load_empty, load_model
from reasoner.model.paths import ModelError
from reasoner.model.save import write_index, write_model, write_model_share
from reasoner.model.sharding import (
    fill,
    load_optimizer_shards,
    optimizer_tensors,
    own_share,
    save_optimizer_shards,
    stored_tensors,
)

SHAPE = {"hidden_size": 16, "layers": 2, "heads": 2, "max_positions": 32}


def folder_of(tmp_path: Path, *, tied: bool = True) -> Path:
    made = load_model(ModelSection(from_scratch=ScratchConfig(**SHAPE, tie_embeddings=tied)), seed=3)
    write_model(made.model, made.tokenizer, made.model.state_dict(), tmp_path / "model", torch.float32)
    return tmp_path / "model"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_filled_later_is_the_model(tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    section = ModelSection(path=str(folder_of(tmp_path, tied=tied)))
    empty = load_empty(section, weights_dtype=dtype)
    assert empty is not None
    model, whole = empty.loaded.model, load_model(section, seed=0, weights_dtype=dtype).model
    parameters = dict(model.named_parameters())
    check_filled(parameters, [fill(parameters.items(), empty.stored)], "model")
    ours, theirs = (dict(one.named_parameters()) | dict(one.named_buffers()) for one in (model, whole))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name
    assert model.config.to_dict() == whole.config.to_dict()
    assert model.generation_config is not None
    assert whole.generation_config is not None
    assert model.generation_config.to_dict() == whole.generation_config.to_dict()
    ids = torch.arange(8)[None]
    assert torch.equal(model(input_ids=ids).logits, whole(input_ids=ids).logits)


def test_a_model_from_scratch_or_with_other_names_is_loaded_as_a_whole(tmp_path: Path) -> None:
    assert load_empty(ModelSection(from_scratch=ScratchConfig(**SHAPE)), weights_dtype=torch.float32) is None
    folder = folder_of(tmp_path)
    file = folder / "model.safetensors"
    save_file({f"other.{name}": held for name, held in load_file(file).items()}, file)
    assert load_empty(ModelSection(path=str(folder)), weights_dtype=torch.float32) is None
    file.unlink()
    assert load_empty(ModelSection(path=str(folder)), weights_dtype=torch.float32) is None


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "not finite"), (0.0, "only zeros")])
def test_damage_in_any_shard_is_named(value: float, said: str) -> None:
    parameters = {"a.weight": torch.zeros(2, 2), "b.bias": torch.zeros(2)}
    good, bad = {"a.weight": 1.0, "b.bias": 0.0}, {"a.weight": value, "b.bias": 0.0}
    with pytest.raises(ModelError, match=f"a.weight contains .*{said}"):
        check_filled(parameters, [bad, bad], "somewhere")
    check_filled(parameters, [good, {"a.weight": 0.0, "b.bias": 0.0}], "somewhere")  # a shard may be zero


def test_a_model_written_by_three_processes_is_a_plain_folder(tmp_path: Path) -> None:
    section = ModelSection(path=str(folder_of(tmp_path, tied=False)))
    model, tokenizer = load_model(section, seed=0)
    for rank in range(3):
        share = own_share(model.state_dict().items(), rank=rank, count=3)
        assert sum(held.nbytes for held in share.values()) < 0.5 * sum(held.nbytes for held in model.parameters())
        write_model_share(model, tokenizer, share, tmp_path / "shares", torch.float32, rank=rank, count=3)
    write_index(tmp_path / "shares")
    again, _ = load_model(ModelSection(path=str(tmp_path / "shares")), seed=0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert len(set(stored_tensors(tmp_path / "shares").values())) == 3
    with safe_open(tmp_path / "shares" / "model-00001-of-00003.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert again.config.architectures == ["Qwen2ForCausalLM"]


def test_an_optimizer_comes_back_from_its_shards(tmp_path: Path) -> None:
    def optimizer(steps: int) -> tuple[torch.optim.AdamW, torch.nn.Linear]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(5, 3)
        made = torch.optim.AdamW(layer.parameters(), lr=0.1)
        for _ in range(steps):
            layer(torch.ones(2, 5)).square().sum().backward()
            made.step()
            made.zero_grad()
        return made, layer

    made, _ = optimizer(2)
    save_optimizer_shards(made, tmp_path / "optimizer", None)
    again, _ = optimizer(0)
    load_optimizer_shards(again, made.state_dict()["param_groups"], tmp_path / "optimizer", None)
    ours, theirs = optimizer_tensors(again), optimizer_tensors(made)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 6
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
