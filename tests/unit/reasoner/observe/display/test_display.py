from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from reasoner.observe.display.display import Display
from reasoner.observe.display.live_view import View, clock, metric_lines, sparkline
from tests.unit.reasoner.runs import make_history, make_records, stage


def rendered(view: View) -> str:
    console = Console(width=110, record=True, force_terminal=True, file=io.StringIO())
    console.print(view)
    return console.export_text()


def test_curves_of_blocks() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, 2.0, None]) == "▁▁ "
    assert sparkline([None]) == ""
    assert clock(59.9) == "00:59"


def test_the_view_shows_the_figures_and_the_rollouts_of_the_last_step() -> None:
    history = make_history(make_records())
    view = View(steps=20, metrics=history.metrics, rollouts=history.by_step[12])
    text = rendered(view)
    for wanted in ("step 12/20", "ETA 00:16", "reward", "engine gap", "ungraded", "tok/s", "with signal"):
        assert wanted in text
    view.press("b")
    assert "best of the last step: reward 1" in rendered(view)
    view.press("w")
    assert "worst of the last step: reward 0" in rendered(view)
    first = rendered(view)
    view.press("n")
    assert rendered(view) != first
    view.press("q")
    assert "of the last step" not in rendered(view)


def test_an_episode_is_shown_turn_by_turn() -> None:
    def play(row: dict, rng: np.random.Generator) -> None:
        row["turns"] = [
            {"origin": "policy", "start": 0, "end": 3, "text": "<6*7>"},
            {"origin": "environment", "start": 3, "end": 6, "text": "42\n", "calls": 1, "errors": row["sample"] % 2},
            {"origin": "policy", "start": 6, "end": 12, "text": row["completion"]},
        ]

    made = make_records(change=play)
    for figures in made.metrics:
        figures |= {"turns/mean": 2.0, "calls/share": 1.0, "calls/error": 0.5, "turns/limit": 0.0}
    history = make_history(made)
    view = View(steps=20, metrics=history.metrics, rollouts=history.by_step[12])
    text = rendered(view)
    assert "2.0, 100% call, 50% of the calls fail, 0% end at the limit" in text
    view.press("b")
    text = rendered(view)
    row = next(r for r in sorted(history.by_step[12], key=lambda r: r.reward or 0.0, reverse=True))
    assert "> <6*7>" in text
    assert f"{'!' if row.sample % 2 else '<'} 42" in text
    assert f"> {row.completion}" in text


def test_several_tasks_are_shown_each() -> None:
    last = make_records(steps=1).metrics[0] | {"reward/easy": 0.75, "reward/hard": 0.25}
    assert "easy 0.75  hard 0.25" in {name: value for name, value, _ in metric_lines(last)}["pass rate"]


def test_no_terminal_gets_plain_lines() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    metrics = make_records(steps=1).metrics[0] | {"completion/truncated": 1 / 256, "grading/ungraded": 0.0}
    with Display(stage(), console) as display, display.progress("sampling", 3) as advance:
        advance(1)
        display.step(1, metrics)
    text = console.export_text()
    assert text.startswith("step    1/20  reward ")
    assert "  truncated 0.39 %  " in text
    assert text.endswith("100 tok/s  2.0 s (generation 1.0, logprobs 0.1, update 0.8, sync 0.1)\n")
    assert text.count("\n") == 1


def test_a_composed_reward_is_shown_beside_what_is_right() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    metrics = make_records(steps=1).metrics[0] | {"reward/pass_rate": 0.25, "component/format": 0.9}
    with Display(stage(), console) as display:
        display.step(1, metrics)
    assert "  right 25 %  signal" in console.export_text()
    assert "pass rate" not in {name for name, _, _ in metric_lines({"step": 1, "reward/mean": 3.0})}


def test_the_view_shows_the_name_and_the_last_evaluation_and_stops_once() -> None:
    asked: list[bool] = []
    history = make_history(make_records())
    view = View(steps=20, name="mine", stop=lambda: asked.append(True), metrics=history.metrics)
    view.evaluation = "after step 10:  avg@1 0.940 [0.920, 0.960]"
    text = rendered(view)
    assert "mine   step 12/20" in text
    assert "avg@1 0.940 [0.920, 0.960]" in text
    for key in "ss":
        view.press(key)
    assert asked == [True]


def test_a_long_rollout_is_scrolled_line_by_line() -> None:
    def lengthen(row: dict, rng: np.random.Generator) -> None:
        row["completion"] = "\n".join(f"line {number}" for number in range(100))

    history = make_history(make_records(change=lengthen))
    view = View(steps=20, metrics=history.metrics, rollouts=history.by_step[12], show="best")
    console = Console(width=110, height=40, record=True, force_terminal=True, file=io.StringIO())

    def seen() -> list[str]:
        console.print(view)
        return [word for line in console.export_text().split("\n") if (word := line.strip("│ ")).startswith("line ")]

    assert seen()[0] == "line 0"
    for _ in range(3):
        view.press("j")
    lines = seen()
    assert lines[0] == "line 1"  # behind two lines of the prompt
    assert len(lines) == 16
    for _ in range(500):
        view.press("j")
    assert seen()[-1] == "line 99"
    view.press("k")
    above = seen()
    view.press("n")
    assert seen()[0] == "line 0" != above[0]


def test_a_terminal_that_changes_its_width_is_cleared_once() -> None:
    history = make_history(make_records())
    view = View(steps=20, metrics=history.metrics)
    console = Console(width=110, height=40, force_terminal=True, file=io.StringIO())
    drawn: list[bool] = []
    for width in (110, 110, 70, 70):
        console.width = width
        drawn.append(sum(bool(segment.control) for segment in console.render(view)) > 0)
    assert drawn == [False, False, True, False]
