# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""What ``hri-emo evaluate`` prints and draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from hri_emo_ros.evaluation import svg
from hri_emo_ros.evaluation.evaluate import Scored
from hri_emo_ros.evaluation.report import (
    Figure,
    Section,
    Table,
    Tile,
    model_sections,
    write_page,
)

_NAMES = {"ua": "UA", "wa": "WA", "macro_f1": "macro F1", "weighted_f1": "weighted F1"}
_LISTED = 10


def print_result(result: dict[str, Any], console: Console) -> None:
    """The figures as text; every row that was not scored is named or counted."""
    console.print(f"{result['model_id']} on {result['manifest']} ({result['modality']}), "
                  f"{result['n']} scored", highlight=False)  # fmt: skip
    for key, name in _NAMES.items():
        low, high = result["intervals"][key]
        console.print(
            f"  {name:<12} {result[key]:.3f}  95 % [{low:.3f}, {high:.3f}]", highlight=False
        )
    console.print(
        f"  ECE          {result['ece']:.3f}\n"
        f"  chance UA    {result['chance']:.3f}   majority WA {result['majority']:.3f}\n"
        f"  {result['clips_per_s']:.1f} clips/s; intervals over {result['intervals_over']}; the answer "
        "is the arg max over all of the model's labels",
        highlight=False,
    )
    for entry in result.get("by_baseline", {}).values():
        low, high = entry["intervals"]["ua"]
        console.print(f"  {entry['baseline']:>4} of the voice, {entry['room']} of others{'':<6} UA "
                      f"{entry['ua']:.3f}  95 % [{low:.3f}, {high:.3f}]  ECE {entry['ece']:.3f}  on average "
                      f"{entry['voice_count']:.1f} and {entry['room_count']:.1f}", highlight=False)  # fmt: skip
    if result.get("without_speaker"):
        console.print(f"{len(result['without_speaker'])} clips name no speaker: they are judged as unknown "
                      "voices and are in nobody's baseline", highlight=False)  # fmt: skip
    if "in_order" in result:
        told = result["in_order"]
        console.print(f"  in the file's order: {told['voices']} voices were told apart, "
                      f"{told['without_voice']} utterances were nobody's", highlight=False)  # fmt: skip
    _print_classes(result, console)
    for point in result.get("snr_sweep", ()):
        name = "clean" if point["snr_db"] is None else f"{point['snr_db']:g} dB SNR"
        console.print(f"  {name:<28} UA {point['ua']:.3f}  voice weight {point['audio_weight']:.3f}  "
                      f"abstained {point['abstained']}", highlight=False)  # fmt: skip
    for point in result.get("channels", ()):
        console.print(f"  {point['condition']:<28} UA {point['ua']:.3f}  answers that change "
                      f"{point['changed']:.1%}", highlight=False)  # fmt: skip
    for key, meaning in (
        ("unknown_labels", "unknown label"),
        ("left_out", "label without a counterpart"),
        ("unreadable", "unreadable"),
    ):
        entries = result[key]
        if not entries:
            continue
        console.print(f"not scored, {meaning}: {len(entries)}", highlight=False)
        for entry in entries[:_LISTED]:
            reason = f": {entry['reason']}" if "reason" in entry else ""
            console.print(
                f"  line {entry['line']}: {entry['path']!r} '{entry['emotion']}'{reason}",
                highlight=False, markup=False,
            )  # fmt: skip
        if len(entries) > _LISTED:
            console.print(
                f"  ... and {len(entries) - _LISTED} more (all in --json)", highlight=False
            )


def _print_classes(result: dict[str, Any], console: Console) -> None:
    table = RichTable(show_edge=False, pad_edge=False)
    for column in ("emotion", "recall", "F1", "n", *(label[:3] for label in result["labels"])):
        table.add_column(column, justify="left" if column == "emotion" else "right")
    for label, row in zip(result["labels"], result["confusion"], strict=True):
        scores = result["per_class"][label]
        table.add_row(
            label, _number(scores["recall"]), _number(scores["f1"]), str(scores["support"]),
            *(str(count) for count in row),
        )  # fmt: skip
    console.print(table)


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def write_report(result: dict[str, Any], scored: Scored, path: Path) -> None:
    """One HTML page: confusion, reliability, coverage and, if there is one, the noise sweep."""
    tiles = [
        Tile(name, f"{result[key]:.3f}", "{:.3f} to {:.3f}".format(*result["intervals"][key]))
        for key, name in _NAMES.items()
    ]
    tiles.append(Tile("ECE", f"{result['ece']:.3f}", "15 bins"))
    tiles.append(Tile("clips/s", f"{result['clips_per_s']:.1f}"))
    sections = model_sections(scored.targets, scored.probabilities, scored.labels)
    if "snr_sweep" in result:
        sections.append(_sweep_section(result["snr_sweep"]))
    if "channels" in result:
        rows = [[p["condition"], p["ua"], f"{p['changed']:.1%}"] for p in result["channels"]]
        table = Table("By channel", ["condition", "UA", "answers that change"], rows)
        sections.append(Section("Level, line and silence", [table]))
    sections.append(_groups_section(result))
    counts = result["counts"]
    notices = [
        f"{counts[key]} rows were not scored: {meaning}."
        for key, meaning in (
            ("unknown_labels", "unknown label"),
            ("left_out", "label without a counterpart"),
            ("unreadable", "unreadable file or empty row"),
        )
        if counts[key]
    ]
    write_page(
        path,
        title=f"Evaluation of {result['model_id']}",
        subtitle=f"{result['manifest']}, modality {result['modality']}, {result['n']} rows; "
        f"chance UA {result['chance']:.3f}, majority WA {result['majority']:.3f}; intervals 95 % over "
        f"{result['intervals_over']}",
        tiles=tiles,
        sections=sections,
        notices=notices,
    )


def _sweep_section(points: list[dict[str, Any]]) -> Section:
    noisy = sorted((p for p in points if p["snr_db"] is not None), key=lambda p: p["snr_db"])
    x = [p["snr_db"] for p in noisy]
    curves = [
        svg.Series("UA", x, [p["ua"] for p in noisy]),
        svg.Series("weight of the voice", x, [p["audio_weight"] for p in noisy]),
        svg.Series("mean confidence", x, [p["mean_confidence"] for p in noisy]),
    ]
    rows = [
        ["clean" if p["snr_db"] is None else f"{p['snr_db']:g}", p["ua"], p["audio_weight"],
         p["mean_confidence"], p["abstained"]]
        for p in points
    ]  # fmt: skip
    return Section(
        "Noise",
        [
            Figure("UA and gate against noise", svg.lines(curves, "SNR, dB", "")),
            Table("By SNR", ["SNR, dB", "UA", "voice weight", "confidence", "abstained"], rows),
        ],
    )


def _groups_section(result: dict[str, Any]) -> Section:
    tables = [
        Table(f"UA by {name}", [name, "UA"], [[k, v] for k, v in result[f"by_{name}"].items()])
        for name in ("sex", "language", "speaker")
        if result[f"by_{name}"]
    ]
    return Section("Groups", tables)
