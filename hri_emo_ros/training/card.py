"""The bundle's README: what it was trained on, how well it does, where it came from."""

from __future__ import annotations

from typing import Any

from hri_emo_ros.training.config import TrainConfig
from hri_emo_ros.training.data import Data

_LICENCES = {
    "ravdess": "CC BY-NC-SA 4.0",
    "nemo": "CC BY-NC-SA 4.0",
    "emodb": "CC BY 4.0",
    "crema_d": "Open Database License 1.0",
    "goemotions": "Apache-2.0",
    "meld_text": "GPL-3.0 (repository)",
    "meld": "GPL-3.0 (repository); the recordings are the broadcaster's",
    "emorynlp": "Apache-2.0",
    "iemocap": "USC licence, research only",
    "mosei": "see the CMU Multimodal SDK",
}


def write_card(config: TrainConfig, result: dict[str, Any], data: Data) -> str:
    """Markdown with every figure of `result` that a user of the model should know."""
    lines = [f"# {config.name}", ""]
    lines += [
        f"Head `{config.model.head}`, {result['parameters']:,} parameters, labels: "
        f"{', '.join(config.model.labels)}.",
        "",
        "## Data",
        "",
        "| corpus | licence | trained on | validated on |",
        "|---|---|---|---|",
    ]
    names = dict.fromkeys([*result["train_by_corpus"], *result["validation_by_corpus"]])
    lines += [
        f"| {name} | {_LICENCES.get(name, 'unknown')} | {result['train_by_corpus'].get(name, 0)} | "
        f"{result['validation_by_corpus'].get(name, 0)} |"
        for name in names
    ]
    lines += ["", "The model carries the strictest of these licences."]
    for corpus, reasons in data.left_out.items():
        for reason, count in reasons.items():
            lines.append(f"Left out of {corpus}: {count} x {reason}.")
    if data.shared_speakers:
        lines.append(
            "Validation shares speakers with training in: " + ", ".join(data.shared_speakers) + "."
        )
    if result["constructed"]:
        lines.append(
            "Pairs of voice and words are **constructed**: nobody said these words in this voice."
        )
    lines += _figures(config, result)
    return "\n".join(lines) + "\n"


def _figures(config: TrainConfig, result: dict[str, Any]) -> list[str]:
    if "validation" not in result:
        return ["", "Trained on everything: there are no validation figures of this very model."]
    side = f"fold {config.data.fold}" if config.data.fold else "the validation side"
    lines = ["", f"## Figures on {side}", "", "| corpus | n | UA | macro F1 | weighted F1 | ECE |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name, scores in result["validation"].items():
        if "ua" not in scores:
            continue
        interval = result.get("intervals", {}).get(name, {}).get("ua")
        spread = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        lines.append(
            f"| {name} | {scores['n']:.0f} | {scores['ua']:.3f}{spread} | {scores['macro_f1']:.3f} | "
            f"{scores['weighted_f1']:.3f} | {scores['ece']:.3f} |"
        )
    held_out = result.get("calibration", {}).get("held_out")
    if held_out:
        lines += ["", f"Calibration error {held_out['ece_before']:.3f} before and "
                  f"{held_out['ece_after']:.3f} after temperature scaling (fitted on one half of the "
                  "validation speakers, reported on the other). Intervals: 95 % bootstrap over "
                  "speakers where they are told, else over items."]  # fmt: skip
    return lines
