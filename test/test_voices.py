# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Who speaks, how that voice usually sounds, and what is kept of it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recording_engine import QUALITY, Recorder
from safetensors.numpy import load_file, save_file
from scipy.stats import multivariate_normal

from hri_emo_ros.audio.files import read_audio
from hri_emo_ros.cli.main import main
from hri_emo_ros.data.noise import NoiseSource, mix
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.pipeline import Outcome, UtteranceJoiner, run_whole
from hri_emo_ros.types import SAMPLE_RATE, AbstainReason, SignalQuality, SpeechChunk
from hri_emo_ros.voices.baseline import Heard
from hri_emo_ros.voices.clusters import Points, VoiceSpace, affinity, cluster
from hri_emo_ros.voices.encoder import Embedding, SpeakerEncoder
from hri_emo_ros.voices.mel import mel_spectrogram
from hri_emo_ros.voices.memory import VoiceMemory
from hri_emo_ros.voices.profiles import load_profiles, save_profiles

ROOT = Path(__file__).parent
DATA, DEMO = ROOT / "data", ROOT.parent / "demo" / "clips"
SECOND = 1_000_000_000


def clips_of(speaker: str) -> list[np.ndarray]:
    """Real utterances of one speaker in several emotions."""
    if speaker == "jfk":
        whole = read_audio(DATA / "jfk_1961.flac")
        return list(np.split(whole[: 4 * 43_000], 4))
    return [read_audio(path) for path in sorted([*DATA.glob("ravdess_*"), *DEMO.iterdir()])
            if path.stem.endswith(f"-{speaker}")]  # fmt: skip


@pytest.fixture(scope="module")
def embedded() -> dict[str, list[Embedding]]:
    encoder = SpeakerEncoder()
    return {s: [encoder.embed(x) for x in clips_of(s)] for s in ("jfk", "11", "12")}


def plain_space(size: int = 8, between: float = 100.0) -> VoiceSpace:
    """Points are placed where their first numbers say."""
    projection = np.eye(256, size, dtype=np.float32)
    return VoiceSpace(np.zeros(256, np.float32), projection, np.full(size, between, np.float32))


def point(*values: float, seconds: float = 2.0) -> Embedding:
    vector = np.zeros(256, np.float32)
    vector[: len(values)] = values
    return Embedding(vector, seconds)


class Talk:
    """A memory of clear voices, each around a point of its own."""

    def __init__(self, **values: Any) -> None:
        self.memory = VoiceMemory(space=plain_space(), **values)
        self.random = np.random.default_rng(0)
        self.now = 0

    def say(self, voice: int, times: int = 1, final: bool = True, scale: float = 1.0) -> list[str]:
        told = []
        for _ in range(times):
            centre = np.zeros(8)
            centre[voice] = 30.0
            self.now += final
            place = point(*(centre + scale * self.random.normal(size=8)))
            told.append(self.memory.place(place, self.now * SECOND, final).voice_id)
        return told


# -- the encoder --------------------------------------------------------------------------------


def test_the_spectrogram_is_the_one_that_the_encoder_was_trained_on() -> None:
    librosa = pytest.importorskip("librosa")
    samples = read_audio(DATA / "emodb_11a02Wc.flac")
    expected = librosa.feature.melspectrogram(
        y=samples, sr=SAMPLE_RATE, n_fft=400, hop_length=160, n_mels=40
    ).T
    assert np.allclose(mel_spectrogram(samples), expected, rtol=1e-4, atol=1e-5)


def test_one_speakers_utterances_are_more_alike_than_two_speakers(
    embedded: dict[str, list[Embedding]],
) -> None:
    def likeness(one: str, other: str) -> float:
        a, b = ([e.vector for e in embedded[s]] for s in (one, other))
        return float(np.mean([x @ y for i, x in enumerate(a) for j, y in enumerate(b)
                              if one != other or i < j]))  # fmt: skip

    for one, other in (("jfk", "11"), ("jfk", "12"), ("11", "12")):
        assert min(likeness(one, one), likeness(other, other)) > likeness(one, other) + 0.05


@pytest.mark.parametrize("gain", [0.02, 0.3])
def test_a_voice_is_the_same_at_any_level(gain: float) -> None:
    encoder, samples = SpeakerEncoder(), read_audio(DATA / "lj_LJ001-0002.flac")
    loud, quiet = encoder.embed(samples), encoder.embed(samples * np.float32(gain))
    assert loud.vector @ quiet.vector > 0.98


def test_only_speech_is_read_and_its_seconds_are_told() -> None:
    encoder, samples = SpeakerEncoder(), read_audio(DATA / "lj_LJ001-0002.flac")
    amid = np.pad(samples, (2 * SAMPLE_RATE, 3 * SAMPLE_RATE))
    bare, padded = encoder.embed(samples), encoder.embed(amid)
    assert bare.vector @ padded.vector > 0.97
    assert padded.seconds == pytest.approx(bare.seconds, abs=0.2) and 1.0 < bare.seconds < 2.0


@pytest.mark.parametrize("samples", [
    np.zeros(0, np.float32), np.zeros(48_000, np.float32), np.full(48_000, 1e-6, np.float32),
    np.zeros(100, np.float32),
])  # fmt: skip
def test_without_speech_there_is_no_embedding(samples: np.ndarray) -> None:
    embedding = SpeakerEncoder().embed(samples)
    assert embedding.seconds == 0.0 and not embedding.vector.any()


# -- clusters -----------------------------------------------------------------------------------


def test_groups_join_by_the_exact_likelihood_ratio_of_one_voice_to_two() -> None:
    between = np.array([4.0, 0.5], np.float32)
    points = [np.array(p) for p in ((1.0, 0.2), (1.5, -1.0), (-2.0, 0.5))]

    def density(*chosen: int) -> float:
        """Of the points as draws of one voice: the direct way, with the full covariance."""
        x = np.stack([points[i] for i in chosen])
        size = len(chosen)
        return sum(
            multivariate_normal.logpdf(x[:, d], np.zeros(size), b + np.eye(size))
            for d, b in enumerate(between)
        )

    ratio = density(0, 1) - density(0) - density(1)
    items = [Points.of(points[0]), Points.of(points[1])]
    assert cluster(between, items, ratio - 1e-6) == [[0, 1]]
    assert cluster(between, items, ratio + 1e-6) == [[0], [1]]
    further = density(0, 1, 2) - density(0, 1) - density(2)
    pair = [items[0] + items[1], Points.of(points[2])]
    assert cluster(between, pair, further - 1e-6) == [[0, 1]]
    assert cluster(between, pair, further + 1e-6) == [[0], [1]]
    log_two_pi = np.log(2 * np.pi)  # affinity leaves it out, once a dimension
    given = density(0, 1, 2) - density(0, 1) + log_two_pi
    assert affinity(between, points[2], pair[0], 16.0) == pytest.approx(given)


# -- the memory ---------------------------------------------------------------------------------


def test_three_real_voices_in_turn_never_share_an_id(embedded: dict[str, list[Embedding]]) -> None:
    memory = VoiceMemory()
    owners: dict[str, set[str]] = {}
    last: list[str] = []
    for lap in range(4):  # the clips again and again, as nothing else is at hand
        last = []
        for i in range(4):
            for speaker in ("jfk", "11", "12"):
                embedding = embedded[speaker][i % len(embedded[speaker])]
                told = memory.place(embedding, (lap * 100 + i) * SECOND).voice_id
                last.append(told)
                if told:
                    owners.setdefault(told, set()).add(speaker)
    assert all(len(speakers) == 1 for speakers in owners.values()), owners
    assert {s for speakers in owners.values() for s in speakers} == {"jfk", "11", "12"}
    assert last.count("") <= 3


def test_the_first_voice_has_an_id_at_once_and_a_new_one_after_some_utterances() -> None:
    talk = Talk()
    assert talk.say(0, 3) == ["v1"] * 3
    told = talk.say(1, 6)
    assert told[0] == "" and told[-1] == "v2" and "v1" not in told
    assert talk.say(0) == ["v1"] and talk.say(1) == ["v2"]


def test_utterances_heard_of_the_voice_before_are_counted() -> None:
    talk = Talk()
    counts = [talk.memory.place(point(30.0), i * SECOND).utterances for i in range(80)]
    assert counts == list(range(80))
    assert talk.memory.voices["v1"].utterances == 80
    assert talk.memory.voices["v1"].seconds == pytest.approx(160.0)


@pytest.mark.parametrize("embedding", [point(30.0, seconds=0.5), point(seconds=0.0)])
def test_short_utterances_are_nobodys_and_change_nothing(embedding: Embedding) -> None:
    talk = Talk()
    talk.say(0, 3)
    speaker = talk.memory.place(embedding, SECOND)
    assert (speaker.voice_id, speaker.utterances) == ("", 0)
    assert talk.memory.voices["v1"].utterances == 3
    assert talk.memory.counters["voice_unsure"] == 1


def test_noise_is_nobodys() -> None:
    memory = VoiceMemory()
    speech = clips_of("jfk")[0]
    loud = mix(speech, NoiseSource("pink", SAMPLE_RATE).take(len(speech)), -5.0)
    assert memory.embed(loud, SignalQuality(-5.0, -20.0, 0.0, 0.9)).seconds == 0.0
    noise = NoiseSource("white", SAMPLE_RATE).take(3 * SAMPLE_RATE) * np.float32(0.1)
    assert memory.place(memory.embed(noise)).voice_id == ""


def test_an_utterance_between_two_voices_is_nobodys() -> None:
    talk = Talk()
    for _ in range(6):
        talk.say(0), talk.say(1)
    told = talk.memory.place(point(15.0, 15.0), SECOND).voice_id
    assert told == ""


def test_a_provisional_look_changes_nothing() -> None:
    talk, other = Talk(), Talk()
    talk.say(0, 3), other.say(0, 3)
    for voice in (0, 1):
        talk.say(voice, 5, final=False)
    assert talk.say(0, final=False) == ["v1"] and talk.say(1, final=False) == [""]
    talk.random, other.random = np.random.default_rng(1), np.random.default_rng(1)
    assert talk.say(1, 6) == other.say(1, 6)
    assert talk.memory.counters == other.memory.counters


def test_a_provisional_look_before_anybody_was_heard_tells_nobody() -> None:
    talk = Talk()
    assert talk.say(0, final=False) == [""]
    assert talk.say(0) == ["v1"]


def test_beyond_the_limit_the_voice_heard_longest_ago_is_forgotten_and_counted() -> None:
    talk = Talk(most_voices=2)
    for voice in range(3):
        talk.say(voice, 6)
    assert talk.memory.names == ["v2", "v3"]
    assert talk.memory.counters["voices_forgotten"] == 1
    assert talk.say(0, 6)[-1] == "v4", "an id is never given anew"


def test_a_voice_not_heard_for_long_is_forgotten() -> None:
    talk = Talk(forget_after=60.0)
    talk.say(0, 3)
    talk.say(1, 6)
    talk.now += 58
    talk.say(1, 3)
    talk.now += 10
    talk.say(1)
    assert talk.memory.names == ["v2"]


def test_a_clock_that_is_set_back_keeps_nobody_longer() -> None:
    talk = Talk(forget_after=60.0)
    talk.now += 10_000
    talk.say(0, 3)
    talk.now -= 9_000
    talk.say(1, 6)
    talk.now += 58
    talk.say(1, 3)
    assert talk.memory.names == ["v2"]


def test_forgetting_one_keeps_the_others_and_forgetting_all_keeps_nothing() -> None:
    talk = Talk()
    for voice in (0, 1):
        talk.say(voice, 6)
    speaker = talk.memory.place(point(30.0), talk.now * SECOND)
    talk.memory.learn(speaker, np.ones(4, np.float32), 1.0)
    assert talk.memory.forget("v9") == 0
    assert talk.memory.forget("v1") == 1 and talk.memory.names == ["v2"]
    assert talk.memory.heard("v2") == (None, None), "what v1 gave is gone too"
    assert talk.say(0, 6)[-1] == "v3"
    assert talk.memory.forget() == 2
    assert talk.memory.names == [] and talk.memory.heard("") == (None, None)
    assert talk.say(0) == ["v4"]


def test_two_that_prove_to_be_one_are_joined() -> None:
    talk = Talk()
    for place in (point(30.0), point(30.0, 0.0, 5.6)):
        for number in range(5):
            talk.memory.place(place, number * SECOND)
    assert talk.memory.names == ["v1", "v2"]
    for number in range(20):  # the same voice halfway between
        talk.memory.place(point(30.0, 0.0, 2.8), number * SECOND)
    assert len(talk.memory.names) == 1 and talk.memory.counters["voices_joined"] == 1
    assert talk.memory.voices[talk.memory.names[0]].utterances >= 20


@pytest.mark.parametrize(("most", "seed"), [(2, 0), (4, 4), (16, 2)])
def test_whatever_is_said_the_memory_stays_of_one_piece(most: int, seed: int) -> None:
    """Voices that drift into each other and apart, in any order, often with too little room."""
    memory, random = VoiceMemory(most, space=plain_space()), np.random.default_rng(seed)
    centres = random.normal(0.0, 3.0, (4, 8))
    ids: set[str] = set()
    for step in range(300):
        if random.random() < 0.01:
            memory.forget(str(random.choice(memory.names)) if memory.names else None)
        centres += random.normal(0.0, 0.15, centres.shape)
        place = point(*(centres[random.integers(4)] + random.normal(size=8)))
        speaker = memory.place(place, step * SECOND, final=bool(random.random() < 0.95))
        memory.learn(speaker, np.ones(4, np.float32), 1.0)
        names = {"", *memory.names}
        assert len(memory.names) <= most and speaker.voice_id in names
        assert {u.voice for u in memory._recent} | {u.group for u in memory._recent} <= names
        ids |= set(memory.names)
        assert sum(v.utterances for v in memory.voices.values()) <= step + 1
    assert len(ids) == memory.counters["voices_found"]


def test_baselines_are_the_voices_own_and_everybody_elses() -> None:
    talk = Talk()
    given: dict[str, list[float]] = {"v1": [], "v2": []}
    random = np.random.default_rng(3)
    for number in range(16):
        voice = number % 2
        centre = [0.0, 0.0]
        centre[voice] = 30.0
        speaker = talk.memory.place(point(*centre), number * SECOND)
        value = float(random.normal())
        given[f"v{voice + 1}"].append(value)
        talk.memory.learn(speaker, np.full(4, value, np.float32), 0.5)
    for own, other in (("v1", "v2"), ("v2", "v1")):
        voice, room = talk.memory.heard(own)
        assert voice is not None and room is not None
        # What was learnt before v2 had its id counts for it too.
        assert voice.count == pytest.approx(4.0, rel=0.05)
        assert voice.total[0] / voice.count == pytest.approx(np.mean(given[own]), abs=0.05)
        assert room.total[0] / room.count == pytest.approx(np.mean(given[other]), abs=0.05)
    voice, room = talk.memory.heard("")
    assert voice is None and room is not None and room.count == pytest.approx(8.0, rel=0.05)


def test_the_baseline_forgets_slowly_and_memory_stays_bounded() -> None:
    talk = Talk()
    for number in range(400):
        speaker = talk.memory.place(point(30.0), number * SECOND)
        talk.memory.learn(speaker, np.full(4, float(number >= 200), np.float32), 1.0)
    voice, room = talk.memory.heard("v1")
    assert voice is not None and room is None
    assert 64 < voice.count < 128
    assert 0.8 < voice.total[0] / voice.count < 0.99
    assert len(talk.memory._recent) == 64


# -- profiles -----------------------------------------------------------------------------------


def known(**values: Any) -> Talk:
    talk = Talk(**values)
    for number in range(12):
        centre = [0.0, 0.0]
        centre[number % 2] = 30.0
        speaker = talk.memory.place(point(*centre), number * SECOND)
        talk.memory.learn(speaker, np.full(4, number % 2, np.float32), 1.0)
    return talk


def test_a_restart_with_the_file_continues_where_it_was(tmp_path: Path) -> None:
    path, before = tmp_path / "new" / "voices.safetensors", known()
    save_profiles(before.memory, path, "model-1")
    after = Talk()
    assert load_profiles(after.memory, path, "model-1") == 2
    assert after.memory.names == ["v1", "v2"]
    for name in ("v1", "v2"):
        old, new = before.memory.heard(name)[0], after.memory.heard(name)[0]
        assert old is not None and new is not None
        assert new.count == pytest.approx(old.count) and np.allclose(new.total, old.total)
        assert after.memory.voices[name].utterances == 6
    assert after.say(0) == ["v1"] and after.say(1) == ["v2"] and after.say(2, 6)[-1] == "v3"


def test_profiles_hold_no_audio_and_only_the_owner_may_read_them(tmp_path: Path) -> None:
    path = tmp_path / "voices.safetensors"
    save_profiles(known().memory, path, "model-1")
    assert path.stat().st_mode & 0o077 == 0
    assert {name.partition(".")[2] for name in load_file(path)} == {"points", "heard"}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert load_profiles(VoiceMemory(), tmp_path / "none", "model-1") == 0


def test_another_models_profiles_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path, talk = tmp_path / "voices.safetensors", Talk()
    save_profiles(known().memory, path, "model-1")
    with pytest.raises(
        HriEmoError, match=r"made with model 'model-1', this is 'model-2'.*voices\.profiles"
    ):
        load_profiles(talk.memory, path, "model-2")
    assert talk.memory.names == []


def damaged(content: bytes, how: str) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    voices = json.loads(header["__metadata__"]["voices"])

    def packed() -> bytes:
        header["__metadata__"]["voices"] = json.dumps(voices)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    if how == "cut off":
        return content[: len(content) // 2]
    if how == "a long header":
        return struct.pack("<Q", 1 << 60) + content[8:]
    if how == "empty":
        return b""
    if how == "a pickle":
        return b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix."
    if how == "large tensors":
        name = next(n for n in header if n != "__metadata__")
        header[name]["shape"] = [1 << 40]
        return packed()
    if how == "a bad id":
        voices["voices"]["../v1"] = voices["voices"].pop("v1")
    elif how == "an id to come":
        voices["next"] = 2
    elif how == "a count that is none":
        voices["voices"]["v1"]["utterances"] = -3
    elif how == "no counts":
        voices["voices"]["v1"] = []
    elif how == "another format":
        voices["format"] = 7
    return packed()


@pytest.mark.parametrize("how", [
    "cut off", "a long header", "empty", "a pickle", "large tensors", "a bad id", "an id to come",
    "a count that is none", "no counts", "another format",
])  # fmt: skip
def test_broken_profiles_are_refused_in_a_sentence_and_nothing_changes(
    tmp_path: Path, how: str
) -> None:
    path, talk = tmp_path / "voices.safetensors", Talk()
    save_profiles(known().memory, path, "model-1")
    path.write_bytes(damaged(path.read_bytes(), how))
    talk.say(0, 2)
    with pytest.raises(HriEmoError, match=r"voices\.safetensors' cannot be used.*voices\.profiles"):
        load_profiles(talk.memory, path, "model-1")
    assert talk.memory.names == ["v1"]


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "voices.safetensors"
    save_profiles(known().memory, path, "model-1")
    content = json.loads(_metadata(path))
    tensors = load_file(path)
    tensors["v1.heard"] = np.full(4, np.nan, np.float32)
    save_file(tensors, path, {"voices": json.dumps(content)})
    with pytest.raises(HriEmoError, match="v1 holds numbers that are not finite"):
        load_profiles(Talk().memory, path, "model-1")


def _metadata(path: Path) -> str:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    found: str = json.loads(content[8 : 8 + length])["__metadata__"]["voices"]
    return found


def test_a_smaller_limit_keeps_the_voices_heard_last(tmp_path: Path) -> None:
    path = tmp_path / "voices.safetensors"
    save_profiles(known().memory, path, "model-1")
    talk = Talk(most_voices=1)
    load_profiles(talk.memory, path, "model-1")
    assert talk.memory.names == ["v2"] and talk.memory.counters["voices_forgotten"] == 1


def test_a_write_that_fails_leaves_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "voices.safetensors"
    save_profiles(known().memory, path, "model-1")
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HriEmoError, match=r"No space left on device.*voices\.profiles"):
        save_profiles(known().memory, path, "model-1")
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


# -- in the pipeline ----------------------------------------------------------------------------


class Room:
    """A joiner that hears whole clips."""

    def __init__(self, **values: Any) -> None:
        self.engine = Recorder()
        self.outcomes: list[Outcome] = []
        names = {name.replace("__", "."): value for name, value in values.items()}
        self.joiner = UtteranceJoiner(
            self.engine, {"transcript.source": "none", **names}, self.outcomes.append, live=False
        )

    def hear(self, samples: np.ndarray) -> Outcome:
        return run_whole(samples, None, self.joiner)


def test_every_estimate_says_whose_it_is_and_rests_on_what_was_heard_before() -> None:
    room = Room()
    jfk = clips_of("jfk")
    heard = [room.hear(clip).estimate for clip in (jfk[0], jfk[1], jfk[2])]
    assert [e.voice_id for e in heard] == ["v1"] * 3
    assert [e.voice_utterances for e in heard] == [0, 1, 2]
    assert [own for own, _ in room.engine.heard] == pytest.approx([0.0, 1.0, 2.0], rel=0.05)
    unknown = room.hear(clips_of("12")[0]).estimate
    assert (unknown.voice_id, unknown.voice_utterances) == ("", 0)
    own, others = room.engine.heard[-1]
    assert own == 0.0 and others == pytest.approx(3.0, rel=0.05), "the room is known all the same"


def test_provisional_states_tell_the_voice_and_change_nothing() -> None:
    room = Room()
    jfk = clips_of("jfk")
    room.hear(jfk[0])
    for sequence, part in enumerate(np.split(jfk[1][:40_000], 10)):
        room.joiner.speech(
            SpeechChunk(2, sequence, sequence * SECOND // 4, 0, sequence * 4000, part, QUALITY,
                        last=sequence == 9, endpoint=sequence == 8), sequence / 4
        )  # fmt: skip
    provisional = [o.estimate for o in room.outcomes if o.stage == "provisional"]
    assert provisional and provisional[-1].voice_id == "v1"
    assert provisional[-1].voice_utterances == 1
    assert room.outcomes[-1].estimate.voice_utterances == 1
    assert room.joiner.voices is not None
    assert room.joiner.voices.voices["v1"].utterances == 2


def test_switched_off_no_voice_is_told_and_what_was_known_is_forgotten() -> None:
    room = Room()
    clip = clips_of("jfk")[0]
    room.hear(clip)
    room.joiner.configure({"transcript.source": "none", "voices.enabled": False})
    estimate = room.hear(clip).estimate
    assert (estimate.voice_id, room.joiner.voices, room.engine.heard[-1]) == ("", None, (0.0, 0.0))
    room.joiner.configure({"transcript.source": "none"})
    assert room.hear(clip).estimate.voice_utterances == 0


def test_an_estimate_that_fails_still_says_whose_it_was() -> None:
    room = Room()
    room.hear(clips_of("jfk")[0])
    room.engine.fail = True
    estimate = room.hear(clips_of("jfk")[1]).estimate
    assert estimate.abstain_reason is AbstainReason.ERROR and estimate.voice_id == "v1"


def test_a_voice_that_cannot_be_computed_does_not_stop_the_estimates(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Room()

    def broken(*arguments: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(SpeakerEncoder, "embed", broken)
    outcome = room.hear(clips_of("jfk")[0])
    assert not outcome.error and outcome.estimate.voice_id == ""
    assert room.joiner.counters["errors"] == 1 and "no such operator" in room.joiner.last_error


def test_the_pipeline_writes_profiles_only_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Room().hear(clips_of("jfk")[0])
    assert list(tmp_path.iterdir()) == []
    path = str(tmp_path / "voices.safetensors")
    Room(voices__profiles=path).hear(clips_of("jfk")[0])
    again = Room(voices__profiles=path)
    estimate = again.hear(clips_of("jfk")[1]).estimate
    assert (estimate.voice_id, estimate.voice_utterances) == ("v1", 1)
    assert again.joiner.forget_voices("v1") == 1
    assert Room(voices__profiles=path).hear(clips_of("jfk")[2]).estimate.voice_utterances == 0


def test_profiles_that_cannot_be_written_are_counted_and_nothing_stops(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    room = Room()
    room.joiner._profiles = str(tmp_path / "file" / "voices")
    assert room.hear(clips_of("jfk")[0]).estimate.voice_id == "v1"
    assert room.joiner.counters["profiles_not_written"] == 1
    assert "voices.profiles" in room.joiner.last_error


def test_a_broken_profile_file_refuses_the_start(tmp_path: Path) -> None:
    path = tmp_path / "voices.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(HriEmoError, match=r"voices\.profiles"):
        Room(voices__profiles=str(path))


# -- its evaluation -----------------------------------------------------------------------------


def manifest(folder: Path, speakers: tuple[str, ...]) -> Path:
    path = folder / "manifest.csv"
    rows = [
        f"{clip},{emotion},{speaker},male"
        for speaker in speakers
        for clip, emotion in zip(
            [p for p in sorted(DEMO.iterdir()) if p.stem.endswith(f"-{speaker}")],
            ("neutral", "happy", "angry", "sad"),
            strict=True,
        )
    ]
    path.write_text("\n".join(["path,emotion,speaker,sex", *rows * 2]) + "\n")
    return path


def test_voices_are_scored_on_bags_of_real_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = manifest(tmp_path, ("11", "12")), tmp_path / "out.json"
    status = main(["voices", "--manifest", str(path), "--voices", "1,2", "--bags", "2",
                   "--turns", "8", "--json", str(out)])  # fmt: skip
    assert status == 0 and "2 voices" in capsys.readouterr().out
    result = json.loads(out.read_text())
    # Of 8 turns 3 come after the fifth; one speaker in two bags, two in two more.
    assert 0 < result["scored"] <= 2 * 3 + 2 * 2 * 3
    assert result["by_speakers"]["1"]["speakers"] == 1.0
    assert 0.0 <= result["wrong"] <= 1.0 and result["wrong"] + result["unsure"] <= 1.0


def test_bags_of_more_voices_than_there_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = manifest(tmp_path, ("11",))
    assert main(["voices", "--manifest", str(path), "--voices", "3", "--turns", "4"]) == 2
    assert "bags of 3 voices" in capsys.readouterr().err


def test_heard_adds_up() -> None:
    heard = Heard.nothing(2).add(np.array([2.0, 4.0], np.float32), 0.5)
    both = heard + heard.scaled(3.0)
    assert both.count == 2.0 and both.total.tolist() == [4.0, 8.0]
    assert both.capped(1.0).count == 1.0 and both.capped(1.0).total.tolist() == [2.0, 4.0]
