"""``hri-emo parameters``: every node parameter with default, bounds and meaning."""

from __future__ import annotations

import argparse

from hri_emo_ros.parameters import NODES, markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("node", nargs="?", choices=list(NODES), help="only this node")


def run(args: argparse.Namespace) -> int:
    """Print Markdown tables."""
    nodes = [args.node] if args.node else list(NODES)
    print("\n\n".join(f"### {node}\n\n{markdown(node)}" for node in nodes))
    return 0
