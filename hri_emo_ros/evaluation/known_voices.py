# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What is known of a voice, its room and the conversation when a clip of a manifest is judged.

Two ways: baselines made of other clips of the manifest, drawn at random (``evaluate --baseline``); or the file
from its first line to its last as one conversation, each utterance's voice told and remembered as the emotion
node does it (``evaluate --in-order``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hri_emo_ros.data.heard import Crowd, heard_of
from hri_emo_ros.data.manifest import Row
from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.joiner import UtteranceJoiner
from hri_emo_ros.model.config import ModelConfig
from hri_emo_ros.pipeline import run_whole
from hri_emo_ros.types import SAMPLE_RATE, EmotionEstimate

ALL = "all"
_PAUSE = 1.0
"""Seconds between two clips of a file that is gone through in order."""


@dataclass(frozen=True)
class Knowledge:
    """How many other clips a baseline is made of."""

    voice: int | None = 0
    """Of the clip's speaker; None takes all."""
    room: int | None = 0
    """Of other speakers; None takes all."""
    neutral: float | None = 0.7
    """Share of neutral ones; None draws as they come."""
    seed: int = 0

    @property
    def nothing(self) -> bool:
        return self.voice == 0 and self.room == 0

    @property
    def name(self) -> str:
        """Key in ``by_baseline``."""
        return ALL if self.voice is None else str(self.voice)

    def as_json(self) -> dict[str, Any]:
        """What was asked for."""
        return {
            "baseline": self.name,
            "room": ALL if self.room is None else self.room,
            "neutral": ALL if self.neutral is None else self.neutral,
            "seed": self.seed,
        }


def knowledge(
    baselines: Sequence[str], room: str, neutral: str, seed: int
) -> tuple[Knowledge, ...]:
    """From the command line's values.

    Raises:
        HriEmoError: one is no number in its range and not ``all``.
    """
    others = _count("--room", room)
    share: float | None = None
    every = neutral == ALL
    if not every:
        share = _number("--baseline-neutral", neutral, 1.0)
    if seed < 0:
        raise HriEmoError(f"--seed is {seed}, must be a whole number from 0")
    counts = [_count("--baseline", text) for text in baselines]
    # `--baseline-neutral all`: all other clips, whatever their emotion.
    return tuple(
        Knowledge(None if every and count else count, others, share, seed) for count in counts
    )


def _count(option: str, text: str) -> int | None:
    if text == ALL:
        return None
    if not text.isdecimal():
        raise HriEmoError(f"{option} is '{text}', must be a whole number from 0, or '{ALL}'")
    return int(text)


def _number(option: str, text: str, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= most:
        raise HriEmoError(f"{option} is '{text}', must be a share from 0 to {most:g}, or '{ALL}'")
    return value


def check(wanted: Sequence[Knowledge], rows: Sequence[Row], config: ModelConfig) -> None:
    """Whether baselines can be made.

    Raises:
        HriEmoError: the bundle has no use for them, or no clip names its speaker.
    """
    if all(k.nothing for k in wanted):
        return
    if config.baseline is None or not config.uses_audio:
        raise HriEmoError(
            "--baseline asks for what is known of a voice, but the bundle was trained without and judges "
            "every voice as an unknown one: leave --baseline and --room out"
        )
    if not any(row.speaker for row in rows if row.path is not None):
        raise HriEmoError(
            "--baseline asks for other clips of each speaker, but no clip of the manifest names one: fill "
            "its column 'speaker'"
        )


def with_baselines(
    rows: Sequence[Row],
    inputs: Sequence[EngineInput],
    estimates: Sequence[EmotionEstimate],
    wanted: Knowledge,
) -> list[EngineInput]:
    """The inputs with what was heard of their voice and room, drawn from the others.

    A clip without a speaker, or in which no voice was found, is judged as an unknown one and is in nobody's
    baseline.

    Args:
        estimates: of the same inputs, with the statistics of each.
    """
    statistics = [estimate.voice_statistics for estimate in estimates]
    speakers = [
        row.speaker if u is not None else "" for row, u in zip(rows, statistics, strict=True)
    ]
    neutral = np.array([row.label == "neutral" for row in rows], dtype=bool)
    crowd = Crowd(speakers, ["" for _ in rows], neutral)
    rng = np.random.default_rng(wanted.seed)
    result = []
    for index, item in enumerate(inputs):
        parts = []
        for drawn in crowd.draw(rng, index, wanted.voice, wanted.room, wanted.neutral):
            known = [u for k in drawn if (u := statistics[k]) is not None]
            parts.append(heard_of(np.stack(known)) if known else None)
        quality = estimates[index].quality  # need not be measured again
        result.append(replace(item, quality=quality, voice=parts[0], room=parts[1]))
    return result


def heard_counts(inputs: Sequence[EngineInput]) -> dict[str, float]:
    """Mean numbers of utterances that the baselines rest on."""
    voice, room = (
        [heard.count if heard else 0.0 for heard in (getattr(i, part) for i in inputs)]
        for part in ("voice", "room")
    )
    return {"voice_count": float(np.mean(voice)), "room_count": float(np.mean(room))}


def contexts(rows: Sequence[Row]) -> dict[int, tuple[str, ...]]:
    """What was said before each line in its conversation, the latest first, by line number; turns are in the
    order of the column `turn`, or of the file where it is empty."""
    turns: dict[str, list[tuple[float, int, str]]] = {}
    for row in rows:
        if row.conversation and row.text:
            place = float(row.line) if row.turn is None else row.turn
            turns.setdefault(row.conversation, []).append((place, row.line, row.text))
    found: dict[int, tuple[str, ...]] = {}
    for said in turns.values():
        said.sort()
        for k, (place, line, _) in enumerate(said):
            found[line] = tuple(text for p, _, text in reversed(said[:k]) if p < place)
    return found


def in_order(
    engine: EmotionEngine,
    rows: Sequence[Row],
    inputs: Sequence[EngineInput],
    progress: Callable[[], None],
) -> tuple[list[EmotionEstimate], dict[str, Any]]:
    """Estimate one after the other, each clip as an utterance of one stream through the emotion node's joiner.

    Returns:
        The estimates, and how many voices were told apart and how many utterances were nobody's.
    """
    joiner = UtteranceJoiner(engine, {}, lambda outcome: None, live=False)
    estimates, seconds = [], 0.0
    for number, (row, item) in enumerate(zip(rows, inputs, strict=True), start=1):
        if item.samples is None:
            estimates.append(engine.estimate(None, item.transcript, context=item.context))
        else:
            stamp = round(seconds * 1e9)
            seconds += len(item.samples) / SAMPLE_RATE + _PAUSE
            outcome = run_whole(item.samples, item.transcript, joiner, number, stamp)
            if outcome.error:
                raise HriEmoError(f"line {row.line} cannot be estimated: {outcome.error}")
            estimates.append(outcome.estimate)
        progress()
    heard = [
        e.voice_id for e, item in zip(estimates, inputs, strict=True) if item.samples is not None
    ]
    told = {"voices": len(set(heard) - {""}), "without_voice": heard.count(""), "voice_ids": heard}
    return estimates, told
