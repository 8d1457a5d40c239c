"""Our environments inside the trainers of others: TRL's GRPOTrainer and verl's agent loop, the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tasks.integrations.asked import row_of
from tasks.integrations.trl import environment_factory
from tasks.registry import get_task
from tests.integration.test_verifiers_neighbours import environment, said
from verifiers.integrations.trl import reward_function

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


def call(name: str, text: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"text": "{text}"}}}}\n</tool_call><|im_end|>'


def teach(model, ids: list[int], answer: list[int], steps: int = 150) -> None:
    """Train until the model gives this answer to this prompt: a policy with random weights never calls a tool."""
    row = torch.tensor([ids + answer])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        logits = model(row).logits[0, len(ids) - 1 : -1]
        loss = torch.nn.functional.cross_entropy(logits, row[0, len(ids) :])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("name", "task", "answer"),
    [("calculator", "tool_problems", call("calculator", "6*7")), ("guess", "guessing", "{guess}")],
)
@pytest.mark.filterwarnings("ignore")
def test_trl_trains_with_our_environments(
    name: str, task: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    import trl
    from datasets import Dataset

    from reasoner.config.sections import ModelSection
    from reasoner.model.load import load_model

    shape = {"hidden_size": 64, "layers": 1, "heads": 2, "max_positions": 4096}
    made = load_model(ModelSection.model_validate({"from_scratch": shape}), seed=0)
    model, tokenizer = made.model, made.tokenizer
    tokenizer.padding_side = "left"
    tokenizer.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    row = row_of(get_task(task).problems("train")[0])
    answer = answer.replace("{guess}", call("guess", str(row["reference"])))
    trainer = trl.GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=[reward_function("numeric", workers=1)] if name == "calculator" else [],
        train_dataset=Dataset.from_list([row] * 8),
        environment_factory=environment_factory(name, workers=1),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path),
            max_steps=2,
            num_generations=4,
            per_device_train_batch_size=4,
            max_completion_length=400,
            max_tool_calling_iterations=3,
            temperature=0.2,
            learning_rate=1e-6,
            use_cpu=True,
            report_to=[],
            logging_steps=1,
            save_strategy="no",
        ),
    )
    prompt = tokenizer.apply_chat_template(
        row["prompt"], tools=trainer.tools, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    teach(model, prompt, tokenizer(answer, add_special_tokens=False)["input_ids"])
    trainer.train()
    steps = [row for row in trainer.state.log_history if "tools/call_frequency" in row]
    assert len(steps) == 2
    assert sum(row["tools/call_frequency"] for row in steps) >= 1, "most of the eight completions call"
    played = [made._episode for made in trainer.environments]
    assert any(one.turns for one in played)
    for one in played:
        assert one.fault is None
        if name == "calculator":
            assert [turn.text for turn in one.turns[1::2]] == ["42"] * (len(one.turns) // 2)
        elif one.turns:
            assert (one.turns[1].text, one.score) == ("right\n", 1.0)
    if name == "guess":
        assert max(row["rewards/Guess/mean"] for row in steps) > 0.4
    else:
        assert all("ungraded/numeric" in row for row in steps)


VERL = '''
import asyncio, json, types
from pathlib import Path
from omegaconf import OmegaConf
from reasoner.model.load import byte_tokenizer
from verl.experimental.agent_loop.agent_loop import DictConfigWrap, ToolListWrap
from verl.experimental.agent_loop.tool_agent_loop import ToolAgentLoop
from verl.tools.base_tool import BaseTool
from verl.tools.tool_registry import load_all_tools
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.rollout.replica import TokenOutput

Path("tools.yaml").write_text("""
tools:
  - class_name: tasks.integrations.verl.EnvironmentTool
    config: {type: native, environment: python, options: {sandbox: unsafe-host}, workers: 1}
  - class_name: tasks.integrations.verl.EnvironmentTool
    config: {type: native, environment: guess, workers: 1}
""")
tools = load_all_tools("tools.yaml", None)
assert all(isinstance(tool, BaseTool) for tool in tools)
tokenizer = byte_tokenizer()
tokenizer.chat_template = (
    "{% if tools %}<|im_start|>system\\n{{ tools | tojson }}<|im_end|>\\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>\\n{{ c.function | tojson }}\\n</tool_call>{% endfor %}<|im_end|>\\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)

def call(name, key, text):
    return '<tool_call>\\n' + json.dumps({"name": name, "arguments": {key: text}}) + '\\n</tool_call><|im_end|>'

class Server:
    """Stands for the engine: says the next line, and keeps the prompts."""
    def __init__(self, lines):
        self.lines, self.prompts = list(lines), []
    async def generate(self, *, prompt_ids, **_):
        self.prompts.append(list(prompt_ids))
        ids = tokenizer(self.lines.pop(0), add_special_tokens=False)["input_ids"]
        return TokenOutput(token_ids=ids, log_probs=[-1.0] * len(ids))

multi = {"max_user_turns": 9, "max_assistant_turns": 9, "max_parallel_calls": 1, "max_tool_response_length": 1000,
         "tool_response_truncate_side": "middle", "format": "hermes"}
rollout = {"prompt_length": 4096, "response_length": 4096, "multi_turn": multi, "full_determinism": False}
config = DictConfigWrap(OmegaConf.create({"actor_rollout_ref": {"rollout": rollout}}))

async def play(lines, row):
    server = Server(lines)
    loop = ToolAgentLoop(trainer_config=config, server_manager=server, tokenizer=tokenizer, processor=None,
                         dataset_cls=RLHFDataset, data_config=DictConfigWrap(OmegaConf.create({})),
                         tools=ToolListWrap(tools))
    out = await loop.run({}, raw_prompt=[{"role": "user", "content": "go"}],
                         tools_kwargs={tool.name: {"create_kwargs": row} for tool in tools})
    theirs = [token for token, own in zip(out.response_ids, out.response_mask) if not own]
    return {"replies": tokenizer.decode(theirs), "rewards": out.extra_fields["tool_rewards"], "turns": out.num_turns}

async def both():
    row = {"prompt": "0 to 63", "reference": "40", "info": "{}"}
    game = [call("guess", "text", n) for n in ("32", "48", "40", "1")] + ["done<|im_end|>"]
    code = [call("python", "code", "x = 6"), call("python", "code", "print(x * 7)"), "42<|im_end|>"]
    return await asyncio.gather(play(game, row), play(code, row), play(game, {**row, "reference": "48"}))

if __name__ == "__main__":
    print(json.dumps({"found": asyncio.run(both()), "kept": [len(tool._kept) + len(tool._created) for tool in tools]}))
'''
PACKAGES = (
    *("verl==0.9.1", "ray", "omegaconf", "hydra-core", "antlr4-python3-runtime==4.9.3", "tensordict>=0.8,<=0.10"),
    *("codetiming", "pyvers", "cloudpickle", "msgpack", "importlib_metadata", "orjson", "torchdata", "zipp"),
)
"""verl and what its agent loop imports; the rest (torch, transformers) is this environment's."""


def test_verls_agent_loop_calls_our_environments(tmp_path: Path) -> None:
    found = said(environment(tmp_path, "--no-deps", *PACKAGES), VERL, tmp_path)
    assert isinstance(found, dict)
    first, code, other = found["found"]
    for reply in ("higher", "lower", "right", "Error: the game is over after 3 moves"):
        assert reply in first["replies"]
    assert first["rewards"] == [0.0, 0.0, 1.0, 0.0]
    assert other["rewards"] == [0.0, 1.0, 0.0, 0.0], "side by side, each with its own turns"
    assert "tool\n42<|im_end|>" in code["replies"]
    assert found["kept"] == [0, 0]
