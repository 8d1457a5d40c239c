"""A pretend accelerator: CPU memory whose tensors claim to be on a device called "pretend".

Its operations are computed by torch's CPU kernels, so the numbers are real. An operation on a host tensor and a device
tensor raises where CUDA would raise, and so does one with a generator of the host. This finds tensors that were left
behind, on a machine without any accelerator. It says nothing about speed, memory, streams, bfloat16 kernels, or code
that asks for "cuda" by name.

What runs on it is computed by torch's CPU kernels, so its numbers are real; but an operation that is given a tensor of
the host beside one of the device raises where CUDA would raise, and so does a generator of the host. It finds tensors
that were left behind, on a machine without any accelerator. It says nothing about speed, memory, streams, bfloat16
kernels, or code that asks for "cuda" by name.

Tensors go to and fro through DLPack, whose header names the device that memory belongs to, and every operation that
torch has no other kernel for goes through one fallback. `install` changes the process for good: call it in one of its
own, before anything is differentiated.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
HOST, DEVICE = 1, 12
"""DLPack's kDLCPU and kDLExtDev: dlpack.h, DLDeviceType."""

INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
"""Operations that accept host tensors as indices: aten/src/ATen/TensorIndexing.h moves them."""
TAKES_NUMBERS = {"masked_fill", "masked_fill_", "fill_", "where"} | INDEXING
"""Operations that accept a host tensor without dimensions as a number; every pointwise operation does."""

_LIBRARIES: list[torch.library.Library] = []


def install() -> torch.device:
    """Register the device with torch, once per process, and return it."""
    if not _LIBRARIES:
        _setup_privateuseone_for_python_backend(NAME, backend_module=_module())
        every, own = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
        every.fallback(_run, "PrivateUse1")
        own.impl("copy_", _copy, "PrivateUse1")
        own.impl("set_.source_Storage", _set, "PrivateUse1")
        _LIBRARIES.extend((every, own))
        # as on CUDA, a module that moves keeps its parameters' identity, which its optimizer knows them by
        torch.__future__.set_swap_module_params_on_conversion(True)
    return torch.device(NAME, 0)


def _module() -> Any:
    """The module `torch.pretend` that torch needs; its random numbers are the host's."""

    def nothing(*_: object, **__: object) -> None:
        return None

    return SimpleNamespace(
        is_initialized=lambda: True,
        is_available=lambda: True,
        _is_in_bad_fork=lambda: False,
        current_device=lambda: 0,
        device_count=lambda: 1,
        manual_seed_all=nothing,
        set_device=nothing,
        get_rng_state=lambda *_: torch.get_rng_state(),
        set_rng_state=lambda state, *_: torch.set_rng_state(state),
        get_amp_supported_dtype=lambda: [torch.bfloat16],
    )


def _on(tensor: Tensor, kind: int) -> Tensor:
    """Return the same memory as a tensor on another kind of device."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = torch._C._to_dlpack(tensor)
    # DLManagedTensor begins with a pointer to the data, then int32 device_type and int32 device_id
    at = pointer(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p)
    ctypes.c_int32.from_address(at).value, ctypes.c_int32.from_address(at + 4).value = kind, 0
    return torch._C._from_dlpack(capsule)  # pyright: ignore[reportAttributeAccessIssue]


def _held(value: object) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def _host(value: Any) -> Any:
    if _held(value):
        return _on(value, HOST)
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _copy(to: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        _host(to).copy_(_host(source))
    return to


def _set(tensor: Tensor, source: torch.UntypedStorage) -> Tensor:
    """Return the bytes of a storage as a tensor: this is how torch copies a storage into a file."""
    memory = (ctypes.c_uint8 * source.nbytes()).from_address(source.data_ptr()) if source.nbytes() else bytearray(1)
    tensor.data = _on(torch.frombuffer(memory, dtype=torch.uint8)[: source.nbytes()].clone(), DEVICE)
    return tensor


def _run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """Check any operation, then compute it on the same memory with the CPU's kernel."""
    args = tuple(_tensors(op, args))
    _check(op, args, kwargs)
    written = list(_written(op, args, kwargs))
    pairs: list[tuple[Tensor, Tensor]] = []

    def lowered(value: Any) -> Any:
        lower = _host(value)
        if lower is not value and isinstance(value, Tensor):
            if value.numel() == 0 and any(value is held for held in written):
                lower = torch.empty_like(lower)  # an output that the kernel may give its size
            pairs.append((value, lower))
        return lower

    with torch._C._AutoDispatchBelowAutograd():
        found = op(*_pytree.tree_map(lowered, args), **_pytree.tree_map(lowered, kwargs | _pageable(kwargs)))
    for value, lower in pairs:
        if (value.data_ptr(), value.shape, value.stride()) != (lower.data_ptr(), lower.shape, lower.stride()):
            value.data = _on(lower, DEVICE)
    if any(given.alias_info is not None and given.alias_info.is_write for given in op._schema.returns):
        return written[0] if len(op._schema.returns) == 1 else tuple(written[: len(op._schema.returns)])
    return _pytree.tree_map(lambda value: _on(value, DEVICE) if isinstance(value, Tensor) else value, found)


def _tensors(op: Any, args: tuple[Any, ...]) -> Iterator[Any]:
    """Return a number that torch passes as a tensor as a number again."""
    for argument, value in zip(op._schema.arguments, args, strict=False):
        number = isinstance(value, bool | int | float) and str(argument.type) == "Tensor"
        yield torch.tensor(value) if number else value


def _pageable(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {"pin_memory": False} if "pin_memory" in kwargs else {}


def _written(op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Return the arguments that an operation writes to."""
    for place, argument in enumerate(op._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield args[place] if not argument.kwarg_only and place < len(args) else kwargs.get(argument.name)


def _check(op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise an error where CUDA would.

    Raises:
        RuntimeError: a tensor or a generator of the host where it is not accepted.
    """
    name = op._schema.name.removeprefix("aten::")
    given = _pytree.tree_leaves((args, dict(kwargs)))
    places = _pytree.tree_leaves(args[1]) if name in INDEXING and _held(args[0]) else []
    numbers = name in TAKES_NUMBERS or name.startswith("_foreach") or torch.Tag.pointwise in op.tags
    for value in given:
        if isinstance(value, torch.Generator):
            raise RuntimeError(f"{op}: expected a generator of {NAME}, found one of {value.device}")
        if isinstance(value, Tensor) and not _held(value):
            if any(value is place for place in places) or (numbers and value.dim() == 0):
                continue
            raise RuntimeError(
                f"{op}: expected all tensors to be on the same device; {NAME} beside a tensor of {value.device},"
                f" {value.dtype} {tuple(value.shape)}"
            )


__all__ = ["NAME", "install"]
