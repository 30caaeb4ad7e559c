# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo tune``: search the YAML's parameters on labelled recordings."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from hri_emo_ros.cli.replay import pipeline_parameters
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import ASR_BACKENDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bags", type=Path, nargs="+", metavar="BAG", help="labelled rosbag2")
    parser.add_argument(
        "--labels", type=Path, action="append", default=[], metavar="FILE.csv",
        help="one for each bag, in order; repeats (else: labels.csv in the bag, or /emotion_labels)",
    )  # fmt: skip
    parser.add_argument(
        "--parameters", required=True, metavar="NAME,...",
        help="what to search, e.g. vad.threshold,final.hold=0.2:3 (ranges: the declared bounds)",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, default=40, help="(%(default)s)")
    parser.add_argument(
        "--metric", default="ua", choices=("ua", "wa", "macro_f1", "weighted_f1"),
        help="(%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--waiting-cost", type=float, default=0.02, metavar="PER_SECOND",
        help="of the metric for a second from the end of speech to the state (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of speakers and search (%(default)s)")
    parser.add_argument(
        "--storage", default="", metavar="FILE|URL",
        help="search together with every other process that names the same (and begins alike): a file that all "
        "reach, or the URL of a database as Optuna takes it; --trials counts those of all",
    )  # fmt: skip
    parser.add_argument("--params", type=Path, metavar="FILE.yaml", help="parameters to start from")
    parser.add_argument("--set", action="append", default=[], metavar="NAME:=VALUE")
    parser.add_argument("--bundle", default="", help="model, instead of model.bundle")
    parser.add_argument("--asr", default="", choices=("", *ASR_BACKENDS))
    parser.add_argument(
        "--out", type=Path, default=Path("tuned.yaml"), metavar="FILE.yaml", help="(%(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Tune; returns the exit status."""
    if args.trials < 1:
        raise HriEmoError(f"--trials is {args.trials}, must be at least 1")
    parameters = pipeline_parameters(args)
    from hri_emo_ros.evaluation.bags import AudioBag
    from hri_emo_ros.evaluation.labels import recordings
    from hri_emo_ros.evaluation.replay import Replayer
    from hri_emo_ros.evaluation.tune import Tuner, write_yaml
    from hri_emo_ros.evaluation.tune_choices import parse_choices

    choices = parse_choices(args.parameters)
    for bag in args.bags:
        AudioBag(bag).close()
    labelled = [
        replace(recording, labels=recording.labels or _beside(recording.bag))
        for recording in recordings(args.bags, args.labels)
    ]
    tuner = Tuner(
        Replayer(parameters), labelled, choices, args.metric, args.waiting_cost, args.storage,
        seed=args.seed,
    )  # fmt: skip
    print(
        f"tuning on {', '.join(tuner.tune_speakers)}; testing on {', '.join(tuner.test_speakers)}"
    )
    result = tuner.run(
        args.trials,
        lambda number, score, best: print(f"{number:4d}  {score:.4f}  best {best:.4f}", flush=True),
    )
    for name, value in result.best.items():
        print(f"{name}: {result.before[name]} -> {value}")
    print(
        f"{result.metric} of other speakers: {result.test_before:.3f} -> {result.test_after:.3f}, "
        f"difference 95 %: {result.difference.low:.3f} to {result.difference.high:.3f}"
    )
    write_yaml(args.out, result)
    print(args.out)
    return 0


def _beside(bag: Path) -> Path | None:
    """labels.csv in the bag's folder, as ``hri-emo bag make`` writes it."""
    path = bag / "labels.csv"
    return path if path.exists() else None
