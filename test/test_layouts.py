# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Foxglove's and PlotJuggler's layouts show fields that exist, of topics that are published."""

from __future__ import annotations

import importlib
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hri_emo_ros.types import LABELS

messages = pytest.importorskip("hri_emo_msgs.msg")

CONFIG = Path(__file__).resolve().parent.parent / "config"
TYPES = {
    "speech": messages.Speech,
    "transcript": messages.Transcript,
    "emotion_state": messages.EmotionState,
    "emotion_final": messages.EmotionState,
    "conversation_emotion": messages.ConversationEmotion,
}
NUMBERS = ("float", "double", "uint8", "uint32", "uint64", "boolean")


def kind(topic: str, fields: list[str]) -> str:
    """Type of a field of a topic's message; the KeyError of what does not exist."""
    found = TYPES[topic]
    for name in fields[:-1]:
        inner = found.get_fields_and_field_types()[name].removeprefix("sequence<").rstrip(">")
        package, _, message = inner.partition("/")
        found = getattr(importlib.import_module(f"{package}.msg"), message)
    return str(found.get_fields_and_field_types()[fields[-1]])


def foxglove_paths(panels: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(panel, message path)."""
    for name, panel in panels.items():
        for path in panel.get("paths", []):
            yield name, path["value"]
        if "topicPath" in panel:
            yield name, panel["topicPath"]


def test_foxgloves_paths_exist_and_plots_are_of_numbers() -> None:
    layout = json.loads((CONFIG / "foxglove.json").read_text())
    seen = list(foxglove_paths(layout["configById"]))
    assert len(seen) > 10
    for panel, path in seen:
        topic, *fields = path.lstrip("/").split(".")
        label = re.search(r'\[:\]\{label=="(\w+)"\}', path)
        assert label is None or label[1] in LABELS
        fields = [re.sub(r"\[.*", "", field) for field in fields]
        if fields:
            found = kind(topic, fields)
            assert not panel.startswith("Plot") or found in NUMBERS, path
        else:
            assert topic in TYPES
    assert {m[1] for _, p in seen if (m := re.search(r'label=="(\w+)"', p))} == set(LABELS)


def test_each_panel_of_foxglove_has_its_place() -> None:
    layout = json.loads((CONFIG / "foxglove.json").read_text())

    def panels(part: Any) -> list[str]:
        return [part] if isinstance(part, str) else panels(part["first"]) + panels(part["second"])

    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])


def test_plotjugglers_curves_exist_and_their_topics_are_subscribed_to() -> None:
    root = ET.parse(CONFIG / "plotjuggler.xml").getroot()
    curves = [curve.attrib["name"] for curve in root.iter("curve")]
    assert len(curves) > 10
    topics = set()
    for curve in curves:
        topic, *fields = curve.lstrip("/").split("/")
        index = re.search(r"\[(\d+)\]", curve)
        assert index is None or int(index[1]) < len(LABELS)
        assert kind(topic, [re.sub(r"\[.*", "", f) for f in fields]) in NUMBERS, curve
        topics.add(f"/{topic}")
    for selected in root.iter("selected_topics"):
        assert set(selected.attrib["value"].split(";")) == topics
