# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo sweep``: metrics and weights of a recording against noise, gain, rate, codec, word errors."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from hri_emo_ros.cli.replay import add_pipeline_arguments, pipeline_parameters
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.fleet import Fleet, add_fleet_arguments
from hri_emo_ros.evaluation.labels import recordings

_MOST_VALUES = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    # Lets "--snr -5:30:5" be a value: argparse knows single negative numbers only.
    parser._negative_number_matcher = re.compile(r"^-[\d.]")
    parser.add_argument(
        "bags",
        type=Path,
        nargs="+",
        metavar="BAG",
        help="rosbag2 folder, or one .mcap or .db3 file",
    )
    add_pipeline_arguments(parser)
    add_fleet_arguments(parser, "recordings and conditions")
    values = "FROM:TO:STEP or A,B,C"
    parser.add_argument("--noise", default="", metavar="DIR", help="folder, file, white or pink")
    parser.add_argument("--snr", metavar="DB", help=f"speech over noise, dB: {values}")
    parser.add_argument("--gain", metavar="DB", help=f"gain, dB: {values}")
    parser.add_argument("--rate", metavar="HZ", help="sample rates, Hz: 8000,16000,44100")
    parser.add_argument("--codec", choices=("telephone",), help="8 kHz telephone line")
    parser.add_argument("--wer", metavar="SHARE", help=f"share of the true words wrong: {values}")
    parser.add_argument("--seed", type=int, default=0, help="of noise and word errors")
    parser.add_argument(
        "--out", type=Path, default=Path("sweep"), metavar="DIR",
        help="sweep.csv and sweep.png go there (%(default)s)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Sweep; returns the exit status."""
    wanted = [
        (name, value)
        for name in ("snr", "gain", "rate", "wer")
        for value in numbers(getattr(args, name), f"--{name}")
    ]
    if args.codec:
        wanted.append(("codec", args.codec))
    if not wanted:
        raise HriEmoError("nothing to sweep: give --snr, --gain, --rate, --codec or --wer")
    _check(wanted)
    several = recordings(args.bags, args.labels)
    parameters = pipeline_parameters(args)
    from hri_emo_ros.data.noise import NoiseSource
    from hri_emo_ros.evaluation.bags import AudioBag
    from hri_emo_ros.evaluation.sweep import Condition, plot, sweep, write_csv

    for recording in several:
        AudioBag(recording.bag, args.topic).close()
    if args.noise:
        NoiseSource(args.noise, 16_000)
    conditions = [Condition(name, value) for name, value in wanted]
    with Fleet(args.workers, args.scheduler) as fleet:
        rows = sweep(
            parameters, several, conditions, args.topic, args.noise, args.seed, fleet, _print_row
        )
    args.out.mkdir(parents=True, exist_ok=True)
    write_csv(args.out / "sweep.csv", rows)
    what = several[0].bag.name if len(several) == 1 else f"{len(several)} recordings"
    plot(args.out / "sweep.png", rows, f"{what}: under disturbance")
    print(f"{args.out / 'sweep.csv'}, {args.out / 'sweep.png'}")
    return 0


def numbers(text: str | None, name: str) -> list[float]:
    """``-5:30:5`` or ``1,2,3`` as numbers, the end included; an empty list for None.

    Raises:
        HriEmoError: it is neither, or more than 200 values.
    """
    if text is None:
        return []
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            count = int((last - first) / step + 1e-9) + 1
            if not 1 <= count <= _MOST_VALUES:
                raise HriEmoError(f"{name} {text} is {count} values, must be 1 to {_MOST_VALUES}")
            return [round(first + i * step, 9) for i in range(count)]
        return [float(part) for part in text.split(",")]
    except (ValueError, ZeroDivisionError) as error:
        raise HriEmoError(f"{name} '{text}' must be FROM:TO:STEP or A,B,C") from error


def _check(wanted: list[tuple[str, Any]]) -> None:
    bounds = {"snr": (-40, 80), "gain": (-80, 80), "rate": (4000, 192000), "wer": (0, 1)}
    for name, value in wanted:
        low, high = bounds.get(name, (value, value))
        if not low <= value <= high:
            raise HriEmoError(f"--{name} has the value {value:g}, must be {low} to {high}")


def _print_row(row: dict[str, Any]) -> None:
    def shown(name: str) -> str:
        return "-" if row[name] is None else f"{row[name]:.3f}"

    print(
        f"{row['disturbance']:>6} {row['value']!s:>9}  UA {shown('ua')}  F1 {shown('macro_f1')}  "
        f"missed {row['missed']}  abstained {row['abstained']}  voice {shown('audio_weight')}  "
        f"WER {shown('wer')}",
        flush=True,
    )
