# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo explain``: draw which words and moments spoke for each emotion."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("clip", metavar="CLIP", type=Path, help="WAV, FLAC or Ogg file")
    parser.add_argument(
        "--text", help="what is said in it; '' explains the voice alone (default: recognise it)"
    )
    parser.add_argument(
        "--out", metavar="FILE.png", type=Path, required=True, help="picture to write"
    )
    parser.add_argument("--bundle", default="", help="model bundle (default: the shipped one)")
    parser.add_argument("--params", metavar="FILE.yaml", type=Path,
                        help="node parameters, for the recogniser and the abstention")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from hri_emo_ros.asr import make_recogniser
    from hri_emo_ros.audio.files import read_audio
    from hri_emo_ros.audio.quality import measure_quality
    from hri_emo_ros.engine import make_engine
    from hri_emo_ros.model.figure import draw_explanation
    from hri_emo_ros.parameters import load_parameters
    from hri_emo_ros.types import Transcript

    parameters = load_parameters(args.params)
    emotion = parameters["emotion_node"]
    samples = read_audio(args.clip, int(parameters["speech_node"]["audio.channel"]))
    if args.bundle:
        emotion["model.bundle"] = args.bundle
    emotion["model.runtime"] = "torch"  # explaining needs its gradients
    engine = make_engine(emotion)
    if args.text is not None:
        transcript = Transcript(args.text)
    else:
        recogniser = make_recogniser(parameters["asr_node"])
        quality = measure_quality(samples)
        transcript = recogniser.transcribe(samples, quality) if recogniser else Transcript("")
    estimate = engine.estimate(samples, transcript, explain=True)
    draw_explanation(estimate, samples, args.out)
    top = float(estimate.probabilities.max())
    print(f"{args.clip}: {estimate.dominant} {top:.2f} -> {args.out}")
    return 0
