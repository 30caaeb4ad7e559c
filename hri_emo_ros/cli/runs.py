# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo runs``: compare training runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--name", default="", help="only runs whose name contains this")
    parser.add_argument("--figure", default="ua", help="figure to plot (default: ua)")
    parser.add_argument("--plot", help="draw the figure against epochs into this PNG")


def run(args: argparse.Namespace) -> int:
    from hri_emo_ros.errors import HriEmoError
    from hri_emo_ros.evaluation.runs import FIGURES, find_runs, plot

    if args.figure not in FIGURES:
        raise HriEmoError(f"--figure is '{args.figure}', must be one of: {', '.join(FIGURES)}")
    runs = find_runs(Path(args.folder), args.name)
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("run", overflow="fold")
    for column in ("steps", "min"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("corpus")
    for column in ("UA", "macro F1", "weighted F1", "ECE"):
        table.add_column(column, justify="right", no_wrap=True)
    for r in runs:
        first = (r.name, str(r.metrics["steps"]), f"{r.metrics['seconds'] / 60:.1f}")
        for corpus in r.corpora or [""]:
            values = (r.figure(corpus, f) for f in ("ua", "macro_f1", "weighted_f1", "ece"))
            table.add_row(*first, corpus, *("-" if v is None else f"{v:.3f}" for v in values))
            first = ("", "", "")
    console = Console()
    console.print(table)
    if args.plot:
        plot(runs, args.figure, Path(args.plot))
        console.print(f"plot: {args.plot}", highlight=False)
    return 0
