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
from hri_emo_ros.data.noise import SYNTHETIC, Babble, NoiseSource, mix, noise_files
from hri_emo_ros.engine import EmotionEngine, EngineInput
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.fleet import Fleet, kept
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
Change = Callable[[FloatArray, int], FloatArray]
"""What is done to a clip, [n] at 16 kHz; the number (the row's line) decides what is drawn at random."""
PART = 128
"""Rows that go to a worker at a time: about as much work as starting a process."""
_BATCH = 4
"""Utterances of like length go through the network together (on a CPU 8 take a third longer each);
`EmotionEngine.estimate_batch` gives each what it gets alone."""
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
    """Of reading and estimating."""

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


@dataclass(frozen=True)
class _Part:
    """Rows that are read and estimated together, by whichever worker."""

    model: tuple[str, str, int]
    """Bundle, device and threads of the engine."""
    rows: list[Row]
    inputs: list[EngineInput]
    """Of each row, without the sound."""
    change: Change | None


def read_inputs(found: ManifestRows) -> list[EngineInput]:
    """What the engine is given of each row, sound included; rows whose file cannot be read are taken out of
    `found`."""
    read = [
        (row, _with_sound(row, item, None))
        for row, item in zip(found.rows, _unheard(found), strict=True)
    ]
    for row, item in read:
        if isinstance(item, HriEmoError):
            found.refuse(row, "unreadable", str(item))
    kept = [(row, item) for row, item in read if not isinstance(item, HriEmoError)]
    found.rows = [row for row, _ in kept]
    return [item for _, item in kept]


def _unheard(found: ManifestRows) -> list[EngineInput]:
    """Words and context of each row."""
    return [
        EngineInput(
            None, Transcript(row.text) if row.text else None,
            context=found.context.get(row.line, ()),
        )
        for row in found.rows
    ]  # fmt: skip


def _with_sound(row: Row, item: EngineInput, change: Change | None) -> EngineInput | HriEmoError:
    if row.path is None:
        return item
    try:
        samples = decode(row.path, row.start, row.end, row.seconds)
    except HriEmoError as error:
        return error
    return replace(item, samples=samples if change is None else change(samples, row.line))


def _engine(model: tuple[str, str, int]) -> EmotionEngine:
    bundle, device, threads = model
    engine = EmotionEngine(bundle, device=device, threads=threads)
    engine.warm_up(1)
    return engine


def _estimate_part(part: _Part) -> list[EmotionEstimate | HriEmoError]:
    """Of each row the estimate, or why there is none."""
    engine = kept(_engine, part.model)
    answers: dict[int, EmotionEstimate | HriEmoError] = {}
    heard: dict[int, EngineInput] = {}
    for k, (row, item) in enumerate(zip(part.rows, part.inputs, strict=True)):
        read = _with_sound(row, item, part.change)
        if isinstance(read, HriEmoError):
            answers[k] = read
        else:
            heard[k] = read
    # Like with like: padding costs time.
    size = {k: 0 if i.samples is None else len(i.samples) for k, i in heard.items()}
    order = sorted(heard, key=lambda k: (size[k], len(part.rows[k].text)))
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        estimates = engine.estimate_batch([heard[k] for k in batch])
        answers.update(zip(batch, estimates, strict=True))
    return [answers[k] for k in range(len(part.rows))]


@dataclass(frozen=True)
class Judge:
    """Who estimates the rows of a manifest: a model, and workers that hold it."""

    model: tuple[str, str, int]
    labels: tuple[str, ...]
    fleet: Fleet
    progress: Callable[[int], None] = lambda rows: None
    """Called with the number of rows done since the last call."""

    def estimate(
        self, found: ManifestRows, inputs: list[EngineInput], change: Change | None = None
    ) -> tuple[Scored, list[EngineInput]]:
        """Estimate every row; those whose file cannot be read are taken out of `found`, and of the inputs that
        come back."""
        parts = [
            _Part(self.model, found.rows[k : k + PART], inputs[k : k + PART], change)
            for k in range(0, len(inputs), PART)
        ]
        started = time.perf_counter()
        results = self.fleet.map(
            _estimate_part, parts, lambda number, result: self.progress(len(parts[number].rows))
        )
        seconds = time.perf_counter() - started
        answers: list[EmotionEstimate | HriEmoError] = []
        for result in results:
            if isinstance(result, HriEmoError):
                raise result
            answers += result
        rows, given, estimates = [], [], []
        for row, item, answer in zip(found.rows, inputs, answers, strict=True):
            if isinstance(answer, HriEmoError):
                found.refuse(row, "unreadable", str(answer))
            else:
                rows.append(row)
                given.append(item)
                estimates.append(answer)
        found.rows = rows
        return Scored(list(rows), estimates, self.labels, seconds), given


def estimate_known(
    judge: Judge,
    found: ManifestRows,
    wanted: Sequence[Knowledge],
    change: Change | None = None,
) -> list[tuple[Scored, dict[str, float]]]:
    """Estimate every row with each of the `wanted` baselines, and on how many utterances these rest on average.

    Baselines are made of the clips as the engine hears them here: with `change`, in the same noise.
    """
    unknown, inputs = judge.estimate(found, _unheard(found), change)
    results = []
    for knowledge in wanted:
        scored, given = unknown, inputs
        if not knowledge.nothing:
            given = with_baselines(found.rows, inputs, unknown.estimates, knowledge)
            scored, given = judge.estimate(found, given, change)
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
    progress: Callable[[int], None] = lambda rows: None,
    baselines: Sequence[Knowledge] = (),
    as_conversation: bool = False,
    fleet: Fleet | None = None,
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
        progress: called with the number of rows done since the last call, in each pass.
        baselines: what is known of each voice; the figures are those of the first, ``by_baseline`` holds
            all. Noise and channels are with the first.
        as_conversation: go through the file in its order, voices told and remembered as the node does it.
        fleet: who does the work; None is this process.

    Raises:
        HriEmoError: bundle or manifest cannot be used, or nothing in it can be scored.
    """
    model = (str(bundle), device, threads)
    engine = kept(_engine, model)
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
    judge = Judge(model, engine.labels, fleet or Fleet(), progress)
    told: dict[str, Any] = {}
    if as_conversation:
        started = time.perf_counter()
        inputs = read_inputs(found)
        estimates, told = in_order(engine, found.rows, inputs, partial(progress, 1))
        scored = Scored(found.rows, estimates, engine.labels, time.perf_counter() - started)
        by_baseline = []
    else:
        by_baseline = estimate_known(judge, found, wanted)
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
        result["snr_sweep"] = _sweep(judge, found, scored, wanted[0], sweep_snr, noise)
    if channels and modality != "text":
        result["channels"] = _through_channels(judge, found, scored, wanted[0])
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
    judge: Judge,
    found: ManifestRows,
    clean: Scored,
    known: Knowledge,
    levels: Sequence[float],
    noise: str,
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
        change = partial(_add_noise, make=noise_of(noise, found), snr_db=snr)
        points.append(entry(estimate_known(judge, rows, [known], change)[0][0], snr))
    return points


def _through_channels(
    judge: Judge,
    found: ManifestRows,
    clean: Scored,
    known: Knowledge,
) -> list[dict[str, Any]]:
    """UA and the share of answers that differ from the clean clips' in each condition."""
    before = clean.probabilities.argmax(axis=1)
    points = []
    for name, change in CHANNELS.items():
        rows = ManifestRows(list(found.rows), found.context)
        heard = estimate_known(judge, rows, [known], partial(_through, channel=change))[0][0]
        answer = heard.probabilities.argmax(axis=1)
        points.append(
            {
                "condition": name,
                "ua": metrics.ua(clean.targets, answer),
                "changed": float((answer != before).mean()),
            }
        )
    return points


def noise_of(noise: str, found: ManifestRows) -> Callable[[int], NoiseSource | Babble]:
    """Makes the noise of a seed: babble of the manifest's clips, white, pink, or a folder's recordings.

    Raises:
        HriEmoError: there is nothing to read in that folder.
    """
    if noise == "babble":
        voices = [row.path for row in found.rows if row.path is not None]
        return lambda seed: Babble(voices, SAMPLE_RATE, seed)
    source = noise if noise in SYNTHETIC else noise_files(Path(noise))
    return lambda seed: NoiseSource(source, SAMPLE_RATE, seed)


def _add_noise(
    samples: FloatArray, line: int, make: Callable[[int], NoiseSource | Babble], snr_db: float
) -> FloatArray:
    return mix(samples, make(line).take(len(samples)), snr_db)


def _through(
    samples: FloatArray, line: int, channel: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    return channel(samples)
