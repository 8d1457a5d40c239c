"""Mappings and lists as YAML gives them, before they are sections."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeGuard


def is_mapping(value: object) -> TypeGuard[dict[str, object]]:
    """True for a mapping that comes from YAML or JSON."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[object]]:
    """True for a list that comes from YAML or JSON."""
    return isinstance(value, list)


def are_mappings(value: object) -> TypeGuard[list[dict[str, object]]]:
    """True for a list of mappings."""
    return is_list(value) and all(map(is_mapping, value))


def deep_merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """Lay `over` over `base`: mappings are merged key by key, everything else is replaced."""
    result: dict[str, object] = copy.deepcopy(dict(base))
    for key, value in over.items():
        current = result.get(key)
        result[key] = deep_merge(current, value) if is_mapping(current) and is_mapping(value) else copy.deepcopy(value)
    return result
