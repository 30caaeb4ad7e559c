# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""``hri-emo evaluate --baseline`` and what was said before: what is drawn, counted and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import tiny_config, tiny_model, voice

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.cli.main import main
from hri_emo_ros.data.manifest import read_manifest
from hri_emo_ros.engine import EmotionEngine
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.evaluate import Judge, estimate_known, read_rows
from hri_emo_ros.evaluation.fleet import Fleet
from hri_emo_ros.evaluation.known_voices import Knowledge, contexts, knowledge
from hri_emo_ros.model.bundle import save_bundle

DATA = Path(__file__).parent / "data"
EMOTIONS = ("neutral", "neutral", "anger", "joy", "sadness")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    model = tiny_model(tiny_config("audio_only", baseline={}, voice_components=(8,)))
    generator = torch.Generator().manual_seed(0)
    model.model.baseline.population.normal_(generator=generator)
    return save_bundle(model, tmp_path_factory.mktemp("bundle") / "known")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    lines = ["path,emotion,speaker"]
    speech = np.concatenate([read_audio(clip) for clip in sorted(DATA.glob("*.flac"))])
    speech = speech[np.abs(speech) > 1e-3]  # no pause in which a cut would hold no voice
    for number in range(15):
        name = f"{number}.wav"
        soundfile.write(folder / name, speech[number * 24_000 :][:20_000], 16_000)
        speaker = ("ann", "bob", "")[number // 5 if number < 14 else 2]
        lines.append(
            f"{name},{EMOTIONS[number % 5]},{'cid' if number in range(10, 14) else speaker}"
        )
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.csv"


def run(bundle: Path, manifest: Path, out: Path, *more: str) -> dict:
    arguments = ["evaluate", "--bundle", str(bundle), "--manifest", str(manifest), "--threads", "1"]
    assert main([*arguments, "--json", str(out), *more]) == 0
    return json.loads(out.read_text())


def test_figures_of_every_baseline_stand_side_by_side_and_the_first_is_on_top(
    bundle, manifest, tmp_path, capsys
):
    result = run(bundle, manifest, tmp_path / "a.json", "--baseline", "3,0,all", "--room", "4")
    by = result["by_baseline"]
    assert list(by) == ["3", "0", "all"]
    assert result["ua"] == by["3"]["ua"] and result["ece"] == by["3"]["ece"]
    # Ann and Bob have four other clips, Cid three; one clip is nobody's, and hears the room alone.
    assert by["3"]["voice_count"] == pytest.approx(14 * 3 / 15)
    assert by["all"]["voice_count"] == pytest.approx((10 * 4 + 4 * 3) / 15)
    assert by["0"]["voice_count"] == 0.0
    assert by["0"]["room_count"] == pytest.approx(4.0)
    assert result["without_speaker"] == [16]
    assert by["3"]["ece"] != by["0"]["ece"]
    printed = capsys.readouterr().out
    assert "1 clips name no speaker" in printed
    assert "all of the voice, 4 of others" in printed
    again = run(bundle, manifest, tmp_path / "b.json", "--baseline", "3,0,all", "--room", "4")
    assert again["by_baseline"] == by | {
        k: by[k] | {"clips_per_s": again["by_baseline"][k]["clips_per_s"]} for k in by
    }
    other = run(bundle, manifest, tmp_path / "c.json", "--baseline", "2", "--seed", "5")
    assert list(other["by_baseline"]) == ["2"]


def test_an_estimate_with_a_baseline_is_the_engines_with_what_was_heard(bundle, manifest):
    engine = EmotionEngine(bundle, threads=1)
    found = read_rows(manifest, "audio")
    judge = Judge((str(bundle), "cpu", 1), engine.labels, Fleet())
    (unknown, _), (scored, _) = estimate_known(judge, found, [Knowledge(), Knowledge(None)])
    own = [k for k, row in enumerate(scored.rows) if row.speaker == "ann"]
    heard = [unknown.estimates[k].voice_statistics for k in own[1:]]
    from hri_emo_ros.data.clips import decode
    from hri_emo_ros.data.heard import heard_of

    alone = engine.estimate(decode(scored.rows[own[0]].path), voice=heard_of(np.stack(heard)))
    first = scored.estimates[own[0]]
    np.testing.assert_allclose(first.probabilities, alone.probabilities, atol=1e-4)
    assert np.abs(first.probabilities - unknown.estimates[own[0]].probabilities).max() > 1e-4


def test_noise_is_swept_with_what_is_known(bundle, manifest, tmp_path):
    known = run(bundle, manifest, tmp_path / "a.json", "--baseline", "4", "--sweep-snr", "0")
    strange = run(bundle, manifest, tmp_path / "b.json", "--sweep-snr", "0")
    for kept, other in zip(known["snr_sweep"], strange["snr_sweep"], strict=True):
        assert kept["mean_confidence"] != other["mean_confidence"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--baseline", "three"], "--baseline is 'three', must be a whole number"),
        (["--baseline", "3", "--room", "-1"], "--room is '-1', must be a whole number"),
        (
            ["--baseline", "3", "--baseline-neutral", "2"],
            "--baseline-neutral is '2', must be a share",
        ),
        (["--baseline", "3", "--seed", "-1"], "--seed is -1"),
        (["--baseline", "3", "--in-order"], "--in-order hears voices as they come"),
    ],
)
def test_wrong_values_are_named(bundle, manifest, capsys, arguments, reason):
    assert main(["evaluate", "--bundle", str(bundle), "--manifest", str(manifest), *arguments]) == 2
    assert reason in " ".join(capsys.readouterr().err.split())


def test_a_manifest_without_speakers_and_a_bundle_without_baselines_are_refused(
    bundle, tiny_bundle, manifest, tmp_path, capsys
):
    soundfile.write(tmp_path / "a.wav", voice(1.0), 16_000)
    (tmp_path / "m.csv").write_text("path,emotion\na.wav,anger\n")
    arguments = ["evaluate", "--baseline", "3", "--manifest"]
    assert main([*arguments, str(tmp_path / "m.csv"), "--bundle", str(bundle)]) == 2
    assert "no clip of the manifest names one: fill its column 'speaker'" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main([*arguments, str(manifest), "--bundle", str(tiny_bundle)]) == 2
    assert "judges every voice as an unknown one" in " ".join(capsys.readouterr().err.split())


def test_all_means_all_other_clips():
    (first, second) = knowledge(["5", "0"], "all", "all", 0)
    assert (first.voice, first.room, first.neutral) == (None, None, None)
    assert second.voice == 0


def test_context_is_what_was_said_before_in_the_conversation(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text(
        "path,emotion,text,conversation,turn\n,joy,third,a,3\n,joy,first,a,1\n,joy,second,a,2\n"
        ",joy,elsewhere,b,\n,joy,next,b,\n,joy,alone,,\n,,unlabelled,a,2.5\n"
    )
    found = contexts(read_manifest(path).rows)
    assert found[2] == ("unlabelled", "second", "first")
    assert found[3] == ()
    assert found[6] == ("elsewhere",)
    assert 7 not in found
    path.write_text("path,emotion,text,turn\n,joy,a,x\n")
    with pytest.raises(HriEmoError, match=r"line 2: turn is 'x', must be a number"):
        read_manifest(path).strictly()


def test_in_order_voices_are_told_and_remembered_as_they_come(bundle, manifest, tmp_path):
    result = run(bundle, manifest, tmp_path / "a.json", "--in-order")
    assert result["n"] == 15
    told = result["in_order"]
    assert len(told["voice_ids"]) == 15
    assert told["without_voice"] == told["voice_ids"].count("")
    strange = run(bundle, manifest, tmp_path / "b.json")
    assert result["items"][0]["probabilities"] == strange["items"][0]["probabilities"]
    assert result["items"][14]["probabilities"] != strange["items"][14]["probabilities"]
