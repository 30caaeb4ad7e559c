"""Recognisers: pocketsphinx as it is, Whisper with a tiny random network, and the filters."""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hri_emo_ros.asr import make_recogniser
from hri_emo_ros.asr.filters import (
    collapse_repetitions,
    is_silence_phrase,
    make_transcript,
    worth_recognising,
)
from hri_emo_ros.asr.pocketsphinx import PocketsphinxRecogniser
from hri_emo_ros.asr.whisper import WhisperRecogniser
from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.types import FloatArray, SignalQuality, Transcript, Word

DATA = Path(__file__).parent / "data"
SPOKEN = SignalQuality(20.0, -20.0, 0.0, 0.8)
SILENT = SignalQuality(float("nan"), -70.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def speech() -> FloatArray:
    """'In being comparatively modern.'"""
    return read_audio(DATA / "lj_LJ001-0002.flac")


@pytest.fixture(scope="module")
def sphinx() -> PocketsphinxRecogniser:
    return PocketsphinxRecogniser({})


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
    if transcript.words:
        mean = np.mean([w.confidence for w in transcript.words])
        assert transcript.confidence == pytest.approx(mean)
    else:
        assert transcript.text == ""
        assert transcript.confidence == 0.0


def words(text: str, confidence: float = 0.9) -> list[Word]:
    return [Word(w, i * 0.3, i * 0.3 + 0.2, confidence) for i, w in enumerate(text.split())]


# -- Choice ---------------------------------------------------------------------------------------


def test_without_a_whisper_model_pocketsphinx_is_taken() -> None:
    assert isinstance(make_recogniser({}), PocketsphinxRecogniser)


def test_with_a_whisper_model_whisper_is_taken(tiny_whisper: Path) -> None:
    recogniser = make_recogniser({"whisper.model": str(tiny_whisper)})
    assert isinstance(recogniser, WhisperRecogniser)
    assert recogniser.name == "faster-whisper:tiny-random"


def test_none_is_a_choice() -> None:
    assert make_recogniser({"asr.backend": "none"}) is None


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(HriEmoError, match=r"asr\.backend.*whisper.*pocketsphinx"):
        make_recogniser({"asr.backend": "google"})


# -- PocketSphinx ---------------------------------------------------------------------------------


def test_pocketsphinx_recognises_words_with_times_and_confidences(
    sphinx: PocketsphinxRecogniser, speech: FloatArray
) -> None:
    transcript = sphinx.transcribe(speech, SPOKEN)
    check_words(transcript, len(speech) / 16000)
    [word] = [w for w in transcript.words if w.text == "comparatively"]
    assert word.start == pytest.approx(0.41, abs=0.15)
    assert word.end == pytest.approx(1.27, abs=0.15)
    assert word.confidence > 0.5
    assert transcript.language == "en"
    assert transcript.latency > 0.0
    assert not any(c in transcript.text for c in "<[(+")


def test_a_transcript_depends_on_its_utterance_alone(
    sphinx: PocketsphinxRecogniser, speech: FloatArray
) -> None:
    before = sphinx.transcribe(speech, SPOKEN)
    sphinx.transcribe(speech[8000:] * np.float32(0.1), SPOKEN)
    assert sphinx.transcribe(speech, SPOKEN).words == before.words


@pytest.mark.parametrize(
    "samples",
    [np.zeros(0, np.float32), np.zeros(100, np.float32), np.zeros(32000, np.float32)],
    ids=["empty", "too short", "silence"],
)
def test_nothing_gives_an_empty_transcript(
    sphinx: PocketsphinxRecogniser, samples: FloatArray
) -> None:
    transcript = sphinx.transcribe(samples)
    assert (transcript.text, transcript.words, transcript.confidence) == ("", (), 0.0)


def test_an_utterance_without_speech_is_not_recognised(
    sphinx: PocketsphinxRecogniser, speech: FloatArray
) -> None:
    assert sphinx.transcribe(speech, SILENT).text == ""


def test_noise_gives_no_words(sphinx: PocketsphinxRecogniser) -> None:
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * np.float32(0.01)
    assert sphinx.transcribe(noise).text == ""


def test_doubtful_words_can_be_left_out(sphinx: PocketsphinxRecogniser, speech: FloatArray) -> None:
    everything = sphinx.transcribe(speech, SPOKEN)
    sphinx.configure({"asr.min_confidence": 0.5})
    kept = sphinx.transcribe(speech, SPOKEN)
    sphinx.configure({})
    assert kept.words == tuple(w for w in everything.words if w.confidence >= 0.5)
    assert kept.text == " ".join(w.text for w in kept.words)


def test_a_grammar_of_ones_own_is_taken_from_the_model_folder(
    tmp_path: Path, speech: FloatArray
) -> None:
    import pocketsphinx

    carried = Path(pocketsphinx.get_model_path()) / "en-us"
    shutil.copytree(carried / "en-us", tmp_path / "acoustic")
    shutil.copy(carried / "cmudict-en-us.dict", tmp_path)
    (tmp_path / "words.gram").write_text(
        "#JSGF V1.0;\ngrammar words;\npublic <words> = in being comparatively (modern | old);\n"
    )
    recogniser = PocketsphinxRecogniser({"pocketsphinx.model": str(tmp_path)})
    assert recogniser.transcribe(speech, SPOKEN).text == "in being comparatively modern"


def test_an_incomplete_pocketsphinx_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(HriEmoError, match=r"pocketsphinx\.model.*must hold"):
        PocketsphinxRecogniser({"pocketsphinx.model": str(tmp_path)})
    with pytest.raises(HriEmoError, match=r"pocketsphinx\.model.*not a folder"):
        PocketsphinxRecogniser({"pocketsphinx.model": str(tmp_path / "none")})


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
    with pytest.raises(HriEmoError, match=r"'base' is not on this machine.*allow_download"):
        make_recogniser({"whisper.model": "base"})
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


@pytest.mark.parametrize(
    ("said", "kept"),
    [("thank you. " * 20, "thank you."),
     ("I see I see I see I see I see", "I see"),
     ("we go to the we go to the we go to the shop", "we go to the shop"),
     ("no no no", "no no no"),
     ("no " * 12, "no"),
     ("very very good and very very bad", "very very good and very very bad"),
     ("", "")],
)  # fmt: skip
def test_loops_are_collapsed_and_emphasis_is_kept(said: str, kept: str) -> None:
    assert " ".join(w.text for w in collapse_repetitions(words(said))) == kept


def test_a_silence_phrase_is_invented_only_if_something_else_speaks_against_it() -> None:
    assert not is_silence_phrase("Thank you.", 0.9, 0.05, SPOKEN)
    assert is_silence_phrase("Thank you.", 0.3, 0.05, SPOKEN)
    assert is_silence_phrase("Thank you.", 0.9, 0.5, SPOKEN)
    assert is_silence_phrase("Thanks for watching!", 0.9, 0.05, SILENT)
    assert is_silence_phrase("Untertitel der Amara.org-Community", 0.5, 0.1, None)
    assert not is_silence_phrase("Thank you for the flowers.", 0.1, 0.9, SILENT)


def test_what_is_worth_recognising() -> None:
    loud = np.full(16000, 0.1, np.float32)
    assert worth_recognising(loud, None, 0.1)
    assert worth_recognising(loud, SPOKEN, 0.1)
    assert not worth_recognising(loud, SILENT, 0.1)
    assert not worth_recognising(loud[:1000], SPOKEN, 0.1)
    assert not worth_recognising(loud * np.float32(1e-5), SPOKEN, 0.1)


def test_a_transcript_of_no_words_is_empty_not_a_placeholder() -> None:
    assert make_transcript([], " ", 0.0, "en", 0.1) == Transcript("", confidence=0.0, latency=0.1)
    doubtful = make_transcript(words("perhaps", 0.1), " ", 0.5, "en", 0.1)
    assert (doubtful.text, doubtful.confidence) == ("", 0.0)
