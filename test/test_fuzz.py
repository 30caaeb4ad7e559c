# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""A short run of `make fuzz`: random and mutated input is refused in a sentence or worked with, never more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from fuzzing import fuzz_bags, fuzz_bundles, fuzz_messages, fuzz_parameters

from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.nodes.graph import free_domain

# Each in a domain of its own: nodes of the one before may still be seen.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.ros
@pytest.mark.fault(
    "format", "random and mutated audio messages, AudioInfo and robot_speaking over DDS",
    does="decode or refuse each; fill in, cut and count", shows="sound states; a good utterance afterwards as ever",
)  # fmt: skip
def test_no_message_breaks_the_nodes(tiny_bundle: Path) -> None:
    counted = fuzz_messages(2000, 1, tiny_bundle, free_domain())
    assert counted["messages"] == 2000
    assert counted["states"] > 0


@pytest.mark.ros
@pytest.mark.fault(
    "node", "random sets of parameters, given at once to nodes at work",
    does="take all or none", shows="one sentence for each refused set; a good utterance afterwards as ever",
)  # fmt: skip
def test_no_set_of_parameters_breaks_the_nodes(tiny_bundle: Path) -> None:
    counted = fuzz_parameters(100, 1, tiny_bundle, free_domain())
    assert min(counted["taken"], counted["refused"]) > 0


def bags(folder: Path) -> list[Path]:
    """Small recordings of each kind."""
    clips = folder / "clips.csv"
    voice = Path(__file__).parent / "data" / "emodb_10a07Ta.flac"
    clips.write_text(f"path,emotion\n{voice},neutral\n")
    recipe = BagRecipe(clips, gap=(0.1, 0.2), noise="pink", snr_db=30.0, level_dbfs=-26.0)
    found = []
    for storage in ("mcap", "sqlite3"):
        for message in ("AudioDataStamped", "AudioStamped"):
            made = folder / f"{storage}_{message}"
            make_bag(replace(recipe, storage=storage, message=message), made)
            found += [p for p in made.iterdir() if p.suffix in (".mcap", ".db3")]
    return found


@pytest.mark.fault(
    "recording", "mutated recordings: bytes flipped, cut, overwritten, doubled, put in",
    does="read what can be read", shows="samples, where the bag breaks off, or one sentence",
)  # fmt: skip
def test_no_recording_breaks_the_reader(tmp_path: Path) -> None:
    counted = fuzz_bags(100, 1, bags(tmp_path), tmp_path)
    assert min(counted["whole"], counted["broken off"], counted["refused"]) > 0, counted


@pytest.mark.fault(
    "trust", "mutated bundles, half of them with an identity that fits",
    does="refuse them, or estimate soundly", shows="one sentence, or probabilities that sum to 1",
)  # fmt: skip
def test_no_bundle_breaks_the_engine(tiny_bundle: Path, tmp_path: Path) -> None:
    counted = fuzz_bundles(160, 1, tiny_bundle, tmp_path)
    assert min(counted["loaded"], counted["refused"]) > 0, counted
