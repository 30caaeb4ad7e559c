# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo voices --manifest FILE.csv``: how well voices are told apart."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from hri_emo_ros.errors import HriEmoError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--manifest", required=True, nargs="+", type=Path, metavar="FILE.csv",
        help="as of evaluate, with the column speaker; the voices of a bag are of one",
    )  # fmt: skip
    parser.add_argument(
        "--voices", type=_numbers, default=(1, 2, 3, 4), metavar="N,N,...",
        help="speakers in a bag (default: 1,2,3,4)",
    )  # fmt: skip
    parser.add_argument("--bags", type=int, default=10, help="of each kind (%(default)s)")
    parser.add_argument("--turns", type=int, default=14, help="of each speaker (%(default)s)")
    parser.add_argument("--snr", type=float, metavar="DB", help="add noise at this level")
    parser.add_argument("--noise", default="pink", help="pink, white, babble or a folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--space", type=Path, metavar="FILE.safetensors",
        help="compare in this one: the package's own was fitted on speakers of EmoDB, BanglaSER and "
        "CREMA-D (tools/speaker_space.py --without)",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write all figures there")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def run(args: argparse.Namespace) -> int:
    from hri_emo_ros.evaluation.voices import evaluate_voices
    from hri_emo_ros.voices.clusters import load_space

    for name, numbers in (
        ("--voices", args.voices),
        ("--bags", [args.bags]),
        ("--turns", [args.turns]),
    ):
        if min(numbers) < 1:
            raise HriEmoError(f"{name} is {min(numbers)}, must be at least 1")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("listening", total=None)
        result = evaluate_voices(
            args.manifest, args.voices, args.bags, args.turns, args.snr, args.noise, args.seed,
            load_space(args.space) if args.space else None, lambda: progress.advance(task),
        )  # fmt: skip
    Console().print(_table(result))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


def _table(result: dict[str, Any]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for name in ("", "scored", "wrong voice", "95 %", "unsure", "voices found", "invented / 40"):
        table.add_column(name, justify="right" if name else "left")
    rows = {"all": result, **result["by_manifest"]}
    rows |= {f"{count} voices": figures for count, figures in result["by_speakers"].items()}
    for name, value in {**rows, **result["by_sex"]}.items():
        low, high = value["wrong_interval"]
        found = (
            f"{value['voices_found']:.1f} of {value['speakers']:.1f}" if "speakers" in value else ""
        )
        invented = f"{value['invented_per_40']:.2f}" if "speakers" in value else ""
        table.add_row(
            name, str(value["scored"]), f"{value['wrong']:.3f}", f"{low:.3f}-{high:.3f}",
            f"{value['unsure']:.3f}", found, invented,
        )  # fmt: skip
    return table
