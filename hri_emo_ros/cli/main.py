# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo``: finds the command's module and runs it."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from hri_emo_ros import __version__
from hri_emo_ros.errors import HriEmoError

# Command -> one line for `hri-emo --help`. Each is a module of the same name here with
# `add_arguments(parser)` and `run(args) -> int`; it is imported only when it is asked for, since
# torch alone takes seconds.
COMMANDS = {
    "demo": "play the demo recording through the real nodes and show what they say",
    "file": "estimate the emotion of audio files",
    "listen": "estimate from the microphone, without ROS",
    "monitor": "watch a running graph",
    "explain": "draw which words and moments spoke for each emotion",
    "replay": "run a rosbag through the pipeline and report how well it did",
    "sweep": "replay a rosbag under noise, gain, telephone band or word errors",
    "tune": "search parameters on labelled recordings",
    "compare": "compare two replay or evaluation runs with paired intervals",
    "bag": "make a labelled rosbag from clips",
    "vad": "measure which speech is heard and which noise is taken for speech",
    "train": "train a model from a YAML configuration",
    "evaluate": "score a bundle on a manifest of clips and texts",
    "voices": "score how well voices are told apart on bags of clips",
    "runs": "compare training runs",
    "export": "write what ONNX Runtime executes into a model bundle",
    "doctor": "say whether the nodes would start here, and with what",
    "parameters": "print every node parameter with default, bounds and meaning",
    "bench": "measure speed and memory",
}


TRAINING = ("train", "export", "explain")
"""Commands that need torch."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2 for anything that the user can mend)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    wanted = next((a for a in arguments if not a.startswith("-")), "")
    try:
        return _run(wanted, arguments)
    except HriEmoError as error:
        print(f"hri-emo {wanted}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "hri_emo_ros"):
            raise
        file = "train.txt" if wanted in TRAINING else "evaluation.txt"
        print(
            f"hri-emo {wanted}: the Python package '{package}' is not installed, which this command needs: "
            f"run `pip install -r requirements/{file}`",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130


def _run(wanted: str, arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="hri-emo", description="Emotion from voice and words.")
    parser.add_argument("--version", action="version", version=f"hri-emo {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if name == wanted:
            module = importlib.import_module(f"hri_emo_ros.cli.{name}")
            module.add_arguments(subparser)
    args = parser.parse_args(arguments)
    return int(module.run(args))


if __name__ == "__main__":
    sys.exit(main())
