# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo demo``: the demo recording through the real nodes, live table and picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import hri_emo_ros
from hri_emo_ros.parameters import ASR_BACKENDS

DEFAULT_SPEED = 1.25
"""Plays the 50 s of the demo recording in 40 s."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    recording = Path(hri_emo_ros.__file__).resolve().parent.parent / "demo" / "recording"
    parser.add_argument(
        "--recording", type=Path, default=recording, metavar="BAG", help="rosbag2 to play"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("hri_emo_demo.png"), metavar="FILE.png",
        help="picture to leave (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--speed", type=float, default=DEFAULT_SPEED, help="1 is real time (%(default)s)"
    )
    parser.add_argument("--bundle", default="", help="model bundle; empty is the shipped one")
    parser.add_argument(
        "--asr", default="auto", choices=ASR_BACKENDS, help="recogniser (%(default)s)"
    )
    parser.add_argument("--whisper-model", default="", metavar="DIR", help="faster-whisper folder")
    parser.add_argument(
        "--domain", type=int, default=None, help="ROS_DOMAIN_ID (default: a free one)"
    )
    parser.add_argument(
        "--single-process", action="store_true", help="all three nodes in one process"
    )


def run(args: argparse.Namespace) -> int:
    """Play, show, draw."""
    # Imported here: `hri-emo demo --help` must not need ROS.
    from hri_emo_ros.nodes.demo import Demo

    return Demo(
        recording=args.recording,
        picture=args.out,
        speed=args.speed,
        bundle=args.bundle,
        asr=args.asr,
        whisper_model=args.whisper_model,
        domain=args.domain,
        single_process=args.single_process,
        live=sys.stdout.isatty(),
    ).run()
