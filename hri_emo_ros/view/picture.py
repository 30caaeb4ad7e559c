# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The picture of a recording: waveform, words, probabilities, weights on one time axis."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros.types import FloatArray
from hri_emo_ros.view.shown import Shown

COLOURS = {
    "neutral": "#7f7f7f", "happy": "#e0a400", "sad": "#2f6fb5", "angry": "#c62f2f",
    "fear": "#8a4fa3", "disgust": "#4f8f3a", "surprise": "#1a9e9e",
}  # fmt: skip
VOICE, WORDS = "#35618f", "#e3b23c"
COLUMNS = 3000
"""Waveform columns drawn; each is the range of the samples below it."""


def draw(
    path: Path,
    samples: FloatArray,
    sample_rate: int,
    states: Sequence[Shown],
    title: str,
    references: Sequence[tuple[float, float, str]] = (),
) -> None:
    """Write the picture of a whole recording.

    Args:
        samples: [n] float32 mono, full scale [-1, 1].
        states: all states, provisional ones too; `start` in seconds from the first sample.
        references: (start, end, emotion) of what was meant, seconds; drawn below the words.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    finals = [state for state in states if state.final]
    labels = next((state.labels for state in finals if state.labels), ())
    seconds = len(samples) / sample_rate
    figure, axes = plt.subplots(
        4, 1, figsize=(max(10.0, min(24.0, seconds * 0.36)), 9.2), sharex=True,
        gridspec_kw={"height_ratios": [1.3, 1.35, 2.3, 0.9], "hspace": 0.1},
        layout="constrained",
    )  # fmt: skip
    try:
        _waveform(axes[0], samples, sample_rate, finals)
        _words(axes[1], finals, references)
        _probabilities(figure, axes[2], states, labels)
        _weights(axes[3], finals)
        axes[3].set_xlim(0.0, seconds)
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
        figure.savefig(path, dpi=130)
    finally:
        plt.close(figure)


def _waveform(axis: Any, samples: FloatArray, sample_rate: int, finals: Sequence[Shown]) -> None:
    step = max(1, len(samples) // COLUMNS)
    whole = samples[: len(samples) // step * step].reshape(-1, step)
    times = np.arange(len(whole)) * step / sample_rate
    axis.fill_between(times, whole.min(axis=1), whole.max(axis=1), color="#333333", linewidth=0)
    for state in finals:
        axis.axvspan(state.start, state.start + state.duration, color=_colour(state), alpha=0.22)
        axis.text(
            state.start, 1.02, f"{state.utterance}", fontsize=8, va="bottom",
            transform=axis.get_xaxis_transform(),
        )  # fmt: skip
    peak = max(0.05, float(np.abs(samples).max(initial=0.0)))
    axis.set_ylim(-peak * 1.05, peak * 1.05)
    axis.set_ylabel("heard")
    axis.set_yticks([])


def _words(
    axis: Any, finals: Sequence[Shown], references: Sequence[tuple[float, float, str]]
) -> None:
    axis.set_ylim(0.0, 1.0)
    axis.set_yticks([])
    axis.set_ylabel("words")
    for state, following in zip(finals, [*finals[1:], None], strict=True):
        room = (following.start if following else state.start + state.duration + 1.5) - state.start
        wrapped = textwrap.fill(state.words or "–", max(8, round(room * 5.2)))
        axis.text(state.start, 0.97, wrapped, fontsize=7, va="top", color="#222222")
        axis.text(
            state.start, 0.14, "abstained" if state.abstained else state.verdict,
            fontsize=8.5, va="bottom", weight="bold", color=_colour(state),
        )  # fmt: skip
    for start, _, emotion in references:
        if emotion:
            axis.text(start, 0.02, f"meant: {emotion}", fontsize=7, va="bottom", color="#666666")


def _probabilities(figure: Any, axis: Any, states: Sequence[Shown], labels: Sequence[str]) -> None:
    """One row an emotion, darker is more probable; each state fills the time it was made from."""
    from matplotlib.patches import Rectangle

    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylabel("probability")
    reached: dict[int, float] = {}
    for state in states:
        begin = reached.get(state.utterance, state.start)
        end = state.start + state.duration
        reached[state.utterance] = end
        for row, probability in enumerate(state.probabilities):
            axis.add_patch(
                Rectangle(
                    (begin, row - 0.46),
                    max(0.02, end - begin),
                    0.92,
                    facecolor=_shade(probability),
                    edgecolor="none",
                )
            )
            if state.final and probability >= 0.2:
                axis.text(
                    end - 0.05, row, f"{probability:.2f}".lstrip("0"), fontsize=7, va="center",
                    ha="right", color="white" if probability > 0.5 else "black",
                )  # fmt: skip
    for state in states:
        if state.final:
            axis.add_patch(
                Rectangle(
                    (state.start, -0.5),
                    state.duration,
                    len(labels),
                    facecolor="none",
                    edgecolor="#999999",
                    linewidth=0.6,
                )
            )
            if state.dominant in labels:
                row = list(labels).index(state.dominant)
                axis.add_patch(
                    Rectangle(
                        (state.start, row - 0.46),
                        state.duration,
                        0.92,
                        facecolor="none",
                        edgecolor=_colour(state),
                        linewidth=1.8,
                    )
                )


def _shade(probability: float) -> tuple[float, float, float]:
    """White for 0, dark blue for 1; monotone in grey too."""
    p = max(0.0, min(1.0, probability)) ** 0.8
    return (1.0 - 0.92 * p, 1.0 - 0.80 * p, 1.0 - 0.62 * p)


def _weights(axis: Any, finals: Sequence[Shown]) -> None:
    starts = [state.start for state in finals]
    widths = [state.duration for state in finals]
    voice = [state.audio_weight for state in finals]
    words = [state.text_weight for state in finals]
    axis.bar(starts, voice, widths, align="edge", color=VOICE, label="voice")
    axis.bar(starts, words, widths, voice, align="edge", color=WORDS, hatch="///",
             edgecolor="#8a6d1f", linewidth=0.3, label="words")  # fmt: skip
    for state in finals:
        axis.text(
            state.start + state.duration / 2, 1.04, f"{state.latency * 1000:.0f} ms", fontsize=7,
            ha="center", va="bottom", color="#444444",
        )  # fmt: skip
    axis.set_ylim(0.0, 1.25)
    axis.set_yticks([0.0, 0.5, 1.0])
    axis.set_ylabel("weight")
    if finals:
        axis.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=7, ncols=2, frameon=False
        )
    axis.set_xlabel("time, s   (ms: from the end of speech to the final state)")


def _colour(state: Shown) -> str:
    return COLOURS.get(state.dominant, "#999999")
