# Copyright hri_emo_ros contributors; SPDX-License-Identifier: Apache-2.0
"""Reading and making bags: every family and storage, and what is wrong with a bag in one sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from hri_emo_ros.audio.pcm import PcmFormat
from hri_emo_ros.cli.main import main
from hri_emo_ros.errors import HriEmoError
from hri_emo_ros.evaluation.bag_make import BagRecipe, make_bag
from hri_emo_ros.evaluation.bags import AudioBag, TruncatedBagError
from hri_emo_ros.evaluation.labels import check_within, read_labels
from hri_emo_ros.evaluation.rosbag_types import AUDIO_DATA, AUDIO_INFO, audio_typestore

DATA = Path(__file__).parent / "data"
MANIFEST = (
    "path,emotion,speaker,text\n{data}/lj_LJ001-0008.flac,neutral,lj,has never been surpassed.\n"
)


@pytest.fixture
def recipe(tmp_path: Path) -> BagRecipe:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(MANIFEST.format(data=DATA))
    return BagRecipe(manifest, gap=(0.2, 0.4), noise="pink", snr_db=30.0)


def pcm(bag: Path, **options: Any) -> np.ndarray:
    with AudioBag(bag, **options) as audio:
        return np.frombuffer(b"".join(m.data for m in audio.messages()), "<i2")


def pcm_until_break(bag: Path) -> tuple[np.ndarray, str]:
    """The samples of a damaged bag and what is said about it."""
    parts = []
    with AudioBag(bag) as audio:
        try:
            for message in audio.messages():
                parts.append(np.frombuffer(message.data, "<i2"))
        except TruncatedBagError as error:
            return np.concatenate(parts), str(error)
    raise AssertionError("the bag was taken for whole")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("message", ["AudioData", "AudioDataStamped", "AudioStamped"])
def test_each_family_and_storage_gives_back_the_same_samples(
    recipe: BagRecipe, tmp_path: Path, storage: str, message: str
) -> None:
    make_bag(recipe, tmp_path / "reference")
    make_bag(replace(recipe, storage=storage, message=message), tmp_path / "bag")
    with AudioBag(tmp_path / "bag") as bag:
        assert bag.format is not None
        assert (bag.format.sample_rate, bag.format.channels) == (16000, 1)
        assert bag.format.sample_format == "S16LE"
        first = next(bag.messages())
        chunk = 20_000_000 if message == "AudioData" else 0  # received when it is complete
        assert first.stamp_ns == first.receive_ns == recipe.start_ns + chunk
    assert np.array_equal(pcm(tmp_path / "bag"), pcm(tmp_path / "reference"))


def test_a_single_storage_file_is_read_without_its_folder(
    recipe: BagRecipe, tmp_path: Path
) -> None:
    make_bag(recipe, tmp_path / "bag")
    assert np.array_equal(pcm(tmp_path / "bag" / "bag.mcap"), pcm(tmp_path / "bag"))


def test_the_same_recipe_gives_the_same_bag_and_another_seed_another(
    recipe: BagRecipe, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        make_bag(recipe, tmp_path / name / "bag")
    make_bag(replace(recipe, seed=1), tmp_path / "three" / "bag")
    files = [(tmp_path / n / "bag" / "bag.mcap").read_bytes() for n in ("one", "two", "three")]
    assert files[0] == files[1] != files[2]


def test_rate_channels_and_chunk_length_are_as_asked(recipe: BagRecipe, tmp_path: Path) -> None:
    make_bag(replace(recipe, rate=44100, channels=2, chunk_ms=32.0), tmp_path / "bag")
    with AudioBag(tmp_path / "bag") as bag:
        assert bag.format is not None
        assert (bag.format.sample_rate, bag.format.channels) == (44100, 2)
        message = next(bag.messages())
    samples = np.frombuffer(message.data, "<i2").reshape(-1, 2)
    assert len(samples) == round(0.032 * 44100)
    assert np.array_equal(samples[:, 0], samples[:, 1])


def test_noise_has_the_level_asked_for(recipe: BagRecipe, tmp_path: Path) -> None:
    make_bag(replace(recipe, noise=""), tmp_path / "clean")
    make_bag(replace(recipe, noise="white", snr_db=10.0), tmp_path / "noisy")
    clean, noisy = pcm(tmp_path / "clean") / 32768, pcm(tmp_path / "noisy") / 32768
    speech = np.sqrt(np.mean(clean[clean != 0] ** 2))
    noise = np.sqrt(np.mean((noisy - clean) ** 2))
    assert 20 * np.log10(speech / noise) == pytest.approx(10.0, abs=1.5)


def test_labels_come_from_the_file_and_from_the_topic_alike(
    recipe: BagRecipe, tmp_path: Path
) -> None:
    make_bag(recipe, tmp_path / "bag")
    from_file = read_labels(tmp_path / "bag" / "labels.csv")
    with AudioBag(tmp_path / "bag") as bag:
        assert bag.labels() == from_file
        assert check_within(from_file, bag.duration, "labels") == from_file
        quiet = pcm(tmp_path / "bag")[: int(from_file[0].start * 16000) - 320]
    assert from_file[0].text == "has never been surpassed."
    assert np.abs(quiet).max() < 3000


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_bags_are_read(tmp_path: Path, mode: CompressionMode) -> None:
    sound = np.arange(320, dtype=np.int16)
    store = audio_typestore(AUDIO_DATA)
    writer = Writer(tmp_path / "bag", version=8)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/audio", AUDIO_DATA, typestore=store)
        message = store.types[AUDIO_DATA](sound.view(np.uint8))
        for n in range(10):
            writer.write(connection, n * 20_000_000, store.serialize_cdr(message, AUDIO_DATA))
    assert np.array_equal(pcm(tmp_path / "bag"), np.tile(sound, 10))


def write_topics(path: Path, topics: dict[str, str], coding: str = "wave") -> None:
    """A bag with one message on each topic."""
    store = audio_typestore(AUDIO_DATA)
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic, kind in topics.items():
            connection = writer.add_connection(topic, kind, typestore=store)
            make: Any = store.types[kind]
            if kind == AUDIO_INFO:
                message = make(1, 16000, "S16LE", 256000, coding)
            elif kind == AUDIO_DATA:
                message = make(np.zeros(640, np.uint8))
            else:
                message = make("hello")
            writer.write(connection, 1, store.serialize_cdr(message, kind))


def test_two_audio_topics_are_listed_and_one_can_be_chosen(tmp_path: Path) -> None:
    write_topics(tmp_path / "bag", {"/left": AUDIO_DATA, "/right": AUDIO_DATA})
    with pytest.raises(HriEmoError, match=r"2 audio topics.*--topic.*/left.*/right"):
        AudioBag(tmp_path / "bag")
    with AudioBag(tmp_path / "bag", topic="/right") as bag:
        assert bag.topic == "/right"
    with pytest.raises(HriEmoError, match="has no topic '/up'; it holds: /left"):
        AudioBag(tmp_path / "bag", topic="/up")


def test_each_audio_topic_takes_the_info_beside_it(tmp_path: Path) -> None:
    topics = {"/other/audio_info": AUDIO_INFO, "/mic/audio": AUDIO_DATA}
    write_topics(tmp_path / "bag", topics | {"/mic/audio_info": AUDIO_INFO})
    with AudioBag(tmp_path / "bag") as bag:
        assert bag.format == PcmFormat(16000)


def test_no_audio_topic_is_one_sentence(tmp_path: Path) -> None:
    write_topics(tmp_path / "bag", {"/chatter": "std_msgs/msg/String"})
    with pytest.raises(HriEmoError, match=r"no audio topic .* it holds: /chatter \(std_msgs"):
        AudioBag(tmp_path / "bag")
    with pytest.raises(HriEmoError, match="std_msgs/msg/String', which is none that carries audio"):
        AudioBag(tmp_path / "bag", topic="/chatter")


def test_a_type_that_nobody_defines_is_named(tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS2_HUMBLE)
    text, digest = store.generate_msgdef("std_msgs/msg/String", ros_version=2)
    with Writer(tmp_path / "bag", version=8) as writer:
        writer.add_connection("/audio", "robot_msgs/msg/Sound", msgdef=text, rihs01=digest)
    with pytest.raises(HriEmoError, match="robot_msgs/msg/Sound"):
        AudioBag(tmp_path / "bag", topic="/audio")


def test_compressed_audio_is_refused_unless_its_info_is_not_to_be_believed(tmp_path: Path) -> None:
    write_topics(tmp_path / "bag", {"/audio_info": AUDIO_INFO, "/audio": AUDIO_DATA}, "mp3")
    with AudioBag(tmp_path / "bag") as bag:
        with pytest.raises(HriEmoError, match="/audio_info': audio is coded as 'mp3'"):
            list(bag.sounds())
        (sound,) = bag.sounds({"audio.use_info": False})
    assert len(sound.frames) == 320


def test_missing_metadata_says_how_to_get_it(recipe: BagRecipe, tmp_path: Path) -> None:
    make_bag(recipe, tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with pytest.raises(HriEmoError, match=r"no metadata.yaml.*ros2 bag reindex.*bag\.mcap"):
        AudioBag(tmp_path / "bag")


def test_broken_metadata_and_missing_files_are_one_sentence(
    recipe: BagRecipe, tmp_path: Path
) -> None:
    make_bag(recipe, tmp_path / "bag")
    (tmp_path / "bag" / "bag.mcap").unlink()
    with pytest.raises(HriEmoError, match="cannot be read: Some database files are missing"):
        AudioBag(tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").write_text("{")
    with pytest.raises(HriEmoError, match="cannot be read"):
        AudioBag(tmp_path / "bag")
    with pytest.raises(HriEmoError, match="there is no bag"):
        AudioBag(tmp_path / "nowhere")


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_of_a_truncated_bag_the_beginning_is_read_and_the_break_reported(
    recipe: BagRecipe, tmp_path: Path, storage: str
) -> None:
    make_bag(replace(recipe, repeat=12, storage=storage), tmp_path / "bag")
    whole = pcm(tmp_path / "bag")
    file = next(p for p in (tmp_path / "bag").iterdir() if p.suffix in (".mcap", ".db3"))
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * 0.6)])
    read, error = pcm_until_break(tmp_path / "bag")
    assert re.search(r"\d+ messages of '/audio', up to \d+\.\d\d s", error)
    assert 0.4 * len(whole) < len(read) < 0.7 * len(whole)
    assert np.array_equal(read, whole[: len(read)])


def test_an_unindexed_mcap_is_read_whole_and_reported(recipe: BagRecipe, tmp_path: Path) -> None:
    make_bag(recipe, tmp_path / "bag")
    whole = pcm(tmp_path / "bag")
    file = tmp_path / "bag" / "bag.mcap"
    # A recorder that is killed leaves the data and no summary behind.
    file.write_bytes(file.read_bytes()[:-1200])
    read, error = pcm_until_break(tmp_path / "bag")
    assert "never closed" in error
    assert np.array_equal(read, whole)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("0,1,angry\n0.5,2,sad", "overlap"),
        ("0,1,furious", "line 2: emotion 'furious' is none of the model's: neutral, happy"),
        ("1,1,sad", "start 1 s must be smaller than end 1 s"),
        ("one,2,sad", "line 2: start and end must be numbers"),
    ],
)
def test_bad_labels_are_one_sentence(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"start,end,emotion\n{lines}\n")
    with pytest.raises(HriEmoError, match=message):
        read_labels(path)


def test_labels_outside_the_recording_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("start,end,emotion\n1,2,joy\n9,11,sad\n")
    labels = read_labels(path)
    assert labels[0].emotion == "happy"
    with pytest.raises(HriEmoError, match=r"9-11 s lies outside the recording, which is 10\.00 s"):
        check_within(labels, 10.0, "labels")


def test_labels_without_their_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("from,to\n1,2\n")
    with pytest.raises(HriEmoError, match=r"lack the column\(s\) emotion, end, start"):
        read_labels(path)


def test_the_command_makes_a_bag_and_refuses_nonsense_with_2(
    recipe: BagRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bag", "make", "--manifest", str(recipe.manifest), str(tmp_path / "bag")]
    assert main([*arguments, "--gap", "0.1:0.2", "--message", "AudioStamped"]) == 0
    assert (tmp_path / "bag" / "labels.csv").exists()
    assert main([*arguments, "--gap", "0.1:0.2"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main([*arguments, "--gap", "2:1"]) == 2
    assert "--gap is 2:1" in capsys.readouterr().err
    arguments[-1] = str(tmp_path / "other")
    assert main([*arguments, "--noise", str(tmp_path / "silence")]) == 2
    assert not (tmp_path / "other").exists()
    assert "no noise in" in capsys.readouterr().err


def test_a_burst_makes_the_noise_louder_where_it_is_and_nowhere_else(
    recipe: BagRecipe, tmp_path: Path
) -> None:
    make_bag(recipe, tmp_path / "calm")
    make_bag(replace(recipe, burst=(1.0, 2.0, 10.0)), tmp_path / "burst")
    calm, burst = pcm(tmp_path / "calm"), pcm(tmp_path / "burst")
    different = np.flatnonzero(calm != burst)
    assert 16_000 <= different.min() < 16_100
    assert 31_900 < different.max() < 32_000
    with pytest.raises(HriEmoError, match="--burst is 3:2:0"):
        make_bag(replace(recipe, burst=(3.0, 2.0, 0.0)), tmp_path / "refused")


def test_the_demo_recording_is_what_its_recipe_makes(tmp_path: Path) -> None:
    demo = Path(__file__).parents[1] / "demo"
    recipe = BagRecipe(
        demo / "manifest.csv",
        gap=(0.9, 1.5),
        noise="pink",
        snr_db=30.0,
        level_dbfs=-26.0,
        seed=7,
        burst=(28.5, 34.8, 2.0),
    )
    labels = make_bag(recipe, tmp_path / "recording")
    assert labels
    assert np.array_equal(pcm(tmp_path / "recording"), pcm(demo / "recording"))
    with AudioBag(demo / "recording") as bag:
        assert 40 < bag.duration < 60
