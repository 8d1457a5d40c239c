"""Mappings and lists as YAML returns them, before they become sections."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeGuard


def is_mapping(value: object) -> TypeGuard[dict[str, object]]:
    """Return True for a mapping read from YAML or JSON."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[object]]:
    """Return True for a list read from YAML or JSON."""
    return isinstance(value, list)


def are_mappings(value: object) -> TypeGuard[list[dict[str, object]]]:
    """Return True for a list of mappings."""
    return is_list(value) and all(map(is_mapping, value))


def deep_merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Merge `over` into a copy of `base`: mappings are merged key by key, other values are replaced."""
    result: dict[str, object] = copy.deepcopy(dict(base))
    for key, value in over.items():
        current = result.get(key)
        result[key] = deep_merge(current, value) if is_mapping(current) and is_mapping(value) else copy.deepcopy(value)
    return result
