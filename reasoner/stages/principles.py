"""Written principles of a constitutional stage. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from reasoner.config.errors import ConfigError
from verifiers.plain_yaml import read_yaml_file


class Principle(NamedTuple):
    """A principle for answers, with the instructions for critique, revision and comparison."""

    name: str
    critique: str
    revision: str
    comparison: str


def load_principles(path: str) -> list[Principle]:
    """Read principles from a YAML file or, by name, from the shipped ones.

    The file is a list of {name, text, critique?, revision?, comparison?}; missing instructions are the text.

    Raises:
        ConfigError: the file cannot be read, or an entry is not a principle.
    """
    shipped = Path(__file__).resolve().parents[2] / "configs" / "principles" / f"{path}.yaml"
    file = Path(path) if Path(path).is_file() else shipped
    try:
        rows = read_yaml_file(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError("bad-value", f"constitutional.principles {path!r} cannot be read: {error}") from error
    found: list[Principle] = []
    for row in rows if isinstance(rows, list) else [rows]:
        known = {"name", "text", "critique", "revision", "comparison"}
        if not isinstance(row, dict) or set(row) - known or not row.get("name") or not row.get("text"):
            raise ConfigError(
                "bad-value", f"{file}: a principle must have name and text, of {sorted(known)}; got {row}"
            )
        parts = [str(row.get(part, row["text"])) for part in ("critique", "revision", "comparison")]
        found.append(Principle(str(row["name"]), *parts))
    if len({principle.name for principle in found}) != len(found):
        raise ConfigError("bad-value", f"{file}: principles must have different names.")
    return found
