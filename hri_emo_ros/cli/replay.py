# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo replay``: a rosbag through the pipeline, and how well it did."""

from __future__ import annotations

import argparse
from pathlib import Path

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.fleet import Fleet, add_fleet_arguments
from hri_emo_ros.evaluation.labels import recordings
from hri_emo_ros.parameters import ASR_BACKENDS, Value, load_parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "bags", type=Path, nargs="+", metavar="BAG",
        help="rosbag2 folder, or one .mcap or .db3 file; several make one report over all",
    )  # fmt: skip
    add_pipeline_arguments(parser)
    parser.add_argument(
        "--out", type=Path, metavar="DIR",
        help="write report.html, report.json, bag/, all with provisional states; of several also a folder for each",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures; - prints them"
    )
    parser.add_argument(
        "--ablate", action="store_true",
        help="where the loss comes from: true or recognised words, true or found boundaries, voice "
        "and words alone",
    )  # fmt: skip
    add_fleet_arguments(parser, "the recordings")
    live = parser.add_argument_group("over DDS")
    live.add_argument(
        "--live", action="store_true", help="start the real nodes and play the bag to them"
    )
    live.add_argument(
        "--speed", type=float, default=1.0, help="of --live, x real time (%(default)s)"
    )


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that replays."""
    parser.add_argument(
        "--labels", type=Path, action="append", default=[], metavar="FILE.csv",
        help="start,end,emotion[,speaker,text], s from the bag's start (else: /emotion_labels); repeats, one for "
        "each bag",
    )  # fmt: skip
    parser.add_argument(
        "--label-topic", default="", help="annotation topic: std_msgs/String of JSON"
    )
    parser.add_argument("--topic", default="", help="audio topic, where the bag has several")
    parser.add_argument("--params", type=Path, metavar="FILE.yaml", help="ROS parameter file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME:=VALUE", help="one parameter; repeats"
    )
    parser.add_argument("--bundle", default="", help="model, instead of model.bundle")
    parser.add_argument(
        "--asr", default="", choices=("", *ASR_BACKENDS),
        help="recogniser, instead of asr.backend",
    )  # fmt: skip


def pipeline_parameters(args: argparse.Namespace) -> dict[str, dict[str, Value]]:
    """Parameter file and overrides of `add_pipeline_arguments`."""
    overrides = list(args.set)
    if args.bundle:
        overrides.append(f"model.bundle:={args.bundle}")
    if args.asr:
        overrides.append(f"asr.backend:={args.asr}")
    return load_parameters(args.params, overrides)


def run(args: argparse.Namespace) -> int:
    """Replay; returns the exit status."""
    if args.live and args.ablate:
        raise HriEmoError("--ablate takes the pipeline apart and cannot be had with --live")
    several = recordings(args.bags, args.labels)
    if len(several) > 1 and (args.live or args.ablate):
        option = "--live" if args.live else "--ablate"
        raise HriEmoError(f"{option} takes one recording, not {len(several)}")
    parameters = pipeline_parameters(args)
    # Here, so that --help and a wrong parameter do not wait for the model's libraries.
    from hri_emo_ros.evaluation.replay_outputs import finish, replay_many, replay_offline

    bag, labels = several[0].bag, several[0].labels
    if args.live:
        from hri_emo_ros.evaluation.live import replay_live

        result = replay_live(
            parameters, bag, topic=args.topic, labels=labels,
            label_topic=args.label_topic, speed=args.speed, out=args.out,
        )  # fmt: skip
    elif len(several) > 1 or args.scheduler:
        with Fleet(args.workers, args.scheduler) as fleet:
            result = replay_many(parameters, several, args.topic, args.label_topic, args.out, fleet)
    else:
        result = replay_offline(
            parameters, bag, topic=args.topic, labels=labels,
            label_topic=args.label_topic, out=args.out, ablate=args.ablate,
        )  # fmt: skip
    finish(result, args.out, args.json)
    return 0
