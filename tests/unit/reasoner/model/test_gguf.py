"""A GGUF file is converted once, to exactly the model that was written into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from reasoner.config.sections import ModelSection
from reasoner.model.gguf import GgufError, local_model
from reasoner.model.load import byte_tokenizer, load_config_and_tokenizer, load_model
from reasoner.model.paths import ModelError, check_model

HEADS = 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reasoner" / "gguf"


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, LlamaForCausalLM]:
    """A tiny Llama, and the GGUF file of its weights and of a tokenizer of bytes."""
    torch.manual_seed(3)
    tokens = sorted(byte_tokenizer().get_vocab().items(), key=lambda pair: pair[1])
    tokens.append(("ab", len(tokens)))
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    path = tmp_path / "tiny.gguf"
    file = GGUFWriter(str(path), "llama")
    file.add_context_length(64)
    file.add_embedding_length(32)
    file.add_block_count(2)
    file.add_feed_forward_length(64)
    file.add_head_count(HEADS)
    file.add_head_count_kv(HEADS)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_dimension_count(16)
    file.add_vocab_size(len(tokens))
    file.add_tokenizer_model("gpt2")
    file.add_token_list([token for token, _ in tokens])
    file.add_token_merges(["a b"])
    ends = dict(tokens)
    file.add_eos_token_id(ends["<|im_end|>"])
    file.add_bos_token_id(ends["<|im_start|>"])
    file.add_pad_token_id(ends["<|endoftext|>"])
    for name, weight in model.state_dict().items():
        file.add_tensor(_name(name), _permuted(name, weight).numpy())
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path, model


def _name(name: str) -> str:
    plain = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in plain or name == "lm_head.weight":
        return plain.get(name, "output.weight")
    _, _, layer, *rest = name.split(".")
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    return f"blk.{layer}.{parts['.'.join(rest[:-1])]}.weight"


def _permuted(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Reorder queries and keys for llama.cpp's rotary embedding, which pairs adjacent numbers and not halves."""
    if "q_proj" not in name and "k_proj" not in name:
        return weight
    rows, width = weight.shape
    return weight.reshape(HEADS, 2, rows // HEADS // 2, width).swapaxes(1, 2).reshape(rows, width).contiguous()


def test_the_converted_model_is_the_one_that_was_written(written: tuple[Path, LlamaForCausalLM], cache: Path) -> None:
    path, model = written
    loaded = load_model(ModelSection(path=str(path)), seed=0)
    ids = torch.arange(1, 20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits)
    assert loaded.tokenizer.decode(loaded.tokenizer("Ana has 12.").input_ids) == "Ana has 12."
    [folder] = cache.iterdir()
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert not hasattr(plain.config, "quantization_config")


def test_a_file_is_converted_once_and_said(
    written: tuple[Path, LlamaForCausalLM], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, _ = written
    folder = local_model(str(path))
    assert f"converting {path} once" in capfd.readouterr().err
    assert local_model(str(path)) == folder
    config, tokenizer = load_config_and_tokenizer(ModelSection(path=str(path)))
    assert config.model_type == "llama"
    assert tokenizer.eos_token == "<|im_end|>"
    assert "converting" not in capfd.readouterr().err
    path.touch()
    assert local_model(str(path)) != folder


def test_other_paths_are_left_as_they_are() -> None:
    assert local_model("org/model") == "org/model"
    assert local_model("org/model-gguf") == "org/model-gguf"


def test_what_is_no_gguf_file_is_told_in_a_sentence(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(GgufError, match="there is no such file"):
        local_model(str(tmp_path / "missing.gguf"))
    with pytest.raises(ModelError, match="there is no"):
        check_model(str(tmp_path / "missing.gguf"), "model.path")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model at all")
    check_model(str(broken), "model.path")
    with pytest.raises(GgufError, match="cannot be read as GGUF"):
        local_model(str(broken))
    assert not list(cache.iterdir())
