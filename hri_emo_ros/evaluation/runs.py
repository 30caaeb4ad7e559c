# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Comparing training runs: a table and a plot out of their metrics.json files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hri_emo_ros.errors import HriEmoError

METRICS_FILE = "metrics.json"
"""What `hri-emo train` leaves in each run's folder."""
FIGURES = ("ua", "wa", "macro_f1", "weighted_f1", "ece", "loss")


@dataclass(frozen=True)
class Run:
    """A finished run."""

    name: str
    """Folder relative to the folder of runs."""
    folder: Path
    metrics: dict[str, Any]

    def figure(self, corpus: str, name: str) -> float | None:
        """A validation figure, None where the run does not have it."""
        value = self.metrics.get("validation", {}).get(corpus, {}).get(name)
        return None if value is None else float(value)

    @property
    def corpora(self) -> list[str]:
        """Corpora that the run was validated on."""
        return [name for name in self.metrics.get("validation", {}) if name != "all"]

    def curve(self, figure: str) -> tuple[list[float], list[float]]:
        """Epochs and the mean of a figure over corpora at each validation."""
        epochs, values = [], []
        for entry in self.metrics.get("history", []):
            found = [
                scores[figure]
                for corpus, scores in entry["validation"].items()
                if corpus != "all" and scores.get(figure) is not None
            ]
            if found:
                epochs.append(float(entry["epoch"]))
                values.append(sum(found) / len(found))
        return epochs, values


def find_runs(folder: Path, wanted: str = "") -> list[Run]:
    """Every finished run under `folder` whose name contains `wanted`, by name.

    Raises:
        HriEmoError: there is none.
    """
    runs = []
    for file in sorted(folder.rglob(METRICS_FILE)):
        name = str(file.parent.relative_to(folder))
        if wanted in name:
            try:
                runs.append(Run(name, file.parent, json.loads(file.read_text(encoding="utf-8"))))
            except (OSError, ValueError) as error:
                raise HriEmoError(f"cannot read '{file}': {error}") from error
    if not runs:
        raise HriEmoError(
            f"there is no finished run under '{folder}'"
            + (f" with '{wanted}' in its name" if wanted else "")
            + "; train one with hri-emo train"
        )
    return runs


def plot(runs: list[Run], figure: str, path: Path) -> None:
    """Draw a figure's mean over corpora against epochs, one line a run, into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    canvas, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    markers = "osv^D*XP"
    for number, run in enumerate(runs):
        epochs, values = run.curve(figure)
        axes.plot(epochs, values, marker=markers[number % len(markers)], label=run.name)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"{figure}, mean over corpora")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=120)
    plt.close(canvas)
