"""After the last step: calibration, figures with intervals, bundle, card, misclassified clips."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hri_emo_ros.data import metrics
from hri_emo_ros.model.bundle import Bundle, save_bundle
from hri_emo_ros.model.calibration import Calibration, probabilities
from hri_emo_ros.training.calibrate import ALONE_FILES, PREDICTIONS_FILE, calibrate
from hri_emo_ros.training.card import write_card
from hri_emo_ros.training.conditions import condition_report, extra_predictions
from hri_emo_ros.training.validation import Predictions, save_predictions

if TYPE_CHECKING:
    from hri_emo_ros.training.trainer import Trainer

METRICS_FILE, BUNDLE, MANIFEST = "metrics.json", "bundle", "validation.csv"
_SMALLEST_GROUP = 20
"""Utterances of a group; below that its recall is chance."""


def finish(trainer: Trainer, predictions: Predictions | None, seconds: float) -> dict[str, Any]:
    """Write everything that a run leaves behind.

    Args:
        trainer: with the weights to ship in place.
        predictions: of the validation side, None where there is none.
        seconds: that training took.

    Returns:
        The contents of metrics.json.
    """
    config, folder = trainer.config, trainer.folder
    labels = config.model.labels
    parameters = sum(p.numel() for p in trainer.network.model.parameters())
    result: dict[str, Any] = {
        "name": config.name,
        "stage": config.stage,
        "head": config.model.head,
        "fold": config.data.fold,
        "leave_corpus_out": config.data.leave_corpus_out,
        "seed": config.seed,
        "parameters": parameters,
        "train_items": len(trainer.data.train),
        "train_by_corpus": _by_corpus(trainer.data.train),
        "validation_by_corpus": _by_corpus(trainer.data.validation),
        "left_out": trainer.data.left_out,
        "shared_speakers": trainer.data.shared_speakers,
        "constructed": config.pairs.enabled,
        "steps": trainer.step,
        "seconds": seconds,
        "history": trainer.history,
    }
    calibration = Calibration.identity(len(labels))
    if predictions is not None:
        save_predictions(folder / PREDICTIONS_FILE, predictions)
        write_manifest(folder / MANIFEST, predictions, labels)
        result["validation"] = trainer.scores(predictions)
        result["intervals"] = _intervals(predictions)
        result["by_group"] = _by_group(predictions)
    fusion = config.model.head in ("hri_emo", "late_fusion")
    alone = extra_predictions(trainer) if fusion and predictions is not None else []
    for name, part in zip(ALONE_FILES, alone, strict=False):
        save_predictions(folder / name, part)
    if config.calibration.enabled:
        fitted = calibrate(config, [p for p in [predictions, *alone] if p is not None])
        if fitted is not None:
            calibration, result["calibration"] = fitted
    if fusion and config.model.objective == "single_label" and trainer.examples:
        result["conditions"] = condition_report(trainer, calibration)
    card = write_card(config, result, trainer.data)
    bundle = Bundle(
        model=trainer.network.model,
        tokenizer=trainer.network.tokenizer,
        calibration=calibration,
        name=config.name,
        card=card,
        training={
            k: result[k]
            for k in ("head", "fold", "seed", "steps", "train_by_corpus", "constructed")
        },
    )
    save_bundle(bundle, folder / BUNDLE, config.bundle_dtype)
    result["model_id"] = bundle.model_id
    if config.save_misclassified and predictions is not None:
        result["misclassified"] = save_misclassified(trainer, predictions)
    write_json(folder / METRICS_FILE, result)
    return result


def write_manifest(path: Path, predictions: Predictions, labels: Sequence[str]) -> None:
    """Write the validation side as a manifest for `hri-emo evaluate`.

    Pairs whose two halves disagree have no one right answer and are left out.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "emotion", "text", "speaker", "sex", "language", "seconds"])
        for example, true in zip(predictions.examples, predictions.classes, strict=True):
            voice, words = example.voice, example.words
            if example.voice_target != example.words_target:
                continue
            clip = voice.audio.resolve() if voice is not None and voice.audio is not None else ""
            item = example.item
            table.writerow(
                [clip, labels[true], words.text if words is not None else "", item.speaker, item.sex,
                 item.language, voice.max_duration or "" if voice is not None else ""]
            )  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """JSON with NaN as null, since NaN is no JSON."""
    path.write_text(json.dumps(_plain(value), indent=1) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (np.floating, float)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def _by_corpus(items: Sequence[Any]) -> dict[str, int]:
    names = [item.corpus for item in items]
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _intervals(predictions: Predictions) -> dict[str, dict[str, list[float]]]:
    """95 % bootstrap intervals of the main figures by corpus, over speakers where they are told.

    As in `score`, utterances whose target names no single winner are left out.
    """
    result: dict[str, dict[str, list[float]]] = {}
    answer, true = predictions.logits.argmax(1), predictions.classes
    corpora = np.array([e.item.corpus for e in predictions.examples])
    speakers = np.array([e.item.speaker for e in predictions.examples])
    functions = {"ua": metrics.ua, "macro_f1": metrics.macro_f1, "weighted_f1": metrics.weighted_f1}
    clear = predictions.targets.max(1) > 0.5
    for corpus in dict.fromkeys(corpora.tolist()):
        rows = np.flatnonzero((corpora == corpus) & clear)
        if len(rows) == 0:
            continue
        groups = speakers[rows] if all(speakers[rows]) else None
        result[corpus] = {}
        for name, function in functions.items():
            interval = metrics.bootstrap_interval(
                partial(_on_rows, function, true[rows], answer[rows]), len(rows), groups
            )
            result[corpus][name] = [interval.low, interval.high]
    return result


def _on_rows(
    function: Callable[[Any, Any], float], true: np.ndarray, answer: np.ndarray, rows: np.ndarray
) -> float:
    return function(true[rows], answer[rows])


def _by_group(predictions: Predictions) -> dict[str, dict[str, float]]:
    """UA by speaker's sex, by language and by speaker, of groups large enough to say anything."""
    answer, true = predictions.logits.argmax(1), predictions.classes
    result: dict[str, dict[str, float]] = {}
    for kind in ("sex", "language", "speaker"):
        names = np.array([getattr(e.item, kind) for e in predictions.examples])
        result[kind] = {
            str(name): metrics.ua(true[names == name], answer[names == name])
            for name in sorted(set(names.tolist()))
            if name and np.count_nonzero(names == name) >= _SMALLEST_GROUP
        }
    return result


def save_misclassified(trainer: Trainer, predictions: Predictions) -> int:
    """Write wrongly answered validation clips with a table of true and predicted labels.

    Returns:
        How many.
    """
    import soundfile

    folder = trainer.folder / "misclassified"
    folder.mkdir(exist_ok=True)
    labels = trainer.config.model.labels
    p = probabilities(torch.from_numpy(predictions.logits), trainer.config.model.objective).numpy()
    wrong = np.flatnonzero(p.argmax(1) != predictions.classes)
    with (folder / "misclassified.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "id", "speaker", "true", "predicted", "probability", "text"])
        for row in wrong:
            example = predictions.examples[row]
            true, predicted = labels[predictions.classes[row]], labels[p[row].argmax()]
            name = ""
            if example.voice is not None and example.voice.audio is not None:
                name = f"{true}_as_{predicted}_{example.voice.id.replace('/', '_')}"
                name = str(Path(name).with_suffix(".wav"))
                soundfile.write(folder / name, trainer.sources.audio.samples(example.voice), 16_000)
            text = example.words.text if example.words is not None else ""
            table.writerow([name, example.item.id, example.item.speaker, true, predicted,
                            f"{p[row].max():.3f}", text])  # fmt: skip
    return len(wrong)
