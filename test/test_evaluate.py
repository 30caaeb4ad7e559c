# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo evaluate``: figures, and everything that could not be scored is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpus_trees import tone
from tiny_models import tiny_config, tiny_model

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.cli.main import main
from hri_emo_ros.engine import EmotionEngine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.evaluate import evaluate, read_rows
from hri_emo_ros.model.bundle import save_bundle
from hri_emo_ros.types import LABELS, Transcript

KEYS = {
    "n", "ua", "wa", "macro_f1", "weighted_f1", "ece", "per_class", "confusion", "intervals",
    "chance", "majority", "clips_per_s",
}  # fmt: skip


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Six rows that can be scored and four that cannot."""
    for k in range(4):
        tone(tmp_path / "clips" / f"{k}.wav", 150.0 + 40 * k, seconds=0.8 + 0.2 * k)
    (tmp_path / "clips" / "broken.wav").write_bytes(b"RIFF, but not really")
    rows = [
        ("path", "emotion", "text", "speaker"),
        ("clips/0.wav", "Anger", "I am so angry", "a"),
        ("clips/1.wav", "happiness", "", "a"),
        ("clips/2.wav", "calm", "fine", "b"),
        ("clips/3.wav", "sad", "", "b"),
        ("", "joy", "what a wonderful surprise", "b"),
        ("", "fearful", "I am afraid", "a"),
        ("clips/0.wav", "hungry", "", "a"),
        ("clips/0.wav", "boredom", "", "a"),
        ("clips/none.wav", "anger", "", "a"),
        ("clips/broken.wav", "anger", "", "a"),
        ("", "anger", "", "a"),
    ]
    path = tmp_path / "manifest.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def test_the_json_has_the_agreed_keys_and_adds_up(tiny_bundle, manifest):
    result, scored = evaluate(tiny_bundle, manifest, threads=1)
    assert set(result) >= KEYS
    assert result["n"] == 6 == np.sum(result["confusion"])
    assert len(result["confusion"]) == len(LABELS)
    assert set(result["per_class"]) == set(LABELS)
    assert result["per_class"]["happy"]["support"] == 2
    assert result["chance"] == pytest.approx(1 / 5)
    assert result["majority"] == pytest.approx(2 / 6)
    low, high = result["intervals"]["ua"]
    assert low <= result["ua"] <= high
    assert result["intervals_over"] == "speakers"
    assert len(scored.estimates) == 6


def test_what_cannot_be_scored_is_listed_with_its_line(tiny_bundle, manifest):
    result, _ = evaluate(tiny_bundle, manifest, threads=1)
    assert [entry["line"] for entry in result["unknown_labels"]] == [8]
    assert [entry["line"] for entry in result["left_out"]] == [9]
    reasons = {entry["line"]: entry["reason"] for entry in result["unreadable"]}
    assert set(reasons) == {10, 11, 12}
    assert "no audio file" in reasons[10]
    assert result["counts"] == {
        "scored": 6, "unknown_labels": 1, "left_out": 1, "unreadable": 3,
    }  # fmt: skip


def test_batches_do_not_change_the_answers(tiny_bundle, manifest):
    _, scored = evaluate(tiny_bundle, manifest, threads=1)
    engine = EmotionEngine(tiny_bundle, threads=1)
    for row, estimate in zip(scored.rows, scored.estimates, strict=True):
        samples = read_audio(row.path) if row.path else None
        alone = engine.estimate(samples, Transcript(row.text) if row.text else None)
        np.testing.assert_allclose(estimate.probabilities, alone.probabilities, atol=1e-5)


@pytest.mark.parametrize(("modality", "count"), [("audio", 4), ("text", 4), ("both", 6)])
def test_a_modality_scores_the_rows_that_have_it(tiny_bundle, manifest, modality, count):
    result, scored = evaluate(tiny_bundle, manifest, modality, threads=1)
    assert result["n"] == count
    # A tone is not always heard as a voice: then there is nothing to weigh, and both count alike.
    weights = {
        "audio": {0.5, 1.0},
        "text": {0.0},
        "both": {e.audio_weight for e in scored.estimates},
    }
    assert {e.audio_weight for e in scored.estimates} <= weights[modality]


def test_the_command_prints_and_writes_figures_and_a_page(tiny_bundle, manifest, tmp_path, capsys):
    arguments = ["evaluate", "--bundle", str(tiny_bundle), "--manifest", str(manifest),
                 "--json", str(tmp_path / "out" / "e.json"), "--out", str(tmp_path / "page"),
                 "--threads", "1", "--sweep-snr", "10,0", "--channels"]  # fmt: skip
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "unknown label: 1" in printed
    assert "hungry" in printed
    result = json.loads((tmp_path / "out" / "e.json").read_text())
    assert [point["snr_db"] for point in result["snr_sweep"]] == [None, 10.0, 0.0]
    channels = {point["condition"]: point for point in result["channels"]}
    # The compact encoder hears levels relative to the loudest: a gain changes rounding alone.
    assert channels["peak at 0 dBFS"]["changed"] == 0.0
    assert 0.0 <= channels["telephone, 300 to 3400 Hz"]["ua"] <= 1.0
    assert "answers that change" in printed
    page = (tmp_path / "page" / "report.html").read_text()
    assert "Confusion" in page
    assert "UA and gate against noise" in page
    assert ">10</td>" in page


@pytest.mark.parametrize(("head", "modality"), [("audio_only", "text"), ("text_only", "audio")])
def test_a_modality_that_the_model_does_not_use_is_refused(
    head, modality, manifest, tmp_path, capsys
):
    bundle = save_bundle(tiny_model(tiny_config(head)), tmp_path / "one")
    arguments = ["evaluate", "--bundle", str(bundle), "--manifest", str(manifest)]
    assert main([*arguments, "--modality", modality]) == 2
    assert f"its head is '{head}'" in " ".join(capsys.readouterr().err.split())


def test_a_sweep_can_drown_clips_in_their_own_babble(tiny_bundle, manifest):
    result, _ = evaluate(tiny_bundle, manifest, sweep_snr=(0.0,), noise="babble", threads=1)
    clean, noisy = result["snr_sweep"]
    assert noisy["snr_db"] == 0.0
    assert noisy["audio_weight"] != clean["audio_weight"]


def test_nothing_to_score_is_an_error_that_says_why(tiny_bundle, tmp_path, capsys):
    path = tmp_path / "m.csv"
    path.write_text("path,emotion\nnone.wav,anger\nx.wav,hungry\n")
    assert main(["evaluate", "--bundle", str(tiny_bundle), "--manifest", str(path)]) == 2
    error = capsys.readouterr().err
    assert "nothing in" in error
    assert "1 unknown labels" in error


def test_a_manifest_without_its_columns_is_refused(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("file,label\na.wav,anger\n")
    with pytest.raises(HriEmoError, match="lacks the column 'path'"):
        read_rows(path, "both")
    with pytest.raises(HriEmoError, match="cannot read the manifest"):
        read_rows(tmp_path / "none.csv", "both")


def test_a_clip_is_heard_for_as_many_seconds_as_the_manifest_says(tiny_bundle, tmp_path):
    clip = read_audio(Path(__file__).parent / "data" / "lj_LJ001-0002.flac")
    soundfile.write(tmp_path / "short.wav", clip[:16_000], 16_000)
    soundfile.write(tmp_path / "long.wav", clip, 16_000)
    path = tmp_path / "m.csv"
    path.write_text(
        "path,emotion,seconds\nshort.wav,anger,\nlong.wav,anger,1.0\nlong.wav,anger,\n"
        "short.wav,anger,soon\n"
    )
    result, scored = evaluate(tiny_bundle, path, "audio", threads=1)
    short, capped, whole = (e.probabilities for e in scored.estimates)
    np.testing.assert_allclose(capped, short, atol=1e-3)
    assert np.abs(whole - short).max() > 1e-3
    assert "seconds is 'soon'" in result["unreadable"][0]["reason"]
