"""YAML of bounded size: multiplying aliases, deep nesting and huge numbers raise errors about the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
"""Most values of a document, with every alias expanded."""
MAX_NESTING = 100
MAX_DIGITS = 1_000
"""Most characters of an integer: Python prints at most 4,300 digits, and hexadecimal ones become more in decimal."""


class YamlTooLarge(yaml.YAMLError):
    """The document exceeds a limit that no real config, suite or rubric reaches."""


def read_yaml_file(path: Path) -> object:
    """Return the value of a YAML file, as plain Python objects.

    Raises:
        OSError, UnicodeDecodeError: the file cannot be read as text.
        yaml.YAMLError: it is not YAML, or exceeds a limit.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise YamlTooLarge(f"it must be at most {MAX_BYTES >> 10} KiB long")
    return read_yaml(content.decode())


def read_yaml(text: str) -> object:
    """Return the value of a YAML text, as plain Python objects.

    Raises:
        yaml.YAMLError: it is not YAML, or exceeds a limit.

    Example:
        >>> read_yaml("a: &x [1, 2]\\nb: *x")
        {'a': [1, 2], 'b': [1, 2]}
    """
    if len(text) > MAX_BYTES:
        raise YamlTooLarge(f"it must be at most {MAX_BYTES >> 10} KiB long")
    loader: Any = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except RecursionError as error:
        raise YamlTooLarge(f"it must nest at most {MAX_NESTING} deep") from error
    except (ValueError, OverflowError, TypeError) as error:  # an invalid number or date, or a list as a key
        raise yaml.YAMLError(str(error)[:200]) from error
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Raise YamlTooLarge if the document is too deep, contains itself, or is too large with every alias expanded."""
    sizes: dict[int, int] = {}
    under_way: set[int] = set()
    waiting: list[tuple[yaml.Node, int, bool]] = [(root, 0, False)]
    while waiting:
        node, depth, entered = waiting.pop()
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":int") and len(node.value) > MAX_DIGITS:
            raise YamlTooLarge(f"a whole number must have at most {MAX_DIGITS} digits")
        parts = _parts(node)
        if entered:
            under_way.discard(id(node))
            sizes[id(node)] = 1 + sum(sizes[id(part)] for part in parts)
            if sizes[id(node)] > MAX_VALUES:
                raise YamlTooLarge(f"it must have at most {MAX_VALUES} values, with every alias expanded")
        elif id(node) in under_way:
            raise YamlTooLarge("no alias may refer to a value that contains it")
        elif id(node) not in sizes:
            if depth > MAX_NESTING:
                raise YamlTooLarge(f"it must nest at most {MAX_NESTING} deep")
            under_way.add(id(node))
            waiting.append((node, depth, True))
            waiting += [(part, depth + 1, False) for part in parts]


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


__all__ = ["YamlTooLarge", "read_yaml", "read_yaml_file"]
