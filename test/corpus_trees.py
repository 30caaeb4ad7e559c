# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Corpora in exactly their official layout, with tones and made-up words in place of people."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from hri_emo_ros.data.corpora.mosei import write_split
from hri_emo_ros.types import SAMPLE_RATE

RAVDESS_EMOTIONS = 8
_RAVDESS_CLASS = {1: 0, 2: 0, 3: 1, 4: 2, 5: 3, 6: 4, 7: 5, 8: 6}


def tone(path: Path, hz: float, seconds: float = 0.6, seed: int = 0) -> None:
    """A harmonic tone with a little noise and silence around it."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = sum(np.sin(2 * np.pi * hz * k * t) / k for k in (1, 2, 3))
    samples = 0.1 * wave * np.hanning(len(t)) + 0.001 * rng.standard_normal(len(t))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.pad(samples, 800), SAMPLE_RATE)


def ravdess(root: Path, actors: Sequence[int] = (1, 4, 8, 3, 2), takes: int = 1) -> None:
    """Each emotion has its pitch, so that a network can learn it."""
    for actor in actors:
        for emotion in range(1, RAVDESS_EMOTIONS + 1):
            for take in range(1, takes + 1):
                name = f"03-01-{emotion:02d}-01-01-{take:02d}-{actor:02d}.wav"
                hz = 120.0 + 60.0 * _RAVDESS_CLASS[emotion] + actor
                tone(root / f"Actor_{actor:02d}" / name, hz, seed=actor * 100 + emotion)
    song = root / f"Actor_{actors[0]:02d}" / f"03-02-01-01-01-01-{actors[0]:02d}.wav"
    tone(song, 200.0)


def crema_d(root: Path) -> None:
    for actor in (1001, 1002):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            tone(root / "AudioWAV" / f"{actor}_DFA_{emotion}_XX.wav", 200.0)
    lines = ["ActorID,Age,Sex,Race,Ethnicity", "1001,51,Male,Caucasian,Not Hispanic"]
    lines.append("1002,21,Female,Caucasian,Not Hispanic")
    (root / "VideoDemographics.csv").write_text("\n".join(lines) + "\n")


def banglaser(root: Path) -> None:
    """With the folds in a manifest.csv beside the clips, as a prepared copy has them."""
    rows = [("path", "emotion", "speaker", "fold")]
    for speaker, fold in (("01", "1"), ("12", "2")):
        for number, emotion in enumerate(["happy", "sad", "angry", "surprised", "neutral"], 1):
            name = f"03-01-{number:02d}-01-01-01-{speaker}.wav"
            tone(root / name, 200.0)
            rows.append((name, emotion, f"banglaser_{speaker}", fold))
    _table(root / "manifest.csv", rows)


def emodb(root: Path) -> None:
    for speaker in ("03", "08", "15"):
        for letter in "WLEAFTN":
            tone(root / "wav" / f"{speaker}a01{letter}a.wav", 200.0, seconds=2.5)


def nemo(root: Path) -> None:
    rows = [["file_id", "emotion", "raw_text", "normalized_text", "speaker_id", "gender", "age"]]
    for speaker in ("EB0", "KS0"):
        for emotion in ("anger", "fear", "happiness", "neutral", "sadness", "surprised"):
            name = f"{speaker}_{emotion}_1.wav"
            tone(root / "samples" / name, 200.0)
            sex = "female" if speaker == "EB0" else "male"
            rows.append([name, emotion, "Lubię czytać.", "lubię czytać", speaker, sex, "27"])
    text = "\n".join("\t".join(row) for row in rows)
    (root / "data.tsv").write_text(text + "\n", encoding="utf-8")


def _table(path: Path, rows: Iterable[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


_MELD_HEAD = ("Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID",
              "Utterance_ID", "Season", "Episode", "StartTime", "EndTime")  # fmt: skip


def _meld_tables(root: Path) -> None:
    emotions = ("anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise")
    for split, dialogue in (("train", "0"), ("dev", "7")):
        rows = [
            (str(k + 1), f"Oh, that\x92s {e}.", "Monica", e, "neutral", dialogue, str(k), "8", "21",
             "00:16:16,059", "00:16:21,731")
            for k, e in enumerate(emotions)
        ]  # fmt: skip
        _table(root / f"{split}_sent_emo.csv", [_MELD_HEAD, *rows])


def meld_text(root: Path) -> None:
    _meld_tables(root)


def meld(root: Path) -> None:
    """Extracted .wav clips; one dev clip is missing, as in the release."""
    _meld_tables(root)
    for k in range(7):
        tone(root / "train_splits" / f"dia0_utt{k}.wav", 200.0)
        if k != 3:
            tone(root / "dev_splits_complete" / f"dia7_utt{k}.wav", 200.0)


def emorynlp(root: Path) -> None:
    head = ("Utterance", "Speaker", "Emotion", "Scene_ID", "Utterance_ID", "Season", "Episode",
            "Start_Time", "End_Time")  # fmt: skip
    emotions = ("Joyful", "Mad", "Neutral", "Peaceful", "Powerful", "Sad", "Scared")
    for split in ("train", "dev"):
        rows = [
            (f"This is {e}.", "['Monica Geller']", e, "1", str(k), "1", "2", "00:00:02.877", "x")
            for k, e in enumerate(emotions)
        ]
        _table(root / f"emorynlp_{split}_final.csv", [head, *rows])


def goemotions(root: Path) -> None:
    labels = ["anger", "disgust", "fear", "joy", "neutral", "sadness", "surprise"]
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.txt").write_text("\n".join(labels) + "\n")
    for split in ("train", "dev"):
        lines = [
            f'[NAME] said "{label}" in {split}.\t{k}\t{split}{k}' for k, label in enumerate(labels)
        ]
        lines += [
            f"More {label} from {split}\t{k}\t{split}more{k}" for k, label in enumerate(labels)
        ]
        lines.append(f"The same old joke\t3\t{split}joke")
        lines.append(f"Both at once\t0,5\t{split}both")
        (root / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def iemocap(root: Path) -> None:
    for session in (1, 2):
        base, dialogue = root / f"Session{session}", f"Ses0{session}F_impro01"
        evaluation, words = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""], []
        for k, emotion in enumerate(("neu", "hap", "exc", "sad", "ang", "fru", "xxx", "sur")):
            turn = f"{dialogue}_{'FM'[k % 2]}{k:03d}"
            evaluation += [
                f"[{k}.2901 - {k}.8200]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]",
                "C-E2:\tNeutral;\t()", "A-E3:\tval 3; act 2; dom  2;\t()", "",
            ]  # fmt: skip
            words.append(f"{turn} [{k:03d}.2901-{k:03d}.8200]: Excuse me number {k}.")
            tone(base / "sentences" / "wav" / dialogue / f"{turn}.wav", 200.0)
        for folder, lines in (("EmoEvaluation", evaluation), ("transcriptions", words)):
            path = base / "dialog" / folder / f"{dialogue}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n")


def mosei(root: Path, segments: int = 12) -> None:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("train.npz", "valid.npz")):
        labels = np.zeros((segments, 7), np.float32)
        labels[:, 0] = rng.uniform(-3, 3, segments)
        for k in range(segments):
            if k % 4:
                labels[k, 1 + k % 6] = 1.0 + k % 3
        write_split(
            root / name,
            audio=[rng.normal(size=(5 + k, 74)).astype(np.float32) for k in range(segments)],
            text=[rng.normal(size=(3 + k, 300)).astype(np.float32) for k in range(segments)],
            labels=labels,
            ids=[f"video{number}_{k // 2}[{k % 2}]" for k in range(segments)],
        )


def manifest(root: Path) -> None:
    tone(root / "clips" / "one.wav", 200.0)
    _table(
        root / "manifest.csv",
        [
            ("path", "emotion", "text", "speaker", "fold"),
            ("clips/one.wav", "joy", "", "ann", "1"),
            ("", "Sad", "I lost it.", "bob", "2"),
            ("clips/none.wav", "anger", "", "bob", "2"),
        ],
    )


TREES: dict[str, Callable[[Path], None]] = {
    "ravdess": ravdess, "crema_d": crema_d, "banglaser": banglaser, "emodb": emodb, "nemo": nemo, "meld": meld,
    "meld_text": meld_text, "iemocap": iemocap, "mosei": mosei, "goemotions": goemotions,
    "emorynlp": emorynlp, "manifest": manifest,
}  # fmt: skip
