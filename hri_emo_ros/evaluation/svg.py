# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Small plots as inline SVG: no script, no font to load, told apart without colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 5", "12 4")
MARKERS = ("circle", "square", "triangle", "diamond", "cross", "plus")
COLOURS = ("#1b4f8a", "#b4511d", "#3b7a3b", "#7a3b7a", "#555555", "#8a6d1b")
"""Dark enough to read on white and in grey; series also differ in dash and marker."""


@dataclass(frozen=True)
class Series:
    """One curve of a plot; points whose y is None are left out."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = field(default_factory=tuple)
    """Lower and upper ends of an interval at each point, or nothing."""
    high: Sequence[float | None] = field(default_factory=tuple)


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = (0.0, 1.0),
    diagonal: bool = False,
    width: int = 560,
    height: int = 320,
) -> str:
    """Curves over a common axis with a legend, as an ``<svg>`` element."""
    xs = [x for s in series for x in s.x] or [0.0, 1.0]
    ys = [y for s in series for y in (*s.y, *s.low, *s.high) if y is not None] or [0.0, 1.0]
    low, high = y_range if y_range else (min(ys), max(ys))
    plot = _Axes(width, height, (min(xs), max(xs)), (low, high), x_label, y_label)
    parts = [plot.frame()]
    if diagonal:
        parts.append(plot.path([(low, low), (high, high)], "#999", "3 4", 1.0))
    for number, one in enumerate(series):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        points = [(x, y) for x, y in zip(one.x, one.y, strict=True) if y is not None]
        if one.low:
            band = zip(one.x, one.low, one.high, strict=True)
            for x, a, b in band:
                if a is not None and b is not None:
                    parts.append(plot.path([(x, a), (x, b)], colour, "", 1.0))
        parts.append(plot.path(points, colour, dash, 2.0))
        parts.extend(_marker(plot.x(x), plot.y(y), number, colour) for x, y in points)
    parts.append(_legend(series, plot))
    return plot.svg(parts, f"{y_label} against {x_label}")


def reliability(bins: Sequence[dict[str, float]], width: int = 340, height: int = 320) -> str:
    """Accuracy against confidence; marks grow with the number of predictions in a bin."""
    plot = _Axes(width, height, (0.0, 1.0), (0.0, 1.0), "confidence", "accuracy")
    parts = [plot.frame(), plot.path([(0, 0), (1, 1)], "#999", "3 4", 1.0)]
    points = [(b["confidence"], b["accuracy"]) for b in bins]
    parts.append(plot.path(points, COLOURS[0], "", 1.5))
    most = max((b["count"] for b in bins), default=1)
    for b in bins:
        radius = 2.5 + 6.5 * (b["count"] / most) ** 0.5
        parts.append(
            f'<circle cx="{plot.x(b["confidence"]):.1f}" cy="{plot.y(b["accuracy"]):.1f}" '
            f'r="{radius:.1f}" fill="{COLOURS[0]}" fill-opacity="0.75">'
            f"<title>{b['count']:g} predictions: confidence {b['confidence']:.2f}, accuracy "
            f"{b['accuracy']:.2f}</title></circle>"
        )
    return plot.svg(parts, "reliability diagram")


def confusion(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Counts as a grid, shaded by the share of each row; true classes are the rows."""
    cell, left, top = 58, 92, 96
    width, height = left + cell * len(columns) + 44, top + cell * len(rows) + 8
    parts = [
        f'<text x="{left - 8}" y="{top - 10}" text-anchor="end" class="dim">true \\ heard</text>'
    ]
    for j, name in enumerate(columns):
        x, y = left + cell * (j + 0.5), top - 8
        parts.append(
            f'<text x="{x}" y="{y}" transform="rotate(-40 {x} {y})" class="label">'
            f"{escape(name)}</text>"
        )
    for i, name in enumerate(rows):
        total = sum(counts[i])
        y = top + cell * i
        parts.append(
            f'<text x="{left - 8}" y="{y + cell / 2 + 5}" text-anchor="end" class="label">'
            f"{escape(name)}</text>"
        )
        for j in range(len(columns)):
            share = counts[i][j] / total if total else 0.0
            grey = round(255 - 205 * share)
            ink = "#fff" if share > 0.55 else "#111"
            outline = ' stroke="#111" stroke-width="1.6"' if i == j else ' stroke="#bbb"'
            x = left + cell * j
            inset = 1 if i == j else 0.5
            parts.append(
                f'<rect x="{x + inset}" y="{y + inset}" width="{cell - 2 * inset}" '
                f'height="{cell - 2 * inset}" fill="rgb({grey},{grey},{min(255, grey + 8)})"'
                f"{outline}><title>{escape(name)} heard as {escape(columns[j])}: {counts[i][j]} of "
                f"{total}</title></rect>"
            )
            if counts[i][j]:
                parts.append(
                    f'<text x="{x + cell / 2}" y="{y + cell / 2}" text-anchor="middle" '
                    f'fill="{ink}" class="count">{counts[i][j]}</text>'
                    f'<text x="{x + cell / 2}" y="{y + cell / 2 + 15}" text-anchor="middle" '
                    f'fill="{ink}" class="share">{share:.0%}</text>'
                )
    return _svg(width, height, parts, "confusion matrix")


def bars(
    names: Sequence[str],
    values: Sequence[float | None],
    low: Sequence[float | None] = (),
    high: Sequence[float | None] = (),
    reference: float | None = None,
    limit: float = 1.0,
    width: int = 660,
) -> str:
    """Horizontal bars in [0, limit] with intervals; `reference` is a dashed line (chance)."""
    row, left, right = 26, 262, 64
    height = row * len(names) + 30
    span = width - left - right
    scale = span / limit
    parts = []
    for i, name in enumerate(names):
        y = 8 + row * i
        value = values[i]
        parts.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end" class="label">{escape(name)}</text>'
        )
        if value is None:
            parts.append(f'<text x="{left + 4}" y="{y + 14}" class="dim">none</text>')
            continue
        parts.append(
            f'<rect x="{left}" y="{y + 2}" width="{max(0.5, value * scale):.1f}" height="16" '
            f'fill="#9db7d4" stroke="{COLOURS[0]}"/>'
        )
        edge = value
        if low and low[i] is not None and high[i] is not None:
            a, b = float(low[i] or 0.0), float(high[i] or 0.0)
            edge = max(edge, b)
            parts.append(
                f'<path d="M{left + a * scale:.1f} {y + 10}H{left + b * scale:.1f}'
                f'M{left + a * scale:.1f} {y + 5}v10M{left + b * scale:.1f} {y + 5}v10" '
                'stroke="#111" fill="none" stroke-width="1.4"/>'
            )
        parts.append(
            f'<text x="{left + edge * scale + 6:.1f}" y="{y + 14}" class="count">{value:.3f}</text>'
        )
    if reference is not None:
        x = left + reference * scale
        parts.append(
            f'<path d="M{x:.1f} 2V{height - 22}" stroke="#111" stroke-dasharray="3 3"/>'
            f'<text x="{x:.1f}" y="{height - 8}" text-anchor="middle" class="dim">chance</text>'
        )
    return _svg(width, height, parts, "bars")


def _svg(width: float, height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


class _Axes:
    """A plot's coordinates and frame."""

    def __init__(
        self,
        width: int,
        height: int,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        x_label: str,
        y_label: str,
    ) -> None:
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = 54, width - 14, 12, height - 46
        self.x_range, self.y_range = _wide(x_range), _wide(y_range)
        self.x_label, self.y_label = x_label, y_label

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)

    def frame(self) -> str:
        parts = []
        for value in ticks(*self.x_range):
            parts.append(
                f'<path d="M{self.x(value):.1f} {self.top}V{self.bottom}" stroke="#e2e2e2"/>'
                f'<text x="{self.x(value):.1f}" y="{self.bottom + 16}" text-anchor="middle" '
                f'class="tick">{value:g}</text>'
            )
        for value in ticks(*self.y_range):
            parts.append(
                f'<path d="M{self.left} {self.y(value):.1f}H{self.right}" stroke="#e2e2e2"/>'
                f'<text x="{self.left - 6}" y="{self.y(value) + 4:.1f}" text-anchor="end" '
                f'class="tick">{value:g}</text>'
            )
        middle = (self.top + self.bottom) / 2
        parts.append(
            f'<path d="M{self.left} {self.top}V{self.bottom}H{self.right}" stroke="#111" fill="none"/>'
            f'<text x="{(self.left + self.right) / 2}" y="{self.height - 8}" '
            f'text-anchor="middle" class="label">{escape(self.x_label)}</text>'
            f'<text x="14" y="{middle}" text-anchor="middle" class="label" '
            f'transform="rotate(-90 14 {middle})">{escape(self.y_label)}</text>'
        )
        return "".join(parts)

    def path(
        self, points: Sequence[tuple[float, float]], colour: str, dash: str, width: float
    ) -> str:
        if not points:
            return ""
        d = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        style = f' stroke-dasharray="{dash}"' if dash else ""
        return f'<path d="M{d}" fill="none" stroke="{colour}" stroke-width="{width}"{style}/>'

    def svg(self, parts: Sequence[str], title: str) -> str:
        return _svg(self.width, self.height, parts, title)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round values within [low, high]."""
    raw = (high - low) / about
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [round(float(k * step), 10) for k in range(first, last + 1)]


def _wide(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _marker(x: float, y: float, number: int, colour: str) -> str:
    shape = MARKERS[number % len(MARKERS)]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}"/>'
    outline = {
        "square": f"M{x - 3.2:.1f} {y - 3.2:.1f}h6.4v6.4h-6.4z",
        "triangle": f"M{x:.1f} {y - 4.2:.1f}l4 7h-8z",
        "diamond": f"M{x:.1f} {y - 4.5:.1f}l4.5 4.5l-4.5 4.5l-4.5 -4.5z",
        "cross": f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7",
        "plus": f"M{x - 4:.1f} {y:.1f}h8m-4 -4v8",
    }[shape]
    return f'<path d="{outline}" fill="{colour}" stroke="{colour}" stroke-width="1.6"/>'


def _legend(series: Sequence[Series], plot: _Axes) -> str:
    if len(series) < 2:
        return ""
    longest = max(len(s.name) for s in series)
    width, height = 46 + 6.6 * longest, 8 + 17 * len(series)
    left, top = plot.right - width - 6, plot.bottom - height - 6
    parts = [
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="#fff" '
        'fill-opacity="0.88" stroke="#bbb"/>'
    ]
    for i, one in enumerate(series):
        y = top + 13 + 17 * i
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        style = f' stroke-dasharray="{dash}"' if dash else ""
        parts.append(
            f'<path d="M{left + 6} {y}h28" stroke="{colour}" stroke-width="2"{style}/>'
            + _marker(left + 20, y, i, colour)
            + f'<text x="{left + 40}" y="{y + 4}" class="tick">{escape(one.name)}</text>'
        )
    return "".join(parts)
