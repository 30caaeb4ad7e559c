# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Draws an explanation for people who have not read the paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import SAMPLE_RATE, EmotionEstimate, FloatArray, Word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOR, AGAINST, INK, FAINT = "#d1495b", "#3b7ea1", "#222222", "#b9bec4"
_MOST_WORDS = 24
"""More do not fit legibly; the strongest are drawn."""


def draw_explanation(estimate: EmotionEstimate, samples: FloatArray | None, path: Path) -> None:
    """Write a PNG (or what the suffix says) with the waveform, the words and both maps.

    Args:
        estimate: made with ``explain=True``.
        samples: the audio it was made from; None when there was none.

    Raises:
        HriEmoError: the estimate has no explanation, or the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    if estimate.explanation is None:
        raise HriEmoError("the estimate holds no explanation: ask for it with explain=True")
    explanation = estimate.explanation
    order = np.argsort(-estimate.probabilities)
    has_voice = samples is not None and explanation.moment_attribution.shape[1] > 0
    has_words = len(explanation.words) > 0
    figure = plt.figure(figsize=(15, 9.6 if has_words and has_voice else 6.6), dpi=110)
    outer = figure.add_gridspec(
        1, 2, width_ratios=(1.75, 1) if has_voice else (0.001, 1), left=0.075, right=0.97,
        top=0.80 if has_words else 0.76, bottom=0.13, wspace=0.22,
    )  # fmt: skip
    figure.suptitle(_headline(estimate), x=0.03, y=0.97, ha="left", fontsize=17, color=INK,
                    fontweight="bold")  # fmt: skip
    figure.text(0.03, 0.895, _subtitle(estimate), fontsize=11.5, color=INK, va="center")
    figure.text(0.03, 0.03, _legend(has_voice, has_words), fontsize=10.5, color="#555555")
    if has_voice and samples is not None:
        rows = 3 if has_words else 2
        left = outer[0].subgridspec(rows, 1, height_ratios=(1, 1.5, 2.0)[:rows], hspace=0.42)
        wave = figure.add_subplot(left[0])
        estimated = estimate.transcript is not None and estimate.transcript.word_times_estimated
        _waveform(wave, samples, explanation.words, estimated)
        _moments(figure.add_subplot(left[1], sharex=wave), estimate, order)
        if has_words:
            _alignment(figure.add_subplot(left[2], sharex=wave), estimate)
    if has_words:
        right = outer[1].subgridspec(2, 1, height_ratios=(1, 2.6), hspace=0.28)
        _bars(figure.add_subplot(right[0]), estimate, order)
        _words(figure, right[1], estimate, order)
    else:
        _bars(figure.add_subplot(outer[1]), estimate, order)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise HriEmoError(f"cannot write '{path}': {error} (argument --out)") from error
    finally:
        plt.close(figure)


def _headline(estimate: EmotionEstimate) -> str:
    top = float(estimate.probabilities.max())
    if estimate.abstained:
        reason = estimate.abstain_reason.name.lower().replace("_", " ")
        return f"Undecided ({reason}); the best guess is {estimate.dominant}, {top:.0%}"
    return f"Most likely emotion: {estimate.dominant} ({top:.0%})"


def _subtitle(estimate: EmotionEstimate) -> str:
    transcript = estimate.transcript
    text = transcript.text.strip() if transcript else ""
    if len(text) > 130:
        text = text[:127] + "..."
    if transcript and text and not transcript.usable:
        return f"“{text}”\nJudged by the voice alone: {transcript.status_text or 'refused words'}."
    if not text:
        return "Judged by the voice alone: there were no words."
    if not estimate.duration:
        return f"“{text}”\nJudged by the words alone: there was no voice."
    return (
        f"“{text}”\nThe decision rests {estimate.audio_weight:.0%} on how it was said, "
        f"{estimate.text_weight:.0%} on what was said."
    )


def _legend(has_voice: bool, has_words: bool) -> str:
    sentences = [
        "Red spoke for the emotion of its row, blue against it; the paler, the less it mattered."
    ]
    if has_voice and has_words:
        sentences.append(
            "Bottom left: the darker, the more the system listened to that moment for the word."
        )
    return " ".join(sentences)


def _waveform(axes: Axes, samples: FloatArray, words: tuple[Word, ...], estimated: bool) -> None:
    seconds = len(samples) / SAMPLE_RATE
    # One vertical line per pixel column, from the least to the greatest sample in it.
    columns = min(1500, len(samples))
    edges = np.linspace(0, len(samples), columns + 1).astype(int)
    low = np.minimum.reduceat(samples, edges[:-1])
    high = np.maximum.reduceat(samples, edges[:-1])
    time = (edges[:-1] + edges[1:]) / 2 / SAMPLE_RATE
    axes.fill_between(time, low, high, color="#4a4e54", linewidth=0.4)
    peak = max(float(np.abs(samples).max()), 1e-4)
    axes.set_ylim(-1.1 * peak, 1.1 * peak)
    axes.set_xlim(0, seconds)
    axes.set_yticks([])
    timed = [word for word in words if word.end > word.start]
    title = "The sound"
    if timed:
        title += " and its words" + (" (their times are estimates)" if estimated else "")
    axes.set_title(title, loc="left", fontsize=11.5, pad=22 if timed else 6)
    for index, word in enumerate(timed):
        axes.axvspan(
            word.start, word.end, color="#f2c14e", alpha=0.18 + 0.14 * (index % 2), linewidth=0
        )
        axes.annotate(
            word.text, ((word.start + word.end) / 2, 1.03), xycoords=("data", "axes fraction"),
            ha="center", va="bottom", fontsize=9.5, rotation=0 if len(timed) <= 14 else 40,
        )  # fmt: skip
    _plain(axes)


def _moments(axes: Axes, estimate: EmotionEstimate, order: np.ndarray) -> None:
    explanation = estimate.explanation
    assert explanation is not None
    values = explanation.moment_attribution[order]
    _heat(axes, values, _span(values.shape[1], explanation.moment_period), signed=True)
    axes.set_yticks(range(len(order)), [_name(estimate, e) for e in order], fontsize=10)
    axes.set_title("Which moments spoke for each emotion", loc="left", fontsize=11.5)
    if not len(explanation.words):
        axes.set_xlabel("seconds")


def _alignment(axes: Axes, estimate: EmotionEstimate) -> None:
    explanation = estimate.explanation
    assert explanation is not None
    chosen = np.arange(min(len(explanation.words), _MOST_WORDS))
    values = explanation.alignment[chosen]
    # What all words share says nothing about any of them; each row's peak becomes black.
    low = values.min(axis=1, keepdims=True)
    span = values.max(axis=1, keepdims=True) - low
    values = (values - low) / np.where(span > 0, span, 1.0)
    _heat(axes, values, _span(values.shape[1], explanation.moment_period), signed=False)
    axes.set_yticks(range(len(chosen)), [explanation.words[w].text for w in chosen],
                    fontsize=9 if len(chosen) <= 14 else 6.5)  # fmt: skip
    axes.set_title("Where the system listened for each word", loc="left", fontsize=11.5)
    axes.set_xlabel("seconds")


def _bars(axes: Axes, estimate: EmotionEstimate, order: np.ndarray) -> None:
    p = estimate.probabilities[order]
    audio = estimate.audio_weight_per_emotion[order]
    place = np.arange(len(order))
    axes.barh(place, p * audio, color="#6c757d", label="from the voice", height=0.7)
    axes.barh(
        place, p * (1 - audio), left=p * audio, color="#f2c14e", label="from the words", height=0.7
    )
    for y, value in zip(place.tolist(), p.tolist(), strict=True):
        axes.text(value + 0.01, y, f"{value:.0%}", va="center", fontsize=9.5)
    axes.set_yticks(place, [estimate.labels[e] for e in order], fontsize=10)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.08)
    axes.set_xticks([])
    axes.set_title("How likely each emotion is", loc="left", fontsize=11.5)
    if 0.0 < estimate.audio_weight < 1.0:
        axes.legend(frameon=False, fontsize=9.5, loc="lower right")
    _plain(axes)
    axes.spines["bottom"].set_visible(False)


def _words(figure: Any, place: Any, estimate: EmotionEstimate, order: np.ndarray) -> None:
    """One row of bars per emotion, one bar per word, the words below."""
    explanation = estimate.explanation
    assert explanation is not None
    strength = np.abs(explanation.word_attribution).sum(axis=0)
    chosen = np.sort(np.argsort(-strength, kind="stable")[:_MOST_WORDS])
    rows = place.subgridspec(len(order), 1, hspace=0.15)
    limit = max(float(np.abs(explanation.word_attribution).max()), 1e-6)
    for row, emotion in enumerate(order):
        axes = figure.add_subplot(rows[row])
        values = explanation.word_attribution[emotion][chosen]
        axes.bar(range(len(chosen)), values, color=np.where(values > 0, FOR, AGAINST), width=0.7)
        axes.axhline(0, color=FAINT, linewidth=0.8)
        axes.set_ylim(-1.1 * limit, 1.1 * limit)
        axes.set_yticks([0], [estimate.labels[emotion]], fontsize=10)
        axes.set_xlim(-0.6, len(chosen) - 0.4)
        axes.set_xticks([])
        _plain(axes)
        axes.spines["bottom"].set_visible(False)
        if row == 0:
            axes.set_title("Which words spoke for each emotion", loc="left", fontsize=11.5)
    many = len(chosen) > 7
    axes.set_xticks(range(len(chosen)), [explanation.words[w].text for w in chosen], fontsize=10,
                    rotation=45 if many else 0, ha="right" if many else "center")  # fmt: skip


def _heat(axes: Axes, values: FloatArray, seconds: float, signed: bool) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    if signed:
        colours = LinearSegmentedColormap.from_list("for_against", [AGAINST, "white", FOR])
        limit = max(float(np.quantile(np.abs(values), 0.99)), 1e-9)
        low, high = -limit, limit
    else:
        colours = LinearSegmentedColormap.from_list("listened", ["white", INK])
        low, high = 0.0, 1.0
    axes.imshow(
        values, aspect="auto", interpolation="nearest", cmap=colours, vmin=low, vmax=high,
        extent=(0.0, seconds, len(values) - 0.5, -0.5),
    )  # fmt: skip
    axes.set_yticks(np.arange(len(values) + 1) - 0.5, minor=True)
    axes.grid(which="minor", axis="y", color=FAINT, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    for side in axes.spines.values():
        side.set_color(FAINT)


def _span(frames: int, period: float) -> float:
    return frames * period if period > 0 else float(frames)


def _name(estimate: EmotionEstimate, emotion: int) -> str:
    return f"{estimate.labels[emotion]}  {estimate.probabilities[emotion]:.0%}"


def _plain(axes: Axes) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(length=0)
