"""Configs, suites and rubrics in YAML: aliases work; endlessly multiplying ones are refused at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reasoner.config.errors import ConfigError
from reasoner.config.load import load_config
from verifiers.errors import BadOption, FileError
from verifiers.kit.suite import load_suite
from verifiers.plain_yaml import MAX_BYTES, read_yaml, read_yaml_file
from verifiers.rubric.criteria import load_rubric

BOMBS = {
    "aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
    "merges": "a0: &a0 {x: 1}\n"
    + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 10)),
    "keys": "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{1: *a{i - 1}, 2: *a{i - 1}}}\n" for i in range(1, 40)),
    "itself": "a: &a [*a]",
    "itself by name": "a: &a {b: *a}",
    "deep lists": "a: " + "[" * 5000 + "]" * 5000,
    "deep mappings": "".join(" " * n + "a:\n" for n in range(500)),
    "just too deep": "a: " + "[" * 120 + "]" * 120,
    "long": "a: " + "x" * MAX_BYTES,
    "many": "a: [" + "1," * 2_001 + "]",
    "a number": "steps: " + "9" * 5000,
    "a date": "name: 2026-99-99",
    "a key": "? [1, 2]\n: 3",
    "a tag": "a: !!python/object/apply:os.system ['true']",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_what_has_no_bounds_is_an_error_of_the_file(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.plain_yaml.MAX_VALUES", 2_000)  # 100,000 take seconds to parse
    with pytest.raises(yaml.YAMLError):
        read_yaml(text)
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="must be YAML"):
        load_config(str(file))
    with pytest.raises(FileError, match="must be a suite in YAML"):
        load_suite(file)
    with pytest.raises(BadOption):
        load_rubric(str(file))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a: 1",
        "common: &c {x: 1, y: [1, 2]}\none: {<<: *c, x: 2}\ntwo: [*c, *c, *c]",
        "a: " + "[" * 50 + "]" * 50,
        "rows: [" + "1, " * 20_000 + "]",
        "when: 2026-11-29\nyes: on\nnumber: 0x10\ntext: |\n  a\n  b",
        "merged: &m {a: 1}\nmore: {<<: [*m, {b: 2}]}",
    ],
)
def test_what_is_bounded_is_read_as_before(tmp_path: Path, text: str) -> None:
    assert read_yaml(text) == yaml.safe_load(text)
    (tmp_path / "file.yaml").write_text(text)
    assert read_yaml_file(tmp_path / "file.yaml") == yaml.safe_load(text)


def test_an_override_has_the_same_bounds(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(json.dumps({"task": "arithmetic", "model": "m", "method": "grpo", "steps": 2}))
    file = str(tmp_path / "c.yaml")
    assert load_config(file, ["steps=3"]).stages[0].steps == 3
    for value in ("[" * 5000, "9" * 5000, "&a [*a]"):
        with pytest.raises(ConfigError, match="must be YAML"):
            load_config(file, [f"steps={value}"])
