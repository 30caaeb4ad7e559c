"""After the last step: calibration, figures with intervals, bundle, card, misclassified clips."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation import metrics
from hri_emo_ros.model.bundle import Bundle, save_bundle
from hri_emo_ros.model.calibration import Calibration, fit_calibration, probabilities
from hri_emo_ros.training.card import write_card
from hri_emo_ros.training.conditions import condition_report, extra_predictions
from hri_emo_ros.training.splits import speaker_halves
from hri_emo_ros.training.validation import Predictions, save_predictions

if TYPE_CHECKING:
    from hri_emo_ros.training.trainer import Trainer

METRICS_FILE, PREDICTIONS_FILE, BUNDLE = "metrics.json", "validation.npz", "bundle"


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
        result["validation"] = trainer.scores(predictions)
        result["intervals"] = _intervals(predictions)
        result["by_group"] = _by_group(predictions)
    fusion = config.model.head in ("hri_emo", "late_fusion")
    alone = extra_predictions(trainer) if fusion and predictions is not None else []
    if config.calibration.enabled:
        fitted = _calibrate(trainer, [p for p in [predictions, *alone] if p is not None])
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


def _groups(predictions: Predictions) -> list[str] | None:
    speakers = [e.item.speaker for e in predictions.examples]
    return speakers if all(speakers) else None


def _intervals(predictions: Predictions) -> dict[str, dict[str, list[float]]]:
    """95 % bootstrap intervals of the main figures by corpus, over speakers where they are told."""
    result = {}
    answer, true = predictions.logits.argmax(1), predictions.classes
    corpora = np.array([e.item.corpus for e in predictions.examples])
    speakers = np.array([e.item.speaker for e in predictions.examples])
    for corpus in dict.fromkeys(corpora.tolist()):
        rows = np.flatnonzero(corpora == corpus)
        groups = speakers[rows] if all(speakers[rows]) else None
        result[corpus] = {}
        for name, statistic in (("ua", metrics.ua), ("macro_f1", metrics.macro_f1),
                                ("weighted_f1", metrics.weighted_f1)):  # fmt: skip
            interval = metrics.bootstrap_interval(
                lambda i, rows=rows, f=statistic: f(true[rows[i]], answer[rows[i]]),
                len(rows), groups,
            )  # fmt: skip
            result[corpus][name] = [interval.low, interval.high]
    return result


def _by_group(predictions: Predictions) -> dict[str, dict[str, float]]:
    """UA by speaker's sex, by language and by speaker."""
    answer, true = predictions.logits.argmax(1), predictions.classes
    result: dict[str, dict[str, float]] = {}
    for kind in ("sex", "language", "speaker"):
        names = np.array([getattr(e.item, kind) for e in predictions.examples])
        result[kind] = {
            str(name): metrics.ua(true[names == name], answer[names == name])
            for name in sorted(set(names.tolist()))
            if name
        }
    return result


def _calibrate(
    trainer: Trainer, parts: Sequence[Predictions]
) -> tuple[Calibration, dict[str, Any]] | None:
    """Fit on one half of the validation speakers and report on the other, both ways; the bundle
    gets the fit to both halves."""
    config = trainer.config
    if config.calibration.runs:
        stacked = _load_runs(config.calibration.runs)
    elif parts:
        stacked = {
            "logits": np.concatenate([p.logits for p in parts]),
            "targets": np.concatenate([p.targets for p in parts]),
            "audio": np.concatenate([p.audio_present for p in parts]),
            "text": np.concatenate([p.text_present for p in parts]),
        }
    else:
        return None
    objective = config.model.objective
    everything = np.arange(len(stacked["logits"]))
    calibration = _fit(stacked, everything, objective)
    report: dict[str, Any] = {
        "temperature": {
            "both": calibration.temperature_both, "audio": calibration.temperature_audio,
            "text": calibration.temperature_text,
        },
        "thresholds": calibration.thresholds,
        "abstain_confidence": calibration.abstain_confidence,
    }  # fmt: skip
    if not config.calibration.runs and objective == "single_label":
        examples = [e.item for p in parts for e in p.examples]
        halves = speaker_halves(examples, config.seed)
        if all(halves):
            report["held_out"] = _cross_fitted(stacked, halves, objective)
    return calibration, report


def _fit(stacked: dict[str, np.ndarray], rows: np.ndarray, objective: Any) -> Calibration:
    return fit_calibration(
        torch.from_numpy(stacked["logits"][rows]),
        torch.from_numpy(stacked["targets"][rows]),
        torch.from_numpy(stacked["audio"][rows]),
        torch.from_numpy(stacked["text"][rows]),
        objective,
    )


def _cross_fitted(
    stacked: dict[str, np.ndarray], halves: tuple[list[int], list[int]], objective: Any
) -> dict[str, float]:
    """Calibration error and what abstaining gains, every item judged by the other half's fit."""
    p = np.zeros(stacked["logits"].shape, np.float64)
    for fit_on, report_on in (halves, halves[::-1]):
        fitted = _fit(stacked, np.asarray(fit_on), objective)
        rows = torch.as_tensor(report_on)
        scaled = fitted.scale(
            torch.from_numpy(stacked["logits"])[rows],
            torch.from_numpy(stacked["audio"])[rows],
            torch.from_numpy(stacked["text"])[rows],
        )
        p[report_on] = probabilities(scaled, objective).numpy()
    true = stacked["targets"].argmax(1)
    raw = probabilities(torch.from_numpy(stacked["logits"]), objective).numpy()
    right = p.argmax(1) == true
    return {
        "ece_before": metrics.ece(true, raw),
        "ece_after": metrics.ece(true, p),
        "accuracy": float(right.mean()),
        "gain_from_abstaining_on_20_percent": metrics.accuracy_gain(right, -p.max(1), 0.2),
    }


def _load_runs(folders: Sequence[str]) -> dict[str, np.ndarray]:
    parts = []
    for folder in folders:
        path = Path(folder) / PREDICTIONS_FILE
        if not path.is_file():
            raise HriEmoError(f"'calibration.runs': '{folder}' has no {PREDICTIONS_FILE}")
        with np.load(path, allow_pickle=False) as archive:
            parts.append({k: archive[k] for k in ("logits", "targets", "audio_present",
                                                  "text_present")})  # fmt: skip
    return {
        new: np.concatenate([part[old] for part in parts])
        for new, old in (
            ("logits", "logits"),
            ("targets", "targets"),
            ("audio", "audio_present"),
            ("text", "text_present"),
        )
    }


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
