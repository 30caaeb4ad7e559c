# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo bench``: start and memory; latency of the running nodes; speed, cost and memory of a replay."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.parameters import load_parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--hours", type=float, default=0.5,
        help="length of the long recording (%(default)s; 8 takes about 1 GB of disk and 8 minutes)",
    )  # fmt: skip
    parser.add_argument(
        "--manifest", type=Path, metavar="FILE.csv", help="clips to make recordings of (the demo's)"
    )
    parser.add_argument("--bundle", default="", help="model, instead of the shipped one")
    parser.add_argument("--tmp", type=Path, metavar="DIR", help="where recordings are made")
    parser.add_argument(
        "--part", choices=("all", "start", "replay", "live", "streams", "encoders", "gpu"), default="all",
        help="start: how soon processes are there and what they hold; replay: speed and memory offline; "
        "live: latency of the running nodes; streams: one emotion_node for many microphones; encoders: WavLM and "
        "RoBERTa of the base size with random weights; gpu: one utterance on a CUDA device (%(default)s, without the "
        "last two)",
    )  # fmt: skip
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="of the parts start and encoders (ONNX Runtime and torch in turn) and live (nodes and reference in turn)",
    )
    parser.add_argument("--asr", default="", help="recogniser (asr.backend)")
    parser.add_argument(
        "--recipe", type=Path, default=Path("config/train/wavlm_roberta.yaml"), metavar="FILE.yaml",
        help="the part encoders takes the network of its last stage (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures; - prints them"
    )


def run(args: argparse.Namespace) -> int:
    """Measure; returns the exit status."""
    if not 0.001 <= args.hours <= 48.0:
        raise HriEmoError(f"--hours is {args.hours:g}, must be 0.001 to 48")
    if args.part == "gpu":
        from hri_emo_ros.evaluation.bench_gpu import measure

        report = measure(args.bundle)
        print(report.describe())
        if args.json is not None:
            from hri_emo_ros.data.json_files import write_json

            write_json(args.json, asdict(report))
        return 0
    chosen = {"model.bundle": args.bundle, "asr.backend": args.asr}
    parameters = load_parameters(None, [f"{k}:={v}" for k, v in chosen.items() if v])
    from hri_emo_ros.data.json_files import write_json
    from hri_emo_ros.data.manifest import demo_manifest
    from hri_emo_ros.evaluation.bench import bench, check_clips, machine

    manifest = args.manifest or demo_manifest()
    if manifest is None:
        raise HriEmoError("the demo's clips are not installed: name clips with --manifest")
    check_clips(manifest)
    if args.tmp is not None:
        try:
            args.tmp.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HriEmoError(f"--tmp {args.tmp} cannot be made: {error.strerror}") from error
    if not 1 <= args.rounds <= 100:
        raise HriEmoError(f"--rounds is {args.rounds}, must be 1 to 100")
    say = (lambda line: None) if str(args.json) == "-" else print
    result = {"machine": machine()}
    if args.part in ("all", "start"):
        # Needs ROS, which the offline part does without.
        from hri_emo_ros.evaluation.bench_start import bench_start

        result["start"] = bench_start(parameters, manifest, args.rounds, say)
    if args.part in ("all", "replay"):
        result |= bench(parameters, manifest, args.hours, args.tmp, say)
    if args.part in ("all", "live"):
        from hri_emo_ros.evaluation.bench_live import bench_live

        result["live"] = bench_live(parameters, manifest, args.rounds, args.tmp, say)
    if args.part in ("all", "streams"):
        from hri_emo_ros.evaluation.bench_streams import bench_streams

        result["streams"] = bench_streams(parameters, manifest, args.tmp, say)
    if args.part == "encoders":
        from hri_emo_ros.cli.dry_run import random_network
        from hri_emo_ros.evaluation.bench_encoders import bench_encoders
        from hri_emo_ros.training.recipe import load_recipes

        network = random_network(load_recipes(args.recipe)[-1].model)
        result["encoders"] = bench_encoders(
            network, parameters, manifest, args.rounds, args.tmp, say
        )
    if args.json is not None:
        write_json(args.json, result)
    return 0
