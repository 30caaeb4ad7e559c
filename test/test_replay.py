# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Replaying recordings: what is heard, how it is matched and scored, what is left behind."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from hri_emo_ros.cli.main import main
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.emotion_bag import TOPICS
from hri_emo_ros.evaluation.labels import Label
from hri_emo_ros.evaluation.matching import match_labels, segmentation
from hri_emo_ros.evaluation.replay import Replayer, ReplayRun
from hri_emo_ros.evaluation.replay_report import write_report
from hri_emo_ros.evaluation.rosbag_types import (
    CONVERSATION,
    SPEECH,
    emotion_typestore,
)
from hri_emo_ros.evaluation.scores import Answers, score, word_error_rate
from hri_emo_ros.evaluation.utterances import HeardUtterance, utterance_from_json
from hri_emo_ros.parameters import load_parameters
from hri_emo_ros.types import LABELS

DATA = Path(__file__).parent / "data"
CLIPS = (
    ("lj_LJ001-0008", "neutral", "lj", "has never been surpassed."),
    ("emodb_11a02Wc", "angry", "emodb_11", ""),
    ("ravdess_03-01-06-02-02-01-08", "fear", "ravdess_08", "Dogs are sitting by the door."),
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> BagRecipe:
    manifest = tmp_path_factory.mktemp("clips") / "manifest.csv"
    lines = [f"{DATA / name}.flac,{emotion},{who},{text}" for name, emotion, who, text in CLIPS]
    manifest.write_text("path,emotion,speaker,text\n" + "\n".join(lines) + "\n")
    return BagRecipe(
        manifest, gap=(0.9, 1.1), noise="pink", snr_db=30.0, level_dbfs=-26.0, message="AudioData"
    )


@pytest.fixture(scope="module")
def bag(recipe: BagRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bags") / "bag"
    make_bag(replace(recipe, message="AudioDataStamped"), path)
    return path


@pytest.fixture(scope="module")
def replayer(tiny_bundle: Path) -> Replayer:
    return Replayer(load_parameters(None, ["asr.backend:=none", f"model.bundle:={tiny_bundle}"]))


@pytest.fixture(scope="module")
def run(replayer: Replayer, bag: Path) -> ReplayRun:
    return replayer.run(bag)


@pytest.fixture(scope="module")
def outputs(bag: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one command leaves behind."""
    out = tmp_path_factory.mktemp("replay") / "out"
    arguments = ["replay", str(bag), "--bundle", str(tiny_bundle), "--asr", "none", "--ablate"]
    assert main([*arguments, "--out", str(out), "--json", str(out / "run.json")]) == 0
    return out


def boundaries(run: ReplayRun) -> list[tuple[int, float]]:
    return [(u.stream_start_sample, round(u.end - u.start, 6)) for u in run.utterances]


def test_every_labelled_stretch_is_heard_once_and_at_its_place(run: ReplayRun) -> None:
    assert run.reference is not None
    assert [m.label.emotion for m in run.matches] == ["neutral", "angry", "fear"]
    cut = run.summary()["segmentation"]
    assert (cut["one_to_one"], cut["missed"], cut["split"], cut["merged"]) == (3, 0, 0, 0)
    assert cut["start_error"]["mean_absolute"] < 0.3
    assert cut["end_error"]["mean_absolute"] < 0.2


@pytest.mark.parametrize(
    "change",
    [
        {"message": "AudioStamped", "chunk_ms": 100.0},
        {"message": "AudioData", "storage": "sqlite3"},
    ],
)
def test_message_family_storage_and_chunks_change_nothing(
    recipe: BagRecipe, replayer: Replayer, run: ReplayRun, tmp_path: Path, change: dict[str, Any]
) -> None:
    make_bag(replace(recipe, **change), tmp_path / "bag")
    other = replayer.run(tmp_path / "bag")
    assert boundaries(other) == boundaries(run)
    for ours, theirs in zip(other.utterances, run.utterances, strict=True):
        assert ours.start == pytest.approx(theirs.start, abs=0.002)
        assert np.allclose(ours.probabilities, theirs.probabilities, atol=1e-5)


def test_a_sensor_clock_that_starts_at_boot_is_mapped_to_the_bags_time(
    recipe: BagRecipe, replayer: Replayer, run: ReplayRun, bag: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from hri_emo_ros.evaluation import bag_make

    boot = bag_make._AudioTopic._message

    def since_boot(self: Any, pcm: Any, stamp_ns: int) -> Any:
        return boot(self, pcm, stamp_ns - recipe.start_ns + 77_000_000_000)

    monkeypatch.setattr(bag_make._AudioTopic, "_message", since_boot)
    make_bag(replace(recipe, message="AudioDataStamped"), tmp_path / "bag")
    other = replayer.run(tmp_path / "bag")
    assert [u.start for u in other.utterances] == pytest.approx([u.start for u in run.utterances])


def test_the_json_has_the_figures_and_all_that_repeating_takes(outputs: Path) -> None:
    content = json.loads((outputs / "run.json").read_text())
    for key in ("utterances", "final_states", "missed", "abstained", "ua", "wa", "macro_f1",
                "weighted_f1", "ece", "wer", "latency", "segmentation", "per_emotion",
                "confusion", "intervals", "model", "parameters", "ablation"):  # fmt: skip
        assert key in content, key
    assert content["utterances"] == 3
    assert content["final_states"] == 3
    assert content["wer"] is None  # there was no recogniser
    assert content["latency"]["total"]["p99"] > 0
    assert content["parameters"]["speech_node"]["segment.pause"] == 0.6
    assert content == json.loads((outputs / "report.json").read_text())


def test_the_output_bag_holds_what_the_nodes_would_publish(outputs: Path, run: ReplayRun) -> None:
    store = emotion_typestore()
    speech: dict[int, list[np.ndarray]] = {}
    finals = []
    tones: list[Any] = []
    with Reader(outputs / "bag") as reader:
        assert set(TOPICS) == set(reader.topics)
        for connection, _, raw in reader.messages():
            message: Any = store.deserialize_cdr(raw, connection.msgtype)
            if connection.msgtype == SPEECH:
                speech.setdefault(message.utterance_id, []).append(message.samples)
            elif connection.topic == "/emotion_final":
                finals.append(message)
            elif connection.msgtype == CONVERSATION:
                tones.append(message)
    assert len(tones) == len(finals)
    rested_on = [f for f in finals if f.abstain_reason in (0, 5)]
    assert tones[-1].overall.utterances == len(rested_on)
    assert [f.utterance_id for f in finals] == [u.utterance_id for u in run.utterances]
    for utterance, final in zip(run.utterances, finals, strict=True):
        length = sum(map(len, speech[utterance.utterance_id])) / 16000
        assert length == pytest.approx(utterance.end - utterance.start)
        found = [score.probability for score in final.scores]
        assert np.allclose(found, utterance.probabilities, atol=1e-5)
        assert final.audio_weight + final.text_weight == pytest.approx(1.0)


def test_provisional_states_are_made_where_somebody_reads_them_and_change_no_final_one(
    replayer: Replayer, bag: Path, run: ReplayRun
) -> None:
    records: list[object] = []
    told = replayer.run(bag, record=records.append)
    assert told.counters["provisionals"] > 0 == run.counters["provisionals"]
    assert len(told.utterances) == len(run.utterances) > 0
    for with_them, without in zip(told.utterances, run.utterances, strict=True):
        assert with_them.provisional
        assert not without.provisional
        assert with_them.probabilities == pytest.approx(without.probabilities, abs=1e-6)
        assert with_them.voice_id == without.voice_id


def test_the_ablation_answers_every_label_under_every_condition(
    outputs: Path, run: ReplayRun
) -> None:
    result = json.loads((outputs / "report.json").read_text())["ablation"]
    names = {(c["boundaries"], c["words"], c["modalities"]) for c in result["conditions"]}
    assert len(names) == len(result["conditions"]) == 10
    by_name = {(c["boundaries"], c["words"], c["modalities"]): c for c in result["conditions"]}
    as_it_runs = by_name["found", "recognised", "both"]
    assert as_it_runs["ua"] == pytest.approx(run.summary()["ua"])
    # Two labels have words; without a recogniser nothing is recognised.
    assert by_name["true", "true", "words"]["answered"] == 2
    assert by_name["true", "recognised", "words"]["answered"] == 0
    assert set(result["conflict"]) == {"true", "recognised"}


def test_a_truncated_bag_is_scored_as_far_as_it_goes_and_ends_with_2(
    recipe: BagRecipe, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_bag(replace(recipe, message="AudioDataStamped"), tmp_path / "bag")
    file = tmp_path / "bag" / "bag.mcap"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.6)])
    arguments = ["replay", str(tmp_path / "bag"), "--bundle", str(tiny_bundle), "--asr", "none"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "is truncated or was never closed" in error
    assert "messages of '/audio', up to" in error
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["truncated"] in error
    assert 0 < content["final_states"] < 3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("start,end,emotion\n1,2,angry\n99,100,sad\n", "99-100 s lies outside the recording"),
        ("start,end,emotion\n1,3,angry\n2,4,sad\n", "overlap"),
        ("start,end,emotion\n1,3,cross\n", "emotion 'cross' is none of the model's"),
    ],
)
def test_bad_labels_end_with_2_and_one_sentence(
    bag: Path, tiny_bundle: Path, tmp_path: Path, labels: str, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "labels.csv"
    path.write_text(labels)
    arguments = ["replay", str(bag), "--bundle", str(tiny_bundle), "--asr", "none"]
    assert main([*arguments, "--labels", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_compressed_audio_in_the_messages_ends_with_2(
    recipe: BagRecipe, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from hri_emo_ros.evaluation import bag_make

    plain = bag_make._AudioTopic._message

    def ogg(self: Any, pcm: np.ndarray, stamp_ns: int) -> Any:
        pcm = pcm.copy()
        pcm.view(np.uint8)[:4] = np.frombuffer(b"OggS", np.uint8)
        return plain(self, pcm, stamp_ns)

    monkeypatch.setattr(bag_make._AudioTopic, "_message", ogg)
    make_bag(recipe, tmp_path / "bag")
    arguments = ["replay", str(tmp_path / "bag"), "--bundle", str(tiny_bundle), "--asr", "none"]
    assert main(arguments) == 2
    assert "carries Ogg, must be uncompressed PCM" in capsys.readouterr().err


def heard(
    number: int, start: float, end: float, answer: str = "", abstained: str = "", text: str = ""
) -> HeardUtterance:
    probabilities = [0.9 if name == answer else 0.1 / 6 for name in LABELS] if answer else []
    return HeardUtterance(
        number, start, end, speech_end=end - 0.2, probabilities=probabilities, dominant=answer,
        abstained=abstained, transcript=text, final=True,
    )  # fmt: skip


def test_missed_split_merged_and_unlabelled_speech_is_counted() -> None:
    labels = [Label(1, 3, "sad"), Label(5, 9, "angry"), Label(10, 11, "fear"),
              Label(11.3, 12.5, "happy"), Label(20, 22, "sad")]  # fmt: skip
    utterances = [heard(1, 0.8, 3.2), heard(2, 4.7, 6.5), heard(3, 7.0, 9.2),
                  heard(4, 9.7, 12.8), heard(5, 15.0, 16.0)]  # fmt: skip
    matches = match_labels(labels, utterances)
    assert [[u.utterance_id for u in m.heard] for m in matches] == [[1], [2, 3], [4], [4], []]
    best = matches[1].best
    assert best is not None
    assert best.utterance_id == 3
    cut = segmentation(matches, utterances, pre_roll=0.3)
    assert (cut["missed"], cut["split"], cut["merged"], cut["unlabelled"]) == (1, 1, 1, 1)
    assert cut["one_to_one"] == 1
    assert cut["start_error"]["mean"] == pytest.approx(0.1)
    assert cut["end_error"]["mean"] == pytest.approx(0.0)
    assert cut["by_emotion"] == {
        "angry": {"labels": 1, "one_to_one": 0, "missed": 0, "split": 1, "merged": 0},
        "fear": {"labels": 1, "one_to_one": 0, "missed": 0, "split": 0, "merged": 1},
        "happy": {"labels": 1, "one_to_one": 0, "missed": 0, "split": 0, "merged": 1},
        "sad": {"labels": 2, "one_to_one": 1, "missed": 1, "split": 0, "merged": 0},
    }


def test_refused_words_count_for_the_recogniser_and_against_what_was_used() -> None:
    labels = [Label(1, 3, "sad", text="oh no"), Label(5, 9, "angry", text="Get out!")]
    refused = replace(
        heard(2, 5.0, 9.0), rejected_transcript="get out", transcript_status="rejected"
    )
    matches = match_labels(labels, [heard(1, 1.0, 3.0, text="Oh, no."), refused])
    assert word_error_rate(matches)[0] == 0.0
    rate, counts = word_error_rate(matches, used=True)
    assert rate == 0.5
    assert counts is not None
    assert counts["deletions"] == 2


def test_the_report_says_what_was_missed_by_emotion(
    recipe: BagRecipe, replayer: Replayer, tmp_path: Path
) -> None:
    """A detector that is set deaf, on the real recording: page and JSON name what it did not hear."""
    make_bag(recipe, tmp_path / "bag")
    values = {node: dict(own) for node, own in replayer.parameters.items()}
    values["speech_node"]["segment.min_speech"] = 2.0
    run = replayer.run(tmp_path / "bag", parameters=values)
    of = run.summary()["segmentation"]["by_emotion"]
    missed = [emotion for emotion, counts in of.items() if counts["missed"]]
    assert missed
    assert set(of) == {"neutral", "angry", "fear"}
    page = write_report(run, tmp_path / "out").read_text()
    table = page[page.index("Labels by emotion") :]
    table = table[: table.index("</table>")]
    for emotion, counts in of.items():
        row = table[table.index(f">{emotion}<") :]
        row = row[: row.index("</tr>")]
        shown = [int(text) for text in re.findall(r">(\d+)<", row)]
        assert shown == list(counts.values())
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["segmentation"]["by_emotion"] == of


def test_what_was_missed_counts_as_wrong_and_what_abstained_is_told_apart() -> None:
    labels = [Label(i * 5, i * 5 + 2, e, f"s{i}") for i, e in
              enumerate(("sad", "sad", "angry", "angry"))]  # fmt: skip
    utterances = [heard(1, 0, 2, "sad"), heard(2, 5, 7, "sad", "low_confidence"),
                  heard(3, 10, 12, "angry")]  # fmt: skip
    matches = match_labels(labels, utterances)
    result = score(Answers(matches, LABELS), utterances, matches)
    assert (result["utterances"], result["missed"], result["abstained"]) == (4, 1, 1)
    assert result["wa"] == pytest.approx(0.75)
    assert result["ua"] == pytest.approx(0.75)
    assert result["abstain_reasons"] == {"low_confidence": 1}
    assert result["answered"]["utterances"] == 2
    assert result["answered"]["wa"] == pytest.approx(1.0)
    assert result["confusion"]["counts"][LABELS.index("angry")][-1] == 1


def test_word_errors_do_not_charge_for_splits_case_or_punctuation() -> None:
    labels = [Label(0, 4, "", text="Ask not, what your country"), Label(6, 7, "", text="can do")]
    utterances = [heard(1, 0, 2, text="ask NOT what"), heard(2, 2.5, 4, text="you're country")]
    rate, counts = word_error_rate(match_labels(labels, utterances))
    assert counts == {"words": 7, "substitutions": 1, "deletions": 2, "insertions": 0}
    assert rate == pytest.approx(3 / 7, abs=1e-4)


def test_utterances_survive_json() -> None:
    utterance = heard(1, 0.5, 2.0, "sad", text="oh no")
    utterance.words = [("oh", 0.6, 0.9)]
    again = utterance_from_json(json.loads(json.dumps(utterance.as_json())))
    assert again.words == utterance.words
    assert np.isnan(again.snr_db)
    assert again.probabilities == pytest.approx(utterance.probabilities, abs=1e-6)
