# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo parameters``: every node parameter with default, bounds and meaning."""

from __future__ import annotations

import argparse

from hri_emo_ros.parameters import NODES, markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("node", nargs="?", choices=list(NODES), help="only this node")


def run(args: argparse.Namespace) -> int:
    """Print the page docs/parameters.md, or one node's table."""
    print(f"## {args.node}\n\n{markdown(args.node)}" if args.node else page())
    return 0


def page() -> str:
    """All of docs/parameters.md."""
    tables = (f"## {node}\n\n{markdown(node)}" for node in NODES)
    return "\n\n".join(["# Parameters", *tables])
