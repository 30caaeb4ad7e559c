# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The bundle's README: what it was trained on, how well it does, where it came from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy import stats

from hri_emo_ros.training.recipe import RECIPE_FILE, Recipe

_STRICTEST_FIRST = ("CC BY-NC-SA 4.0", "CC BY-SA 4.0", "CC BY 4.0")
"""Licences of speech data that pass on to what is made of it."""

_LICENCES = {
    "ravdess": "CC BY-NC-SA 4.0",
    "nemo": "CC BY-NC-SA 4.0",
    "emodb": "CC BY 4.0",
    "crema_d": "Open Database License 1.0",
    "banglaser": "CC BY 4.0",
    "goemotions": "Apache-2.0",
    "meld_text": "GPL-3.0 (repository)",
    "meld": "GPL-3.0 (repository); the recordings are the broadcaster's",
    "emorynlp": "Apache-2.0",
    "iemocap": "USC licence, research only",
    "mosei": "see the CMU Multimodal SDK",
}
_PRETRAINED = {
    "minilm": "all-MiniLM-L6-v2 (Apache-2.0)",
    "whisper-base": "the first layers of OpenAI's whisper-base (MIT)",
}
"""Where encoders come from, by the name that the recipe gives it."""
_USE = """
## Use

For robots and their simulations that adapt how they speak or move to how a person sounds, with the
person's knowledge, and for research. The estimate describes how an utterance sounds and reads, not
what a person feels. Not for judging people: not in hiring, policing, education, health or insurance,
not without the person's knowledge, not for decisions about anybody. In the European Union emotion
recognition at work and in education is forbidden (Regulation 2024/1689, article 5).

## Known failures

Acted voices of adults teach it exaggerated emotion: spontaneous speech is quieter and is called
neutral more often. Languages, accents, ages and voices that are not in the data below are heard less
well; the tables by sex, language and speaker show how much people differ. A voice of which nothing is
known is judged worse than one that has spoken before; one that has only ever been heard in one emotion
comes to sound neutral in it. Irony, and words that say the opposite of the voice, are rare in recorded
dialogue and artificial in constructed pairs.
"""


def write_card(
    recipe: Recipe, result: dict[str, Any], left_out: Mapping[str, Mapping[str, int]]
) -> str:
    """Markdown with every figure of `result` that a user of the model should know, and those of the
    runs of ``calibrate_on`` and of the stages that it was built from.

    Args:
        left_out: corpus -> reason -> count of items that were not used.
    """
    lines = [
        f"# {recipe.name}",
        "",
        f"Head `{recipe.model.head}`, {result['parameters']:,} parameters, labels: "
        f"{', '.join(recipe.model.labels)}. Trained with `hri-emo train`.",
        *_USE.rstrip().splitlines(),
        "",
        "## Data",
        "",
        "| corpus | licence | trained on | validated on |",
        "|---|---|---|---|",
    ]
    earlier = _earlier(recipe)
    trained, validated = _counts([result, *earlier])
    lines += [
        f"| {name} | {_LICENCES.get(name, 'unknown')} | {trained[name]} | {validated[name]} |"
        for name in dict.fromkeys([*trained, *validated])
    ]
    licences = {_LICENCES.get(name, "unknown") for name in trained}
    strictest = next((k for k in _STRICTEST_FIRST if k in licences), "the strictest of these")
    lines += ["", f"Licence of these weights: {strictest}, as the strictest of their data's."]
    for part, source in _sources(recipe).items():
        name = _PRETRAINED.get(source, f"'{source}'")
        lines.append(f"The {part} encoder is {name}.")
    for corpus, reasons in left_out.items():
        for reason, count in reasons.items():
            lines.append(f"Left out of {corpus}: {count} x {reason}.")
    shared = dict.fromkeys(name for r in [result, *earlier] for name in r["shared_speakers"])
    if shared:
        lines.append("Validation shares speakers with training in: " + ", ".join(shared) + ".")
    if result["constructed"]:
        lines.append(
            f"Of the pairs of voice and words it learnt from, {100 * (1 - result['constructed']):.0f} in 100 were "
            "recorded; the others are **constructed**: nobody said these words in this voice."
        )
    if "validation" not in result:
        lines += ["", "Trained on everything: the figures below are those of runs of the same recipe "
                  "that left a part out, or of the stages it was built from."]  # fmt: skip
    entries = [*([result] if "validation" in result else []), *earlier]
    lines += _overview(entries, result.get("calibration", {}).get("held_out_voice"))
    brief = len(entries) > 1  # the voice's many runs stand in the tables above
    for entry in entries:
        lines += _figures(entry, brief and entry["head"] == "audio_only")
    return "\n".join(lines) + "\n"


def _sources(recipe: Recipe) -> dict[str, str]:
    """Names of the pretrained encoders of this run or of the stages before it."""
    models: list[Mapping[str, Any]] = [recipe.model_dump()["model"]]
    for part in ("audio", "text"):
        bundle = getattr(recipe.pretrained, part)
        file = Path(bundle).parent / RECIPE_FILE
        if bundle and file.is_file():
            models.append(yaml.safe_load(file.read_text(encoding="utf-8"))["model"])
    return {
        kind: model[part]["name"]
        for model in models
        for kind, part in (("voice", "audio"), ("text", "text"))
        if model[part].get("name")
    }


def _earlier(recipe: Recipe) -> list[dict[str, Any]]:
    """Metrics of the runs it is calibrated on, with their stages, and of the stages before it, each once."""
    folders: list[Path] = []
    for run in map(Path, recipe.calibrate_on):
        folders += (
            sorted(p.parent for p in run.parent.glob("*/metrics.json")) if run.is_dir() else []
        )
    for part in ("audio", "text"):
        bundle = getattr(recipe.pretrained, part)
        folders += [Path(bundle).parent] if bundle else []
    files = dict.fromkeys(folder / "metrics.json" for folder in folders)
    read = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    return [metrics for metrics in read if "validation" in metrics]


def _counts(results: Sequence[dict[str, Any]]) -> list[Counter[str]]:
    """Most items of each corpus that any run has trained on, and validated on."""
    sides: list[Counter[str]] = [Counter(), Counter()]
    for result in results:
        sides[0] |= Counter(result["train_by_corpus"])
        sides[1] |= Counter(result["validation_by_corpus"])
    return sides


def _overview(
    results: Sequence[dict[str, Any]], calibration: Mapping[str, float] | None
) -> list[str]:
    """The voice alone over several runs, by what was known of it: people of every fold, and corpora left out of
    training; then its calibration over all of them."""
    voices = [r for r in results if r["head"] == "audio_only"]
    folds = [r for r in voices if not r["leave_corpus_out"]]
    left_out = [r for r in voices if r["leave_corpus_out"]]
    lines: list[str] = []
    if len(folds) > 1:
        lines += _by_known("The voice on people it has never heard", folds)
        lines += ["", f"Means of {len(folds)} folds with a 95 % interval from their spread "
                  "(Student's t)."]  # fmt: skip
    if left_out:
        lines += _by_known("The voice on corpora it has never heard", left_out)
    if calibration:
        others = _calibration(calibration, "all runs but the one reported on, in turn")
        lines += ["", f"{calibration['n']:.0f} answers of the voice. {others}"]
    return lines


def _by_known(title: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    """A row for each corpus and a column for what was known of the voice: how many of its utterances, or of
    others in the room."""
    columns = list(runs[0].get("by_known") or {"0": None})
    lines = ["", f"## {title} (UA, by known utterances of the voice)", "",
             f"| corpus | chance | {' | '.join(columns)} |", "|---|---|" + "---|" * len(columns)]  # fmt: skip
    names = dict.fromkeys(name for r in runs for name in r["validation"])
    for name in [n for n in names if n not in ("all", "constructed")]:
        found = [r for r in runs if "ua" in r["validation"].get(name, {})]
        cells = []
        for column in columns:
            parts = [r.get("by_known", {}).get(column, r) for r in found]
            values = [part["validation"][name]["ua"] for part in parts]
            interval = parts[0].get("intervals", {}).get(name, {}).get("ua") if parts else None
            cells.append(_mean(values) if len(values) > 1 else _spread(values[0], interval))
        if found:
            chance = found[0]["validation"][name].get("chance_ua", float("nan"))
            lines.append(f"| {name} | {chance:.3f} | {' | '.join(cells)} |")
    return lines


def _mean(values: Sequence[float]) -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    mean = float(np.mean(values))
    return _spread(mean, [mean - half, mean + half])


def _figures(result: dict[str, Any], brief: bool) -> list[str]:
    side = f"fold {result['fold']}" if result["fold"] else "the validation side"
    if result["leave_corpus_out"]:
        side = f"{result['leave_corpus_out']}, left out of training"
    stage = f", stage {result['stage']}" if result["stage"] else ""
    lines = ["", f"## Figures on {side} ({result['head']}{stage})", ""]
    if not brief:
        lines += ["| corpus | known of the voice | n | UA | macro F1 | weighted F1 | ECE |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
    for known, part in () if brief else (result.get("by_known") or {"": result}).items():
        for name, scores in part["validation"].items():
            if "ua" in scores and name != "all":
                intervals = part.get("intervals", {}).get(name, {})
                cells = (
                    _spread(scores[f], intervals.get(f)) for f in ("ua", "macro_f1", "weighted_f1")
                )
                lines.append(f"| {name} | {known} | {scores['n']:.0f} | {' | '.join(cells)} | "
                             f"{scores['ece']:.3f} |")  # fmt: skip
    groups = result.get("by_group", {})
    for kind in ("sex", "language", "speaker"):
        values = ", ".join(f"{k} {v:.3f}" for k, v in groups.get(kind, {}).items() if v is not None)
        if values:
            lines.append(f"\nUA by {kind}: {values}.")
    held_out = result.get("calibration", {}).get("held_out")
    if held_out:
        lines.append("\n" + _calibration(held_out, "people other than those it is reported on"))
    return [*lines, *_conditions(result.get("conditions", {}))]


def _calibration(held_out: Mapping[str, float], fitted_on: str) -> str:
    gain = held_out["gain_from_abstaining_on_20_percent"]
    return (
        f"Calibration error {held_out['ece_before']:.3f} before and {held_out['ece_after']:.3f} after "
        f"temperature scaling (fitted on {fitted_on}); not answering the least certain 20 % changes "
        f"accuracy by {gain:+.3f}."
    )


def _spread(value: float, interval: list[float] | None) -> str:
    """``0.61 [0.55, 0.67]``: 95 % bootstrap over speakers where they are told, else over items."""
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def _conditions(conditions: dict[str, Any]) -> list[str]:
    if not conditions:
        return []
    made = conditions["constructed"]
    kinds = f"{conditions['n'] - made} recorded, {made} constructed with equal labels"
    lines = ["", f"On {conditions['n']} pairs of voice and words ({kinds}):", "",
             "| condition | macro F1 | weight of the voice | gate |", "|---|---|---|---|"]  # fmt: skip
    for name, row in conditions.items():
        if isinstance(row, dict) and "macro_f1" in row:
            lines.append(
                f"| {name.replace('_', ' ')} | {row['macro_f1']:.3f} | {row['audio_weight']:.3f} | "
                f"{row['gate']:.3f} |"
            )
    rho = conditions["rank_correlation"]
    told = ", ".join(f"{k.replace('_', ' ')} {v:.3f}" for k, v in rho.items() if v is not None)
    levels = (
        "Noise is mixed by the mean level of speech, as `hri-emo evaluate --sweep-snr` does; the network is "
        "told that level, which the engine has to measure."
    )
    return [*lines, "", levels, "", "Rank correlation between the weight of the voice and what removing the voice "
            f"costs: {told}."]  # fmt: skip
