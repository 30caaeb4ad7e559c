# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo evaluate``: a bundle's figures on a manifest of clips and texts.

The answer is the plain arg max over all of the model's labels, also on a corpus that lacks some of
them: nothing about the corpus helps the model. Averages run over the labels that occur.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hri_emo_ros.data import metrics
from hri_emo_ros.data.channels import CHANNELS
from hri_emo_ros.data.clips import decode
from hri_emo_ros.data.manifest import Fault, Refused, Row, read_manifest
from hri_emo_ros.data.noise import Babble, NoiseSource, mix
from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.known_voices import (
    Knowledge,
    check,
    contexts,
    heard_counts,
    in_order,
    with_baselines,
)
from hri_emo_ros.types import SAMPLE_RATE, AbstainReason, EmotionEstimate, FloatArray, Transcript

Modality = Literal["audio", "text", "both"]
_BATCH = 8
"""Utterances of like length go through the network together; `EmotionEngine.estimate_batch` gives each
what it gets alone."""
_ABSTAIN_SHARE = 0.2
_FAULTS: dict[str, Fault] = {
    "unknown_labels": "unknown_label", "unreadable": "unreadable", "left_out": "left_out",
}  # fmt: skip
"""By the key in the figures."""


@dataclass
class ManifestRows:
    """A manifest, with what could not be used of it."""

    rows: list[Row] = field(default_factory=list)
    context: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """What was said before, by line."""
    refused: list[Refused] = field(default_factory=list)

    def refuse(self, row: Row, fault: Fault, reason: str) -> None:
        """Take a line out."""
        path = str(row.path or "")
        self.refused.append(Refused(row.line, path, row.emotion, fault, reason))

    def by_fault(self, fault: Fault) -> list[dict[str, Any]]:
        """Lines that were not scored for that reason, for JSON, in the file's order."""
        lines = sorted(self.refused, key=lambda refused: refused.line)
        return [refused.as_json() for refused in lines if refused.fault == fault]


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
    """The lines of a manifest that have what `modality` needs.

    Raises:
        HriEmoError: the file cannot be read or lacks a column.
    """
    read = read_manifest(manifest)
    context = contexts(read.rows) if modality != "audio" else {}
    found = ManifestRows(context=context, refused=list(read.refused))
    for row in read.rows:
        row = replace(
            row,
            path=None if modality == "text" else row.path,
            text="" if modality == "audio" else row.text,
        )
        if not row.label:
            found.refuse(row, "unknown_label", "emotion is empty")
        elif row.path is None and not row.text:
            needed = {"audio": "path", "text": "text", "both": "path and text"}[modality]
            found.refuse(row, "unreadable", f"{needed} empty")
        else:
            found.rows.append(row)
    return found


def read_inputs(
    found: ManifestRows, change: Callable[[FloatArray], FloatArray] | None = None
) -> list[EngineInput]:
    """What the engine is given of each row; rows whose file cannot be read are taken out of `found`.

    Args:
        change: applied to each clip (noise, for a sweep).
    """
    rows: list[Row] = []
    inputs: list[EngineInput] = []
    for row in found.rows:
        samples = None
        if row.path is not None:
            try:
                samples = decode(row.path, row.start, row.end, row.seconds)
            except HriEmoError as error:
                found.refuse(row, "unreadable", str(error))
                continue
            if change is not None:
                samples = change(samples)
        rows.append(row)
        words = Transcript(row.text) if row.text else None
        inputs.append(EngineInput(samples, words, context=found.context.get(row.line, ())))
    found.rows = rows
    return inputs


def estimate_inputs(
    engine: EmotionEngine,
    rows: Sequence[Row],
    inputs: Sequence[EngineInput],
    progress: Callable[[], None] = lambda: None,
) -> Scored:
    """Estimate every row; `progress` is called after each."""
    # Like with like: padding costs time.
    size = [0 if i.samples is None else len(i.samples) for i in inputs]
    order = sorted(range(len(inputs)), key=lambda k: (size[k], len(rows[k].text)))
    estimates: dict[int, EmotionEstimate] = {}
    started = time.perf_counter()
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        answers = engine.estimate_batch([inputs[k] for k in part])
        for k, estimate in zip(part, answers, strict=True):
            estimates[k] = estimate
            progress()
    seconds = time.perf_counter() - started
    return Scored(list(rows), [estimates[k] for k in range(len(inputs))], engine.labels, seconds)


def estimate_known(
    engine: EmotionEngine,
    found: ManifestRows,
    wanted: Sequence[Knowledge],
    change: Callable[[FloatArray], FloatArray] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[tuple[Scored, dict[str, float]]]:
    """Estimate every row with each of the `wanted` baselines, and on how many utterances these rest on average.

    Baselines are made of the clips as the engine hears them here: with `change`, in the same noise.
    """
    inputs = read_inputs(found, change)
    unknown = estimate_inputs(engine, found.rows, inputs, progress)
    results = []
    for knowledge in wanted:
        scored, given = unknown, inputs
        if not knowledge.nothing:
            given = with_baselines(found.rows, inputs, unknown.estimates, knowledge)
            scored = estimate_inputs(engine, found.rows, given, progress)
        results.append((scored, heard_counts(given) if given else {}))
    return results


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
        interval = metrics.figure_interval(function, true, answer, groups)
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
        **(lines := {name: found.by_fault(fault) for name, fault in _FAULTS.items()}),
        "counts": {"scored": len(true), **{name: len(entries) for name, entries in lines.items()}},
    }


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
    baselines: Sequence[Knowledge] = (),
    as_conversation: bool = False,
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
        baselines: what is known of each voice; the figures are those of the first, ``by_baseline`` holds
            all. Noise and channels are with the first.
        as_conversation: go through the file in its order, voices told and remembered as the node does it.

    Raises:
        HriEmoError: bundle or manifest cannot be used, or nothing in it can be scored.
    """
    engine = EmotionEngine(bundle, device=device, threads=threads)
    config = engine.config
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
    wanted = tuple(baselines) or (Knowledge(),)
    check(wanted, found.rows, config)
    if as_conversation and not all(k.nothing for k in wanted):
        raise HriEmoError("--in-order hears voices as they come: leave --baseline and --room out")
    engine.warm_up(1)
    told: dict[str, Any] = {}
    if as_conversation:
        inputs, started = read_inputs(found), time.perf_counter()
        estimates, told = in_order(engine, found.rows, inputs, progress)
        scored = Scored(found.rows, estimates, engine.labels, time.perf_counter() - started)
        by_baseline = []
    else:
        by_baseline = estimate_known(engine, found, wanted, None, progress)
        scored = by_baseline[0][0]
    if not scored.rows:
        unreadable = found.by_fault("unreadable")
        raise HriEmoError(
            f"nothing in '{manifest}' can be scored: {len(found.by_fault('unknown_label'))} unknown "
            f"labels, {len(found.by_fault('left_out'))} labels without a counterpart, "
            f"{len(unreadable)} unreadable rows"
            + (f" (first: {unreadable[0]['reason']})" if unreadable else "")
        )
    result = {
        "model_id": engine.model_id,
        "manifest": str(manifest),
        "modality": modality,
        **figures(scored, found),
        **({"in_order": told} if told else {}),
        **(_by_baseline(wanted, by_baseline, found) if baselines else {}),
        "items": [_answer(row, e) for row, e in zip(scored.rows, scored.estimates, strict=True)],
    }
    if sweep_snr and modality != "text":
        result["snr_sweep"] = _sweep(engine, found, scored, wanted[0], sweep_snr, noise, progress)
    if channels and modality != "text":
        result["channels"] = _through_channels(engine, found, scored, wanted[0], progress)
    return result, scored


def _by_baseline(
    wanted: Sequence[Knowledge], scored: Sequence[tuple[Scored, dict[str, float]]],
    found: ManifestRows,
) -> dict[str, Any]:  # fmt: skip
    """Figures of each baseline, and the clips whose speaker is not known."""
    entries = {}
    for knowledge, (part, counts) in zip(wanted, scored, strict=True):
        own = figures(part, found)
        lists = {*_FAULTS, "counts"}
        entries[knowledge.name] = {
            **knowledge.as_json(), **counts, **{k: v for k, v in own.items() if k not in lists}
        }  # fmt: skip
    nobodys = [row.line for row in found.rows if row.path is not None and not row.speaker]
    return {"by_baseline": entries, "without_speaker": nobodys}


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
        found.refuse(row, "left_out", "the bundle has no such label")
    found.rows = [row for row in found.rows if row.label in labels]


def _sweep(
    engine: EmotionEngine,
    found: ManifestRows,
    clean: Scored,
    known: Knowledge,
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
        rows = ManifestRows(list(found.rows), found.context)
        change = partial(_add_noise, source=noise_of(noise, found), snr_db=snr)
        points.append(entry(estimate_known(engine, rows, [known], change, progress)[0][0], snr))
    return points


def _through_channels(
    engine: EmotionEngine,
    found: ManifestRows,
    clean: Scored,
    known: Knowledge,
    progress: Callable[[], None],
) -> list[dict[str, Any]]:
    """UA and the share of answers that differ from the clean clips' in each condition."""
    before = clean.probabilities.argmax(axis=1)
    points = []
    for name, change in CHANNELS.items():
        rows = ManifestRows(list(found.rows), found.context)
        heard = estimate_known(engine, rows, [known], change, progress)[0][0]
        answer = heard.probabilities.argmax(axis=1)
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
