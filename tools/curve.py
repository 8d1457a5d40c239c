"""Draw the mean reward of runs by step as one SVG: `python tools/curve.py FILE "seed 0=runs/a" ...`.

Each point is the mean of five steps.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 720, 320, 48, 36, 110, 16
COLOURS = ("#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#7f7f7f", "#d62728")
POINT = 5


def points(run: Path) -> list[tuple[float, float]]:
    """Return (last step, mean reward) for every five steps."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward/mean"] for row in rows if "reward/mean" in row]
    return [
        (first + POINT, sum(rewards[first : first + POINT]) / POINT)
        for first in range(0, len(rewards) - POINT + 1, POINT)
    ]


def drawn(curves: dict[str, list[tuple[float, float]]]) -> str:
    """Return the SVG: an axis of rewards from 0 to 1, one of steps, and a labelled line for each run."""
    last = max(step for curve in curves.values() for step, _ in curve)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(step: float, reward: float) -> tuple[float, float]:
        return LEFT + (right - LEFT) * step / last, bottom - (bottom - TOP) * reward

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">'
    ]
    parts.append('<rect width="100%" height="100%" fill="white"/>')
    for tenths in range(0, 11, 2):
        _, y = at(0, tenths / 10)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tenths / 10:.1f}</text>')
    for step in range(0, int(last) + 1, 10):
        x, _ = at(step, 0)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{step}</text>')
    parts.append(
        f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 4}" text-anchor="middle">step (mean reward of five)</text>'
    )
    below = 0.0
    for (name, curve), colour in sorted(
        zip(curves.items(), COLOURS, strict=False), key=lambda one: -one[0][1][-1][1]
    ):  # labels from top to bottom, without overlap
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in curve))
        below = max(below + 14, at(*curve[-1])[1] + 4)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{right + 6}" y="{below:.1f}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[2:])
    Path(sys.argv[1]).write_text(drawn({name: points(Path(run)) for name, run in named.items()}))
