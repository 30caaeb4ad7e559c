# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo compare``: paired differences of two runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    about = "folder of 'replay --out', or JSON of replay or evaluate"
    parser.add_argument("first", type=Path, metavar="RUN_A", help=about)
    parser.add_argument("second", type=Path, metavar="RUN_B", help=about)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures; - prints them"
    )


def run(args: argparse.Namespace) -> int:
    """Compare; returns the exit status."""
    from hri_emo_ros.data.json_files import write_json
    from hri_emo_ros.evaluation.compare import compare_runs, load_run
    from hri_emo_ros.evaluation.report import shown

    result = compare_runs(load_run(args.first), load_run(args.second))
    if args.json is not None:
        write_json(args.json, result)
    if str(args.json) == "-":
        return 0
    table = Table(title=f"A: {result['first']}\nB: {result['second']}", title_justify="left")
    for column in ("", "A", "B", "B - A", "95 % interval"):
        table.add_column(column, justify="right" if column else "left")
    for name, figure in result["figures"].items():
        difference = figure["difference"]
        interval = f"{shown(difference['low'])} to {shown(difference['high'])}"
        table.add_row(
            name, shown(figure["first"]), shown(figure["second"]), shown(difference["value"]),
            interval,
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(
        f"{result['items']} labelled utterances in both, intervals over {result['intervals_over']}; "
        f"only A right: {result['only_first_right']}, only B right: {result['only_second_right']} "
        f"(McNemar p = {result['p_value']:.3g})",
        highlight=False,
    )
    left_out = result["only_in_first"] + result["only_in_second"]
    if left_out:
        console.print(f"{left_out} are in one run only and were left out", highlight=False)
    return 0
