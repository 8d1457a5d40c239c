"""A row's choice of its own grading: registry names and tighter limits, but never code, a location, or looser
limits.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.verifiers.kit.test_files import read, run, write
from verifiers.integrations.verl import compute_score
from verifiers.row_choice import RowGraders, RowRefused, bounds_in, named_by_user, row_choice
from verifiers.verdict import JSON

PLUGIN = """import pathlib
pathlib.Path({mark!r}).write_text("ran")
def grade(*, completion, reference):
    return True
"""


@pytest.fixture
def plugin(tmp_path: Path) -> tuple[str, Path]:
    """A file with a verifier, and the file that is made when it is loaded."""
    mark = tmp_path / "ran"
    (tmp_path / "plugin.py").write_text(PLUGIN.format(mark=str(mark)))
    return f"{tmp_path / 'plugin.py'}:grade", mark


PLACES: list[tuple[str, dict[str, JSON]]] = [
    ("PLUGIN", {}),
    ("some.module:attribute", {}),
    ("os:system", {}),
    ("http://127.0.0.1:1/math", {}),
    ("HTTPS://example.org/math", {}),
    ("all-of", {"parts": ["exact", "PLUGIN"]}),
    ("all-of", {"parts": ["no-such", "PLUGIN"]}),
    ("all-of", {"parts": [{"verifier": "exact", "name": "x"}, {"verifier": "PLUGIN", "name": "x"}]}),
    ("weighted", {"parts": [{"verifier": "weighted", "options": {"parts": ["PLUGIN"]}}]}),
    ("gate", {"gate": "PLUGIN", "then": "exact"}),
    ("gate", {"gate": "exact", "then": {"verifier": "PLUGIN"}}),
    ("per-row", {"key": "k", "choices": {"a": "exact", "verifier": "PLUGIN"}}),
    ("rubric", {"judge": "PLUGIN"}),
    ("jury", {"judges": ["PLUGIN", "exact"]}),
    ("reasoning-gym", {}),
    ("gate", {"gate": "exact", "then": "reasoning-gym"}),
    ("trl", {"function": "PLUGIN"}),
    ("verl", {"function": "PLUGIN"}),
    ("rubric", {"rubric": "/etc/hostname"}),
    ("judge", {"url": "http://127.0.0.1:1/v1", "model": "m", "key_variable": "HOME"}),
    ("jury", {"judges": [{"verifier": "judge", "options": {"url": "http://127.0.0.1:1/v1", "model": "m"}}] * 2}),
    ("code", {"sandbox": "unsafe-host"}),
    ("code", {"cpu_seconds": 30}),
    ("code", {"cpu_seconds": float("nan")}),
    ("code", {"memory_mb": 1024}),
    ("code", {"workers": 64}),
    ("code", {"packages": ["numpy"]}),
    ("all-of", {"parts": [{"verifier": "code", "options": {"sandbox": "unsafe-host"}}]}),
    ("rubric", {"rubric": [{"code": {"tests": ["1"]}}], "code": {"sandbox": "unsafe-host"}}),
]


@pytest.mark.parametrize(("verifier", "options"), PLACES)
def test_a_row_never_names_code_a_place_or_more(
    plugin: tuple[str, Path], verifier: str, options: dict[str, JSON]
) -> None:
    name, mark = plugin
    given = json.loads(json.dumps(options).replace("PLUGIN", name))
    with pytest.raises(RowRefused, match="--allow-row-code"):
        row_choice(verifier.replace("PLUGIN", name), given, named={})
    assert not mark.exists()
    chosen = RowGraders(any_row=True).choice(verifier, given)
    assert chosen == (verifier, given)


NEAR: list[tuple[str, dict[str, JSON]]] = [
    ("exact", {"ignore_case": True}),
    ("math", {"lenient": True}),
    ("all-of", {"parts": ["exact", {"verifier": "format", "options": {"pattern": "http://x:1/evil.py:v"}}]}),
    ("choice", {"choices": ["file.py:one", "http://two"]}),
    ("per-row", {"key": "k", "choices": {"file.py:one": "exact", "*": "math"}}),
    ("code", {"reward": "fraction", "compare": "tokens"}),
    ("code", {"cpu_seconds": 2, "memory_mb": 128, "workers": 1}),
    ("code", {"sandbox": "bubblewrap"}),
    ("code", {"sandbox": "docker", "packages": []}),
    ("rubric", {"rubric": [{"contains": "x"}], "code": {"tolerance": 1e-6}}),
    ("no-such", {"parts": ["x"]}),
    ("reward-model.py.", {}),
]


@pytest.mark.parametrize(("verifier", "options"), NEAR)
def test_a_row_chooses_among_what_is_installed(verifier: str, options: dict[str, JSON]) -> None:
    assert row_choice(verifier, options, named={}) == (verifier, options)


def test_what_the_user_named_may_be_named_again_and_bounds_the_row(plugin: tuple[str, Path]) -> None:
    name, _ = plugin
    parts: list[JSON] = [name, {"verifier": "code", "options": {"cpu_seconds": 2, "packages": ["numpy"]}}]
    named = named_by_user("all-of", {"parts": parts})
    assert row_choice(name, {}, named=named) == (name, {})
    assert row_choice("code", {}, named=named).options == {"cpu_seconds": 2, "packages": ["numpy"]}
    assert row_choice("code", {"cpu_seconds": 1}, named=named).options["cpu_seconds"] == 1
    for loose in ({"cpu_seconds": 3}, {"packages": ["numpy", "scipy"]}):
        with pytest.raises(RowRefused):
            row_choice("code", loose, named=named)  # pyright: ignore[reportArgumentType]
    with pytest.raises(RowRefused, match=r"'cpu_seconds' of 'code'.*\(2\); got '5.0'"):
        row_choice("gate", {"gate": "exact", "then": "code"}, named=named)
    user = named_by_user("code", {"sandbox": "unsafe-host"})
    assert row_choice("code", {}, named=user).options == {"sandbox": "unsafe-host"}
    assert row_choice("code", {"sandbox": "auto"}, named=user).options == {"sandbox": "auto"}
    docker = named_by_user("code", {"sandbox": "docker"})
    with pytest.raises(RowRefused):
        row_choice("code", {"sandbox": "bubblewrap"}, named=docker)


def test_a_judge_s_budget_and_place_are_the_user_s() -> None:
    user: dict[str, JSON] = {"url": "http://127.0.0.1:1/v1", "model": "m", "token_budget": 1000}
    named = named_by_user("rubric", {"judge": {"verifier": "judge", "options": user}})
    assert row_choice("judge", {"temperature": 0.5}, named=named).options == {**user, "temperature": 0.5}
    assert row_choice("judge", {"token_budget": 10}, named=named).options["token_budget"] == 10
    for loose in ({"token_budget": 2000}, {"token_budget": None}, {"url": "http://elsewhere/v1"}, {"model": "dear"}):
        with pytest.raises(RowRefused):
            row_choice("judge", loose, named=named)  # pyright: ignore[reportArgumentType]


def test_verifiers_inside_each_other_end_somewhere() -> None:
    options: dict[str, JSON] = {"parts": ["exact"]}
    for _ in range(30):
        options = {"parts": [{"verifier": "all-of", "options": options}]}
    with pytest.raises(RowRefused, match="at most 8 inside each other"):
        row_choice("all-of", options, named={})


def test_limits_beside_the_rows_bound_them_and_name_no_code(plugin: tuple[str, Path]) -> None:
    name, mark = plugin
    options: dict[str, JSON] = {"cpu_seconds": 20, "sandbox": "unsafe-host", "packages": ["numpy"]}
    parts: dict[str, JSON] = {"parts": [name, {"verifier": "code", "options": options}]}
    named = bounds_in("all-of", parts)
    assert named["code"] == {"cpu_seconds": 20, "packages": ["numpy"]}
    assert not mark.exists()
    with pytest.raises(RowRefused):
        row_choice("all-of", parts, named=named)
    with pytest.raises(RowRefused):
        row_choice("code", options, named=named)


def test_rows_of_a_file(tmp_path: Path, plugin: tuple[str, Path]) -> None:
    name, mark = plugin
    rows: list[dict[str, object]] = [
        {"completion": "#### 1", "reference": "1"},
        {"completion": "#### 1", "reference": "2", "verifier": name},
        {"completion": "#### 1", "reference": "1", "options": {"ignore_case": True}},
        {"completion": "#### 1", "reference": "2", "verifier": "all-of", "options": {"parts": ["exact", name]}},
        {"completion": "#### 1", "reference": {"tests": ["1"]}, "verifier": "code", "options": {"cpu_seconds": 30}},
        {"completion": "#### 1", "reference": 1, "verifier": "numeric"},
    ]
    file = write(tmp_path / "rows.jsonl", rows)
    out = tmp_path / "out.jsonl"
    code, said, _ = run(file, "--verifier", "exact", "--output", str(out))
    assert code == 3
    assert [row["outcome"] for row in read(out)] == [
        "correct", "malformed", "correct", "malformed", "malformed", "correct",
    ]  # fmt: skip
    assert "line 2: a row's own verifier must be a name" in said
    assert not mark.exists()
    code, _, _ = run(file, "--verifier", "exact", "--output", str(tmp_path / "allowed.jsonl"), "--allow-row-code")
    assert [row["outcome"] for row in read(tmp_path / "allowed.jsonl")][:4] == [
        "correct", "correct", "correct", "incorrect",
    ]  # fmt: skip
    assert mark.exists()
    mark.unlink()
    code, _, _ = run(write(tmp_path / "own.jsonl", rows[1:2]), "--verifier", name, "--output", str(tmp_path / "own"))
    assert (code, read(tmp_path / "own")[0]["outcome"]) == (0, "correct")


def test_a_suite_and_its_rows(tmp_path: Path, plugin: tuple[str, Path]) -> None:
    name, mark = plugin
    write(tmp_path / "rows.jsonl", [{"completion": "#### 1", "reference": "2", "verifier": name}])
    write(tmp_path / "plain.jsonl", [{"completion": "#### 1", "reference": "1"}])
    suite = tmp_path / "suite.yaml"

    def graded(part: dict[str, object], *more: str) -> tuple[int, str]:
        suite.write_text(json.dumps({"parts": [{"name": "p", **part}], "output": f"out{len([*tmp_path.iterdir()])}"}))
        code, said, error = run(str(suite), *more)
        return code, said + error

    assert graded({"file": "rows.jsonl", "verifier": "exact"})[0] == 3
    code, said = graded({"file": "plain.jsonl", "verifier": name})
    assert (code, "--allow-row-code" in said) == (2, True)
    assert not mark.exists()
    assert graded({"file": "plain.jsonl", "verifier": "exact", "options": {"ignore_case": True}})[0] == 0
    assert graded({"file": "rows.jsonl", "verifier": "exact"}, "--allow-row-code")[0] == 0
    assert graded({"file": "plain.jsonl", "verifier": name}, "--allow-row-code")[0] == 0
    assert mark.exists()


def test_a_suite_writes_beside_itself(tmp_path: Path) -> None:
    folder = tmp_path / "suite"
    folder.mkdir()
    write(folder / "rows.jsonl", [{"completion": "#### 1", "reference": "1"}])
    (folder / "link").symlink_to(tmp_path)
    part = {"name": "p", "file": "rows.jsonl", "verifier": "exact"}
    for output, code in (("../other", 2), (str(tmp_path / "other"), 2), ("link/other", 2), ("in/side", 0), (".", 0)):
        (folder / "suite.yaml").write_text(json.dumps({"parts": [part], "output": output}))
        assert run(str(folder / "suite.yaml"))[0] == code, output
    assert not (tmp_path / "other").exists()


def test_a_service_that_the_user_named_waits_no_longer_for_a_row() -> None:
    url = "http://127.0.0.1:1/math"
    named = named_by_user(url, {"seconds": 5})
    assert row_choice(url, {"options": {"lenient": True}}, named=named).options["seconds"] == 5
    for loose in ({"seconds": 6}, {"token": "other"}, {"connections": 100}):
        with pytest.raises(RowRefused):
            row_choice(url, loose, named=named)  # pyright: ignore[reportArgumentType]


def test_rows_of_another_trainer(plugin: tuple[str, Path]) -> None:
    name, mark = plugin
    with pytest.raises(RowRefused):
        compute_score("any", "#### 1", "2", {"verifier": name}, verifier="exact")
    assert not mark.exists()
    assert compute_score("any", "#### 1", "2", {"verifier": name}, verifier="exact", any_row=True)["score"] == 1.0
    own = {"verifier": "exact", "verifier_options": {"ignore_case": True}}
    assert compute_score("any", "#### A", "a", own, verifier="math")["score"] == 1.0  # pyright: ignore[reportArgumentType]
