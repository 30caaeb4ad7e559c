# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""One HTML file that holds everything: figures, sortable tables, text; nothing is fetched.

`write_page` renders any page out of sections; `model_sections` gives what every evaluation of a model
shows (confusion, reliability, accuracy against coverage). The replay's own page is in `replay_report`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from hri_emo_ros.data import metrics
from hri_emo_ros.evaluation import svg
from hri_emo_ros.evaluation.scores import rounded
from hri_emo_ros.evaluation.timeline import Timeline

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Tile:
    """A headline figure."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """An inline drawing."""

    title: str
    svg: str
    caption: str = ""
    kind: str = "figure"


@dataclass(frozen=True)
class Table:
    """Rows that sort by a click on a column's head."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    kind: str = "table"

    @cached_property
    def text_columns(self) -> set[int]:
        """Columns set flush left."""
        return {
            i for i in range(len(self.columns)) if any(isinstance(row[i], str) for row in self.rows)
        }


@dataclass(frozen=True)
class Code:
    """Text that is folded away: parameters, a model card."""

    title: str
    text: str
    open: bool = False
    kind: str = "code"


@dataclass(frozen=True)
class TimelineItem:
    """A recording to scroll through."""

    names: str
    drawing: str
    caption: str = ""
    kind: str = "timeline"

    @classmethod
    def of(cls, timeline: Timeline, caption: str) -> TimelineItem:
        return cls(timeline.names, timeline.drawing, caption)


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, side by side where there is room."""

    title: str
    items: Sequence[Figure | Table | Code | TimelineItem] = field(default_factory=tuple)
    note: str = ""


def write_page(
    path: Path,
    title: str,
    subtitle: str,
    tiles: Sequence[Tile],
    sections: Sequence[Section],
    notices: Sequence[str] = (),
) -> None:
    """Write one self-contained HTML page.

    Args:
        path: file; its folder is made.
        title: heading.
        subtitle: a line below it: what was measured, on what, when it matters.
        tiles: the figures that come first.
        sections: everything else.
        notices: what the reader must not miss.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"shown": shown, "sortkey": _sort_key}
    page = environment.get_template("report.html.j2").stream(
        title=title, subtitle=subtitle, tiles=tiles, sections=sections, notices=notices
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    page.dump(str(path), encoding="utf-8")  # Piece by piece: hours make a page of 40 MB.


def shown(value: Cell) -> str:
    """A cell as it is printed: three decimals (one from 10 on), a dash for what does not exist."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def _sort_key(value: Cell) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)


def with_interval(figure: dict[str, Any]) -> str:
    """``0.61 [0.55, 0.67]`` of a figure with its interval."""
    if figure["value"] is None:
        return "–"
    return f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def model_sections(
    targets: npt.ArrayLike,
    probabilities: npt.ArrayLike,
    labels: Sequence[str],
    uncertainty: npt.ArrayLike | None = None,
) -> list[Section]:
    """What every single-label evaluation shows.

    Args:
        targets: class indices [n].
        probabilities: [n, labels].
        labels: the model's emotions.
        uncertainty: [n], larger is less certain; None takes 1 - the highest probability.

    Returns:
        Sections on the emotions (scores, confusion) and on confidence (reliability, accuracy against
        coverage).
    """
    p = np.asarray(probabilities, dtype=np.float64)
    true = np.asarray(targets, dtype=np.int64)
    predicted = p.argmax(axis=1) if len(p) else np.zeros(0, np.int64)
    doubt = 1.0 - p.max(axis=1) if uncertainty is None else np.asarray(uncertainty)
    counts = metrics.confusion(true, predicted, len(labels)).tolist()
    bins = [rounded(vars(b)) for b in metrics.reliability(true, p)]
    return [
        emotion_section(metrics.per_class(true, predicted, labels), labels, labels, counts),
        Section(
            "Confidence",
            [
                reliability_figure(bins, metrics.ece(true, p)),
                coverage_figure(predicted == true, doubt),
            ],
        ),
    ]


def emotion_section(
    scores: dict[str, metrics.ClassScores] | dict[str, dict[str, Any]],
    rows: Sequence[str],
    columns: Sequence[str],
    counts: Sequence[Sequence[int]],
) -> Section:
    """Scores by emotion beside the confusion matrix."""
    table = []
    for label, value in scores.items():
        s = value if isinstance(value, dict) else rounded(vars(value))
        table.append([label, s["support"], s["recall"], s["precision"], s["f1"]])
    return Section(
        "Emotions",
        [
            Table("By emotion", ["emotion", "support", "recall", "precision", "F1"], table),
            Figure(
                "Confusion",
                svg.confusion(rows, columns, counts),
                "Rows are what is true, columns what was answered; shading is the share of the row.",
            ),
        ],
    )


def reliability_figure(bins: Sequence[dict[str, float]], ece: float | None) -> Figure:
    """Accuracy against confidence; the diagonal is perfect calibration."""
    error = "–" if ece is None or math.isnan(ece) else f"{ece:.3f}"
    return Figure(
        "Calibration",
        svg.reliability(bins),
        f"Expected calibration error {error} (15 bins). Above the diagonal the model is more often "
        "right than it says; size is the number of predictions.",
    )


def coverage_figure(correct: npt.ArrayLike, uncertainty: npt.ArrayLike) -> Figure:
    """Accuracy if only the most certain share is answered."""
    right = np.asarray(correct)
    if len(right) == 0:
        return Figure("Accuracy against coverage", svg.lines([], "share answered", "accuracy"))
    coverage, accuracy = metrics.coverage_accuracy(right, uncertainty, points=25)
    curve = svg.Series("accuracy", coverage.tolist(), accuracy.tolist())
    return Figure(
        "Accuracy against coverage",
        svg.lines([curve], "share answered, the most certain first", "accuracy", width=440),
        "What abstaining would buy: the least certain states are left out from right to left.",
    )
