# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The whole recording drawn along its time, to scroll through."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from hri_emo_ros.evaluation.envelope import Envelope
from hri_emo_ros.evaluation.labels import Label
from hri_emo_ros.evaluation.utterances import HeardUtterance

_WIDEST = 60_000
"""Pixels: an hour and more is drawn smaller rather than wider."""
_AXIS, _LABELS, _WAVE, _WORDS, _HEAT, _ROW = 20, 26, 74, 22, 8, 17
_WEIGHTS, _VERDICT = 34, 20


@dataclass(frozen=True)
class Timeline:
    """Two drawings side by side: the names of the rows, and what scrolls."""

    names: str
    drawing: str


def timeline(
    duration: float,
    envelope: Envelope,
    utterances: Sequence[HeardUtterance],
    reference: Sequence[Label],
    labels: Sequence[str],
) -> Timeline:
    """Labels, waveform, words, probabilities as they developed, weights and verdict.

    Args:
        duration: seconds.
        envelope: of the sound.
        utterances: heard ones, in order.
        reference: a person's labels; may be empty.
        labels: the model's emotions: the rows of the probabilities.
    """
    scale = min(90.0, _WIDEST / max(duration, 1.0))
    drawing = _Drawing(duration, scale, labels, bool(reference))
    parts = [drawing.axis()]
    parts.extend(drawing.heard(u) for u in utterances)
    parts.append(drawing.wave(envelope))
    parts.extend(drawing.label(label) for label in reference)
    parts.extend(drawing.state(u, _truth(u, reference)) for u in utterances)
    return Timeline(drawing.names(), drawing.svg(parts))


def _truth(utterance: HeardUtterance, reference: Sequence[Label]) -> str:
    """Emotion of the label that most of the utterance belongs to; empty if there is none."""
    # In order and next to free of overlap, so that hours of labels need not all be looked at.
    first = bisect_left(reference, utterance.start, key=lambda label: label.end)
    last = bisect_left(reference, utterance.end, key=lambda label: label.start)
    best = max(
        reference[first:last],
        key=lambda label: label.overlap(utterance.start, utterance.end),
        default=None,
    )
    shared = best.overlap(utterance.start, utterance.end) if best else 0.0
    return best.emotion if best and shared > 0 else ""


class _Drawing:
    """Coordinates of the rows."""

    def __init__(
        self, duration: float, scale: float, labels: Sequence[str], with_labels: bool
    ) -> None:
        self.scale, self.labels = scale, labels
        self.width = max(320.0, duration * scale + 10)
        self.label_top = _AXIS
        self.wave_top = _AXIS + (_LABELS if with_labels else 0)
        self.word_top = self.wave_top + _WAVE
        self.heat_top = self.word_top + _WORDS + _HEAT
        self.weight_top = self.heat_top + _ROW * len(labels) + 8
        self.verdict_top = self.weight_top + _WEIGHTS + 2
        self.height = self.verdict_top + _VERDICT
        self.with_labels = with_labels

    def x(self, seconds: float) -> float:
        return seconds * self.scale

    def svg(self, parts: Sequence[str]) -> str:
        # Hatching tells the words' share from the voice's without colour.
        hatch = (
            '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fff"/>'
            '<path d="M0 0V6" stroke="#666" stroke-width="2"/></pattern></defs>'
        )
        # Of hours these are 40 MB: as ASCII a character takes one byte, and not as many as the widest one.
        drawn = "".join(part.encode("ascii", "xmlcharrefreplace").decode() for part in parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:.0f}" '
            f'height="{self.height}" role="img" aria-label="timeline">{hatch}{drawn}</svg>'
        )

    def names(self) -> str:
        rows = [("time, s", 14)]
        if self.with_labels:
            rows.append(("label", self.label_top + 17))
        rows += [("sound", self.wave_top + _WAVE // 2 + 4), ("words", self.word_top + 15)]
        rows += [
            (name, self.heat_top + _ROW * i + _ROW // 2 + 5) for i, name in enumerate(self.labels)
        ]
        rows += [("voice / words", self.weight_top + 21), ("verdict", self.verdict_top + 14)]
        texts = "".join(
            f'<text x="92" y="{y}" text-anchor="end" class="label">{escape(name)}</text>'
            for name, y in rows
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="98" height="{self.height}" '
            f'aria-hidden="true">{texts}</svg>'
        )

    def axis(self) -> str:
        step = next(s for s in (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
                    if s * self.scale >= 70 or s == 3600)  # fmt: skip
        parts = []
        for seconds in range(0, int(self.width / self.scale) + 1, step):
            x = self.x(seconds)
            parts.append(
                f'<path d="M{x:.1f} 16V{self.height}" stroke="#ececec"/>'
                f'<text x="{x + 3:.1f}" y="13" class="tick">{seconds}</text>'
            )
        return "".join(parts)

    def wave(self, envelope: Envelope) -> str:
        peaks = envelope.peaks
        if len(peaks) == 0:
            return ""
        # One point for each pixel is all that can be seen.
        group = max(1, int(1.0 / (envelope.step * self.scale)))
        padded = np.pad(peaks, (0, -len(peaks) % group)).reshape(-1, group).max(axis=1)
        loudest = max(float(padded.max()), 1e-3)
        middle, half = self.wave_top + _WAVE / 2, _WAVE / 2 - 3
        xs = np.arange(len(padded)) * group * envelope.step * self.scale
        ys = padded / loudest * half
        upper = "L".join(f"{x:.1f} {middle - y:.1f}" for x, y in zip(xs, ys, strict=True))
        lower = "L".join(
            f"{x:.1f} {middle + y:.1f}" for x, y in zip(xs[::-1], ys[::-1], strict=True)
        )
        return f'<path d="M{upper}L{lower}Z" fill="#333" fill-opacity="0.8"/>'

    def label(self, label: Label) -> str:
        x, width = self.x(label.start), self.x(label.duration)
        who = f" ({label.speaker})" if label.speaker else ""
        name = label.emotion or "(no emotion)"
        shown = name if 7 * len(name) < width else name[: int(width / 7)]
        return (
            f'<rect x="{x:.1f}" y="{self.label_top + 3}" width="{width:.1f}" height="{_LABELS - 7}" '
            'fill="#fff" stroke="#111" rx="3"/>'
            f'<text x="{x + 5:.1f}" y="{self.label_top + 17}" class="label">{escape(shown)}</text>'
            f"<title>{escape(name + who)}: {escape(label.text)}</title>"
        )

    def heard(self, utterance: HeardUtterance) -> str:
        x, width = self.x(utterance.start), self.x(utterance.end - utterance.start)
        end = ""
        if np.isfinite(utterance.speech_end):
            at = self.x(utterance.speech_end)
            end = (
                f'<path d="M{at:.1f} {self.wave_top + 2}V{self.word_top - 2}" stroke="#111" '
                'stroke-dasharray="2 3"><title>end of speech</title></path>'
            )
        return (
            f'<rect id="t{utterance.utterance_id}" x="{x:.1f}" y="{self.wave_top}" '
            f'width="{width:.1f}" height="{_WAVE}" fill="#d9e4f1" stroke="#7c96b5"/>'
            f'<text x="{x + 3:.1f}" y="{self.wave_top + 11}" class="tick">'
            f"{utterance.utterance_id}</text>{end}"
        )

    def state(self, utterance: HeardUtterance, truth: str) -> str:
        return (
            self._words(utterance)
            + self._heat(utterance)
            + self._weights(utterance)
            + self._verdict(utterance, truth)
        )

    def _words(self, utterance: HeardUtterance) -> str:
        y = self.word_top + 15
        if utterance.words and self.scale > 25:
            return "".join(self._word(*word, y) for word in utterance.words)
        if not utterance.transcript:
            return ""
        room = int(self.x(utterance.end - utterance.start) / 6.2)
        shown = utterance.transcript
        shown = shown if len(shown) <= room else shown[: max(0, room - 1)] + "…"
        return (
            f'<text x="{self.x(utterance.start) + 2:.1f}" y="{y}" class="word">{escape(shown)}'
            f"<title>{escape(utterance.transcript)}</title></text>"
        )

    def _word(self, word: str, start: float, end: float, y: int) -> str:
        room = self.x(end - start) - 2
        squeeze = ""
        if 6.6 * len(word) > room:
            squeeze = f' textLength="{max(4.0, room):.0f}" lengthAdjust="spacingAndGlyphs"'
        return (
            f'<text x="{self.x(start):.1f}" y="{y}" class="word"{squeeze}>{escape(word)}'
            f"<title>{escape(word)}</title></text>"
        )

    def _heat(self, utterance: HeardUtterance) -> str:
        pieces = []
        start = utterance.start
        for state in utterance.provisional:
            pieces.append((start, min(state.until, utterance.end), state.probabilities))
            start = state.until
        if utterance.probabilities:
            start = min(start, utterance.end - 14 / self.scale)
            pieces.append((start, utterance.end, utterance.probabilities))
        parts = []
        for begin, end, probabilities in pieces:
            top = int(np.argmax(probabilities))
            for row, p in enumerate(probabilities):
                grey = round(255 * (1 - p))
                outline = ' stroke="#111"' if row == top else ""
                parts.append(
                    f'<rect x="{self.x(begin):.1f}" y="{self.heat_top + _ROW * row + 1}" '
                    f'width="{max(1.0, self.x(end - begin) - 1):.1f}" height="{_ROW - 2}" '
                    f'fill="rgb({grey},{grey},{grey})"{outline}>'
                    f"<title>{escape(self.labels[row])} {p:.2f}, {begin:.1f}-{end:.1f} s"
                    "</title></rect>"
                )
        return "".join(parts)

    def _weights(self, utterance: HeardUtterance) -> str:
        if not utterance.probabilities:
            return ""
        x, width = self.x(utterance.start), self.x(utterance.end - utterance.start)
        voice = _WEIGHTS * utterance.audio_weight
        return (
            f'<rect x="{x:.1f}" y="{self.weight_top}" width="{width:.1f}" height="{_WEIGHTS}" '
            'fill="url(#hatch)" stroke="#444"/>'
            f'<rect x="{x:.1f}" y="{self.weight_top + _WEIGHTS - voice:.1f}" width="{width:.1f}" '
            f'height="{voice:.1f}" fill="#333"><title>voice {utterance.audio_weight:.2f}, words '
            f"{utterance.text_weight:.2f}, signal to noise {utterance.snr_db:.0f} dB</title></rect>"
        )

    def _verdict(self, utterance: HeardUtterance, truth: str) -> str:
        text = utterance.dominant or "nothing"
        if utterance.probabilities:
            text += f" {max(utterance.probabilities):.2f}"
        if utterance.abstained:
            text = f"({text}: {utterance.abstained.replace('_', ' ')})"
        elif truth and utterance.dominant:
            text = ("✓ " if truth == utterance.dominant else "✗ ") + text
        return (
            f'<text x="{self.x(utterance.start):.1f}" y="{self.verdict_top + 14}" '
            f'class="label">{escape(text)}</text>'
        )
