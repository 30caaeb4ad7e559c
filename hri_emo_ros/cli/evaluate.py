# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo evaluate --bundle DIR --manifest FILE.csv``."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from hri_emo_ros.evaluation.fleet import Fleet, add_fleet_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", default="", help="model folder (default: the shipped one)")
    parser.add_argument(
        "--manifest", required=True,
        help="CSV with the columns path (relative to it, may be empty) and emotion; optionally text, "
        "speaker, sex, language, seconds (of the clip that are heard), conversation and turn (what was said "
        "before is given as context)",
    )  # fmt: skip
    parser.add_argument("--modality", choices=("audio", "text", "both"), default="both")
    parser.add_argument("--json", help="write all figures there")
    parser.add_argument("--out", help="folder for report.html")
    parser.add_argument(
        "--sweep-snr", type=_levels, default=(), metavar="DB,DB,...",
        help="also score the clips in noise at these levels, for example 20,10,5,0,-5",
    )  # fmt: skip
    parser.add_argument(
        "--noise", default="pink",
        help="for --sweep-snr: pink, white, babble (six of the manifest's clips at once) or a folder",
    )  # fmt: skip
    parser.add_argument(
        "--channels", action="store_true",
        help="also score the clips at other levels, through a telephone and amid silence",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", default="", metavar="N[,N...]",
        help="judge each voice against N other clips of its speaker, drawn at random, or against all; the "
        "figures are those of the first N, by_baseline in --json holds all",
    )  # fmt: skip
    parser.add_argument(
        "--room", default="0", metavar="M",
        help="with --baseline: and against M clips of the manifest's other speakers, or all (default 0)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline-neutral", default="0.7", metavar="SHARE",
        help="share of neutral ones among these clips; all takes all other clips (default 0.7)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument(
        "--in-order", action="store_true",
        help="go through the file as one conversation: voices are told and remembered as the node does it",
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 leaves one core free"
    )
    add_fleet_arguments(parser, "the clips")


def _levels(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def run(args: argparse.Namespace) -> int:
    from hri_emo_ros.data.json_files import write_json
    from hri_emo_ros.evaluation.evaluate import evaluate
    from hri_emo_ros.evaluation.evaluate_report import print_result, write_report
    from hri_emo_ros.evaluation.known_voices import knowledge

    counts = args.baseline.split(",") if args.baseline else []
    if not counts and args.room != "0":
        counts = ["0"]
    known = knowledge(counts, args.room, args.baseline_neutral, args.seed)
    console = Console()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("estimating", total=None)
        with Fleet(args.workers, args.scheduler) as fleet:
            result, scored = evaluate(
                args.bundle, args.manifest, args.modality, args.sweep_snr, args.noise, args.channels,
                args.device, args.threads, lambda rows: progress.advance(task, rows), known, args.in_order,
                fleet,
            )  # fmt: skip
    print_result(result, console)
    if args.json:
        write_json(Path(args.json), result)
    if args.out:
        report = Path(args.out) / "report.html"
        write_report(result, scored, report)
        console.print(f"report: {report}", highlight=False)
    return 0
