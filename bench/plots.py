# SPDX-License-Identifier: MIT
"""Line charts as SVG files, which follow the reader's light or dark colour scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 230, 44, 56
#: Colours of the lines for the light and for the dark colour scheme.
_COLOURS = (
    *(("#1f6feb", "#58a6ff"), ("#2d7d46", "#56d364"), ("#bc4c00", "#f0883e")),
    *(("#8250df", "#bc8cff"), ("#9a6700", "#d29922"), ("#57606a", "#8b949e")),
)


@dataclass(frozen=True)
class Line:
    """One line of a chart. ``theory``: the line is computed, not measured, and is drawn with dashes."""

    name: str
    points: Sequence[tuple[float, float]]
    theory: bool = False


def chart(title: str, x: str, y: str, lines: Sequence[Line]) -> str:
    """Draw ``lines`` as one SVG document. ``x``, ``y``: the labels of the axes. Both axes begin at zero.

    Raises ``ValueError`` if no line has a point.
    """
    points = [point for line in lines for point in line.points]
    if not points:
        raise ValueError(f"{title}: expected at least one point, got none")
    x_step, y_step = (_step(max(point[axis] for point in points)) for axis in (0, 1))
    x_most, y_most = (
        step * max(1, math.ceil(max(point[axis] for point in points) / step))
        for axis, step in enumerate((x_step, y_step))
    )

    def place(point: tuple[float, float]) -> tuple[float, float]:
        across = _LEFT + point[0] / x_most * (_WIDTH - _LEFT - _RIGHT)
        down = _HEIGHT - _BOTTOM - point[1] / y_most * (_HEIGHT - _TOP - _BOTTOM)
        return round(across, 1), round(down, 1)

    parts = _head(title, y, lines)
    for number in range(round(y_most / y_step) + 1):
        left, level = place((0, number * y_step))
        right, _ = place((x_most, 0))
        parts.append(f'<path class="grid" d="M{left} {level}H{right}"/>')
        parts.append(f'<text class="small" x="{left - 8}" y="{level + 4}" text-anchor="end">{number * y_step:g}</text>')
    for number in range(round(x_most / x_step) + 1):
        across, bottom = place((number * x_step, 0))
        parts.append(
            f'<text class="small" x="{across}" y="{bottom + 18}" text-anchor="middle">{number * x_step:g}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="small" x="{middle}" y="{_HEIGHT - 14}" text-anchor="middle">{escape(x)}</text>')
    parts.append(f'<text class="small" x="12" y="{_TOP - 12}">{escape(y)}</text>')
    for number, line in enumerate(lines):
        kind = f"c{number % len(_COLOURS)}" + (" theory" if line.theory else "")
        placed = [place(point) for point in sorted(line.points)]
        if placed:
            path = "L".join(f"{across} {down}" for across, down in placed)
            parts.append(f'<path class="line {kind}" d="M{path}"/>')
        if not line.theory:
            parts += [f'<circle class="line {kind}" cx="{a}" cy="{d}" r="3"/>' for a, d in placed]
        key, level = _WIDTH - _RIGHT + 16, _TOP + 10 + 22 * number
        parts.append(f'<path class="line {kind}" d="M{key} {level}h24"/>')
        parts.append(f'<text class="small" x="{key + 30}" y="{level + 4}">{escape(line.name)}</text>')
    return "\n".join((*parts, "</svg>")) + "\n"


def _step(most: float) -> float:
    """The distance of about five marks on an axis from 0 to ``most``: 1, 2 or 5 times a power of ten."""
    if most <= 0:
        return 1.0
    rough = most / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _head(title: str, y: str, lines: Sequence[Line]) -> list[str]:
    light = [f"    .c{number} {{ stroke: {colour} }}" for number, (colour, _) in enumerate(_COLOURS)]
    dark = [f"      .c{number} {{ stroke: {colour} }}" for number, (_, colour) in enumerate(_COLOURS)]
    names = ", ".join(line.name for line in lines)
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'aria-labelledby="title text">',
        "  <!-- SPDX-License-Identifier: MIT -->",
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="text">{escape(y)}, one line each for: {escape(names)}. Dashed lines are computed.</desc>',
        "  <style>",
        "    .line { fill: none; stroke-width: 2 }",
        "    .theory { stroke-dasharray: 6 4; stroke-width: 1.5 }",
        "    .grid { stroke: #57606a; stroke-opacity: 0.25 }",
        "    text { font: 15px system-ui, sans-serif; fill: #1f2328 }",
        "    .small { font-size: 12px }",
        *light,
        "    @media (prefers-color-scheme: dark) {",
        "      text { fill: #e6edf3 }",
        *dark,
        "    }",
        "  </style>",
        f'<text x="12" y="18">{escape(title)}</text>',
    ]
