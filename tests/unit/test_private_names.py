"""Private names of other libraries: their use here, their existence, and the alternative.

A failure here after an update is the complete damage report: each entry names the code that depends on it and the
alternative.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}
"""Public names, in spite of their underscores."""


class Name(NamedTuple):
    """A name of a library that its next version may drop."""

    library: str
    owner: str
    """The one file of `reasoner/` that uses it."""
    name: str
    there: Callable[[], bool]
    remedy: str
    """Instruction for the case that it is gone."""


def at(path: str) -> Callable[[], bool]:
    """Return True if `package.module:attribute.attribute` exists."""

    def there() -> bool:
        module, _, attributes = path.partition(":")
        try:
            reduce(getattr, attributes.split("."), importlib.import_module(module))
        except (ImportError, AttributeError):
            return False
        return True

    return there


def tiny(**more: object):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=16, num_key_value_heads=1, **sizes, **more)).eval()


def adapted():
    import peft

    return peft.get_peft_model(tiny(), peft.LoraConfig(r=1, target_modules=["q_proj"]), adapter_name="mine")


def cache_has_layers() -> bool:
    cache = tiny()(torch.zeros(1, 3, dtype=torch.long), use_cache=True).past_key_values
    return [layer.keys.shape[2] == layer.values.shape[2] == 3 for layer in cache.layers] == [True]


def adapter_names() -> bool:
    names = [name for name, _ in adapted().named_parameters()]
    modules = [name for name, _ in adapted().named_modules()]
    bare = [name for name, _ in tiny().named_parameters()]
    return (
        len([name for name in names if ".lora_" in name and "mine" in name.split(".")]) == 2
        and len([name for name in names if ".base_layer." in name]) == 2
        and any(".lora_dropout." in name for name in modules)
        and not [name for name in bare if ".lora_" in name or ".base_layer." in name]
    )


def four_bit_layer() -> bool:
    from bitsandbytes.nn import Linear4bit

    layer = Linear4bit(64, 64, bias=False, quant_type="nf4").to("cpu")
    return hasattr(layer, "support_avx512bf16_for_cpu") and hasattr(layer.weight, "quant_state")


def active_adapter() -> bool:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in adapted().modules() if isinstance(module, BaseTunerLayer)]
    layers[0]._active_adapter = ["other"]
    return len(layers) == 1 and layers[0].active_adapters == ["other"]


def shards_by_name() -> bool:
    from accelerate.utils import FullyShardedDataParallelPlugin

    fields = {field.name for field in dataclasses.fields(FullyShardedDataParallelPlugin)}
    return "transformer_cls_names_to_wrap" in fields


INTERNALS, LORA, VLLM = "model/internals.py", "model/lora.py", "engine/vllm_internals.py"
NAMES = [
    Name(
        "transformers",
        INTERNALS,
        "_attn_implementation",
        lambda: tiny(attn_implementation="eager").config._attn_implementation == "eager",
        "read the attention that a model runs from whatever `set_attn_implementation` writes now, in `attention_of`",
    ),
    Name(
        "transformers",
        INTERNALS,
        "layers",
        cache_has_layers,
        "yield keys and values of each layer from whatever a forward pass with use_cache=True returns, in"
        " `keys_and_values`",
    ),
    Name(
        "transformers",
        INTERNALS,
        "hf_quantizer",
        lambda: '"hf_quantizer"' in source("transformers.modeling_utils:PreTrainedModel.save_pretrained"),
        "find how `save_pretrained` knows a quantized model now, and undo it in `forget_quantization`",
    ),
    Name(
        "peft",
        LORA,
        "_active_adapter",
        active_adapter,
        "switch adapters in `using_adapter` by `set_adapter`, and set `requires_grad` of all adapters back after it",
    ),
    Name("peft", LORA, ".lora_", adapter_names, "ask peft for an adapter's parameters in `is_adapter`"),
    Name(
        "accelerate",
        "session/accelerator.py",
        "_reset_state",
        at("accelerate.state:AcceleratorState._reset_state"),
        "give each stage of another precision a process of its own, or find what forgets the precision now",
    ),
    Name(
        "accelerate",
        "model/sharding.py",
        "transformer_cls_names_to_wrap",
        shards_by_name,
        "tell accelerate which layers to shard by what has taken its place, in `name_layers`",
    ),
]
OPTIONAL = [
    Name(
        "bitsandbytes",
        "model/quantized.py",
        "quant_state",
        four_bit_layer,
        "find how a 4-bit layer is known now (`quantized_layers`), and what keeps it from repacking itself (`settle`)",
    )
]
IN_VLLM = [
    Name(
        "vllm",
        VLLM,
        "reload_weights",
        at("vllm.v1.worker.gpu_worker:Worker.reload_weights"),
        "load weights in place by what has taken its place, in `load_into`; the contract test shows that it works",
    ),
    Name(
        "vllm",
        VLLM,
        "dispatch_cpu_unquantized_gemm",
        at("vllm.model_executor.layers.utils:dispatch_cpu_unquantized_gemm"),
        "see whether the CPU build still packs a tied head apart; `repack_tied_head` may go where it does not",
    ),
    Name(
        "vllm",
        VLLM,
        "cpu_linear",
        lambda: "cpu_linear" in source("vllm.model_executor.layers.utils:dispatch_cpu_unquantized_gemm"),
        "find the packed copy of a tied head's weights, in `repack_tied_head`",
    ),
    Name(
        "vllm",
        VLLM,
        "shutdown",
        at("vllm.v1.engine.core_client:InprocClient.shutdown"),
        "end an engine by what has taken its place, in `stop_core`",
    ),
    Name(
        "vllm",
        VLLM,
        "destroy_distributed_environment",
        lambda: (
            "destroy_distributed_environment()" in source("vllm.distributed.parallel_state:cleanup_dist_env_and_memory")
        ),
        "see what ends the trainer's process group when an engine of several processes is closed, in `stop_core`",
    ),
    Name(
        "vllm",
        VLLM,
        "_WORLD",
        at("vllm.distributed.parallel_state:_WORLD"),
        "as for destroy_distributed_environment",
    ),
    Name(
        "vllm",
        VLLM,
        "allocator_and_pools",
        lambda: "self.allocator_and_pools" in source("vllm.device_allocator.cumem:CuMemAllocator.__init__"),
        "see whether a second engine starts in one process after the first has slept; if so `pools_outlive` may go",
    ),
    Name(
        "vllm",
        VLLM,
        "release_pools",
        at("vllm.device_allocator.cumem:CuMemAllocator.release_pools"),
        "as for allocator_and_pools",
    ),
    Name(
        "vllm",
        VLLM,
        "get_supported_head_sizes",
        at("vllm.v1.attention.backends.cpu_attn:CPUAttentionBackend.get_supported_head_sizes"),
        "find the sizes that the CPU's attention takes, in `check_head_size`",
    ),
]
ROUTES = ("/pause", "/resume", "/collective_rpc", "/reset_prefix_cache")
"""Endpoints of vLLM's development mode, which `engine/remote.py` posts to."""


def source(path: str) -> str:
    """Return the source of `package.module:attribute`."""
    module, _, attributes = path.partition(":")
    return inspect.getsource(reduce(getattr, attributes.split("."), importlib.import_module(module)))


def check(name: Name) -> None:
    assert f"{name.name}" in (ROOT / "reasoner" / name.owner).read_text(), f"{name.owner} does not use {name.name}"
    assert name.there(), f"{name.library} has no {name.name} any more: {name.remedy} (reasoner/{name.owner})."


@pytest.mark.parametrize("name", NAMES, ids=lambda name: f"{name.library} {name.name}")
def test_a_name_is_there(name: Name) -> None:
    check(name)


@pytest.mark.parametrize("name", OPTIONAL, ids=lambda name: f"{name.library} {name.name}")
def test_a_name_of_an_extra_is_there(name: Name) -> None:
    pytest.importorskip(name.library)
    check(name)


@pytest.mark.integration
def test_vllms_names_are_there() -> None:
    pytest.importorskip("vllm")
    for name in IN_VLLM:
        check(name)
    served = "".join(path.read_text() for path in (ROOT / "reasoner/engine").glob("*.py"))
    folder = Path(importlib.util.find_spec("vllm").origin).parent / "entrypoints"
    routers = "".join(path.read_text() for path in folder.rglob("*.py"))
    for route in ROUTES:
        assert f'"{route}' in served, route
        assert f'@router.post("{route}"' in routers, (
            f"vLLM serves no {route} any more: weights reach a server in `Server.load` (reasoner/engine/remote.py);"
            " pause, reload and go on by what has taken its place."
        )


def private_uses(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name wherever code reads, writes or imports a name with one leading underscore that is not its own.

    Its own are attributes of self, cls and super(), and plain names of the same file.
    """

    def private(name: object) -> bool:
        return isinstance(name, str) and name[:1] == "_" and name[:2] != "__" and name not in NAMED_TUPLE

    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            owner = node.value.func if isinstance(node.value, ast.Call) else node.value
            if not (isinstance(owner, ast.Name) and owner.id in ("self", "cls", "super")):
                yield node.lineno, node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("getattr", "setattr", "hasattr", "delattr") and len(node.args) > 1:
                named = node.args[1]
                if isinstance(named, ast.Constant) and private(named.value):
                    yield node.lineno, str(named.value)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] not in ("reasoner", "__future__"):
            for name in (*(node.module or "").split("."), *(alias.name for alias in node.names)):
                if private(name):
                    yield node.lineno, name
        elif isinstance(node, ast.Import):
            for name in (part for alias in node.names for part in alias.name.split(".")):
                if private(name):
                    yield node.lineno, name


def test_no_other_file_touches_a_private_name() -> None:
    allowed = {(name.owner, name.name) for name in (*NAMES, *OPTIONAL, *IN_VLLM)}
    wrong = []
    for path in sorted((ROOT / "reasoner").rglob("*.py")):
        file = str(path.relative_to(ROOT / "reasoner"))
        for line, name in private_uses(ast.parse(path.read_text())):
            if (file, name) not in allowed:
                wrong.append(f"reasoner/{file}:{line}: {name}")
    assert not wrong, "private names belong in the one file that owns them, listed above:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ("model.config._attn_implementation = 'sdpa'", "_attn_implementation"),
        ("torch._C.Generator()", "_C"),
        ("if hasattr(module, '_no_split_modules'): pass", "_no_split_modules"),
        ("setattr(layer, '_active_adapter', [1])", "_active_adapter"),
        ("from transformers.utils import _is_package_available", "_is_package_available"),
        ("from torch._dynamo import reset", "_dynamo"),
        ("import torch._inductor.config", "_inductor"),
        ("engine().llm._core", "_core"),
        ("self._own = 1; cls._own; super()._own; row._replace(a=1); _own(); x.__dict__; getattr(x, name)", None),
        ("from reasoner.config.load import _set", None),
    ],
)
def test_the_check_catches_what_is_planted_and_nothing_else(code: str, caught: str | None) -> None:
    found = [name for _, name in private_uses(ast.parse(code))]
    assert found[:1] == ([caught] if caught else [])


def test_one_place_imports_each_library_that_is_optional() -> None:
    """vLLM and bitsandbytes are imported by the files that know them; peft's types may be named elsewhere."""
    owners = {
        "vllm": {"engine/vllm.py", VLLM},
        "bitsandbytes": {"model/quantized.py"},
        "peft": {LORA},
    }
    found: dict[str, set[str]] = {library: set() for library in owners}
    for path in sorted((ROOT / "reasoner").rglob("*.py")):
        tree = ast.parse(path.read_text())
        typed = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
        for_types = {id(inner) for node in typed for inner in ast.walk(node)}
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for library in {name.split(".")[0] for name in names} & owners.keys():
                if id(node) not in for_types:
                    found[library].add(str(path.relative_to(ROOT / "reasoner")))
    assert found == owners
