# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo bag make``: a labelled rosbag from clips."""

from __future__ import annotations

import argparse
from pathlib import Path

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_make import MESSAGES, BagRecipe, make_bag
from hri_emo_ros.evaluation.bag_writer import STORAGES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    commands = parser.add_subparsers(dest="bag_command", required=True, metavar="make")
    make = commands.add_parser("make", help="write a labelled rosbag2 and OUT/labels.csv")
    make.add_argument(
        "--manifest", type=Path, required=True, metavar="FILE.csv",
        help="path,emotion[,speaker,text,start,end]; paths are relative to the file",
    )  # fmt: skip
    make.add_argument(
        "--gap", default="0.5:2.0", metavar="MIN:MAX", help="silence before clips, s (%(default)s)"
    )
    make.add_argument(
        "--noise", default="", metavar="DIR", help="noise folder or file, or white or pink"
    )
    make.add_argument("--snr", type=float, default=20.0, help="speech over noise, dB (%(default)s)")
    make.add_argument(
        "--burst", default="", metavar="BEGIN:END:SNR",
        help="from BEGIN to END, s, the noise is at this SNR instead, dB",
    )  # fmt: skip
    make.add_argument(
        "--message", default="AudioDataStamped", choices=list(MESSAGES),
        help="AudioStamped is that of mgonzs13's audio_common (%(default)s)",
    )  # fmt: skip
    make.add_argument("--chunk-ms", type=float, default=20.0, help="per message (%(default)s)")
    make.add_argument("--rate", type=int, default=16_000, help="Hz (%(default)s)")
    make.add_argument("--channels", type=int, default=1, help="(%(default)s)")
    make.add_argument(
        "--level", type=float, default=None, metavar="DBFS",
        help="bring every clip's speech to this level, e.g. -26; else clips stay as they are",
    )  # fmt: skip
    make.add_argument("--topic", default="/audio", help="(%(default)s)")
    make.add_argument("--storage", default="mcap", choices=list(STORAGES), help="(%(default)s)")
    make.add_argument("--repeat", type=int, default=1, help="times through the manifest")
    make.add_argument("--shuffle", action="store_true", help="draw the order of the clips")
    make.add_argument("--seed", type=int, default=0, help="of gaps, order and noise (%(default)s)")
    make.add_argument("out", type=Path, metavar="OUT", help="folder of the bag; must not exist")


def run(args: argparse.Namespace) -> int:
    """Make the bag; returns the exit status."""
    try:
        low, high = (float(part) for part in args.gap.split(":"))
    except ValueError as error:
        raise HriEmoError(f"--gap '{args.gap}' must be MIN:MAX seconds, e.g. 0.5:2.0") from error
    burst = None
    if args.burst:
        try:
            begin, end, snr = (float(part) for part in args.burst.split(":"))
        except ValueError as error:
            raise HriEmoError(
                f"--burst '{args.burst}' must be BEGIN:END:SNR, e.g. 30:40:0"
            ) from error
        burst = (begin, end, snr)
    recipe = BagRecipe(
        manifest=args.manifest, gap=(low, high), noise=args.noise, snr_db=args.snr,
        burst=burst,
        message=args.message, chunk_ms=args.chunk_ms, rate=args.rate, channels=args.channels,
        level_dbfs=args.level, seed=args.seed, storage=args.storage, topic=args.topic,
        repeat=args.repeat, shuffle=args.shuffle,
    )  # fmt: skip
    labels = make_bag(recipe, args.out)
    print(
        f"{args.out}: {len(labels)} labelled stretches, {labels[-1].end:.1f} s; labels.csv beside"
    )
    return 0
