"""``hri-emo evaluate``: a bundle's figures on a manifest of clips and texts.

The answer is the plain arg max over all of the model's labels, also on a corpus that lacks some of
them: nothing about the corpus helps the model. Averages run over the labels that occur.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation import metrics
from hri_emo_ros.evaluation.channels import CHANNELS
from hri_emo_ros.evaluation.noise import Babble, NoiseSource, mix
from hri_emo_ros.training.corpus import emotion_words
from hri_emo_ros.types import SAMPLE_RATE, AbstainReason, EmotionEstimate, FloatArray, Transcript

Modality = Literal["audio", "text", "both"]
_BATCH = 8
"""Utterances of like length go through the network together; `EmotionEngine.estimate_batch` gives each
what it gets alone."""
_ABSTAIN_SHARE = 0.2


@dataclass(frozen=True)
class Row:
    """One line of the manifest that can be scored."""

    line: int
    path: Path | None
    text: str
    label: str
    """One of types.LABELS."""
    speaker: str
    sex: str = ""
    language: str = ""
    seconds: float = math.inf
    """At most so much of the clip is heard, from its start."""


@dataclass
class ManifestRows:
    """A manifest, with what could not be used of it."""

    rows: list[Row] = field(default_factory=list)
    unknown_labels: list[dict[str, Any]] = field(default_factory=list)
    """Lines whose emotion no corpus knows."""
    left_out: list[dict[str, Any]] = field(default_factory=list)
    """Lines whose emotion is known but has no counterpart (EmoDB's boredom)."""
    unreadable: list[dict[str, Any]] = field(default_factory=list)
    """Lines without a usable file or text, with the reason."""


@dataclass
class Scored:
    """Rows with their estimates."""

    rows: list[Row]
    estimates: list[EmotionEstimate]
    labels: tuple[str, ...]
    seconds: float
    """Of estimating, files read beforehand."""

    @property
    def targets(self) -> npt.NDArray[np.int64]:
        return np.array([self.labels.index(row.label) for row in self.rows], dtype=np.int64)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """[n, labels]"""
        return np.array([e.probabilities for e in self.estimates], dtype=np.float64).reshape(
            -1, len(self.labels)
        )

    @property
    def groups(self) -> list[str] | None:
        """Speakers, where every row names one."""
        names = [row.speaker for row in self.rows]
        return names if names and all(names) else None


def read_rows(manifest: Path, modality: Modality) -> ManifestRows:
    """Read ``path,emotion[,text][,speaker][,sex][,language][,seconds]``; paths are relative to the CSV.

    Raises:
        HriEmoError: the file cannot be read or lacks a column.
    """
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise HriEmoError(f"cannot read the manifest '{manifest}': {error}") from error
    for column in ("path", "emotion"):
        if column not in columns:
            raise HriEmoError(
                f"the manifest '{manifest}' lacks the column '{column}', needs path and emotion "
                "(and may have text, speaker, sex, language, seconds)"
            )
    words, result = emotion_words(), ManifestRows()
    for number, line in enumerate(lines, start=2):
        value = {k: (v or "").strip() for k, v in line.items() if isinstance(k, str)}
        entry = {"line": number, "path": value["path"], "emotion": value["emotion"]}
        word = value["emotion"].lower()
        if word not in words:
            result.unknown_labels.append(entry)
            continue
        label = words[word]
        if label is None:
            result.left_out.append(entry)
            continue
        path = manifest.parent / value["path"] if value["path"] else None
        text = value.get("text", "")
        if modality == "text":
            path = None
        if modality == "audio":
            text = ""
        if path is None and not text:
            needed = {"audio": "path", "text": "text", "both": "path and text"}[modality]
            result.unreadable.append({**entry, "reason": f"{needed} empty"})
            continue
        try:
            seconds = float(value.get("seconds") or math.inf)
        except ValueError:
            seconds = 0.0
        if not seconds > 0.0:
            reason = f"seconds is '{value['seconds']}', must be a number above 0, or empty for all"
            result.unreadable.append({**entry, "reason": reason})
            continue
        result.rows.append(
            Row(number, path, text, label, value.get("speaker", ""), value.get("sex", ""),
                value.get("language", ""), seconds)
        )  # fmt: skip
    return result


def estimate_rows(
    engine: EmotionEngine,
    found: ManifestRows,
    change: Callable[[FloatArray], FloatArray] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Scored:
    """Estimate every row; files that cannot be read go to `found.unreadable`.

    Args:
        change: applied to each clip (noise, for a sweep).
        progress: called after each row.
    """
    rows: list[Row] = []
    inputs: list[EngineInput] = []
    for row in found.rows:
        samples = None
        if row.path is not None:
            try:
                samples = read_audio(row.path)
            except HriEmoError as error:
                entry = {"line": row.line, "path": str(row.path), "emotion": row.label}
                found.unreadable.append({**entry, "reason": str(error)})
                progress()
                continue
            if math.isfinite(row.seconds):
                samples = samples[: round(row.seconds * SAMPLE_RATE)]
            if change is not None:
                samples = change(samples)
        rows.append(row)
        inputs.append(EngineInput(samples, Transcript(row.text) if row.text else None))
    found.rows = rows
    # Like with like: padding costs time.
    size = [0 if i.samples is None else len(i.samples) for i in inputs]
    order = sorted(range(len(inputs)), key=lambda k: (size[k], len(rows[k].text)))
    estimates: list[EmotionEstimate | None] = [None] * len(inputs)
    started = time.perf_counter()
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        for k, estimate in zip(part, engine.estimate_batch([inputs[k] for k in part]), strict=True):
            estimates[k] = estimate
            progress()
    seconds = time.perf_counter() - started
    return Scored(rows, [e for e in estimates if e is not None], engine.labels, seconds)


def figures(scored: Scored, found: ManifestRows) -> dict[str, Any]:
    """All figures, ready for JSON.

    Intervals are 95 % percentile bootstrap, over speakers where every row names one and there are at
    least two, else over rows.
    """
    true, p = scored.targets, scored.probabilities
    answer = p.argmax(axis=1) if len(p) else true
    right = answer == true
    groups = scored.groups
    functions: dict[str, Callable[[npt.ArrayLike, npt.ArrayLike], float]] = {
        "ua": metrics.ua,
        "wa": metrics.wa,
        "macro_f1": metrics.macro_f1,
        "weighted_f1": metrics.weighted_f1,
    }
    intervals: dict[str, list[float]] = {}
    for name, function in functions.items():
        interval = metrics.bootstrap_interval(
            partial(_on_rows, function, true, answer), len(true), groups
        )
        intervals[name] = [interval.low, interval.high]
    doubt = 1.0 - p.max(axis=1) if len(p) else np.zeros(0)
    baseline = metrics.majority(true)
    abstained = [e for e in scored.estimates if e.abstained]
    both = [
        e
        for e in scored.estimates
        if 0.0 < e.audio_weight < 1.0 and e.abstain_reason is not AbstainReason.NO_SPEECH
    ]
    return {
        "n": len(true),
        **{name: function(true, answer) for name, function in functions.items()},
        "ece": metrics.ece(true, p),
        "per_class": {
            name: asdict(scores)
            for name, scores in metrics.per_class(true, answer, scored.labels).items()
        },
        "confusion": metrics.confusion(true, answer, len(scored.labels)).tolist(),
        "intervals": intervals,
        "chance": metrics.chance_ua(true),
        "majority": baseline["wa"],
        "clips_per_s": len(true) / scored.seconds if scored.seconds > 0 else float("nan"),
        "labels": list(scored.labels),
        "labels_present": [scored.labels[k] for k in sorted(set(true.tolist()))],
        "majority_baseline": baseline,
        "intervals_over": "speakers" if groups and len(set(groups)) > 1 else "items",
        "speakers": len(set(groups)) if groups else None,
        "abstained": len(abstained),
        "abstain_reasons": {
            reason.name: count
            for reason in AbstainReason
            if (count := sum(e.abstain_reason == reason for e in abstained))
        },
        "abstaining_on_20_percent_gains": metrics.accuracy_gain(right, doubt, _ABSTAIN_SHARE)
        if len(right)
        else None,
        "mean_audio_weight": float(np.mean([e.audio_weight for e in both])) if both else None,
        "by_sex": _ua_by(scored, answer, "sex"),
        "by_language": _ua_by(scored, answer, "language"),
        "by_speaker": _ua_by(scored, answer, "speaker"),
        "unknown_labels": found.unknown_labels,
        "unreadable": found.unreadable,
        "left_out": found.left_out,
        "counts": {
            "scored": len(true),
            "unknown_labels": len(found.unknown_labels),
            "unreadable": len(found.unreadable),
            "left_out": len(found.left_out),
        },
    }


def _on_rows(
    function: Callable[[npt.ArrayLike, npt.ArrayLike], float],
    true: npt.NDArray[np.int64],
    answer: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
) -> float:
    return function(true[rows], answer[rows])


def _ua_by(scored: Scored, answer: npt.NDArray[np.int64], key: str) -> dict[str, float]:
    names = np.array([getattr(row, key) for row in scored.rows])
    true = scored.targets
    return {
        str(name): metrics.ua(true[names == name], answer[names == name])
        for name in sorted(set(names.tolist()))
        if name
    }


def evaluate(
    bundle: str | Path,
    manifest: str | Path,
    modality: Modality = "both",
    sweep_snr: Sequence[float] = (),
    noise: str = "pink",
    channels: bool = False,
    device: str = "cpu",
    threads: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> tuple[dict[str, Any], Scored]:
    """Score a bundle.

    Args:
        bundle: see `hri_emo_ros.model.bundle.load_bundle`.
        manifest: CSV.
        modality: what the engine is given of each row.
        sweep_snr: also estimate every clip at these signal-to-noise ratios, dB.
        noise: for the sweep: pink, white, babble (six of the manifest's clips at once), or a folder of
            recordings.
        channels: also estimate every clip at other levels, through a telephone and amid silence.
        device, threads: see `EmotionEngine`.
        progress: called after each row of each pass.

    Raises:
        HriEmoError: bundle or manifest cannot be used, or nothing in it can be scored.
    """
    engine = EmotionEngine(bundle, device=device, threads=threads)
    config = engine.bundle.config
    if config.objective != "single_label":
        raise HriEmoError(
            f"bundle '{bundle}' is multi-label; a manifest has one emotion a row, so 'evaluate' needs "
            "a single-label bundle"
        )
    if (modality == "audio" and not config.uses_audio) or (
        modality == "text" and not config.uses_text
    ):
        raise HriEmoError(
            f"modality is '{modality}', which bundle '{bundle}' does not use: its head is "
            f"'{config.head}'; give --modality {'text' if config.uses_text else 'audio'}"
        )
    found = read_rows(Path(manifest), modality)
    _drop_foreign(found, engine.labels)
    engine.warm_up(1)
    scored = estimate_rows(engine, found, progress=progress)
    if not scored.rows:
        raise HriEmoError(
            f"nothing in '{manifest}' can be scored: {len(found.unknown_labels)} unknown labels, "
            f"{len(found.left_out)} labels without a counterpart, {len(found.unreadable)} unreadable "
            f"rows{_first_reason(found)}"
        )
    result = {
        "model_id": engine.model_id,
        "manifest": str(manifest),
        "modality": modality,
        **figures(scored, found),
        "items": [_answer(row, e) for row, e in zip(scored.rows, scored.estimates, strict=True)],
    }
    if sweep_snr and modality != "text":
        result["snr_sweep"] = _sweep(engine, found, scored, sweep_snr, noise, progress)
    if channels and modality != "text":
        result["channels"] = _through_channels(engine, found, scored, progress)
    return result, scored


def _answer(row: Row, estimate: EmotionEstimate) -> dict[str, Any]:
    """One row and what was answered, as `hri-emo compare` pairs them."""
    return {
        "line": row.line,
        "path": str(row.path or ""),
        "speaker": row.speaker,
        "emotion": row.label,
        "predicted": estimate.dominant,
        "probabilities": [round(float(p), 6) for p in estimate.probabilities],
        "abstained": estimate.abstain_reason.name.lower() if estimate.abstained else "",
    }


def _drop_foreign(found: ManifestRows, labels: Sequence[str]) -> None:
    """Rows whose label the bundle does not have are left out, not held against it."""
    for row in [row for row in found.rows if row.label not in labels]:
        found.left_out.append({"line": row.line, "path": str(row.path or ""), "emotion": row.label})
    found.rows = [row for row in found.rows if row.label in labels]


def _first_reason(found: ManifestRows) -> str:
    return f" (first: {found.unreadable[0]['reason']})" if found.unreadable else ""


def _sweep(
    engine: EmotionEngine,
    found: ManifestRows,
    clean: Scored,
    levels: Sequence[float],
    noise: str,
    progress: Callable[[], None],
) -> list[dict[str, Any]]:
    """UA and mean weight of the voice as noise rises; the clean clips first."""

    def entry(scored: Scored, snr: float | None) -> dict[str, Any]:
        answer = scored.probabilities.argmax(axis=1)
        return {
            "snr_db": snr,
            "ua": metrics.ua(scored.targets, answer),
            "audio_weight": float(np.mean([e.audio_weight for e in scored.estimates])),
            "mean_confidence": float(scored.probabilities.max(axis=1).mean()),
            "abstained": sum(e.abstained for e in scored.estimates),
        }

    points = [entry(clean, None)]
    for snr in levels:
        rows = replace(found, unreadable=[], rows=list(found.rows))
        change = partial(_add_noise, source=noise_of(noise, found), snr_db=snr)
        points.append(entry(estimate_rows(engine, rows, change, progress), snr))
    return points


def _through_channels(
    engine: EmotionEngine, found: ManifestRows, clean: Scored, progress: Callable[[], None]
) -> list[dict[str, Any]]:
    """UA and the share of answers that differ from the clean clips' in each condition."""
    before = clean.probabilities.argmax(axis=1)
    points = []
    for name, change in CHANNELS.items():
        rows = replace(found, unreadable=[], rows=list(found.rows))
        answer = estimate_rows(engine, rows, change, progress).probabilities.argmax(axis=1)
        points.append(
            {
                "condition": name,
                "ua": metrics.ua(clean.targets, answer),
                "changed": float((answer != before).mean()),
            }
        )
    return points


def noise_of(noise: str, found: ManifestRows) -> NoiseSource | Babble:
    if noise == "babble":
        return Babble([row.path for row in found.rows if row.path is not None], SAMPLE_RATE)
    return NoiseSource(noise, SAMPLE_RATE)


def _add_noise(samples: FloatArray, source: NoiseSource | Babble, snr_db: float) -> FloatArray:
    return mix(samples, source.take(len(samples)), snr_db)
