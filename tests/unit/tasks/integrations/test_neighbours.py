"""Environments as TRL's and verl's classes, driven as their trainers drive them; they themselves: integration tests."""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks import Problem, TaskError
from tasks.environments import EnvironmentFault
from tasks.integrations import verl as in_verl
from tasks.integrations.asked import row_of
from tasks.integrations.trl import environment_factory
from verifiers.integrations.trl import reward_function

GAME = Problem(id="g/1", prompt="0 to 63", reference="40", verifier="outcome", info={"seed": 3})
SUM = Problem(id="s/1", prompt="6*7=", reference="42", verifier="numeric")
BROKEN = """
from tasks.environments import Reply, environment

@environment("broken", max_turns=3)
def broken(*, turns):
    raise RuntimeError("the server is down")
"""
Call = tuple[str, Mapping[str, object]]


# ------------------------------------------------------------------------------------------------------------- TRL


def trl_methods(made: object) -> dict[str, Callable[..., str]]:
    """The tools as TRL 1.16's GRPOTrainer finds them."""
    return {
        name: getattr(made, name)
        for name, _ in inspect.getmembers(type(made), predicate=inspect.isfunction)
        if name not in ("reset", "get_reward") and not name.startswith("_")
    }


def trl_calls(made: object, calls: Sequence[Call]) -> tuple[list[str], int]:
    """Make the calls as TRL does: whatever is raised becomes a message to the policy."""
    said: list[str] = []
    failures = 0
    for name, arguments in calls:
        try:
            if name not in trl_methods(made):
                raise ValueError(f"Tool {name} not found.")
            said.append(str(trl_methods(made)[name](**arguments)))
        except Exception as error:
            failures += 1
            said.append(str({"error": str(error)}))
    return said, failures


def test_trl_finds_the_tools_and_their_schema() -> None:
    factory = environment_factory("tools", options={"use": {"calculator": {}, "python": {"sandbox": "unsafe-host"}}})
    methods = trl_methods(factory())
    assert sorted(methods) == ["calculator", "python"]
    assert str(inspect.signature(methods["python"])) == "(code: str) -> str"
    doc = inspect.getdoc(methods["calculator"])
    assert doc is not None
    assert doc.splitlines()[0] == "Computes an arithmetic expression exactly, such as (12+3)*4/7."
    assert "Args:\n    text: " in doc
    assert not hasattr(factory, "get_reward"), "tools leave the reward to a verifier"
    assert sorted(trl_methods(environment_factory("guess")())) == ["guess"]


def test_trl_plays_tools_and_keeps_what_earlier_calls_left() -> None:
    made = environment_factory("python", options={"sandbox": "unsafe-host"}, workers=1)()
    made.reset(**row_of(SUM))
    calls: list[Call] = [("python", {"code": "x = 6"}), ("python", {"code": "print(x * 7, '</tool_call>')"})]
    assert trl_calls(made, calls) == (["(no output)", "42 </tool_call>"], 0)
    made.reset(**row_of(SUM))
    said, failures = trl_calls(
        made, [("python", {"code": "x"}), ("python", {"code": 7}), ("pyton", {}), ("python", {})]
    )
    assert "NameError" in said[0], "another episode sees nothing of it"
    assert "takes the argument 'code', a string" in said[1]
    assert "Tool pyton not found" in said[2]
    assert "takes the argument 'code'" in said[3]
    assert failures == 1, "only what TRL itself refuses"


@pytest.mark.parametrize("options", [{}, {"opening": "<", "closing": ">"}, {"parse": "tool_call"}])
def test_a_tool_is_called_by_name_whatever_its_notation_is(options: dict[str, Any]) -> None:
    made = environment_factory("calculator", options=options, workers=1)()
    made.reset(**row_of(SUM))
    assert trl_calls(made, [("calculator", {"text": "4812*9307"})]) == (["44785284"], 0)


def test_trl_plays_a_game_to_its_end_and_rewards_it() -> None:
    made: Any = environment_factory("guess", workers=1)()
    made.reset(**row_of(GAME))
    said, failures = trl_calls(made, [("guess", {"text": text}) for text in ("32", "40", "41")])
    assert said == ["higher", "right", "{'error': 'the game is over after 2 moves'}"]
    assert failures == 1
    assert made.get_reward() == 1.0
    made.reset(**row_of(GAME))
    said, failures = trl_calls(made, [("guess", {"text": str(n)}) for n in range(8)])
    assert said[5:] == ["higher", *["{'error': 'the game is over after 6 moves'}"] * 2]
    assert made.get_reward() == 0.0
    made.reset(**row_of(GAME))
    assert made.get_reward() == 0.0, "no move at all"


def test_what_the_environment_causes_has_no_reward(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    bad: Any = environment_factory(str(file), workers=1)()
    bad.reset(**row_of(GAME))
    said, failures = trl_calls(bad, [("broken", {"text": "a"})])
    assert failures == 1
    assert "the server is down" in said[0]
    assert bad.get_reward() is None
    good: Any = environment_factory("calculator", workers=1)()
    good.reset(**row_of(SUM))
    reward = reward_function("numeric", workers=1)
    given: dict[str, Any] = {"prompts": ["?"] * 2, "completions": ["42"] * 2, "reference": ["42"] * 2}
    assert reward(**given, environments=[good, bad]) == [1.0, None]
    assert reward(**given) == [1.0, 1.0]
    bad.reset(**row_of(GAME))
    assert bad.get_reward() == 0.0


def test_what_does_not_fit_is_told() -> None:
    with pytest.raises(TaskError, match=r"no environment named 'calculater'.*calculator"):
        environment_factory("calculater")
    made = environment_factory("guess", reference="answer")()
    with pytest.raises(TaskError, match="must have the column 'answer'; they have: id, info, prompt, reference"):
        made.reset(**row_of(GAME))
    with pytest.raises(TaskError, match="info must hold an object"):
        made.reset(answer="1", info="[1]")


# ------------------------------------------------------------------------------------------------------------ verl


class BaseTool:
    """verl 0.9's class, as far as a tool sees it."""

    def __init__(self, config: dict[str, Any], tool_schema: Any) -> None:
        self.config, self.tool_schema = config, tool_schema or self.get_openai_tool_schema()
        self.name = self.tool_schema.function.name

    def get_openai_tool_schema(self) -> Any:
        return self.tool_schema


class Schema(types.SimpleNamespace):
    """Its schemas and responses, without pydantic's checks."""

    @classmethod
    def model_validate(cls, given: dict[str, Any]) -> Any:
        return json.loads(json.dumps(given), object_hook=lambda fields: cls(**fields))


class AgentData:
    """State of one rollout of verl's agent loop."""


@pytest.fixture
def tool_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, members in {
        "verl": {},
        "verl.tools": {},
        "verl.tools.base_tool": {"BaseTool": BaseTool},
        "verl.tools.schemas": {"OpenAIFunctionToolSchema": Schema, "ToolResponse": Schema},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    in_verl._tool_class.cache_clear()
    yield in_verl.EnvironmentTool
    in_verl._tool_class.cache_clear()


async def verl_call(tool: Any, agent: object | None, arguments: dict[str, Any], row: dict[str, Any]) -> Any:
    """One call as verl's agent loop makes it: create, execute, release."""
    instance, _ = await tool.create(create_kwargs=row)
    given = {} if agent is None else {"agent_data": agent}
    try:
        return await tool.execute(instance, arguments, **given)
    finally:
        await tool.release(instance)


def test_verl_plays_rollouts_side_by_side(tool_class: Any) -> None:
    tool = tool_class({"type": "native", "environment": "guess", "workers": 1}, None)
    assert issubclass(tool_class, BaseTool)
    assert (tool.name, list(vars(tool.tool_schema.function.parameters.properties))) == ("guess", ["text"])
    agents = [AgentData(), AgentData()]

    async def play() -> list[tuple[str, float]]:
        found: list[tuple[str, float]] = []
        for number, text in ((0, "32"), (1, "63"), (0, "40"), (1, "0"), (0, "41")):
            response, reward, _ = await verl_call(tool, agents[number], {"text": text}, row_of(GAME))
            found.append((response.text, reward))
        return found

    assert asyncio.run(play()) == [
        *[("higher", 0.0), ("lower", 0.0), ("right", 1.0), ("higher", 0.0)],
        ("Error: the game is over after 2 moves", 0.0),
    ]
    assert len(tool._kept) == 2
    assert not tool._created
    agents.clear()
    assert len(tool._kept) == 0, "a rollout that is over leaves nothing behind"


def test_verl_tools_see_earlier_calls_of_their_rollout_alone(tool_class: Any) -> None:
    options = {"use": {"python": {"sandbox": "unsafe-host"}, "calculator": {}}}
    config = {"type": "native", "environment": "tools", "options": options, "tool": "python", "workers": 1}
    tool = tool_class(config, None)
    agent = AgentData()

    async def play() -> list[Any]:
        row = {"ground_truth": "42"}
        first = await verl_call(tool, agent, {"code": "x = 6"}, row)
        second = await verl_call(tool, agent, {"code": "print(x * 7)"}, row)
        bad = await verl_call(tool, agent, {}, row)
        elsewhere = await verl_call(tool, AgentData(), {"code": "x"}, row)
        alone = await verl_call(tool, None, {"code": "x"}, row)
        return [first, second, bad, elsewhere, alone]

    found = asyncio.run(play())
    assert [response.text.splitlines()[-1][:9] for response, _, _ in found[:2]] == ["(no outpu", "42"]
    assert [counted["errors"] for _, _, counted in found] == [0, 0, 1, 1, 1]
    assert all("NameError" in response.text for response, _, _ in found[3:])


def test_verl_configs_that_do_not_fit_are_told(tool_class: Any, tmp_path: Path) -> None:
    for config, reason in (
        ({"environment": "guess", "option": {}}, r"no key 'option'.*options"),
        ({"options": {}}, "must name an `environment`"),
        (
            {"environment": "tools", "options": {"use": {"python": {}, "calculator": {}}}},
            "must be one of python, calcul",
        ),
    ):
        with pytest.raises(TaskError, match=reason):
            tool_class(config, None)
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    tool = tool_class({"environment": str(file), "workers": 1}, None)
    with pytest.raises(EnvironmentFault, match="the server is down"):
        asyncio.run(verl_call(tool, AgentData(), {"text": "a"}, {}))


def test_neither_package_is_imported_before_it_is_asked_for() -> None:
    import subprocess

    code = "import sys, tasks.integrations.trl, tasks.integrations.verl, tasks.integrations.asked\n"
    code += "tasks.integrations.trl.environment_factory('calculator')\n"
    code += "print(sorted({'trl', 'verl', 'torch', 'transformers', 'ray'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
