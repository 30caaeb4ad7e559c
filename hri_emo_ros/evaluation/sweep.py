# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo sweep``: recordings under growing disturbance."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_source import Disturbance
from hri_emo_ros.evaluation.bags import AudioBag
from hri_emo_ros.evaluation.disturb import AddNoise, Gain, Resample, SpokenWords, Telephone
from hri_emo_ros.evaluation.fleet import Fleet, kept
from hri_emo_ros.evaluation.labels import Recording
from hri_emo_ros.evaluation.replay import Parameters, Replayer, ReplayRun, merge, read_reference
from hri_emo_ros.pipeline import Record
from hri_emo_ros.types import SpeechChunk

COLUMNS = (
    "disturbance", "value", "utterances", "ua", "ua_low", "ua_high", "wa", "macro_f1",
    "weighted_f1", "ece", "wer", "missed", "abstained", "final_states", "audio_weight",
    "text_weight", "snr_db", "uncertainty",
)  # fmt: skip
_AXES = {
    "snr": "signal-to-noise ratio, dB",
    "gain": "gain, dB",
    "rate": "sample rate, Hz",
    "codec": "codec",
    "wer": "share of words wrong",
}


@dataclass(frozen=True)
class Condition:
    """One point of a sweep."""

    disturbance: str
    """snr, gain, rate, codec or wer."""
    value: float | str


@dataclass(frozen=True)
class _Job:
    """One recording under one condition, for whichever worker."""

    parameters: Parameters
    recording: Recording
    condition: Condition | None
    """None: as it is."""
    topic: str = ""
    noise: str = ""
    seed: int = 0
    speech_dbfs: float = math.nan
    """Mean level of the recording's speech."""


def sweep(
    parameters: Parameters,
    recordings: Sequence[Recording],
    conditions: Sequence[Condition],
    topic: str = "",
    noise: str = "",
    seed: int = 0,
    fleet: Fleet | None = None,
    done: Callable[[dict[str, Any]], None] = lambda row: None,
) -> list[dict[str, Any]]:
    """Replay recordings under several conditions; each row is over all of them.

    Args:
        parameters: of every node.
        recordings: with labels.
        conditions: all of one disturbance or of several.
        topic: audio topic of each.
        noise: source of noise for ``snr``.
        seed: of noise and word errors.
        fleet: who does the work; None is this process.
        done: called with each row as soon as it is there.

    Returns:
        Rows of `COLUMNS`: the undisturbed recordings first, then every condition.

    Raises:
        HriEmoError: a bag is refused, or words or a level that a condition needs are missing.
    """
    fleet = fleet or Fleet()
    jobs = [_Job(parameters, recording, None, topic, noise, seed) for recording in recordings]
    clean = _all(fleet.map(_replay, jobs))
    rows: dict[int, dict[str, Any]] = {0: row_of(clean, None)}
    done(rows[0])
    more = [
        replace(job, condition=condition, speech_dbfs=_speech_level(part))
        for condition in conditions
        for job, part in zip(jobs, clean.parts, strict=True)
    ]
    runs: dict[int, dict[int, ReplayRun | HriEmoError]] = {}

    def take(number: int, run: ReplayRun | HriEmoError) -> None:
        place, part = divmod(number, len(jobs))
        runs.setdefault(place, {})[part] = run
        if len(runs[place]) == len(jobs):
            under = runs.pop(place)
            merged = _all([under[k] for k in range(len(jobs))])
            rows[place + 1] = row_of(merged, conditions[place])
            done(rows[place + 1])

    fleet.map(_replay, more, take)
    return [rows[k] for k in range(len(conditions) + 1)]


def _all(results: Sequence[ReplayRun | HriEmoError]) -> ReplayRun:
    runs: list[ReplayRun] = []
    for result in results:
        if isinstance(result, HriEmoError):
            raise result
        runs.append(result)
    return merge(runs, sum(run.wall_time for run in runs))


def _speech_level(run: ReplayRun) -> float:
    """dBFS; NaN where nobody speaks."""
    levels = [u.level_dbfs for u in run.utterances if np.isfinite(u.level_dbfs)]
    return float(10 * np.log10(np.mean(10 ** (np.array(levels) / 10)))) if levels else math.nan


def _replay(job: _Job) -> ReplayRun:
    replayer = kept(Replayer, job.parameters)
    condition = job.condition
    if condition is not None and condition.disturbance == "wer":
        return _with_word_errors(replayer, job, float(condition.value))
    disturb = None if condition is None else _disturbance(job, condition)
    return replayer.run(job.recording.bag, job.topic, job.recording.labels, disturb=disturb)


def _disturbance(job: _Job, condition: Condition) -> Disturbance:
    if condition.disturbance == "gain":
        return Gain(float(condition.value))
    if condition.disturbance == "rate":
        return Resample(int(condition.value))
    if condition.disturbance == "codec":
        return Telephone()
    if not job.noise:
        raise HriEmoError("--snr needs --noise: a folder or file of noises, white or pink")
    if not np.isfinite(job.speech_dbfs):
        raise HriEmoError(f"no speech was found in '{job.recording.bag}' to set noise against")
    return AddNoise(job.noise, float(condition.value), job.speech_dbfs, job.seed)


def _with_word_errors(replayer: Replayer, job: _Job, rate: float) -> ReplayRun:
    bag, labelled = job.recording.bag, job.recording.labels
    with AudioBag(bag, job.topic) as audio:
        origin_ns = audio.origin_ns
        labels = read_reference(audio, labelled, "", replayer.engine.labels) or []
    if not any(label.text for label in labels):
        raise HriEmoError(f"--wer needs labels with the words spoken in '{bag}'")
    words = SpokenWords(labels, rate, job.seed)

    def tell(record: Record) -> None:
        if isinstance(record, SpeechChunk) and (record.last or record.endpoint):
            start = (record.utterance_start_ns - origin_ns) * 1e-9
            end = (record.stamp_ns - origin_ns) * 1e-9 + len(record.samples) / 16_000
            words.utterance(start, end)

    return replayer.run(bag, job.topic, labelled, record=tell, recogniser=words)


def row_of(run: ReplayRun, condition: Condition | None) -> dict[str, Any]:
    """Figures and mean weights of one condition; None is the undisturbed recording."""
    summary = run.summary()
    finals = [u for u in run.utterances if u.final and u.probabilities]

    def mean(values: Sequence[float]) -> float | None:
        finite = [v for v in values if np.isfinite(v)]
        return round(float(np.mean(finite)), 4) if finite else None

    interval = summary.get("intervals", {}).get("ua", {})
    row: dict[str, Any] = {name: summary.get(name) for name in COLUMNS}
    return row | {
        "disturbance": condition.disturbance if condition else "none",
        "value": condition.value if condition else "",
        "ua_low": interval.get("low"),
        "ua_high": interval.get("high"),
        "audio_weight": mean([u.audio_weight for u in finals]),
        "text_weight": mean([u.text_weight for u in finals]),
        "snr_db": mean([u.snr_db for u in finals]),
        "uncertainty": mean([u.uncertainty for u in finals]),
    }


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line for each condition; empty where a figure does not exist."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def plot(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """Draw figures and weights against the disturbance; one row of plots for each kind."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    clean = rows[0]
    kinds = list(dict.fromkeys(row["disturbance"] for row in rows[1:]))
    figure, axes = plt.subplots(
        len(kinds), 2, figsize=(11, 4.2 * len(kinds)), squeeze=False, layout="constrained"
    )
    for (left, right), kind in zip(axes, kinds, strict=True):
        points = [row for row in rows[1:] if row["disturbance"] == kind]
        named = kind in ("codec", "rate")
        if named:
            points = [{**clean, "value": "undisturbed"}, *points]
        x = list(range(len(points))) if named else [float(row["value"]) for row in points]
        _curves(left, x, points, {"UA": "ua", "macro F1": "macro_f1", "WER": "wer"})
        _interval(left, x, points)
        if clean["ua"] is not None:
            left.axhline(clean["ua"], color="0.45", lw=1, ls=":", label="UA undisturbed")
        labelled = clean["utterances"] or 0
        if labelled:
            share = [{"missed": (row["missed"] or 0) / labelled} for row in points]
            _curves(left, x, share, {"missed": "missed"}, first=3)
        _curves(right, x, points, {"voice": "audio_weight", "words": "text_weight",
                                   "uncertainty": "uncertainty"})  # fmt: skip
        for ax, name in ((left, "figure of merit"), (right, "mean over final states")):
            ax.set(xlabel=_AXES[kind], ylabel=name, ylim=(-0.03, 1.03))
            ax.grid(alpha=0.3)
            ax.legend(frameon=False, fontsize=9)
            if named:
                ax.set_xticks(x, [_name(row["value"]) for row in points])
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _name(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"


_STYLES = (("k", "-", "o"), ("0.35", "--", "s"), ("0.55", "-.", "^"), ("0.2", ":", "x"))


def _curves(
    ax: Any, x: Sequence[float], rows: Sequence[dict[str, Any]], names: dict[str, str],
    first: int = 0,
) -> None:  # fmt: skip
    for number, (name, key) in enumerate(names.items()):
        y = [np.nan if row[key] is None else float(row[key]) for row in rows]
        if np.isfinite(y).any():
            colour, line, marker = _STYLES[first + number]
            ax.plot(x, y, color=colour, ls=line, marker=marker, ms=5, label=name)


def _interval(ax: Any, x: Sequence[float], rows: Sequence[dict[str, Any]]) -> None:
    low = [np.nan if row["ua_low"] is None else row["ua_low"] for row in rows]
    high = [np.nan if row["ua_high"] is None else row["ua_high"] for row in rows]
    if np.isfinite(low).any():
        ax.fill_between(x, low, high, color="0.85", label="95 % of UA")
