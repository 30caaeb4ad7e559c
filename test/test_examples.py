# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Each example does what it says."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy")

from ros_playing import Heard, clips, play

from hri_emo_msgs.action import ListenOnce
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.nodes.graph import Graph

pytestmark = [pytest.mark.ros, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
DATA = ROOT / "test" / "data"


@contextmanager
def running(graph: Graph, folder: Path, name: str, *arguments: str) -> Iterator[Any]:
    """The example as a process beside the graph; yields what it has printed so far."""
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(graph.domain_id),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
    }
    file = folder / "output.txt"
    with file.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / name), *arguments],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield file.read_text
    finally:
        process.terminate()
        process.wait(30.0)


def test_the_planner_acts_on_final_states(graph: Graph, heard: Heard, tmp_path: Path) -> None:
    play(graph, clips("emodb_10a07Ta", gap=1.0))
    assert graph.spin_until(lambda: heard.finals)
    # It starts late and hears the last state all the same.
    with running(graph, tmp_path, "planner.py") as printed:
        assert graph.spin_until(printed)
        state = heard.finals[0]
        expected = "wait: " if state.abstained else ("comfort", "go on: " + state.dominant)
        assert printed().startswith(expected), printed()


def test_the_behaviour_asks_and_listens_once(graph: Graph, heard: Heard, tmp_path: Path) -> None:
    with running(graph, tmp_path, "behaviour.py", "60") as printed:
        assert graph.spin_until(lambda: "How are you?" in printed()), printed()
        play(graph, clips("emodb_10a07Ta", gap=1.0))
        assert graph.spin_until(lambda: len(printed().splitlines()) == 2), printed()
    answer = printed().splitlines()[1]
    (state,) = heard.finals
    assert answer == f"{'FAILURE' if state.abstained else 'SUCCESS'} {state.dominant}"


def test_the_behaviour_fails_where_nobody_speaks(graph: Graph, tmp_path: Path) -> None:
    with running(graph, tmp_path, "behaviour.py", "0.2") as printed:
        assert graph.spin_until(lambda: len(printed().splitlines()) == 2), printed()
    assert printed().splitlines()[1] == "FAILURE nobody spoke"


def test_the_behaviour_tree_uses_the_actions_own_names() -> None:
    tree = ET.parse(EXAMPLES / "behaviour.xml").getroot()
    (leaf,) = tree.iter("ListenOnce")
    goal = ListenOnce.Goal.get_fields_and_field_types()
    state = ListenOnce.Result().state.get_fields_and_field_types()
    assert leaf.attrib["action_name"] == "listen_once"
    assert set(leaf.attrib) - {"action_name"} <= set(goal) | set(state)
    ids = {t.attrib["ID"] for t in tree.iter("BehaviorTree")}
    assert tree.attrib["main_tree_to_execute"] in ids


def test_a_recording_is_evaluated_in_ten_lines(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        f"path,emotion\n{DATA}/emodb_11a02Wc.flac,angry\n{DATA}/emodb_10a07Ta.flac,sad\n"
    )
    make_bag(BagRecipe(manifest, noise="pink", snr_db=30.0), tmp_path / "bag")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "evaluate_bag.py"), str(tmp_path / "bag")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *heard, figures = done.stdout.splitlines()
    assert len(heard) == 2
    assert "'final_states': 2" in figures
    assert "'ua': " in figures
