# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo monitor``: a live view of a running graph."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--namespace", default="", help="of the nodes")
    parser.add_argument("--topic", default="emotion_state", help="(%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=0.0, help="stop after so long; 0 goes on until Ctrl-C"
    )
    parser.add_argument(
        "--web",
        default="",
        metavar="[HOST:]PORT",
        help="serve it as a page, too: on this machine, or at HOST for others (0.0.0.0 for all); "
        "0 takes a free port; needs tornado",
    )


def run(args: argparse.Namespace) -> int:
    """Watch until Ctrl-C."""
    # Imported here: `hri-emo monitor --help` must not need ROS.
    from hri_emo_ros.nodes.monitor import watch

    return watch(args.namespace, args.topic, args.seconds, args.web)
