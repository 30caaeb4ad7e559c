# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""docs/topics.md: every topic is there, and every message on it has the fields that are published."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hri_definitions import HRI_MSGS, fields

pytest.importorskip("hri_emo_msgs.msg")

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "topics.md").read_text()
SHOWN = re.findall(
    r"^### `(\S+)`: (\w+)/(\w+)\n(?:(?!^###).)*?```yaml\n(.*?)```", PAGE, re.S | re.M
)


def complete(shown: Any, kind: Any, place: str) -> Iterator[str]:
    """Names of fields that differ between what is shown and the message's type."""
    types = kind.get_fields_and_field_types()
    if list(shown) != list(types):
        yield f"{place}: {set(shown) ^ set(types)}"
        return
    for name, value in shown.items():
        inner = types[name].removeprefix("sequence<").rstrip(">")
        items = value if isinstance(value, list) else [value]
        if "/" in inner:
            package, _, message = inner.partition("/")
            part = getattr(importlib.import_module(f"{package}.msg"), message)
            for item in items:
                yield from complete(item, part, f"{place}.{name}")
        else:
            assert not any(isinstance(item, Mapping) for item in items)


@pytest.mark.parametrize(("topic", "package", "message", "text"), SHOWN, ids=lambda v: str(v)[:30])
def test_a_message_has_all_fields_in_order(
    topic: str, package: str, message: str, text: str
) -> None:
    shown = yaml.safe_load(text)
    if package == "hri_msgs":
        assert message in HRI_MSGS
        assert set(shown) == fields(message), topic
        return
    kind = getattr(importlib.import_module(f"{package}.msg"), message)
    assert list(complete(shown, kind, topic)) == []


def test_each_of_our_topics_is_shown() -> None:
    named = {topic for topic, *_ in SHOWN}
    assert named >= {
        "emotion_state", "conversation_emotion", "emotion_explanation", "speech", "transcript",
        "/diagnostics", "/humans/voices/tracked",
    }  # fmt: skip
