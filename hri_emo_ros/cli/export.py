# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo export BUNDLE``: write the graphs that ONNX Runtime executes, and compare them with torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from hri_emo_ros.errors import HriEmoError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "bundle", nargs="?", default="", help="model folder (default: the shipped one)"
    )
    parser.add_argument(
        "--int8", action="store_true",
        help="matrix products with 8-bit weights: faster and smaller in memory; compare the accuracy with "
        "`hri-emo evaluate`",
    )  # fmt: skip
    parser.add_argument(
        "--manifest", type=Path, metavar="FILE.csv",
        help="clips on which the graphs are compared with torch (default: the demo's)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 leaves one core free"
    )


def run(args: argparse.Namespace) -> int:
    from hri_emo_ros.data.manifest import demo_manifest, read_manifest
    from hri_emo_ros.evaluation.parity import TOLERANCE, compare_runtimes
    from hri_emo_ros.model.export import export_bundle

    manifest = args.manifest or demo_manifest()
    if manifest is None:
        raise HriEmoError("the demo's clips are not installed: name clips with --manifest")
    rows = read_manifest(manifest).strictly()
    written = export_bundle(args.bundle, args.int8)
    for file in written:
        print(f"{file} ({file.stat().st_size / 1000:.0f} kB)")
    found = compare_runtimes(args.bundle, rows, args.threads)
    print(
        f"against torch on {found.utterances} utterances: probabilities differ by at most "
        f"{found.probability:.1e}, the voice's weight by {found.weight:.1e}; {found.dominant} other "
        f"emotions, {found.abstentions} other abstentions"
    )
    if not args.int8 and (found.probability > TOLERANCE or found.abstentions):
        raise HriEmoError(
            f"the graphs differ from torch by more than {TOLERANCE:g}: use `model.runtime: torch`"
        )
    return 0
