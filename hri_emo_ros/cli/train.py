# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo train CONFIG.yaml``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="training YAML, for example config/train/compact.yaml")
    parser.add_argument(
        "--data-root", help="folder of the corpora (default: $HRI_EMO_DATA, else .)"
    )
    parser.add_argument("--out", default="runs", help="folder of runs (default: runs)")
    parser.add_argument("--stage", help="train this stage only")
    parser.add_argument("--fold", type=int, help="validation fold; the same as --set data.fold=K")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="lay a value over the configuration, for example optim.epochs=5; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run-random", action="store_true",
        help="one training step with randomly initialised encoders of the real size: prints time "
        "and memory, needs no data and no download",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from hri_emo_ros.cli.allocator import tune_allocator
    from hri_emo_ros.training.recipe import load_recipes, pick_stages

    tune_allocator()
    overrides = list(args.overrides)
    if args.fold is not None:
        overrides.append(f"data.fold={args.fold}")
    recipes = load_recipes(args.config, overrides)
    chosen = pick_stages(recipes, args.stage)
    console = Console()
    if args.dry_run_random:
        from hri_emo_ros.cli.dry_run import dry_run

        for recipe in chosen:
            console.print(dry_run(recipe).describe(), highlight=False)
        return 0
    from hri_emo_ros.training.items import data_root
    from hri_emo_ros.training.stages import run_folder, train

    out = Path(args.out)
    train(recipes, data_root(args.data_root), out, args.resume, console, args.stage)
    for recipe in chosen if os.environ.get("RANK", "0") == "0" else ():
        console.print(f"bundle: {run_folder(recipe, out) / 'bundle'}", highlight=False)
    return 0
