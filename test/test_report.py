# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""The report is one file that fetches nothing, and its drawings hold what they should."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hri_emo_ros.evaluation import svg
from hri_emo_ros.evaluation.envelope import Envelope
from hri_emo_ros.evaluation.labels import Label
from hri_emo_ros.evaluation.replay import ReplayRun
from hri_emo_ros.evaluation.replay_report import write_report
from hri_emo_ros.evaluation.report import Section, Table, Tile, model_sections, shown, write_page
from hri_emo_ros.evaluation.utterances import HeardUtterance, ProvisionalState
from hri_emo_ros.parameters import load_parameters
from hri_emo_ros.types import LABELS


class Page(HTMLParser):
    """Everything that a browser would fetch, and the tags that are open at the end."""

    VOID = frozenset({"meta", "br", "hr", "img", "input", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.seen: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action") and not (value or "").startswith(
                "#"
            ):
                self.fetched.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def state(number: int, start: float, answer: str, abstained: str = "") -> HeardUtterance:
    p = [0.7 if name == answer else 0.05 for name in LABELS]
    utterance = HeardUtterance(
        number, start, start + 2.0, speech_end=start + 1.8, probabilities=p, dominant=answer,
        abstained=abstained, audio_weight=0.6, text_weight=0.4, transcript="<b>not</b> & now",
        words=[("<b>not</b>", start + 0.2, start + 0.5)], snr_db=20.0, final=True,
        latency=dict.fromkeys(
            ("queue", "asr", "wait", "audio_encoder", "text_encoder", "fusion", "total"), 0.01
        ),
    )  # fmt: skip
    utterance.provisional = [ProvisionalState(start + 1.0, p, 0.6)]
    return utterance


@pytest.fixture
def run() -> ReplayRun:
    envelope = Envelope()
    envelope.add(np.sin(np.arange(16000 * 12) / 9).astype(np.float32), 0.0, 16000)
    return ReplayRun(
        bag=Path("robot"), topic="/audio", message_type="audio_common_msgs/msg/AudioData",
        duration=12.0, parameters=load_parameters(None), model_id="compact@1234",
        labels=LABELS, recogniser="whisper",
        utterances=[state(1, 1.0, "sad"), state(2, 5.0, "happy", "low_confidence")],
        reference=[Label(1.2, 2.8, "sad", "anna", "not now"), Label(5.2, 6.8, "fear", "ben"),
                   Label(9.0, 10.0, "angry", "ben")],
        counters={"finals": 2}, wall_time=0.5, envelope=envelope,
    )  # fmt: skip


def test_the_page_is_whole_fetches_nothing_and_shows_every_part(
    run: ReplayRun, tmp_path: Path
) -> None:
    run.truncated = "bag 'robot' is truncated"
    text = write_report(run, tmp_path).read_text()
    page = Page(text)
    assert page.fetched == []
    assert page.open == []
    assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest", text)
    for heading in ("Timeline", "Emotions", "Confusion", "Calibration", "Segmentation and words",
                    "Latency", "Abstained, by reason", "Utterances", "To run it again"):  # fmt: skip
        assert heading in text, heading
    assert "compact@1234" in text
    assert "segment.pause" in text
    assert "bag &#39;robot&#39; is truncated" in text
    assert "<b>not" not in text  # what people say is not markup
    assert page.seen.count("script") == 1


def test_tables_sort_by_number_and_put_what_is_missing_last(tmp_path: Path) -> None:
    table = Table("t", ["name", "value"], [["a", 10.25], ["b", None], ["c", 9.0]])
    write_page(tmp_path / "p.html", "title", "sub", [Tile("n", "3")], [Section("s", [table])])
    text = (tmp_path / "p.html").read_text()
    assert re.findall(r'data-v="([^"]*)"', text) == ["a", "10.25", "b", "", "c", "9.0"]
    assert "aria-sort" in text
    assert table.text_columns == {0}
    assert [shown(v) for v in (None, 0.12345, 10.25, True, 3)] == ["–", "0.123", "10.2", "yes", "3"]


def test_series_differ_without_colour() -> None:
    curves = [svg.Series(n, [0, 1], [0.2, y]) for n, y in (("one", 0.4), ("two", 0.8))]
    drawing = svg.lines(curves, "x", "y")
    dashes = re.findall(r'stroke-width="2.0"(?: stroke-dasharray="([^"]+)")?', drawing)
    assert len(dashes) == len(set(dashes)) == 2
    assert "<circle" in drawing
    assert drawing.count(">one<") == 1


def test_points_that_do_not_exist_are_left_out() -> None:
    drawing = svg.lines([svg.Series("a", [0, 1, 2], [0.1, None, 0.3])], "x", "y")
    assert drawing.count("<circle") == 2


def test_ticks_are_round_and_within() -> None:
    assert svg.ticks(0.0, 1.0) == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert svg.ticks(-5.0, 30.0)[0] >= -5.0


def test_the_confusion_matrix_shows_counts_and_shares() -> None:
    drawing = svg.confusion(["sad", "happy"], ["sad", "happy"], [[3, 1], [0, 2]])
    assert ">3<" in drawing
    assert ">75%<" in drawing
    assert "sad heard as happy: 1 of 4" in drawing


def test_a_models_sections_stand_for_any_evaluation() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 40)
    sections = model_sections(rng.integers(0, 3, 40), p, ("a", "b", "c"))
    titles = [item.title for section in sections for item in section.items]  # type: ignore[union-attr]
    assert titles == ["By emotion", "Confusion", "Calibration", "Accuracy against coverage"]


@pytest.mark.parametrize("length", [320, 512, 1600])
def test_the_envelope_is_the_largest_magnitude_whatever_the_messages(length: int) -> None:
    sound = np.zeros(16000, np.float32)
    sound[8000] = -0.7
    envelope = Envelope()
    for start in range(0, 16000, length):
        envelope.add(sound[start : start + length, None], start / 16000, 16000)
    assert envelope.peaks.max() == pytest.approx(0.7)
    assert np.argmax(envelope.peaks) * envelope.step == pytest.approx(0.5, abs=0.04)


def test_the_envelope_of_a_long_recording_stays_small() -> None:
    envelope = Envelope()
    for second in range(0, 8 * 3600, 20):
        envelope.add(np.full(1, 0.5, np.float32), float(second), 16000)
    assert len(envelope.peaks) <= 1 << 16
    assert len(envelope.peaks) * envelope.step == pytest.approx(8 * 3600, rel=0.01)
