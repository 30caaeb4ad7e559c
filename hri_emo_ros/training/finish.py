# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind: calibration, figures with intervals, bundle, card, misclassified clips."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from hri_emo_ros.data.json_files import write_json
from hri_emo_ros.model.bundle import Bundle, save_bundle
from hri_emo_ros.model.calibration import Calibration
from hri_emo_ros.training.augment import Conditions
from hri_emo_ros.training.calibration import calibrate
from hri_emo_ros.training.card import write_card
from hri_emo_ros.training.conditions import alone, condition_report, stated
from hri_emo_ros.training.items import Data
from hri_emo_ros.training.known import KNOWN
from hri_emo_ros.training.network import Network
from hri_emo_ros.training.predictions import (
    Predictions,
    Scorer,
    intervals,
    scores_by_corpus,
    ua_by_group,
)
from hri_emo_ros.training.recipe import Recipe
from hri_emo_ros.training.speech import SPEECH_THRESHOLD

METRICS_FILE, BUNDLE, MANIFEST = "metrics.json", "bundle", "validation.csv"


@dataclass
class Trained:
    """A network after its last step."""

    recipe: Recipe
    folder: Path
    data: Data
    network: Network
    constructed: float
    """Share of constructed pairs in what it has seen, [0, 1]."""
    steps: int
    seconds: float
    history: list[dict[str, Any]]


def finish(
    trained: Trained, scorer: Scorer, predictions: Predictions | None, conditions: Conditions
) -> dict[str, Any]:
    """Write everything that a run leaves behind.

    Args:
        trained: with the weights to ship in place.
        scorer: over the same weights.
        predictions: of the validation side, None where there is none.
        conditions: truthful ones, for the report on fusion.

    Returns:
        The contents of metrics.json.
    """
    recipe, folder, data = trained.recipe, trained.folder, trained.data
    labels, multi_label = recipe.model.labels, recipe.model.objective == "multi_label"
    result = _facts(trained)
    parts: dict[str, Predictions] = {}
    single: dict[str, Predictions] = {}
    if predictions is not None:
        write_manifest(folder / MANIFEST, predictions, labels)
        result["validation"] = scores_by_corpus(predictions, multi_label)
        result["intervals"] = intervals(predictions)
        result["by_group"] = ua_by_group(predictions)
        result["misclassified"] = link_misclassified(folder, predictions, labels)
        parts = {"validation": predictions}
        if recipe.model.uses_audio and recipe.model.baseline is not None:
            given = stated(conditions, predictions.examples)
            result["by_known"] = {}
            for name, counts in KNOWN.items():
                part = predictions
                if any(counts):
                    part = parts[f"validation {name}"] = scorer(predictions.examples, given, counts)
                scores = scores_by_corpus(part, multi_label)
                result["by_known"][name] = {"validation": scores, "intervals": intervals(part)}
        if recipe.model.uses_audio and recipe.model.uses_text:
            single = alone(scorer, conditions, predictions.examples)
            parts |= {f"validation {name}": part for name, part in single.items()}
        for name, part in parts.items():
            part.save(folder / f"{name}.npz")
    fitted = calibrate(
        list(parts.values()), recipe.calibrate_on, recipe.model.objective, recipe.seed
    )
    calibration = Calibration.identity(len(labels))
    if fitted is not None:
        calibration, result["calibration"] = fitted
    if recipe.model.uses_audio and recipe.model.baseline is not None:
        calibration = calibration.model_copy(update={"speech_threshold": SPEECH_THRESHOLD})
    if single and predictions is not None and not multi_label:
        result["conditions"] = condition_report(
            scorer, conditions, predictions.examples, calibration
        )
    bundle = Bundle(
        model=trained.network.model,
        tokenizer=trained.network.tokenizer,
        calibration=calibration,
        name=recipe.name,
        card=write_card(recipe, result, data.left_out),
        training={
            k: result[k]
            for k in ("head", "fold", "seed", "steps", "train_by_corpus", "constructed")
        },
    )
    save_bundle(bundle, folder / BUNDLE)
    result["model_id"] = bundle.model_id
    write_json(folder / METRICS_FILE, result)
    return result


def _facts(trained: Trained) -> dict[str, Any]:
    recipe, data = trained.recipe, trained.data
    return {
        "name": recipe.name,
        "stage": recipe.stage,
        "head": recipe.model.head,
        "fold": recipe.data.fold,
        "leave_corpus_out": recipe.data.leave_corpus_out,
        "seed": recipe.seed,
        "parameters": sum(p.numel() for p in trained.network.model.parameters()),
        "train_by_corpus": dict(Counter(item.corpus for item in data.train)),
        "validation_by_corpus": dict(Counter(item.corpus for item in data.validation)),
        "left_out": data.left_out,
        "shared_speakers": data.shared_speakers,
        "constructed": trained.constructed,
        "steps": trained.steps,
        "seconds": trained.seconds,
        "history": trained.history,
    }


def write_manifest(path: Path, predictions: Predictions, labels: Sequence[str]) -> None:
    """Write the validation side as a manifest for `hri-emo evaluate`.

    Pairs whose two halves disagree have no one right answer and are left out.
    """
    columns = ("path", "emotion", "text", "speaker", "sex", "language", "seconds", "conversation",
               "turn")  # fmt: skip
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns)
        table.writeheader()
        for example, true in zip(predictions.examples, predictions.classes, strict=True):
            voice, words, item = example.voice, example.words, example.item
            if example.voice_target != example.words_target:
                continue
            row = {
                "path": voice.audio.resolve() if voice is not None and voice.audio else "",
                "emotion": labels[true],
                "text": words.text if words is not None else "",
                "seconds": (voice.max_duration or "") if voice is not None else "",
                "turn": f"{item.turn:g}" if item.conversation else "",
            }
            row |= {k: getattr(item, k) for k in ("speaker", "sex", "language", "conversation")}
            table.writerow(row)


def link_misclassified(folder: Path, predictions: Predictions, labels: Sequence[str]) -> int:
    """Put wrongly answered validation clips together for listening, as links with a table of true and predicted
    labels.

    Returns:
        How many.
    """
    folder = folder / "misclassified"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    p = softmax(predictions.logits, axis=1)
    wrong = np.flatnonzero(p.argmax(1) != predictions.classes)
    with (folder / "misclassified.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "id", "speaker", "true", "predicted", "probability", "text"])
        for row in wrong:
            example = predictions.examples[row]
            true, predicted = labels[predictions.classes[row]], labels[p[row].argmax()]
            name = ""
            if example.voice is not None and example.voice.audio is not None:
                clip = example.voice.audio
                stem = example.voice.id.replace("/", "_").removesuffix(clip.suffix)
                name = f"{row}_{true}_as_{predicted}_{stem}{clip.suffix}"
                (folder / name).symlink_to(clip.resolve())
            text = example.words.text if example.words is not None else ""
            table.writerow([name, example.item.id, example.item.speaker, true, predicted,
                            f"{p[row].max():.3f}", text])  # fmt: skip
    return len(wrong)
